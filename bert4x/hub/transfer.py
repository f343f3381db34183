"""One file over HTTP: resumed, verified, under its final name only when whole."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests
import urllib3

from bert4x.checkpoints.staging import Progress
from bert4x.errors import ChecksumError, DiskSpaceError, DownloadError
from bert4x.hub.web import INTERRUPTIONS, Passing, UnreachableError, encoded, number, reason, request, validator

BLOCK = 1 << 16  # bytes; what a killed process may have to fetch again
ATTEMPTS = 5  # in a row without a block gained
CONNECTIONS = 2  # of these, such as did not even connect: there may be no network, or another source
BACKOFF = 1.0  # seconds before the second attempt; doubles
MAX_WAIT = 300  # seconds; a server that asks for more is given up
MAX_UNDECLARED = 100 << 20  # bytes of a file whose size is not known
MARGIN = 64 << 20  # bytes of a disk to leave free


@dataclass(frozen=True)
class Remote:
    """A file elsewhere: its name here, its address, and what is known of it before it is fetched."""

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None  # of git's blob: what Hugging Face knows of its small files
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def known(self) -> bool:
        """Whether the bytes of two answers can be told to belong together by their hash."""
        return bool(self.sha256 or self.git_sha1)


class Hashes:
    """sha256, and git's sha1 if asked for, of bytes as they come."""

    def __init__(self, remote: Remote):
        self.remote, self.size, self.sha256 = remote, 0, hashlib.sha256()
        self.sha1 = None
        if remote.git_sha1 and remote.size is not None:
            self.sha1 = hashlib.sha1(f"blob {remote.size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Adds bytes."""
        self.size += len(data)
        self.sha256.update(data)
        if self.sha1:
            self.sha1.update(data)

    def problem(self) -> str | None:
        """What is wrong with the whole, if anything."""
        remote = self.remote
        if remote.size is not None and self.size != remote.size:
            return f"has {self.size:,} bytes, not the {remote.size:,} that are published"
        if remote.sha256 and self.sha256.hexdigest() != remote.sha256:
            return f"has sha256 {self.sha256.hexdigest()}, not the published {remote.sha256}"
        if self.sha1 and self.sha1.hexdigest() != remote.git_sha1:
            return f"has git hash {self.sha1.hexdigest()}, not the published {remote.git_sha1}"
        return None


def check_room(folder: Path, needed: int) -> None:
    """Raises: DiskSpaceError when a disk cannot take that many bytes more."""
    free = shutil.disk_usage(folder).free
    if needed + MARGIN > free:
        raise DiskSpaceError(
            f"{folder} has {free / 1e6:,.0f} MB free, but {needed / 1e6:,.0f} MB are to be written; "
            "make room, or set BERT4X_HOME to a folder on another disk"
        )


def fetch(session: requests.Session, remote: Remote, path: Path, progress: Progress = lambda done, total: None) -> str:
    """Fetches a file to `path`; returns its sha256. What a broken transfer left in `path.part` is continued.

    `progress(bytes, size)` is called as it grows; the size is 0 if unknown.
    Raises: DownloadError, ChecksumError, DiskSpaceError.
    """
    part = path.with_name(path.name + ".part")
    transfer = Transfer(session, remote, part, progress)
    hashes = transfer.run()
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    transfer.validator_file.unlink(missing_ok=True)
    return hashes.sha256.hexdigest()


class Transfer:
    """The attempts to get one file into its `.part`."""

    def __init__(self, session: requests.Session, remote: Remote, part: Path, progress: Progress):
        self.session, self.remote, self.part, self.progress = session, remote, part, progress
        self.validator_file = part.with_name(part.name + ".etag")
        self.ranges = True  # until the server lies about them
        for path in (self.part, self.validator_file):
            remove_link(path)

    def run(self) -> Hashes:
        """The file, whole and verified.

        Raises: DownloadError, ChecksumError, DiskSpaceError.
        """
        failures, distrusted = 0, False
        while True:
            before = self.held()
            try:
                hashes, resumed = self.attempt(before)
            except INTERRUPTIONS as error:
                gained = self.held() >= before + BLOCK
                failures = 1 if gained else failures + 1
                unconnected = bool(error.args) and isinstance(error.args[0], urllib3.exceptions.MaxRetryError)
                self.wait(failures, None, reason(error), CONNECTIONS if unconnected else ATTEMPTS)
                continue
            except Passing as error:
                failures += 1
                self.wait(failures, error.retry_after, str(error), ATTEMPTS)
                continue
            problem = hashes.problem()
            if problem is None:
                return hashes
            self.discard()
            if not resumed or distrusted:
                raise ChecksumError(
                    f"{self.remote.url} {problem}; it was deleted. Try again, or another source: the file was changed "
                    "on its way, or where it lies"
                )
            distrusted = True  # two halves of different files: once more, from the start

    def held(self) -> int:
        """The bytes that are here and may be continued: those of a file that can be recognised."""
        if not self.part.is_file() or not (self.remote.known or self.validator_file.is_file()):
            return 0
        return self.part.stat().st_size

    def discard(self) -> None:
        """Deletes what is here."""
        self.part.unlink(missing_ok=True)
        self.validator_file.unlink(missing_ok=True)

    def wait(self, failures: int, retry_after: float | None, why: str, most: int) -> None:
        """Sleeps before the next attempt.

        Raises: UnreachableError when there have been enough.
        """
        if failures >= most:
            kept = ". What came is kept" if self.held() else ""
            raise UnreachableError(f"{self.remote.url}: {why}; gave up after {failures} attempts{kept}")
        if retry_after is not None and retry_after > MAX_WAIT:
            raise UnreachableError(f"{self.remote.url}: {why}; the server asks to come back in {retry_after:.0f} s")
        time.sleep(BACKOFF * 2 ** (failures - 1) if retry_after is None else retry_after)

    def attempt(self, held: int) -> tuple[Hashes, bool]:
        """One request; returns the hashes of the whole, and whether it was put together of two answers.

        Raises: DownloadError; Passing for what may succeed later.
        """
        if self.remote.size is not None and held >= self.remote.size and self.remote.known:
            return self.rehash(), True
        headers = dict(self.remote.headers)
        if held and self.ranges:
            headers["Range"] = f"bytes={held}-"
            if self.validator_file.is_file():
                headers["If-Range"] = self.validator_file.read_text("utf-8", "replace")
        with contextlib.closing(self.get(headers)) as response:
            if response.status_code == 416 or not self.continues(response, held):
                if response.status_code in (206, 416):  # of another file than ours, or not what was asked for
                    self.discard()
                    if "Range" not in headers:
                        raise DownloadError(f"{self.remote.url} answers {response.status_code} to a plain request")
                    self.ranges = response.status_code == 416 and self.ranges
                    raise Passing("the server's range is not the one asked for")
                held = 0
            return self.receive(response, held), held > 0

    def get(self, headers: dict[str, str]) -> requests.Response:
        """The answer, if it is one of the file.

        Raises: DownloadError, UnreachableError, Passing.
        """
        url = self.remote.url
        response = request(self.session, url, headers)
        kind = response.headers.get("Content-Type", "")
        if response.status_code in (200, 206) and "text/html" in kind and not self.remote.name.endswith(".html"):
            response.close()
            raise DownloadError(
                f"{url} is a web page, not {self.remote.name}: a login or a quota, perhaps. Open it in a browser"
            )
        return response

    def continues(self, response: requests.Response, held: int) -> bool:
        """Whether an answer goes on where we stopped, in the same file."""
        if response.status_code != 206 or held == 0 or encoded(response):
            return False
        match = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not match or int(match[1]) != held:
            return False
        if self.remote.size is not None and match[3] not in ("*", str(self.remote.size)):
            return False
        if self.remote.known or not self.validator_file.is_file():
            return True
        return validator(response) == self.validator_file.read_text("utf-8", "replace")

    def receive(self, response: requests.Response, held: int) -> Hashes:
        """Writes an answer after what is held. Raises: DownloadError; requests.ConnectionError if it was cut."""
        length = None if encoded(response) else number(response.headers.get("Content-Length", ""))
        total = self.remote.size if length is None else held + length
        if self.remote.size is not None and total != self.remote.size:
            raise DownloadError(
                f"{self.remote.url} offers {total:,} bytes, but {self.remote.name} has {self.remote.size:,}"
                + (": a pointer of Git LFS, not the file" if total < 200 else "")
            )
        check_room(self.part.parent, (total or 0) - held)
        hashes = self.rehash() if held else Hashes(self.remote)
        if not held:
            self.discard()
            value = None if encoded(response) else validator(response)
            if value:
                self.validator_file.write_text(value, "utf-8")
        bound = MAX_UNDECLARED if total is None else total
        with self.part.open("ab" if held else "wb", buffering=0) as file:
            while data := response.raw.read(BLOCK, decode_content=True):
                if hashes.size + len(data) > bound:
                    self.discard()
                    raise DownloadError(f"{self.remote.url} sends more than {bound:,} bytes; deleted")
                write(file, data)
                hashes.update(data)
                self.progress(hashes.size, total or 0)
        if total is not None and hashes.size < total:
            raise requests.ConnectionError(f"the connection was cut at byte {hashes.size:,} of {total:,}")
        return hashes

    def rehash(self) -> Hashes:
        """The hashes of what is here."""
        hashes = Hashes(self.remote)
        with self.part.open("rb") as file:
            while data := file.read(1 << 20):
                hashes.update(data)
        return hashes


def remove_link(path: Path) -> None:
    """Deletes what lies where we will write, if it is a link: it leads to a file that is none of ours."""
    if path.is_symlink():
        path.unlink()


def write(file, data: bytes) -> None:
    """Writes a block.

    Raises: DiskSpaceError
    """
    try:
        while data:  # a full disk may take a part of it
            data = data[file.write(data) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskSpaceError(f"{file.name}: {error.strerror}; make room and try again: what came is kept") from None
