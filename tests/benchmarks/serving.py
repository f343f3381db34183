"""`bert4x serve` on the loopback, beside servers that answer one request at a time: texts of mixed length.

    python -m tests.benchmarks serving [--clients 1 8 64] [--requests N] [--seconds N] [--flat N] [options of all]

The others are a loop that calls our model on one text, and transformers' pipeline, behind the same FastAPI and uvicorn
(tests/benchmarks/serving_peers.py). All read the same random BERT-base, on the first backend that is given; vectors are
compared. `--flat` requests of a toy follow, for memory.
"""

import concurrent.futures
import contextlib
import functools
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import common, report
from tests.benchmarks.checkpoints import bert, prepared

LENGTH = 16  # tokens of a completion
PATIENCE = 300  # seconds of a request, and START of a server until it answers
START = 300
SECONDS = {"toy": 4, "small": 20, "full": 60}  # of a measurement, at most


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, help="of each measurement (default: by size)")
    parser.add_argument("--seconds", type=float, help="of each measurement, at most (default: by size)")
    parser.add_argument("--flat", type=int, help="requests after which memory is compared (default: by size)")
    return parser


def texts_of(vocabulary: int, count: int) -> list[str]:
    """Texts of mixed length, most of them short: the logarithm of the length is normal."""
    draw = np.random.default_rng(0)
    lengths = np.clip(np.exp(draw.normal(3.4, 0.8, count)), 4, 250).astype(int)
    return ["".join(chr(0x4E00 + i) for i in draw.integers(0, vocabulary - 110, n)) for n in lengths]


@contextlib.contextmanager
def running(command: list[str], backend: str):
    """A server on a port of its own choice, once it has said which: its process and the port.

    Raises: RuntimeError where it ends, or does not begin in time.
    """
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(common.ROOT)}
    with tempfile.NamedTemporaryFile() as log:
        until = START + time.monotonic()
        process = subprocess.Popen(command, cwd=common.ROOT, env=environment, stderr=log)
        try:
            while not (said := re.search(r"serves at http://[\d.]+:(\d+)", Path(log.name).read_text(errors="replace"))):
                if process.poll() is not None or time.monotonic() > until:
                    state = "did not begin" if process.poll() is None else "ended"
                    raise RuntimeError(f"{' '.join(command)} {state}: {Path(log.name).read_text()[-2000:]}")
                time.sleep(0.1)
            yield process, int(said[1])
        finally:
            ended(process)


def ended(process) -> None:
    """Ends a process that this one started, by force where it does not listen."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)


def embedding(text: str) -> tuple[str, dict]:
    return "/v1/embeddings", {"input": text, "model": "bert"}


def completion(text: str) -> tuple[str, dict]:
    return "/v1/completions", {"prompt": text[:60], "model": "bert", "max_tokens": LENGTH}


def load(port: int, make, texts: list[str], clients: int, seconds: float) -> tuple[list[float], float, list]:
    """Seconds of each request, of all of them, and what was answered; after so many seconds no more are sent, so that
    a slow server has fewer, and what was not asked is None.

    Raises: RuntimeError for an answer that is an error, OSError where none comes for `PATIENCE` seconds.
    """
    queue, found, failed = itertools.count(), [None] * len(texts), threading.Event()
    times, begin = [], time.perf_counter()

    def client() -> None:
        with contextlib.closing(connection(port)) as one:
            while (number := next(queue)) < len(texts) and not failed.is_set():
                if (sent := time.perf_counter()) - begin > seconds and times:
                    return
                path, body = make(texts[number])
                one.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = one.getresponse()
                content = answer.read()
                times.append(time.perf_counter() - sent)
                if answer.status != 200:
                    raise RuntimeError(f"{path} at port {port}: {answer.status} {content[:500]!r}")
                found[number] = json.loads(content)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        waiting = [pool.submit(client) for _ in range(clients)]
        for done in concurrent.futures.as_completed(waiting):
            if done.exception():
                failed.set()
    for done in waiting:
        done.result()
    return times, time.perf_counter() - begin, found


def memory(process) -> float:
    """MB that a process holds."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def commands(folder: Path, against: list[str]) -> dict[str, list[str]]:
    """Who serves -> the command, but for the port."""
    peer = [sys.executable, "-m", "tests.benchmarks.serving_peers"]
    found = {
        "bert4x serve": [sys.executable, "-m", "bert4x", "serve", f"bert={folder}", *UNHURRIED],
        "naive loop": [*peer, "naive", str(folder)],
    }
    if "transformers" in against and common.installed("transformers"):
        found["transformers' pipeline"] = [*peer, "transformers", str(folder)]
    return found


