"""Texts that a model writes for several requests at once, piece by piece."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bert4x.generation.grammar import stuck
from bert4x.generation.shared import Request, SharedBatch, Step
from bert4x.generation.text import new_writer
from bert4x.serving.problems import as_problem

LOG = logging.getLogger("bert4x.serving")


@dataclass(frozen=True)
class Piece:
    """A part of a text, with the token that it came with (None where the options allow no more); `finish_reason` as in
    `bert4x.generation.Piece`, None but in the last.
    """

    text: str
    token: Step | None
    finish_reason: str | None


@dataclass(eq=False)
class Writing:
    """A text to be written. `tell` is called in the model's thread with each piece, or with the error that ends it.

    `gone` says whether anybody still waits for it.
    """

    request: Request
    tokenizer: object
    tell: Callable[[Piece | BaseException], None]
    gone: Callable[[], bool] = lambda: False
    tokens: int = 0
    said: str = ""  # the last of it
    writer: object = field(init=False)

    def __post_init__(self):
        self.writer = self.request.guide or new_writer(self.tokenizer, self.request.options)

    def add(self, step: Step) -> bool:
        """Tells of a token; whether the text has ended. Raises: GenerationError where its form can go nowhere."""
        options, guide = self.request.options, self.request.guide
        ended = guide is not None and guide.has_ended
        if ended and not guide.is_whole:
            raise stuck("this text", self.said)
        if step.token_id < 0:
            self.tell(Piece(self.writer.finish(), None, "forbidden"))
            return True
        self.tokens += 1
        is_stop = step.token_id in (options.stop_ids or ())
        text = "" if is_stop else self.writer.add(step.token_id)
        self.said = (self.said + text)[-40:]
        reason = "length" if self.tokens == options.max_new_tokens else None
        reason = "stop" if is_stop or ended or self.writer.stopped is not None else reason
        self.tell(Piece(text + (self.writer.finish() if reason else ""), step, reason))
        return reason is not None


class Decoder:
    """The batches in which texts are written: those of one shape share one, up to `rows`; who comes later joins where
    the cache allows it, and else begins another batch. Batches take turns.
    """

    def __init__(self, engine: Callable, rows: int):
        self.engine, self.rows = engine, 1 << (max(rows, 1).bit_length() - 1)
        self.coming: deque[Writing] = deque()  # from other threads
        self.waiting: list[Writing] = []
        self.batches: list[tuple[SharedBatch, dict[Request, Writing]]] = []

    @property
    def busy(self) -> bool:
        """Whether there is a step to do."""
        return bool(self.coming or self.waiting or self.batches)

    def add(self, writings: Sequence[Writing]) -> None:
        """Texts to be written, soon; any thread may call it."""
        self.coming.extend(writings)

    def step(self) -> None:
        """Takes those who wait into batches, as many as there is room for; then one step of the next batch."""
        self.seat()
        if not self.batches:
            return
        batch, writings = self.batches.pop(0)
        for request in [request for request, writing in writings.items() if writing.gone()]:
            batch.leave(request)
            del writings[request]
        if not writings:
            return
        try:
            steps = batch.step()
        except Exception as error:
            self.fail(writings.values(), error)
            return
        for request, step in steps:
            if self.has_ended(writings[request], step):
                batch.leave(request)
                del writings[request]
        if writings:
            self.batches.append((batch, writings))

    def has_ended(self, writing: Writing, step: Step) -> bool:
        """Tells of a token; whether the text has ended, or cannot go on."""
        try:
            return writing.add(step)
        except Exception as error:
            self.fail([writing], error)
            return True

    def seat(self) -> None:
        """Gives those who wait a row: in a batch that accepts them, else in a new one with others of their shape."""
        while self.coming:
            self.waiting.append(self.coming.popleft())
        waiting = [writing for writing in self.waiting if not writing.gone()]
        for batch, writings in self.batches:
            joining: list[Writing] = []
            for writing in waiting:
                if batch.accepts(writing.request, len(joining)):
                    joining.append(writing)
            if joining:
                waiting = [writing for writing in waiting if writing not in joining]
                self.join(batch, writings, joining)
        while waiting:
            shape = waiting[0].request.shape
            alike = [writing for writing in waiting if writing.request.shape == shape]
            if sum(len(writings) for _, writings in self.batches) + 1 > self.rows:
                break  # they wait until others have ended
            alike = alike[: self.rows]
            waiting = [writing for writing in waiting if writing not in alike]
            self.begin(alike)
        self.waiting = waiting

    def begin(self, writings: Sequence[Writing]) -> None:
        """Starts a batch; where that fails, each of them by itself."""
        try:
            batch = SharedBatch(self.engine(), [writing.request for writing in writings], self.rows)
        except Exception as error:
            self.alone(writings, error)
            return
        self.batches.append((batch, {writing.request: writing for writing in writings}))

    def join(self, batch: SharedBatch, here: dict[Request, Writing], writings: Sequence[Writing]) -> None:
        """Takes them into a running batch; where that fails, each begins by itself, and the batch goes on."""
        try:
            batch.join([writing.request for writing in writings])
        except Exception:
            for writing in writings:
                batch.leave(writing.request)
                self.begin([writing])
            return
        here.update({writing.request: writing for writing in writings})

    def alone(self, writings: Sequence[Writing], error: Exception) -> None:
        """Tries those that failed together one by one."""
        if len(writings) == 1:
            self.fail(writings, error)
            return
        for writing in writings:
            self.begin([writing])

    def fail(self, writings, error: BaseException) -> None:
        """Tells all of them the error."""
        problem = as_problem(error)
        if problem.status == 500:
            LOG.error("texts could not be written: %s", error, exc_info=error)
        for writing in list(writings):
            writing.tell(problem)

    def stop(self, error: BaseException) -> None:
        """Ends all."""
        for writings in [[*self.coming, *self.waiting], *(list(writings.values()) for _, writings in self.batches)]:
            self.fail(writings, error)
        self.coming.clear()
        self.waiting, self.batches = [], []
