"""Every error bert4x raises on purpose.

Each message says what was found, what was expected and what to do about it. The types also derive from the
built-in a Python user would catch (`ValueError`, `FileNotFoundError`).
"""

import re
from collections.abc import Iterable

MAX_NAME = 100  # letters of a name that is compared with others


class Bert4xError(Exception):
    """Base of all errors raised by bert4x."""


class ConfigError(Bert4xError, ValueError):
    """A configuration is missing, incomplete, or contradicts itself or the tensors."""


class UnknownOptionError(ConfigError):
    """An option that no model takes; the message names the nearest valid one."""


class UnknownArchitectureError(ConfigError):
    """A model, application or family that is not built here."""


class CheckpointError(Bert4xError, ValueError):
    """Base of everything that can be wrong with a checkpoint."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """No such file or folder, or nothing in it that looks like weights."""


class UnknownFormatError(CheckpointError):
    """There is a file, but in no format, or with no family of names, that bert4x knows."""


class CorruptFileError(CheckpointError):
    """Truncated, damaged or failing its checksum."""


class UnsafeFileError(CheckpointError):
    """A file that tries to run code, climb out of its folder, or unpack without bound."""


class TensorMismatchError(CheckpointError):
    """Missing, unexpected, misshapen, duplicate or contradicting tensors; each is named."""


class NotFiniteError(CheckpointError):
    """NaN or infinity among the weights."""


class ConversionError(CheckpointError):
    """The target layout cannot express this model."""


class TokenizerError(Bert4xError, ValueError):
    """A vocabulary that cannot be read, or text that cannot be encoded as asked."""


class InputError(Bert4xError, ValueError):
    """Bad input to a model: ids outside the vocabulary, a sequence longer than its positions."""


class GenerationError(Bert4xError, ValueError):
    """Generation that was asked for in a way that cannot be."""


class DataError(Bert4xError, ValueError):
    """A file of examples that cannot be read, or says what it must not: the file and the line are named."""


class RunError(Bert4xError, ValueError):
    """A folder of a training run that cannot be used as asked."""


class HubError(Bert4xError, OSError):
    """Base of everything that can go wrong in fetching a published checkpoint."""


class UnknownModelError(HubError, CheckpointNotFoundError):
    """Neither a path nor a name that can be fetched; the message lists the nearest names of the catalogue."""


class OfflineError(HubError, CheckpointNotFoundError):
    """What is not here yet cannot be reached; the message lists the files, their addresses and where to put them."""


class DownloadError(HubError):
    """A server refused, vanished, or sent something else than the file."""


class ChecksumError(HubError, CorruptFileError):
    """A fetched file has another sha256 than published; it was deleted."""


class DiskSpaceError(HubError):
    """Not enough room for what is to be fetched; what has come so far stays, and the next attempt continues there."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message about `name`: the valid name that it may be meant for, if there is one, and all."""
    valid = sorted(valid)
    close = similar(name, valid)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"


def similar(name: str, valid: Iterable[str]) -> list[str]:
    """The valid names that `name` may be meant for, the likeliest first: misspelt in one letter, or in one of five, or
    cut short, or with a word left out ("num_layers" for "num_hidden_layers").

    Names of one or two letters must be equal but for their case: 负面 is no misspelt 正面, and "decoder" no "encoder".
    """
    name, found = str(name).casefold(), []
    allowed = max(1, len(name) // 5) if len(name) > 2 else 0
    first, *words = re.split(r"\W|_", name)
    for other in valid:
        whole = other.casefold()
        distance = misspellings(name, whole, allowed)
        start, *rest = re.split(r"\W|_", whole)
        short, long = sorted((name, whole), key=len)
        cut = long.startswith(short) and len(short) > max(3, len(long) // 2)
        if distance <= allowed or cut or (len(name) > 2 and first == start and set(words) < set(rest)):
            found.append((distance, other))
    return [other for _, other in sorted(found)]


def misspellings(a: str, b: str, most: int) -> int:
    """How many letters were left out, added, replaced, or taken before the one ahead of them; above `most`, any number
    above it.
    """
    if abs(len(a) - len(b)) > most or len(a) > MAX_NAME:
        return most + 1
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, y) == (b[j - 2], a[i - 2]):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
