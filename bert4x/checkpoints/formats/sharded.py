"""A checkpoint in several files with an index: Hugging Face's `*.index.json`."""

from collections.abc import Callable
from pathlib import Path

from bert4x.checkpoints.tensors import Tensors
from bert4x.errors import CheckpointNotFoundError, CorruptFileError, TensorMismatchError, UnsafeFileError
from bert4x.json_files import read_json

MAX_INDEX = 16 << 20  # bytes; a tensor takes about 100, as in the header of safetensors
MAX_NAME = 85  # characters of a file name: at most 255 bytes of UTF-8, all that file systems take


def read_sharded(index_path, read_one: Callable[[Path], Tensors]) -> Tensors:
    """All tensors of the shards an index names.

    The index is `{"weight_map": {tensor: file}}`; a shard may hold tensors the map leaves out. Raises
    `CorruptFileError` for a malformed index, `UnsafeFileError` for a shard outside the index's folder,
    `CheckpointNotFoundError` for a missing shard and `TensorMismatchError` for a tensor that is in no shard, in
    another one than the map says, or in two.
    """
    index_path = Path(index_path)
    weight_map = read_json(index_path, limit=MAX_INDEX, unique_keys=True).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CorruptFileError(f"{index_path}: expected a 'weight_map' of tensor names to file names")
    tensors: Tensors = {}
    origin: dict[str, str] = {}
    for shard in sorted(set(weight_map.values())):
        for name, tensor in read_one(_shard_path(index_path, shard)).items():
            if name in origin:
                raise TensorMismatchError(f"{index_path}: tensor {name!r} is in both {origin[name]} and {shard}")
            origin[name], tensors[name] = shard, tensor
    for name, shard in weight_map.items():
        if origin.get(name) != shard:
            found = f"it is in {origin[name]}" if name in origin else "no shard has it"
            raise TensorMismatchError(f"{index_path}: tensor {name!r} should be in {shard}, but {found}")
    return tensors


def _shard_path(index_path: Path, shard: str) -> Path:
    if shard in ("", ".", "..") or len(shard) > MAX_NAME or any(c in "/\\:" or not c.isprintable() for c in shard):
        raise UnsafeFileError(f"{index_path}: shard {shard[:MAX_NAME]!r} is not a plain file name in the same folder")
    path = index_path.parent / shard
    if not path.is_file():
        raise CheckpointNotFoundError(f"{index_path}: shard {shard} is missing; download it beside the index")
    return path
