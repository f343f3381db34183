"""From any readable layout to any writable one of the same family, tensor by tensor, without building a model."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.gguf_metadata import DTYPES, PACKED
from bert4x.checkpoints.heads import HeldHead, without_head
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.staging import Progress, staging_folder
from bert4x.checkpoints.tables import FORMATS, OWN_FORMATS, table_for, variables
from bert4x.checkpoints.tensors import BFLOAT16, LazyTensor, contiguous, is_floating, spare_memory
from bert4x.checkpoints.vocabulary import copy_vocabulary, find_tokenizer, save_over, with_pad_id
from bert4x.checkpoints.weights import VOCABULARY_AXIS, check_finite, checked_ids, kept_token_ids
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig
from bert4x.errors import ConversionError, nearest
from bert4x.hub.names import family_by_name, local

DROP = "Pass drop_head=True (--drop-head) to write the model without"
NO_WEIGHT = re.compile(r"seed_generator|lora_")  # in the path of a variable: of the model's dropout, of adapters
WEIGHTS = re.compile(r"\.(safetensors|safetensors\.index\.json|bin|bin\.index\.json|pt|h5|index|gguf)$")


class Variables:
    """Our variables of a checkpoint as lazily read tensors, cast and trimmed on the way."""

    def __init__(self, checkpoint: Checkpoint, dtype: np.dtype | None = None, keep_tokens=None):
        self.checkpoint, self.dtype = checkpoint, dtype
        self.keep = None
        if keep_tokens is not None:
            self.keep = checked_ids("keep_tokens", keep_tokens, checkpoint.config.vocab_size)
        self.config = checkpoint.config
        if self.keep is not None:
            ids = kept_token_ids(self.config, self.keep)
            self.config = self.config.replace(vocab_size=len(self.keep), **ids)

    def tensors(self) -> dict[str, LazyTensor]:
        """All of them, by path."""
        return {path: self.tensor(path, *held) for path, held in self.checkpoint.variables.items()}

    def tensor(self, path: str, shape, dtype) -> LazyTensor:
        """One of them."""
        if self.keep is not None and path in VOCABULARY_AXIS:
            axis = VOCABULARY_AXIS[path]
            shape = (*shape[:axis], len(self.keep), *shape[axis + 1 :])
        target = self.dtype if self.dtype is not None and is_floating(dtype) else dtype
        return LazyTensor(path, shape, target, lambda: self.read(path, target))

    def head(self) -> HeldHead | None:
        """The head beside them, cast as they are."""
        held = self.checkpoint.head
        return held and replace(held, tensors={path: self.cast(tensor) for path, tensor in held.tensors.items()})

    def cast(self, tensor: LazyTensor) -> LazyTensor:
        """A tensor of finite values, in the dtype that was asked for."""
        dtype = self.dtype if self.dtype is not None and is_floating(tensor.dtype) else tensor.dtype

        def read() -> np.ndarray:
            values = contiguous(tensor.read())
            check_finite(tensor.name, values)
            return as_dtype(tensor.name, values, dtype)

        return replace(tensor, dtype=dtype, read=read, rows=None)

    def read(self, path: str, dtype: np.dtype) -> np.ndarray:
        """The values of one of them, of its shape."""
        values = self.checkpoint.read(path)
        check_finite(path, values)
        if self.keep is not None and path in VOCABULARY_AXIS:
            values = np.take(values, self.keep, axis=VOCABULARY_AXIS[path])
        return as_dtype(path, values, dtype)


def as_dtype(path: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values cast to a dtype. Shape: any -> the same. Raises: NotFiniteError where float16 cannot hold one."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        cast = contiguous(values).astype(dtype)
    if dtype == np.float16 and values.size:
        check_finite(f"{path} as float16 (its largest value is {np.abs(values).max():.4g})", cast)
    return cast


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    format: str = "hf",
    *,
    dtype: str | None = None,
    shards: int | None = None,
    keep_tokens=None,
    config=None,
    progress: Progress | None = None,
    drop_head: bool = False,
    model: str | None = None,
) -> Path:
    """Writes the checkpoint `source`, a path or a name, into the folder `target` in another format, with its config and
    vocabulary.

    `format`: "hf", "tf1", "megatron", "uer", "gguf", "keras" or "bert4x". Values are kept bit for bit unless `dtype`
    ("float32", "float16", "bfloat16") asks otherwise. `shards` is the number of files ("hf") or of model-parallel ranks
    ("megatron"). `keep_tokens` lists the vocabulary ids to keep, in their new order. Memory is a few times the largest
    tensor, whatever the checkpoint's size. The head of a task is written with the model; `drop_head=True` leaves it
    behind. `config` and `model` are those of `open_checkpoint`. Returns the folder.

    Raises: ConversionError when the format cannot express the model, or has no room for its head; and the errors of
    opening a checkpoint.
    """
    check_options(format, dtype, shards, keep_tokens)
    checkpoint = open_checkpoint(local(source), config, model or family_by_name(source))
    checkpoint.report.raise_for_problems(checkpoint.files.path)
    checkpoint.check_tied()
    target = folder_to_write(target)
    if target.resolve() in (checkpoint.folder.resolve(), checkpoint.files.folder.resolve()):
        raise ConversionError(f"{target} is the source itself; choose another folder")
    if checkpoint.report.unknown and not drop_head:
        raise ConversionError(
            f"{checkpoint.files.path} holds {len(checkpoint.report.unknown)} tensors of a head that is not known here, "
            f"which would stay behind: {', '.join(checkpoint.report.unknown[:6])}. {DROP}"
        )
    tokenizer = find_tokenizer(checkpoint)
    checkpoint.config = with_pad_id(checkpoint, tokenizer)
    of_matrices = dtype if format == "gguf" else None  # vectors stay float32 there
    held = Variables(checkpoint, None if of_matrices else DTYPES.get(dtype), keep_tokens)
    head, config = held.head(), held.config
    if head is not None:
        head.check(checkpoint.files.path)
    if drop_head:
        head, config = None, without_head(config) if checkpoint.report.stray else config
    with staged(target) as folder, spare_memory.while_kept():
        ours = written_variables(held.tensors(), format, config, drop_head)
        whole = write(folder, format, config, ours, shards, progress, head, tokenizer, of_matrices)
        write_config(folder, format, whole.config, whole.ours, whole.architecture)
        copy_vocabulary(checkpoint, folder, format, held.keep)
    return target


def check_options(format: str, dtype: str | None, shards: int | None, keep_tokens) -> None:
    """Raises: ConversionError for a format or dtype that is unknown, and for options that do not go with the format."""
    if format not in FORMATS:
        raise ConversionError(f"no format {format!r}; {nearest(format, FORMATS)}")
    if dtype is not None and dtype not in DTYPES and (dtype, format) != (PACKED, "gguf"):
        raise ConversionError(f"no dtype {dtype!r}; {nearest(dtype, DTYPES)}; for gguf also {PACKED}")
    if keep_tokens is not None and format == "gguf":
        raise ConversionError(
            "a GGUF has its vocabulary in it: trim to another format with keep_tokens, then convert that"
        )
    if shards is not None and (shards < 1 or format not in ("hf", "bert4x", "megatron")):
        raise ConversionError(f"shards={shards} does not go with format {format!r}")


def written_variables(ours: dict, format: str, config: TransformerConfig, drop_head: bool) -> dict:
    """Our variables, where heads may be dropped without those of heads that a format has no room for."""
    if not drop_head or format in OWN_FORMATS:
        return ours
    lacks, known = table_for(format, config).lacks, variables(config)
    return {path: tensor for path, tensor in ours.items() if path not in known or known[path][1] not in lacks}


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder whose files move to `target` once the block succeeded; if it failed, nothing is left of them.

    Raises: ConversionError where the target is a file, or has other weights, which loaders would confuse with these.
    """
    with staging_folder(place_to_stage(target), target.name) as folder:
        yield folder
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        held = [*target.glob("*"), *target.glob("*/mp_rank_*")]
        held = [path.relative_to(target) for path in held if not path.is_relative_to(folder)]
        stale = sorted(str(path) for path in held if WEIGHTS.search(path.name) and path not in files)
        if stale:
            raise ConversionError(f"{target} already holds {', '.join(stale)}; choose an empty folder or delete them")
        for path in files:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / path, target / path)


