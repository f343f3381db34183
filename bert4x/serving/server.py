"""The process: its socket, connections that say nothing, and its end."""

import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from pathlib import Path

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bert4x.errors import InputError
from bert4x.serving.limits import Limits

LOG = logging.getLogger("bert4x.serving")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
CONNECTIONS = 4096  # open at once


def protocol(seconds: float) -> type[H11Protocol]:
    """Uvicorn's protocol, which closes a connection whose headers do not arrive in time."""

    class Impatient(H11Protocol):
        timer = None

        def connection_made(self, transport):
            super().connection_made(transport)
            self.watch()

        def data_received(self, data):
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc):
            self.forget()
            super().connection_lost(exc)

        def watch(self) -> None:
            """Counts the time while headers are incomplete."""
            unfinished = self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0])
            if not unfinished:
                self.forget()
            elif self.timer is None:
                self.timer = self.loop.call_later(seconds, self.transport.close)

        def forget(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Impatient


class Server(uvicorn.Server):
    """Ends with status 0 after SIGTERM and Ctrl-C, once what runs is answered; a second signal ends it at once."""

    @contextlib.contextmanager
    def capture_signals(self):
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def read_keys(path: str | Path | None) -> list[str]:
    """The keys of a file, one a line; what follows a # is for people. Raises: InputError where there is none."""
    if path is None:
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the keys cannot be read: {error}") from error
    keys = [key for line in lines if (key := line.partition("#")[0].strip())]
    if not keys:
        raise InputError(f"{path} holds no key; expected one a line")
    return keys


def check_open(host: str, keys: list[str], is_open: bool) -> None:
    """Raises: InputError for an address that others can reach, without a key and without permission."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not (loopback or keys or is_open):
        raise InputError(
            f"--host {host} can be reached by others; give --api-key-file, or --open to let all of them in"
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket at this address. Raises: InputError where there can be none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {host}, port {port}: {error}; choose another --port, or --host") from error


def run(app, sock: socket.socket, limits: Limits) -> int:
    """Serves until a signal comes; the exit status."""
    config = uvicorn.Config(
        app, http=protocol(limits.reading), ws="none", loop="asyncio", lifespan="on", log_level="warning",
        access_log=False, server_header=False, limit_concurrency=CONNECTIONS, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )  # fmt: skip
    Server(config).run(sockets=[sock])
    return 0


def say(text: str) -> None:
    """Tells the one who started it."""
    print(text, file=sys.stderr, flush=True)
