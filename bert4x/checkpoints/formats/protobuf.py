"""Messages of protocol buffers as pairs of numbers and values, for the few that TensorFlow's checkpoints hold."""

from collections.abc import Iterator

from bert4x.checkpoints.formats.leveldb_table import read_varint, write_varint
from bert4x.errors import CorruptFileError


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (field number, value) pairs of a message; varints are signed 64-bit integers. Raises: CorruptFileError"""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(message, at)
            value -= (value >> 63) << 64
        elif kind in (1, 2, 5):
            size, at = read_varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if size > len(message) - at:
                raise CorruptFileError("a message in the index is longer than its entry")
            value = message[at : at + size]
            value = value if kind == 2 else int.from_bytes(value, "little")
            at += size
        else:
            raise CorruptFileError(f"wire type {kind} in the index, which no checkpoint has")
        yield tag >> 3, value


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return write_varint(number << 3) + write_varint(value)
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def messages(message: bytes, wanted: int) -> list[bytes]:
    """All submessages in field `wanted`."""
    return [value for number, value in fields(message) if number == wanted and isinstance(value, bytes)]


def integer(value: int | bytes) -> int:
    """The value of a field that must be a number. Raises: CorruptFileError"""
    if not isinstance(value, int):
        raise CorruptFileError("a number was expected in the index")
    return value
