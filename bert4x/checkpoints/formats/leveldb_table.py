"""Sorted tables of bytes as LevelDB lays them out, which TensorFlow uses as the index of a checkpoint.

Layout (LevelDB's doc/table_format.md): data blocks, a metaindex block, an index block whose values are the
places of the data blocks, and a 48 byte footer. A block is prefix-compressed entries, restart offsets (uint32),
their number (uint32), then one byte of compression type and the masked crc32c of all that.
"""

import struct
from collections.abc import Iterable, Iterator

from bert4x.errors import CorruptFileError, UnknownFormatError

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
_TRAILER_SIZE = 5
_BLOCK_SIZE = 64 << 10
_RESTART_INTERVAL = 16
_MAX_KEY = 4096  # bytes; prefix compression makes keys of any length cost three bytes each
_FREE_KEY_BYTES = 8 << 20  # of all keys together, beside `_KEY_RATIO` times the table's size
_KEY_RATIO = 4


def masked_crc32c(chunks: Iterable[bytes]) -> int:
    """The crc32c of the chunks (bytes or arrays), rotated and offset as LevelDB stores it."""
    import google_crc32c

    crc = 0
    for chunk in chunks:
        crc = google_crc32c.extend(crc, chunk)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_varint(data: bytes, at: int, end: int | None = None) -> tuple[int, int]:
    """The unsigned 64-bit varint at `at`, which ends before `end`, and the offset after it. Raises: CorruptFileError"""
    value = shift = 0
    for i in range(at, min(len(data) if end is None else end, at + 10)):
        value |= (data[i] & 0x7F) << shift
        if data[i] < 0x80:
            if value >> 64:
                break
            return value, i + 1
        shift += 7
    raise CorruptFileError(f"no valid varint at offset {at}")


def write_varint(value: int) -> bytes:
    """The varint of a non-negative integer."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a table in the order of their keys; every block's checksum is checked.

    Raises: `CorruptFileError`, `UnknownFormatError` if it is no table or a compressed one.
    """
    if len(data) < FOOTER_SIZE or struct.unpack_from("<Q", data, len(data) - 8)[0] != MAGIC:
        raise UnknownFormatError("not the index of a TensorFlow checkpoint, or a truncated one: no table footer")
    footer = data[-FOOTER_SIZE:-8]
    metaindex, at = _read_handle(footer, 0)
    index, at = _read_handle(footer, at)
    if any(footer[at:]) or any(_read_block(data, *metaindex)) or index[0] != sum(metaindex) + _TRAILER_SIZE:
        raise CorruptFileError("the footer or the metaindex of the table is not as TensorFlow writes them")
    previous_key, next_offset, key_bytes = None, 0, 0
    for _, value in _read_block(data, *index):
        (offset, size), _ = _read_handle(value, 0)
        # Blocks follow each other without gaps: no byte escapes the checksums, and none is named many times.
        if offset != next_offset:
            raise CorruptFileError(f"table block at {offset}, expected at {next_offset}")
        next_offset = offset + size + _TRAILER_SIZE
        for key, entry in _read_block(data, offset, size):
            key_bytes += len(key)
            too_long = key_bytes > _FREE_KEY_BYTES + _KEY_RATIO * len(data)
            if (previous_key is not None and key <= previous_key) or too_long:
                raise CorruptFileError("the keys of the table are out of order or too long")
            previous_key = key
            yield key, entry
    if next_offset != metaindex[0]:
        raise CorruptFileError(f"table blocks end at {next_offset}, expected {metaindex[0]}")


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of entries that come sorted by key, uncompressed."""
    out, index, block, last_key = bytearray(), [], [], b""
    block_size = 0
    for last_key, value in entries:
        block.append((last_key, value))
        block_size += len(last_key) + len(value)
        if block_size >= _BLOCK_SIZE:
            index.append((last_key, _append_block(out, block)))
            block, block_size = [], 0
    if block:
        index.append((last_key, _append_block(out, block)))
    handles = _append_block(out, []) + _append_block(out, index)
    return bytes(out) + handles.ljust(FOOTER_SIZE - 8, b"\0") + struct.pack("<Q", MAGIC)


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if size < 4 or offset + size + _TRAILER_SIZE > len(data) - FOOTER_SIZE:
        raise CorruptFileError(f"table block of {size} bytes at {offset} does not fit in {len(data)} bytes")
    block = data[offset : offset + size]
    compression, crc = struct.unpack_from("<BI", data, offset + size)
    if crc != masked_crc32c([data[offset : offset + size + 1]]):
        raise CorruptFileError(f"table block at {offset} fails its checksum")
    if compression:
        raise UnknownFormatError(
            f"compressed index (LevelDB compression type {compression}), which TensorFlow does not write by default; "
            "load the checkpoint in TensorFlow and save it again"
        )
    end = size - 4 - 4 * struct.unpack_from("<I", block, size - 4)[0]
    if end < 0:
        raise CorruptFileError(f"table block at {offset} has more restarts than bytes")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at, end)
        unshared, at = read_varint(block, at, end)
        length, at = read_varint(block, at, end)
        if shared + unshared > _MAX_KEY:
            raise CorruptFileError(f"a key of {shared + unshared} bytes in the table is too long")
        if shared > len(key) or unshared + length > end - at:
            raise CorruptFileError(f"table block at {offset} has an entry that does not fit")
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _append_block(out: bytearray, entries: list[tuple[bytes, bytes]]) -> bytes:
    """Append a block and return its handle."""
    offset, restarts, previous = len(out), [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % _RESTART_INTERVAL == 0:
            restarts.append(len(out) - offset)
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    out += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    size = len(out) - offset
    out += b"\0"
    out += struct.pack("<I", masked_crc32c([bytes(out[offset:])]))
    return write_varint(offset) + write_varint(size)