def folder_to_write(target: str | os.PathLike) -> Path:
    """The path of a folder. Raises: ConversionError for what is none; an empty one is not the current folder."""
    if not isinstance(target, str | os.PathLike) or not str(target):
        raise ConversionError(f"found {target!r:.60}; expected the path of a folder to write into")
    path = Path(target).expanduser()
    try:
        path.exists() or path.absolute().resolve()
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise ConversionError(f"{str(path)!r:.80} can be no folder: {error.args[-1]}") from None
    return path


def place_to_stage(target: Path) -> Path:
    """Where files wait until all of them are written: on the same disk as the target, and where one may write if one
    may write there. It is the target itself, or its nearest parent that exists.

    Raises: ConversionError where that is a file.
    """
    place = next(path for path in (target, *target.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ConversionError(f"{place} is a file; expected a folder to write into")
    return place


def save(
    model,
    folder: str | os.PathLike,
    format: str = "bert4x",
    *,
    head: HeldHead | None = None,
    drop_head: bool = False,
    beside: Callable[[Path], None] = lambda folder: None,
    **options,
) -> Path:
    """Writes a model made by `load` or `build_transformer_model`, or a task with its head, as a checkpoint of any
    format.

    Of a Keras model with layers on top, use `model.save`. Matrices with LoRA adapters are written with these added to
    them; `save_lora` writes the adapters alone.

    Args:
        head: of a task, to be written beside the model.
        drop_head: leave behind what the format has no room for: a task's head, new variables of the model.
        beside: writes more files into the folder.
    Raises: ConversionError when the format cannot express the model, or has no room for all of it; ConfigError for a
    subclass of a builder without a name of its own.
    """
    from bert4x.training.lora import merged_tensors

    if hasattr(model, "held_head"):  # a task
        return model.save(folder, format, drop_head=drop_head, **options)
    config = getattr(model, "config", None)
    if not isinstance(config, TransformerConfig):
        raise ConversionError("this Keras model was not made by bert4x, so its layout is unknown; use model.save(...)")
    if format not in FORMATS:
        raise ConversionError(f"no format {format!r}; {nearest(format, FORMATS)}")
    if getattr(model, "builder", None) is not None:
        model.builder.check_name()
    held = writable_variables(model, drop_head)
    head = None if drop_head else head
    report = getattr(model, "load_report", None)
    if head is None and report is not None and report.head is not None:
        config = without_head(config)
        if not report.head_in_use:
            warnings.warn(f"not loaded with this model, and not written with it: the {report.head}", stacklevel=2)
    merged = merged_tensors(model)
    known = [path for path in variables(config) if path in held]
    ours = {path: of_variable(path, held[path], merged.get(held[path].path)) for path in known}
    target = folder_to_write(folder)
    with staged(target) as folder:
        ours = written_variables(ours, format, config, drop_head)
        whole = write(folder, format, config, ours, head=head, tokenizer=model.tokenizer, **options)
        write_config(folder, format, whole.config, whole.ours, whole.architecture)
        if model.tokenizer is not None:
            save_over(target, model.tokenizer, folder)
        beside(folder)
    return target


def writable_variables(model, drop_head: bool) -> dict:
    """The variables of a model by path, all of which a checkpoint of its family has.

    Raises: ConversionError for int8 weights, and where some are missing, or would stay behind.
    """
    config = model.config
    table = "Embedding-Token/embeddings"
    prefix = next((v.path.removesuffix(table) for v in model.variables if v.path.endswith(table)), "")
    held = {variable.path.removeprefix(prefix): variable for variable in model.variables}
    if any(held[path].dtype == "int8" for path in held):
        raise ConversionError(
            "this model's weights are int8, which no checkpoint format here has; load it without quantize to write it, "
            "or keep it as it is with model.save('model.keras')"
        )
    known = variables(config)
    missing = [path for path in known if path not in held and known[path][1] is None]
    if missing:
        raise ConversionError(f"this model has no {', '.join(missing[:4])} ... which every {config.model} has")
    new = [path for path in held if path not in known and not NO_WEIGHT.search(path)]
    if new and not drop_head:
        raise ConversionError(
            f"{len(new)} variables of this model are of no {config.model}, and would stay behind: "
            f"{', '.join(new[:4])}. Keep all with model.save('model.keras'); or {DROP[0].lower()}{DROP[1:]}"
        )
    return held


def of_variable(path: str, variable, read: Callable[[], np.ndarray] | None = None) -> LazyTensor:
    """A Keras variable as a lazily read tensor; `read` gives other values than its own."""
    from keras import ops

    dtype = BFLOAT16 if variable.dtype == "bfloat16" else np.dtype(variable.dtype)
    read = read or (lambda: ops.convert_to_numpy(variable.value))
    return LazyTensor(path, tuple(variable.shape), dtype, read)
