"""The catalogue of published Chinese checkpoints (`bert4x/catalogue.toml`), and what a name means."""

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bert4x.errors import HubError, UnknownArchitectureError, UnknownModelError
from bert4x.families import families
from bert4x.hub import settings
from bert4x.hub.sources import Source

PATH = Path(__file__).parents[1] / "catalogue.toml"
OWNER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}")


def built() -> list[str]:
    """The families that this version loads; the others of the catalogue are planned."""
    return [name for name, cls in families().items() if cls.tables]


@dataclass(frozen=True)
class Entry:
    """One published checkpoint: what is known of it, and where it is."""

    name: str
    family: str
    layout: str  # "hf", "tf1"
    aliases: tuple[str, ...] = ()
    hf: str | None = None
    modelscope: str | None = None
    url: str | None = None
    parameters: str | None = None
    vocabulary: int | None = None
    license: str | None = None  # as its publisher states it
    sha256: str | None = None  # of the file at `url`
    mlm_head: str | None = None  # "random" or "absent", where it is not to be relied on
    notes: str | None = None
    checked: str = "read"  # "read": in READMEs, cards and configs; "loaded": the file itself was loaded and compared
    where: str | None = None  # a place that only a browser can fetch from

    @property
    def built(self) -> bool:
        """Whether this version can load it."""
        return self.family in built() and self.layout in ("hf", "tf1")

    def sources(self) -> list[Source]:
        """Where to look, first first."""
        found = []
        if self.hf:
            found += hugging_face_sources(self.hf)
        if self.url:
            found.append(Source("url", self.url))
        if self.modelscope:
            found.append(Source("modelscope", self.modelscope, settings.modelscope_endpoint()))
        return found

    def check_built(self) -> None:
        """Raises: UnknownArchitectureError for a family, or a layout of it, that is only planned."""
        if not self.built:
            planned = sorted({entry.family for entry in catalogue().values()} - set(built()))
            raise UnknownArchitectureError(
                f"{self.name} is of the family {self.family!r} in the layout {self.layout!r}, which this version does "
                f"not load; it loads {', '.join(built())}. Planned: {', '.join(planned)}. "
                f"`bert4x download {self.name}` fetches its files all the same"
            )


@dataclass(frozen=True)
class Wanted:
    """What a name means: a folder name for it here, and where to look."""

    name: str
    sources: list[Source]
    entry: Entry | None = None


@functools.cache
def catalogue() -> dict[str, Entry]:
    """All entries by name."""
    with PATH.open("rb") as file:
        entries = [Entry(**{**row, "aliases": tuple(row.get("aliases", ()))}) for row in tomllib.load(file)["model"]]
    return {entry.name: entry for entry in entries}


@functools.cache
def by_any_name() -> dict[str, Entry]:
    """All entries by every name they go by, in small letters; a name comes before others' aliases."""
    known: dict[str, Entry] = {}
    for entry in catalogue().values():
        for name in filter(None, (*entry.aliases, entry.hf)):
            known.setdefault(name.lower(), entry)
    return known | {name.lower(): entry for name, entry in catalogue().items()}


def find(name: str) -> Entry | None:
    """The entry of a name, alias or Hugging Face id."""
    return by_any_name().get(str(name).partition("@")[0].lower())


def hugging_face_sources(repository: str, revision: str | None = None) -> list[Source]:
    """Hugging Face and its mirror, or the HF_ENDPOINT alone."""
    chosen = settings.hugging_face_endpoint()
    endpoints = [chosen] if chosen else [settings.HUGGING_FACE, settings.HF_MIRROR]
    return [Source("hf", repository, endpoint, revision) for endpoint in endpoints]


