"""From an opened checkpoint to the variables of a model that may differ from it: trimmed, resized, unshared."""

import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from bert4x.checkpoints.checkpoint import Checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import BFLOAT16, contiguous
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, NotFiniteError, TensorMismatchError
from bert4x.families import family_of

# Variables with a row, or a column, for each token -> the axis.
VOCABULARY_AXIS = {
    "Embedding-Token/embeddings": 0,
    "LM-Head/embeddings": 0,
    "MLM-Bias/bias": 0,
    "Decoder-Output-LM/kernel": 1,
}
AHEAD = 4  # variables
AT_ONCE = 1 << 17  # numbers of 16 bits


class Weights:
    """The source of initial values for a model: called with a variable's path and shape (see `layers.weights_from`).

    What the model asks for and the checkpoint lacks is collected in `missing`, and so is what no table lists. Only what
    the builder declares as new by `is_new(path)`, such as the projections of a conditional norm, starts as its layer
    says.
    """

    def __init__(self, checkpoint: Checkpoint, config: TransformerConfig, options: dict, is_new: Callable[[str], bool]):
        self.checkpoint = checkpoint
        self.config = config
        self.prefix = options.get("prefix") or ""
        self.keep_tokens = options.get("keep_tokens")
        self.compound_tokens = options.get("compound_tokens")
        self.autoresize = options.get("autoresize_weights", False)
        self.lenient = options.get("ignore_invalid_weights", False)
        self.known = variables(config)
        self.is_new = is_new
        self.missing: list[str] = []
        self.loaded: list[str] = []
        self.order = list(checkpoint.variables)
        self.reader = ThreadPoolExecutor(1)  # the only one that reads
        self.ahead: dict[str, Future] = {}

    def __call__(self, path: str, shape: tuple[int, ...], any_order: bool = False) -> np.ndarray | None:
        path = path.removeprefix(self.prefix)
        source = self.source_path(path)
        if source is None:
            if path in self.known:
                self.missing.append(f"{path}: missing in the checkpoint; expected shape {shape}")
            elif not self.is_new(path):
                self.missing.append(f"{path}: no variable that the table of {self.config.model} lists; shape {shape}")
            return None
        values = self.read(source)
        if path in VOCABULARY_AXIS:
            across, kept = VOCABULARY_AXIS[path], (self.keep_tokens, self.compound_tokens)
            values = vocabulary_rows(values.T, *kept).T if across else vocabulary_rows(values, *kept)
        if values.shape != shape:
            if self.autoresize:
                values = resized(path, values, shape, self.config.hidden_act)
            else:
                self.missing.append(f"{path}: shape {values.shape} in the checkpoint, but the model has {shape}")
                return None
        check_finite(path, values)
        self.loaded.append(path)
        return values if any_order else contiguous(values)

    def parts(self, path: str, shape: tuple[int, ...]) -> Callable[[tuple[slice, ...]], np.ndarray] | None:
        """The same for some of a variable at a time. What must be changed to fit is read as a whole."""
        source = self.source_path(path.removeprefix(self.prefix))
        changed = self.keep_tokens is not None or self.compound_tokens
        if source is None or changed or self.checkpoint.shapes[source][0] != shape:
            values = self(path, shape)
            return None if values is None else values.__getitem__

        def read(index):
            values = self.checkpoint.part(source, index)
            check_finite(path, values)
            return values

        self.loaded.append(path)
        return read

    def read(self, source: str) -> np.ndarray:
        """The checkpoint's values of a variable, while a thread already reads those that are probably asked for next.

        Reading waits for the file and for memory, building the layers between for neither.
        """
        place = self.order.index(source)
        wanted = self.order[place : place + AHEAD]
        self.ahead = {path: self.ahead.get(path) or self.reader.submit(self.checkpoint.read, path) for path in wanted}
        return self.ahead.pop(source).result()

    def source_path(self, path: str) -> str | None:
        """The checkpoint's variable for one of the model's: its own, or the one it is a copy of."""
        held = self.checkpoint.entries
        if path in held:
            return path
        written = family_of(self.config.model).as_written(path)
        return written if written in held else None

    def settle(self, strict: bool) -> None:
        """After building: what is missing is an error, or with `strict=False` a warning.

        Raises: TensorMismatchError
        """
        self.reader.shutdown(wait=False, cancel_futures=True)
        self.ahead.clear()
        self.checkpoint.report.unfilled = self.missing
        if not self.missing:
            return
        text = (
            f"the model has {len(self.missing)} variables that {self.checkpoint.files.path} cannot fill:\n  "
            + "\n  ".join(self.missing[:8])
            + (f"\n  ... and {len(self.missing) - 8} more" if len(self.missing) > 8 else "")
        )
        if strict and not self.lenient:
            raise TensorMismatchError(
                f"{text}\nA checkpoint without that head cannot serve it; strict=False starts those at random. Layers "
                "that a subclass of a builder adds are made by self.layer(..., new=True)."
            )
        warnings.warn(f"{text}\nThey start at random.", stacklevel=3)


def vocabulary_rows(values: np.ndarray, keep_tokens, compound_tokens) -> np.ndarray:
    """Rows of `keep_tokens`, then for each of `compound_tokens` the (weighted) mean of some of those.

    A compound is a list of ids, or (ids, weights); its ids count after keeping, as in bert4keras.
    """
    if keep_tokens is not None:
        values = values[checked_ids("keep_tokens", keep_tokens, len(values))]
    if not compound_tokens:
        return values
    compounds = [checked_compound(item, len(values)) for item in compound_tokens]
    new = [np.average(values[ids].astype("float32"), axis=0, weights=weights) for ids, weights in compounds]
    return np.concatenate([values, np.asarray(new, dtype=values.dtype)])


