"""What every task is: a model with a head, from rows of text to batches, a loss, scores, and answers on raw text."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open

from bert4x.checkpoints.convert import of_variable, save
from bert4x.checkpoints.tensors import LazyTensor, atomic_write
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, TensorMismatchError, TokenizerError
from bert4x.json_files import read_json
from bert4x.optimizers import NOT_DECAYED, TwoRateAdamW
from bert4x.training.batches import padded_length
from bert4x.training.compiled import Compiled

HEAD = "task/"  # before the names of a head's tensors, beside the model's own in one file
FILE = "task.json"


class Task:
    """Base of all tasks; an instance is also its pipeline: call it on text.

    A subclass has `name`, `best` (the score that says which weights are best: more is better) and `settings` (its
    constructor's arguments, kept as attributes: what task.json holds), and the methods below that raise
    NotImplementedError.

    Args:
        backbone: what `bert4x.load` gives, with its tokenizer.
        maxlen: tokens of a text, special ones included; longer texts are cut in training, and split when called.
    Raises: TokenizerError without a vocabulary, ConfigError when the model has fewer positions than `maxlen`.
    """

    name: ClassVar[str]
    best: ClassVar[str]
    application: ClassVar[str] = "encoder"
    settings: ClassVar[tuple[str, ...]] = ()
    least_head_rate: ClassVar[float] = 0.0  # learning rate of the task's own layers, however slow the model learns

    def __init__(self, backbone, maxlen: int = 128, **settings):
        self.backbone, self.config, self.tokenizer = backbone, backbone.config, backbone.tokenizer
        if self.tokenizer is None:
            raise TokenizerError("this model has no vocabulary beside its weights; put vocab.txt there")
        if not 8 <= maxlen <= self.config.max_position:
            raise ConfigError(f"maxlen = {maxlen}; this model takes texts of 8 to {self.config.max_position} tokens")
        self.maxlen = maxlen
        for setting, value in settings.items():
            setattr(self, setting, value)
        self.skipped: Counter[str] = Counter()  # of `prepare`: why examples were left out, and how many
        self.compiled: dict[int, tuple[Any, Callable]] = {}
        self.model = self.build()

    def build(self) -> keras.Model:
        """The model to train, over the layers of the backbone; its inputs begin with token and segment ids."""
        raise NotImplementedError

    def prepare(self, rows: Sequence) -> list:
        """Rows as encoded examples, each with its `length` in tokens. Bad ones are counted in `skipped`."""
        raise NotImplementedError

    def batch(self, examples: Sequence, length: int, draw: np.random.Generator) -> tuple[list, tuple]:
        """Arrays of some examples padded to a length: the model's inputs, and the targets of `loss`."""
        raise NotImplementedError

    def loss(self, outputs, targets):
        """A scalar, in float32."""
        raise NotImplementedError

    def evaluate(self, rows: Sequence, batch_size: int = 32) -> dict[str, float]:
        """Scores on rows, the `best` among them."""
        raise NotImplementedError

    def __call__(self, texts):
        """The answers for a text, or for each of a list of them."""
        raise NotImplementedError

    def remark(self, scores: dict[str, float]) -> str | None:
        """What to say beside scores, such as why they are 0."""
        return None

    def divergence(self, outputs, others):
        """How far other outputs are from these: the mean Kullback-Leibler divergence of their softmax distributions."""
        total = 0.0
        for logits, other in zip(keras.tree.flatten(outputs), keras.tree.flatten(others), strict=True):
            ours, theirs = (ops.log_softmax(ops.cast(x, "float32")) for x in (logits, other))
            total += ops.mean(ops.sum(ops.exp(ours) * (ours - theirs), axis=-1))
        return total

    def optimizer(
        self, learning_rate: float, head_learning_rate: float | None = None, **options
    ) -> keras.optimizers.Optimizer:
        """What trains it: AdamW, without decay of biases and norms.

        `head_learning_rate` is that of the task's own layers; by default that of the model, or `least_head_rate` where
        the task has one and it is higher.

        Raises: ConfigError where it is given and the task adds no layers.
        """
        options = {"weight_decay": 0.01, "global_clipnorm": 1.0} | options
        if head_learning_rate and not self.head:
            raise ConfigError(f"head_learning_rate = {head_learning_rate}: {self.name} adds no layers to the model")
        multiplier = (head_learning_rate or max(learning_rate, self.least_head_rate)) / learning_rate
        optimizer = TwoRateAdamW(learning_rate, faster=self.head, multiplier=multiplier, **options)
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
        return optimizer

    def predict(self, model: keras.Model, arrays: Sequence[np.ndarray]):
        """The outputs of a model on arrays, as NumPy. Rows are filled up to a power of 2, so that few shapes are
        compiled; lengths are the caller's affair (`padded_length`).
        """
        held, variables = self.compiled.get(id(model)), [id(variable) for variable in model.variables]
        if held is None or [id(variable) for variable in held[1].variables] != variables:  # adapters came or went
            run = Compiled(lambda *inputs: model(list(inputs), training=False), model.variables, assigns=False)
            self.compiled[id(model)] = model, run
        rows = len(arrays[0])
        fill = (1 << (rows - 1).bit_length()) - rows if rows else 1
        arrays = [np.concatenate([a, np.repeat(a[-1:], fill, axis=0)]) if fill else a for a in map(np.asarray, arrays)]
        outputs = self.compiled[id(model)][1](*arrays)
        return keras.tree.map_structure(lambda x: ops.convert_to_numpy(x)[:rows], outputs)

    def padded(self, rows: Sequence[Sequence[int]], length: int | None = None, value: int = 0) -> np.ndarray:
        """Rows of ids as one array.

        Shape: -> (B, `length`), by default the length of a few that holds the longest
        """
        length = padded_length(max(map(len, rows)), self.config.max_position) if length is None else length
        array = np.full((len(rows), length), value, "int32")
        for i, row in enumerate(rows):
            array[i, : len(row)] = row
        return array

    def model_inputs(self, token_ids: np.ndarray, segment_ids: np.ndarray) -> list[np.ndarray]:
        """What the backbone takes: a model without segments takes only the first."""
        return [token_ids, segment_ids] if self.backbone.backbone.needs_segments else [token_ids]

    @property
    def pad_id(self) -> int:
        """What rows of ids are filled up with."""
        return self.config.pad_token_id or 0

    @property
    def head(self) -> dict[str, keras.Variable]:
        """The variables that are the task's own, by path."""
        ours = {id(v) for v in self.backbone.variables}
        return {v.path: v for v in self.model.variables if id(v) not in ours and "seed_generator" not in v.path}

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes model, head, vocabulary and settings; `bert4x.load` finds the model alone in the same folder."""
        head = [rename(of_variable(path, variable), HEAD + path) for path, variable in self.head.items()]
        folder = save(self.backbone, folder, "bert4x", others=head)
        settings = {"maxlen": self.maxlen} | {name: getattr(self, name) for name in self.settings}
        with atomic_write(folder / FILE) as path:
            path.write_text(
                json.dumps({"task": self.name, "settings": settings}, ensure_ascii=False, indent=2) + "\n", "utf-8"
            )
        return folder

    def restore(self, folder: str | os.PathLike) -> None:
        """Takes the weights that `save` wrote. Raises: the errors of `load`."""
        self.backbone.backbone.load_weights_from_checkpoint(folder)
        assign_head(self.head, Path(folder) / "model.safetensors")

    @classmethod
    def load(cls, folder: str | os.PathLike, **options):
        """What `save` wrote. Options are those of `bert4x.load`, such as `dtype`.

        Raises: CheckpointNotFoundError, ConfigError for another task, TensorMismatchError; the errors of `load`.
        """
        from bert4x.models.build import load

        folder = Path(folder)
        found, settings = read_task(folder)
        if found != cls.name:
            raise ConfigError(f"{folder} holds a model for {found!r}, not for {cls.name!r}")
        task = cls(load(folder, application=cls.application, **options), **settings)
        assign_head(task.head, folder / "model.safetensors")
        return task


def read_task(folder: Path) -> tuple[str, dict]:
    """The name of the task of a folder, and its settings.

    Raises: CheckpointNotFoundError, CorruptFileError.
    """
    if not (folder / FILE).is_file():
        raise CheckpointNotFoundError(f"{folder / FILE} does not exist; expected the folder of a trained task")
    data = read_json(folder / FILE)
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("task"), str)
        or not isinstance(data.get("settings"), dict)
    ):
        raise CorruptFileError(f'{folder / FILE} holds no task; expected {{"task": name, "settings": ...}}')
    return data["task"], data["settings"]


def assign_head(head: dict, file: Path) -> None:
    """Gives the variables of a head their values. Raises: CorruptFileError, TensorMismatchError."""
    try:
        with safe_open(file, "numpy") as tensors:
            found = {name.removeprefix(HEAD) for name in tensors.keys() if name.startswith(HEAD)}  # noqa: SIM118
            if found != set(head):
                raise TensorMismatchError(
                    f"{file} has the head {sorted(found - set(head))} too much, and lacks {sorted(set(head) - found)}"
                )
            values = {name: tensors.get_tensor(HEAD + name) for name in found}
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{file} holds no weights: {error}") from error
    for name, value in values.items():
        if tuple(head[name].shape) != value.shape:
            raise TensorMismatchError(f"{file}: {name} has shape {value.shape}, expected {tuple(head[name].shape)}")
        head[name].assign(value)


def rename(tensor: LazyTensor, name: str) -> LazyTensor:
    """A tensor by another name."""
    return LazyTensor(name, tensor.shape, tensor.dtype, tensor.read)
