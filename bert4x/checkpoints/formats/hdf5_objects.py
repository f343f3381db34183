"""The objects of an HDF5 file: a bounded walk over the structures that Keras' files use.

libhdf5 is not made for hostile files, so they are parsed here, after the HDF5 File Format Specification 3.0:
superblock version 0, version 1 object headers, groups as B-trees of symbol tables. Everything else is refused.
"""

from collections.abc import Iterator

import numpy as np

from bert4x.checkpoints.formats.hdf5_messages import cut, parse_dataspace, parse_datatype, unpack
from bert4x.checkpoints.formats.regions import RegionFile
from bert4x.errors import CorruptFileError, UnknownFormatError, UnsafeFileError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0x0C, 0x10, 0x11
_SOFT_LINK = 2
_MAX_STRUCTURES = 32 << 20  # bytes; a dataset takes about 500
_MAX_DEPTH = 64
_PAGE, _MAX_PAGES = 16 << 10, 64
_MAX_PATH = 1024

Messages = list[tuple[int, bytes]]  # the (type, body) pairs of one object header


class Hdf5Objects:
    """The objects of the HDF5 file `file`.

    Raises, on construction and on use: `UnknownFormatError`, `CorruptFileError`, `UnsafeFileError`.
    """

    def __init__(self, file: RegionFile):
        self._file = file
        # Every structure lies in the file once: cycles and overlaps soon exceed this, so work is linear in its size.
        self._budget = min(2 * file.size + (1 << 20), _MAX_STRUCTURES)
        self._collections: dict[int, dict[int, bytes]] = {}
        self._pages: dict[int, bytes] = {}  # of the file: a group is five small structures near each other
        head = file.bytes(0, min(file.size, 96))
        if not head.startswith(SIGNATURE):
            raise UnknownFormatError("not an HDF5 file")
        if len(head) < 96:
            raise CorruptFileError("truncated; download it again")
        base, _, end, _ = unpack("<4Q", head, 24)
        if head[8:11] != b"\0\0\0" or head[13:15] != b"\x08\x08" or base:
            raise self.unknown("a superblock that Keras does not write")
        if end > file.size:
            raise CorruptFileError(f"{end} bytes expected, found {file.size}; the file is truncated, download it again")
        self._root = unpack("<Q", head, 64)[0]

    def __iter__(self) -> Iterator[tuple[str, Messages]]:
        """(path, messages) of every group and dataset; the root's path is empty."""
        waiting = [("", 0, self._root)]
        while waiting:
            path, depth, address = waiting.pop()
            messages = self._messages(path, address)
            yield path, messages
            for tree, heap in (unpack("<2Q", body, 0) for kind, body in messages if kind == SYMBOL_TABLE):
                for name, child in self._children(path, tree, heap):
                    waiting.append((f"{path}/{name}" if path else name, depth + 1, child))
                    if depth >= _MAX_DEPTH or len(waiting[-1][0]) > _MAX_PATH:
                        raise self.corrupt(f"groups nested too deep at {path[:80]!r}")

    def attributes(self, messages: Messages) -> dict[str, str | list[str] | np.ndarray]:
        """The attributes of an object that are strings, lists of strings or numbers."""
        decoded = (self._attribute(body) for kind, body in messages if kind == ATTRIBUTE)
        return {name: value for name, value in decoded if value is not None}

    def corrupt(self, what: str) -> CorruptFileError:
        return CorruptFileError(f"{what}; the file is damaged, download it again")

    def unknown(self, what: str) -> UnknownFormatError:
        return UnknownFormatError(f"{what}; of HDF5, bert4x reads what Keras writes: save the weights again with Keras")

    def _read(self, offset: int, size: int) -> bytes:
        self._spend(size)
        page = offset // _PAGE
        if (offset + size) // _PAGE != page or offset + size > self._file.size:
            return self._file.bytes(offset, size)
        if page not in self._pages:
            if len(self._pages) == _MAX_PAGES:
                self._pages.clear()
            start = page * _PAGE
            self._pages[page] = self._file.bytes(start, min(_PAGE, self._file.size - start))
        at = offset - page * _PAGE
        return self._pages[page][at : at + size]

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise self.corrupt("structures that are too large, overlap or form a cycle")

    def _messages(self, path: str, address: int) -> Messages:
        """All messages of the object header at `address`, and of its continuations."""
        head = self._read(address, 16)
        if head[:4] == b"OHDR":
            raise self.unknown(f"{path!r} is stored in the newer way of HDF5 (libver='latest' or track_order=True)")
        version, count, _, size = unpack("<BxHII", head, 0)
        if version != 1:
            raise self.corrupt(f"no object header at {address} for {path!r}")
        blocks, messages = [(address + 16, size)], []
        for block in blocks:
            data, at = self._read(*block), 0
            while at < len(data):
                kind, length, flags = unpack("<HHB", data, at)
                body = cut(data, at + 8, length)
                at += 8 + length
                messages.append((kind, body))
                if kind == CONTINUATION:
                    blocks.append(unpack("<2Q", body, 0))
                elif flags & 2:
                    raise self.unknown(f"{path!r} has a shared message (a committed datatype)")
        if len(messages) != count:
            raise self.corrupt(f"{path!r} has {len(messages)} header messages, {count} expected")
        kinds = {kind for kind, _ in messages}
        if kinds & {LINK_INFO, LINK}:
            raise self.unknown(f"group {path!r} holds links of the newer kind, which may point out of the file")
        if EXTERNAL in kinds:
            raise UnsafeFileError(f"{path!r} keeps its data in another file; refused")
        return messages

    def _children(self, path: str, tree: int, heap: int) -> Iterator[tuple[str, int]]:
        """(name, header address) of the members of a group."""
        signature, size, _, address = unpack("<4s4xQQQ", self._read(heap, 32), 0)
        if signature != b"HEAP":
            raise self.corrupt(f"group {path!r} has no heap of names")
        names = self._read(address, size)
        nodes = [(tree, None)]
        for node, expected_level in nodes:
            signature, kind, level, used = unpack("<4sBBH", self._read(node, 24), 0)
            if signature != b"TREE" or kind != 0 or expected_level not in (None, level):
                raise self.corrupt(f"group {path!r} has no tree of members")
            keys_and_children = unpack(f"<{2 * used + 1}Q", self._read(node + 24, 16 * used + 8), 0)
            for child in keys_and_children[1::2]:
                if level:
                    nodes.append((child, level - 1))
                else:
                    yield from self._symbols(path, names, child)

    def _symbols(self, path: str, names: bytes, node: int) -> Iterator[tuple[str, int]]:
        signature, count = unpack("<4s2xH", self._read(node, 8), 0)
        if signature != b"SNOD":
            raise self.corrupt(f"group {path!r} has no table of members")
        entries = self._read(node + 8, 40 * count)
        for at in range(0, len(entries), 40):
            start, address, cache = unpack("<QQI", entries, at)
            end = names.find(b"\0", start)
            if start >= len(names) or end <= start or b"/" in names[start:end]:
                raise self.corrupt(f"a member of group {path!r} has no valid name")
            self._spend(end - start)
            name = self._text(names[start:end])
            if cache == _SOFT_LINK:
                raise self.unknown(f"{name!r} in group {path!r} is a soft link")
            yield name, address

    def _attribute(self, body: bytes) -> tuple[str, str | list[str] | np.ndarray | None]:
        version, flags, name_size, type_size, space_size = unpack("<BBHHH", body, 0)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise self.unknown(f"an attribute of version {version}, flags {flags}")
        at, fields = 8 + (version == 3), []
        for size in (name_size, type_size, space_size):
            fields.append(cut(body, at, size))
            at += -(-size // 8) * 8 if version == 1 else size
        name, shape = self._text(fields[0].split(b"\0")[0]), parse_dataspace(fields[2])
        kind, size = parse_datatype(fields[1])
        if shape is None:
            return name, None
        count = 1
        for length in shape:
            count = min(count * length, 1 << 62)
        values = cut(body, at, count * size)
        self._spend(len(values))
        if kind == "string":
            parts = [values[i * size : (i + 1) * size].split(b"\0")[0] for i in range(count)]
        elif kind == "strings":
            parts = [self._heap_object(*unpack("<IQI", values, i * 16)) for i in range(count)]
        else:
            numeric = isinstance(kind, np.dtype) and len(shape) <= 1
            return name, np.frombuffer(values, kind).reshape(shape) if numeric else None
        texts = [self._text(part) for part in parts]
        return name, texts if shape else texts[0]

    def _heap_object(self, size: int, address: int, index: int) -> bytes:
        """A variable-length value from the global heap."""
        if size == 0:
            return b""
        if address not in self._collections:
            self._collections[address] = self._collection(address)
        value = self._collections[address].get(index)
        if value is None or size > len(value):
            raise self.corrupt(f"no object {index} of {size} bytes in the global heap at {address}")
        self._spend(size)
        return value[:size]

    def _collection(self, address: int) -> dict[int, bytes]:
        signature, size = unpack("<4s4xQ", self._read(address, 16), 0)
        if signature != b"GCOL" or size < 16:
            raise self.corrupt(f"no global heap at {address}")
        data, at, objects = self._read(address + 16, size - 16), 0, {}
        while at + 16 <= len(data):
            index, length = unpack("<H6xQ", data, at)
            if index == 0:  # the free space, always last
                break
            objects[index] = cut(data, at + 16, length)
            at += 16 + -(-length // 8) * 8
        return objects

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.corrupt(f"{raw[:80]!r} is not UTF-8") from None
