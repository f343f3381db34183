"""Strings that end a text while it is decoded: what no tensor shows, since a string may begin and end within tokens.

One sequence a row is looked at every few steps, and cut. Beams are looked at before each choice: one that has written
a string has ended, and another goes on in its place. So their steps are compiled one by one, and not as a loop.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from bert4x.generation.batch import Prompt
from bert4x.generation.detokenize import Detokenizer
from bert4x.generation.engine import Engine
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output, outputs
from bert4x.generation.rules import possible
from bert4x.numpy_ops import ops_of


class StopWatch:
    """Tells whether a row has written a stop string; reads every token once."""

    def __init__(self, writer: Detokenizer):
        self.writer = writer
        self.rows: dict[int, tuple[Detokenizer, int]] = {}

    def __call__(self, row: int, ids: np.ndarray) -> bool:
        """Shape: (N,) all new ids of the row, -1 in empty slots"""
        writer, read = self.rows.get(row) or (self.writer.copy(), 0)
        new = ids[ids >= 0][read:]
        for token_id in new:
            writer.add(token_id)
        self.rows[row] = writer, read + len(new)
        return writer.stopped is not None


class BeamWatch:
    """Tells which candidates of a search with beams complete a stop string: the texts of all beams, as they go on.

    Args:
        writer: of a text without tokens.
        rows: prompts, padding of the batch included.
        beams: of each.
        skipped: tokens that are no part of a text, since they end it anyhow.
    """

    def __init__(self, writer: Detokenizer, rows: int, beams: int, skipped: Sequence[int]):
        self.skipped = frozenset(skipped)
        self.texts: list[list[Detokenizer | None]] = [[writer] * beams for _ in range(rows)]  # of the beams

    def stopped(self, found, finished: np.ndarray) -> np.ndarray:
        """Which candidates would complete a string.

        Shape: (B, M) of `beam.Candidates`, (B,) bool -> (B, M) bool
        """
        scores, beam, token = (ops_of(x).convert_to_numpy(x) for x in found)
        stopped = np.zeros(scores.shape, bool)
        self.following: list[list[Detokenizer | None]] = [[None] * scores.shape[1] for _ in self.texts]
        for row, place in np.argwhere(possible(scores) & ~finished[:, None]).tolist():
            if token[row, place] in self.skipped:
                continue
            text = self.texts[row][beam[row, place]].copy()
            text.add(token[row, place])
            stopped[row, place] = text.stopped is not None
            self.following[row][place] = text
        return stopped

    def follow(self, going_on: np.ndarray) -> None:
        """The texts of the candidates that have become the beams.

        Shape: (B, K) places among the candidates
        """
        self.texts = [[texts[i] for i in ours] for texts, ours in zip(self.following, going_on.tolist(), strict=True)]


def decode_beams(engine: Engine, prompts: Sequence[Prompt], options: GenerationOptions, writer: Detokenizer) -> Output:
    """`Engine.decode` with beams that a stop string ends as soon as it is written."""
    ops, (search, prompt, given, rows) = engine.ops, engine.prepare(prompts, options)
    first, following, take = steps(engine, search)
    state, found = first(prompt, given)
    watch = BeamWatch(writer, len(state.finished), options.num_beams, options.stop_ids or ())
    while True:
        stopped = watch.stopped(found, ops.convert_to_numpy(state.finished))
        state, going_on = take(state, found, ops.convert_to_tensor(stopped), given)
        if int(state.step) >= options.max_new_tokens or bool(ops.all(state.finished)):
            return outputs(search, state, rows, options)
        watch.follow(ops.convert_to_numpy(going_on))
        state, found = following(state, given)


def steps(engine: Engine, search) -> tuple[Callable, ...]:
    """What `decode_beams` repeats, compiled: candidates for the first tokens, those for others, and a choice."""
    key = "stop strings", search
    if key not in engine.compiled:

        def first(prompt, given):
            state, logits = search.begun(*engine.read_prompts(search, prompt, given), prompt, given)
            return state, search.rank(state, logits, given)

        def following(state, given):
            state, logits = engine.read(search, state, given)
            return state, search.rank(state, logits, given)

        def take(state, found, stopped, given):
            return search.take(state, found, given, stopped)

        donating = functools.partial(engine.compile, donate=(0,))
        engine.compiled[key] = engine.compile(first), donating(following), donating(take)
    return engine.compiled[key]
