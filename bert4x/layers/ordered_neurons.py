"""ON-LSTM, a recurrent layer whose neurons are ordered by how long they remember."""

import keras
from keras import ops

from bert4x.errors import ConfigError


def cumax(x, reverse: bool = False):
    """Cumulative softmax: rises from near 0 to 1 along the last axis, or falls from 1 with `reverse`.

    Shape: (..., N) -> the same
    """
    p = ops.softmax(x, axis=-1)
    return ops.flip(ops.cumsum(ops.flip(p, -1), axis=-1), -1) if reverse else ops.cumsum(p, axis=-1)


@keras.saving.register_keras_serializable("bert4x")
class OrderedNeuronsCell(keras.layers.Layer):
    """One step of ON-LSTM (Shen et al. 2018, arXiv 1810.09536; Su, kexue.fm/archives/6621).

    The cell's neurons stand in `levels` levels. A new token overwrites the low ones, up to a level that a master input
    gate says; from a level that a master forget gate says on, the high ones keep what they held. Where both meet, it is
    an LSTM.

    The forget gate's level is how deep in the sentence's tree the new token stands: how much it lets go of.

    Args:
        units: of the state; a multiple of `levels`.
        levels: of neurons.

    Shape: (B, D), state [(B, units), (B, units)] -> (B, units + 1), the last the share of levels that are let go of
    Raises: ConfigError for units that are no multiple of the levels.
    """

    def __init__(self, units: int, levels: int, **kwargs):
        super().__init__(**kwargs)
        if levels < 1 or units % levels:
            raise ConfigError(f"{units} units in {levels} levels; expected a multiple of the levels")
        self.units, self.levels = units, levels
        self.state_size, self.output_size = [units, units], units + 1

    def build(self, shape):
        width = 4 * self.units + 2 * self.levels
        self.kernel = self.add_weight((shape[-1], width), "glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, width), "orthogonal", name="recurrent_kernel")
        self.bias = self.add_weight((width,), "zeros", name="bias")
        super().build(shape)

    def call(self, x, states, training=None):
        h, c = states
        z = ops.matmul(x, self.kernel) + ops.matmul(h, self.recurrent_kernel) + self.bias
        levels, repeats = self.levels, self.units // self.levels
        forget, write = cumax(z[:, :levels]), cumax(z[:, levels : 2 * levels], reverse=True)
        released = 1 - ops.mean(forget, axis=-1, keepdims=True)
        forget, write = ops.repeat(forget, repeats, axis=-1), ops.repeat(write, repeats, axis=-1)
        f, i, o, new = ops.split(z[:, 2 * levels :], 4, axis=-1)
        f, i, o, new = ops.sigmoid(f), ops.sigmoid(i), ops.sigmoid(o), ops.tanh(new)
        both = forget * write
        c = both * (f * c + i * new) + (forget - both) * c + (write - both) * new
        h = o * ops.tanh(c)
        return ops.concatenate([h, released], axis=-1), [h, c]

    def get_config(self):
        return super().get_config() | {"units": self.units, "levels": self.levels}


@keras.saving.register_keras_serializable("bert4x")
class OrderedNeurons(keras.layers.RNN):
    """A layer of `OrderedNeuronsCell`: the hidden states, and how much each token makes it let go of.

    Shape: (B, T, D) -> (B, T, units), (B, T)
    """

    def __init__(self, units: int, levels: int, **kwargs):
        kwargs.pop("cell", None)
        super().__init__(OrderedNeuronsCell(units, levels), **kwargs | {"return_sequences": True})

    def call(self, sequences, initial_state=None, mask=None, training=False):
        outputs = super().call(sequences, initial_state, mask, training)
        return outputs[..., :-1], outputs[..., -1]

    def compute_output_shape(self, shape, *args):
        return (*shape[:2], self.cell.units), tuple(shape[:2])

    def compute_output_spec(self, sequences, *args, **kwargs):
        shapes = self.compute_output_shape(sequences.shape)
        return tuple(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)

    def compute_mask(self, inputs, mask=None):
        return mask, mask

    def get_config(self):
        config = super().get_config()
        for name in ("cell", "return_sequences"):
            config.pop(name)
        return config | {"units": self.cell.units, "levels": self.cell.levels}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def tree_of(tokens, released):
    """The binary tree of a sentence: parted before the token that lets go of most, and so each part again.

    Args:
        tokens: of the sentence.
        released: how much each lets go of, as `OrderedNeurons` says. Shape: (T,)

    Returns: a token, or a pair of trees.
    """
    if len(tokens) == 1:
        return tokens[0]
    cut = 1 + max(range(len(tokens) - 1), key=lambda i: released[i + 1])
    return tree_of(tokens[:cut], released[:cut]), tree_of(tokens[cut:], released[cut:])


def spans_of(tree, start: int = 0) -> tuple[set[tuple[int, int]], int]:
    """The spans (start, end) of all parts of a tree with more than one token, and how many tokens it has."""
    if not isinstance(tree, tuple):
        return set(), 1
    spans, end = set(), start
    for part in tree:
        inner, size = spans_of(part, end)
        spans, end = spans | inner, end + size
    return spans | {(start, end)}, end - start


def trees_f1(found, true) -> float:
    """Unlabelled F1 of the spans of trees, that of a whole sentence, which all share, not counted."""
    both = ours = theirs = 0
    for one, other in zip(found, true, strict=True):
        (a, size), (b, _) = spans_of(one), spans_of(other)
        a, b = a - {(0, size)}, b - {(0, size)}
        both, ours, theirs = both + len(a & b), ours + len(a), theirs + len(b)
    return 2 * both / max(ours + theirs, 1)


def tokens_of(tree) -> list:
    """The tokens of a tree, from left to right."""
    return [token for part in tree for token in tokens_of(part)] if isinstance(tree, tuple) else [tree]


def written(tree) -> str:
    """A tree with brackets."""
    return "(" + " ".join(map(written, tree)) + ")" if isinstance(tree, tuple) else tree
