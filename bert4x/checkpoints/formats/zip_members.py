"""Members of a zip archive as ranges of a file: checked at opening, read later, verified on request.

`zipfile` parses the central directory; everything it leaves unchecked (local headers, ranges, overlaps, ratios,
names) is checked here, so that a member is a trustworthy `(offset, size)`.
"""

import functools
import itertools
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bert4x.checkpoints.formats.common import MAX_TENSORS
from bert4x.checkpoints.formats.regions import RegionFile
from bert4x.errors import CorruptFileError, UnknownFormatError, UnsafeFileError

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE 4.3.7
MAX_RATIO = 30  # weights hardly compress; deflate reaches 1032 on zeros, and unpacking holds a member twice
MAX_MEMBERS = MAX_TENSORS + 1000
FREE_BYTES = 1 << 20  # below this any ratio is harmless


class ZipMember:
    """One stored or deflated file inside an archive. `size` is its length once unpacked, in bytes."""

    def __init__(self, file: RegionFile, info: zipfile.ZipInfo, offset: int, checked: bool):
        self.file, self.path, self.name, self.offset = file, file.path, info.filename, offset
        self.size, self.packed_size = info.file_size, info.compress_size
        self.crc = info.CRC if checked else None
        self.deflated = info.compress_type == zipfile.ZIP_DEFLATED
        self._verified = False

    @property
    def end(self) -> int:
        """Where its data ends in the archive's file."""
        return self.offset + self.packed_size

    def read_verified(self, start: int, length: int) -> np.ndarray:
        """The same bytes as `read`, after checking the CRC-32 of the whole member if that was not done before.

        Raises: `CorruptFileError`
        """
        if self.crc is None or self._verified:
            return self.read(start, length)
        if not start and length == self.size:  # one pass over the file for both
            data = self.read(start, length)
            self._check(zlib.crc32(data))
            return data
        self.verify()
        return self.read(start, length)

    def read(self, start: int, length: int) -> np.ndarray:
        """Bytes `start` to `start + length`. Shape: (length,) Raises: CorruptFileError"""
        if not self.deflated:
            return self.file.read(self.offset + start, length)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = unpacker.decompress(self.file.read(self.offset, self.packed_size), self.size + 1)
        except zlib.error as error:
            raise CorruptFileError(f"{self.path}: {self.name} does not unpack ({error})") from None
        if len(data) != self.size:
            raise CorruptFileError(f"{self.path}: {self.name} does not unpack to the {self.size} bytes it declares")
        return np.frombuffer(data, np.uint8)[start : start + length]

    def cost(self, length: int) -> int:
        """Bytes that reading `length` of them touches: a deflated member is unpacked whole."""
        return self.size if self.deflated else length

    def verify(self) -> bool:
        """Checks the CRC-32 of the whole member, once; False if it has none. Raises `CorruptFileError`."""
        if self.crc is None:
            return False
        if not self._verified:
            parts = [self.read(0, self.size)] if self.deflated else self.file.chunks(self.offset, self.size)
            self._check(functools.reduce(lambda crc, part: zlib.crc32(part, crc), parts, 0))
        return True

    def _check(self, crc: int) -> None:
        if crc != self.crc:
            raise CorruptFileError(
                f"{self.path}: {self.name} has CRC-32 {crc:08x}, the archive says {self.crc:08x}; "
                "the file is damaged: download it again"
            )
        self._verified = True


def read_members(path, max_ratio: int = MAX_RATIO) -> dict[str, ZipMember]:
    """The members of an archive by name; only its directory and local headers are read.

    Raises `UnsafeFileError` for names that climb out of the archive and for zip bombs, `UnknownFormatError` for
    encryption and unusual compression, `CorruptFileError` for the rest.
    """
    file = RegionFile(path)
    path, total = file.path, file.size
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, OSError, struct.error) as error:
        raise CorruptFileError(f"{path}: not a readable zip archive ({error}); truncated or damaged") from None
    if len(infos) > MAX_MEMBERS:
        raise UnsafeFileError(f"{path}: an archive of {len(infos):,} members; at most {MAX_MEMBERS:,} are read")
    # torch.serialization.set_crc32_options(False) leaves every checksum 0
    checked = any(info.CRC for info in infos)
    members = {}
    with path.open("rb") as opened:
        for info in infos:
            _check_directory_entry(path, info, max_ratio)
            if info.filename in members:
                raise CorruptFileError(f"{path}: the archive has two members named {info.filename!r}")
            members[info.filename] = ZipMember(file, info, _data_offset(path, opened, info), checked)
    ranges = sorted((info.header_offset, members[info.filename].end) for info in infos)
    for (_, end), (begin, _) in itertools.pairwise([*ranges, (total, total)]):
        if end > begin:
            raise UnsafeFileError(
                f"{path}: members of the archive overlap, or lie beyond its end; damaged or a zip bomb"
            )
    return members


def _check_directory_entry(path: Path, info: zipfile.ZipInfo, max_ratio: int) -> None:
    name = info.orig_filename
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise UnsafeFileError(f"{path}: member {name!r} climbs out of the archive")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnknownFormatError(f"{path}: member {name!r} is encrypted or compressed by an unusual method")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise CorruptFileError(f"{path}: member {name!r} is stored, but its two sizes differ")
    if info.file_size > max(FREE_BYTES, max_ratio * info.compress_size):
        raise UnsafeFileError(
            f"{path}: member {name!r} would unpack {info.compress_size} bytes to {info.file_size}: a zip bomb"
        )


def _data_offset(path: Path, file, info: zipfile.ZipInfo) -> int:
    """Where the data of a member begins, after checking that its local header agrees with the directory."""
    corrupt = CorruptFileError(f"{path}: the local header of member {info.orig_filename!r} contradicts the directory")
    if not 0 <= info.header_offset < 2**62:
        raise corrupt
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) != LOCAL_HEADER.size:
        raise corrupt
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL_HEADER.unpack(header)
    try:
        name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    except UnicodeEncodeError:
        raise corrupt from None
    agrees = signature == b"PK\3\4" and method == info.compress_type and file.read(name_length) == name
    if not flags & 8:  # otherwise these are zero and follow the data
        agrees = agrees and crc == info.CRC
        agrees = agrees and packed in (info.compress_size, 0xFFFFFFFF) and size in (info.file_size, 0xFFFFFFFF)
    if not agrees or flags & 1:
        raise corrupt
    return info.header_offset + LOCAL_HEADER.size + name_length + extra_length
