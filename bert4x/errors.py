"""Every error bert4x raises on purpose.

Each message says what was found, what was expected and what to do about it. The types also derive from the
built-in a Python user would catch (`ValueError`, `FileNotFoundError`).
"""

import difflib
from collections.abc import Iterable


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
    """Not enough room for what is to be fetched; what has come so far stays, and is gone on with."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message about `name`: the nearest valid name, and all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"
