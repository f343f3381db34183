"""`load` and `build_transformer_model`: from a checkpoint to a Keras model."""

import os
import warnings
from pathlib import Path
from typing import Any

import keras

from bert4x import devices
from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.detect import find_tokenizer, open_checkpoint, with_pad_id
from bert4x.checkpoints.files import default_model
from bert4x.checkpoints.tables import style_for
from bert4x.checkpoints.weights import Weights, kept_pad_id, vocabulary_size
from bert4x.config import SPELLED, TransformerConfig, from_json, read_activation, read_config_file
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, UnknownOptionError, nearest
from bert4x.families import family_name, family_of
from bert4x.hub.names import local, warn_of_head
from bert4x.layers import weights_from
from bert4x.models.backbone import Backbone
from bert4x.tokenizers import load_tokenizer

# Other names of config fields, from published config files and older scripts.
ALIASES = {
    "max_position_embeddings": "max_position",
    "max_length": "max_position",
    "hidden_dropout_prob": "dropout_rate",
    "attention_probs_dropout_prob": "attention_dropout_rate",
    "type_vocab_size": "segment_vocab_size",
    "keep_words": "keep_tokens",
}
LOADING_OPTIONS = ("keep_tokens", "compound_tokens", "autoresize_weights", "ignore_invalid_weights")
OWNERS = {  # options that only change what another asks for
    "bidirectional_weight": "bidirectional",
    "bidirectional_dropout": "bidirectional",
    "layer_norm_cond_hidden_size": "layer_norm_cond",
    "layer_norm_cond_hidden_act": "layer_norm_cond_hidden_size",
}
HEADED = ("lm", "unilm", "seq2seq")  # the applications that end in a language model's head
Source = str | os.PathLike


def load(
    source: Source | None = None,
    application: str | None = None,
    *,
    strict: bool = True,
    dtype: str | None = None,
    **options,
) -> keras.Model:
    """A published checkpoint as a Keras model; format, family and config are found out.

    `source` is a folder, a file, or the prefix of a TensorFlow checkpoint, in any published layout; by default the
    small model inside the package. What is no path is a name: one of the catalogue (`bert4x models`), OWNER/NAME of
    Hugging Face, modelscope://OWNER/NAME, or the address of an archive; it is fetched once (`bert4x.hub`). A `.keras`
    file that `model.save` wrote is loaded as it is. `application` is "encoder", "lm" or "unilm"; by default what the
    family was made for ("lm" for GPT2, "seq2seq", its only one, for the encoder-decoder "transformer"), and "lm" for a
    BERT whose config says `is_decoder: true`. `dtype` is a
    Keras policy: "bfloat16", "mixed_float16" ... All options of `build_transformer_model` are taken; outputs are raw
    logits. `verify=True` checks the file's checksums first. `strict=False` turns missing and unexpected tensors into a
    warning and starts what is missing at random; `model.load_report` says which.

    `quantize="int8"` turns every matrix into int8 as it is read, with a scale for each output: a quarter of the memory
    of float32. Activations keep the dtype, float32 or bfloat16 (on PyTorch the faster one). The matrices no longer
    train, and such a model cannot be written as a checkpoint.

    Shape: `{"token_ids", "segment_ids", "padding_mask"}` or `[token_ids, segment_ids]`, each (B, T) -> (B, T, D), or
    with `with_mlm=True` or an application "lm" or "unilm" the logits (B, T, V); `{"token_ids", "target_ids"}`, (B, S)
    and (B, T), for "seq2seq"
    Raises: Bert4xError; the subclass says what is wrong.
    """
    source = default_model() if source is None else source
    if str(source).endswith(".keras"):
        return load_keras(source, application, dtype, options if strict else options | {"strict": strict})
    checkpoint = open_checkpoint(local(source), options.pop("config", None))
    if options.pop("verify", False):
        checkpoint.verify()
    model = options.pop("model", None) or checkpoint.config.backbone
    if application is None and checkpoint.config.is_decoder:
        application = "lm"  # with the head, unless it was published without
        options.setdefault("with_mlm", "MLM-Bias/bias" in checkpoint.entries)
    application = application or family_of(model).applications[0]
    if application in HEADED:
        options.setdefault("with_mlm", True)
    for head in ("with_mlm", "with_nsp"):
        if options.get(head) is True:
            options[head] = "linear"
    if options.get("with_mlm"):
        warn_of_head(source)
    tokenizer = find_tokenizer(checkpoint)
    config = with_pad_id(checkpoint, tokenizer, given="pad_token_id" in options)
    backbone = construct(config, model, application, checkpoint, strict, dtype=dtype, **options)
    keep = options.get("keep_tokens")
    if tokenizer is not None and keep is None and tokenizer.vocab_size > config.vocab_size:
        warnings.warn(
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: they do not belong "
            "together, or the vocabulary has unused entries at its end",
            stacklevel=2,
        )
    backbone.model.tokenizer = tokenizer if keep is None else None
    start = getattr(backbone.model.tokenizer, "start_id", None)
    if config.model == "gpt2" and application == "lm" and start is not None:
        token = tokenizer.id_to_token(start)
        warnings.warn(
            f"this GPT2 has a vocabulary with {token}, but a prompt is read without it. Models of UER were trained on "
            f"texts that begin with it: for those say generate(..., start_id={start}), or write {token} before the "
            "prompt",
            stacklevel=2,
        )
    return backbone.model


