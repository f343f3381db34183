"""The Keras model that users hold: it takes dicts and lists, a padding mask, and refuses bad ids."""

import functools
import itertools
import warnings
from collections.abc import Callable

import keras
import numpy as np

from bert4x.config import TransformerConfig
from bert4x.errors import InputError
from bert4x.generation import methods
from bert4x.layers.limits import concrete
from bert4x.layers.position_embeddings import too_long
from bert4x.models.inputs import (
    INPUT_NAMES,
    as_arrays,
    by_layer,
    check_shapes,
    longest_text,
    standardize,
    token_input,
)
from bert4x.models.keras_models import extend_keras


def checks_arrays(name: str):
    """Keras' method of this name, with a look at the ids first: compiled, a bad one gives garbage on some devices."""
    method = getattr(keras.Model, name)

    @functools.wraps(method)
    def checked(self, x=None, *args, **kwargs):
        x = as_arrays(self, x)
        if isinstance(x, np.ndarray | dict | list | tuple):
            self.check(x)
            if self.config is not None and np.shape(by_layer(self, x)[0][self.first])[0] == 0:
                raise InputError("the batch is empty: token_ids have no rows")
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
        self.builder = None  # what decoding calls: the builder that made this model, over the same layers

    def __call__(self, inputs, *args, mask=None, **kwargs):
        self.check(inputs)
        inputs, mask = standardize(self, inputs, mask)
        return super().__call__(inputs, *args, mask=mask, **kwargs)

    fit, evaluate, predict = (checks_arrays(name) for name in ("fit", "evaluate", "predict"))
    train_on_batch, test_on_batch, predict_on_batch = (
        checks_arrays(name) for name in ("train_on_batch", "test_on_batch", "predict_on_batch")
    )

    def call(self, inputs, training=None, mask=None):
        inputs, mask = standardize(self, inputs, mask)
        return super().call(inputs, training=training, mask=mask)

    def compute_mask(self, inputs, mask=None):
        return None  # the graph has already masked those outputs that have a mask

    generate, generate_ids, stream, chat, score = methods.ALL

    def __reduce__(self):
        """Pickled and copied with the tokenizer as it is; Keras' own form of a model would hold only its vocabulary."""
        tokenizer, self.tokenizer = self.tokenizer, None
        try:
            return unpickled, (*super().__reduce__(), tokenizer)
        finally:
            self.tokenizer = tokenizer

    def save_assets(self, folder):
        """Puts the vocabulary into a `.keras` file."""
        if self.tokenizer is not None:
            write_vocabulary(self.tokenizer, folder)

    def load_assets(self, folder):
        from bert4x.tokenizers import load_tokenizer

        self.tokenizer = load_tokenizer(folder)

    @property
    def input(self):
        """The inputs, or the only one, as Keras 2 has it."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def first(self) -> str:
        """The name of the layer of token ids."""
        return token_input([tensor.name for tensor in self.inputs])

    def check(self, inputs):
        """Raises InputError for ids that have no row in their table, and for too many of them.

        Traced values cannot be looked at; for a bad id among them a backend may give anything.
        """
        if self.config is None:
            return
        c, (given, mask) = self.config, by_layer(self, inputs)
        positions = c.max_position**2 if c.hierarchical_position else c.max_position
        limits = {
            "token": c.vocab_size,
            "segment": c.segment_rows,
            "position": positions,
            "target": c.vocab_size,
        }
        own_positions = any(name.endswith(INPUT_NAMES["position_ids"]) for name in given)
        texts = next((concrete(given[name]) for name in given if name.endswith(INPUT_NAMES["text_ids"])), None)
        ids_by_name = {name: given[name] for name in given if name.endswith(tuple(INPUT_NAMES.values()))}
        token_ids = given[self.first]
        check_shapes({"token_ids": token_ids} | ids_by_name | {"padding_mask": mask})
        rows = np.shape(token_ids)[0]
        if getattr(self.builder, "bidirectional", False) and rows is not None and rows % 2:
            raise InputError(f"{rows} rows; a bidirectional model takes an even number, half of them in each direction")
        for (what, size), name in itertools.product(limits.items(), given):
            ids = concrete(given[name]) if name.endswith(INPUT_NAMES[f"{what}_ids"]) else None
            if ids is None or not ids.size or not size:
                continue
            if ids.dtype.kind not in "biuf":
                raise InputError(f"{what} ids are {ids.dtype}; expected integers, such as Tokenizer.encode gives")
            if ids.dtype.kind == "f" and not (ids == np.floor(ids)).all():  # NaN equals nothing
                raise InputError(f"{what} ids have {ids[ids != np.floor(ids)].flat[0]}; expected integers")
            if ids.min() < 0 or ids.max() >= size:
                bad = ids[(ids < 0) | (ids >= size)].flat[0]
                raise InputError(f"{what} id {bad} is outside the table of {size} rows. Is the vocabulary the model's?")
            length = ids.shape[-1] if texts is None else longest_text(texts)
            if what in ("token", "target") and not own_positions and length > positions:
                raise InputError(too_long(length, positions))

    def get_config(self):
        if self.builder is not None:
            self.builder.check_name()
        config = super().get_config()
        description = self.builder.description() if self.builder and not self.builder.has_conditions else None
        return config | {"transformer": self.config.to_dict() if self.config else None, "backbone": description}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        transformer, description = config.pop("transformer", None), config.pop("backbone", None)
        model = super().from_config(config, custom_objects=custom_objects)
        model.config = config_of(transformer) if transformer else None
        if description and model.config:
            from bert4x.families import family_of

            cls, layers = family_of(model.config.builder), {layer.name: layer for layer in model.layers}
            model.builder = cls(model.config, description["application"], layers=layers, **description["options"])
            model.builder.model = model
        return model


def config_of(fields: dict) -> TransformerConfig:
    """The config of these fields, of its family's class."""
    from bert4x.families import family_of

    return family_of(fields["model"]).config_class(**fields)


def unpickled(load: Callable, args: tuple, tokenizer):
    """The model that `TransformerModel.__reduce__` took apart."""
    model = load(*args)
    model.tokenizer = tokenizer
    return model


def write_vocabulary(tokenizer, folder) -> None:
    """Writes a tokenizer's files. Warns of one that would be another when it is read again: with a function of the
    user's, for instance.
    """
    from bert4x.tokenizers import load_tokenizer

    def known(one):
        ids = one.encode("Ab 1é-[MASK],<s>床前①𠮷\u3000。")[0] if one is not None else None
        return type(one), getattr(one, "token_dict", None), ids

    tokenizer.save(folder)
    if known(load_tokenizer(folder)) != known(tokenizer):
        warnings.warn(
            f"the file keeps the vocabulary, but not all else of {tokenizer!r}: give the model that is loaded from it "
            "this tokenizer again",
            stacklevel=2,
        )


extend_keras(TransformerModel)
