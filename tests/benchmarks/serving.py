"""`bert4x serve` on the loopback, beside servers that answer one request at a time: texts of mixed length.

    python -m tests.benchmarks serving [--clients 1 8 64] [--requests N] [--flat N] [options of all cases]

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
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import common, report
from tests.benchmarks.checkpoints import bert, prepared

LENGTH = 16  # tokens of a completion
PATIENCE = 600


def arguments():
    parser = common.options(__doc__)
    parser.set_defaults(repeats=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, help="of each measurement (default: by size)")
    parser.add_argument("--flat", type=int, help="requests after which memory is compared (default: by size)")
    return parser


def texts_of(vocabulary: int, count: int) -> list[str]:
    """Texts of mixed length, most of them short: the logarithm of the length is normal."""
    draw = np.random.default_rng(0)
    lengths = np.clip(np.exp(draw.normal(3.4, 0.8, count)), 4, 250).astype(int)
    return ["".join(chr(0x4E00 + i) for i in draw.integers(0, vocabulary - 110, n)) for n in lengths]


@contextlib.contextmanager
def running(command: list[str], port: int, backend: str):
    """A server, once it answers: its process."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(common.ROOT)}
    log = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(command, cwd=common.ROOT, env=environment, stderr=log)
    try:
        for _ in range(10 * PATIENCE):
            with contextlib.suppress(OSError), contextlib.closing(connection(port)) as client:
                client.request("GET", "/health")
                if client.getresponse().status == 200:
                    break
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)}: {log.read().decode(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def embedding(text: str) -> tuple[str, dict]:
    return "/v1/embeddings", {"input": text, "model": "bert"}


def completion(text: str) -> tuple[str, dict]:
    return "/v1/completions", {"prompt": text[:60], "model": "bert", "max_tokens": LENGTH}


def load(port: int, make, texts: list[str], clients: int) -> tuple[list[float], float, list]:
    """Seconds of each request, of all of them, and what was answered."""
    queue, found = itertools.count(), [None] * len(texts)
    times = [0.0] * len(texts)

    def client() -> None:
        with contextlib.closing(connection(port)) as one:
            while (number := next(queue)) < len(texts):
                path, body = make(texts[number])
                begin = time.perf_counter()
                one.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = one.getresponse()
                content = answer.read()
                times[number] = time.perf_counter() - begin
                if answer.status != 200:
                    raise RuntimeError(f"{path} at port {port}: {answer.status} {content[:500]!r}")
                found[number] = json.loads(content)

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
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
        "bert4x serve": [sys.executable, "-m", "bert4x", "serve", f"bert={folder}", "--port"],
        "naive loop": [*peer, "naive", str(folder)],
    }
    if "transformers" in against and common.installed("transformers"):
        found["transformers' pipeline"] = [*peer, "transformers", str(folder)]
    return found


def measure(args) -> report.Report:
    backend, config = args.backend[0], bert(args.size)
    folder = prepared(args.folder, f"bert-{args.size}", config)
    count = args.requests or {"toy": 40, "small": 192, "full": 192}[args.size]
    texts = texts_of(config.vocab_size, count)
    figures: dict[tuple, list] = {}
    vectors, problems = {}, []
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, command in commands(folder, args.against).items():
            port = free_port()
            servers[name] = port, stack.enter_context(running([*command, str(port)], port, backend))
        for _ in range(args.repeats + 1):  # the first does not count: it compiles
            for (what, make), clients, name in itertools.product(MAKERS.items(), args.clients, servers):
                if what == "completions" and name.startswith("transformers"):
                    continue
                some = texts if clients > 1 else texts[: max(8, count // 8)]
                times, seconds, found = load(servers[name][0], make, some, clients)
                figures.setdefault((what, clients, name), []).append((times, len(some) / seconds))
                if what == "embeddings" and clients == args.clients[-1]:
                    vectors[name] = np.array([one["data"][0]["embedding"] for one in found])
    for name, values in vectors.items():
        difference = float(np.abs(values - vectors["naive loop"]).max())
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
    title = f"Serving BERT-base on the loopback ({args.size}, {backend}, {count} texts of mixed length)"
    return report.Report("serving", title, tables, bars, problems=problems)


MAKERS = {"embeddings": embedding, "completions": completion}


def direct_latency(folder: Path, texts: list[str], backend: str) -> float:
    """The median of calls without a server."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(common.ROOT)}
    command = [sys.executable, "-m", "tests.benchmarks.serving_peers", "direct", str(folder), str(4 * len(texts))]
    done = subprocess.run(
        command, input="\n".join(texts), env=environment, cwd=common.ROOT, capture_output=True, text=True, check=True
    )
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
    folder, port = prepared(args.folder, "bert-toy", bert("toy")), free_port()
    texts = texts_of(bert("toy").vocab_size, count)
    command = [sys.executable, "-m", "bert4x", "serve", f"bert={folder}", "--port", str(port)]
    with running(command, port, backend) as process:
        ask = functools.partial(load, port, embedding, clients=8)
        ask(texts[: count // 5])
        before = memory(process)
        ask(texts[count // 5 :])
        grown = memory(process) / before
    return (f"memory after {count:,} requests against that after a fifth", *report.verdict(grown, most=1.05))


if __name__ == "__main__":
    common.main(arguments(), measure)
