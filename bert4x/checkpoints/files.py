"""Where the weights of a checkpoint are, and in which container."""

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bert4x.checkpoints.formats.foreign import HEAD, content_of, explained, kind_of, text_of
from bert4x.checkpoints.ranks import OF_MEGATRON, RANK, first_bytes, latest_step, rank_files, rank_folder, read_ranks
from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import CheckpointNotFoundError, UnknownFormatError

ADAPTERS = "adapter_config.json"  # PEFT's, which names the model that they change (`adapters.py`)
MAX_PREFIX = 240  # bytes of a file name, to which ".index" is added
STEP = re.compile(
    r"\d+|iter_\d+|global_step\d+|checkpoint|.+\.ckpt"
)  # folders of ranks, DeepSpeed's under Lightning too
CONTAINERS = (
    "model.safetensors, pytorch_model.bin, a TensorFlow checkpoint (.index and .data-00000-of-00001), .weights.h5, "
    ".ckpt of Lightning, tf_model.h5, flax_model.msgpack, .pdparams, .gguf, or mp_rank_XX_model_states.pt"
)
# In transformers' order: one file before the shards of an older one.
NAMED = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
# Files of any name, if there is one of a kind: safe formats, then those that hold no optimizer, first.
ALONE = (
    "*.safetensors",
    "*.weights.h5",
    "*.h5",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pdparams",
    "*.msgpack",
    "*.gguf",
)
# What training leaves beside the weights.
NO_WEIGHTS = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|tokenizer)\w*\.(bin|pt|pth)"
)
# Files that say what of their folder is meant, not weights themselves.
POINTING = ("checkpoint", "saved_model.pb", "latest", "latest_checkpointed_iteration.txt")


@dataclass(frozen=True)
class Files:
    """What was found: the container, its main file (or prefix, or folder of ranks), and the folder it lies in."""

    container: str  # "safetensors", "torch", "tf1", "hdf5", "paddle", "flax", "gguf", "megatron", "peft"
    path: Path
    folder: Path

    @functools.cached_property
    def gguf(self) -> tuple[dict, Tensors]:
        """The metadata and the tensors of a GGUF, read once."""
        from bert4x.checkpoints.formats.gguf_file import open_gguf

        return open_gguf(self.path)

    def read(self) -> Tensors:
        """All tensors by the names they have there; those of rank r of a Megatron checkpoint start with `r/`."""
        from bert4x.checkpoints.formats import (
            flax_msgpack,
            keras_h5,
            paddle_pickle,
            safetensors_file,
            tf1_bundle,
            tf2_objects,
            torch_pickle,
        )

        if self.container == "safetensors":
            sharded = self.path.name.endswith(".json")
            return (safetensors_file.read_safetensors_sharded if sharded else safetensors_file.read_safetensors)(
                self.path
            )
        if self.container == "torch":
            sharded = self.path.name.endswith(".json")
            return (torch_pickle.read_torch_sharded if sharded else torch_pickle.read_torch)(self.path)
        if self.container == "tf1":
            tensors = tf1_bundle.read_tf1(self.path)
            return tf2_objects.read_objects(self.path, tensors) if tf2_objects.is_object_based(tensors) else tensors
        one_file = {"hdf5": keras_h5.read_keras_h5, "paddle": paddle_pickle.read_paddle, "flax": flax_msgpack.read_flax}
        if self.container in one_file:
            return one_file[self.container](self.path)
        if self.container == "gguf":
            return self.gguf[1]
        return read_ranks(self.path)


