"""A pickle interpreter that builds plain data and calls nothing the file names.

Pickle is a program for a stack machine (the opcodes are described in CPython's `pickletools`). Here a global becomes
an inert `Global` only when the caller's `find_global` allows it, and "calling" one runs the caller's own rebuilding
function or yields `IGNORED`.

Memory and time are bounded by the size of the file. What a pickle makes is counted in steps, each of which stands for
at most `STEP_BYTES` bytes and about a microsecond: one for an instruction, and one for every item that an instruction
copies or remembers, because a value that is memoised once can be passed to any number of calls. Lengths are checked
against the bytes that remain, before anything is allocated; nothing recurses; only strings and small integers are
hashed, and no value is printed.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from bert4x.errors import CheckpointError, CorruptFileError, UnsafeFileError

STEP_BYTES = 80  # an empty dict and its place on the stack
FREE_STEPS = 250_000
STEPS_PER_BYTE = 0.6  # of the file; torch.save spends less than 0.4, about 90 steps a tensor
MAX_STEPS = 3_000_000
MEMO_STEPS = 2  # of a memo's entry
MAX_BYTES = 1 << 28
MAX_LINE = 512  # module or name of a global
MAX_INTEGER_BYTES = 1024


class Ignored:
    """Stands for a value of the file that is neither a container, a number, a string nor known to the caller."""


IGNORED = Ignored()


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function an allow-list lets a pickle name; `rebuild` is ours and makes a value of its arguments."""

    name: str
    rebuild: Callable = lambda *args: IGNORED
    payload: object = None


class PickleMachine:
    """Runs the pickle at `position` of `buffer`; afterwards `position` is behind it. `size` is that of its file, by
    which all pickles together that one machine runs are bounded.

    `find_global(module, name) -> Global` raises `UnsafeFileError` for what is not allowed; `persistent(id)` resolves
    persistent ids. Only dicts keyed by strings and integers keep their items: no other key can name a tensor, and
    hashing arbitrary keys is open to attack.
    """

    def __init__(
        self, buffer, find_global: Callable, persistent: Callable, *, size: int, where: str = "pickle", most=MAX_BYTES
    ):
        self.buffer, self.position, self.where = buffer, 0, where
        self.find_global, self.persistent = find_global, persistent
        self.end = min(len(buffer), most)
        self.steps = min(MAX_STEPS, FREE_STEPS + int(STEPS_PER_BYTE * size))

    def load(self):
        """The value of the next pickle. Raises `CorruptFileError` or `UnsafeFileError`."""
        self.stack, self.marks, self.memo = [], [], {}
        try:
            while True:
                self.spend(1)
                code = self.take(1)
                if code == b".":
                    return self.stack.pop()
                OPCODES[code](self)
        except CheckpointError as error:
            raise type(error)(f"{self.where}: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
            raise CorruptFileError(
                f"{self.where}: malformed pickle at byte {self.position} ({type(error).__name__}); damaged or truncated"
            ) from error

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise UnsafeFileError(
                f"the pickle repeats its values or instructions far more often than a file of its size needs "
                f"(byte {self.position}); malicious, or no checkpoint"
            )

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.end - self.position:
            raise CorruptFileError(f"the pickle needs {count} bytes at {self.position}; it ends before")
        data = self.buffer[self.position : self.position + count]
        self.position += count
        return data

    def data(self, count: int):
        """Bytes that are a value."""
        return self.take(count)

    def python2(self, count: int):
        """A string of Python 2, which is bytes there."""
        return self.take(count).decode("latin-1")

    def build(self) -> None:
        """The state of an object: ours have none."""
        self.stack.pop()

    def number(self, form: str):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.buffer.find(b"\n", self.position, min(self.end, self.position + MAX_LINE))
        if end < 0:
            raise CorruptFileError(f"an unfinished line at byte {self.position} of the pickle")
        return self.take(end + 1 - self.position)[:-1].decode()

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def call(self, function, args) -> None:
        if type(function) is not Global:
            raise UnsafeFileError(f"the pickle calls a {type(function).__name__}; damaged or malicious")
        self.spend(2 + len(args) + sum(len(arg) for arg in args if type(arg) in (list, tuple, dict)))
        self.stack.append(function.rebuild(*args))

    def memoize(self, index: int) -> None:
        self.spend(MEMO_STEPS)
        self.memo[index] = self.stack[-1]

    # what the opcodes do; the table below names them

    def op_global(self):
        module = self.line()
        self.stack.append(self.find_global(module, self.line()))

    def op_stack_global(self):
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise UnsafeFileError("the pickle computes the name of a global; damaged or malicious")
        if len(name) > MAX_LINE or len(module) > MAX_LINE:
            raise CorruptFileError(f"the pickle names a global by more than {MAX_LINE} characters")
        self.stack.append(self.find_global(module, name))

    def op_reduce(self):
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args if type(args) is tuple else ())

    def op_newobj_ex(self):
        self.stack.pop()
        self.op_reduce()

    def op_inst(self):
        module = self.line()
        function, args = self.find_global(module, self.line()), self.pop_mark()
        self.call(function, args)

    def op_obj(self):
        function, *args = self.pop_mark()
        self.call(function, args)

    def op_append(self):
        item = self.stack.pop()
        self.extend([item])

    def extend(self, items):
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif target is not IGNORED:
            raise CorruptFileError(f"the pickle appends to a {type(target).__name__}")

    def op_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def update(self, items):
        target = self.stack[-1]
        if len(items) % 2 or not (type(target) is dict or target is IGNORED):
            raise CorruptFileError(f"the pickle sets items of a {type(target).__name__}")
        if target is not IGNORED:
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if _is_key(key))

    def op_pop(self):
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def op_mark(self):
        self.marks.append(self.stack)
        self.stack = []

    def op_tuple(self, count: int):
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError(count)
        self.stack[-count:] = [items]

    def op_integer(self, length: int):
        if length > MAX_INTEGER_BYTES:
            raise UnsafeFileError(f"an integer of {length} bytes in the pickle")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def op_protocol(self):
        if (version := self.number("B")) > 5:
            raise CorruptFileError(f"pickle protocol {version}; 0 to 5 exist")

    def op_ignore(self):
        self.pop_mark()
        self.stack.append(IGNORED)


