"""Scripts written for bert4keras, to scripts that run here: `bert4x port script.py`.

Imports are changed; so is what Keras 3 calls otherwise, by a rule that a comment above the line tells; what needs a
hand is named in such a comment. Everything else is left as it stands.
"""

from dataclasses import dataclass
from pathlib import Path

from bert4x.porting.imports import SUFFIX, port_imports
from bert4x.porting.rules import port_rest
from bert4x.porting.script import HAND, IMPORT, LOOK, RULE, Note, Script, read_script, write_script

__all__ = ["HAND", "IMPORT", "LOOK", "RULE", "Note", "Ported", "port", "port_file", "target_of"]


@dataclass(frozen=True)
class Ported:
    """A script that was changed.

    Attributes:
        text: the new script.
        notes: what is said of its lines, by their numbers in the old one.
        lines: how many the old one has.
        imports: lines that were changed as imports, or deleted.
        rules: other lines that were changed.
    """

    text: str
    notes: list[Note]
    lines: int
    imports: int
    rules: int

    @property
    def by_hand(self) -> list[Note]:
        """What somebody has to change."""
        return [note for note in self.notes if note.kind == HAND]


def port(source: str, name: str = "<script>", folder: Path | None = None) -> Ported:
    """Changes a script of bert4keras'.

    Args:
        name: of the script, for errors.
        folder: where scripts lie that it may import; these are expected to be ported, too.
    Raises: DataError for what is no Python 3.
    """
    script = Script(source, name, folder)
    port_imports(script)
    port_rest(script)
    imports, rules = script.changed_lines(IMPORT), script.changed_lines(RULE)
    return Ported(script.result(), sorted(script.notes), len(source.splitlines()), len(imports), len(rules - imports))


def port_file(path: str | Path, write: bool = False) -> Ported:
    """Changes the script in a file; the file stays as it is, and with `write` a new one is put beside it.

    Raises: DataError for a file that cannot be read or is no Python 3, and where the new one exists already.
    """
    path = Path(path)
    source, encoding = read_script(path)
    ported = port(source, str(path), path.parent)
    if write:
        write_script(target_of(path), ported.text, encoding)
    return ported


def target_of(path: str | Path) -> Path:
    """The file that `port_file` writes."""
    path = Path(path)
    return path.with_name(f"{path.stem}{SUFFIX}.py")