def locate(source) -> Files:
    """The checkpoint that a path means: a file, the prefix of a TensorFlow checkpoint, or a folder holding one.

    Raises: CheckpointNotFoundError, UnknownFormatError.
    """
    if not isinstance(source, str | os.PathLike) or not str(source):
        raise CheckpointNotFoundError(f"the path is {source or 'empty'!s:.60}; expected that of {CONTAINERS}")
    path = Path(source).expanduser()
    if is_folder(path):
        return in_folder(path) or inside(path) or refuse_folder(path)
    tf1 = tf1_prefix(path)
    if tf1:
        return Files("tf1", tf1, tf1.parent)
    if not path.exists():
        raise CheckpointNotFoundError(f"{path} does not exist; expected a file or folder with {CONTAINERS}")
    if not path.is_file():  # a pipe, which would keep us waiting, or a device
        raise CheckpointNotFoundError(f"{path} is no regular file; expected {CONTAINERS}")
    if RANK.fullmatch(path.name):
        return Files("megatron", path.parent, path.parent)
    if path.name == OF_MEGATRON and rank_files(path.parent.parent):
        return Files("megatron", path.parent.parent, path.parent.parent)
    if path.name in POINTING:
        return locate(path.parent)
    if path.name.startswith("adapter_model.") and (path.parent / ADAPTERS).is_file():
        return Files("peft", path, path.parent)
    return Files(container_of(path), path, path.parent)


def places(folder: Path) -> Iterator[Path]:
    """The folders in which config and vocabulary of the weights in a folder may lie, the likeliest first."""
    above = folder.parent
    step = STEP.fullmatch(folder.name) is not None
    graph = folder.name == "variables" and (above / "saved_model.pb").is_file()
    for place in (folder, *([above] if step or graph else ()), *transformer_modules(folder)):
        yield from (p for p in (place, place / "assets", place / "bpe_3w_new") if p.is_dir())


def transformer_modules(folder: Path) -> list[Path]:
    """The folder of the transformer in one of sentence-transformers, which numbers its modules: `0_Transformer`."""
    return [p for p in sorted(folder.glob("0_*")) if p.is_dir()] if folder.is_dir() else []


def inside(folder: Path) -> Files | None:
    """The checkpoint in the only folder inside that holds one: an unpacked archive's, or a run's `checkpoint-500`.

    Raises: CheckpointNotFoundError when several do.
    """
    holding = [child for child in sorted(folder.iterdir()) if child.is_dir() and in_folder(child)]
    holding = [child for child in transformer_modules(folder) if child in holding] or holding
    if len(holding) > 1:
        names = ", ".join(child.name for child in holding[:10])
        raise CheckpointNotFoundError(f"several folders in {folder} hold weights: {names}; pass one of them")
    return in_folder(holding[0]) if holding else None


def refuse_folder(folder: Path) -> Files:
    """Raises: UnknownFormatError for weights that are recognised and not read, CheckpointNotFoundError for none."""
    names = sorted(child.name for child in folder.iterdir())
    for place in (folder, *(folder / name for name in names[:20] if (folder / name).is_dir())):  # FSDP's are inside
        if what := explained(sorted(child.name for child in place.iterdir())):
            raise UnknownFormatError(f"{place} holds no weights that bert4x reads: {what}")
    for pattern in (*ALONE, "*.index"):
        several = [path.name for path in of_kind(folder, pattern)]
        if len(several) > 1 and (shard := SHARD.fullmatch(several[0])):
            raise CheckpointNotFoundError(
                f"{folder} holds {len(several)} parts of a model, {several[0]} ..., without {shard[1]}{shard[2]}"
                ".index.json, which says what is in each: download that file, too"
            )
        if len(several) > 1:
            raise CheckpointNotFoundError(
                f"{folder} holds several files that may be the weights: {', '.join(several[:10])}; pass one of them"
            )
    content = ", ".join(names[:10]) or "nothing"
    raise CheckpointNotFoundError(f"no weights in {folder}: it holds {content}; expected {CONTAINERS}")


def default_model() -> Path:
    """The folder of the small model inside the package: one set of weights for encoder, masked LM, LM and UniLM."""
    return Path(__file__).parents[1] / "assets" / "default"


def default_vectors() -> Path:
    """The folder of the small model of sentence vectors inside the package."""
    return default_model().with_name("vectors")


