"""Where the weights of a checkpoint are, and in which container."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, TensorMismatchError, UnknownFormatError

RANK = re.compile(r"mp_rank_(\d{2,3})_model_states\.pt$")
CONTAINERS = (
    "model.safetensors, pytorch_model.bin, a TensorFlow 1 checkpoint, .weights.h5, or mp_rank_XX_model_states.pt"
)
# What may be the name of a published checkpoint where it is no path: an address, NAME or OWNER/NAME; no file's name.
NAME = re.compile(
    r"\w+://.+|(?!.*\.(safetensors|bin|pth?|h5|keras|index|ckpt|json|txt)$)[\w-][\w.-]*(/[\w.-]+)?(@[\w./-]+)?"
)


@dataclass(frozen=True)
class Files:
    """What was found: the container, its main file (or prefix, or folder of ranks), and the folder it lies in."""

    container: str  # "safetensors", "torch", "tf1", "hdf5", "megatron"
    path: Path
    folder: Path

    def read(self) -> Tensors:
        """All tensors by the names they have there; those of rank r of a Megatron checkpoint start with `r/`."""
        from bert4x.checkpoints.formats import keras_h5, safetensors_file, tf1_bundle, torch_pickle

        if self.container == "safetensors":
            sharded = self.path.name.endswith(".json")
            return (safetensors_file.read_safetensors_sharded if sharded else safetensors_file.read_safetensors)(
                self.path
            )
        if self.container == "torch":
            sharded = self.path.name.endswith(".json")
            return (torch_pickle.read_torch_sharded if sharded else torch_pickle.read_torch)(self.path)
        if self.container == "tf1":
            return tf1_bundle.read_tf1(self.path)
        if self.container == "hdf5":
            return keras_h5.read_keras_h5(self.path)
        return read_ranks(self.path)


def locate(source) -> Files:
    """The checkpoint that a path means: a file, the prefix of a TensorFlow checkpoint, or a folder holding one.

    What is no path, but may be the name of a published checkpoint, is fetched (`bert4x.hub`).
    Raises: CheckpointNotFoundError, UnknownFormatError; for a name, HubError.
    """
    if not str(source):
        raise CheckpointNotFoundError(f"the path is empty; expected a file or folder with {CONTAINERS}")
    path = Path(source).expanduser()
    if is_folder(path):
        found = in_folder(path)
        if found:
            return found
        inner = [child for child in sorted(path.iterdir()) if child.is_dir() and in_folder(child)]
        if len(inner) == 1:  # an archive that was unpacked into a folder of its own
            return in_folder(inner[0])
        content = ", ".join(sorted(child.name for child in path.iterdir())[:10]) or "nothing"
        raise CheckpointNotFoundError(f"no weights in {path}: it holds {content}; expected {CONTAINERS}")
    tf1 = tf1_prefix(path)
    if tf1:
        return Files("tf1", tf1, tf1.parent)
    if not path.exists() and is_name(source):
        from bert4x.hub import resolve

        return locate(resolve(source))
    if not path.exists():
        raise CheckpointNotFoundError(f"{path} does not exist; expected a file or folder with {CONTAINERS}")
    if not path.is_file():  # a pipe, which would keep us waiting, or a device
        raise CheckpointNotFoundError(f"{path} is no regular file; expected {CONTAINERS}")
    if RANK.search(path.name):
        return Files("megatron", path.parent, path.parent)
    container = container_of(path)
    return Files(container, path, path.parent)


def default_model() -> Path:
    """The folder of the small model inside the package: one set of weights for encoder, masked LM, LM and UniLM."""
    return Path(__file__).parents[1] / "assets" / "default"


def is_name(source) -> bool:
    """Whether something may be the name of a published checkpoint; a `Path` never is."""
    return isinstance(source, str) and NAME.fullmatch(source) is not None


def is_folder(path: Path) -> bool:
    """Whether there is such a folder.

    Raises: CheckpointNotFoundError for a name that no file can have.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise CheckpointNotFoundError(f"{str(path)[:200]} does not exist: {error.strerror}") from error


def container_of(path: Path) -> str:
    """The container of a single file, by its first bytes (and its name, for an index)."""
    name = path.name
    if name.endswith(".index.json"):
        return "safetensors" if "safetensors" in name else "torch"
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\x89HDF\r\n"):
        return "hdf5"
    if head[8:9] == b"{" or name.endswith(".safetensors"):  # first: its length may begin with any byte
        return "safetensors"
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        return "torch"
    if name.endswith((".bin", ".pt", ".pth")):
        return "torch"
    if name.endswith(".h5"):
        return "hdf5"
    raise UnknownFormatError(f"{path} starts with {head[:8]!r}, which is no format known here; expected {CONTAINERS}")


