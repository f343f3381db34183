"""Synchronous bidirectional decoding (Zhou, Zhang, Zong, TACL 2019, arXiv 1905.04847)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from bert4x.errors import ConfigError, GenerationError
from bert4x.generation.batch import Prompt, read_prompts
from bert4x.generation.beam import BeamSearch
from bert4x.generation.detokenize import Detokenizer
from bert4x.generation.engine import Engine, check_model
from bert4x.generation.options import GenerationOptions, read_options
from bert4x.generation.output import nothing_allowed
from bert4x.generation.prompt import stop_id
from bert4x.generation.rules import NEVER
from bert4x.generation.score import score_all
from bert4x.generation.text import check, encode, only_tokens, read_text_options

MARKERS = ("[unused1]", "[unused2]"), ("[CLS]", "[MASK]")  # the first tokens of both directions, whichever there are


class Path(NamedTuple):
    """One decoded sequence, in reading order whatever its direction ("l2r" or "r2l").

    Shape: ids and log_probabilities (N,), without marker, with the stop token at the end it was written last (the
    beginning, for "r2l"); the score is that of the search, or after reranking the mean of both directions'
    """

    direction: str
    ids: np.ndarray
    log_probabilities: np.ndarray
    score: float


@dataclass(frozen=True)
class BidirectionalSearch(BeamSearch):
    """Beam search of two directions at once: the first half of the rows writes from left to right, the second from
    right to left. The finished sequences of both compete, and a prompt is done when neither can improve on the best K.

    Scores are log p / ((5 + length) / 6) ** penalty (Wu et al. 2016, arXiv 1609.08144), as published.
    """

    def penalty(self, length, given: dict[str, Any]):
        return ((5.0 + ops.cast(length, "float32")) / 6.0) ** given["length_penalty"]

    def can_improve(self, running, ended, ended_scores, length, given: dict[str, Any]):
        others = ops.roll(ended_scores, ended_scores.shape[0] // 2, axis=0)
        scores, _ = ops.top_k(ops.concatenate([ended_scores, others], axis=1), self.beams)
        return super().can_improve(running, scores > NEVER / 2, scores, length, given)


class BidirectionalDecoder:
    """Decodes with a model that writes in both directions at once, each seeing what the other has written.

    `model` is an encoder-decoder (`model="transformer"`) or a UniLM (`application="unilm"`), best one that was trained
    with `bidirectional=True`: any other decodes all the same, but has not learnt to. The two markers are the first
    tokens of the targets: names or ids; by default [unused1] and [unused2], or where there are none [CLS] and [MASK].

    Raises: GenerationError for a model of another kind, and for markers that the vocabulary lacks or that are the same.
    """

    def __init__(self, model, l2r: str | int | None = None, r2l: str | int | None = None):
        check_model(model)
        self.model = model
        try:
            self.make_engines()
        except ConfigError as error:
            raise GenerationError(str(error)) from error
        self.markers = markers(model, l2r, r2l)

    def make_engines(self) -> None:
        """What computes, in both directions and in one: for the variables that the model has now."""
        self.engine = Engine(self.model, self.model.builder.in_both_directions())
        self.alone = Engine(self.model, self.model.builder.in_one_direction())
        self.variables = [id(variable) for variable in self.model.variables]

    def generate(self, text: str | Sequence[str], num_beams: int = 4, rerank: bool = False, **options) -> str | list:
        """The best targets of sources: a str for one, a list for several; a list for every source with
        `num_return_sequences` above 1. `num_beams` is of both directions together; the default length penalty is 0.6.

        With `rerank=True` every sequence found is also scored by the direction that did not write it, and the mean of
        both scores decides: an addition to the published method, after Liu et al. (NAACL 2016), who rerank what two
        models wrote by the agreement of both.

        Raises: GenerationError before anything is computed.
        """
        found = self.paths(text, num_beams, rerank, **options)
        single = options.get("num_return_sequences", 1) == 1
        stops = options.get("stop_ids")
        texts = [[self.text(path, stops) for path in paths] for paths in found]
        texts = [several[0] for several in texts] if single else texts
        return texts[0] if isinstance(text, str) else texts

    def paths(self, text: str | Sequence[str], num_beams: int = 4, rerank: bool = False, **options) -> list[list[Path]]:
        """The same as decoded sequences with their scores along the way: for every source the best of both directions,
        best first, `num_return_sequences` or, by default, all `num_beams`.
        """
        settings = self.settings(read_text_options(self.model, self.defaults(num_beams, options)))
        texts = [text] if isinstance(text, str) else list(text)
        return self.decode([encode(self.model, one) for one in texts], settings, options, rerank)

    def generate_ids(self, ids, num_beams: int = 4, return_scores: bool = False, rerank: bool = False, **options):
        """`generate` without text: the best target of every source, in reading order, without the stop token.

        Shape: (B, S) or B lists -> (B, new) int32, `pad_id` (or 0) after the end[, (B,) float32 scores]
        """
        settings = self.settings(only_tokens(self.model, read_options(self.defaults(num_beams, options))))
        found = self.decode(read_prompts(ids, pad_id=settings.pad_id), settings, options, rerank)
        best = [paths[0] for paths in found]
        rows = [path.ids[~np.isin(path.ids, settings.stop_ids or ())] for path in best]
        new = np.full((len(rows), max(map(len, rows))), settings.pad_id or 0, "int32")
        for row, written in zip(new, rows, strict=True):
            row[: len(written)] = written
        return (new, np.array([path.score for path in best], "float32")) if return_scores else new

    def text(self, path: Path, stop_ids: Sequence[int] | None = None) -> str:
        """The text of a decoded sequence, without stop tokens: by default those of the vocabulary."""
        stops = read_text_options(self.model, {"stop_ids": stop_ids}).stop_ids
        writer = Detokenizer(self.model.tokenizer)
        return "".join([writer.add(i) for i in path.ids if i not in stops]) + writer.finish()

    def defaults(self, num_beams: int, options: dict[str, Any]) -> dict[str, Any]:
        """Options of a call, with the published length penalty. Raises: GenerationError."""
        if isinstance(num_beams, bool) or not isinstance(num_beams, int) or num_beams < 2 or num_beams % 2:
            raise GenerationError(f"num_beams is {num_beams!r}; expected an even number: half for each direction")
        return {"length_penalty": 0.6, "num_beams": num_beams} | options

    def settings(self, options: GenerationOptions) -> GenerationOptions:
        """The options of each direction. Raises: GenerationError."""
        if options.stop or options.sliding_window:
            raise GenerationError("two directions take no stop strings and no sliding window; give stop_ids")
        if options.start_id is not None:
            raise GenerationError("two directions begin with markers of their own; give l2r and r2l, not start_id")
        return dataclasses.replace(options, num_beams=options.num_beams // 2, num_return_sequences=1)

    def decode(
        self, prompts: Sequence[Prompt], settings: GenerationOptions, options: dict, rerank: bool = False
    ) -> list[list[Path]]:
        """The paths of every prompt, best first."""
        if self.variables != [id(variable) for variable in self.model.variables]:  # LoRA's adapters came or went
            self.make_engines()
        engine, count = self.engine, len(prompts)
        if not count:
            return []
        padded = [*prompts, *[prompts[-1]] * ((1 << (count - 1).bit_length()) - count)]
        rows = [self.begun(prompt, marker) for marker in self.markers for prompt in padded]
        check(engine, rows, settings)
        state = engine.search_beams(rows, settings, BidirectionalSearch)
        ids, scores, log_probabilities, ended = (
            ops.convert_to_numpy(x)
            for x in (state.ended_ids, state.ended_scores, state.ended_log_probabilities, state.ended)
        )
        found = []
        for row in range(count):
            paths = []
            for direction, at in (("l2r", row), ("r2l", row + len(padded))):
                for beam in np.flatnonzero(ended[at]):
                    length = int((ids[at, beam] >= 0).sum())
                    step = 1 if direction == "l2r" else -1
                    written = (values[at, beam, :length][::step] for values in (ids, log_probabilities))
                    paths.append(Path(direction, *written, float(scores[at, beam])))
            if not paths:
                raise nothing_allowed(row)
            found.append(paths)
        if rerank:
            found = self.reranked(prompts, found, settings)
        found = [sorted(paths, key=lambda path: -path.score) for paths in found]
        return [paths[: options.get("num_return_sequences", len(paths))] for paths in found]

    def reranked(
        self, prompts: Sequence[Prompt], found: list[list[Path]], settings: GenerationOptions
    ) -> list[list[Path]]:
        """The paths with the mean of their score and the score of the other direction, which reads them without
        interaction: were it to see the sequence from its other end too, it could read its future there.
        """
        rows, answers, places = [], [], []
        for i, (prompt, paths) in enumerate(zip(prompts, found, strict=True)):
            for marker, writer in zip(self.markers, ("r2l", "l2r"), strict=True):
                chosen = [at for at, path in enumerate(paths) if path.direction == writer]
                read = [turned(paths[at], settings.stop_ids or ()) for at in chosen]
                rows.append(self.begun(prompt, marker))
                answers.append(read + [np.zeros(0, "int32")] * (settings.num_beams - len(read)))
                places.append([(i, at) for at in chosen])
        scores = score_all(self.alone, rows, answers)
        found = [list(paths) for paths in found]
        for row, row_places in zip(scores, places, strict=True):
            for (i, at), other in zip(row_places, row, strict=False):
                path = found[i][at]
                penalty = ((5 + len(path.ids)) / 6) ** settings.length_penalty
                found[i][at] = path._replace(score=float(path.log_probabilities.sum() + other) / penalty / 2)
        return found

    def begun(self, prompt: Prompt, marker: int) -> Prompt:
        """A source whose target begins with the marker of a direction."""
        if self.engine.encodes:
            return Prompt(prompt.ids, prompt.segments, marker)
        return Prompt(np.append(prompt.ids, np.int32(marker)), np.append(prompt.segments, np.int32(1)))


def turned(path: Path, stop_ids: Sequence[int]) -> np.ndarray:
    """The tokens of a path in the order in which the other direction would write them. Shape: (N,)"""
    written = path.ids if path.direction == "l2r" else path.ids[::-1]
    if len(written) and written[-1] in stop_ids:
        return np.append(written[-2::-1], written[-1]) if len(written) > 1 else written
    return written[::-1]


def markers(model, l2r: str | int | None, r2l: str | int | None) -> tuple[int, int]:
    """The ids of the first tokens of both directions. Raises: GenerationError."""
    tokenizer = model.tokenizer
    if l2r is None or r2l is None:
        known = getattr(tokenizer, "token_dict", {})
        pairs = [pair for pair in MARKERS if all(token in known for token in pair)]
        if not pairs:
            raise GenerationError("give l2r and r2l, the ids of two tokens with which targets of both directions begin")
        l2r, r2l = (own if given is None else given for given, own in zip((l2r, r2l), pairs[0], strict=True))
    ids = tuple(stop_id(tokenizer, token) if isinstance(token, str) else int(token) for token in (l2r, r2l))
    if ids[0] == ids[1] or not all(0 <= i < model.config.vocab_size for i in ids):
        raise GenerationError(f"the markers have ids {ids}; expected two different ones of the vocabulary")
    return ids
