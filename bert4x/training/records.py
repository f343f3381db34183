"""Files of TensorFlow records with rows of integers, written without TensorFlow.

A record is its length (uint64), the masked crc32c of that, its bytes, and the masked crc32c of these
(tensorflow/core/lib/io/record_writer.h). Its bytes are a `tf.train.Example`
(tensorflow/core/example/example.proto): from names to lists of int64.
"""

import contextlib
import os
import struct
from collections.abc import Iterable, Mapping, Sequence

from bert4x.checkpoints.formats.leveldb_table import masked_crc32c, write_varint
from bert4x.checkpoints.tensors import atomic_write


class RecordWriter(contextlib.AbstractContextManager):
    """Writes records to a file, which is there when the block ends without an error.

    Attributes:
        count: the records written so far.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.count = 0

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(open(self._stack.enter_context(atomic_write(self.path)), "wb"))
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def write(self, record: bytes) -> None:
        """Adds one record."""
        length = struct.pack("<Q", len(record))
        for part in (length, record):
            self._file.write(part + struct.pack("<I", masked_crc32c([part])))
        self.count += 1

    def write_all(self, records: Iterable[bytes]) -> None:
        """Adds several."""
        for record in records:
            self.write(record)


def example(features: Mapping[str, Sequence[int]]) -> bytes:
    """A `tf.train.Example` of lists of int64, in bytes. TensorFlow writes the names in any order; here it is theirs."""
    entries = b""
    for name, values in features.items():
        packed = b"".join(write_varint(int(value) % (1 << 64)) for value in values)
        feature = field(3, field(1, packed)) if len(values) else field(3, b"")  # Feature.int64_list, Int64List.value
        entries += field(1, field(1, name.encode()) + field(2, feature))  # Features.feature: an entry of the map
    return field(1, entries)  # Example.features


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    return bytes([number << 3 | 2]) + write_varint(len(content)) + content
