"""One thread owns a model: what waits for it, and what is computed together."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

from bert4x.serving.limits import Limits
from bert4x.serving.problems import Problem, as_problem

LOG = logging.getLogger("bert4x.serving")
LOOKED_AT = 1024  # parts among which those of similar length are sought
LEAST = 1024  # tokens of a batch: with fewer, even a slow processor is not well used


@dataclass(frozen=True)
class Group:
    """What may be computed together: a function of a list of items, and what else it is given."""

    function: Callable
    options: tuple[Hashable, ...] = ()

    def __call__(self, items: Sequence) -> Sequence:
        return self.function(items, *self.options)


class Job:
    """The work of one request, for so many seconds: the future of its answers, one for each item."""

    def __init__(self, items: int, seconds: float):
        self.until = time.monotonic() + seconds
        self.answers: list[Any] = [None] * items
        self.left = items
        self.future: Future = Future()

    @property
    def over(self) -> bool:
        """Whether it needs no more work: it is done, has failed, its client went away, or its time is over."""
        return self.future.done() or time.monotonic() > self.until

    def cancel(self) -> None:
        """Its client went away, or its time is over: what is not computed yet never is."""
        self.future.cancel()

    def answer(self, number: int, answer) -> None:
        """One of its items is computed."""
        self.answers[number] = answer
        self.left -= 1
        if not self.left:
            with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        """It cannot be answered."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class Part:
    """An item of a job that waits. The one with the smallest `turn` is next."""

    job: Job
    number: int
    item: Any
    length: int
    group: Group
    turn: float


