"""Servers to be measured beside `bert4x serve`, each in a process of its own: one request at a time, by a lock.

    python -m tests.benchmarks.serving_peers naive|transformers FOLDER
    python -m tests.benchmarks.serving_peers direct FOLDER CALLS < texts, one a line

They say where they serve, on a port that was free. Both answer /v1/embeddings and /v1/completions behind the same
FastAPI and uvicorn. `direct` prints the seconds of calls without any server.
"""

import json
import socket
import sys
import threading
import time
import warnings

import numpy as np


class Naive:
    """bert4x, called on one text."""

    def __init__(self, folder: str):
        import bert4x

        warnings.simplefilter("ignore")
        self.embed = bert4x.embedder(folder, pooling="mean")
        self.lm = bert4x.load(folder, "lm")

    def vector(self, text: str) -> list[float]:
        return self.embed(text).tolist()

    def write(self, text: str, length: int) -> str:
        return self.lm.generate(text, max_new_tokens=length)


class Transformers:
    """transformers' pipeline; the mean of its hidden states is the vector."""

    def __init__(self, folder: str):
        from transformers import AutoModel, AutoTokenizer, pipeline

        model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        self.pipeline = pipeline("feature-extraction", model=model, tokenizer=tokenizer)

    def vector(self, text: str) -> list[float]:
        return np.asarray(self.pipeline(text)[0], "float32").mean(0).tolist()

    def write(self, text: str, length: int) -> str:
        raise NotImplementedError("this pipeline gives vectors")


def serve(kind: str, folder: str) -> None:
    """Serves until it is ended."""
    import uvicorn
    from fastapi import FastAPI

    model, lock, app = {"naive": Naive, "transformers": Transformers}[kind](folder), threading.Lock(), FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(body: dict):
        with lock:
            return {"data": [{"embedding": model.vector(body["input"])}]}

    @app.post("/v1/completions")
    def completions(body: dict):
        with lock:
            return {"choices": [{"text": model.write(body["prompt"], body["max_tokens"])}]}

    @app.get("/health")
    def health():
        return {}

    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        print(f"serves at http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[sock])


def direct(folder: str, calls: int) -> None:
    """Prints the seconds of calls on texts, after one on each that does not count."""
    model, texts, times = Naive(folder), sys.stdin.read().split("\n"), []
    for text in texts:
        model.vector(text)
    for number in range(calls):
        begin = time.perf_counter()
        model.vector(texts[number % len(texts)])
        times.append(time.perf_counter() - begin)
    print(json.dumps(times))


if __name__ == "__main__":
    kind, folder, *calls = sys.argv[1:]
    direct(folder, int(*calls)) if kind == "direct" else serve(kind, folder)