def is_folder(path: Path) -> bool:
    """Whether there is such a folder.

    Raises: CheckpointNotFoundError for a name that no file can have.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise CheckpointNotFoundError(f"{str(path)[:200]} does not exist: {error.strerror}") from error


def container_of(path: Path) -> str:
    """The container of a single file, by its first bytes (and its name, for an index).

    Raises: UnknownFormatError, which names what the file is if that is recognised.
    """
    name, what = path.name, kind_of(path.name)
    if name.endswith(".index.json") and not what:
        return "safetensors" if "safetensors" in name else "torch"
    with path.open("rb") as file:
        head = file.read(HEAD)
    what = text_of(head) or what
    if what:
        raise UnknownFormatError(f"{path}: this is {what}")
    for ending, container in ((".pdparams", "paddle"), (".msgpack", "flax")):
        if name.endswith(ending):
            return container
    if head.startswith(b"GGUF"):
        return "gguf"
    if head.startswith(b"\x89HDF\r\n"):
        return "hdf5"
    if head[8:9] == b"{":  # first: its length may begin with any byte
        return "safetensors"
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        return "torch"
    what = content_of(head)
    if what:
        raise UnknownFormatError(f"{path}: this is {what}")
    for endings, container in (
        (".safetensors", "safetensors"),
        ((".bin", ".pt", ".pth", ".ckpt"), "torch"),
        (".h5", "hdf5"),
    ):
        if name.endswith(endings):
            return container
    if name.endswith((".json", ".txt")):
        raise UnknownFormatError(f"{path} is no file of weights; pass its folder, or the file of the weights")
    raise UnknownFormatError(f"{path} starts with {head[:8]!r}, which is no format known here; expected {CONTAINERS}")


def in_folder(folder: Path) -> Files | None:
    """The checkpoint in a folder; formats that are safe and lazy come first where there are several.

    Raises: CheckpointNotFoundError, UnknownFormatError for what is said to be there and is not, or not readable.
    """
    ranks = rank_folder(folder)
    if ranks:
        return Files("megatron", ranks, folder)
    candidates = [folder / name for name in NAMED if (folder / name).is_file()]
    for pattern in ALONE:
        found = of_kind(folder, pattern)
        candidates += found if len(found) == 1 else []
    lazy = bool(candidates) and candidates[0].name.endswith((".safetensors", ".json"))
    tf1 = None if lazy else tf1_in(folder)
    if tf1:
        return Files("tf1", tf1, folder)
    if candidates:
        return Files(container_of(candidates[0]), candidates[0], folder)
    if (folder / ADAPTERS).is_file():
        return Files("peft", folder / ADAPTERS, folder)
    ranks = latest_step(folder, "latest")
    return Files("megatron", ranks, folder) if ranks else None


def of_kind(folder: Path, pattern: str) -> list[Path]:
    """The files of a kind that may be weights."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.is_file()
        and not path.name.startswith(".")
        and not NO_WEIGHTS.fullmatch(path.name)
        and not kind_of(path.name)
    ]


def tf1_in(folder: Path) -> Path | None:
    """The prefix of the TensorFlow checkpoint in a folder, or under `variables` in that of a SavedModel.

    Raises: CheckpointNotFoundError when there are several, and the file `checkpoint` names none of them.
    """
    if (folder / "saved_model.pb").is_file() and (folder / "variables" / "variables.index").is_file():
        return folder / "variables" / "variables"
    prefixes = [path.with_suffix("") for path in of_kind(folder, "*.index")]
    latest = latest_tf1(folder)
    if len(prefixes) > 1 and latest is None:
        names = ", ".join(path.name for path in prefixes[:10])
        raise CheckpointNotFoundError(f"{folder} holds several TensorFlow checkpoints: {names}; pass one of them")
    return latest or (prefixes[0] if prefixes else None)


def latest_tf1(folder: Path) -> Path | None:
    """The prefix that TensorFlow's `checkpoint` file names, if it is there; of its path, the machine of training's, the
    last part counts.
    """
    text = first_bytes(folder / "checkpoint", 1 << 20)
    match = re.search(rb'^model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', text, re.MULTILINE)
    if not match:
        return None
    # A text-format protocol buffer, with C's escapes; Windows' separators are escaped, or by hand not.
    path = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 255]), match[1])
    name = re.split(r"[/\\]", path.decode("utf-8", "replace"))[-1]
    prefix = folder / name
    return prefix if 0 < len(name.encode()) <= MAX_PREFIX and prefix.with_name(f"{name}.index").is_file() else None


def tf1_prefix(path: Path) -> Path | None:
    """The prefix of a TensorFlow checkpoint, from itself or from any of its files."""
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    prefix = path.with_name(name)
    return prefix if prefix.with_name(name + ".index").is_file() else None
