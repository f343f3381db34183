"""Filling [MASK]: the task BERT was pretrained on (Devlin et al. 2018, section 3.1)."""

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x.errors import ConfigError, InputError, TokenizerError
from bert4x.tasks.text import as_texts, batches_by_length

AT_ONCE = 1 << 26  # logits that are computed at a time


@dataclass(frozen=True)
class Filling:
    """One guess for one [MASK]: the text with it filled in, the token, and its probability."""

    text: str
    token: str
    probability: float


def fill_mask(text: str | Sequence[str], source: str | os.PathLike | None = None, top_k: int = 5) -> list:
    """The `top_k` likeliest tokens for each [MASK] of a text, best first; masks are filled independently. For a list of
    texts, such a list for each.

    `source` is a checkpoint with its vocabulary and masked-language-model head; by default the embedded model.

    Raises: TokenizerError when there is no vocabulary or no [MASK]; and the errors of `load`.
    """
    from bert4x.models.build import load

    return FillMask(load(source, "encoder", with_mlm=True))(text, top_k)


class FillMask:
    """`fill_mask` on a model that is loaded already, with `with_mlm=True`.

    Raises: TokenizerError without a vocabulary, ConfigError for a model with other outputs.
    """

    def __init__(self, model):
        if model.tokenizer is None or model.tokenizer.mask_id is None:
            raise TokenizerError("this model has no vocabulary with a [MASK] beside its weights; put vocab.txt there")
        if len(model.outputs) > 1:
            raise ConfigError("this model gives more than the masked tokens; load it with with_mlm=True and no more")
        self.model, self.tokenizer = model, model.tokenizer
        self.mask = model.tokenizer.id_to_token(model.tokenizer.mask_id)
        self.empty = model.tokenizer.ids_without_token(model.config.vocab_size)

    def __call__(self, text: str | Sequence[str], top_k: int = 5) -> list:
        """The fillings of each [MASK] in the text; of a list of texts, a list for each."""
        if isinstance(top_k, bool) or not isinstance(top_k, numbers.Integral) or top_k < 1:
            raise InputError(f"top_k is {top_k}; expected an integer, at least 1")
        one, texts = as_texts(text)
        texts = [text.replace("[MASK]", self.mask) for text in texts]  # it may have another name in this vocabulary
        encoded = [self.encode(text) for text in texts]
        longest = max((len(ids) for ids, _ in encoded), default=1)
        together = 1 if self.pad_id is None else max(1, AT_ONCE // (longest * self.model.config.vocab_size))
        found: list = [None] * len(texts)
        for chosen in batches_by_length([len(ids) for ids, _ in encoded], together):
            for i, logits in zip(chosen, self.logits([encoded[i] for i in chosen]), strict=True):
                found[i] = [self.best(texts[i], n, row, top_k) for n, row in enumerate(logits)]
        return found[0] if one else found

    @property
    def pad_id(self) -> int | None:
        """The id that the model takes for padding."""
        return self.model.config.pad_token_id

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """The ids and segments of a text. Raises: TokenizerError where no [MASK] is among them, or one lies beyond."""
        ids, segments = self.tokenizer.encode(text, maxlen=self.model.config.max_position)
        masks = ids.count(self.tokenizer.mask_id)
        if text.count(self.mask) > masks:
            raise TokenizerError(
                f"a {self.mask} lies beyond the {self.model.config.max_position} positions of the model"
            )
        if not masks:
            raise TokenizerError(f"no {self.mask} in {text!r}; write one where a token is to be guessed")
        return ids, segments

    def logits(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[np.ndarray]:
        """The logits at each [MASK] of some encoded texts. Shape: N x (masks, V) float64"""
        length = max(len(ids) for ids, _ in rows)
        token_ids = np.full((len(rows), length), self.pad_id or 0, "int32")
        segment_ids = np.zeros_like(token_ids)
        for row, (ids, segments) in enumerate(rows):
            token_ids[row, : len(ids)], segment_ids[row, : len(ids)] = ids, segments
        logits = self.model.predict_on_batch({"token_ids": token_ids, "segment_ids": segment_ids})
        return [
            np.asarray(values[ids == self.tokenizer.mask_id], "float64")
            for values, ids in zip(np.asarray(logits), token_ids, strict=True)
        ]

    def best(self, text: str, n: int, logits: np.ndarray, top_k: int) -> list[Filling]:
        """The likeliest tokens for the n-th [MASK]; rows of the model without a token are none. Shape: `logits` (V,)"""
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        parts = text.split(self.mask)
        before, after = self.mask.join(parts[: n + 1]), self.mask.join(parts[n + 1 :])
        fillings, order = [], np.argsort(-probabilities)
        for token_id in order[~np.isin(order, self.empty)][:top_k]:
            token = self.tokenizer.id_to_token(int(token_id))
            filled = before + token.removeprefix("##") + after
            fillings.append(Filling(filled, token, float(probabilities[token_id])))
        return fillings