def load_keras(path: Source, application: str | None, dtype: str | None, options: dict[str, Any]) -> keras.Model:
    """A whole model that `model.save` wrote; its graph is fixed, so it takes no options.

    Raises: CheckpointNotFoundError, UnknownOptionError, CorruptFileError.
    """
    if application or dtype or options:
        raise UnknownOptionError(f"{path} is a whole model: what it computes was fixed when it was saved")
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} does not exist; expected a file that model.save wrote")
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # Keras raises whatever its parts do
        raise CorruptFileError(f"Keras cannot load {path}: {error}") from error
    if getattr(model, "tokenizer", False) is None:  # of a version that did not put it into the file
        model.tokenizer = load_tokenizer(path.parent)
    return model


def build_transformer_model(
    config_path: Source | dict | None = None,
    checkpoint_path: Source | None = None,
    model: str | type[Backbone] = "bert",
    application: str | None = None,
    return_keras_model: bool = True,
    **options,
) -> keras.Model | Backbone:
    """bert4keras' builder, with its arguments, defaults and layer names.

    `application` is "encoder" unless the family has another one, or the config says `is_decoder: true`: "lm".
    Heads give probabilities (`with_mlm="linear"` gives logits); "lm", "unilm", every gpt2 and transformer have the
    language-model head. Any config field or option may be given by name. With `return_keras_model=False` it returns
    the backbone, whose `.model` is the Keras model. Without `checkpoint_path` the weights are random.

    Raises: Bert4xError; the subclass says what is wrong.
    """
    application = application.lower() if isinstance(application, str) else application
    family, applications = family_name(family_of(model)), family_of(model).applications
    default, application = application is None, application or "encoder"
    if application == "encoder" and application not in applications:
        application = applications[0]
    if application == "seq2seq" and application not in applications:  # the name in bert4keras' first versions
        application = "unilm"
    checkpoint = None
    if checkpoint_path is not None:
        checkpoint = open_checkpoint(local(checkpoint_path), config_path)
        config = checkpoint.config
    elif config_path is not None or options:
        config = read_any_config(config_path, family_of(model), options)
    else:
        raise ConfigError("build_transformer_model needs config_path, checkpoint_path, or the sizes as options")
    if default and config.is_decoder:
        application = "lm"
        options.setdefault("with_mlm", checkpoint is None or "MLM-Bias/bias" in checkpoint.entries)
    if application in HEADED or family == "gpt2":
        options.setdefault("with_mlm", True)
        options["with_mlm"] = options.pop("final_activation", options["with_mlm"])
    if checkpoint is not None:
        config = with_pad_id(checkpoint, find_tokenizer(checkpoint), given="pad_token_id" in options)
    strict = options.pop("strict", True)
    backbone = construct(config, model, application, checkpoint, strict, **options)
    return backbone.model if return_keras_model else backbone


def construct(
    config: TransformerConfig, model, application: str, checkpoint: Checkpoint | None, strict: bool, **options
) -> Backbone:
    """A built backbone with the weights of a checkpoint, if there is one.

    Raises: UnknownOptionError, ConfigError, TensorMismatchError.
    """
    cls = family_of(model)
    changes, build, loading = sort_options(options, cls)
    if "hidden_act" in changes:
        changes["hidden_act"] = read_activation(changes["hidden_act"], style_for("hf", config.model))
    if checkpoint is not None:
        check_family(config.model, family_name(cls), checkpoint)
    vocabulary = loading.get("keep_tokens"), loading.get("compound_tokens")
    changes.setdefault("vocab_size", vocabulary_size(config.vocab_size, *vocabulary))
    changes.setdefault("pad_token_id", kept_pad_id(config.pad_token_id, vocabulary[0]))
    changes.update(follow_on_sizes(config, changes))
    config = config.replace(model=family_name(cls), **changes).of_backbone(cls.model_name)
    cls.check_fields(config, changes)
    check_dependent(build)
    backbone = cls(config, application, **build)
    backbone.loading = loading
    return backbone.build() if checkpoint is None else fill(backbone, checkpoint, strict)