def _is_key(key) -> bool:
    # hashing huge integers can be made to collide, and nested tuples to overflow the C stack
    return type(key) is str or (type(key) is int and abs(key) < 2**60)


def _push(make: Callable) -> Callable:
    def push(machine: PickleMachine) -> None:
        value = make(machine)  # first: it may replace the stack
        machine.stack.append(value)

    return push


def _text(length: str) -> Callable:
    return _push(lambda machine: machine.take(machine.number(length)).decode("utf-8"))


def _python2(length: str) -> Callable:
    return _push(lambda machine: machine.python2(machine.number(length)))


def _data(length: str) -> Callable:
    return _push(lambda machine: machine.data(machine.number(length)))


OPCODES: dict[bytes, Callable[[PickleMachine], object]] = {
    # stack and memo
    b"\x80": PickleMachine.op_protocol,
    b"\x95": lambda m: m.number("<Q"),  # a frame; its length only helps buffering
    b"(": PickleMachine.op_mark,
    b"0": PickleMachine.op_pop,
    b"1": PickleMachine.pop_mark,
    b"2": _push(lambda m: m.stack[-1]),
    b"q": lambda m: m.memoize(m.number("B")),
    b"r": lambda m: m.memoize(m.number("<I")),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"h": _push(lambda m: m.memo[m.number("B")]),
    b"j": _push(lambda m: m.memo[m.number("<I")]),
    # scalars
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"K": _push(lambda m: m.number("B")),
    b"M": _push(lambda m: m.number("<H")),
    b"J": _push(lambda m: m.number("<i")),
    b"G": _push(lambda m: m.number(">d")),
    b"\x8a": lambda m: m.op_integer(m.number("B")),
    b"\x8b": lambda m: m.op_integer(m.number("<I")),
    # strings
    b"\x8c": _text("B"),
    b"X": _text("<I"),
    b"\x8d": _text("<Q"),
    b"U": _python2("B"),
    b"T": _python2("<I"),
    b"C": _data("B"),
    b"B": _data("<I"),
    b"\x8e": _data("<Q"),
    b"\x96": _data("<Q"),
    # containers
    b")": _push(lambda m: ()),
    b"]": _push(lambda m: []),
    b"}": _push(lambda m: {}),
    b"\x8f": _push(lambda m: IGNORED),  # a set
    b"\x85": lambda m: m.op_tuple(1),
    b"\x86": lambda m: m.op_tuple(2),
    b"\x87": lambda m: m.op_tuple(3),
    b"t": _push(lambda m: tuple(m.pop_mark())),
    b"a": PickleMachine.op_append,
    b"e": lambda m: m.extend(m.pop_mark()),
    b"s": PickleMachine.op_setitem,
    b"u": lambda m: m.update(m.pop_mark()),
    b"\x90": PickleMachine.pop_mark,  # items of a set
    b"\x91": PickleMachine.op_ignore,  # a frozenset
    # objects
    b"c": PickleMachine.op_global,
    b"\x93": PickleMachine.op_stack_global,
    b"R": PickleMachine.op_reduce,
    b"\x81": PickleMachine.op_reduce,
    b"\x92": PickleMachine.op_newobj_ex,
    b"i": PickleMachine.op_inst,
    b"o": PickleMachine.op_obj,
    b"b": lambda m: m.build(),
    b"Q": _push(lambda m: m.persistent(m.stack.pop())),
}
