"""How well a pretrained model knows text it has not seen: masked accuracy and perplexity, per source."""

import numpy as np

from bert4x.training.corpus import BUCKETS, CorpusFile, Packer, pack

LENGTH = BUCKETS[2]


def held_out_rows(source: CorpusFile, tokenizer, limit: int = 256, seed: int = 0) -> list[np.ndarray]:
    """Up to `limit` rows, spread evenly over the last 1% of a file, of at most 125 tokens each. Shape: (T,) each"""
    tokens = tokenizer.ids_to_tokens(range(tokenizer.vocab_size))
    packer = Packer(tokens, np.random.default_rng(seed), pair=source.paired)

    def encode(texts: list[str]) -> list[list[int]]:
        return [ids[1:-1] for ids in tokenizer.encode_batch(texts)[0]]

    rows = [np.asarray(row, np.int32) for row in pack(source.held_out_documents(), packer, encode)]
    rows = [row for row in rows if 4 <= len(row) <= LENGTH - 3]
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]


def frame(rows: list[np.ndarray], tokenizer) -> np.ndarray:
    """`[CLS] row [SEP]`, padded. Shape: (B, T) int32"""
    ids = np.full((len(rows), LENGTH), tokenizer.pad_id, np.int32)
    for b, row in enumerate(rows):
        ids[b, : len(row) + 2] = [tokenizer.start_id, *row, tokenizer.end_id]
    return ids


def log_probabilities(model, ids: np.ndarray, targets: np.ndarray, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """What a model with logits gives `targets` at each position, and whether they are its first choice.

    Shape: (B, T), (B, T) -> (B, T) float32, (B, T) bool
    """
    scores, first = [], []
    for i in range(0, len(ids), batch):
        part, target = ids[i : i + batch], targets[i : i + batch, :, None]
        logits = np.asarray(model.predict_on_batch([part, np.zeros_like(part)]), np.float32)
        highest = logits.max(-1, keepdims=True)
        total = highest[..., 0] + np.log(np.exp(logits - highest).sum(-1))
        scores.append(np.take_along_axis(logits, target, -1)[..., 0] - total)
        first.append(logits.argmax(-1) == target[..., 0])
    return np.concatenate(scores), np.concatenate(first)


def masked_accuracy(model, tokenizer, rows: list[np.ndarray], rate: float = 0.15, seed: int = 0) -> float:
    """Fraction of masked tokens that an encoder with MLM logits restores; `rate` of the ordinary ones are [MASK].

    Shape: rows (T,)
    """
    ids = frame(rows, tokenizer)
    special = [tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id]
    hidden = (np.random.default_rng(seed).random(ids.shape) < rate) & ~np.isin(ids, special)
    _, first = log_probabilities(model, np.where(hidden, tokenizer.mask_id, ids), ids)
    return float(first[hidden].mean())


def restored(model, tokenizer, windows: np.ndarray, hidden: np.ndarray) -> float:
    """The share of hidden tokens that an encoder with MLM logits restores.

    Args:
        windows: tokens, without [CLS] and [SEP]. Shape: (N, T)
        hidden: which of them are [MASK]. Shape: (N, T) bool
    """
    framed, targets = (
        np.pad(x, ((0, 0), (1, 1)), constant_values=((0, 0), (tokenizer.start_id, tokenizer.end_id)))
        for x in (np.where(hidden, tokenizer.mask_id, windows), windows)
    )
    _, first = log_probabilities(model, framed, targets)
    return float(first[:, 1:-1][hidden].mean())


def perplexity(model, tokenizer, rows: list[np.ndarray]) -> float:
    """Per token, of rows read from left to right by a language model; the first token given [CLS], no end token.

    Shape: rows (T,)
    """
    ids = frame(rows, tokenizer)
    targets = np.roll(ids, -1, axis=1)
    special = [tokenizer.pad_id, tokenizer.end_id]
    counted = ~np.isin(targets, special)
    counted[:, -1] = False
    scores, _ = log_probabilities(model, ids, targets)
    return float(np.exp(-scores[counted].mean()))
