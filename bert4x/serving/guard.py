"""What stands before all routes: keys, the size of a request, the time it may take to arrive; counting, afterwards."""

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Collection

from bert4x.serving.limits import Limits
from bert4x.serving.metrics import Metrics
from bert4x.serving.problems import Problem, as_problem

LOG = logging.getLogger("bert4x.serving")
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/health", "/v2/health/live", "/v2/health/ready")  # need no key
MOST = 1 << 28  # bytes that are read of a request that is too large


class Guard:
    """An ASGI application around another: it reads the whole of a request, and refuses what is too large, too slow or
    without a key.
    """

    def __init__(self, app, limits: Limits, keys: Collection[str], metrics: Metrics):
        self.app, self.limits, self.metrics = app, limits, metrics
        self.keys = [hashed(key) for key in keys]
        self.held = 0  # bytes of bodies

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status, size = time.perf_counter(), None, 0

        async def sending(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                self.check_key(scope)
                body = await self.body(scope, receive)
            except Problem as problem:
                await refuse(problem, sending)
                return
            if body is None:  # the client is gone
                status = 499
                return
            size = len(body)
            await self.app(scope, replayed(body, receive), sending)
        except Exception as error:
            LOG.error("%s failed: %s", scope["path"], error, exc_info=error)
            if status is None:  # else the answer has begun
                await refuse(as_problem(error), sending)
        finally:
            self.held -= size
            self.metrics.answered(scope, status or 499, time.perf_counter() - begin)

    def check_key(self, scope) -> None:
        """Raises: Problem for a request without one of the keys, which are all compared, in the same time."""
        if not self.keys or (scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD")):
            return
        kind, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        given = hashed(key.strip().decode("latin-1"))
        if kind.lower() != b"bearer" or not sum([hmac.compare_digest(given, known) for known in self.keys]):
            raise Problem(401, "a key is needed: the header Authorization: Bearer KEY")

    async def body(self, scope, receive) -> bytes | None:
        """The body of a request, whose bytes are held from now on; None when the client goes away.

        Raises: Problem for one that is too large or slow.
        """
        read = bytearray()
        try:
            async with asyncio.timeout(self.limits.reading):
                whole = await self.collect(read, receive)
        except TimeoutError:
            self.held -= len(read)
            raise Problem(408, f"the request took longer than {self.limits.reading:g} s to arrive") from None
        except BaseException:
            self.held -= len(read)
            raise
        if not whole:
            self.held -= len(read)
        return bytes(read) if whole else None

    async def collect(self, read: bytearray, receive) -> bool:
        """Reads a body to its end, also what is not kept: one who still sends would not read an answer. False when the
        client goes away. Raises: Problem for one that is too large.
        """
        size, more, full = 0, True, False
        while more and size < MOST:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            more, part = message.get("more_body", False), message.get("body", b"")
            size += len(part)
            full = full or self.held + len(part) > self.limits.bodies
            if size <= self.limits.body and not full:
                read += part
                self.held += len(part)
        if size > self.limits.body:
            raise Problem(413, f"the request is too large; at most {self.limits.body:,} bytes are taken")
        if full:
            raise Problem(429, "too many large requests at once; try again later", retry_after=1)
        return True


def hashed(key: str) -> bytes:
    """Of one length, whatever the key."""
    return hashlib.sha256(key.encode()).digest()


def replayed(body: bytes, receive):
    """`receive` of a request that was read already."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again():
        return left.pop() if left else await receive()

    return again


async def refuse(problem: Problem, send) -> None:
    """Answers with an error, and closes the connection: more of the request may be under way."""
    headers = {"content-type": "application/json", "connection": "close", **problem.headers}
    body = json.dumps(problem.body).encode()
    headers["content-length"] = str(len(body))
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
