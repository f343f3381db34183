"""A script as text and as syntax: places come from the syntax tree, changes are made in the text.

So comments, layout and line ends stay as they are.
"""

import ast
import codecs
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bert4x.errors import DataError

MARK = "# bert4x: "
IMPORT, RULE, HAND, LOOK = "import", "changed", "by hand", "look"  # what became of a line


@dataclass(frozen=True, order=True)
class Note:
    """What is said of a line; `line` counts in the script as it was, from 1."""

    line: int
    kind: str
    text: str


@dataclass
class Script:
    """A script that is being changed.

    Raises: DataError for what is no Python 3.
    """

    source: str
    name: str = "<script>"
    folder: Path | None = None  # where modules beside it are looked for
    notes: list[Note] = field(default_factory=list)

    def __post_init__(self):
        try:
            self.tree = ast.parse(self.source)
        except (SyntaxError, ValueError) as error:
            where = f"{self.name}:{error.lineno}" if getattr(error, "lineno", None) else self.name
            raise DataError(
                f"{where} is no Python 3: {getattr(error, 'msg', error)}; a script for Python 2 goes through 2to3 first"
            ) from None
        self._bytes = self.source.encode()
        self._end_of_line = "\r\n" if b"\r\n" in self._bytes else "\n"
        self._starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._edits: list[tuple[int, int, bytes]] = []
        self._changed: dict[str, set[int]] = {IMPORT: set(), RULE: set()}
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.bound = set(bindings(self.tree))
        self.read = {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }

    def nodes(self, *kinds: type) -> Iterator[ast.AST]:
        """All nodes of these kinds, in the order of the text."""
        found = (node for node in ast.walk(self.tree) if isinstance(node, kinds))
        return iter(sorted(found, key=lambda node: (node.lineno, node.col_offset)))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where the text of a node begins and ends, in bytes."""
        first, last = node.lineno - 1, node.end_lineno - 1
        return self._starts[first] + node.col_offset, self._starts[last] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self._bytes[start:end].decode()

    def replace(self, node: ast.AST, old: str, new: str, kind: str = RULE) -> None:
        """Puts `new` for the first `old` in the text of a node."""
        start, end = self.span(node)
        place = self._bytes.find(old.encode(), start, end)
        if place < 0:  # written with spaces or over several lines
            self.note(node, HAND, f"{old} becomes {new}")
            return
        self._edit(place, place + len(old.encode()), new, node.lineno, node.end_lineno, kind)

    def rewrite(self, node: ast.AST, new: str, kind: str = RULE) -> None:
        """Puts another text for a node: with nothing, a statement goes with its line."""
        start, end = self.span(node)
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            start = self.span(node.decorator_list[0])[0] - 1
        if not new:
            body = self._block_of(node)
            line_start, line_end = self._starts[node.lineno - 1], self._starts[node.end_lineno]
            rest = self._bytes[end:line_end].strip()
            if body is not None and len(body) == 1:
                new = "pass"
            elif not self._bytes[line_start:start].strip() and (not rest or rest.startswith(b"#")):
                start, end = line_start, line_end
        self._edit(start, end, new, node.lineno, node.end_lineno, kind)

    def put(self, start: int, end: int, new: str, node: ast.AST) -> None:
        """Puts another text for some bytes of a node, by rule."""
        self._edit(start, end, new, node.lineno, node.end_lineno, RULE)

    def cut(self, start: int, end: int, node: ast.AST) -> None:
        """Takes bytes out of the text of an import."""
        self._edit(start, end, "", node.lineno, node.end_lineno, IMPORT)

    def append(self, node: ast.AST, lines: list[str]) -> None:
        """Adds imports below one that stands on lines of its own."""
        indent = " " * node.col_offset
        end = self.span(node)[1]
        self._edit(
            end,
            end,
            "".join(f"{self._end_of_line}{indent}{line}" for line in lines),
            node.lineno,
            node.end_lineno,
            IMPORT,
        )

    def note(self, node: ast.AST, kind: str, text: str) -> None:
        """Says something of the statement in which a node stands."""
        note = Note(node.lineno, kind, text)
        if note not in self.notes:
            self.notes.append(note)

    def changed_lines(self, kind: str) -> set[int]:
        """Numbers of the lines, in the script as it was, that were changed as an import or by rule."""
        return self._changed[kind]

    def result(self) -> str:
        """The changed text, with a comment above each statement of which something is to be said."""
        above: dict[int, list[str]] = {}
        statements = {node.lineno: node for node in reversed(list(self.nodes(ast.stmt)))}
        for note in sorted(self.notes):
            if note.kind == IMPORT:
                continue
            line = self._first_line(statements, note.line)
            words = above.setdefault(line, [])
            if note.text not in words:
                words.append(note.text)
        edits = list(self._edits)
        for line, words in above.items():
            start = self._starts[line - 1]
            row = self._bytes[start : self._starts[line]]
            indent = row[: len(row) - len(row.lstrip(b" \t"))]
            edits.append(
                (start, start, b"".join(indent + (MARK + text + self._end_of_line).encode() for text in words))
            )
        out, place = [], 0
        for start, end, new in sorted(edits, key=lambda edit: (edit[0], edit[1])):
            out += [self._bytes[place:start], new]
            place = end
        return b"".join([*out, self._bytes[place:]]).decode()

    def _edit(self, start: int, end: int, new: str, first: int, last: int, kind: str) -> None:
        self._edits.append((start, end, new.encode()))
        self._changed[kind].update(range(first, last + 1))

    def _block_of(self, node: ast.AST) -> list | None:
        parent = self.parents.get(node)
        if parent is None or parent is self.tree:
            return None
        return next((body for _, body in ast.iter_fields(parent) if isinstance(body, list) and node in body), None)

    def _first_line(self, statements: dict[int, ast.stmt], line: int) -> int:
        """The line on which the innermost statement around `line` begins, alone."""
        around = [node for node in statements.values() if node.lineno <= line <= node.end_lineno]
        for node in sorted(around, key=lambda node: -node.lineno):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            start = self._starts[node.lineno - 1]
            if not self._bytes[start : start + node.col_offset].strip():
                return first
        return line


def bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that is given a value anywhere in a script."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def read_script(path: Path) -> tuple[str, str]:
    """The text of a script and its encoding, as Python finds it.

    Raises: DataError for no file, and for bytes that are not in that encoding.
    """
    try:
        data = path.read_bytes()
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        return data.decode(encoding), encoding
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path} is no text in the encoding that it names, or UTF-8: {error}") from None


def write_script(path: Path, text: str, encoding: str) -> None:
    """Writes a new file, with line ends as they are.

    Raises: DataError where there is one already.
    """
    try:
        with codecs.open(str(path), "xb") as file:
            file.write(text.encode(encoding))
    except FileExistsError:
        raise DataError(f"{path} exists already; move it away, or delete it, and run again") from None