class Worker(threading.Thread):
    """The thread of a model. It computes what waits a batch at a time, and between two batches it writes texts for as
    long as the batch took: each has half of the thread, and neither holds up the other by more than a batch, or a step.

    Turns are those of fair queueing (Goyal et al. 1996, start-time fair queueing): the item of a request is due once
    the thread has computed as many tokens as stand before it in its own request, so that a request of one text passes
    one of a thousand.

    Args:
        decoder: what writes texts: `step()` does one step, `busy` says whether there is one, `stop(error)` ends all.
    """

    def __init__(self, name: str, limits: Limits, decoder=None):
        super().__init__(name=f"model {name}", daemon=True)
        self.limits, self.decoder = limits, decoder
        self.changed = threading.Condition()
        self.waiting: list[Part] = []
        self.jobs: set[Job] = set()
        self.clock = 0.0  # the turn of what was computed last
        self.crowded = False  # whether the last batch was of several requests
        self.speed = 1000.0  # tokens a second, of late
        self.stopping = False
        self.observe: Callable[[int, int], None] = lambda items, tokens: None  # is told of each batch

    # what other threads call

    def submit(self, group: Group, items: Sequence, lengths: Sequence[int]) -> Job:
        """Puts the items of a request in the queue. Raises: Problem where it is full, or the server stops."""
        job = Job(len(items), self.limits.seconds)
        if not items:
            job.future.set_result([])
            return job
        with self.changed:
            self.admit()
            turn = self.clock
            for number, (item, length) in enumerate(zip(items, lengths, strict=True)):
                self.waiting.append(Part(job, number, item, length, group, turn))
                turn += length
            self.enter(job)
        return job

    def write(self, job: Job, sequences: Sequence) -> None:
        """Gives sequences to the decoder, as one job. Raises: Problem as `submit`."""
        with self.changed:
            self.admit()
            self.decoder.add(sequences)
            self.enter(job)

    def admit(self) -> None:
        """Raises: Problem where one more request cannot be taken."""
        if self.stopping:
            raise Problem(503, "the server is shutting down")
        self.jobs = {job for job in self.jobs if not job.over}
        if len(self.jobs) >= self.limits.queue:
            tokens = sum(part.length for part in self.waiting)
            raise Problem(
                429,
                f"{len(self.jobs)} requests wait for this model, as many as are taken; try again later",
                retry_after=min(60, tokens / self.speed),
            )

    def enter(self, job: Job) -> None:
        self.jobs.add(job)
        self.changed.notify()

    def stop(self) -> None:
        """Ends the thread; what still waits is refused."""
        with self.changed:
            self.stopping = True
            self.changed.notify()

    # the thread

    def run(self) -> None:
        while self.rest():
            begin = time.monotonic()
            if parts := self.take():
                self.compute(parts)
            now = time.monotonic()
            while self.decoder is not None and self.decoder.busy and not self.stopping:
                self.decoder.step()
                if not self.waiting or time.monotonic() - now >= now - begin:
                    break
        gone = Problem(503, "the server is shutting down")
        for part in self.waiting:
            part.job.fail(gone)
        if self.decoder is not None:
            self.decoder.stop(gone)

    def rest(self) -> bool:
        """Waits until there is something to do; False when the thread is to end."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopping or self.waiting or (self.decoder and self.decoder.busy))
            if self.crowded and not self.stopping and not (self.decoder and self.decoder.busy):
                deadline = time.monotonic() + self.limits.wait
                while (left := deadline - time.monotonic()) > 0 and not self.is_full():
                    self.changed.wait(left)
            return not self.stopping

    @property
    def budget(self) -> float:
        """How many tokens a batch has, so that it takes no longer than others should wait, by the speed of late."""
        return min(self.limits.batch_tokens, max(LEAST, self.speed * self.limits.step))

    def is_full(self) -> bool:
        """Whether what waits fills a batch."""
        return sum(part.length for part in self.waiting) >= self.budget

    def take(self) -> list[Part]:
        """The next batch: the part whose turn it is, and those of its group that are nearest to it in length, as many
        as the budget of tokens allows.
        """
        with self.changed:
            self.waiting = [part for part in self.waiting if not part.job.over]
            if not self.waiting:
                return []
            first = min(self.waiting, key=lambda part: part.turn)
            alike = [part for part in self.waiting if part.group == first.group]
            alike = sorted(alike, key=lambda part: part.turn)[:LOOKED_AT]
            alike.sort(key=lambda part: (part is not first, abs(part.length - first.length)))
            chosen, longest, budget = [], 1, self.budget
            for part in alike:
                longest = max(longest, part.length)
                if chosen and longest * (len(chosen) + 1) > budget:
                    break
                chosen.append(part)
            power = 1 << (len(chosen).bit_length() - 1)
            if 2 * len(chosen) < 3 * power:  # rows are filled up to a power of 2 (`Task.predict`)
                chosen = chosen[:power]
            taken = {id(part) for part in chosen}
            self.waiting = [part for part in self.waiting if id(part) not in taken]
            self.clock = max(self.clock, first.turn)
            self.crowded = len({id(part.job) for part in chosen}) > 1
            return chosen

    def compute(self, parts: Sequence[Part]) -> None:
        """Answers a batch. Where it fails, each request is tried on its own, so that only the one that is to blame
        fails.
        """
        begin, tokens = time.monotonic(), sum(part.length for part in parts)
        try:
            answers = parts[0].group([part.item for part in parts])
            if len(answers) != len(parts):
                raise RuntimeError(f"{len(answers)} answers to {len(parts)} inputs")
        except Exception as error:
            jobs = {id(part.job): part.job for part in parts}
            if len(jobs) > 1:
                for number in jobs:
                    self.compute([part for part in parts if id(part.job) == number])
                return
            self.blame(parts[0].job, error)
            return
        self.observe(len(parts), tokens)
        self.speed = 0.8 * self.speed + 0.2 * tokens / max(time.monotonic() - begin, 1e-6)
        for part, answer in zip(parts, answers, strict=True):
            part.job.answer(part.number, answer)

    def blame(self, job: Job, error: Exception) -> None:
        """Fails a job; of an error that is not about its input, the log tells all."""
        problem = as_problem(error)
        if problem.status >= 500:
            LOG.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
        job.fail(problem)
