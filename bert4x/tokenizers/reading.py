"""What goes wrong while a vocabulary is read is a `TokenizerError` that names the file."""

import contextlib
import os
from collections.abc import Iterator

from ..errors import Bert4xError, TokenizerError

MAX_MESSAGE = 1000


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns every error of the block into a `TokenizerError` about the file at `path`.

    Files are damaged in more ways than one can check for, and the `tokenizers` library panics at some of them: its
    PanicException is no `Exception`, so that an ordinary `except` does not catch it.
    """
    try:
        yield
    except Bert4xError as error:
        message = str(error)[:MAX_MESSAGE]  # which may hold a token of any length
        named, ours = str(path) in message, isinstance(error, TokenizerError)
        if named and ours:
            raise
        raise (type(error) if ours else TokenizerError)(message if named else f"{path}: {message}") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = str(error)[:MAX_MESSAGE] or "no more is known"
        raise TokenizerError(
            f"{path} is damaged, or is not what its name says ({type(error).__name__}: {what}); download it again"
        ) from error
