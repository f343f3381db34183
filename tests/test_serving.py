"""`bert4x serve`: one server of tiny models, asked by the official client and by bare sockets."""

import asyncio
import concurrent.futures
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import httpx
import keras
import numpy as np
import pytest
from conftest import VOCABULARY, refused, write_tiny
from documents import ROOT

import bert4x
from bert4x.errors import InputError
from bert4x.serving import server
from bert4x.serving.abilities import Ability
from bert4x.serving.app import create_app
from bert4x.serving.batching import Group, Worker
from bert4x.serving.limits import Limits
from bert4x.serving.models import Models, Served, open_models
from bert4x.serving.problems import Problem
from bert4x.serving.transcript import ChatForm
from bert4x.tasks.reading_comprehension import Answer
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification

openai = pytest.importorskip("openai")
TEXTS = ["今天天气很好", "床前明月光，疑是地上霜。", "我们去公园散步吧"]
LIMITS = Limits(body=20_000, texts=40, tokens=2000, queue=24, seconds=60, reading=1.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models: a pretrained one, a judge of pairs, and a finder of entities."""
    base = tmp_path_factory.mktemp("served")
    write_tiny(base / "small", max_position=64, num_hidden_layers=1)
    backbone = bert4x.load(base / "small")
    TextClassification(backbone, ["坏", "好"], maxlen=32).save(base / "judge")
    TokenClassification(backbone, ["人", "地"], method="softmax", maxlen=32).save(base / "finder")
    return base


@pytest.fixture(scope="module")
def models(folders):
    return open_models([f"{name}={folders / name}" for name in ("small", "judge", "finder")], LIMITS)


@pytest.fixture(scope="module")
def able(models):
    """`able(name, ability)`: what is served, to be called without a server."""
    return lambda name, ability: models.served[name].abilities[ability]


@pytest.fixture(scope="module")
def lm(able):
    return able("small", "generation").model


@pytest.fixture(scope="module")
def address(models):
    """Where they are served, by this process."""
    with running(create_app(models, LIMITS), LIMITS) as address:
        yield address


@contextlib.contextmanager
def running(app, limits):
    """Serves an application in another thread."""
    import uvicorn

    with server.listening("127.0.0.1", 0) as sock:
        config = uvicorn.Config(app, http=server.protocol(limits.reading), ws="none", lifespan="on", log_level="error")
        served = uvicorn.Server(config)
        served.install_signal_handlers = lambda: None
        thread = threading.Thread(target=lambda: asyncio.run(served.serve(sockets=[sock])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            served.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def official(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_models_say_what_they_can_do(official, client):
    listed = {model.id: model for model in official.models.list()}
    assert set(listed) == {"small", "judge", "finder"}
    assert official.models.retrieve("small").id == "small"
    assert listed["small"].abilities == ["fill-mask", "generation", "embeddings", "attention"]
    assert (listed["small"].layers, listed["small"].heads) == (1, 4)
    assert listed["judge"].abilities == ["classes", "rerank"]
    assert client.get("/info").json()["models"][2]["labels"] == ["人", "地"]
    assert client.get("/health").status_code == client.get("/v2/health/ready").status_code == 200


def test_embeddings(official, client, able):
    expected = able("small", "embeddings").task(TEXTS)
    for form in ({"encoding_format": "float"}, {}):  # by itself the client asks for base64
        found = official.embeddings.create(model="small", input=TEXTS, **form)
        vectors = np.array([one.embedding for one in found.data])
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
    assert found.usage.prompt_tokens == sum(len(text) + 2 for text in TEXTS)
    cut = official.embeddings.create(model="small", input=TEXTS[0], dimensions=3).data[0].embedding
    np.testing.assert_allclose(cut, expected[0, :3], atol=2e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(client.post("/embed", json={"inputs": TEXTS}).json(), unit, atol=2e-5)
    compared = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}}
    np.testing.assert_allclose(client.post("/similarity", json=compared).json(), unit[1:] @ unit[0], atol=2e-5)
    asked = {"inputs": [{"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}]}
    asked["parameters"] = {"task": "embeddings"}
    (output,) = client.post("/v2/models/small/infer", json=asked).json()["outputs"]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, atol=2e-5)


def test_completions_are_those_of_generate(official, lm):
    found = official.completions.create(model="small", prompt=TEXTS[:2], max_tokens=4, logprobs=2)
    assert [choice.text for choice in found.choices] == lm.generate(TEXTS[:2], max_new_tokens=4)
    logprobs = found.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == found.usage.completion_tokens // 2
    assert max(logprobs.top_logprobs[0].values()) == pytest.approx(logprobs.token_logprobs[0], abs=1e-5)
    drawn = {"max_new_tokens": 4, "temperature": 0.7, "top_p": 0.9, "seed": 5, "num_return_sequences": 2}
    found = official.completions.create(
        model="small", prompt=TEXTS[0], max_tokens=4, temperature=0.7, top_p=0.9, seed=5, n=2
    )
    assert [choice.text for choice in found.choices] == lm.generate(TEXTS[0], **drawn)


def test_streams_join_and_end_as_alone(official, lm, client):
    """Four at once, of two kinds of options, some after others have begun."""

    def counted():
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("bert4x_written_tokens_total"))

    before = counted()
    asked = [(TEXTS[i % 3], 3 + i, {} if i % 2 else {"temperature": 0.8, "seed": i}) for i in range(4)]

    def ask(prompt, length, options):
        pieces = official.completions.create(
            model="small",
            prompt=prompt,
            max_tokens=length,
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
        *chunks, last = list(pieces)
        assert (last.choices, last.usage.completion_tokens) == ([], length)
        assert chunks[-1].choices[0].finish_reason == "length"
        return "".join(chunk.choices[0].text for chunk in chunks)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: ask(*one), asked))
    assert found == [lm.generate(prompt, max_new_tokens=n, **options) for prompt, n, options in asked]
    assert counted() - before == 3 + 4 + 5 + 6


def test_chat_without_a_template_continues_turns(official, lm):
    messages = [{"role": "user", "content": "天气好"}]
    expected = lm.generate("问：天气好\n答：", max_new_tokens=4, stop=["\n", "问："])
    found = official.chat.completions.create(model="small", messages=messages, max_tokens=4, logprobs=True)
    assert found.choices[0].message.content == expected
    assert len(found.choices[0].logprobs.content) == found.usage.completion_tokens
    pieces = list(official.chat.completions.create(model="small", messages=messages, max_tokens=4, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected
    again = [*messages, found.choices[0].message, found.choices[0].message.model_dump(), *messages]  # as clients go on
    assert official.chat.completions.create(model="small", messages=again, max_tokens=2, n=None).usage.completion_tokens
    for stream in (False, True):
        echoed = official.completions.create(model="small", prompt="天气", max_tokens=2, echo=True, stream=stream)
        pieces = echoed if stream else [echoed]
        assert "".join(piece.choices[0].text for piece in pieces) == "天气" + lm.generate("天气", max_new_tokens=2)


def test_bytes_of_tokens():
    """Of parts of a character, each its own."""

    class Halves:
        id_to_token = ["å", "¤", "©", "<0xE4>"].__getitem__

        def decode(self, ids):
            return "\ufffd"

    form = ChatForm(Halves(), 1)
    assert bytes(byte for i in range(3) for byte in form.one(i, 0.0)["bytes"]).decode() == "天"
    assert form.one(3, 0.0)["bytes"] == [0xE4]


def test_tasks(client, able):
    judge, finder = able("judge", "classes").task, able("finder", "entities").task
    answers = client.post("/tasks/classes", json={"inputs": TEXTS}).json()["answers"]
    assert [one["label"] for one in answers] == [one.label for one in judge(TEXTS)]
    scores = judge((TEXTS[0], TEXTS[1])).probabilities
    predicted = client.post("/predict", json={"inputs": TEXTS[:2]}).json()
    assert {one["label"]: one["score"] for one in predicted} == pytest.approx(scores, abs=2e-5)
    ranked = client.post("/rerank", json={"query": TEXTS[0], "texts": TEXTS}).json()
    expected = able("judge", "rerank").reranker(TEXTS[0], TEXTS)
    assert [one["index"] for one in ranked] == expected.order
    assert ranked[0]["score"] == pytest.approx(expected.scores.max(), abs=2e-5)
    asked = {"query": TEXTS[0], "texts": TEXTS, "raw_scores": True, "truncation_direction": "right"}
    raw = {one["index"]: one["score"] for one in client.post("/", json=asked).json()}
    assert 1 / (1 + np.exp(-raw[0])) == pytest.approx(expected.scores[0], abs=2e-5)
    found = client.post("/tasks/entities", json={"inputs": TEXTS[1]}).json()["answers"]
    assert [(e["label"], e["start"], e["end"]) for e in found] == [(e.label, e.start, e.end) for e in finder(TEXTS[1])]
    asked = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": TEXTS[1:2]}]}
    asked |= {"parameters": {"binary_data_output": True}}  # as a client of Triton sends it, which reads JSON as well
    (output,) = client.post("/v2/models/finder/versions/1/infer", json=asked).json()["outputs"]
    assert json.loads(output["data"][0]) == found
    binary = json.dumps(asked).encode() + b"\x03\x00\x00\x00\xe5\xa4\xa9"
    headers = {"Inference-Header-Content-Length": "9", "Content-Type": "application/json"}
    answer = client.post("/v2/models/finder/infer", content=binary, headers=headers)
    assert answer.status_code == 400 and "binary_data=False" in answer.json()["error"]["message"]
    masked = ["天[MASK]很好，我们去公[MASK]", "床前[MASK]月光"]  # computed together as alone
    found = client.post("/tasks/fill-mask", json={"inputs": masked, "parameters": {"top_k": 2}}).json()["answers"]
    assert [[(one["start"], one["end"]) for one in masks] for masks in found] == [[(1, 7), (14, 20)], [(2, 8)]]
    for text, masks in zip(masked, found, strict=True):
        for mask, alone in zip(masks, able("small", "fill-mask").task(text, top_k=2), strict=True):
            assert [one["token"] for one in mask["fillings"]] == [one.token for one in alone]
            assert mask["fillings"][0]["probability"] == pytest.approx(alone[0].probability, abs=2e-5)
    tokens = client.post("/tokenize", json={"inputs": "天气"}).json()[0]
    assert [(t["id"], t["start"]) for t in tokens] == [
        (2, None),
        (VOCABULARY.index("天"), 0),
        (VOCABULARY.index("气"), 1),
        (3, None),
    ]


def test_forms_of_the_client_of_hugging_face(models, client, able):
    """At /: entities and classes of one text are lists of it, and a question on a text has one answer."""
    finder, judge = models.served["finder"], models.served["judge"]  # whose threads run
    answers = [Answer("床", 0, 1, 0.5), None]
    reader = Served("reader", finder.worker, finder.tokenizer, {})
    reader.abilities["reading"] = ability = Ability("reading", SimpleNamespace(tokenizer=finder.tokenizer))
    ability.compute = lambda items: [answers.pop(0)]

    def ask(served, inputs):
        async def post():
            transport = httpx.ASGITransport(create_app(Models(served), LIMITS))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as alone:
                return (await alone.post("/", json={"inputs": inputs, "parameters": {}})).json()

        return asyncio.run(post())

    found = able("finder", "entities").task(TEXTS[1])
    groups = [{"entity_group": e.label, "word": e.text, "start": e.start, "end": e.end} for e in found]
    said = ask([finder, reader], TEXTS[1])
    assert [one.pop("score") for one in said] == pytest.approx([e.score for e in found], abs=2e-5)
    assert said == groups and len(ask([finder], TEXTS[:2])) == 2
    assert [len(one) for one in ask([finder, judge], TEXTS[1])] == [2]  # the classes
    asked = {"inputs": "床前[MASK]月光", "parameters": {"top_k": 2}}
    expected = able("small", "fill-mask").task(asked["inputs"], top_k=2)[0]
    filled = client.post("/", json=asked).json()
    assert [(one["sequence"], one["token_str"]) for one in filled] == [(one.text, one.token) for one in expected]
    assert [VOCABULARY[one["token"]] for one in filled] == [one.token for one in expected]
    assert client.post("/", json=asked | {"inputs": "[MASK][MASK]"}).status_code == 422
    question = {"question": "谁？", "context": TEXTS[1]}
    assert ask([reader], question) == {"answer": "床", "score": 0.5, "start": 0, "end": 1}
    assert ask([reader], question) == {"answer": "", "score": 0.0, "start": 0, "end": 0}


def test_attention(client, folders):
    """Of a head, as the model gives it that is loaded for it."""
    model = bert4x.load(folders / "small", return_attentions=True)
    ids, segments = model.tokenizer.encode(TEXTS[0])
    _, weights = model([np.array([ids]), np.array([segments])])
    asked = {"inputs": [TEXTS[0], "天"], "parameters": {"layer": 1, "head": 3}}
    found, other = client.post("/tasks/attention", json=asked).json()["answers"]
    np.testing.assert_allclose(found["weights"], keras.ops.convert_to_numpy(weights[0])[0, 2], atol=1e-4)
    assert found["tokens"] == ["[CLS]", *TEXTS[0], "[SEP]"] and (found["layer"], found["head"]) == (1, 3)
    assert np.shape(other["weights"]) == (3, 3)


COMPLETION = {"model": "small", "prompt": "天"}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "天"}]}
PROMPTED = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["天"]}]}
PICTURE = {"model": "small", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/completions", COMPLETION | {"model": "smal"}, 404, "did you mean 'small'"),
        ("/v1/completions", COMPLETION | {"max_token": 3}, 400, "did you mean 'max_tokens'"),
        ("/v1/completions", COMPLETION | {"max_tokens": 1000}, 400, "64 positions"),
        ("/v1/completions", COMPLETION | {"temperature": float("nan")}, 400, "temperature"),
        ("/v1/completions", COMPLETION | {"response_format": {"type": "xml"}}, 400, "response_format"),
        ("/v1/completions", COMPLETION | {"prompt": "天" * 100}, 400, "positions"),
        ("/v1/completions", COMPLETION | {"n": 100}, 413, "texts in one request"),
        ("/v1/chat/completions", PICTURE, 400, "text"),
        ("/v1/chat/completions", CHAT | {"tools": [{"type": "function"}], "tool_choice": "auto"}, 400, "not served"),
        ("/v1/completions", COMPLETION | {"top_k": 2**40}, 400, "top_k"),
        ("/v1/completions", COMPLETION | {"stream_options": {"include_usage": True}}, 400, "stream"),
        ("/v1/completions", COMPLETION | {"stop": ["a"] * 17}, 400, "at most 16"),
        ("/v1/completions", COMPLETION | {"echo": True, "logprobs": 1}, 400, "echo"),
        ("/v1/embeddings", {"model": "small", "input": [[1, 2]]}, 400, "token ids"),
        ("/v1/embeddings", {"model": "small", "input": "天" * 100}, 413, "truncate"),
        ("/v1/embeddings", {"model": "judge", "input": "天"}, 400, "cannot do embeddings. What there is"),
        ("/embed", {"inputs": ["天"] * 41}, 413, "40"),
        ("/embed", {"inputs": " "}, 422, "empty"),
        ("/embed", {"inputs": "天", "truncation_direction": "Left"}, 422, "expected Right"),
        ("/predict", {"inputs": []}, 422, "no inputs"),
        ("/predict", {"inputs": ["天", "气", "a"]}, 422, "are a pair"),
        ("/", {"inputs": 5}, 422, "inputs"),
        ("/", {"inputs": {"question": "天", "context": "天"}}, 404, "no model here can do reading"),
        ("/tasks/embeddings", {"inputs": "天"}, 404, "no task"),
        ("/v2/models/small/infer", PROMPTED | {"parameters": {"task": "embeddings", "prompt_name": 5}}, 422, "prompt"),
        ("/embed", {"inputs": "天\ud800"}, 422, "inputs"),
        ("/tasks/entites", {"inputs": "天"}, 404, "did you mean 'entities'"),
        ("/tasks/reading", {"inputs": {"question": "天", "passage": "天"}}, 404, "no model here"),
        ("/tasks/fill-mask", {"inputs": "天"}, 422, "[MASK]"),
        ("/v2/models/small/infer", {"inputs": []}, 422, "expected ['text']"),
        ("/v2/models/small/infer", {"inputs": [PROMPTED["inputs"][0] | {"parameters": {"a": 1}}]}, 422, "parameters"),
        ("/tasks/attention", {"inputs": "天", "parameters": {"head": 5}}, 422, "1 to 4"),
        ("/nothing", {}, 404, "no route"),
        ("/embed", b"\xff{", 400, "JSON"),
        ("/embed", b"{", 400, "JSON"),
        ("/embed", b"[" * 15000, 400, "JSON"),
        ("/embed", b"x" * 30_000, 413, "20,000 bytes"),
    ],
)  # fmt: skip
def test_faults_of_clients(client, path, body, status, says):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, set(error)) == (status, {"message", "type", "param", "code"})
    assert says in error["message"] and "Traceback" not in answer.text


def test_connections_that_misbehave(address, client, models):
    """Half a request, a body that never comes, and one who goes away in the middle of a stream: nothing stays."""
    where = address.removeprefix("http://").split(":")
    place = where[0], int(where[1])
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{"
    for sent, answer in ((b"POST /embed HT", b""), (head, b"HTTP/1.1 408")):
        with socket.create_connection(place, 20) as half:
            half.sendall(sent)
            assert half.recv(12) == answer[:12]
    long = COMPLETION | {"max_tokens": 60, "stream": True, "n": 8, "seed": 1}
    with client.stream("POST", "/v1/completions", json=long) as stream:
        next(stream.iter_lines())
    worker = models.served["small"].worker
    deadline = time.monotonic() + 20
    while worker.decoder.busy and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.decoder.busy
    text = client.get("/metrics").text
    assert 'bert4x_requests_total{route="other",status="408"} 1.0' in text
    assert 'bert4x_waiting_requests{model="small"} 0.0' in text


def test_keys():
    app = create_app(Models([]), Limits(), ["one", "two"])
    transport = httpx.ASGITransport(app)

    async def ask(path, method="GET", **headers):
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.request(method, path, headers=headers)).status_code

    for given, status in ((None, 401), ("Bearer three", 401), ("Basic one", 401), ("Bearer two", 200)):
        assert asyncio.run(ask("/v1/models", **({"Authorization": given} if given else {}))) == status
    assert (
        asyncio.run(ask("/health"))
        == asyncio.run(ask("/v2/health/live", "HEAD"))
        == asyncio.run(ask("/", "HEAD"))
        == 200
    )
    assert asyncio.run(ask("/", "POST")) == 401  # the page is for everybody, what is computed there is not


def test_queue_batches_and_blame():
    """Short requests pass a long one; one bad text fails alone; a full queue says when to come again."""
    sizes, done, begin = [], [], threading.Event()

    def compute(items):
        begin.wait(10)
        sizes.append(len(items))
        if "bad" in items:
            raise RuntimeError("cannot")
        return [item.upper() for item in items]

    worker = Worker("test", Limits(batch_tokens=40, queue=4))
    group = Group(compute)
    worker.start()
    first = worker.submit(group, ["first"], [10])
    time.sleep(0.05)  # it is being computed
    jobs = {
        "long": worker.submit(group, [f"long {i}" for i in range(20)], [10] * 20),
        "short": worker.submit(group, ["short"], [10]),
        "bad": worker.submit(group, ["bad"], [10]),
    }
    for name, job in jobs.items():
        job.future.add_done_callback(lambda _, name=name: done.append(name))
    with pytest.raises(Problem, match="wait") as full:
        worker.submit(group, ["more"], [10])
    assert full.value.status == 429 and int(full.value.headers["Retry-After"]) >= 1
    begin.set()
    assert jobs["short"].future.result(10) == ["SHORT"]
    assert jobs["long"].future.result(10) == [f"LONG {i}" for i in range(20)]
    with pytest.raises(Problem, match="failed on this request"):
        jobs["bad"].future.result(10)
    assert first.future.result(10) == ["FIRST"]
    assert done[-1] == "long" and max(sizes) == 4
    worker.stop()


def test_command_refuses(command, tmp_path, folders, models):
    refused(command("serve", "--host", "0.0.0.0"), "--open")
    with server.listening("127.0.0.1", 0) as taken:
        refused(command("serve", "--port", taken.getsockname()[1]), "choose another --port")
    (tmp_path / "keys").write_text("# none\n")
    refused(command("serve", "--api-key-file", tmp_path / "keys"), "holds no key")
    refused(command("serve", "--max-texts", 0, "--port", 0), "texts is 0")
    refused(command("serve", tmp_path / "nowhere", "--port", 0), "nowhere")
    refused(command("serve", f"a?={folders / 'judge'}", "--port", 0), "cannot be the name")
    refused(command("serve", folders / "judge", "--runtime", "onnx", "--port", 0), "run by keras", "--to onnx")
    with pytest.raises(InputError, match="NAME=FOLDER"):
        Models([models.served["small"]] * 2)


SLOW = """
import asyncio
from bert4x.serving import server
from bert4x.serving.limits import Limits

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(10):
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 9})

with server.listening("127.0.0.1", 0) as sock:
    print(sock.getsockname()[1], flush=True)
    raise SystemExit(server.run(app, sock, Limits()))
"""


def test_sigterm_finishes_what_runs():
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    port = int(process.stdout.readline())
    with httpx.stream("GET", f"http://127.0.0.1:{port}/", timeout=30) as answer:
        text = next(lines := answer.iter_text())
        process.terminate()
        assert text + "".join(lines) == "0123456789"
    assert process.wait(30) == 0
