"""From a name to a folder: what lies here already, or the first source that has it."""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import requests

from bert4x.checkpoints.staging import Progress
from bert4x.errors import (
    Bert4xError,
    ChecksumError,
    DownloadError,
    HubError,
    OfflineError,
    UnknownFormatError,
    UnknownModelError,
)
from bert4x.hub import catalogue, settings, store
from bert4x.hub.archives import extract, is_archive
from bert4x.hub.catalogue import Wanted
from bert4x.hub.locks import locked
from bert4x.hub.sources import Source
from bert4x.hub.transfer import check_room, fetch
from bert4x.hub.web import RefusedError, UnreachableError, new_session


def resolve(source: str, *, weights: bool = True) -> Path:
    """The folder of a model by its name, fetched if need be; `weights=False` is content with its vocabulary.

    Raises: UnknownModelError, UnknownArchitectureError for a family that is only planned; the errors of `download`.
    """
    entry = catalogue.find(source)
    if entry is not None:
        entry.check_built()
    return download(source, weights=weights)


def download(
    name: str,
    *,
    to: str | os.PathLike | None = None,
    source: str | None = None,
    revision: str | None = None,
    weights: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Fetches a model by name: one of the catalogue, OWNER/NAME of Hugging Face, modelscope://OWNER/NAME, an address.

    What lies here is not fetched again. `to` is a folder other than ours. `source` is "hf", "hf-mirror", "modelscope",
    a mirror's address or that of an archive; by default all known ones in turn. `progress(bytes, size)` replaces the
    bar that is shown on a terminal. Returns the folder.

    Raises: HubError, whose subclass says what is wrong (OfflineError ...); UnsafeFileError, CorruptFileError for what
    came.
    """
    found = catalogue.wanted(name, source, revision)
    folder = Path(to).expanduser() if to is not None else store.folder_of(found.name)
    if folder.exists() and not folder.is_dir():
        raise HubError(f"{folder} is a file; expected a folder to write into")
    if to is None:
        here = lying_here(found, weights)
        if here:
            return here
    elif folder.exists() and store.read_manifest(folder).get("name") != found.name and any(folder.iterdir()):
        raise HubError(f"{folder} is not empty and not a download of {found.name}; choose another folder")
    with locked(store.lock_of(folder), lambda: say(f"another process is fetching {found.name}; waiting for it")):
        if store.is_whole(folder, weights):
            return folder
        if settings.offline():
            taken = unpack_by_hand(found, folder)
            if taken:
                return folder
            raise OfflineError(by_hand(found, folder, "requests are switched off (BERT4X_OFFLINE or HF_HUB_OFFLINE)"))
        with writing(folder), bar(found.name) if progress is None else contextlib.nullcontext(progress) as shown:
            folder.mkdir(parents=True, exist_ok=True)
            fetch_into(folder, found, weights, shown)
    return folder


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises: HubError for what lies in the way of a folder or file, and for one that must not be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Bert4xError):
            raise
        place = error.filename2 or error.filename or folder
        raise HubError(
            f"{place} cannot be written: {error.strerror or error}; delete what lies there, or set BERT4X_HOME to "
            "another folder"
        ) from error


def lying_here(found: Wanted, weights: bool = True) -> Path | None:
    """The folder of a model that need not be fetched."""
    folder = store.folder_of(found.name)
    if store.is_whole(folder, weights):
        return folder
    aliases = found.entry.aliases if found.entry else ()  # some repositories had them as names once
    for source in found.sources if "://" not in found.name or found.name.startswith("hf:") else ():
        for repository in (source.id, *aliases) if source.kind == "hf" else ():
            here = store.in_hugging_face_cache(repository, source.revision, weights)
            if here:
                return here
    return None


def unpack_by_hand(found: Wanted, folder: Path) -> bool:
    """Unpacks an archive that somebody put into the folder, if there is one."""
    archives = [path for path in folder.iterdir() if is_archive(path.name)] if folder.is_dir() else []
    if len(archives) != 1:
        return False
    finish(folder, found, f"{archives[0].name}, put there by hand", None, extract(archives[0], folder))
    archives[0].unlink()
    return True


def fetch_into(folder: Path, found: Wanted, weights: bool, progress: Progress) -> None:
    """Fetches a model from the first of its sources that gives it.

    Raises: OfflineError, UnknownModelError, DownloadError, ChecksumError, DiskSpaceError, UnsafeFileError ...
    """
    if unpack_by_hand(found, folder):
        return
    if not (folder / store.MANIFEST).is_file():
        store.write_manifest(folder, {"name": found.name, "complete": False})
    failures: list[HubError | UnknownFormatError] = []
    refused = set()
    with new_session() as session:
        for source in found.sources:
            if source.kind in refused:  # there is no such repository: a mirror need not be asked
                continue
            try:
                fetch_from(session, source, found, folder, weights, progress)
            except (DownloadError, ChecksumError, UnknownFormatError) as error:
                failures.append(error)
                if isinstance(error, RefusedError):
                    refused.add(source.kind)
                continue
            if failures:
                warnings.warn(f"{failures[0]}. {found.name} was taken from {source.label}", stacklevel=2)
            return
    error = summary(failures, found, folder)
    if not isinstance(error, OfflineError) and [path.name for path in folder.iterdir()] == [store.MANIFEST]:
        (folder / store.MANIFEST).unlink()  # nothing came: a wrong name leaves no trace
        folder.rmdir()
    raise error


def fetch_from(
    session: requests.Session, source: Source, found: Wanted, folder: Path, weights: bool, progress: Progress
) -> None:
    """Fetches a model from one source.

    Raises: DownloadError, ChecksumError, UnknownFormatError, DiskSpaceError, UnsafeFileError, CorruptFileError.
    """
    listing = source.listing(session, weights)
    remotes = listing.files
    if source.kind == "url" and found.entry and found.entry.url == source.id:
        remotes = [replace(remote, sha256=found.entry.sha256) for remote in remotes]
    if source.kind != "url":
        listed = [{"name": remote.name, "size": remote.size, "url": remote.url} for remote in remotes]
        store.write_manifest(folder, {"name": found.name, "complete": False, "listed": listed})
    total = sum(remote.size or 0 for remote in remotes)
    here = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    check_room(folder, max(0, total - here))
    hashes, done = {}, 0
    for remote in remotes:
        path = folder / remote.name
        if (
            path.is_file() and not path.is_symlink() and remote.known
        ):  # of an interrupted download: verified, not fetched
            os.replace(path, folder / f"{remote.name}.part")
        before = done
        hashes[remote.name] = fetch(
            session, remote, path, lambda now, size, before=before: progress(before + now, max(total, before + size))
        )
        done += path.stat().st_size
    if len(remotes) == 1 and is_archive(remotes[0].name):
        hashes = extract(folder / remotes[0].name, folder)
        (folder / remotes[0].name).unlink()
    finish(folder, found, source.label, listing.revision, hashes, weights)


def finish(
    folder: Path, found: Wanted, source: str, revision: str | None, hashes: dict[str, str], weights: bool = True
) -> None:
    """Declares a folder whole."""
    files = {name: {"size": (folder / name).stat().st_size, "sha256": sha256} for name, sha256 in hashes.items()}
    manifest = {"name": found.name, "source": source, "revision": revision, "weights": weights, "files": files}
    store.write_manifest(folder, manifest | {"complete": True})
    # of a source that was given up, and of processes that were killed
    for left in (*folder.glob("*.part"), *folder.glob("*.part.etag"), *folder.glob(f".{store.MANIFEST}.*")):
        left.unlink()


def summary(failures: list, found: Wanted, folder: Path) -> HubError | UnknownFormatError:
    """What to raise when no source gave it."""
    if all(isinstance(failure, UnreachableError) for failure in failures):
        why = f"it cannot be reached: {failures[0]}" if failures else "it is published where only a browser gets it"
        return OfflineError(by_hand(found, folder, why))
    told = next(failure for failure in failures if not isinstance(failure, UnreachableError))
    if isinstance(told, RefusedError) and found.entry is None and "://" not in found.name:
        close = catalogue.near(found.name, catalogue.by_any_name())
        hint = f" The nearest names of the catalogue: {', '.join(close)}" if close else ""
        return UnknownModelError(f"{found.name!r} is no path that exists, and no model that can be had: {told}.{hint}")
    return told


def by_hand(found: Wanted, folder: Path, why: str) -> str:
    """What to fetch with a browser, and where to put it."""
    lines = [f"{found.name} is not here, and {why}. Put its files into the folder", f"  {folder}"]
    if found.entry is not None and found.entry.where:
        lines.append(f"from {found.entry.where}")
    listed = store.read_manifest(folder).get("listed")
    if isinstance(listed, list):  # by a source that answered before
        listed = [file for file in listed if isinstance(file, dict)]
        lines += [f"  {file.get('name')}  {megabytes(file.get('size'))}  {file.get('url')}" for file in listed]
        return "\n".join(lines)
    official = any(source.endpoint == settings.HUGGING_FACE for source in found.sources)
    for source in [s for s in found.sources if not (official and s.endpoint == settings.HF_MIRROR)]:
        lines.append(f"from {source.page}:" if source.kind != "url" else "from its publisher:")
        lines += [f"  {name}{size(found, name)}  {source.address(name)}" for name in source.expected()]
        if source.kind != "url":
            lines.append("  (one of the last two; and the vocabulary, where it is another than vocab.txt)")
    return "\n".join(lines)


def megabytes(size: int | None) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB" if isinstance(size, int) else ""


def size(found: Wanted, name: str) -> str:
    """About how large the weights are, from the number of parameters."""
    match = re.fullmatch(r"([\d.]+)([MB])", (found.entry and found.entry.parameters) or "")
    if not match or not name.endswith((".safetensors", ".bin", ".zip", ".tar.gz")):
        return ""
    return f" (about {4 * float(match[1]) * {'M': 1, 'B': 1000}[match[2]]:,.0f} MB as float32)"


def say(line: str) -> None:
    """Tells somebody who is watching."""
    if sys.stderr.isatty():
        print(f"bert4x: {line}", file=sys.stderr)


@contextlib.contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total or None)
