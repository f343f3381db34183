"""Published checkpoints by name: a catalogue, and fetching from Hugging Face, its mirrors, ModelScope and addresses.

Nothing is ever reported anywhere, and no code of a repository is ever run. Names are imported when first used: a path
is told from a name without loading what fetches.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert4x.hub.catalogue import Entry, search
    from bert4x.hub.fetching import download, resolve
    from bert4x.hub.store import Cached, cached, check, remove

_HOME = {
    "Cached": "store",
    "Entry": "catalogue",
    "cached": "store",
    "check": "store",
    "download": "fetching",
    "remove": "store",
    "resolve": "fetching",
    "search": "catalogue",
}

__all__ = ["Cached", "Entry", "cached", "check", "download", "remove", "resolve", "search"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'bert4x.hub' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bert4x.hub.{_HOME[name]}"), name)
    globals()[name] = value
    return value