def in_folder(folder: Path) -> Files | None:
    """The checkpoint in a folder; formats that are safe and lazy come first where there are several."""
    ranks = rank_folder(folder)
    if ranks:
        return Files("megatron", ranks, folder)
    names = ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"]
    candidates = [folder / name for name in names if (folder / name).is_file()]
    for pattern in ("*.safetensors", "*.weights.h5", "*.h5", "*.bin", "*.pt", "*.pth"):
        alone = sorted(path for path in folder.glob(pattern) if not path.name.startswith(".") and path.is_file())
        if len(alone) == 1:
            candidates += alone
    if candidates and not candidates[0].name.endswith((".bin", ".pt", ".pth", ".h5")):
        return Files(container_of(candidates[0]), candidates[0], folder)
    indexes = sorted(folder.glob("*.index"))
    prefix = latest_tf1(folder) or (indexes[0].with_suffix("") if len(indexes) == 1 else None)
    if prefix:
        return Files("tf1", prefix, folder)
    return Files(container_of(candidates[0]), candidates[0], folder) if candidates else None


def latest_tf1(folder: Path) -> Path | None:
    """The prefix that TensorFlow's `checkpoint` file names, if it is there."""
    file = folder / "checkpoint"
    if not file.is_file() or file.stat().st_size > 1 << 20:
        return None
    match = re.search(r'^model_checkpoint_path:\s*"([^"]*)"', file.read_text("utf-8", "replace"), re.MULTILINE)
    prefix = folder / Path(match[1]).name if match else None
    return prefix if prefix and prefix.with_name(prefix.name + ".index").is_file() else None


def tf1_prefix(path: Path) -> Path | None:
    """The prefix of a TensorFlow checkpoint, from itself or from any of its files."""
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    prefix = path.with_name(name)
    return prefix if prefix.with_name(name + ".index").is_file() else None


def rank_folder(folder: Path) -> Path | None:
    """The folder of `mp_rank_XX` files: this one, or the iteration that latest_checkpointed_iteration.txt names."""
    if any(RANK.search(path.name) for path in folder.iterdir()):
        return folder
    latest = folder / "latest_checkpointed_iteration.txt"
    if not latest.is_file():
        return None
    with latest.open(encoding="utf-8", errors="replace") as file:
        iteration = file.read(64).strip()
    inner = folder / iteration
    if not iteration.isalnum() or not inner.is_dir():
        raise CheckpointNotFoundError(f"{latest} names iteration {iteration!r}, but {inner} is no folder")
    if not any(RANK.search(path.name) for path in inner.iterdir()):
        raise CheckpointNotFoundError(f"no mp_rank_XX_model_states.pt in {inner}; put the downloaded shards there")
    return inner


def read_ranks(folder: Path) -> Tensors:
    """The tensors of all model-parallel ranks.

    Raises: CheckpointNotFoundError for a missing rank, TensorMismatchError if the ranks disagree.
    """
    from bert4x.checkpoints.formats.torch_pickle import read_torch

    paths = {int(RANK.search(path.name)[1]): path for path in folder.iterdir() if RANK.search(path.name)}
    missing = sorted(set(range(max(paths) + 1)) - set(paths))
    if missing:
        raise CheckpointNotFoundError(f"{folder} has ranks {sorted(paths)}, but lacks {missing}; download them too")
    ranks = [read_torch(paths[rank], root="module") for rank in range(len(paths))]
    for rank, tensors in enumerate(ranks):
        for name in sorted(set(tensors) ^ set(ranks[0])):
            raise TensorMismatchError(f"tensor {name!r} is not in all ranks: {paths[rank].name} differs from rank 0")
        for name, tensor in tensors.items():
            if tensor.shape != ranks[0][name].shape or tensor.dtype != ranks[0][name].dtype:
                raise TensorMismatchError(
                    f"tensor {name!r} is {ranks[0][name].shape} {ranks[0][name].dtype} in rank 0, "
                    f"but {tensor.shape} {tensor.dtype} in {paths[rank].name}; are the shards of one checkpoint?"
                )
    if not ranks[0]:
        raise CorruptFileError(f"{paths[0]} holds no tensors under 'module'")
    return {
        f"{rank}/{name}": replace(t, name=f"{rank}/{name}")
        for rank, tensors in enumerate(ranks)
        for name, t in tensors.items()
    }
