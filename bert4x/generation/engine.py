"""The decoding engine: prompts are read at once, then one step after the other; both are compiled."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt, as_batch, bucket
from bert4x.generation.beam import BeamSearch
from bert4x.generation.options import GenerationOptions
from bert4x.generation.output import Output, Token, outputs, with_ended
from bert4x.generation.sampling import uniforms
from bert4x.generation.search import Sampling

TEMPERATURES = 1e-20, 1e6  # beyond, scores overflow, or what is forbidden (rules.NEVER) becomes possible
CHUNK = 8  # steps between two looks at the text for stop strings


class Engine:
    """Decodes with one model, and keeps what was compiled for it.

    A search (`Sampling`, `BeamSearch`) says what is carried from step to step and how the next tokens are chosen from
    logits; the engine reads prompts and steps. Two functions are compiled for each kind of search and bucket of
    lengths: `start` reads the prompts and chooses the first tokens, `advance` goes on until every row has ended or a
    limit is reached: all the way for `decode`, one token for `stream`.
    """

    def __init__(self, model, builder=None):
        self.builder = model.builder if builder is None else builder
        self.encodes = self.builder.application == "seq2seq"  # the prompt is a source, the new tokens a target
        self.variables = list(model.variables)
        self.output = self.builder.output_table()
        self.head: tuple[Any, Any] = (None, None)  # the output layer's table, and its transposed copy
        self.compiled: dict[Any, tuple[Callable, ...]] = {}

    @property
    def ops(self):
        """What computes with this engine's tensors."""
        from keras import ops

        return ops

    def is_of(self, model) -> bool:
        """Whether the model has the same variables still; it has others once quantized, or with LoRA."""
        return [id(v) for v in self.variables] == [id(v) for v in model.variables]

    def compile(self, function: Callable, donate: tuple[int, ...] = ()) -> Callable:
        """A function of tensors, compiled for each combination of shapes (`bert4x.generation.compiled`)."""
        from bert4x.generation.compiled import CompiledByShape

        return CompiledByShape(function, self.variables, donate)

    def in_loop(self, function: Callable) -> Callable:
        """What a compiled loop repeats (`bert4x.generation.compiled`)."""
        from bert4x.generation.compiled import in_loop

        return in_loop(function)

    def new_cache(self, batch: int, length: int):
        """An empty cache with so many slots."""
        return self.builder.new_cache(batch, length)

    @property
    def traces(self) -> int:
        """How many functions have been compiled so far."""
        return sum(function.traces for pair in self.compiled.values() for function in pair)

    def functions(self, search) -> tuple[Callable, Callable]:
        """The compiled `start` and `advance` of a search."""
        if search not in self.compiled:
            start = functools.partial(self.start, search)
            advance = functools.partial(self.advance, self.in_loop(functools.partial(self.step, search)))
            self.compiled[search] = self.compile(start), self.compile(advance, donate=(0,))
        return self.compiled[search]

    # What is compiled.

    def start(self, search, prompt: dict[str, Any], given: dict[str, Any]):
        """The state after reading the prompts and choosing the first tokens."""
        return search.begin(*self.read_prompts(search, prompt, given), prompt, given)

    def read_prompts(self, search, prompt: dict[str, Any], given: dict[str, Any]):
        """The logits of the first tokens, (B, V), and a cache that has read the prompts and has room for the rest."""
        batch, length = prompt.get("target_ids", prompt["token_ids"]).shape
        cache = self.new_cache(batch, length + search.room)
        return self.logits(prompt, cache, 0, given.get("head"))

    def advance(self, step: Callable, state, given: dict[str, Any], limit):
        """The state after more of a search's steps, until there are `limit` new tokens or every row has ended."""

        def unfinished(state):
            return self.ops.logical_and(state.step < limit, self.ops.logical_not(self.ops.all(state.finished)))

        return self.ops.while_loop(unfinished, lambda state: [step(state, given)], [state])[0]

    def step(self, search, state, given: dict[str, Any]):
        """Reads the tokens that were chosen last and chooses the next: all that decoding is, in a loop or streamed."""
        return search.choose(*self.read(search, state, given), given)

    def read(self, search, state, given: dict[str, Any]):
        """The state with the tokens that were chosen last in its cache, and the logits of what follows.

        Shape: -> state, (R, V)
        """
        token = state.token[:, None]
        real = self.ops.ones_like(token, dtype="bool")
        if self.encodes:
            inputs = {"target_ids": token, "target_mask": self.seen(token)}
        else:
            inputs = {"token_ids": token, "padding_mask": real, "segment_ids": given["segments"][:, None]}
        inputs["position_ids"] = (given["lengths"] + state.step - 1)[:, None]
        prompt_length = state.ids.shape[1] - search.room
        logits, cache = self.logits(inputs, state.cache, prompt_length + state.step - 1, given.get("head"))
        return state._replace(cache=cache), logits

    def seen(self, target_ids):
        """Which tokens of a target are seen later on: a padding id is not, though it was written, as in a whole text.

        Shape: (B, T) -> (B, T) bool
        """
        pad_id = self.builder.config.pad_token_id
        return (
            self.ops.ones_like(target_ids, dtype="bool") if pad_id is None else self.ops.not_equal(target_ids, pad_id)
        )

    def logits(self, inputs: dict[str, Any], cache, index, head=None, every: bool = False):
        """Logits of the token after the last one, or after every one, in float32; and the cache.

        Shape: inputs (B, t) -> (B, V), or (B, t, V)
        """
        from bert4x.layers.embeddings import projecting_by

        with projecting_by(head):
            outputs, cache = self.builder.forward(inputs, cache, index, last=not every)
        outputs = outputs[-1] if isinstance(outputs, list) else outputs
        logits = self.ops.cast(outputs if every else outputs[:, -1], "float32")
        if self.builder.with_mlm in (True, "softmax"):  # bert4keras' builder gives probabilities
            logits = self.ops.log(self.ops.maximum(logits, 1e-30))
        return logits, cache

    def scalar(self, value: int):
        """A tensor, so that another value is not another function."""
        return self.ops.convert_to_tensor(value, "int32")

    # What calls it.

    def decode(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        random: np.ndarray | None = None,
        ended: Callable[[int, np.ndarray], bool] | None = None,
    ) -> Output:
        """Continues the prompts; several sequences of one prompt come one after the other.

        `random` replaces the random numbers of the seed; `ended` is asked from time to time whether a row, of this
        number and these new ids, has ended for reasons that no tensor shows.
        """
        search, prompt, given, rows = self.prepare(prompts, options, random)
        start, advance = self.functions(search)
        state, limit = start(prompt, given), options.max_new_tokens
        while ended is not None:
            state = state._replace(finished=self.ops.convert_to_tensor(with_ended(state, search.room, ended, rows)))
            done = int(state.step)
            if done >= limit or bool(self.ops.all(state.finished)):
                break
            state = advance(state, given, self.scalar(min(done + CHUNK, limit)))
        state = advance(state, given, self.scalar(limit)) if ended is None else state
        return outputs(search, state, rows, options)

    def stream(self, prompt: Prompt, options: GenerationOptions, random: np.ndarray | None = None) -> Iterator[Token]:
        """Continues one prompt, token by token, as far as tokens are allowed. The next token is computed before one is
        given, so that everything has been compiled before the first is seen, and they come evenly.
        """
        search, prompts, given, _ = self.prepare([prompt], options, random)
        start, advance = self.functions(search)
        state = start(prompts, given)
        for step in range(1, options.max_new_tokens + 1):
            if self.ops.convert_to_numpy(state.ids)[0, step - 1 - search.room] < 0:  # no token was allowed
                return
            log_probability = float(self.ops.convert_to_numpy(state.log_probabilities)[0, step - 1])
            token_id = int(self.ops.convert_to_numpy(state.token)[0])
            is_stop = token_id in (options.stop_ids or ())
            token = Token(token_id, log_probability, is_stop)
            if not is_stop and step < options.max_new_tokens:
                state = advance(state, given, self.scalar(step + 1))
            yield token
            if is_stop:
                return

    def search_beams(self, prompts: Sequence[Prompt], options: GenerationOptions, kind=BeamSearch):
        """The last state of a search with beams."""
        search, prompt, given, _ = self.prepare(prompts, options, kind=kind)
        start, advance = self.functions(search)
        return advance(start(prompt, given), given, self.scalar(options.max_new_tokens))

    def prepare(self, prompts: Sequence[Prompt], options: GenerationOptions, random=None, kind=BeamSearch):
        """The search, the tensors of the prompts, everything else that is given, and how many rows are real."""
        beams = options.num_beams
        copies = options.num_return_sequences if beams == 1 else 1
        rows = [prompt for prompt in prompts for _ in range(copies)]
        room = bucket(options.max_new_tokens)
        search = kind.of(options, room) if beams > 1 or kind is not BeamSearch else Sampling.of(options, room)
        batch = 1 << (len(rows) - 1).bit_length()  # the next power of 2
        if options.samples and random is None:
            random = uniforms(options.seed, [prompt.ids for prompt in prompts], copies, options.max_new_tokens)
        given = self.given(rows, batch, beams, room, options, random)
        arrays = as_batch(rows, batch, sources=self.encodes)
        to_tensors = functools.partial(map_values, self.ops.convert_to_tensor)
        return search, to_tensors(arrays), to_tensors(given) | self.output_matrix(), len(rows)

    def output_matrix(self) -> dict[str, Any]:
        """The transposed copy of the output layer's table, on JAX, whose arrays never change: a variable with new
        values has another one. Other backends change variables in place: there a copy
        could be out of date, and would gain less.
        """
        import keras

        if keras.backend.backend() != "jax" or self.output is None:
            return {}
        table = self.output._embeddings.value
        if self.head[0] is not table:
            self.head = table, self.output.transposed()
        return {} if self.head[1] is None else {"head": self.head[1]}

    def given(self, rows, batch: int, beams: int, room: int, options: GenerationOptions, random) -> dict[str, Any]:
        """What the searches and rules are given, as arrays, so that other values compile nothing."""
        vocabulary = self.builder.config.vocab_size
        unilm = self.builder.application == "unilm"
        lengths, segments = np.ones(batch, "int32"), np.zeros(batch, "int32")
        if not self.encodes:
            lengths[: len(rows)] = [len(row.ids) for row in rows]
        segments[: len(rows)] = [1 if unilm else row.segments[-1] for row in rows]
        numbers = np.zeros((batch, room), "float32")
        if random is not None:
            numbers[: len(rows), : random.shape[1]] = random[:, :room]
        suppressed = np.zeros(vocabulary if options.suppress_ids else 1, bool)
        suppressed[list(options.suppress_ids)] = True
        forced = np.full(room, -1, "int32")
        for position, token_id in options.forced_ids.items():
            forced[position] = token_id
        return {
            "real": np.arange(batch) < len(rows),
            "lengths": np.repeat(lengths, beams),
            "segments": np.repeat(segments, beams),
            "uniforms": numbers,
            "suppressed": suppressed,
            "forced_ids": forced,
            "stop_ids": np.array(options.stop_ids or (), "int32"),
            "max_new_tokens": np.int32(options.max_new_tokens),
            "min_new_tokens": np.int32(options.min_new_tokens),
            "repetition_penalty": np.float32(options.repetition_penalty),
            "length_penalty": np.float32(options.length_penalty),
            "temperature": np.float32(np.clip(options.temperature or 1, *TEMPERATURES)),
            "top_k": np.int32(options.top_k or 0),
            "top_p": np.float32(options.top_p or 1),
            "min_p": np.float32(options.min_p or 0),
        }


