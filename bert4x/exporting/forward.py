"""What is exported: a model's forward pass by named inputs and outputs, and inputs to compare it on."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from bert4x import layers as L
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.sentence_vectors import are_sentence_vectors
from bert4x.checkpoints.task_file import FILE
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, ConversionError, UnknownOptionError
from bert4x.hub.names import local
from bert4x.models.functional import INPUT_NAMES, TransformerModel
from bert4x.runtimes.sessions import Arrays
from bert4x.tasks.heads import read_task
from bert4x.tasks.task import Task
from bert4x.tokenizers import TokenizerBase

HEADS = {"mlm": "with_mlm", "nsp": "with_nsp", "pooled": "with_pool"}  # of an encoder, as applications
TASK_OUTPUTS = {
    "text-classification": ("scores",),
    "token-classification": ("scores",),
    "triple-extraction": ("subject_scores", "object_scores", "states"),
    "gplinker": ("entity_scores", "head_scores", "tail_scores"),
    "reading-comprehension": ("scores",),
    "seq2seq": ("logits",),
    "sentence-embedding": ("sentence_embedding",),
    "universal-extraction": ("scores",),
}
SHAPES = ((1, 9), (3, 17), (2, 64), (2, 128))  # of the batches to compare on: rows, tokens
HIDDEN = 1e4  # what is beyond stands for "never", as the scores of padding do


@dataclass(frozen=True)
class Exportable:
    """A model to export, and what belongs to it."""

    model: keras.Model
    outputs: tuple[str, ...]
    config: TransformerConfig | None
    tokenizer: TokenizerBase | None
    task: Task | None = None


def open_source(source, application: str | None = None, **options) -> Exportable:
    """A model, a task, or what lies at a path.

    Raises: ConfigError, UnknownOptionError, ConversionError for what is no Keras model; the errors of `bert4x.load`.
    """
    if source is None or isinstance(source, str | os.PathLike):
        return open_path(source, application, options)
    if application or options:
        raise UnknownOptionError(
            f"application={application!r}, {options}: what a model in memory computes is fixed; give its path instead"
        )
    if isinstance(source, Task):
        model = source.to_export()
        names = TASK_OUTPUTS.get(source.name) or names_of_layers(model)
        return Exportable(model, names, source.config, source.tokenizer, source)
    if not isinstance(source, keras.Model) or not hasattr(source, "output_names"):
        raise ConversionError(
            f"a {type(source).__name__} cannot be exported; expected what bert4x.load gives, a Keras model over it, "
            "a task, or a path"
        )
    return Exportable(source, output_names(source), getattr(source, "config", None), getattr(source, "tokenizer", None))


def open_path(path, application: str | None, options: dict) -> Exportable:
    """A trained task's folder, or anything that `bert4x.load` takes. Raises: ConfigError"""
    from bert4x.models.build import load
    from bert4x.tasks.pipelines import pipeline

    task = task_of(path, options.get("config"))
    if task is not None and application is None:
        return open_source(pipeline(task, path, **options))
    if task is not None and (Path(path).expanduser() / FILE).is_file():
        raise ConfigError(f"{path} holds a trained task, which is its application; leave out {application!r}")
    if application in HEADS:
        application, options = "encoder", options | {HEADS[application]: True}
    return open_source(load(path, application, **options))


def task_of(path, config=None) -> str | None:
    """The task whose head lies at a path, if there is one."""
    if path is None or str(path).endswith(".keras"):
        return None
    folder = Path(path).expanduser()
    if (folder / FILE).is_file() or are_sentence_vectors(folder):
        return read_task(path)[0]
    head = open_checkpoint(local(path), config).head
    return None if head is None else head.task


def application_of(source: Exportable) -> str | None:
    """The application of the model; None for a Keras model over one of ours."""
    builder = getattr(source.model, "builder", source.task)
    return None if builder is None else builder.application


def output_names(model: keras.Model) -> tuple[str, ...]:
    """The names of a model's outputs: by the heads that were asked for, or by the layers they come from."""
    builder, names = getattr(model, "builder", None), []
    if builder is None:
        return names_of_layers(model)
    if hasattr(builder, "heads"):  # an encoder
        if builder.with_nsp:
            names.append("nsp_probabilities" if builder.with_nsp in (True, "softmax") else "nsp_logits")
        elif builder.with_pool:
            names.append("pooled")
    if builder.with_mlm:
        names.append("probabilities" if builder.with_mlm in (True, "softmax") else "logits")
    names = tuple(names or ["hidden_states"])
    return names if len(names) == len(model.outputs) else names_of_layers(model)


def names_of_layers(model: keras.Model) -> tuple[str, ...]:
    """Names of outputs by their layers, or, where one layer gives several, by their numbers."""
    names = [plain(name) for name in model.output_names]
    return tuple(names if len(set(names)) == len(names) else [f"output_{i}" for i in range(len(names))])


def plain(name: str) -> str:
    """A layer's name as one that every runtime takes."""
    return re.sub(r"\W+", "_", name.removeprefix("Input-")).strip("_").lower()


def input_name(layer: str) -> str:
    """The name of an input: what users of `bert4x.load` call it."""
    return next((key for key, end in INPUT_NAMES.items() if layer.endswith(end)), plain(layer))


