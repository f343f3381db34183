"""How config files spell activations, gelu above all."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

TANH_SPELLINGS = ("gelu_tanh", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
OTHER_SPELLINGS = {"gelu_python": "gelu_erf", "swish": "silu"}
UNLIKE_KERAS = ("leaky_relu",)  # its slope is 0.01 in PyTorch, 0.2 in Keras

_scripts_gelu: list[str] = []  # the last is what `bert4x.backend.set_gelu` said
_plain_gelu: ContextVar[str | None] = ContextVar("plain_gelu", default=None)


def say_what_gelu_is(name: str) -> None:
    """Sets what the plain word is within `gelu_as_told`: "gelu_erf" or "gelu_tanh"."""
    _scripts_gelu[:] = [name]


@contextlib.contextmanager
def gelu_as_told() -> Iterator[None]:
    """Within it the plain word is what a script for bert4keras said, if it did, whatever the style of a file says."""
    token = _plain_gelu.set(next(iter(_scripts_gelu), None))
    try:
        yield
    finally:
        _plain_gelu.reset(token)


def read_activation(name: str, style) -> str:
    """Our name of an activation: gelu is always told apart as `gelu_erf` or `gelu_tanh`."""
    plain = _plain_gelu.get() or style.gelu
    return plain if name == "gelu" else "gelu_tanh" if name in TANH_SPELLINGS else OTHER_SPELLINGS.get(name, name)


def write_activation(name: str, style) -> str:
    """The spelling of an activation that readers of such files, and `read_activation`, take for `name`."""
    return "gelu" if name == style.gelu else style.tanh if name == "gelu_tanh" else name
