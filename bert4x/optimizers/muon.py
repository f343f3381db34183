"""Muon for Transformers: Keras' own, with a matrix for each head of attention."""

import re

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.checks import check_patterns
from bert4x.optimizers.extension import Settled
from bert4x.optimizers.path_rates import PathRates

PER_HEAD = r"Attention/(query|key|value)/kernel$"


@keras.saving.register_keras_serializable("bert4x")
class Muon(Settled, PathRates, keras.optimizers.Muon):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of a matrix is made orthogonal by five
    steps of Newton and Schulz before it is applied. All that is no matrix, embeddings and output layers learn by AdamW.

    An update has the root mean square of Adam's, 0.2 (Liu et al. 2025, arXiv:2502.16982), so learning rate and weight
    decay are AdamW's. Keras' own orthogonalises the matrix of all heads together; here each head's queries, keys and
    values are a matrix of their own (kexue.fm/archives/11416).

    Args:
        num_heads: of attention; 1 for one matrix of all. Of grouped keys and values, one for each of theirs, of the
            same width.
        head_size: numbers of a head; None divides the columns of a matrix by `num_heads`.
        per_head: regular expression, searched for in paths, of the kernels (D, heads * size) that are divided.
        exclude_layers: regular expressions, searched for in paths, of what learns by AdamW beside embeddings: the
            output layers of a model. `bert4x` tasks name theirs.
        rates: path of a variable -> multiplier of its learning rate.
        The others are those of `keras.optimizers.Muon`.

    Raises: ConfigError for a number of heads that does not divide a matrix, and for a pattern that is none.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        num_heads: int = 1,
        head_size: int | None = None,
        per_head: str = PER_HEAD,
        weight_decay: float = 0.01,
        adam_weight_decay: float | None = None,
        exclude_layers=("Output", "Bias"),
        **kwargs,
    ):
        adam_weight_decay = weight_decay if adam_weight_decay is None else adam_weight_decay
        super().__init__(
            learning_rate, weight_decay=weight_decay, adam_weight_decay=adam_weight_decay,
            exclude_layers=list(exclude_layers), **kwargs,
        )  # fmt: skip
        self.num_heads, self.head_size, self.per_head = num_heads, head_size, per_head
        for name in ("exclude_layers", "per_head"):
            check_patterns({name: getattr(self, name)}, name)
        if type(num_heads) is not int or num_heads < 1:
            raise ConfigError(f"num_heads = {num_heads!r}; expected a number of heads, 1 or more")

    def heads(self, path: str, columns: int) -> int:
        """How many matrices the kernel at a path is made of."""
        if not re.search(self.per_head, path):
            return 1
        if columns % (self.head_size or self.num_heads):
            kind = f"heads of {self.head_size}" if self.head_size else f"{self.num_heads} heads"
            raise ConfigError(f"{path} has {columns} columns, which {kind} do not divide")
        return columns // self.head_size if self.head_size else self.num_heads

    def _muon_update_step(self, gradient, variable, lr, m):
        index, dtype = self._get_variable_index(variable), variable.dtype
        gradient = ops.cast(gradient, dtype)
        self.assign(m, m * self.momentum + gradient)
        update = gradient + self.momentum * m if self.nesterov else ops.convert_to_tensor(m)
        rows, columns = variable.shape
        heads = self.heads(self._trainable_variables[index].path, columns)
        update = ops.transpose(ops.reshape(update, (rows, heads, columns // heads)), (1, 0, 2))
        update = self.zeropower_via_newtonschulz5(update, self.ns_steps)
        if self.rms_rate is not None:
            update = update * (self.rms_rate * max(rows, columns // heads) ** 0.5)
        update = ops.reshape(ops.transpose(update, (1, 0, 2)), (rows, columns))
        self.assign_sub(variable, ops.cast(lr, dtype) * update)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "per_head": self.per_head,
        }
