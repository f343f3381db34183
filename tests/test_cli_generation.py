"""The commands that write text, on a tiny random checkpoint: they say what the model's methods say."""

import dataclasses
import functools
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused, write_tiny

import bert4x
from bert4x.cli.decoding import DECODING
from bert4x.errors import GenerationError
from bert4x.generation import GenerationOptions
from bert4x.generation.examples import read_examples

ROOT = Path(__file__).parents[1]
LOAD = bert4x.load  # itself, whatever is put in its place below


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "source", "bert", max_position=64)


@pytest.fixture(scope="module")
def lm(source):
    return cached_load(str(source), "lm")


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """Every command would load and compile a model of its own."""
    monkeypatch.setattr("bert4x.models.build.load", cached_load)


@functools.cache
def cached_load(source, application, **options):
    return LOAD(source, application, **options)


@pytest.fixture
def typed(monkeypatch):
    """`typed(text)` is what standard input holds."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


# generate


def test_generate(command, source, lm):
    texts = ["床前明月光", "今天天气"]
    status, out, _ = command("generate", *texts, "--model", source, "--max-new-tokens", 6, "--no-repeat-ngram-size", 1)
    assert status == 0
    assert out.splitlines() == lm.generate(texts, max_new_tokens=6, no_repeat_ngram_size=1)
    unilm = cached_load(str(source), "unilm")
    out = command("generate", texts[0], "--model", source, "--application", "unilm", "--max-new-tokens", 5)[1]
    assert out == unilm.generate(texts[0], max_new_tokens=5) + "\n"


def test_generate_json(command, source, lm):
    given = ["--top-p", 0.9, "--seed", 4, "--num-return-sequences", 2, "--max-new-tokens", 8, "--json"]
    out = command("generate", "床前明月光", "今天", "--model", source, *given)[1]
    objects = [json.loads(line) for line in out.splitlines()]
    assert [found["prompt"] for found in objects] == ["床前明月光", "今天"]
    for found in objects:
        expected = lm.generate(found["prompt"], top_p=0.9, seed=4, num_return_sequences=2, max_new_tokens=8)
        assert [one["text"] for one in found["continuations"]] == expected
        for one in found["continuations"]:
            assert one["finish_reason"] == ("stop" if one["token_ids"][-1] == lm.tokenizer.end_id else "length")
            assert one["finish_reason"] == "stop" or len(one["token_ids"]) == 8
            assert one["score"] == pytest.approx(sum(one["log_probabilities"]), abs=1e-5)
    first = objects[0]["continuations"][0]
    pieces = list(lm.stream("床前明月光", top_p=0.9, seed=4, max_new_tokens=8))
    assert [piece.token_id for piece in pieces] == first["token_ids"]
    assert [piece.log_probability for piece in pieces] == pytest.approx(first["log_probabilities"], abs=1e-5)


def test_generate_to_a_stop_string(command, source, lm):
    whole = lm.generate("床前明月光", max_new_tokens=12)
    stop = whole[len(whole) // 2]
    out = command("generate", "床前明月光", "--model", source, "--max-new-tokens", 12, "--stop", stop, "--json")[1]
    (found,) = json.loads(out)["continuations"]
    assert found["text"] == whole[: whole.index(stop)]
    assert found["finish_reason"] == "stop"
    assert len(found["token_ids"]) == len(found["log_probabilities"]) < 12
    assert found["score"] == pytest.approx(sum(found["log_probabilities"]), abs=1e-5)


def test_generate_with_beams(command, source, lm):
    given = ["--num-beams", 3, "--num-return-sequences", 2, "--length-penalty", 0.6, "--max-new-tokens", 5]
    out = command("generate", "床前明月光", "--model", source, *given, "--json")[1]
    found = json.loads(out)["continuations"]
    options = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.6, "max_new_tokens": 5}
    assert [one["text"] for one in found] == lm.generate("床前明月光", **options)
    assert found[0]["score"] >= found[1]["score"]
    for one in found:
        assert one["score"] == pytest.approx(sum(one["log_probabilities"]) / len(one["token_ids"]) ** 0.6, abs=1e-4)


def test_generate_streams_what_it_would_print(command, source):
    given = ["床前明月光", "今天", "--model", source, "--temperature", 0.8, "--seed", 1, "--max-new-tokens", 10]
    assert command("generate", *given, "--stream")[:2] == command("generate", *given)[:2]


def test_generate_reads_standard_input(command, source, lm, typed):
    typed("床前\n明月光\n")
    out = command("generate", "-", "--model", source, "--max-new-tokens", 4)[1]
    assert out == lm.generate("床前\n明月光", max_new_tokens=4) + "\n"


def test_options_are_those_of_the_library(command, source):
    options = {field.name for field in dataclasses.fields(GenerationOptions)}
    assert set(DECODING) <= options
    assert options - set(DECODING) == {
        "suppress_ids", "forced_ids", "stop_ids", "start_id", "pad_id", "early_stopping"
    }  # fmt: skip
    out = command("generate", "--help")[1]
    for name in DECODING:
        assert "--" + name.replace("_", "-") in out
    assert f"(default: {GenerationOptions().max_new_tokens})" in out


def test_a_drafter(command, source):
    plain = command("generate", "--model", source, "床前", "--max-new-tokens", "6")
    drafted = ["--drafter", source, "--draft-tokens", "2"]
    assert command("generate", "--model", source, "床前", "--max-new-tokens", "6", *drafted)[:2] == plain[:2]
    refused(command("generate", "--model", source, "床", "--draft-tokens", "2"), "there is none")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([""], "no token"),
        (["床", "--temperature", "0"], "temperature"),
        (["床", "--top-p", "1.5"], "top_p"),
        (["床", "--num-beams", "2", "--num-return-sequences", "3"], "num_return_sequences"),
        (["床", "--max-new-tokens", "500"], "max_new_tokens can be"),
        (["床" * 80], "81 tokens"),
        (["床", "--stream", "--num-beams", "2"], "one sequence"),
        (["床", "--dtype", "float31"], "float31"),
    ],
)
def test_generate_refuses(command, source, arguments, word):
    refused(command("generate", "--model", source, *arguments), word)


def test_generate_refuses_models_that_cannot(command, source, tmp_path):
    refused(command("generate", "床", "--model", tmp_path / "nowhere"), "CheckpointNotFoundError")
    status, out, err = command("generate", "床", "--stream", "--json")
    assert (status, out) == (2, "")
    assert "not allowed with" in err
    status, out, err = command("generate", "床", "--seed", 1, "--sede", 2)
    assert (status, out) == (2, "")
    assert "unrecognized arguments: --sede 2" in err


# chat


def test_chat(command, source, lm, typed):
    typed("床前\n\n明月光\n")
    status, out, err = command("chat", "--model", source, "--max-new-tokens", 6)
    first = lm.generate("问：床前\n答：", max_new_tokens=6, stop=["\n", "问："])
    second = lm.generate(f"问：床前\n答：{first}\n问：明月光\n答：", max_new_tokens=6, stop=["\n", "问："])
    assert status == 0
    assert out.splitlines() == [first, second]
    assert "trained for dialogue" in err


def test_chat_forgets_what_does_not_fit_and_goes_on_after_an_error(command, source, lm, typed):
    typed("床" * 30 + "\n" + "月" * 30 + "\n" + "光" * 80 + "\n今天\n")
    status, out, err = command("chat", "--model", source, "--max-new-tokens", 8, "--template", "{text}答：")
    third = lm.generate("月" * 30 + "答：", max_new_tokens=8, stop="\n")
    assert status == 0
    assert out.splitlines()[1] == third
    assert len(err.splitlines()) == 2
    assert "GenerationError" in err.splitlines()[1]
    assert out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--top-k", "0"], "top_k"), (["--template", "问：答："], "{text}"), (["--template", "{who}{text}"], "who")],
)
def test_chat_refuses_at_once(command, source, typed, arguments, word):
    typed("床前\n")
    refused(command("chat", "--model", source, *arguments), word)


@pytest.mark.skipif(os.name != "posix", reason="sends the signal of Ctrl-C")
def test_interrupting_an_answer_does_not_end_the_chat(source):
    """Ctrl-C while the first answer is written: the second line is answered all the same."""
    arguments = ["chat", "--model", str(source), "--max-new-tokens", "30"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    slow = f"import sys; sys.path.append({str(ROOT / 'tests')!r}); import uncompiled\n"
    slow += "import signal, time, bert4x.cli.decoding as d\n"
    slow += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what runs in the background ignores it
    slow += "from bert4x.cli import chat, main\nshow = d.show\n"
    slow += "naps = [0.2]\n"  # tiny models are too fast for a finger; the second answer may be
    slow += "def slowly(pieces):\n    try:\n        for piece in pieces:\n            yield piece\n"
    slow += "            time.sleep(naps[0])\n    finally:\n        naps[0] = 0\n"
    slow += "chat.show = lambda pieces: show(slowly(pieces))\n"
    slow += f"raise SystemExit(main({arguments!r}))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen([sys.executable, "-u", "-c", slow], env=environment, **pipes)
    try:
        run.stdin.write("床前明月\n".encode())
        run.stdin.flush()
        first = run.stdout.read(1)  # the answer has begun
        run.send_signal(signal.SIGINT)
        rest = run.stdout.readline()
        out, _ = run.communicate("今天\n".encode(), timeout=120)
    finally:
        run.kill()
    assert run.returncode == 0
    assert len((first + rest).decode().strip()) < 20
    assert len(out.decode().strip()) > 20


# few-shot


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "examples.tsv"
    path.write_text("id\ttext\tlabel\n1\t床前明月光\t月\n2\t今天天气\t天\n", encoding="utf-8")
    return path


def test_few_shot(command, source, lm, examples, typed):
    few = bert4x.FewShot(lm, "{text}，{label}", read_examples(examples, ["text", "label"]), separator="。", stop="。")
    given = [examples, "--model", source, "--template", "{text}，{label}", "--separator", "。"]
    typed("地上霜\n\n望明月\n")
    status, out, _ = command("few-shot", *given, "--max-new-tokens", 5)
    assert status == 0
    assert out.splitlines() == few.generate(["地上霜", "望明月"], max_new_tokens=5)
    out = command("few-shot", given[0], "地上霜", *given[1:], "望明月", "--choices", "月,天气", "--json")[1]
    found = [json.loads(line) for line in out.splitlines()]
    scores = few.scores(["地上霜", "望明月"], ["月", "天气"])
    assert [one["text"] for one in found] == ["地上霜", "望明月"]
    for one, row in zip(found, scores, strict=True):
        assert list(one["scores"].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert one["answer"] == ["月", "天气"][row.argmax()] == max(one["scores"], key=one["scores"].get)


def test_few_shot_with_several_fields(command, source, lm, tmp_path):
    rows = [{"a": "床前", "b": "明月", "c": "光"}]
    path = tmp_path / "examples.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    few = bert4x.FewShot(lm, "{a}{b}，{c}", rows)
    given = [path, '{"a": "今天", "b": "天气"}', "--model", source, "--template", "{a}{b}，{c}", "--max-new-tokens", 4]
    assert command("few-shot", *given)[1] == few.generate({"a": "今天", "b": "天气"}, max_new_tokens=4) + "\n"
    refused(command("few-shot", path, "今天", "--model", source, "--template", "{a}{b}，{c}"), "a, b")


def test_few_shot_refuses(command, source, examples, tmp_path):
    model = ["--model", source]
    refused(command("few-shot", tmp_path / "none.json", "床", *model), "none.json")
    refused(command("few-shot", examples, "床", *model, "--template", "{title} ->{label}"), "title")
    refused(command("few-shot", examples, "床", *model, "--template", "{text"), "template")
    refused(command("few-shot", examples, "床", *model, "--choices", "月,天", "--top-k", 3), "top_k")


# files of examples


@pytest.mark.parametrize(
    "text",
    [
        '[{"text": "甲", "label": "一"}, {"text": "乙", "label": "二"}]',
        '{"text": "甲", "label": "一"}\n\n{"text": "乙", "label": "二"}\n',
        "text\tlabel\n甲\t一\n乙\t二\n",
        "\ufefftext\tlabel\r\n甲\t一\r\n\r\n乙\t二",
    ],
)
def test_read_examples(tmp_path, text):
    path = tmp_path / "examples"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_examples(path) == [{"text": "甲", "label": "一"}, {"text": "乙", "label": "二"}]
    assert read_examples(path, ["label"]) == [{"label": "一"}, {"label": "二"}]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"[{]", "JSON"),
        (b'{"a": 1}\n{"a"', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[1, 2]", "case 1 is a int"),
        (b"text\tlabel\na\n", "case 1 has 1 values"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_read_examples_refuses(tmp_path, data, word):
    path = tmp_path / "examples"
    path.write_bytes(data)
    with pytest.raises(GenerationError, match=word):
        read_examples(path)
    with pytest.raises(GenerationError, match="cannot be read"):
        read_examples(tmp_path / "nowhere")


def test_only_line_feeds_end_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "甲\u2028乙"}\n{"text": "丙\x85"}\n', encoding="utf-8")
    assert [row["text"] for row in read_examples(tmp_path / "a.jsonl")] == ["甲\u2028乙", "丙\x85"]
    (tmp_path / "a.tsv").write_text("text\tlabel\r\n甲\u2028乙\t好\r\n", encoding="utf-8", newline="")
    assert read_examples(tmp_path / "a.tsv") == [{"text": "甲\u2028乙", "label": "好"}]


def test_an_empty_file_has_no_examples(tmp_path):
    (tmp_path / "examples").write_text("", encoding="utf-8")
    assert read_examples(tmp_path / "examples") == []
