"""Whether two checkpoints are the same model: every output that both can give, on the same inputs."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.errors import ConfigError, NotFiniteError
from bert4x.families import family_of
from bert4x.hub.names import local

SENTENCES = (
    "床前明月光，疑是地上霜。",
    "今天天气很好，我们去公园散步吧。",
    "The quick brown fox jumps over the lazy dog.",
)
HEADS = ("with_pool", "with_nsp", "with_mlm")
Inputs = dict[str, np.ndarray]


def verify(first: str | os.PathLike, second: str | os.PathLike, *, seed: int = 0) -> dict[str, float]:
    """The largest difference of each output of two checkpoints, on real sentences and random ids, in float32.

    Outputs are the hidden states ("hidden"), the pooler ("with_pool"), the logits of the next sentence ("with_nsp") and
    of tokens ("with_mlm": of the masked ones, or of a language model the next), and those of the head of a task, by its
    name: of labels, the probabilities.

    Raises: ConfigError when they cannot be compared: other families, vocabularies, sizes or heads; NotFiniteError when
        one computes NaN or infinity.
    """
    from bert4x.models.build import load

    paths = first, second
    checkpoints = [open_checkpoint(local(path)) for path in paths]
    check_alike(checkpoints, paths)
    heads = common_heads(checkpoints)
    tasks = common_tasks(checkpoints, paths)
    options = {"dtype": "float32"} | held_options(checkpoints, heads)
    models = [load(path, **options) for path in paths]
    parts = [models_of_outputs(model, heads) for model in models]
    worst: dict[str, float] = {}
    longest = min(checkpoint.config.max_position for checkpoint in checkpoints)
    for inputs in sample_inputs(models[0], longest, seed):
        found = [{name: as_arrays(model(inputs))[0] for name, model in outputs.items()} for outputs in parts]
        for outputs, task in zip(found, tasks, strict=False):
            outputs |= task_outputs(task, inputs)
        check_outputs(found, paths)
        for name, values in found[0].items():
            worst[name] = max(worst.get(name, 0.0), float(np.abs(values - found[1][name]).max()))
    return worst


def held_options(checkpoints: Sequence[Checkpoint], heads: Sequence[str]) -> dict:
    """The options of `load` for what both checkpoints have: a task's may lack what writes, a decoder or its head."""
    cls = family_of(checkpoints[0].config.builder)
    options = ({"with_mlm": False} if "with_mlm" in cls.options else {}) | dict.fromkeys(heads, True)
    decoder = [path for path, (_, head) in variables(checkpoints[0].config).items() if head == "decoder"]
    alone = decoder and not any(set(decoder) & checkpoint.entries.keys() for checkpoint in checkpoints)
    return options | ({"application": "encoder"} if alone and "encoder" in cls.applications else {})


def check_alike(checkpoints: Sequence[Checkpoint], paths: Sequence[str | os.PathLike]) -> None:
    """Raises: ConfigError for checkpoints of two families or vocabularies."""
    a, b = (checkpoint.config for checkpoint in checkpoints)
    families = {family_of(config.model).written_as or config.model for config in (a, b)}
    if len(families) > 1 or a.vocab_size != b.vocab_size:
        raise ConfigError(
            f"{paths[0]} is {a.model} with {a.vocab_size} tokens, {paths[1]} is {b.model} with {b.vocab_size}; "
            "only two layouts of one model can be compared"
        )


