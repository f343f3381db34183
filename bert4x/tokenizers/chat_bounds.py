"""Bounds of what a chat template may compute: a program of somebody else's that never ends, or fills the memory, is an
error. The sandbox of Jinja bounds neither.
"""

import functools
import math
import re
import time
from collections.abc import Iterable, Iterator, Sized

from jinja2 import TemplateError, nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS, SECONDS = 100_000, 5.0  # turns of loops and calls of a template; the longest published take some thousand
LARGEST = 30_000_000  # characters of a text, a number among arguments
ITEM = 100  # what an item of a list weighs
METER = " meter"  # the name of a variable that no template can write
WIDE = re.compile(r"\d{6,}|\*")  # in a format such as %9d


class TooMuchError(TemplateError):
    """A template computes more than any template needs."""


class Meter:
    """What one rendering of a template may still use."""

    def __init__(self, template: str):
        self.steps, self.end = min(STEPS, 10**9 // (1 + len(template))), time.monotonic() + SECONDS
        self.room = LARGEST  # for what is written

    def step(self) -> None:
        """Raises: TooMuchError after too many steps, or too long."""
        self.steps -= 1
        if self.steps < 0 or time.monotonic() > self.end:
            raise TooMuchError(f"it takes more than {STEPS:,} turns of loops and calls, or {SECONDS:g} seconds")

    def write(self, value) -> None:
        """Raises: TooMuchError after too much."""
        self.room -= weight(value)
        small(LARGEST - self.room)


def small(size: int) -> None:
    """Raises: TooMuchError for a size that no template needs."""
    if size > LARGEST:
        raise TooMuchError(f"it makes a text, a list or a number of more than {LARGEST:,}")


def weight(value) -> int:
    """The characters and items of a value, nested ones too. Raises: TooMuchError"""
    total, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str | list | tuple | dict):
            total += len(one) if isinstance(one, str) else ITEM * len(one)
            small(total)
        if isinstance(one, list | tuple | dict):
            left += [*one, *one.values()] if isinstance(one, dict) else one
    return total


def check(*values) -> None:
    """What is put together of values, at most each item of one with all of another. Raises: TooMuchError"""
    for value in values:
        if isinstance(value, int):
            small(abs(value))
    weights = sorted(map(weight, values))
    small(math.prod(max(1, size) for size in weights[-2:]))


class Counting(CodeGenerator):
    """Compiles loops such that they count their turns, and `a ~ b` such that it stays small."""

    def visit_Template(self, node, frame=None):
        for loop in node.find_all(nodes.For):
            counted = nodes.EnvironmentAttribute("counted", lineno=loop.lineno)
            loop.iter = nodes.Call(counted, [nodes.ContextReference(), loop.iter], [], None, None, lineno=loop.lineno)
        super().visit_Template(node, frame)

    def visit_Concat(self, node, frame):
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which what a template computes is bounded."""

    code_generator_class = Counting
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options):
        super().__init__(finalize=written, **options)
        self.globals.pop("lipsum")
        self.filters = {name: bounded(function) for name, function in self.filters.items()}
        self.filters["format"] = lambda text, *values, **named: self.call_binop(None, "%", str(text), named or values)

    def counted(self, context: Context, items: Iterable) -> Iterator:
        """The items of a loop, each of them a step."""
        for item in items:
            context.parent[METER].step()
            yield item

    def joined(self, parts: tuple) -> str:
        """`a ~ b`."""
        small(sum(map(weight, parts)))
        return "".join(map(str, parts))

    def wrap_str_format(self, value):
        format = super().wrap_str_format(value)

        def bounded_format(*args, **named):
            check_format(value.__self__, value.__self__.count("{"), [*args, *named.values()])
            return format(*args, **named)

        return format and bounded_format

    def call(self, context, called, *args, **named):
        context.parent[METER].step()
        if isinstance(called, LoopContext):  # of a recursive loop
            args = (self.counted(context, args[0]), *args[1:])
        elif called != self.counted:
            check(getattr(called, "__self__", None), *args, *named.values())
        return super().call(context, called, *args, **named)

    def call_binop(self, context, operator, left, right):
        if operator == "%" and isinstance(left, str):
            check_format(left, left.count("%"), [right])
        elif operator == "+" and isinstance(left, Sized):
            small(weight(left) + weight(right))
        elif operator == "*" and isinstance(left, Sized) != isinstance(right, Sized):
            small(
                max(1, weight(left)) * max(1, weight(right)) * max(int(x) for x in (left, right) if isinstance(x, int))
            )
        elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            small(left.bit_length() * (right if operator == "**" else 1) + right.bit_length())
        return super().call_binop(context, operator, left, right)


def check_format(text: str, count: int, values: list) -> None:
    """Raises: TooMuchError for a format that makes too much of values, with so many places for them."""
    if WIDE.search(text):
        raise TooMuchError(f"it has the format {text[:60]!r}")
    small(len(text) + count * weight(values))


def bounded(function):
    """A filter that neither gets nor gives too much."""

    @functools.wraps(function)
    def call(*args, **named):
        check(*args, *named.values())
        value = function(*args, **named)
        weight(value)
        return value

    return call


@pass_context
def written(context: Context, value):
    """What is written, counted."""
    if METER in context.parent:
        context.parent[METER].write(value)
    return value
