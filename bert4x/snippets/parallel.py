"""A function applied to many items by several processes or threads."""

import contextlib
import multiprocessing
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from multiprocessing import connection
from typing import Any

import numpy as np

from bert4x.errors import Bert4xError, InputError

# A fork has the function as it is, so that it may be a lambda or a function's own; elsewhere it is pickled.
START = "fork" if sys.platform == "linux" else "spawn"
PATIENCE = 5.0  # seconds for a process to end by itself


def parallel_apply(
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    workers: int,
    max_queue_size: int = 1000,
    callback: Callable[[Any], None] | None = None,
    dummy: bool = False,
    random_seeds: bool | Sequence[int | None] | None = True,
    unordered: bool = True,
) -> list[Any] | None:
    """A list of the results of `func` for each item, or with `callback`, which is called with each of them, None.

    Results come in the order in which they are ready; with `unordered=False` the list has the order of the items.
    The other arguments and errors are those of `parallel_apply_generator`.
    """
    results = parallel_apply_generator(func, iterable, workers, max_queue_size, dummy, random_seeds)
    if callback is not None:
        for _, result in results:
            callback(result)
        return None
    return [result for _, result in (results if unordered else sorted(results, key=lambda pair: pair[0]))]


def parallel_apply_generator(
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    workers: int,
    max_queue_size: int = 1000,
    dummy: bool = False,
    random_seeds: bool | Sequence[int | None] | None = True,
) -> Iterator[tuple[int, Any]]:
    """Yields (number of the item, result), in the order in which results are ready.

    An item is read from `iterable` when a worker is free, so `iterable` may be endless. An exception in a worker is
    raised here, as is the end of a worker that was killed; then, on Ctrl-C, and when the generator is closed, the
    workers are ended.

    On Linux workers are forks: begin before a model is built, as a fork of a process with many threads may hang.

    Args:
        max_queue_size: taken for the sake of bert4keras' scripts; as nothing is read ahead, no queue grows.
        dummy: threads instead of processes. They share NumPy's global generator, so `random_seeds` is not used.
        random_seeds: seeds of NumPy's global generator, one for each process; True for unforeseeable ones, None or
            False to leave it as it is, which in forks is the same for all.

    Raises: InputError for arguments out of range, items or functions that cannot be sent; Bert4xError for a worker that
        was killed, or a result that cannot be sent; what `func` raises.
    """
    if not isinstance(workers, int) or workers < 1 or max_queue_size < 1:
        raise InputError(f"{workers!r} workers, max_queue_size {max_queue_size!r}; expected 1 or more")
    seeds = [None] * workers if random_seeds is True else list(random_seeds or [])
    if 0 < len(seeds) < workers:
        raise InputError(f"{len(seeds)} random_seeds for {workers} workers; expected one for each")
    return _results(Threads(func, workers) if dummy else Processes(func, seeds), iterable, workers)


def _results(pool: "Threads | Processes", iterable: Iterable[Any], workers: int) -> Iterator[tuple[int, Any]]:
    with pool:
        for number, item in enumerate(iterable):
            finished = [pool.receive()] if len(pool.running) == workers else []
            pool.send(number, item)  # first, so that workers need not wait for the consumer of the results
            yield from finished
        while pool.running:
            yield pool.receive()


class Threads:
    """Threads that apply a function. They cannot be ended: each finishes its item."""

    def __init__(self, func: Callable, workers: int):
        self.func, self.running = func, {}
        self.pool = ThreadPoolExecutor(workers)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.pool.shutdown(wait=kind is None, cancel_futures=True)

    def send(self, number: int, item: Any) -> None:
        """Begins to compute an item."""
        self.running[self.pool.submit(self.func, item)] = number

    def receive(self) -> tuple[int, Any]:
        """The number and the result of an item that is done."""
        future = next(iter(wait(self.running, return_when=FIRST_COMPLETED).done))
        number = self.running.pop(future)
        try:
            return number, future.result()
        except Exception as error:
            error.add_note(f"item {number}, in a thread")
            raise


class Processes:
    """Processes that apply a function, each with a pipe of its own and one item at a time.

    So there is no lock that a killed one could hold, and never do both sides of a pipe wait for the other to read.
    """

    def __init__(self, func: Callable, seeds: Sequence[int | None]):
        self.func, self.seeds = func, seeds
        self.processes, self.running, self.idle = {}, {}, []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for pipe, process in self.processes.items():
            if kind is None:
                with contextlib.suppress(OSError):
                    pipe.send_bytes(b"")  # read as the end: closing is not enough where another pool holds a copy
            else:
                process.terminate()
            pipe.close()
        for process in self.processes.values():
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()

    def send(self, number: int, item: Any) -> None:
        """Sends an item to an idle process. Raises: InputError for what cannot be pickled."""
        if not self.idle:
            self._start()
        pipe = self.idle.pop()
        try:
            pipe.send(item)
        except OSError:
            raise self._ended(pipe, number) from None
        except Exception as error:
            raise InputError(
                f"item {number}, a {type(item).__name__}, cannot be sent to a process: {error}; "
                "send what pickle can copy, or use threads: dummy=True"
            ) from error
        self.running[pipe] = number

    def receive(self) -> tuple[int, Any]:
        """The number and the result of an item that is done."""
        pipe = connection.wait(self.running)[0]
        number = self.running.pop(pipe)
        try:
            answer, failure = pipe.recv()
        except (EOFError, OSError):
            raise self._ended(pipe, number) from None
        if failure:
            raise _exception(failure, number)
        self.idle.append(pipe)
        return number, answer

    def _start(self) -> None:
        context = multiprocessing.get_context(START)
        ours, theirs = context.Pipe()
        seed = self.seeds[len(self.processes)] if self.seeds else False
        inherited = [*self.processes, ours] if START == "fork" else []
        process = context.Process(target=_work, args=(self.func, theirs, seed, inherited), daemon=True)
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"func cannot be sent to a process: {error}; define it at the top of a module, or use dummy=True"
            ) from error
        finally:
            theirs.close()
        self.processes[ours] = process
        self.idle.append(ours)

    def _ended(self, pipe: connection.Connection, number: int) -> Bert4xError:
        process = self.processes[pipe]
        process.join(PATIENCE)
        return Bert4xError(f"the process of item {number} ended with code {process.exitcode} (-9: often out of memory)")


def _work(func: Callable, pipe: connection.Connection, seed: int | bool | None, inherited: Sequence) -> None:
    """What a process does: applies the function to what comes until the other side closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()  # or this one would keep itself and the others waiting after the main process is gone
    if seed is not False:
        np.random.seed(seed)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (func(item), None)
        except Exception as error:
            answer = (None, _failure(error))
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:
            kind = type(answer[0]).__name__
            pipe.send((None, _failure(Bert4xError(f"the result, a {kind}, cannot be sent from a process: {error}"))))


def _failure(error: Exception) -> tuple[bytes | None, str]:
    """An exception pickled, if that can be, and as text."""
    text = "".join(traceback.format_exception(error))
    try:
        return pickle.dumps(error), text
    except Exception:
        return None, text


def _exception(failure: tuple[bytes | None, str], number: int) -> Exception:
    pickled, text = failure
    try:
        error = pickle.loads(pickled)
    except Exception:  # not all can be made again from what they hold
        error = Bert4xError(text.strip().splitlines()[-1])
    error.add_note(f"item {number}, in a process:\n{text}")
    return error
