"""Checkpoints with a file for each model-parallel rank: Megatron's, and DeepSpeed's, which has one of rank 0."""

import re
from dataclasses import replace
from pathlib import Path

from bert4x.checkpoints.formats.foreign import explained
from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, TensorMismatchError, UnknownFormatError

RANK = re.compile(r"mp_rank_(\d{2,3})_model_states\.pt")
OF_MEGATRON = "model_optim_rng.pt"  # Megatron-LM's own, in a folder for each rank
RANK_FOLDER = re.compile(r"mp_rank_(\d{2,3})")
ORDERS = ("by_projection.", "by_feature.", "by_head.")  # of query, key and value, by the version of the checkpoint


def rank_folder(folder: Path) -> Path | None:
    """The folder of `mp_rank_XX` files: this one, or the iteration that latest_checkpointed_iteration.txt names."""
    return folder if holds_ranks(folder) else latest_step(folder, "latest_checkpointed_iteration.txt")


def latest_step(folder: Path, file: str) -> Path | None:
    """The folder of the step that a small file names: Megatron's, or DeepSpeed's `latest`.

    Raises: CheckpointNotFoundError for one without ranks, UnknownFormatError for what is recognised there.
    """
    latest = folder / file
    if not latest.is_file():
        return None
    step = first_bytes(latest, 64).decode("utf-8", "replace").strip()
    inner = folder / step
    if (folder / f"iter_{step:0>7}").is_dir():
        inner = folder / f"iter_{step:0>7}"
    if not re.fullmatch(r"\w+", step) or not inner.is_dir():
        raise CheckpointNotFoundError(f"{latest} names {step!r}, but {inner} is no folder")
    what = explained(sorted(child.name for child in inner.iterdir()))
    if not holds_ranks(inner) and what:
        raise UnknownFormatError(f"{inner} holds no weights that bert4x reads: {what}")
    if not holds_ranks(inner):
        raise CheckpointNotFoundError(f"no mp_rank_XX_model_states.pt in {inner}; put the downloaded shards there")
    return inner


def holds_ranks(folder: Path) -> bool:
    """Whether there are files of model-parallel ranks."""
    return bool(rank_files(folder))


def rank_files(folder: Path) -> dict[int, Path]:
    """Rank -> its file, in a folder of DeepSpeed's or of Megatron-LM's."""
    found = {}
    for path in folder.iterdir():
        if match := RANK.fullmatch(path.name):
            found[int(match[1])] = path
        elif (match := RANK_FOLDER.fullmatch(path.name)) and (path / OF_MEGATRON).is_file():
            found[int(match[1])] = path / OF_MEGATRON
    return found


def first_bytes(file: Path, most: int) -> bytes:
    """What a small file says, without a byte order mark; b"" if it is not there, or larger."""
    if not file.is_file() or file.stat().st_size > most:
        return b""
    return file.read_bytes().removeprefix(b"\xef\xbb\xbf")


def read_megatron(path: Path) -> Tensors:
    """The tensors of a rank of Megatron-LM, with a word before their names for the order of query, key and value.

    Raises: UnknownFormatError for a version that is not known.
    """
    from bert4x.checkpoints.formats.torch_pickle import read_number, read_torch

    version = read_number(path, "checkpoint_version", 0)
    if version not in (0, 1, 2, 3):
        raise UnknownFormatError(f"{path}: version {version} of Megatron-LM's checkpoints; expected 0 to 3")
    word = ORDERS[min(int(version), 2)]
    return {word + name: replace(t, name=word + name) for name, t in read_torch(path, root="model").items()}


def read_ranks(folder: Path) -> Tensors:
    """The tensors of all model-parallel ranks.

    Raises: CheckpointNotFoundError for a missing rank, TensorMismatchError if the ranks disagree, CorruptFileError.
    """
    from bert4x.checkpoints.formats.torch_pickle import read_torch

    paths = rank_files(folder)
    missing = sorted(set(range(max(paths) + 1)) - set(paths))
    if missing:
        raise CheckpointNotFoundError(f"{folder} has ranks {sorted(paths)}, but lacks {missing}; download them too")
    if paths[0].name == OF_MEGATRON:
        ranks = [read_megatron(paths[rank]) for rank in range(len(paths))]
    else:
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
