"""Decoding for requests that come and go: rows of one batch, a step at a time; a new request takes the row of one
that has ended.

A slot of the cache is not a position (`bert4x.models.cache`). So a prompt that comes later is read by itself, and its
keys and values are put into the slots just before the one that the batch writes next: from there on its row is like
the others. It fits where the batch has come so far that the prompt has room before, and has as many slots left as new
tokens are wanted. Orca (Yu et al. 2022, OSDI) has batches join between steps; here all rows share the number of the
step, so that nothing is compiled anew.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert4x.generation import sampling
from bert4x.generation.batch import Prompt, as_batch, bucket
from bert4x.generation.engine import TEMPERATURES, Engine, map_values
from bert4x.generation.grammar import Guide
from bert4x.generation.options import GenerationOptions
from bert4x.generation.search import Decoded, Sampling
from bert4x.models.cache import mapped
from bert4x.numpy_ops import ops_of

CANDIDATES = 20  # likeliest tokens that are told of each step, where they are asked for
BY_ROW = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1}  # and what stands for none


@dataclass(eq=False)
class Request:
    """A text to be written: of one row.

    Args:
        options: without beams, of one sequence.
        random: numbers in [0, 1) for each step (`sampling.uniforms`), where tokens are drawn. Shape: (N,)
        candidates: whether the likeliest tokens of each step are wanted.
        guide: where the options ask for a form: the text's own way through it.
    """

    prompt: Prompt
    options: GenerationOptions
    random: np.ndarray | None = None
    candidates: bool = False
    guide: Guide | None = None

    @property
    def shape(self) -> Hashable:
        """Sequences with the same can be rows of one batch."""
        o = self.options
        forced = tuple(sorted(o.forced_ids.items()))
        suppressed = None if self.guide else tuple(o.suppress_ids)  # a guide knows them
        return Sampling.of(o, 0), tuple(o.stop_ids or ()), suppressed, forced, o.min_new_tokens


@dataclass(frozen=True)
class Step:
    """A token of a request: its id, -1 where the options allow none; its log-probability; and the likeliest tokens
    with theirs, the likeliest first.
    """

    token_id: int
    log_probability: float
    candidates: tuple[tuple[int, float], ...] = ()


class SharedBatch:
    """Sequences of one `shape`, decoded together.

    Args:
        most: how many there can be at once, a power of 2.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], most: int = 32):
        self.engine, self.most, self.shape = engine, most, requests[0].shape
        self.room = bucket(2 * max(s.options.max_new_tokens for s in requests))  # as many again for those who join
        self.search = Sampling.of(requests[0].options, self.room)
        self.number = 1  # of tokens that the oldest row has
        self.state, self.given, self.told = self.started(requests)  # told: first tokens that were not given out yet
        self.requests: list[Request | None] = [*requests, *[None] * (self.rows - len(requests))]

    @property
    def rows(self) -> int:
        """Of the batch, used or free."""
        return len(self.given["lengths"])

    @property
    def live(self) -> list[int]:
        """The rows of requests that go on."""
        return [row for row, request in enumerate(self.requests) if request is not None]

    @property
    def slot(self) -> int:
        """The slot of the cache that is written next."""
        return self.state.ids.shape[1] - self.room + self.number - 1

    def accepts(self, request: Request, others: int = 0) -> bool:
        """Whether it can join now, beside `others` that join, too."""
        rules = self.search.rules
        if request.shape != self.shape or len(self.live) + others >= self.most:
            return False
        if self.engine.encodes or rules.minimum or rules.force:  # a source is in another cache; these rules count steps
            return False
        fits = request.options.max_new_tokens <= self.room - self.number + 1
        return fits and bucket(len(request.prompt.ids)) <= self.slot

    def join(self, requests: Sequence[Request]) -> None:
        """Takes requests that it accepts into free rows."""
        state, _, told = self.started(requests)
        self.resize(len(self.live) + len(requests))
        free = [row for row, request in enumerate(self.requests) if request is None]
        for number, (row, request) in enumerate(zip(free, requests, strict=False)):
            where = self.engine.ops.convert_to_tensor(np.array([number, row, self.number - 1], "int32"))
            self.state = self.compiled(joined)(where, self.state, state)
            self.put(self.given, row, request, self.number - 1)
            self.requests[row] = request
        self.told += told

    def leave(self, request: Request) -> None:
        """Frees the row of a request that has ended or was cancelled."""
        if request in self.requests:
            self.requests[self.requests.index(request)] = None
            self.told = [pair for pair in self.told if pair[0] is not request]

    def step(self) -> list[tuple[Request, Step]]:
        """The next token of every request; while there are some that have just begun, only the first of those."""
        if not self.told:
            self.resize(len(self.live))
            rows = self.live
            many = self.candidates([self.requests[row] for row in rows])
            for row in rows:
                self.forbid(self.given, row, self.requests[row])
            self.state, likeliest = self.compiled(step, many)(self.state, self.tensors(self.given))
            self.number += 1
            self.told = told(self.state, self.number, self.room, likeliest, {row: self.requests[row] for row in rows})
        found, self.told = self.told, []
        for request, one in found:
            if request.guide is not None:
                request.guide.follow(one.token_id)
        return found

    # tensors

    def started(self, requests: Sequence[Request]):
        """The state of new requests with their first tokens, what is given to each step, in NumPy, and the tokens."""
        batch = 1 << (len(requests) - 1).bit_length()
        prompts = [request.prompt for request in requests]
        given = self.engine.given(prompts, batch, 1, self.room, requests[0].options, None)
        for name, none in BY_ROW.items():
            given[name] = np.full((batch, 1), none, np.asarray(given[name]).dtype)
        if requests[0].guide is not None:
            given["suppressed"] = np.zeros((batch, self.engine.builder.config.vocab_size), bool)
        for row, request in enumerate(requests):
            self.put(given, row, request, 0)
        prompt = map_values(self.engine.ops.convert_to_tensor, as_batch(prompts, batch, sources=self.engine.encodes))
        state, likeliest = self.compiled(start, self.candidates(requests))(prompt, self.tensors(given))
        return state, given, told(state, 1, self.room, likeliest, dict(enumerate(requests)))

    def candidates(self, requests: Sequence[Request]) -> int:
        """How many of the likeliest tokens are found."""
        return min(CANDIDATES, self.engine.builder.config.vocab_size) if any(s.candidates for s in requests) else 0

    def put(self, given: dict[str, Any], row: int, request: Request, step: int) -> None:
        """What a request is given, in its row, its first step being that of this number."""
        for name, none in BY_ROW.items():
            value = getattr(request.options, name)
            value = none if value is None else value
            given[name][row] = np.clip(value, *TEMPERATURES) if name == "temperature" else value
        given["uniforms"][row] = 0
        if request.random is not None:
            given["uniforms"][row, step : step + len(request.random)] = request.random
        self.forbid(given, row, request)
        unilm = self.engine.builder.application == "unilm"
        given["segments"][row] = 1 if unilm else request.prompt.segments[-1]
        given["lengths"][row] = (1 if self.engine.encodes else len(request.prompt.ids)) - step

    def forbid(self, given: dict[str, Any], row: int, request: Request) -> None:
        """What its form does not allow now, in its row."""
        if request.guide is not None:
            given["suppressed"][row] = ~request.guide.allowed()

    def tensors(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is given, as tensors."""
        return map_values(self.engine.ops.convert_to_tensor, given) | self.engine.output_matrix()

    def compiled(self, function: Callable, *more) -> Callable:
        """A function below, compiled once for an engine and a search."""
        key = function, self.search, *more
        if key not in self.engine.compiled:
            partial = functools.partial(function, self.engine, self.search, *more)
            reused = {start: (), step: (0,), joined: (1,)}[function]  # the old state
            self.engine.compiled[key] = (self.engine.compile(partial, donate=reused),)
        return self.engine.compiled[key][0]

    def resize(self, wanted: int) -> None:
        """To as many rows as are wanted, a power of 2; to fewer only where that halves them twice."""
        rows = 1 << (max(wanted, 1) - 1).bit_length()
        if self.rows // 4 < rows <= self.rows:
            return
        kept = self.live
        order = np.array((kept + [0] * rows)[:rows], "int32")
        by_row = {
            name: getattr(self.state, name) for name in ("token", "finished", "ids", "log_probabilities", "cache")
        }
        take = self.engine.ops.take
        by_row = {name: mapped(lambda x: take(x, order, axis=0), values) for name, values in by_row.items()}
        self.state = self.state._replace(**by_row)
        by_row = ["real", "lengths", "segments", "uniforms", *BY_ROW]
        by_row += ["suppressed"] if np.ndim(self.given["suppressed"]) == 2 else []
        self.given = {name: x[order] if name in by_row else x for name, x in self.given.items()}
        self.requests = ([self.requests[row] for row in kept] + [None] * rows)[:rows]


def told(state, number: int, room: int, likeliest, requests: dict[int, Request]) -> list[tuple[Request, Step]]:
    """The tokens of this number, by rows."""
    ops = ops_of(state.ids)
    ids = ops.convert_to_numpy(state.ids)[:, number - 1 - room]
    log_probabilities = ops.convert_to_numpy(state.log_probabilities)[:, number - 1]
    values, places = (ops.convert_to_numpy(x).tolist() for x in likeliest) if likeliest else ([], [])
    found = []
    for row, request in requests.items():
        pairs = tuple(zip(places[row], values[row], strict=True)) if request.candidates else ()
        found.append((request, Step(int(ids[row]), float(log_probabilities[row]), pairs)))
    return found


# What is compiled.


def start(engine: Engine, search: Sampling, candidates: int, prompt: dict[str, Any], given: dict[str, Any]):
    """The state after the first tokens, and the likeliest of each row."""
    logits, cache = engine.read_prompts(search, prompt, given)
    return search.begin(logits, cache, prompt, given), likeliest(logits, candidates)


def step(engine: Engine, search: Sampling, candidates: int, state: Decoded, given: dict[str, Any]):
    """The state with one more token in each row, and the likeliest."""
    state, logits = engine.read(search, state, given)
    return search.choose(state, logits, given), likeliest(logits, candidates)


def likeliest(logits, many: int) -> tuple:
    """The log-probabilities and ids of the likeliest tokens. Shape: (B, V) -> 2 x (B, many), or () for none"""
    return sampling.highest(ops_of(logits).log_softmax(logits, axis=-1), many) if many else ()


def joined(engine: Engine, search: Sampling, where, state: Decoded, new: Decoded):
    """The state with a row of another that has one token: its prompt comes to stand before the slot that is next.

    Shape: where (3,): the row there, the row here, how many steps the state has made since its first
    """
    ops, (there, row, steps) = ops_of(where), (where[0], where[1], where[2])
    length = new.ids.shape[1] - search.room  # slots of the prompt
    begin = state.ids.shape[1] - search.room + steps - length

    def taken(x, slots: int):
        return ops.take(x, ops.reshape(there, (1,)), axis=0)[:, :slots]

    def placed(x, other, slots: int, nothing):
        whole = ops.full((1, x.shape[1]), nothing, x.dtype)
        return ops.slice_update(x, (row, 0), ops.slice_update(whole, (0, begin), taken(other, slots)))

    def cached(x, other):
        read = ops.take(other, ops.reshape(there, (1,)), axis=0)[:, :, :length]
        return ops.slice_update(x, (row, 0, begin, 0), read)

    old, own = state.cache, new.cache
    cache = old._replace(
        rank=placed(old.rank, own.rank, length, 0),
        valid=placed(old.valid, own.valid, length, False),
        positions=placed(old.positions, own.positions, length, 0),
        layers=tuple(tuple(map(cached, *pairs)) for pairs in zip(old.layers, own.layers, strict=True)),
    )
    first = taken(new.log_probabilities, 1)
    return state._replace(
        token=ops.slice_update(state.token, (row,), ops.take(new.token, ops.reshape(there, (1,)), axis=0)),
        finished=ops.slice_update(state.finished, (row,), ops.take(new.finished, ops.reshape(there, (1,)), axis=0)),
        ids=placed(state.ids, new.ids, length + 1, -1),
        log_probabilities=ops.slice_update(state.log_probabilities, (row, steps), first),
        cache=cache,
    )
