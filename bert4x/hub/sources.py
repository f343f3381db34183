"""Where files come from: Hugging Face and its mirrors, ModelScope, plain addresses."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests

from bert4x.checkpoints.staging import staging_folder
from bert4x.errors import CorruptFileError, DownloadError, UnsafeFileError
from bert4x.hub import settings, transfer, web
from bert4x.hub.selection import check_names, choose
from bert4x.hub.transfer import Remote, fetch
from bert4x.hub.web import INTERRUPTIONS, Passing, UnreachableError, encoded, reason, request
from bert4x.json_files import read_json

MAX_LISTING = 16 << 20  # bytes; a file takes about 300
MAX_NAME, MAX_PATH = 240, 4096  # bytes; a disk takes 255, and ".part.etag" is added to a name
DEFAULT_FILES = ("config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Listing:
    """The files to fetch, and the revision they are of, if the source has such."""

    files: list[Remote]
    revision: str | None = None


@dataclass(frozen=True)
class Source:
    """One place that has a model: `id` is OWNER/NAME there, or the address of an archive or file."""

    kind: str  # "hf", "modelscope", "url"
    id: str
    endpoint: str = ""
    revision: str | None = None

    @property
    def label(self) -> str:
        """For people."""
        return self.id if self.kind == "url" else f"{self.endpoint}/{'models/' * (self.kind != 'hf')}{self.id}"

    @property
    def headers(self) -> dict[str, str]:
        """A token goes to Hugging Face, or to the HF_ENDPOINT that somebody chose, and nowhere else."""
        token = settings.hugging_face_token() if self.kind == "hf" else None
        trusted = self.endpoint in (settings.HUGGING_FACE, settings.hugging_face_endpoint())
        return {"Authorization": f"Bearer {token}"} if token and trusted else {}

    def address(self, name: str, revision: str | None = None) -> str:
        """Where one file is."""
        if self.kind == "url":
            return self.id
        default = "main" if self.kind == "hf" else "master"
        revision = quote(revision or self.revision or default, safe="")
        return f"{self.label}/resolve/{revision}/{quote(name)}"

    def expected(self) -> list[str]:
        """What there is to fetch, as far as one can tell without asking."""
        return [file_name(self.id)] if self.kind == "url" else list(DEFAULT_FILES)

    @property
    def page(self) -> str:
        """Where a browser shows what a repository has."""
        return f"{self.label}/tree/{self.revision or 'main'}" if self.kind == "hf" else f"{self.label}/files"

    def listing(self, session: requests.Session, weights: bool = True) -> Listing:
        """Asks what there is, and chooses; an archive is one file.

        Raises: DownloadError, UnsafeFileError, UnknownFormatError.
        """
        if self.kind == "url":
            return Listing([Remote(file_name(self.id), self.id)])
        found = (hugging_face if self.kind == "hf" else modelscope)(self, session)
        check_names((remote.name for remote in found.files), self.label)
        by_name = {remote.name: remote for remote in found.files}
        chosen = [by_name[name] for name in choose(by_name, self.label, weights=weights)]
        return Listing([measured(session, remote) for remote in chosen], found.revision)


def file_name(url: str) -> str:
    """The name of the file at an address.

    Raises: DownloadError, UnsafeFileError for one that has none, or no name for a file.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or name.startswith("."):
        raise DownloadError(f"{url} ends in no file name; expected the address of a .zip, a .tar.gz or of one file")
    check_names([name], url)
    return name


