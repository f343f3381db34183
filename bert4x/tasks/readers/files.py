"""Files as lines of text: plain or .xz, in UTF-8.

A byte order mark and Windows' line ends are no part of the text. Unpaired surrogates, which no model and no file can
hold, become U+FFFD, with a warning that counts them.
"""

import lzma
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert4x.errors import DataError

LONGEST_LINE = 1 << 28  # bytes of a line, or of a JSON file, so that a damaged or hostile file does not fill the memory
SURROGATE = re.compile("[\ud800-\udfff]")
STDIN = "-"
# How files begin that are no text: what each is.
BINARY = (
    (b"PK\x03\x04", "a zip file, as Excel's .xlsx is: save it as CSV, or read it with pandas and pass the DataFrame"),
    (b"\xd0\xcf\x11\xe0", "a file of Microsoft Office: save it as CSV"),
    (b"PAR1", "Parquet: read it with pandas, and pass the DataFrame"),
    (b"ARROW1", "Arrow: read it with pandas, and pass the DataFrame"),
    (b"\x1f\x8b", "gzip: unpack it"),
    (b"BZh", "bzip2: unpack it"),
    (b"SQLite format 3", "a database of SQLite: read it with pandas, and pass the DataFrame"),
    (b"%PDF", "a PDF: take its text"),
)

Say = Callable[[str], None]


def warn(text: str) -> None:
    """How readers say by default what they decided: as a warning."""
    warnings.warn(text, stacklevel=3)


def lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """The lines of a file, numbered from 1, without their ends; "-" is standard input. Raises: DataError."""
    count = [0]
    with opened(path) as file:
        number = 0
        while line := guarded(file.readline, path, f"line {number + 1}"):
            number += 1
            if number == 1:
                check_text(line, path)
            line = decoded(line, f"{path}, line {number}").removesuffix("\n").removesuffix("\r")
            yield number, cleaned(line.removeprefix("\ufeff") if number == 1 else line, count)
    warn_of_surrogates(path, count[0])


def whole(path: str | os.PathLike) -> str:
    """A file as one text. Raises: DataError."""
    with opened(path) as file:
        data = guarded(file.read, path, "the file")
    check_text(data, path)
    return decoded(data, str(path)).removeprefix("\ufeff")


def ending(path: str | os.PathLike) -> str:
    """What a file's name says of its form, such as ".csv"; that of an archive is not it."""
    name = Path(path).name.lower().removesuffix(".xz")
    return Path(name).suffix


def opened(path: str | os.PathLike):
    """A file opened to read bytes, unpacked where it is compressed. Raises: DataError"""
    if path == STDIN:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, it takes names of any length
        exists = os.path.exists(path)
        raise DataError(f"{path}: {'not a file' if exists else 'no such file'}; expected a file of examples")
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


def guarded(read, path: str | os.PathLike, what: str) -> bytes:
    """Bytes read, up to a bound. Raises: DataError for more than that, and for a damaged file."""
    try:
        data = read(LONGEST_LINE + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: damaged at {what}: {error}") from None
    if len(data) > LONGEST_LINE:
        raise DataError(f"{path}: {what} has more than {LONGEST_LINE:,} bytes; expected shorter ones")
    return data


def decoded(data: bytes, where: str) -> str:
    """Bytes as text. Raises: DataError for what is no UTF-8."""
    try:  # some programs write surrogates as if they were characters; callers decide what to do with them
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: no UTF-8 ({error.reason} at byte {error.start}){other_encoding(data)}; save the file as UTF-8"
        ) from None


def other_encoding(data: bytes) -> str:
    """What bytes that are no UTF-8 seem to be."""
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    words = text.strip().replace("\t", " ")[:20]
    return f". As GB18030 (GBK, as Excel writes CSV on Chinese Windows) it says {words!r}: iconv -f GB18030 -t UTF-8"


def check_text(data: bytes, path: str | os.PathLike) -> None:
    """Checks how a file begins, by at least its first line. Raises: DataError for one that is no UTF-8 text."""
    if what := next((what for mark, what in BINARY if data.startswith(mark)), None):
        raise DataError(f"{path}: this is no text but {what}")
    if data.count(b"\r") > 1 and b"\n" not in data:
        raise DataError(f"{path}: its lines end with CR, as on old Macs; save it with the line ends of Unix or Windows")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: no UTF-8 but UTF-16, by its first bytes; save the file as UTF-8 (iconv -f UTF-16)")


def not_blank(text: str, where: str) -> str:
    """The text. Raises: DataError for one that is empty, or spaces."""
    if not text.strip():
        raise DataError(f"{where}: an empty text; expected one in every row: write it there, or delete the row")
    return text


def cleaned(value: Any, count: list[int]) -> Any:
    """The same with U+FFFD for surrogates, which are added to `count[0]`."""
    if isinstance(value, str):
        value, found = SURROGATE.subn("\ufffd", value)
        count[0] += found
    elif isinstance(value, list):
        return [cleaned(item, count) for item in value]
    elif isinstance(value, dict):
        return {cleaned(key, count): cleaned(item, count) for key, item in value.items()}
    return value


def warn_of_surrogates(path: str | os.PathLike, count: int) -> None:
    """Warns of unpaired surrogates, if there are any."""
    if count:
        warnings.warn(f"{path} has {count} unpaired surrogates; each is read as U+FFFD", stacklevel=4)
