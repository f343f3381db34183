"""From a route to a model's thread and back: work that ends when its client goes away, or its time is over."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from bert4x.serving.batching import Job
from bert4x.serving.limits import Limits
from bert4x.serving.models import Models, Served
from bert4x.serving.problems import Problem, as_problem


class ClientGone(Exception):
    """The client has closed its connection."""


@dataclass
class Context:
    """What the routes of a server share."""

    models: Models
    limits: Limits
    metrics: Any = None
    pages: dict[str, Any] = field(default_factory=dict)

    async def read(self, function: Callable, *args):
        """What reads texts, in another thread: long ones would hold up all connections."""
        return await asyncio.to_thread(function, *args)

    async def answers(self, request: Request, job: Job) -> list:
        """The answers to a job. Raises: Problem after the time of a request; ClientGone."""
        work = asyncio.wrap_future(job.future)
        try:
            await self.first(request, work)
            return work.result()
        finally:
            job.cancel()

    async def first(self, request: Request, work: asyncio.Future) -> None:
        """Waits for some work of a request. Raises: ClientGone, Problem where it does not come first."""
        gone = asyncio.ensure_future(has_gone(request))
        try:
            done, _ = await asyncio.wait({work, gone}, timeout=self.left(request), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        if work in done:
            return
        if gone in done:
            raise ClientGone
        raise Problem(504, f"it took longer than {self.limits.seconds:g} s, the time of a request here")

    def left(self, request: Request) -> float:
        """Seconds until the time of a request is over."""
        now = asyncio.get_running_loop().time()
        if not hasattr(request.state, "deadline"):
            request.state.deadline = now + self.limits.seconds
        return max(0.0, request.state.deadline - now)

    async def compute(self, request: Request, served: Served, ability, inputs, truncate=False, parameters=None) -> list:
        """The answers of an ability to some inputs."""
        group = ability.group(parameters)
        items, lengths = await self.read(ability.read, inputs, self.limits, truncate)
        return await self.answers(request, served.worker.submit(group, items, lengths))

    async def vectors(self, request: Request, served: Served, ability, texts, truncate: bool, prompt: str | None):
        """The vectors of texts, to be given to `ability.finish`, and how many tokens each text has."""
        group = ability.group_of(prompt, self.limits)
        rows, lengths = await self.read(ability.read, texts, self.limits, truncate, prompt)
        return await self.answers(request, served.worker.submit(group, rows, lengths)), lengths

    async def streamed(self, request: Request, stream) -> AsyncIterator:
        """What a stream gives, as long as its client is there. Raises: as `answers`."""
        iterator = aiter(stream)
        try:
            while True:
                work = asyncio.ensure_future(anext(iterator, None))
                await self.first(request, work)
                if (found := work.result()) is None:
                    return
                yield found
        finally:
            stream.job.cancel()


async def has_gone(request: Request) -> None:
    """Returns when the client closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def events(chunks: AsyncIterator[dict]) -> StreamingResponse:
    """Server-sent events: one for each chunk, then [DONE]; of an error on the way, one that tells it, and no more."""

    async def lines():
        try:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            yield "data: [DONE]\n\n"
        except ClientGone:
            return
        except Exception as error:
            yield f"data: {json.dumps(as_problem(error).body, ensure_ascii=False)}\n\n"
        finally:
            with contextlib.suppress(RuntimeError):
                await chunks.aclose()

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