def engine_of(model) -> Engine:
    """The engine of a model; a new one when its variables are others than before (quantized, LoRA).

    Raises: GenerationError for a model that cannot generate, or that decodes in two directions at once.
    """
    check_model(model)
    if model.builder.bidirectional:
        raise GenerationError("this model decodes in two directions at once: use bert4x.BidirectionalDecoder(model)")
    if model.engine is None or not model.engine.is_of(model):
        model.engine = Engine(model)
    return model.engine


def check_model(model) -> None:
    """Raises: GenerationError for a model that cannot generate: it has no head, or sees the whole text at once."""
    builder = getattr(model, "builder", None)
    if builder is None or builder.has_conditions:
        raise GenerationError(
            "only models made by bert4x.load or build_transformer_model, with no inputs but ids, can generate; "
            "for others subclass bert4x.snippets.AutoRegressiveDecoder"
        )
    if builder.application == "encoder" and not builder.causal:
        raise GenerationError(
            f"application={builder.application!r} sees the whole text at once and cannot continue it; "
            "load the model with application='lm' or 'unilm'"
        )
    if builder.application == "decoder":
        raise GenerationError("this is a decoder without its encoder; load the whole model, application='seq2seq'")
    if not builder.with_mlm:
        raise GenerationError("this model gives hidden states, not logits; load it with application='lm' or 'unilm'")


def map_values(function: Callable, values: dict[str, Any]) -> dict[str, Any]:
    """A function of each value."""
    return {name: function(value) for name, value in values.items()}