def measure(args) -> report.Report:
    backend, config = args.backend[0], bert(args.size)
    folder = prepared(args.folder, f"bert-{args.size}", config)
    count = args.requests or {"toy": 40, "small": 192, "full": 192}[args.size]
    texts, seconds = texts_of(config.vocab_size, count), args.seconds or SECONDS[args.size]
    figures: dict[tuple, list] = {}
    vectors, problems = {}, []
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, command in commands(folder, args.against).items():
            servers[name] = stack.enter_context(running(command, backend))[1]
        for _ in range(args.repeats + 1):  # the first does not count: it compiles
            for (what, make), clients, name in itertools.product(MAKERS.items(), args.clients, servers):
                if what == "completions" and name.startswith("transformers"):
                    continue
                some = texts if clients > 1 else texts[: max(8, count // 8)]
                times, taken, found = load(servers[name], make, some, clients, seconds)
                figures.setdefault((what, clients, name), []).append((times, len(times) / taken))
                if what == "embeddings" and clients == args.clients[-1]:
                    vectors[name] = [one and one["data"][0]["embedding"] for one in found]
    for name, values in vectors.items():
        both = [pair for pair in zip(values, vectors["naive loop"], strict=True) if None not in pair]
        difference = float(np.abs(np.subtract(*zip(*both, strict=True))).max())
        problems.append(f"{name}: vectors differ from the naive loop's by at most {difference:.1e}")
        if difference > 1e-3:
            raise RuntimeError(problems[-1])
    kept = {key: rounds[1:] for key, rounds in figures.items()}
    rate = {key: common.median(r for _, r in rounds) for key, rounds in kept.items()}
    latency = {key: common.median(t for times, _ in rounds for t in times) for key, rounds in kept.items()}
    direct = direct_latency(folder, texts[: max(8, count // 8)], backend)
    rows = [
        (what, str(clients), name, f"{rate[what, clients, name]:.1f}", f"{1e3 * latency[what, clients, name]:.1f}")
        for what, clients, name in rate
    ]
    tables = [
        report.Table("", ("what", "clients", "who", "requests a second", "median latency, ms"), rows),
        report.wanted_rows([*targets(args, rate, latency, direct), flat(args, backend)]),
    ]
    bars = {
        f"embeddings, {n} clients": {who: kept["embeddings", n, who][0][0] for who in servers} for n in args.clients
    }
    title = (
        f"Serving BERT-base on the loopback ({args.size}, {backend}, up to {count} texts of mixed length, {seconds} s)"
    )
    return report.Report("serving", title, tables, bars, problems=problems)


UNHURRIED = ["--port", "0", "--max-seconds", str(PATIENCE)]
MAKERS = {"embeddings": embedding, "completions": completion}


def direct_latency(folder: Path, texts: list[str], backend: str) -> float:
    """The median of calls without a server."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(common.ROOT)}
    command = [sys.executable, "-m", "tests.benchmarks.serving_peers", "direct", str(folder), str(4 * len(texts))]
    done = subprocess.run(
        command, input="\n".join(texts), env=environment, cwd=common.ROOT, capture_output=True, text=True, check=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    return common.median(json.loads(done.stdout.splitlines()[-1]))


def targets(args, rate: dict, latency: dict, direct: float) -> list[tuple]:
    """Rows of what is wanted."""
    most, rows = max(args.clients), []
    for what in MAKERS:
        times = rate[what, most, "bert4x serve"] / rate[what, most, "naive loop"]
        rows.append((f"{what}: times the naive loop, {most} clients", *report.verdict(times, least=3.0)))
    if ("embeddings", most, "transformers' pipeline") in rate:
        times = rate["embeddings", most, "bert4x serve"] / rate["embeddings", most, "transformers' pipeline"]
        rows.append((f"embeddings: times transformers' pipeline, {most} clients", *report.verdict(times, least=1.0)))
    if 1 in args.clients:
        slower = latency["embeddings", 1, "bert4x serve"] / direct
        rows.append(("embeddings: median latency at 1 client against a direct call", *report.verdict(slower, most=1.1)))
    return rows


def flat(args, backend: str) -> tuple[str, str, str]:
    """How much a server of a toy grows over many requests, after the first fifth of them."""
    count = args.flat or {"toy": 100, "small": 2000, "full": 10_000}[args.size]
    folder, seconds = prepared(args.folder, "bert-toy", bert("toy")), 10 * (args.seconds or SECONDS[args.size])
    texts = texts_of(bert("toy").vocab_size, count)
    command = [sys.executable, "-m", "bert4x", "serve", f"bert={folder}", *UNHURRIED]
    with running(command, backend) as (process, port):
        ask = functools.partial(load, port, embedding, clients=8, seconds=seconds)
        done = len(ask(texts[: count // 5])[0])
        before = memory(process)
        done += len(ask(texts[count // 5 :])[0])
        grown = memory(process) / before
    return (f"memory after {done:,} requests against that after a fifth", *report.verdict(grown, most=1.05))


if __name__ == "__main__":
    common.main(arguments(), measure)
