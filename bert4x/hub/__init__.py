"""Published checkpoints by name: a catalogue, and fetching from Hugging Face, its mirrors, ModelScope and addresses.

Nothing is ever reported anywhere, and no code of a repository is ever run.
"""

from bert4x.hub.catalogue import Entry, search
from bert4x.hub.fetching import download, resolve
from bert4x.hub.store import Cached, cached, remove, verify

__all__ = ["Cached", "Entry", "cached", "download", "remove", "resolve", "search", "verify"]