def fill(backbone: Backbone, checkpoint: Checkpoint, strict: bool = True) -> Backbone:
    """Builds a backbone from a checkpoint; what is built already (layers of another model, too) takes its values.

    Raises: ConfigError, TensorMismatchError.
    """
    from bert4x.training.lora import clear_adapters

    check_family(checkpoint.config.model, family_name(type(backbone)), checkpoint)
    if strict and not backbone.loading.get("ignore_invalid_weights"):
        checkpoint.report.raise_for_problems(checkpoint.files.path)
    checkpoint.check_tied()
    loading = backbone.loading | {"prefix": backbone.prefix}
    weights = Weights(checkpoint, backbone.config, loading, backbone.is_new)
    existing = {id(v): v for layer in backbone.layers.values() for v in layer.variables}
    if any(v.dtype == "int8" for v in existing.values()):
        raise ConfigError("int8 weights cannot be overwritten; build another model with quantize='int8'")
    if backbone.model is None:
        with weights_from(weights):
            backbone.build()
    found = [(v, initial(v, weights)) for v in backbone.model.variables if id(v) in existing]
    weights.settle(strict)
    for variable, values in found:
        if values is not None:
            variable.assign(values)
    clear_adapters(backbone.model)  # they belonged to other matrices
    if not weights.loaded:
        raise ConfigError(f"nothing of {checkpoint.files.path} fits this model: {backbone.config}")
    backbone.model.load_report = checkpoint.report
    return backbone


def initial(variable, weights: Weights):
    """The values of a variable that is there already, or None; divided over devices as the variable is."""
    path, shape = variable.path, tuple(variable.shape)
    if not devices.divided():
        return weights(path, shape)
    read = weights.parts(path, shape)
    return None if read is None else devices.place(path, shape, variable.dtype, read)


def sort_options(options: dict[str, Any], cls: type[Backbone]) -> tuple[dict, dict, dict]:
    """User options as (config fields, options of the backbone, options of loading).

    Raises: UnknownOptionError naming the nearest valid one.
    """
    changes, build, loading = {}, {}, {}
    for name, value in options.items():
        name = ALIASES.get(name, name)
        if name in SPELLED:
            if value is not None or name == "pad_token_id":  # None: no id is padding
                changes[name] = value
        elif name in cls.options:
            build[name] = value
        elif name in LOADING_OPTIONS:
            loading[name] = value
        elif name in Backbone.options:  # of other families
            if value != Backbone.options[name]:
                raise UnknownOptionError(f"a {cls.model_name} has no {name}; leave it out")
        else:
            raise UnknownOptionError(f"no option {name!r}; {nearest(name, [*SPELLED, *cls.options, *LOADING_OPTIONS])}")
    return changes, build, loading


def check_dependent(options: dict[str, Any]) -> None:
    """Raises: UnknownOptionError for an option that does nothing without another, which was not given."""
    for name, owner in OWNERS.items():
        if options.get(name) is not None and (options.get(owner) is None or options[owner] is False):
            raise UnknownOptionError(f"{name} without {owner}, without which it does nothing")


def follow_on_sizes(config: TransformerConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Sizes that were derived from one that is changed are derived anew."""
    follow = {}
    if "hidden_size" in changes or "num_attention_heads" in changes:
        if config.attention_head_size * config.num_attention_heads == config.hidden_size:
            follow["attention_head_size"] = follow["attention_key_size"] = None
        if config.embedding_size == config.hidden_size:
            follow["embedding_size"] = follow["embedding_mapping"] = None
    if "embedding_size" in changes:
        follow["embedding_mapping"] = None
    return {name: value for name, value in follow.items() if name not in changes}


def check_family(found: str, asked: str, checkpoint: Checkpoint) -> None:
    """Raises: ConfigError when a checkpoint of one family is asked to be another."""
    compatible = {("albert", "albert_unshared")}
    if found != asked and (found, asked) not in compatible:
        raise ConfigError(f"{checkpoint.files.path} is a {found} checkpoint; it cannot be loaded as model={asked!r}")


def read_any_config(config_path, cls: type[Backbone], options: dict[str, Any]) -> TransformerConfig:
    """The config of a model without weights; options fill in what the file lacks, and need not be repeated there."""
    data = dict(config_path) if isinstance(config_path, dict) else read_config_file(config_path) if config_path else {}
    renamed = {ALIASES.get(name, name): value for name, value in options.items()}
    given = {name: value for name, value in renamed.items() if name in SPELLED}
    config = from_json(data | given, family_name(cls), style_for("tf1", family_name(cls)))
    cls.check_fields(config, data)
    return config
