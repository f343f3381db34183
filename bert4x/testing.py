"""What a family must do, tried on a tiny random model of it: for the tests of whoever adds one."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import bert4x
from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import FORMATS, OWN_FORMATS, most_layers, variables, writer
from bert4x.config import TransformerConfig
from bert4x.families import family_name, family_of

Arrays = dict[str, np.ndarray]
HEADS = ("with_pool", "with_nsp", "with_mlm", "with_discriminator")
# No two sizes are equal, so that axes in the wrong order are seen; two ranks can divide them.
SIZES = {
    "vocab_size": 62,
    "hidden_size": 24,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "max_position": 20,
    "pad_token_id": 0,
}


def check_family(
    model: str,
    oracle: Callable[[TransformerConfig, Arrays, Arrays], np.ndarray] | None = None,
    applications: Sequence[str] = ("lm", "unilm"),
    **fields,
) -> None:
    """Tries a registered family: its variables and tables, every format it has (saved, converted and loaded to the same
    bits), `bert4x.verify`, `.keras` files, and decoding with a cache, which must write what whole texts give.

    Args:
        model: the name of the family.
        oracle: an independent model, such as one in NumPy: of the config, the weights by path, and the inputs
            ("token_ids" (B, T), "padding_mask" (B, T), maybe "segment_ids") it gives the hidden states (B, T, D) of the
            family's first application, which ours must equal within 2e-5 wherever the mask is True. An encoder-decoder
            is given "target_ids" (B, U), too, and the states are (B, U, D).
        applications: those of which decoding is tried, where the family has them.
        fields: of the config; by default a model of two small layers.
    Raises: AssertionError, which says what is wrong.
    """
    cls = family_of(model)
    expect(family_name(cls) == model, f"{model!r} has no variables of its own: it is a {family_name(cls)}")
    config = tiny_config(cls, **fields)
    check_variables(cls, config)
    check_tables(cls, config)
    if oracle is not None:
        check_oracle(cls, config, oracle)
    with tempfile.TemporaryDirectory() as folder:
        check_formats(cls, config, Path(folder))
    for application in cls.applications:
        if application in applications:
            check_decoding(cls, config, application)


def expect(holds: bool, message: str) -> None:
    """Raises: AssertionError with the message, also where Python leaves out `assert`."""
    if not holds:
        raise AssertionError(message)


def tiny_config(cls, **fields) -> TransformerConfig:
    """A config of a family, of a few small layers."""
    config = cls.config_class(model=cls.model_name, **SIZES | {k: v for k, v in fields.items() if k in SIZES})
    fixed = {name: only(config) for name, only in cls.unused.items()}
    fixed |= {} if cls.pads_by_vocabulary else {"pad_token_id": None}
    return config.replace(**fixed | fields)


def random_weights(config: TransformerConfig, seed: int = 0) -> Arrays:
    """Path -> random values; far from each other, so that a model does not write one token over and over."""
    draw = np.random.default_rng(seed)
    return {path: draw.normal(0, 0.3, shape).astype("float32") for path, (shape, _) in variables(config).items()}


def build(cls, config: TransformerConfig, weights: Arrays, application: str | None = None, **options):
    """The Keras model with these weights."""
    model = cls(config, application or cls.applications[0], **options).build().model
    for path, variable in paths_of(model).items():
        variable.assign(weights[path])
    return model


def paths_of(model) -> dict:
    """The variables by path, without the states of dropout."""
    return {variable.path: variable for variable in model.variables if "seed_generator" not in variable.path}


def with_heads(cls) -> dict[str, str]:
    """The options that ask for all heads of a family's first application, as logits."""
    heads = {head: "tanh" if head == "with_pool" else "linear" for head in HEADS if head in cls.options}
    if cls.applications[0] == "seq2seq":  # whose pooler is that of its encoder
        heads.pop("with_pool", None)
    return heads


def check_variables(cls, config: TransformerConfig) -> None:
    """The variables that the class lists are those that it makes."""
    made = paths_of(cls(config, cls.applications[0], **with_heads(cls)).build().model)
    if "with_pool" in cls.options:
        application = "encoder" if "encoder" in cls.applications else cls.applications[0]
        made |= paths_of(cls(config, application, with_pool=True).build().model)
    made = {path: tuple(variable.shape) for path, variable in made.items()}
    listed = {path: shape for path, (shape, _) in variables(config).items()}
    for path in made | listed:
        here, there = made.get(path), listed.get(path)
        expect(here == there, f"{path}: `forward` makes {here or 'none'}, `variables` lists {there or 'none'}")


def check_tables(cls, config: TransformerConfig) -> None:
    """Every table covers each variable once, and what it writes it reads back."""
    family = writer(cls)
    config = config.replace(model=family.model_name)
    weights = random_weights(config)
    for table in family.tables:
        if table.fits is not None and not table.fits(config):
            continue
        entries = table.sized(config).entries(most_layers(config))
        held = {path for path, (_, head) in variables(config).items() if head not in table.lacks}
        covered = [path for entry in entries for path in entry.ours if path in weights]
        name = f"the {table.format} table of {family.model_name}"
        missing, twice = held - set(covered), {path for path in covered if covered.count(path) > 1}
        expect(not missing, f"{name} has no rule for {', '.join(sorted(missing)[:6])}")
        expect(not twice, f"{name} has several rules for {', '.join(sorted(twice)[:6])}")
        names = [entry.theirs for entry in entries]
        expect(len(set(names)) == len(names), f"{name} has two rules for one tensor")
        for entry, ranks in itertools.product(entries, (1, 2) if table.sharded else (1,)):
            ours = [weights[path] for path in entry.ours if path in weights]
            if ours:
                written = [entry.layout.save(ours, rank, ranks) for rank in range(ranks)]
                back = entry.layout.load(written, [array.shape for array in ours])
                same = all(np.array_equal(a, b) for a, b in zip(ours, back, strict=True))
                expect(same, f"{name} does not read back {entry.theirs} as it was written")


