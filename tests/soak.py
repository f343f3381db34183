"""A server among clients that misbehave: `python -m tests.soak [--minutes 10] [--model FOLDER ...]`.

Clients send half requests, bytes that come slowly, wrong JSON, wrong UTF-8, bodies of 100 MB, and hang up in the middle
of streams and of batches; others, all the while, ask what the answer is known of. Wanted: no wrong answer, no error
that is the server's fault, no request that is stuck, and memory that stays.
"""

import argparse
import collections
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
TEXTS = [
    "今天天气很好",
    "床前明月光，疑是地上霜。",
    "我们去公园散步吧",
    "语言模型" * 9,
    "公园" * 40,
    "好",
]
PATIENCE = 120.0  # seconds after which a request is stuck
START = 300.0  # seconds until the server answers


class Soak:
    """Clients of one server, and what they saw."""

    def __init__(self, address: str, model: str):
        self.address, self.model = address, model
        host, port = address.removeprefix("http://").split(":")
        self.place = host, int(port)
        self.over = threading.Event()
        self.seen: collections.Counter = collections.Counter()
        self.wrong: list[str] = []
        self.expected: dict = {}

    # those who behave

    def ask(self, client: httpx.Client, number: int):
        """One of the questions, and what was answered."""
        text, kind = TEXTS[number % len(TEXTS)], number // len(TEXTS) % 3
        if kind == 0:
            answer = client.post("/v1/embeddings", json={"model": self.model, "input": text})
            return answer.status_code, [round(x, 3) for x in answer.json()["data"][0]["embedding"][:8]]
        body = {"model": self.model, "prompt": text, "max_tokens": 8}
        if kind == 1:
            answer = client.post("/v1/completions", json=body | {"temperature": 0.8, "seed": 4})
            return answer.status_code, answer.json()["choices"][0]["text"]
        with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
            lines = [line[6:] for line in answer.iter_lines() if line]
        assert lines[-1] == "[DONE]", lines[-1]
        return answer.status_code, "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])

    def learn(self) -> None:
        """What a server answers that is asked one thing after the other."""
        with httpx.Client(base_url=self.address, timeout=PATIENCE) as client:
            for number in range(3 * len(TEXTS)):
                self.expected[number] = self.ask(client, number)

    def good(self) -> None:
        """Asks and compares."""
        draw = random.Random(threading.get_ident())
        with httpx.Client(base_url=self.address, timeout=PATIENCE) as client:
            while not self.over.is_set():
                number = draw.randrange(3 * len(TEXTS))
                try:
                    found = self.ask(client, number)
                except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
                    self.wrong.append(f"stuck, cut short or refused: {error!r:.300}")
                    continue
                self.seen["answers"] += 1
                if not same(found, self.expected[number]):
                    self.wrong.append(f"{number}: {found} is not {self.expected[number]}")

    # those who do not

    def bad(self) -> None:
        """Misbehaves, in one way after the other."""
        draw = random.Random(threading.get_ident())
        ways = [self.half, self.slow, self.nonsense, self.large, self.hang_up, self.leave]
        while not self.over.is_set():
            way = draw.choice(ways)
            with contextlib.suppress(OSError, httpx.HTTPError):
                way(draw)
            self.seen[way.__name__] += 1

    def head(self, length: int) -> bytes:
        return (
            f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def half(self, draw) -> None:
        """Half a request, and silence."""
        whole = self.head(20) + b'{"inputs": "some"}  '
        with socket.create_connection(self.place, 30) as one:
            one.sendall(whole[: draw.randrange(1, len(whole))])
            one.settimeout(draw.choice([0.1, 30]))
            one.recv(1000)

    def slow(self, draw) -> None:
        """A byte at a time."""
        with socket.create_connection(self.place, 30) as one:
            for byte in self.head(20) + b'{"inputs": "some"}  ':
                one.send(bytes([byte]))
                time.sleep(draw.uniform(0, 0.1))
                if self.over.is_set():
                    return
            one.recv(1000)

    def nonsense(self, draw) -> None:
        """What is no JSON, no UTF-8, or no request of ours: 4xx, always."""
        body = draw.choice(
            [b"{", b"\xff\xfe", b"[" * 90_000, b'{"inputs": "\\ud800"}', b'{"inputs": 1e999}', b'{"inputs": []}',
             b'{"inputs": "x", "model": "/etc/passwd"}', draw.randbytes(500)]
        )  # fmt: skip
        path = draw.choice(
            ["/embed", "/v1/completions", "/v1/embeddings", "/predict", "/tasks/fill-mask", "/../x", "/v2/x"]
        )
        answer = httpx.post(self.address + path, content=body, headers={"Content-Type": "application/json"}, timeout=30)
        if not 400 <= answer.status_code < 500 or "Traceback" in answer.text:
            self.wrong.append(f"{path} {body[:40]!r}: {answer.status_code} {answer.text[:200]}")

    def large(self, draw) -> None:
        """100 MB."""
        piece = b"x" * (1 << 20)
        with socket.create_connection(self.place, 30) as one:
            one.sendall(self.head(100 << 20))
            for _ in range(draw.choice([3, 100])):
                one.sendall(piece)
            one.shutdown(socket.SHUT_WR)
            one.recv(1000)

    def hang_up(self, draw) -> None:
        """Goes away in the middle of a stream."""
        body = {"model": self.model, "prompt": draw.choice(TEXTS), "max_tokens": 200, "stream": True, "n": 4, "seed": 1}
        with httpx.stream("POST", f"{self.address}/v1/completions", json=body, timeout=30) as answer:
            for _, _ in zip(range(draw.randrange(1, 6)), answer.iter_lines(), strict=False):
                pass

    def leave(self, draw) -> None:
        """Asks much, and does not wait for it."""
        body = json.dumps({"inputs": [draw.choice(TEXTS) for _ in range(200)]}).encode()
        with socket.create_connection(self.place, 30) as one:
            one.sendall(self.head(len(body)) + body)
            time.sleep(draw.uniform(0, 0.3))


def same(found, expected) -> bool:
    """Vectors may differ by rounding."""
    if isinstance(expected[1], str):
        return found == expected
    return found[0] == expected[0] and all(abs(a - b) < 2e-3 for a, b in zip(found[1], expected[1], strict=True))


def memory(process: int) -> int:
    """MB that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) >> 10
    return 0


def descriptors(process: int) -> int:
    """Open files and sockets."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


@contextlib.contextmanager
def served(arguments: list[str]):
    """A server of its own: its process and address."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "bert4x", "serve", "--port", "0", *arguments]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stderr=file)
        until = time.monotonic() + START
        while "serves at" not in log.read_text():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                sys.exit(f"it does not serve after {START:g} s: {log.read_text()}")
            time.sleep(0.2)
        try:
            yield process, log.read_text().partition("serves at ")[2].split()[0]
        finally:
            process.terminate()
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                status = f"none {PATIENCE:g} s after SIGTERM"
            print(f"ended with status {status}")
            print(log.read_text()[-2000:])
            if status:
                sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--good", type=int, default=8, help="clients that behave")
    parser.add_argument("--bad", type=int, default=8, help="clients that do not")
    args = parser.parse_args()
    with served([]) as (process, address):
        soak = Soak(address, "bert4x-small")
        soak.learn()
        # Daemons: one that is stuck is told of at the end, and does not keep this process.
        threads = [threading.Thread(target=soak.good, daemon=True) for _ in range(args.good)]
        threads += [threading.Thread(target=soak.bad, daemon=True) for _ in range(args.bad)]
        for thread in threads:
            thread.start()
        begin, history = time.monotonic(), []
        while (passed := time.monotonic() - begin) < 60 * args.minutes:
            time.sleep(min(10, 60 * args.minutes / 6))
            history.append((memory(process.pid), descriptors(process.pid)))
            print(f"{passed:5.0f} s: {history[-1][0]} MB, {history[-1][1]} descriptors, {dict(soak.seen)}", flush=True)
        soak.over.set()
        until = time.monotonic() + PATIENCE + 10
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in threads)
        time.sleep(1)
        metrics = httpx.get(f"{address}/metrics", timeout=PATIENCE).text
        waiting = [line for line in metrics.splitlines() if line.startswith("bert4x_waiting_requests{")]
        faults = [line for line in metrics.splitlines() if 'status="5' in line]
        print("\n".join([*waiting, *faults]))
        print(f"{len(soak.wrong)} wrong, {stuck} stuck; descriptors at the end: {descriptors(process.pid)}")
        print("\n".join(soak.wrong[:10]))
        grown = history[-1][0] - history[len(history) // 3][0]
        print(f"memory grew by {grown} MB in the last two thirds")
        failed = soak.wrong or stuck or faults or not waiting[0].endswith(" 0.0") or grown > 100
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
