"""Paths, and names of published checkpoints: whoever takes both calls `local`, and goes on with a path."""

import os
import re
import warnings
from pathlib import Path

from bert4x.checkpoints.files import is_folder, tf1_prefix
from bert4x.errors import InputError

Location = str | os.PathLike
# What may be the name of a published checkpoint where it is no path: an address, NAME or OWNER/NAME; no file's name.
NAME = re.compile(
    r"\w+://.+|(?!.*\.(safetensors|bin|pth?|h5|keras|index|ckpt|json|txt)$)[\w-][\w.-]*(/[\w.-]+)?(@[\w./-]+)?"
)


def local(source: Location, *, weights: bool = True) -> Location:
    """A path as it is; for the name of a published checkpoint the folder of its files, which are fetched if need be.
    `weights=False` is content with its vocabulary, and takes what may lie in a folder that is there for a path.

    Raises: HubError, for a name; InputError for what is neither.
    """
    if not (source is None or isinstance(source, Location)):
        raise InputError(f"found {source!r:.60}; expected the path of a file or folder, or the name of a checkpoint")
    if not is_name(source):
        return source
    if not weights and Path(source).name != source and Path(source).expanduser().parent.is_dir():
        return source
    from bert4x.hub.fetching import resolve

    return resolve(source, weights=weights)


def is_name(source: Location | None) -> bool:
    """Whether something is the name of a published checkpoint: a string that looks like one, where no such path is.

    Raises: CheckpointNotFoundError for a name that no file can have.
    """
    if not isinstance(source, str) or not NAME.fullmatch(source):
        return False
    path = Path(source).expanduser()
    return not (is_folder(path) or path.exists() or tf1_prefix(path))


def family_by_name(source: Location) -> str | None:
    """The family of a published checkpoint, known by its name: some families have the same names of tensors."""
    if not is_name(source):
        return None
    from bert4x.hub.catalogue import find

    entry = find(source)
    return entry.family if entry is not None and entry.built else None


def warn_of_head(source: Location) -> None:
    """Warns of a checkpoint, known by its name, whose head for masked tokens is not the trained one."""
    if not is_name(source):
        return
    from bert4x.hub.catalogue import find

    entry = find(source)
    if entry is not None and entry.mlm_head == "random":
        warnings.warn(
            f"{entry.name} was published with a random head for masked tokens: its guesses mean nothing until it is "
            "trained further",
            stacklevel=3,
        )
