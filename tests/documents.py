"""The code blocks of Markdown files. All are run, but those under a comment `<!-- not run: why -->`."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason` says why it is not run, if it is not."""

    language: str
    code: str
    reason: str | None


def blocks(path: Path, language: str) -> list[Block]:
    """The blocks of one language in a file."""
    found = [Block(m["language"], m["code"], m["reason"]) for m in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    return [block for block in found if block.language == language]


def runnable(path: Path, language: str) -> str:
    """The blocks to run of a file, as one script."""
    return "\n".join(block.code for block in blocks(path, language) if block.reason is None)


def without_comments(code: str) -> str:
    """The code that two languages of a page must share: comments and blank space at the ends of lines left out."""
    return re.sub(r"[ \t]*(?:(?<=\s)|^)#[^\n]*|[ \t]+$", "", code, flags=re.M)


def run_python(path: Path) -> dict:
    """Runs the Python blocks of a file, as one module, in the current folder; its names."""
    names = {"__name__": path.stem}
    exec(compile(runnable(path, "python"), str(path), "exec"), names)
    return names
