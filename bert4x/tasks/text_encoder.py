"""Texts to vectors: those of similar length together, as many at a time as a number of tokens allows."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from bert4x.errors import ConfigError, InputError, UnknownOptionError, nearest
from bert4x.tasks import vectors as v
from bert4x.tasks.task import Task
from bert4x.tasks.text import as_texts
from bert4x.tasks.windows import encode_windows
from bert4x.training.report import watched, with_bar

BATCH_TOKENS = 16384  # computed at a time


class TextEncoder(Task):
    """A task whose model gives a vector for a text. What it has of prompts, sizes and steps, a subclass says."""

    steps: list[dict]
    prompts: dict[str, str]
    default_prompt: str
    include_prompt: bool
    lower_case: bool
    dimensions: list[int]
    told: set[str]

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        if self.exported:
            return next(iter(self.backbone.graphs["model"].outputs.values()))[-1]
        return self.model.output.shape[-1]

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return bool(self.steps) and self.steps[-1]["kind"] == "normalize"

    def __call__(
        self,
        texts: str | Iterable[str],
        prompt: str | None = None,
        *,
        dimensions: int | None = None,
        precision: str = "float32",
        ranges: np.ndarray | None = None,
        batch_tokens: int = BATCH_TOKENS,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """The vectors of texts, in their order; they are computed in that of their lengths.

        Args:
            prompt: the name of one of `prompts`, to be put before each text; "" for none.
            dimensions: only so many numbers of each, at length 1 again where the model normalises.
            precision: "float32", or a form that takes less room: "int8" (by `ranges`) or "binary"; see
                `bert4x.tasks.vectors.packed`.
            batch_tokens: how many are computed at a time, padding included: the memory that it takes; `batch_size`: how
                many texts at most.
            progress: show a bar.

        Shape: -> (N, D), of one text (D,)
        Raises: InputError for an empty text, and where a vector holds NaN; UnknownOptionError for a prompt that the
            model has not; ConfigError for dimensions that were not trained.
        """
        one, texts = as_texts(texts)
        before, size = self.prompt(prompt), self.beginning(dimensions)
        v.check_count("batch_tokens", batch_tokens)
        if batch_size is not None:
            v.check_count("batch_size", batch_size)
        rows = self.encoded(texts, before)
        skip = 0 if self.include_prompt or not before else len(self.encoded([before], "")[0]) - self.ends
        compute = watched(self.computed) if progress else self.computed
        found = compute(rows, batch_tokens, batch_size, skip)
        found = v.finite(found, "the vectors that this model gives")[:, :size]
        if size < self.size and self.normalizes:
            found = v.unit(found)
        found = v.packed(found, precision, ranges)
        return found[0] if one else found

    def computed(self, rows: Sequence[Sequence[int]], batch_tokens: int, most: int | None, skip: int) -> np.ndarray:
        """The vectors of encoded texts, whole; for the arguments see `batches` and `arrays`. Shape: -> (N, D)"""
        found = np.zeros((len(rows), self.size), "float32")
        batches = self.batches([len(row) for row in rows], batch_tokens, most)
        for places in with_bar(batches, len(rows), "encoding"):
            found[places] = self.predict(self.model, self.arrays([rows[i] for i in places], skip=skip))
        return found

    def prompt(self, name: str | None) -> str:
        """What is put before a text. Raises: UnknownOptionError"""
        name = self.default_prompt if name is None else name
        if name and name not in self.prompts:
            known = nearest(name, self.prompts) if self.prompts else "it has none: put what you want before the texts"
            raise UnknownOptionError(f"this model has no prompt {name!r}; {known}")
        return self.prompts[name] if name else ""

    def beginning(self, dimensions: int | None) -> int:
        """How many numbers of a vector are wanted. Raises: ConfigError for a beginning that was not trained."""
        if dimensions is None:
            return self.size
        trained = [*self.dimensions, self.size]
        if (
            type(dimensions) is not int
            or not 0 < dimensions <= self.size
            or (self.dimensions and dimensions not in trained)
        ):
            raise ConfigError(
                f"dimensions = {dimensions!r}; this model's vectors can be {', '.join(map(str, trained))} long"
            )
        if dimensions < self.size and not self.dimensions:
            self.tell(
                f"this model does not say that its vectors can be cut; their first {dimensions} numbers may mean little"
            )
        return dimensions

    def tell(self, text: str) -> None:
        """Warns, once."""
        if text not in self.told:
            self.told.add(text)
            warnings.warn(text, stacklevel=4)

    @property
    def ends(self) -> int:
        """How many tokens stand after a text."""
        return int(self.tokenizer.end_id is not None)

    def encoded(self, texts: Sequence[str], before: str = "") -> list[list[int]]:
        """The ids of each text, the prompt and special tokens included, at most `maxlen`; one warning tells of cuts.

        Raises: InputError for a text without characters.
        """
        whole = [before + text for text in texts]
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise InputError(f"text {empty[0]} of {len(texts)} is empty: there is nothing to make a vector of")
        whole = [text.lower() for text in whole] if self.lower_case else whole
        windows, long = encode_windows(self.tokenizer, [(text,) for text in whole], self.maxlen, split=False)
        if long:
            self.tell(
                f"{long} of {len(texts)} texts have more than {self.maxlen} tokens, and are cut there (said once)"
            )
        return [window.token_ids for window in windows]

    def batches(self, lengths: Sequence[int], batch_tokens: int, most: int | None = None) -> Iterable[list[int]]:
        """Which texts are computed together: those of similar length, as many as a number of tokens allows, and at
        `most` so many; the longest first, so that too little memory is seen at once.
        """
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        start = 0
        while start < len(order):
            width = self.padded_length(lengths[order[start]])
            count = 1 << (max(1, batch_tokens // width).bit_length() - 1)  # `predict` fills rows up to a power of 2
            count = min(count, most or count)
            yield order[start : start + count]
            start += count

    def arrays(self, rows: Sequence[Sequence[int]], length: int | None = None, skip: int = 0) -> list[np.ndarray]:
        """The inputs of the model; the first `skip` tokens are read, and not pooled. Shape: -> (B, T) each"""
        token_ids = self.padded(rows, length, self.pad_id)
        places, lengths = np.arange(token_ids.shape[1]), np.array([len(row) for row in rows])
        counts = (places < lengths[:, None]) & (places >= np.minimum(skip, lengths - 1)[:, None])
        return [*self.model_inputs(token_ids, np.zeros_like(token_ids)), counts.astype("int32")]
