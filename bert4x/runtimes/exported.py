"""A folder that `bert4x.export` wrote, opened without Keras: what tasks and generation take for a model."""

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.tables import config_from
from bert4x.config import TransformerConfig, read_config_file
from bert4x.errors import Bert4xError, ConfigError, CorruptFileError, UnknownOptionError
from bert4x.families import family_of
from bert4x.generation import methods
from bert4x.json_files import check_kinds, read_json, shown
from bert4x.runtimes.sessions import ENDINGS, Arrays, runner
from bert4x.tokenizers import load_tokenizer

FILE = "export.json"  # which graphs there are, and what they take and give, in order
KINDS = {"to": (str,), "quantize": (str,), "application": (str,), "graphs": (dict,)}
GRAPHS = ("model", "objects", "decoder", "source")
MAX_BYTES = 1 << 20


class NotInExportError(Bert4xError, AttributeError):
    """What only a Keras model has, asked of an exported one."""


@dataclass(frozen=True)
class Graph:
    """A graph of an export: its file, the names of its inputs in the order in which tasks give them, and the shapes of
    its outputs by their names, with None for any size.
    """

    file: Path
    to: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, tuple[int | None, ...]]

    @functools.cached_property
    def run(self):
        """What runs the file, which is read when it is first needed."""
        return runner(self.to, self.file)

    def __call__(self, given: Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> Arrays:
        """The outputs by name, for inputs by name or in order. A padding mask that is not given shows all tokens."""
        in_order = (name for name in self.inputs if name != "padding_mask")
        named = given if isinstance(given, Mapping) else dict(zip(in_order, given, strict=False))
        named = {name: as_input(values) for name, values in named.items() if name in self.inputs}
        if "padding_mask" in self.inputs and "padding_mask" not in named and "token_ids" in named:
            named["padding_mask"] = np.ones_like(named["token_ids"])
        if missing := [name for name in self.inputs if name not in named]:
            raise ConfigError(f"{self.file} also takes {', '.join(missing)}")
        return self.run(named)

    def listed(self, given) -> np.ndarray | list[np.ndarray]:
        """The outputs as Keras gives them: the only one, or a list. Shape: those of `outputs`"""
        found = self(given)
        arrays = [found[name] for name in self.outputs]
        return arrays[0] if len(arrays) == 1 else arrays


def as_input(values) -> np.ndarray:
    """An array as graphs take them: int32 or float32. Shape: any -> the same"""
    array = np.asarray(values)
    return array.astype("float32" if array.dtype.kind == "f" else "int32", copy=False)


class Exported:
    """A model without Keras. It has what tasks and `generate` use of a Keras model of ours: `config`, `tokenizer`,
    `builder`, which says what its family can do, and `predict_on_batch`; it learns nothing and cannot be saved.
    """

    def __init__(
        self,
        folder: Path,
        to: str,
        application: str | None,
        graphs: Mapping[str, Graph],
        config: TransformerConfig,
        tokenizer,
    ):
        self.folder, self.to, self.application, self.graphs = folder, to, application, graphs
        self.config, self.tokenizer = config, tokenizer

    @functools.cached_property
    def builder(self):
        """The builder of such models; it is asked what it knows, and builds nothing."""
        head = {"with_mlm": "linear"} if self.application in ("lm", "unilm", "seq2seq") else {}
        return family_of(self.config.builder)(self.config, self.application or "encoder", **head)

    @functools.cached_property
    def engine(self):
        """What generates with it (`bert4x.generation.engine`). Raises: GenerationError where it writes nothing."""
        from bert4x.runtimes.decoding import Decoder

        return Decoder(self)

    generate, generate_ids, stream, chat, score = methods.ALL

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return list(self.graphs["model"].outputs)

    def predict_on_batch(self, inputs):
        """The outputs, for a list or dict of inputs, as arrays. Shape: that in the README.md of the folder."""
        return self.graphs["model"].listed(inputs)

    __call__ = predict = predict_on_batch

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotInExportError(
            f"{self.folder} is an export, which has no {name!r}: it computes answers and nothing else. To train, "
            "convert or save, open the model that it was exported from"
        )

    def __reduce__(self):
        return open_export, (self.folder,)


def is_export(folder: str | os.PathLike | None) -> bool:
    """Whether a folder holds what `bert4x.export` wrote."""
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        return folder is not None and (Path(folder).expanduser() / FILE).is_file()
    return False


def open_export(
    folder: str | os.PathLike, application: str | None = None, with_mlm: bool | str = False, **options
) -> Exported:
    """The model in a folder that `bert4x.export` wrote. Its graphs are read when they are first run.

    Args:
        application, with_mlm: as of `bert4x.load`; what an export computes is fixed, so another is an error.
    Raises: ConfigError for another application; UnknownOptionError; CorruptFileError, TokenizerError.
    """
    folder = Path(folder).expanduser()
    if options:
        raise UnknownOptionError(
            f"{', '.join(f'{name}={value!r}' for name, value in options.items())}: {folder} is an export, which "
            "computes what it was written to; export it again with these options"
        )
    to, known, graphs = read_description(folder)
    if application not in (None, known):
        raise ConfigError(
            f"{folder} was exported as {known!r}, not as {application!r}; export the model with "
            f"--application {application}"
        )
    if with_mlm and known == "encoder" and "logits" not in graphs["model"].outputs:
        raise ConfigError(
            f"{folder} gives {', '.join(graphs['model'].outputs)}, not the logits of masked tokens; export the model "
            "with --application mlm"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is the export of a Keras model without a config; see its README.md for how to run it"
        )
    said = read_config_file(folder / "config.json")
    config = config_from(said, str(said.get("model"))[:80], "bert4x")
    return Exported(folder, to, known, graphs, config, load_tokenizer(folder))


def read_description(folder: Path) -> tuple[str, str | None, dict[str, Graph]]:
    """What export.json says: the format, the application, and the graphs. Raises: CorruptFileError"""
    path = folder / FILE
    data: dict[str, Any] = read_json(path, limit=MAX_BYTES)
    check_kinds(data, KINDS, str(path))
    to, graphs = data.get("to"), data.get("graphs") or {}
    if to not in ENDINGS or "model" not in graphs:
        raise CorruptFileError(
            f"{path}: to = {shown(to)}, graphs {shown(sorted(graphs))}; expected what bert4x.export wrote"
        )
    found = {}
    for name, said in graphs.items():
        inputs, outputs = (said.get(key) if isinstance(said, dict) else None for key in ("inputs", "outputs"))
        shapes = list(outputs.values()) if isinstance(outputs, dict) else [None]
        if name not in GRAPHS or not is_list_of(inputs, str) or not all(is_list_of(s, int, type(None)) for s in shapes):
            raise CorruptFileError(f"{path}: graph {shown(name)} is {shown(said)}; expected what bert4x.export wrote")
        shapes = {output: tuple(shape) for output, shape in outputs.items()}
        found[name] = Graph(folder / f"{name}{ENDINGS[to]}", to, tuple(inputs), shapes)
    return to, data.get("application"), found


def is_list_of(values, *kinds: type) -> bool:
    """Whether these are a list of such values."""
    return isinstance(values, list) and all(type(value) in kinds for value in values)


def describe(folder: Path, to: str, quantize: str | None, application: str | None, graphs: Mapping[str, tuple]) -> None:
    """Writes export.json; of each graph the names of its inputs in order, and the shapes of its outputs by name."""
    from bert4x.checkpoints.write import write_json

    said = {name: {"inputs": list(inputs), "outputs": dict(outputs)} for name, (inputs, outputs) in graphs.items()}
    write_json(folder / FILE, {"to": to, "quantize": quantize, "application": application, "graphs": said})