def common_heads(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The options that ask for the heads of the model itself that both checkpoints have.

    Raises: ConfigError when one has a head the other lacks.
    """
    held = [heads_of(checkpoint) for checkpoint in checkpoints]
    for name in sorted(held[0] ^ held[1]):
        owner = checkpoints[0 if name in held[0] else 1].files.path
        raise ConfigError(f"only {owner} has the head {name}; the two are not the same model")
    return [name for name in HEADS if name in held[0]]


def heads_of(checkpoint: Checkpoint) -> set[str]:
    """The options that ask for heads that a checkpoint has; of tied embeddings a head has no variables of its own."""
    found = set()
    for option in family_of(checkpoint.config.builder).options.keys() & set(HEADS):
        head = option.removeprefix("with_")
        paths = [path for path, (_, of) in variables(checkpoint.config).items() if of == head]
        if all(path in checkpoint.entries for path in paths) and (paths or option == "with_mlm"):
            found.add(option)
    if checkpoint.head and checkpoint.head.settings.get("pooler") is False:  # it may be the identity: see `heads`
        found.discard("with_pool")
    return found


def models_of_outputs(model, heads: Sequence[str]) -> dict:
    """Name of an output -> the model that gives it alone; all over the same layers."""
    alone = dict.fromkeys(heads, False)
    options = {"hidden": alone} | {head: alone | {head: "tanh" if head == "with_pool" else "linear"} for head in heads}
    return {name: model.builder.over_the_same_layers(**chosen).build().model for name, chosen in options.items()}


def check_outputs(found: Sequence[dict[str, np.ndarray]], paths: Sequence[str | os.PathLike]) -> None:
    """Raises: ConfigError for outputs of two sizes, NotFiniteError for NaN or infinity."""
    for name in found[0]:
        shapes = [outputs[name].shape for outputs in found]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"{name} of {paths[0]} has shape {shapes[0]}, of {paths[1]} {shapes[1]}; "
                "only two layouts of one model can be compared"
            )
        for path, outputs in zip(paths, found, strict=True):
            if not np.isfinite(outputs[name]).all():
                raise NotFiniteError(f"{path} computes NaN or infinity in {name}; its weights are damaged")


def common_tasks(checkpoints: Sequence[Checkpoint], paths: Sequence[str | os.PathLike]) -> list:
    """The tasks whose heads two checkpoints have, none if neither has one.

    Raises: ConfigError when one has a head the other lacks, or heads are of other tasks or labels.
    """
    from bert4x.tasks.pipelines import pipeline

    for name in sorted(set(checkpoints[0].report.unknown) ^ set(checkpoints[1].report.unknown)):
        owner = checkpoints[0 if name in checkpoints[0].report.unknown else 1].files.path
        raise ConfigError(f"only {owner} has {name}, of a head that is not known here; the two are not the same model")
    heads = [checkpoint.head for checkpoint in checkpoints]
    if not any(heads):
        return []
    for checkpoint, head in zip(checkpoints, heads, strict=True):
        if head is None:
            other = next(c for c in checkpoints if c.head)
            raise ConfigError(f"only {other.files.path} has the {other.head}; {checkpoint.files.path} has none")
        head.check(checkpoint.files.path)
    a, b = heads
    if (a.task, a.labels) != (b.task, b.labels):
        first, second = (checkpoint.files.path for checkpoint in checkpoints)
        raise ConfigError(f"{first} has the {a}, {second} the {b}; the two are not the same model")
    if not a.tensors and not b.tensors:  # of a task whose head is the model's own
        return []
    return [pipeline(a.task, path, dtype="float32") for path in paths]


def task_outputs(task, inputs: Inputs) -> dict[str, np.ndarray]:
    """What a task's model computes, by its name; of labels, the probabilities. Padding is told by the padding id."""
    real = inputs.get("padding_mask", np.ones_like(inputs["token_ids"]))
    ids = np.where(real, inputs["token_ids"], task.pad_id).astype("int32")
    given = task.model_inputs(ids, inputs["segment_ids"])
    for tensor in task.model.inputs[len(given) :]:  # places, such as those of a subject
        given.append(np.zeros((len(ids), *(size or ids.shape[1] for size in tensor.shape[1:])), "int32"))
    outputs = as_arrays(task.model(given, training=False))
    if hasattr(task, "probabilities"):
        outputs = [task.probabilities(outputs[0])]
    names = [task.name] if len(outputs) == 1 else [f"{task.name} {i}" for i in range(len(outputs))]
    return dict(zip(names, outputs, strict=True))


def sample_inputs(model, longest: int, seed: int) -> Iterator[Inputs]:
    """Batches to compare on: sentences, if the model has a tokenizer, and random ids of two lengths."""
    if model.tokenizer is not None:
        for sentence in SENTENCES:
            ids, segments = model.tokenizer.encode(sentence, maxlen=longest)
            if max(ids) < model.config.vocab_size:
                yield with_targets(model, {"token_ids": np.array([ids]), "segment_ids": np.array([segments])})
    random = np.random.default_rng(seed)
    for length in sorted({min(17, longest), min(128, longest)}):
        ids = random.integers(0, model.config.vocab_size, (3, length))
        segments = np.arange(length)[None, :] >= random.integers(0, length, (3, 1))
        segments = segments.astype("int32") * (model.config.segment_vocab_size > 1)
        padding_mask = np.arange(length) < [[length], [length - 1], [1]]
        yield with_targets(model, {"token_ids": ids, "segment_ids": segments, "padding_mask": padding_mask})


def with_targets(model, inputs: Inputs) -> Inputs:
    """What a model takes: for an encoder-decoder the source, and the same backwards for a target."""
    if model.builder.application != "seq2seq":
        return inputs
    source = {name: values for name, values in inputs.items() if name != "segment_ids"}
    return source | {"target_ids": inputs["token_ids"][:, ::-1]}


def as_arrays(outputs) -> list[np.ndarray]:
    """The outputs of a model as a list of NumPy arrays. Shape: (B, ...) each"""
    from keras import ops

    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [ops.convert_to_numpy(output) for output in outputs]
