"""The Keras model that users hold: it takes dicts and lists, a padding mask, and refuses bad ids."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bert4x.config import TransformerConfig
from bert4x.errors import InputError, nearest
from bert4x.layers.embeddings import too_long
from bert4x.layers.limits import concrete

INPUT_NAMES = {
    "token_ids": "Input-Token",
    "segment_ids": "Input-Segment",
    "position_ids": "Input-Position",
    "target_ids": "Input-Target",
}


def checks_arrays(name: str):
    """Keras' method of this name, with a look at the ids first: compiled, a bad one gives garbage on some devices."""
    method = getattr(keras.Model, name)

    @functools.wraps(method)
    def checked(self, x=None, *args, **kwargs):
        if isinstance(x, np.ndarray | dict | list | tuple):
            self.check(x)
        return method(self, x, *args, **kwargs)

    return checked


@keras.saving.register_keras_serializable("bert4x")
class TransformerModel(keras.Model):
    """A Functional Keras model with `.config` and `.tokenizer`.

    Takes `{"token_ids": ids, "segment_ids": segments, "padding_mask": real}`, all (B, T), the last two optional
    (segments default to 0; the mask, True for real tokens, to "not the padding id"), or the list bert4keras takes. An
    encoder-decoder takes `{"token_ids": source, "target_ids": target}`, (B, S) and (B, T), and the source's mask.

    Raises: InputError for ids outside the vocabulary, unknown input names, sequences longer than the model has
    positions for.
    """

    def __init__(self, inputs, outputs, name=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.supports_masking = True
        self.config: TransformerConfig | None = None
        self.tokenizer = None
        self.engine = None  # what generates with it, made when it is first asked to (bert4x.generation.engine)
        self.backbone = None  # what decoding calls: the builder that made this model, over the same layers

    def __call__(self, inputs, *args, mask=None, **kwargs):
        self.check(inputs)
        inputs, mask = self.standardize(inputs, mask)
        return super().__call__(inputs, *args, mask=mask, **kwargs)

    fit, evaluate, predict = (checks_arrays(name) for name in ("fit", "evaluate", "predict"))
    train_on_batch, test_on_batch, predict_on_batch = (
        checks_arrays(name) for name in ("train_on_batch", "test_on_batch", "predict_on_batch")
    )

    def call(self, inputs, training=None, mask=None):
        inputs, mask = self.standardize(inputs, mask)
        return super().call(inputs, training=training, mask=mask)

    def compute_mask(self, inputs, mask=None):
        return None  # the graph has already masked those outputs that have a mask

    def generate(self, text: str | Sequence[str], **options):
        """The texts with which the model continues prompts: a str for one, a list for several; a list for every prompt
        with `num_return_sequences` above 1. The options are those of `bert4x.generation.GenerationOptions`.

        Raises: GenerationError before anything is computed.
        """
        from bert4x.generation.text import generate

        return generate(self, text, **options)

    def generate_ids(self, ids, segment_ids=None, padding_mask=None, return_scores: bool = False, **options):
        """`generate` without text.

        Shape: (B, T) -> (B * num_return_sequences, new) int32[, (B * num_return_sequences,) float32 scores]
        Raises: GenerationError before anything is computed.
        """
        from bert4x.generation.text import generate_ids

        return generate_ids(self, ids, segment_ids, padding_mask, return_scores, **options)

    def stream(self, text: str, **options):
        """An iterator over the pieces of a continuation (`bert4x.generation.Piece`) while it is written.

        Raises: GenerationError before anything is computed.
        """
        from bert4x.generation.text import stream

        return stream(self, text, **options)

    def score(self, prompts: str | Sequence[str], choices: Sequence[str], normalize: bool = False) -> np.ndarray:
        """The log-probability of each choice as the continuation of each prompt; of its mean token if normalized.

        Shape: P prompts, C choices -> (P, C) float32; for one prompt (C,)
        Raises: GenerationError before anything is computed.
        """
        from bert4x.generation.score import score

        return score(self, prompts, choices, normalize)

    def by_layer(self, inputs) -> tuple[dict, Any]:
        """What the user gave for each input layer, and the padding mask or None.

        Raises: InputError for names no input has, and without token ids.
        """
        names = [tensor.name for tensor in self.inputs]
        if isinstance(inputs, dict):
            given = {key: value for key, value in inputs.items() if value is not None and key != "padding_mask"}
            by_layer, padding_mask = (
                {self.layer_name(key, names): given[key] for key in given},
                inputs.get("padding_mask"),
            )
        else:
            values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            by_layer, padding_mask = dict(zip(names, values, strict=False)), None
            if len(values) > len(names):
                raise InputError(f"got {len(values)} inputs, but this model takes {len(names)}: {', '.join(names)}")
        if by_layer.get(names[0]) is None:
            raise InputError(f"no token_ids among the inputs; got {sorted(inputs) if isinstance(inputs, dict) else 0}")
        return by_layer, padding_mask

    def standardize(self, inputs, mask=None):
        """The list of inputs the graph takes, and the list of their Keras masks (or None)."""
        names = [tensor.name for tensor in self.inputs]
        by_layer, padding_mask = self.by_layer(inputs)
        first, values = by_layer[names[0]], []
        for name in names:
            if by_layer.get(name) is None and not name.endswith(INPUT_NAMES["segment_ids"]):
                raise InputError(f"input {name!r} is missing; this model takes {', '.join(names)}")
            value = by_layer[name] if by_layer.get(name) is not None else ops.zeros_like(first)
            values.append(value if isinstance(value, keras.KerasTensor) else ops.convert_to_tensor(value))
        if padding_mask is not None:
            mask = [ops.cast(padding_mask, "bool")] + [None] * (len(names) - 1)
        return values, mask

    @staticmethod
    def layer_name(key: str, names: list[str]) -> str:
        """The input layer that a user's key means."""
        for name in names:
            if key == name or (key in INPUT_NAMES and name.endswith(INPUT_NAMES[key])):
                return name
        if key == "segment_ids":  # a model without segments may be given them all the same
            return key
        valid = [*names, "padding_mask", *(k for k, v in INPUT_NAMES.items() if any(n.endswith(v) for n in names))]
        raise InputError(f"no input {key!r}; {nearest(key, valid)}")

    def check(self, inputs):
        """Raises InputError for ids that have no row in their table, and for too many of them.

        Traced values cannot be looked at; what the backend then does with a bad id is its own affair.
        """
        if self.config is None:
            return
        c, (by_layer, mask) = self.config, self.by_layer(inputs)
        positions = c.max_position**2 if c.hierarchical_position else c.max_position
        limits = {
            "token": c.vocab_size,
            "segment": c.segment_vocab_size,
            "position": positions,
            "target": c.vocab_size,
        }
        own_positions = any(name.endswith(INPUT_NAMES["position_ids"]) for name in by_layer)
        ids_by_name = {name: by_layer[name] for name in by_layer if name.endswith(tuple(INPUT_NAMES.values()))}
        token_ids = by_layer[self.inputs[0].name]
        check_shapes({"token_ids": token_ids} | ids_by_name | {"padding_mask": mask})
        rows = np.shape(token_ids)[0]
        if getattr(self.backbone, "bidirectional", False) and rows is not None and rows % 2:
            raise InputError(f"{rows} rows; a bidirectional model takes an even number, half of them in each direction")
        for (what, size), name in itertools.product(limits.items(), by_layer):
            ids = concrete(by_layer[name]) if name.endswith(INPUT_NAMES[f"{what}_ids"]) else None
            if ids is None or not ids.size or not size:
                continue
            if ids.dtype.kind not in "biuf":
                raise InputError(f"{what} ids are {ids.dtype}; expected integers, such as Tokenizer.encode gives")
            if ids.min() < 0 or ids.max() >= size:
                bad = ids[(ids < 0) | (ids >= size)].flat[0]
                raise InputError(f"{what} id {bad} is outside the table of {size} rows. Is the vocabulary the model's?")
            if what in ("token", "target") and not own_positions and ids.shape[-1] > positions:
                raise InputError(too_long(ids.shape[-1], positions))

    def get_config(self):
        config = super().get_config()
        description = self.backbone.description() if self.backbone and not self.backbone.has_conditions else None
        return config | {"transformer": self.config.to_dict() if self.config else None, "backbone": description}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        transformer, description = config.pop("transformer", None), config.pop("backbone", None)
        model = super().from_config(config, custom_objects=custom_objects)
        model.config = TransformerConfig(**transformer) if transformer else None
        if description and model.config:
            from bert4x.models.registry import backbone_class

            cls, layers = backbone_class(model.config.model), {layer.name: layer for layer in model.layers}
            model.backbone = cls(model.config, description["application"], layers=layers, **description["options"])
            model.backbone.model = model
        return model


def check_shapes(arrays: dict[str, Any]) -> None:
    """Raises InputError unless all have the shape of the token ids, (batch, length); sizes not known yet may be any.

    The targets of an encoder-decoder have a length of their own.
    """
    try:
        shapes = {name: tuple(np.shape(values)) for name, values in arrays.items() if values is not None}
    except ValueError as error:  # of nested lists
        raise InputError("rows of different lengths; pad them to one") from error
    first = shapes["token_ids"]
    if len(first) != 2 or first[1] == 0:
        raise InputError(f"token_ids have shape {first}; expected (batch, length), at least one token long")
    for name, shape in shapes.items():
        if name.endswith(INPUT_NAMES["target_ids"]) and len(shape) == 2 and shape[0] == first[0] and shape[1] != 0:
            continue
        if shape != first and None not in (*shape, *first):
            raise InputError(f"{name} has shape {shape}, the token ids have {first}")
