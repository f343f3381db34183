"""`load` and `build_transformer_model`: from a checkpoint to a Keras model."""

import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert4x.activation_names import gelu_as_told, read_activation
from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.files import default_model
from bert4x.checkpoints.formats.zip_members import read_members
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import config_from, style_for
from bert4x.checkpoints.vocabulary import find_tokenizer, warn_of_pad_id, with_pad_id
from bert4x.checkpoints.weights import kept_token_ids, vocabulary_size
from bert4x.config import TransformerConfig, read_config_file
from bert4x.errors import CheckpointNotFoundError, ConfigError, CorruptFileError, UnknownOptionError
from bert4x.families import families, family_name, family_of
from bert4x.hub.names import Location, family_by_name, local, warn_of_head
from bert4x.models.builder import TransformerBuilder
from bert4x.models.hooks import MAPPING
from bert4x.models.options import ALIASES, check_dependent, follow_on_sizes, sort_options
from bert4x.runtimes.exported import is_export, open_export
from bert4x.tokenizers import TokenizerBase, load_tokenizer

if TYPE_CHECKING:
    import keras

    from bert4x.models.functional import TransformerModel

HEADED = ("lm", "unilm", "seq2seq", "decoder")  # the applications that end in a language model's head


def load(
    source: Location | None = None,
    application: str | None = None,
    *,
    strict: bool = True,
    dtype: str | None = None,
    **options,
) -> "keras.Model":
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

    A folder that `bert4x.export` wrote is opened as a `bert4x.runtimes.exported.Exported`, without Keras.

    Shape: `{"token_ids", "segment_ids", "padding_mask"}` or `[token_ids, segment_ids]`, each (B, T) -> (B, T, D), or
    with `with_mlm=True` or an application "lm" or "unilm" the logits (B, T, V); `{"token_ids", "target_ids"}`, (B, S)
    and (B, T), for "seq2seq"
    Raises: Bert4xError; the subclass says what is wrong.
    """
    source = default_model() if source is None else source
    if str(source).endswith(".keras"):
        return load_keras(source, application, dtype, options if strict else options | {"strict": strict})
    family = options.get("model") or family_by_name(source)
    place = local(source)
    if is_export(place):
        return open_export(place, application, **options | ({} if dtype is None else {"dtype": dtype}))
    checkpoint = open_checkpoint(place, options.pop("config", None), family)
    if options.pop("verify", False):
        checkpoint.verify()
    cls = family_of(options.pop("model", None) or checkpoint.config.builder)
    if application is None:
        is_decoder = cls.is_decoder(checkpoint.config)
        application = as_decoder(checkpoint, options) if is_decoder else cls.applications[0]
    ask_for_logits(application, options)
    if options.get("with_mlm"):
        warn_of_head(source)
    tokenizer = find_tokenizer(checkpoint)
    config = with_pad_id(checkpoint, tokenizer, given="pad_token_id" in options)
    model = construct(config, cls, application, checkpoint, strict, dtype=dtype, **options).model
    give_tokenizer(model, config, None if options.get("keep_tokens") is not None else tokenizer)
    return model


def as_decoder(checkpoint: Checkpoint | None, options: dict[str, Any]) -> str:
    """The application of a BERT whose config says that it decodes; with the head, unless it was published without."""
    options.setdefault("with_mlm", checkpoint is None or "MLM-Bias/bias" in checkpoint.entries)
    return "lm"


def ask_for_logits(application: str, options: dict[str, Any]) -> None:
    """The options of heads as `load` means them: raw logits, and a language model with its head."""
    if application in HEADED:
        options.setdefault("with_mlm", True)
    for head in ("with_mlm", "with_nsp", "with_discriminator"):
        if options.get(head) is True:
            options[head] = "linear"


def give_tokenizer(model: "keras.Model", config: TransformerConfig, tokenizer: TokenizerBase | None) -> None:
    """Gives a model the tokenizer beside its weights; warns where they do not fit, by the config of the weights."""
    model.tokenizer = tokenizer
    if tokenizer is None:
        return
    if tokenizer.vocab_size > config.vocab_size:
        warnings.warn(
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: they do not belong "
            "together, or the vocabulary has unused entries at its end",
            stacklevel=3,
        )
    start = getattr(tokenizer, "start_id", None)
    if model.builder.start_differs and model.builder.application == "lm" and start is not None:
        token = tokenizer.id_to_token(start)
        warnings.warn(
            f"this {config.model} has a vocabulary with {token}, but a prompt is read without it. Models of UER were "
            f"trained on texts that begin with it: for those say generate(..., start_id={start}), or write {token} "
            "before the prompt",
            stacklevel=3,
        )


def load_keras(
    path: Location, application: str | None, dtype: str | None, options: dict[str, Any]
) -> "TransformerModel":
    """A whole model that `model.save` wrote; its graph is fixed, so it takes no options.

    Raises: CheckpointNotFoundError, UnknownOptionError, CorruptFileError, UnsafeFileError.
    """
    if application or dtype or options:
        raise UnknownOptionError(f"{path} is a whole model: what it computes was fixed when it was saved")
    import keras

    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} does not exist; expected a file that model.save wrote")
    if zipfile.is_zipfile(path):
        read_members(path)  # bombs and names that climb are refused before Keras unpacks them
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # Keras raises whatever its parts do
        raise CorruptFileError(f"Keras cannot load {path}: {error}") from error
    if getattr(model, "tokenizer", False) is None:  # of a version that did not put it into the file
        model.tokenizer = load_tokenizer(path.parent)
    return model


@gelu_as_told()
def build_transformer_model(
    config_path: Location | dict | TransformerConfig | None = None,
    checkpoint_path: Location | None = None,
    model: str | type[TransformerBuilder] | None = None,
    application: str | None = None,
    return_keras_model: bool = True,
    **options,
) -> "keras.Model | TransformerBuilder":
    """bert4keras' builder, with its arguments, defaults and layer names.

    `model` is a family or a class; by default the family that the config names as its "model", as ours do, else "bert".
    `application` is "encoder" unless the family has another one, or the config says `is_decoder: true`: "lm".
    Heads give probabilities (`with_mlm="linear"` gives logits); "lm", "unilm", every gpt2 and transformer have the
    language-model head. Any config field or option may be given by name. With `return_keras_model=False` it returns
    the builder, whose `.model` is the Keras model. Without `checkpoint_path` the weights are random.

    Raises: Bert4xError; the subclass says what is wrong.
    """
    in_file = not isinstance(config_path, dict | TransformerConfig | None)
    said = read_config_file(config_path) if in_file else config_path
    model = named_family(said, in_file) if model is None else model
    cls, checkpoint, given = family_of(model), None, application
    application = bert4keras_application(cls, application)
    by_mapping = checkpoint_path is not None and cls.overrides(*MAPPING)
    if checkpoint_path is not None and not by_mapping:
        checkpoint = open_checkpoint(local(checkpoint_path), config_path, model)
        config = checkpoint.config
        for name, value in cls.in_bert4keras.items():
            if getattr(config, name, value) is None:
                options.setdefault(name, value)
    elif config_path is not None or options:
        config = config_of_options(said, cls, options)
        if "pad_token_id" not in options and cls.pads_by_vocabulary:
            warn_of_pad_id(config, "the config")
    else:
        raise ConfigError("build_transformer_model needs config_path, checkpoint_path, or the sizes as options")
    if given is None and cls.is_decoder(config):
        application = as_decoder(checkpoint, options)
    if application in HEADED or cls.causal:
        options.setdefault("with_mlm", True)
        options["with_mlm"] = options.pop("final_activation", options["with_mlm"])
    if checkpoint is not None:
        config = with_pad_id(checkpoint, find_tokenizer(checkpoint), given="pad_token_id" in options)
    strict = options.pop("strict", True)
    builder = construct(config, cls, application, checkpoint, strict, **options)
    if by_mapping:
        builder.load_weights_from_checkpoint(local(checkpoint_path))
    return builder.model if return_keras_model else builder


def named_family(said: dict | TransformerConfig | None, in_file: bool) -> str:
    """The "model" of a config; "bert" where it says none. In a file from elsewhere the word may mean something else:
    there only the name of a family counts.
    """
    if isinstance(said, TransformerConfig):
        return said.model
    named = (said or {}).get("model", "bert")
    return "bert" if in_file and str(named) not in families() else named


def bert4keras_application(cls: type[TransformerBuilder], application: str | None) -> str:
    """The application that a script for bert4keras means: "encoder" is what a family does that has none."""
    application = application.lower() if isinstance(application, str) else application or "encoder"
    if application == "encoder" and (application not in cls.applications or cls.applications[0] == "seq2seq"):
        return cls.applications[0]
    if application == "seq2seq" and application not in cls.applications:  # the name in its first versions
        return "unilm"
    return application


def construct(
    config: TransformerConfig,
    cls: type[TransformerBuilder],
    application: str,
    checkpoint: Checkpoint | None,
    strict: bool,
    **options,
) -> TransformerBuilder:
    """The builder of a model, with the weights of a checkpoint, if there is one.

    Raises: UnknownOptionError, ConfigError, TensorMismatchError.
    """
    from bert4x.models.loading import check_family, fill

    changes, build, loading = sort_options(options, cls)
    if "hidden_act" in changes:
        changes["hidden_act"] = read_activation(changes["hidden_act"], style_for("hf", config.model))
    if checkpoint is not None:
        if cls.overrides(*MAPPING):
            raise ConfigError(
                f"{cls.__name__} says by itself how it is loaded; expected build_transformer_model(config_path, "
                "checkpoint_path, model=...)"
            )
        check_family(checkpoint, family_name(cls))
    vocabulary = loading.get("keep_tokens"), loading.get("compound_tokens")
    changes.setdefault("vocab_size", vocabulary_size(config.vocab_size, *vocabulary))
    changes = kept_token_ids(config, vocabulary[0]) | changes
    changes.update(follow_on_sizes(config, changes))
    config = config.replace(model=family_name(cls), **changes).of_builder(cls.model_name)
    cls.check_fields(config, changes)
    check_dependent(build)
    builder = cls(config, application, **build)
    builder.loading = loading
    return builder.build() if checkpoint is None else fill(builder, checkpoint, strict)


def config_of_options(
    said: dict | TransformerConfig | None, cls: type[TransformerBuilder], options: dict[str, Any]
) -> TransformerConfig:
    """The config of a model without weights; options fill in what a file lacks, and need not be repeated there."""
    if isinstance(said, TransformerConfig):
        return said
    data = said or {}
    renamed = {ALIASES.get(name, name): value for name, value in options.items()}
    given = {name: value for name, value in renamed.items() if name in cls.config_class.spelled()}
    config = config_from(cls.in_bert4keras | data | given, family_name(cls), "tf1")
    cls.check_fields(config, data)
    return config
