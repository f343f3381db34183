"""What every task is: a model with a head, from rows of text to batches, a loss, scores, and answers on raw text."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bert4x import layers as L
from bert4x.checkpoints.convert import of_variable, save
from bert4x.checkpoints.heads import HeldHead
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.task_file import FILE
from bert4x.errors import ConfigError, TokenizerError
from bert4x.hub.names import local
from bert4x.runtimes.exported import Exported, is_export, open_export
from bert4x.tasks.given import check_model, check_sizes
from bert4x.tasks.heads import assign_head, known_settings, naming_settings, read_task, rebuilt, warn_of_head
from bert4x.training.batches import padded_length

if TYPE_CHECKING:
    import keras


class Task:
    """Base of all tasks; an instance is also its pipeline: call it on text.

    A subclass has `name`, `best` (the score that says which weights are best: more is better) and `settings` (its
    constructor's arguments, kept as attributes: what task.json holds), and the methods below that raise
    NotImplementedError.

    Args:
        backbone: what `bert4x.load` gives, with its tokenizer.
        maxlen: tokens of a text, special ones included; each task documents what it does with longer ones.
    Raises: TokenizerError without a vocabulary, ConfigError when the model has fewer positions than `maxlen`.
    """

    name: ClassVar[str]
    best: ClassVar[str]
    application: ClassVar[str] = "encoder"
    settings: ClassVar[tuple[str, ...]] = ()
    least_head_rate: ClassVar[float] = 0.0  # learning rate of the task's own layers, however slow the model learns

    def __init__(self, backbone, maxlen: int = 128, **settings):
        check_model(backbone)
        self.backbone, self.config, self.tokenizer = backbone, backbone.config, backbone.tokenizer
        if self.tokenizer is None:
            raise TokenizerError("this model has no vocabulary beside its weights; put vocab.txt there")
        check_sizes(backbone, maxlen, **settings)
        self.exported = isinstance(backbone, Exported)
        if len(backbone.outputs) > 1 and not self.exported:
            raise ConfigError("this model has several outputs; load it without heads and without return_attentions")
        self.maxlen = int(maxlen)  # NumPy's are no JSON
        self.transform = getattr(backbone.builder, "with_transform", False)  # of a ModernBERT
        if self.transform:
            self.settings = (*self.settings, "transform")
        warn_of_head(backbone)
        for setting, value in settings.items():
            setattr(self, setting, value)
        self.skipped: Counter[str] = Counter()  # of `prepare`: why examples were left out, and how many
        self.compiled: dict[int, tuple[Any, Callable]] = {}
        self.model = self.adopt(backbone) if self.exported else self.build()

    def build(self) -> "keras.Model":
        """The model to train, over the layers of the backbone; its inputs begin with token and segment ids."""
        raise NotImplementedError

    def to_export(self) -> "keras.Model":
        """The model that is exported. `adopt` takes it again."""
        return self.model

    def parts_to_export(self) -> "dict[str, tuple[keras.Model, tuple[str, ...]]]":
        """Other models that answers need, by the names of `bert4x.runtimes.exported.GRAPHS`, with names of outputs."""
        return {}

    def adopt(self, exported: Exported) -> Callable:
        """What stands for the model of `build` where it was exported: from a list of arrays to the outputs."""
        return exported.graphs["model"].listed

    def check(self, rows: Sequence) -> None:
        """What `prepare` and `evaluate` begin with. Raises: DataError for a row that is not of this task's form."""

    def prepare(self, rows: Sequence) -> list:
        """Rows as encoded examples, each with its `length` in tokens. Bad ones are counted in `skipped`."""
        raise NotImplementedError

    def batch(self, examples: Sequence, length: int, draw: np.random.Generator) -> tuple[list, tuple]:
        """Arrays of some examples padded to a length: the model's inputs, and the targets of `loss`."""
        raise NotImplementedError

    def loss(self, outputs, targets):
        """A scalar, in float32."""
        raise NotImplementedError

    def fit(
        self, rows: Sequence, valid: Sequence = (), output: str | os.PathLike | None = None, verbose=True, **options
    ):
        """Trains on rows, scores on `valid` after every epoch, and takes the weights that scored best; without `valid`,
        the last. It is a recipe's run, from a script or a notebook, where it shows a bar.

        Called again, it trains the weights that it has further, with an optimizer that begins anew. With `output`, all
        of the run is in that folder, as a recipe's: what was interrupted or killed goes on by the same call, on a task
        of the same settings; once it has ended, the same call takes its best weights again and trains nothing.

        Args:
            output: the folder of the run; by default nothing is written.
            verbose: whether to print a line for every epoch.
            options: those of the recipes, by the same names: `epochs`, `patience` ... (`bert4x.tasks.fitting.OPTIONS`).

        Returns: a `bert4x.recipe.Report`; its `history` has the loss and the scores of every epoch.
        Raises: DataError without rows; UnknownOptionError, ConfigError, RunError for options that cannot be, or when
            the folder holds another run; KeyboardInterrupt, with the state written if there is a folder.
        """
        from bert4x.tasks.fitting import fit

        return fit(self, rows, valid, output, verbose, **options)

    def evaluate(self, rows: Sequence, batch_size: int = 32) -> dict[str, float]:
        """Scores on rows, the `best` among them."""
        raise NotImplementedError

    def best_of(self, rows: Sequence) -> str:
        """Which score of such rows says which weights are best: that of the task, unless it takes several kinds."""
        return self.best

    def __call__(self, texts):
        """The answers for a text, or for each of a list of them."""
        raise NotImplementedError

    def packed(self, examples: Sequence, batch_size: int, seed: int = 0):
        """This task as one that learns from packed rows (`bert4x.tasks.packed.Packed`). Raises: ConfigError"""
        from bert4x.tasks.packed import Packed

        return Packed(self, examples, batch_size, seed)

    def packed_model(self) -> "keras.Model":
        """A model over the same layers for several texts in a row: its inputs are those of the backbone, the numbers of
        texts (B, T) and places (B, K), from which it predicts. Raises: ConfigError where the task has none.
        """
        raise ConfigError(f"{self.name} learns from one text in a row; leave out pack")

    def parts(self, example) -> tuple:
        """Of an example, for packed rows: token ids, segment ids, places to predict from, labels of these places."""
        raise NotImplementedError

    def remark(self, scores: dict[str, float]) -> str | None:
        """What to say beside scores: what to do where the best of them is 0, else None."""
        if scores.get(self.best) != 0:
            return None
        faster = "--learning-rate, " + ("--head-learning-rate" if self.head else "up or down")
        return f"nothing is right yet. If that stays so, train longer (--epochs), or faster ({faster})"

    def divergence(self, outputs, others):
        """How far other outputs are from these: the mean Kullback-Leibler divergence of their softmax distributions."""
        total = 0.0
        for logits, other in zip(L.tree.flatten(outputs), L.tree.flatten(others), strict=True):
            ours, theirs = (L.ops.log_softmax(L.ops.cast(x, "float32")) for x in (logits, other))
            total += L.ops.mean(L.ops.sum(L.ops.exp(ours) * (ours - theirs), axis=-1))
        return total

    def optimizer(
        self, learning_rate: float, head_learning_rate: float | None = None, kind="adamw", lora_plus=1.0, **options
    ) -> "keras.optimizers.Optimizer":
        """What trains it: without decay of biases and norms.

        Args:
            head_learning_rate: that of the task's own layers; by default that of the model, or `least_head_rate` where
                the task has one and it is higher.
            kind: "adamw", "muon" (`bert4x.optimizers.Muon`) or "tiger" (`bert4x.optimizers.Tiger`, whose learning rate
                is relative: 1e-3).
            lora_plus: how many times as fast B of an adapter learns as A (LoRA+, Hayou et al. 2024, arXiv:2402.12354;
                kexue.fm/archives/10001).
            options: those of the optimizer.

        Raises: ConfigError for a rate of a head where the task adds no layers, for another kind, for a lora_plus
            without adapters.
        """
        from bert4x.tasks.optimizing import optimizer_of

        return optimizer_of(self, learning_rate, head_learning_rate, kind, lora_plus, **options)

    def predict(self, model: Callable, arrays: Sequence[np.ndarray]):
        """The outputs of a model on arrays, as NumPy. Rows are filled up to a power of 2, so that few shapes are
        compiled; the caller pads them to few lengths (`padded_length`).
        """
        if self.exported:
            return model(arrays)
        from bert4x.training.compiled import Compiled

        held, variables = self.compiled.get(id(model)), [id(variable) for variable in model.variables]
        if held is None or [id(variable) for variable in held[1].variables] != variables:  # adapters came or went
            run = Compiled(lambda *inputs: model(list(inputs), training=False), model.variables, assigns=False)
            self.compiled[id(model)] = model, run
        rows = len(arrays[0])
        fill = (1 << (rows - 1).bit_length()) - rows if rows else 1
        arrays = [np.concatenate([a, np.repeat(a[-1:], fill, axis=0)]) if fill else a for a in map(np.asarray, arrays)]
        outputs = self.compiled[id(model)][1](*arrays)
        return L.tree.map_structure(lambda x: L.ops.convert_to_numpy(x)[:rows], outputs)

    def padded(self, rows: Sequence[Sequence[int]], length: int | None = None, value: int = 0) -> np.ndarray:
        """Rows of ids as one array.

        Shape: -> (B, `length`), by default the length of a few that holds the longest
        """
        length = self.padded_length(max(map(len, rows))) if length is None else length
        array = np.full((len(rows), length), value, "int32")
        for i, row in enumerate(rows):
            array[i, : len(row)] = row
        return array

    def padded_length(self, longest: int) -> int:
        """What rows are filled up to: one of few lengths; for an export, which compiles nothing, just the longest."""
        return longest if self.exported else padded_length(longest, self.config.max_position)

    def model_inputs(self, token_ids: np.ndarray, segment_ids: np.ndarray) -> list[np.ndarray]:
        """What the backbone takes: a model without segments takes only the first. Shape: (B, T) each"""
        return [token_ids, segment_ids] if self.backbone.builder.needs_segments else [token_ids]

    @property
    def pad_id(self) -> int:
        """What rows of ids are filled up with."""
        return self.known_pad_id or 0

    @property
    def known_pad_id(self) -> int | None:
        """The padding id of the model, or of the vocabulary: a causal model need not know it."""
        pad_id = self.config.pad_token_id
        return getattr(self.tokenizer, "pad_id", None) if pad_id is None else pad_id

    def __reduce__(self):
        """Pickled and copied as one model: Keras' copies of backbone and model would share no weights."""
        settings = {"maxlen": self.maxlen} | {name: getattr(self, name) for name in self.settings}
        if self.exported:
            return functools.partial(type(self), **settings), (self.backbone,)
        head = {path: np.array(L.ops.convert_to_numpy(variable.value)) for path, variable in self.head.items()}
        return rebuilt, (type(self), self.backbone, settings, head)

    @property
    def head(self) -> "dict[str, keras.Variable]":
        """The variables that are the task's own, by path."""
        ours = {id(v) for v in self.backbone.variables}
        return {v.path: v for v in self.model.variables if id(v) not in ours and "seed_generator" not in v.path}

    def held_head(self) -> HeldHead:
        """The head with the task's settings, as checkpoints hold it."""
        settings = {name: getattr(self, name) for name in ("maxlen", *self.settings)}
        tensors = {path: of_variable(path, variable) for path, variable in self.head.items()}
        return HeldHead(self.name, settings, tensors, tuple(tensors))

    def save(self, folder: str | os.PathLike, format: str = "bert4x", *, drop_head: bool = False, **options) -> Path:
        """Writes model, head, vocabulary and settings; `bert4x.load` finds the model alone in the same folder.

        Args:
            format: "bert4x" holds every task, the others those that they have room for (docs/converting.md).
            drop_head: write the model without the head.
        Raises: ConversionError where a format has no room for the head.
        """
        return save(self.backbone, folder, format, head=self.held_head(), drop_head=drop_head, **options)

    def restore(self, folder: str | os.PathLike) -> None:
        """Takes the weights that `save` wrote. Raises: the errors of `load`."""
        self.backbone.builder.load_weights_from_checkpoint(folder)
        assign_head(self.head, open_checkpoint(folder).head, folder)

    @classmethod
    def backbone_options(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """The options of `bert4x.load` for the model under a head of these settings."""
        return {"with_transform": True} if settings.get("transform") else {}

    @classmethod
    def load(cls, folder: str | os.PathLike, **options):
        """What `save` wrote, or a checkpoint of another program with the head of such a task, in any layout that has
        room for it: a folder or a name. Options are those of `bert4x.load`, such as `dtype`, and settings of the task,
        such as `maxlen`.

        Raises: CheckpointNotFoundError, ConfigError for another task, TensorMismatchError; the errors of `load`.
        """
        from bert4x.models.build import load

        folder = local(folder)
        found, settings = read_task(folder, options.get("config"))
        if found != cls.name:
            raise ConfigError(f"{folder} holds a model for {found[:80]!r}, not for {cls.name!r}")
        settings |= {name: options.pop(name) for name in ("maxlen", *cls.settings) if name in options}
        if is_export(folder):
            backbone = open_export(folder, **options)
        else:
            backbone = load(folder, application=cls.application, **cls.backbone_options(settings), **options)
            backbone.load_report.head_in_use = True
        settings.pop("transform", None)  # the model says so
        with naming_settings(Path(folder).expanduser() / FILE):
            task = cls(backbone, **known_settings(cls, settings, folder))
        if not task.exported:
            assign_head(task.head, backbone.load_report.head, folder)
        return task