def hugging_face(source: Source, session: requests.Session) -> Listing:
    """All files of a repository on Hugging Face or a mirror, with sizes and hashes."""
    revision = quote(source.revision or "main", safe="")
    url = f"{source.endpoint}/api/models/{source.id}/revision/{revision}?blobs=true"
    data = ask(session, url, source.headers)
    commit = data.get("sha")
    commit = commit if isinstance(commit, str) and re.fullmatch(r"[0-9A-Za-z._-]{1,128}", commit) else source.revision
    files = []
    for entry in entries(data.get("siblings"), url):
        lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
        remote = Remote(
            name := text(entry.get("rfilename"), url),
            source.address(name, commit),
            size=number(lfs.get("size", entry.get("size"))),
            sha256=digest(lfs.get("sha256") or lfs.get("oid"), 64),
            git_sha1=None if lfs else digest(entry.get("blobId"), 40),
            headers=source.headers,
        )
        files.append(remote)
    return Listing(files, commit)


def modelscope(source: Source, session: requests.Session) -> Listing:
    """All files of a repository on ModelScope."""
    revision = quote(source.revision or "master", safe="")
    url = f"{source.endpoint}/api/v1/models/{source.id}/repo/files?Revision={revision}&Recursive=true"
    data = ask(session, url, {})
    inner = data.get("Data") if isinstance(data.get("Data"), dict) else {}
    files = [
        Remote(
            name := text(entry.get("Path"), url),
            source.address(name),
            size=number(entry.get("Size")),
            sha256=digest(entry.get("Sha256"), 64),
        )
        for entry in entries(inner.get("Files"), url)
        if entry.get("Type") != "tree"
    ]
    return Listing(files, source.revision or "master")


def measured(session: requests.Session, remote: Remote) -> Remote:
    """The file with its size and hash, which a mirror's list may lack, but the headers of Hugging Face tell."""
    if remote.size is not None:
        return remote
    response = patient(lambda: request(session, remote.url, remote.headers, "HEAD"), remote.url)
    response.close()
    headers = response.headers
    etag = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size") or (None if encoded(response) else headers.get("Content-Length"))
    size = None if response.is_redirect and "X-Linked-Size" not in headers else size
    return replace(remote, size=number(size), sha256=remote.sha256 or digest(etag, 64))


def ask(session: requests.Session, url: str, headers: dict[str, str]) -> dict:
    """The JSON object at an address.

    Raises: DownloadError
    """
    with staging_folder(Path(tempfile.gettempdir()), "bert4x") as folder:
        path = folder / "listing.json"
        fetch(session, Remote(path.name, url, headers=headers), path)
        try:
            return read_json(path, limit=MAX_LISTING)
        except CorruptFileError:
            raise DownloadError(f"{url} answers no JSON; is this the address of such a hub?") from None


def patient(ask: Callable[[], requests.Response], url: str) -> requests.Response:
    """A request that is made once more when it fails in passing. Raises: UnreachableError"""
    try:
        return ask()
    except (Passing, *INTERRUPTIONS):
        transfer.time.sleep(transfer.BACKOFF)
    try:
        return ask()
    except (Passing, *INTERRUPTIONS) as error:
        raise UnreachableError(f"{url}: {reason(error)}") from None


def entries(value, url: str) -> list[dict]:
    """A list of objects.

    Raises: DownloadError for anything else.
    """
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise DownloadError(f"{url} lists no files; is this the address of such a hub?")
    return value


def text(value, url: str) -> str:
    """The name of a file.

    Raises: DownloadError for anything else, UnsafeFileError for one that no disk can hold.
    """
    if not isinstance(value, str):
        raise DownloadError(f"{url} lists a file without a name")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise UnsafeFileError(f"{url} lists a file {value[:80]!r}, whose name is not valid Unicode") from None
    if len(encoded) > MAX_PATH or any(len(part) > MAX_NAME for part in encoded.split(b"/")):
        raise UnsafeFileError(
            f"{url} lists a file {value[:80]!r}... of a name of {len(encoded)} bytes, which is too long"
        )
    return value


def number(value) -> int | None:
    """A size, if it is one."""
    if isinstance(value, str):
        value = web.number(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def digest(value, length: int) -> str | None:
    """A hash in hexadecimal, if it is one."""
    value = value.lower() if isinstance(value, str) else ""
    return value if len(value) == length and not value.strip("0123456789abcdef") else None
