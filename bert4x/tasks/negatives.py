"""Wrong answers that a model takes for right ones: what sentence vectors and rerankers learn most from."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from bert4x.errors import DataError, InputError
from bert4x.tasks import compared
from bert4x.tasks.text import as_texts
from bert4x.tasks.text_encoder import TextEncoder
from bert4x.tasks.vectors import check_count


def mine_negatives(
    encoder,
    rows: Sequence[tuple[str, str]],
    count: int = 1,
    corpus: Sequence[str] = (),
    *,
    skip: int = 0,
    margin: float = 0.95,
    top_k: int = 50,
    seed: int = 0,
    **options,
) -> list[tuple]:
    """Rows (question, answer) with `count` wrong answers each, drawn from the nearest texts that are not right.

    Args:
        encoder: what `bert4x.embedder` gives.
        corpus: more texts to choose from, beside all answers.
        skip: how many of the nearest are left out, as they may be right.
        margin: what is nearer than this share of the right answer's similarity is left out, for the same reason
            (Moreira et al. 2024, arXiv 2407.15831, have 0.95).
        top_k: of how many of the nearest they are drawn.
        options: of the encoder, such as `batch_tokens`.
    Returns: (question, answer, wrong answers ...); rows without so many are left out, with a warning.
    Raises: DataError without rows, and for one that is no pair of texts; InputError for a count below 1.
    """
    rows = pairs(rows)
    if not isinstance(encoder, TextEncoder):
        raise InputError(f"found {encoder!r:.60} for an encoder; expected what bert4x.embedder gives")
    for name, value, least in (("count", count, 1), ("top_k", top_k, 1), ("skip", skip, 0), ("seed", seed, 0)):
        check_count(name, value, least)
    if top_k < count:
        raise InputError(f"count = {count}, top_k = {top_k}: so many cannot be drawn of these; give a larger top_k")
    if isinstance(margin, bool) or not isinstance(margin, int | float) or margin != margin:
        raise InputError(f"margin = {margin!r}; expected a share of the right answer's similarity, such as 0.95")
    _, corpus = as_texts(corpus)
    texts = list(dict.fromkeys([*(answer for _, answer in rows), *corpus]))
    right = compared.right_answers([*rows, *((question, question) for question, _ in rows)])
    questions, vectors = list(right), encoder(texts, **options)
    number, draw = {text: i for i, text in enumerate(texts)}, np.random.default_rng(seed)
    prompt = "query" if "query" in encoder.prompts else None
    asked = encoder(questions, prompt, **options)
    found = encoder.search(asked, vectors, skip + top_k + max(map(len, right.values())))
    places, kept = {question: i for i, question in enumerate(questions)}, []
    for question, answer in rows:
        place = places[question]
        right_one = float(encoder.similarity(asked[[place]], vectors[[number[answer]]])[0, 0])
        limit = right_one - (1 - margin) * abs(right_one)  # of distances, similarities are below 0
        wrong = [one for one in found[place][skip:] if texts[one.index] not in right[question]]
        wrong = [texts[one.index] for one in wrong if one.score < limit][:top_k]
        if len(wrong) >= count:
            chosen = sorted(draw.choice(len(wrong), count, replace=False))
            kept.append((question, answer, *(wrong[i] for i in chosen)))
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} rows have less than {count} wrong answers, and are left out: give"
            " a larger corpus, or margin",
            stacklevel=2,
        )
    return kept


def pairs(rows: Sequence) -> list[tuple[str, str]]:
    """Rows that are a question and its answer. Raises: DataError"""
    if not isinstance(rows, Iterable):
        raise DataError(f"found {rows!r:.60}; expected rows (question, answer)")
    rows = list(rows)
    for number, row in enumerate(rows):
        whole = isinstance(row, list | tuple) and len(row) == 2
        if not whole or not all(isinstance(text, str) for text in row):
            raise DataError(f"row {number}: found {row!r:.80}; expected (question, answer)")
    if not rows:
        raise DataError("no rows; expected (question, answer)")
    return rows