def checked_ids(option: str, ids, size: int) -> np.ndarray:
    """Row numbers as an array, (N,).

    Raises: ConfigError for ids that are no rows.
    """
    try:
        array = np.asarray(ids)
    except ValueError:  # rows of different lengths
        array = np.zeros(())
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= size:
        raise ConfigError(f"{option} must list ids from 0 to {size - 1}; got {str(ids)[:80]}")
    return array


def kept_pad_id(pad_id: int | None, keep_tokens) -> int | None:
    """The padding id among the kept tokens, by its new number; None, so that nothing is padding, if it is not kept."""
    if pad_id is None or keep_tokens is None:
        return pad_id
    return next((new for new, old in enumerate(keep_tokens) if old == pad_id), None)


def kept_token_ids(config: TransformerConfig, keep_tokens) -> dict[str, int | None]:
    """The fields of a config that are ids, by their new numbers among the kept tokens."""
    return {name: kept_pad_id(getattr(config, name), keep_tokens) for name in config.token_ids}


def checked_compound(item, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights of a compound token: a list of ids, or (ids, weights).

    Raises: ConfigError
    """
    ids, weights = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
    ids = checked_ids("compound_tokens", ids, size)
    weights = np.ones(len(ids)) if weights is None else np.asarray(weights)
    if weights.shape != ids.shape or weights.dtype.kind not in "iuf" or not np.isfinite(weights.sum() or np.nan):
        raise ConfigError(f"compound_tokens needs one number for each of the ids {ids}, not all 0; got {weights}")
    return ids, weights


def vocabulary_size(size: int, keep_tokens=None, compound_tokens=None) -> int:
    """Rows of the embedding table once tokens were kept and compound ones appended.

    Raises: ConfigError for what is no list of ids.
    """
    if keep_tokens is not None:
        size = len(checked_ids("keep_tokens", keep_tokens, size))
    compound_tokens = [] if compound_tokens is None else compound_tokens
    if not isinstance(compound_tokens, list | tuple):
        raise ConfigError(f"compound_tokens must be a list of lists of ids; got {compound_tokens!r}")
    return size + len([checked_compound(item, size) for item in compound_tokens])


def check_finite(path: str, values: np.ndarray) -> None:
    """Raises: NotFiniteError when a weight is NaN or infinite."""
    if values.dtype.kind != "f" and values.dtype != BFLOAT16:
        return
    if values.dtype.itemsize == 2:  # half types have slow arithmetic
        finite = is_finite_half(values)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(values.sum()) or np.isfinite(values).all()
    if not finite:
        count = int((~np.isfinite(values.astype("float32"))).sum())
        raise NotFiniteError(f"{path} has {count} values that are NaN or infinite; the checkpoint is damaged")


def is_finite_half(values: np.ndarray) -> bool:
    """Whether numbers of 16 bits are all finite: of those that are not, the exponent is all ones. They are looked at a
    few at a time, which stay in the processor's cache.
    """
    exponent = 0x7F80 if values.dtype == BFLOAT16 else 0x7C00
    bits = values.view("u2")
    bits = bits.reshape(-1) if bits.flags.c_contiguous else bits.T.reshape(-1)
    found = np.empty(min(len(bits), AT_ONCE), "u2")
    for start in range(0, len(bits), AT_ONCE):
        part = bits[start : start + AT_ONCE]
        if np.bitwise_and(part, exponent, out=found[: len(part)]).max() == exponent:
            return False
    return True


def resized(path: str, values: np.ndarray, shape: tuple[int, ...], hidden_act: str) -> np.ndarray:
    """Weights of another size made to fit: repeated in pairs along each axis, cut, and rescaled (as in bert4keras).

    The scale keeps the attention scores and the feed-forward output at their size (Su, kexue.fm/archives/8444).
    """
    old_shape = values.shape
    out = orthogonally_resize(values.astype("float32"), shape)
    if "-MultiHeadSelfAttention/" in path and path.split("/")[1] in ("query", "key"):
        out = out * (shape[-1] / old_shape[-1]) ** 0.25
    elif "-FeedForward/" in path:
        inner = "/intermediate/" in path and hidden_act not in ("relu", "leaky_relu")
        out = out * (shape[-1] / old_shape[-1] if inner else old_shape[0] / shape[0]) ** 0.5
    return out.astype(values.dtype)


def orthogonally_resize(array: np.ndarray, shape: tuple[int, ...], window: int = 2) -> np.ndarray:
    """An array of another shape with the same norm: along each axis, windows of entries are repeated, then cut.

    Raises: ConfigError where a growing axis is not a multiple of the window.
    """
    norm = np.linalg.norm(array)
    for axis, (old, new) in enumerate(zip(array.shape, shape, strict=True)):
        repeats = -(-new // old)
        if repeats > 1:
            if old % window:
                raise ConfigError(f"cannot resize an axis of {old} to {new}: it is not a multiple of {window}")
            windows = np.arange(old).reshape(old // window, window)
            array = np.take(array, np.repeat(windows, repeats, axis=0).reshape(-1), axis=axis)
        array = np.take(array, np.arange(new), axis=axis)
    cut = np.linalg.norm(array)
    return array / cut * norm if cut else array  # of zeros, which biases may be, nothing is scaled