def wanted(name: str, source: str | None = None, revision: str | None = None) -> Wanted:
    """What a name, id or address means. `source` is "hf", "hf-mirror", "modelscope" or an address to take it from.

    Raises: UnknownModelError when it is none of the catalogue and cannot be one elsewhere, and for the revision of what
        has none.
    """
    name = str(name)
    if re.match(r"https?://", name):
        name = settings.without_password(name)
        check_no_revision(name, revision)
        return Wanted(name, [Source("url", name)])
    bare, _, at = name.partition("@")
    revision = revision or at or None
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise UnknownModelError(f"{revision!r} is no revision; expected a branch, a tag or a commit")
    scheme, _, rest = bare.rpartition("://")
    entry = find(bare)
    if scheme in ("modelscope", "hf") and OWNER_NAME.fullmatch(rest):
        sources = hugging_face_sources(rest, revision)
        if scheme == "modelscope":
            sources = [Source("modelscope", rest, settings.modelscope_endpoint(), revision)]
        found = Wanted(f"{bare}@{revision}" if revision else bare, sources)
    elif entry is not None:
        sources = [Source(s.kind, s.id, s.endpoint, revision) for s in entry.sources()]
        if revision:
            sources = [s for s in sources if s.kind != "url"]
            if entry.url and not sources:
                check_no_revision(entry.name, revision)
            if source is None:  # of one place
                sources = [s for s in sources if s.kind == sources[0].kind]
        found = Wanted(entry.name + (f"@{revision}" if revision else ""), sources, entry)
    elif OWNER_NAME.fullmatch(bare) and ".." not in bare:
        found = Wanted(bare + (f"@{revision}" if revision else ""), hugging_face_sources(bare, revision))
    else:
        raise UnknownModelError(unknown(name))
    return found if source is None else Wanted(found.name, [from_one(found, source, revision)], entry)


def check_no_revision(name: str, revision: str | None) -> None:
    """Raises: UnknownModelError for the revision of an archive."""
    if revision:
        raise UnknownModelError(f"{name} is a file, which has no revisions; leave out {revision!r}")


def from_one(found: Wanted, source: str, revision: str | None) -> Source:
    """The one source that somebody asks for.

    Raises: HubError when the model is not known to be there.
    """
    if re.match(r"https?://", source):
        source = settings.without_password(source)
        same = next((s for s in found.sources if s.kind == "hf"), None)
        archive = source.rstrip("/").count("/") > 2
        if same and not archive:
            return Source("hf", same.id, source.rstrip("/"), revision)
        check_no_revision(source, revision)
        return Source("url", source)
    endpoints = {
        "hf": ("hf", settings.hugging_face_endpoint() or settings.HUGGING_FACE),
        "hf-mirror": ("hf", settings.HF_MIRROR),
        "modelscope": ("modelscope", settings.modelscope_endpoint()),
    }
    if source not in endpoints:
        raise HubError(
            f"no source {settings.hidden(source)!r}; expected {', '.join(endpoints)} or an address (https://...)"
        )
    kind, endpoint = endpoints[source]
    same = next((s for s in found.sources if s.kind == kind), None)
    if same is None:
        others = ", ".join(s.label for s in found.sources) or "nowhere that can be fetched from"
        raise HubError(f"{found.name} is not known to be on {source}; it is at {others}")
    return Source(kind, same.id, endpoint, revision)


def unknown(name: str) -> str:
    """The message about a name that means nothing, with the nearest of the catalogue."""
    close = near(name, by_any_name())
    hint = f"the nearest names of the catalogue: {', '.join(close)}" if close else "`bert4x models` lists the catalogue"
    return (
        f"{settings.hidden(name)[:200]!r} is no path that exists and no name of the catalogue; {hint}. "
        "A Hugging Face id is OWNER/NAME, ModelScope's modelscope://OWNER/NAME"
    )


def near(name: str, names: Iterable[str]) -> list[str]:
    """Up to five names of entries that are spelled like one."""
    word = name.lower().rstrip("/").rpartition("/")[2]
    names = {key.rpartition("/")[2]: find(key).name for key in names}
    close = difflib.get_close_matches(word, names, n=5, cutoff=0.6)
    return list(dict.fromkeys(names[key] for key in close))


def search(word: str | None = None, family: str | None = None) -> list[Entry]:
    """The entries of a family, and those in which a word occurs.

    Raises: HubError for a family the catalogue does not have.
    """
    families = sorted({entry.family for entry in catalogue().values()})
    if family is not None and family not in families:
        raise HubError(f"the catalogue has no family {family!r}; it has {', '.join(families)}")
    found = [entry for entry in catalogue().values() if family in (None, entry.family)]
    if word is None:
        return found
    word = word.lower()
    return [e for e in found if any(word in text.lower() for text in (e.name, *e.aliases, e.hf or "", e.notes or ""))]
