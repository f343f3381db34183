"""Taking a checkpoint out of a zip or tar archive: only the files needed, nothing outside the folder, no bombs."""

import contextlib
import gzip
import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bert4x.errors import CorruptFileError, UnknownFormatError, UnsafeFileError
from bert4x.hub.selection import check_names, choose_folder
from bert4x.hub.transfer import check_room, remove_link, write

SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
MAX_RATIO = 100  # weights hardly compress; deflate reaches 1032 on zeros
FREE_BYTES = 1 << 20  # below this any ratio is harmless
BLOCK = 1 << 20
MAX_MEMBERS = 20_000  # of a tar archive
MAX_WORK = 1 << 28  # the squares of the lengths of a tar's long headers: 16 KB of one, or 1,000 of 500 bytes
LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
LONG_HEADERS += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError)


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive."""
    return name.lower().endswith(SUFFIXES)


def extract(archive: Path, folder: Path) -> dict[str, str]:
    """Puts the config, vocabulary and weights of an archive into a folder; name -> sha256 of each.

    Raises: UnsafeFileError, UnknownFormatError, CorruptFileError, DiskSpaceError.
    """
    with archive.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    try:
        return extract_zip(archive, folder) if zipped else extract_tar(archive, folder)
    except DAMAGED as error:
        if isinstance(error, UnsafeFileError | UnknownFormatError | CorruptFileError):
            raise
        raise CorruptFileError(f"{archive} is damaged: {error}; delete it and fetch it again") from None


def extract_zip(archive: Path, folder: Path) -> dict[str, str]:
    """`extract` of a zip archive. Raises: UnsafeFileError"""
    from bert4x.checkpoints.formats.zip_members import read_members

    read_members(archive, MAX_RATIO)  # raises for names that climb, ratios, overlaps, lies in headers
    with zipfile.ZipFile(archive) as opened:
        infos = {info.filename.removeprefix("./"): info for info in opened.infolist() if not info.is_dir()}
        chosen = choose_folder(infos, archive.name)
        for path in chosen:
            if stat.S_ISLNK(infos[path].external_attr >> 16):
                raise UnsafeFileError(f"{archive}: {path!r} is a link")
        check_room(folder, sum(infos[path].file_size for path in chosen))
        hashes = {}
        for path, name in chosen.items():
            with opened.open(infos[path]) as member:
                hashes[name] = copy(member, folder / name, infos[path].file_size)
    return hashes


def extract_tar(archive: Path, folder: Path) -> dict[str, str]:
    """`extract` of a tar archive, compressed by gzip or not."""
    sizes = {}
    with members(archive) as tar:
        for info in tar:
            path = info.name.removeprefix("./")
            check_names([path or "."], archive.name)
            if info.islnk() or info.issym():
                check_names([info.linkname], f"{archive.name}, in a link {path},")
            elif info.isreg() and not info.issparse():
                sizes[path] = info.size
    chosen = choose_folder(sizes, archive.name)
    check_room(folder, sum(sizes[path] for path in chosen))
    found = {}
    with members(archive) as tar:
        for info in tar:
            name = chosen.get(info.name.removeprefix("./"))
            if name and info.isreg() and not info.issparse():
                found[name] = copy(tar.extractfile(info), folder / f"{name}.part", info.size)
    for name in chosen.values():  # in the order that makes a checkpoint whole at the last of them
        os.replace(folder / f"{name}.part", folder / name)
    return found


@contextlib.contextmanager
def members(archive: Path) -> Iterator[tarfile.TarFile]:
    """The members of a tar archive, in one pass."""
    with archive.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(gzip.GzipFile(fileobj=file)) if compressed else file
            bounded = Bounded(source, max(FREE_BYTES, MAX_RATIO * archive.stat().st_size), archive)
            yield stack.enter_context(tarfile.open(fileobj=bounded, mode="r|", tarinfo=headers_of(archive)))


def headers_of(archive: Path) -> type[tarfile.TarInfo]:
    """What reads the headers of one archive: a bounded number of them, and of bounded size. `tarfile` bounds neither,
    and searches a long one in a time that grows with the square of its length (CVE-2024-6232).
    """

    class Header(tarfile.TarInfo):
        members, work = 0, 0

        @classmethod
        def frombuf(cls, buf, encoding, errors):
            info = super().frombuf(buf, encoding, errors)
            cls.members += 1
            cls.work += info.size**2 if info.type in LONG_HEADERS else 0
            if info.size < 0 or cls.members > MAX_MEMBERS or cls.work > MAX_WORK:
                raise UnsafeFileError(
                    f"{archive}: more, longer or other headers than an archive of a model has: a bomb"
                )
            return info

        def _proc_sparse(self, tarfile):  # both read maps of any length
            raise UnknownFormatError(f"{archive}: {self.name!r} is stored with holes; pack it without --sparse")

        def _proc_gnusparse_10(self, next, pax_headers, tarfile):
            self._proc_sparse(tarfile)

    return Header


class Bounded:
    """A file that may not give more than a number of bytes."""

    def __init__(self, file, bound: int, archive: Path):
        self.file, self.left, self.archive = file, bound, archive

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises: UnsafeFileError
        """
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnsafeFileError(f"{self.archive} unpacks to more than {MAX_RATIO} times its size: a bomb")
        return data


def copy(source: IO[bytes], path: Path, size: int) -> str:
    """Writes a member under its name once it is whole; its sha256.

    Raises: CorruptFileError when it has another size than declared.
    """
    part = path if path.name.endswith(".part") else path.with_name(path.name + ".part")
    sha256, left = hashlib.sha256(), size
    remove_link(part)
    with part.open("wb", buffering=0) as file:
        while data := source.read(BLOCK):
            left -= len(data)
            sha256.update(data)
            write(file, data)
        os.fsync(file.fileno())
    if left:
        raise CorruptFileError(f"{path.name} does not have the {size:,} bytes that its archive declares")
    if part != path:
        os.replace(part, path)
    return sha256.hexdigest()