def inputs_of(model, config: TransformerConfig, rows: int = 3, length: int = 9, seed: int = 1) -> Arrays:
    """Random inputs, some of them padded."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, config.vocab_size, (rows, length))
    real = np.arange(length)[None, :] < np.array([length, length - 2, length - 4])[:rows, None]
    inputs = {"token_ids": np.where(real, ids, 0), "padding_mask": real}
    if model.builder.needs_segments:
        several = config.segment_vocab_size != 1
        inputs["segment_ids"] = (np.arange(length)[None, :] >= np.array([4, 3, 2])[:rows, None]) * int(several)
    if model.builder.application == "seq2seq":
        inputs["target_ids"] = draw.integers(1, config.vocab_size, (rows, length - 3))
    return inputs


def arrays_of(outputs) -> list[np.ndarray]:
    """The outputs of a model as NumPy arrays, of their shapes."""
    from keras import ops

    return [ops.convert_to_numpy(x) for x in (outputs if isinstance(outputs, list | tuple) else [outputs])]


def difference(outputs, others) -> float:
    """The largest one between the outputs of two models."""
    return max(float(np.abs(a - b).max()) for a, b in zip(arrays_of(outputs), arrays_of(others), strict=True))


def check_oracle(cls, config: TransformerConfig, oracle: Callable) -> None:
    """Hidden states against another implementation's."""
    weights = random_weights(config)
    model = build(cls, config, weights)
    inputs = inputs_of(model, config)
    found, expected = arrays_of(model(inputs))[0], np.asarray(oracle(config, weights, inputs))
    real = inputs.get("target_ids", inputs["padding_mask"]) != 0
    worst = float(np.abs(found - expected)[real].max())
    expect(worst <= 2e-5, f"hidden states differ from the oracle's by {worst:.2g}; expected at most 2e-5")


def check_formats(cls, config: TransformerConfig, folder: Path) -> None:
    """Saving, converting, loading and comparing in every format, and `.keras` files."""
    heads, weights = with_heads(cls), random_weights(config)
    for path in weights if cls.written_as else ():  # of layers that are copies of one
        weights[path] = weights[next(other for other in weights if cls.as_written(other) == cls.as_written(path))]
    model = build(cls, config, weights, **heads)
    inputs = inputs_of(model, config)
    expected = model(inputs)
    formats = [*(table.format for table in writer(cls).tables if not table.lacks)]
    formats = [name for name in FORMATS if name in (*formats, *OWN_FORMATS)]
    bert4x.save(model, folder / "first", "bert4x")
    for a, b in itertools.pairwise(["first", *formats]):
        bert4x.convert(folder / a, folder / b, b)
        checkpoint = open_checkpoint(folder / b)
        found = {path: checkpoint.read(path) for path in checkpoint.variables}
        names = {path for path in weights if path in found or path in paths_of(model)}
        for path in names:
            written = path if path in found else cls.as_written(path)
            expect(written in found, f"{b} lost {path}")
            expect(np.array_equal(bits(found[written]), bits(weights[path])), f"{b} changed {path}")
        again = bert4x.load(folder / b, cls.applications[0], **heads, model=model_of(checkpoint, cls))
        worst = difference(again(inputs), expected)
        expect(worst <= 1e-6, f"loaded from {b}, the model gives outputs that differ by {worst:.2g}")
        fields = [name for name in config.spelled() if getattr(again.config, name) != getattr(config, name)]
        expect(not fields, f"the config file of {b} does not keep {', '.join(fields)}")
        worst = max(bert4x.verify(folder / "first", folder / b).values())
        expect(worst <= 1e-6, f"bert4x.verify finds {worst:.2g} between bert4x and {b}")
    model.save(folder / "model.keras")
    worst = difference(bert4x.load(folder / "model.keras")(inputs), expected)
    expect(worst <= 1e-6, f"loaded from a .keras file, the model gives outputs that differ by {worst:.2g}")


def model_of(checkpoint, cls) -> str | None:
    """What `load` must be told to take a checkpoint as one of a family: nothing, but of one written as another."""
    return cls.model_name if checkpoint.config.model == cls.written_as else None


def check_decoding(cls, config: TransformerConfig, application: str, steps: int = 5) -> None:
    """Greedy decoding with a cache writes what whole texts give, from prompts of two lengths at once."""
    model = build(cls, config, random_weights(config), application, with_mlm="linear")
    prompts = [[5, 6, 7, 8], [9, 10]]
    start = {"start_id": 3} if application == "seq2seq" else {}
    found = model.generate_ids(prompts, max_new_tokens=steps, **start)
    for prompt, new in zip(prompts, found, strict=True):
        ids = [3] if start else list(prompt)
        for _ in range(steps):
            inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}
            inputs["segment_ids"] = (np.arange(len(ids))[None, :] >= len(prompt)) * (application == "unilm")
            if start:
                inputs = {"token_ids": np.array([prompt]), "target_ids": np.array([ids])}
            ids.append(int(arrays_of(model(inputs))[0][0, -1].argmax()))
        whole = ids[-steps:]
        expect(list(new) == whole, f"{application}: after {prompt} the cache gives {list(new)}, whole texts {whole}")