class Forward(keras.Model):
    """A model as a function from a dict of arrays to a dict of float32 arrays, without dropout.

    A task whose labels depend on each other (a CRF) also gives the scores of their transitions, (L, L), a constant:
    whoever searches the best labels needs them.

    Args:
        padding_mask: take the padding mask as another input, int32, 1 for real tokens.
    Raises: ConversionError for a mask where the model takes none.
    """

    def __init__(self, source: Exportable, padding_mask: bool):
        super().__init__()
        if padding_mask and not isinstance(source.model, TransformerModel):
            raise ConversionError("only what bert4x.load gives takes a padding mask; export this model without it")
        self.model = source.model
        self.input_keys = tuple(input_name(tensor.name) for tensor in source.model.inputs)
        self.padding_mask = padding_mask
        transitions = getattr(source.task, "transitions", None)
        self.transitions = transitions if transitions in source.model.layers else None
        self.output_keys = source.outputs if self.transitions is None else (*source.outputs, "transitions")

    def call(self, inputs):
        given = {name: inputs[name] for name in self.input_keys}
        if self.padding_mask:
            outputs = self.model(given | {"padding_mask": inputs["padding_mask"]}, training=False)
        else:
            outputs = self.model(list(given.values()), training=False)
        outputs = keras.tree.flatten(outputs)
        outputs += [] if self.transitions is None else [self.transitions.trans]
        return {name: ops.cast(values, "float32") for name, values in zip(self.output_keys, outputs, strict=True)}

    def axes(self) -> dict[str, tuple[str, ...]]:
        """What the first axes of each input are called."""
        return {name: ("batch", "target_length" if name == "target_ids" else "length") for name in self.signature()}

    @property
    def all_inputs(self) -> list[str]:
        """The names of inputs in the order in which tasks give them."""
        return [*self.input_keys, *(["padding_mask"] if self.padding_mask else [])]

    @property
    def dtypes(self) -> set[str]:
        """What the weights are, and what is computed in."""
        held = {variable.dtype for variable in self.model.variables if "seed_generator" not in variable.path}
        return held | {layer.compute_dtype for layer in self.model.layers}

    def signature(self) -> dict[str, keras.layers.InputSpec]:
        """The inputs by name, in the order of the alphabet: that in which TensorFlow flattens them."""
        specs = {name: (tensor.shape[1:], tensor.dtype) for name, tensor in self.symbolic().items()}
        if self.padding_mask:
            specs["padding_mask"] = specs["token_ids"]
        return {
            name: keras.layers.InputSpec(shape=(None, *shape), dtype=dtype, name=name)
            for name, (shape, dtype) in sorted(specs.items())
        }

    def symbolic(self) -> dict[str, keras.KerasTensor]:
        """The model's own inputs by name."""
        return dict(zip(self.input_keys, self.model.inputs, strict=True))

    def run(self, inputs: Arrays) -> Arrays:
        """The outputs as NumPy."""
        return {name: ops.convert_to_numpy(values) for name, values in self(inputs).items()}

    def samples(self, seed: int = 0) -> Iterator[Arrays]:
        """Random batches of several shapes, all but the first with padding where the model can tell it.

        Raises: ConversionError for a model without bert4x's embeddings.
        """
        vocabulary, pad_id, longest, segments = self.tables() if "token_ids" in self.input_keys else (0, None, 10**6, 0)
        draw = np.random.default_rng(seed)
        fixed = self.model.inputs[0].shape[1]
        for rows, length in SHAPES:
            length = fixed or min(length, longest)
            lengths = np.maximum(length - 3 * np.arange(rows), 1)
            real = np.arange(length) < lengths[:, None]
            inputs = {"padding_mask": real.astype("int32")} if self.padding_mask else {}
            for name, tensor in self.symbolic().items():
                shape = (rows, *(length if size is None else size for size in tensor.shape[1:]))
                if name == "segment_ids":
                    values = real & (np.arange(length) >= draw.integers(1, lengths + 1)[:, None]) & (segments > 1)
                elif name == "pooling_mask":
                    values = real
                elif name == "position_ids":
                    values = np.broadcast_to(np.arange(length), shape)
                elif name in ("token_ids", "target_ids"):
                    values = draw.integers(0, vocabulary, shape)
                    values = values if pad_id is None else np.where(real, values, pad_id)
                    values = values[:, : -(length // 4) or None] if name == "target_ids" else values
                elif "int" in tensor.dtype:
                    values = np.sort(draw.integers(0, lengths.min(), shape))  # places
                else:
                    values = draw.standard_normal(shape)
                inputs[name] = values.astype(tensor.dtype)
            yield inputs

    def tables(self) -> tuple[int, int | None, int, int]:
        """Rows of the token table, the id of padding, positions, rows of the segment table."""
        layers = self.model.layers
        tables = {
            end: layer
            for layer in layers
            for end in ("Embedding-Token", "Embedding-Segment")
            if isinstance(layer, L.Embedding) and layer.name.endswith(end)
        }
        if "Embedding-Token" not in tables:
            raise ConversionError(
                "this Keras model has no Embedding-Token layer; expected what bert4x.load gives, or a model over it"
            )
        limits = [x.max_position for x in layers if isinstance(x, L.PositionEmbedding | L.SinusoidalPosition)]
        tokens, segments = tables["Embedding-Token"], tables.get("Embedding-Segment")
        return tokens.input_dim, tokens.pad_id, min(limits, default=10**6), segments.input_dim if segments else 2


def difference(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Largest difference of two arrays, infinite if shapes differ, and the largest value of the first. Shape: any"""
    shown = np.abs(expected) < HIDDEN
    scale = float(np.abs(expected[shown]).max(initial=0.0))
    if found.shape != expected.shape or not np.isfinite(found).all() or ((np.abs(found) < HIDDEN) != shown).any():
        return float("inf"), scale
    return float(np.abs(expected - found)[shown].max(initial=0.0)), scale
