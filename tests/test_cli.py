"""The bert4x command and the converters, on tiny checkpoints made here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import VOCABULARY, refused

from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.opening import open_checkpoint

ROOT = Path(__file__).parents[1]


def values(path) -> dict:
    """Every variable of a checkpoint, as (dtype, bits)."""
    checkpoint = open_checkpoint(path)
    return {name: (dtype, bits(checkpoint.read(name)).tolist()) for name, (_, dtype) in checkpoint.variables.items()}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# inspect


@pytest.mark.parametrize(
    ("model", "format"), [("bert", "tf1"), ("bert", "hf"), ("albert", "hf"), ("gpt2", "megatron"), ("bert", "bert4x")]
)
def test_inspect_json(command, tiny, model, format):
    status, out, _ = command("inspect", tiny("source", model, format), "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["format"], found["family"]) == (format, model)
    shapes = [shape for shape, _ in open_checkpoint(found["path"]).variables.values()]
    assert found["parameters"] == sum(int(shape[0] * (shape[1] if len(shape) > 1 else 1)) for shape in shapes)
    assert found["memory"]["float32"] == 4 * found["parameters"]
    assert found["missing"] == found["unexpected"] == found["misshapen"] == found["duplicate"] == []


def test_inspect_for_people(command, tiny):
    status, out, _ = command("inspect", tiny("source", "bert", "tf1", heads=False))
    assert status == 0
    assert "bert/embeddings/word_embeddings" in out
    assert f"{len(VOCABULARY)} tokens" in out
    assert "published without" in out
    assert "bert/pooler/dense/kernel" in out


def test_inspect_says_what_is_wrong_with_status_1(command, tiny):
    source = tiny()
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    status, out, _ = command("inspect", source, "--json")
    assert status == 1
    assert any("bert.encoder.layer.2." in line for line in json.loads(out)["missing"])
    assert "MISSING" in command("inspect", source)[1]


def test_inspect_takes_a_config_from_elsewhere(command, tiny, tmp_path):
    source = tiny("source", "bert", "tf1")
    config = (source / "bert_config.json").rename(tmp_path / "elsewhere.json")
    refused(command("inspect", source), "ConfigError", "bert_config.json")
    assert command("inspect", source, "--config", config)[0] == 0


# convert


@pytest.mark.parametrize("format", ["hf", "tf1", "keras", "bert4x"])
def test_convert_there_and_back_keeps_every_bit(command, tiny, tmp_path, format):
    source = tiny("source", "bert", "tf1")
    status, out, err = command("convert", source, tmp_path / "there", "--to", format)
    assert (status, err) == (0, "")
    assert str(tmp_path / "there") in out
    assert command("convert", tmp_path / "there", tmp_path / "back", "--to", "tf1")[0] == 0
    assert values(tmp_path / "there") == values(tmp_path / "back") == values(source)
    assert (tmp_path / "back" / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()


def test_convert_resplits_shards(command, tiny, tmp_path):
    source = tiny("source", "gpt2", "megatron", shards=2)
    assert command("convert", source, tmp_path / "four", "--to", "megatron", "--shards", 4)[0] == 0
    assert sum(name.endswith("_model_states.pt") for name in files(tmp_path / "four")) == 4
    assert values(tmp_path / "four") == values(source)
    assert command("convert", source, tmp_path / "hf", "--to", "hf", "--shards", 3)[0] == 0
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file()
    assert values(tmp_path / "hf") == values(source)


def test_convert_to_half(command, tiny, tmp_path):
    assert command("convert", tiny(), tmp_path / "half", "--to", "hf", "--dtype", "float16")[0] == 0
    found = json.loads(command("inspect", tmp_path / "half", "--json")[1])
    assert {tensor["dtype"] for tensor in found["tensors"]} == {"float16"}


def test_convert_keeps_only_some_tokens(command, tiny, tmp_path):
    source, keep = tiny(), [0, 1, 2, 3, 4, 9, 7]
    (tmp_path / "ids.json").write_text(json.dumps(keep))
    (tmp_path / "tokens.txt").write_text("".join(f"{VOCABULARY[i]}\n" for i in keep), encoding="utf-8")
    for name, file in (("a", "ids.json"), ("b", "tokens.txt")):
        target = tmp_path / name
        assert command("convert", source, target, "--to", "hf", "--keep-tokens", tmp_path / file)[0] == 0
        assert (target / "vocab.txt").read_text(encoding="utf-8").split() == [VOCABULARY[i] for i in keep]
        trimmed, whole = (open_checkpoint(path).read("Embedding-Token/embeddings") for path in (target, source))
        assert (trimmed == whole[keep]).all()
    assert values(tmp_path / "a") == values(tmp_path / "b")
    (tmp_path / "tokens.txt").write_text("[PAD]\n犇\n", encoding="utf-8")
    failed = command("convert", source, tmp_path / "c", "--to", "hf", "--keep-tokens", tmp_path / "tokens.txt")
    refused(failed, "TokenizerError", "犇")
    assert not (tmp_path / "c").exists()
    for text in ("[1,", "{}", "[[1], [2, 3]]"):
        (tmp_path / "ids.json").write_text(text)
        failed = command("convert", source, tmp_path / "c", "--to", "hf", "--keep-tokens", tmp_path / "ids.json")
        assert failed[0] == 2 and "ids" in failed[2]
    refused(command("convert", source, tmp_path / "c", "--to", "hf", "--keep-tokens", "none.json"), "TokenizerError")


def test_convert_into_a_folder_whose_parent_cannot_be_written(command, tiny, tmp_path):
    """Such as a mounted volume: what is written lies beside its place, not above."""
    source, target = tiny(), tmp_path / "readonly" / "volume"
    target.mkdir(parents=True)
    before = target.parent.stat().st_mtime_ns
    assert command("convert", source, target, "--to", "tf1")[0] == 0
    assert target.parent.stat().st_mtime_ns == before
    assert values(target) == values(source)
    (tmp_path / "file").touch()
    refused(command("convert", source, tmp_path / "file" / "x", "--to", "tf1"), "ConversionError", "is a file")


def test_a_failed_convert_leaves_nothing(command, tiny, tmp_path):
    target = tmp_path / "target"
    source = tiny()
    bert, gpt2 = tiny("bert"), tiny("cpm", "gpt2", "megatron")
    before = files(tmp_path)
    refused(command("convert", tmp_path / "nowhere", target, "--to", "hf"), "CheckpointNotFoundError", "nowhere")
    refused(
        command("convert", bert, target, "--to", "megatron"), "ConversionError", "gguf, hf, tf1, uer, bert4x, keras"
    )
    refused(command("convert", gpt2, target, "--to", "megatron", "--shards", 3), "ConversionError", "3 ranks")
    refused(command("convert", bert, bert, "--to", "tf1"), "ConversionError", "source itself")
    refused(command("convert", bert, target, "--to", "tf1", "--shards", 2), "ConversionError", "shards=2")
    assert files(tmp_path) == before
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(command("convert", source, target, "--to", "tf1"), "CorruptFileError", "model.safetensors")
    assert files(tmp_path) == before
    assert not target.exists()


def test_a_convert_that_fails_while_writing_leaves_nothing(command, tiny, tmp_path):
    """Half precision cannot hold 1e6: known only after other tensors were written."""
    from safetensors.numpy import load_file, save_file

    source = tiny()
    weights = load_file(source / "model.safetensors")
    weights["bert.pooler.dense.bias"][3] = 1e6
    save_file(weights, source / "model.safetensors")
    failed = command("convert", source, tmp_path / "half", "--to", "hf", "--dtype", "float16")
    refused(failed, "NotFiniteError", "Pooler-Dense/bias", "1e+06")
    assert not (tmp_path / "half").exists()


# verify and fill-mask: these build models


def test_verify(command, tiny, tmp_path):
    source, other = (tiny(name, seed=seed, num_hidden_layers=1) for seed, name in enumerate(("source", "other")))
    assert command("convert", source, tmp_path / "tf1", "--to", "tf1")[0] == 0
    status, out, _ = command("verify", source, tmp_path / "tf1", "--json")
    result = json.loads(out)
    assert status == 0
    assert result["same"] is True
    assert result["differences"] == dict.fromkeys(("hidden", "with_pool", "with_nsp", "with_mlm"), 0.0)
    status, out, _ = command("verify", source, other)
    assert status == 1
    assert "NOT the same" in out
    assert command("verify", source, other, "--tolerance", "1e9")[0] == 0
    refused(command("verify", source, tiny("cpm", "gpt2", "hf")), "ConfigError", "one model")
    small, large = (tiny(name, heads=False, hidden_size=size) for name, size in (("small", 28), ("large", 32)))
    refused(command("verify", small, large), "ConfigError", "28", "32")


def test_verify_of_a_model_that_gives_nan(command, tiny):
    """Weights that are finite, but of which products are not."""
    from safetensors.numpy import load_file, save_file

    source, other = tiny(), tiny("other")
    weights = load_file(other / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][:] = np.float32(3e38)
    weights["bert.embeddings.word_embeddings.weight"][:, ::2] *= -1
    save_file(weights, other / "model.safetensors")
    refused(command("verify", source, other), "NotFiniteError", "NaN or infinity in hidden")


def test_verify_of_one_checkpoint_reads_its_checksums(command, tiny):
    source = tiny("source", "bert", "tf1")
    status, out, _ = command("verify", source)
    assert status == 0
    assert f"{len(open_checkpoint(source).tensors)} checksums right" in out
    data = next(source.glob("*.data-*"))
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    refused(command("verify", source), "CorruptFileError")


def test_fill_mask(command, tiny):
    source = tiny()
    status, out, _ = command("fill-mask", "床前[MASK]月光，[MASK]是地上霜。", "--model", source, "--top-k", 3, "--json")
    masks = json.loads(out)
    assert status == 0
    assert [len(mask) for mask in masks] == [3, 3]
    for number, mask in enumerate(masks):
        assert sorted((filling["probability"] for filling in mask), reverse=True) == [f["probability"] for f in mask]
        for filling in mask:
            assert filling["text"].count("[MASK]") == 1 + (filling["token"] == "[MASK]")
            if number == 0:
                assert filling["text"].startswith("床前" + filling["token"].removeprefix("##"))
    status, out, _ = command("fill-mask", "床前[MASK]月光", "--model", source)
    assert len(out.splitlines()) == 5
    refused(command("fill-mask", "床前明月光", "--model", source), "TokenizerError", "no [MASK]")
    (source / "vocab.txt").unlink()
    refused(command("fill-mask", "床前[MASK]月光", "--model", source), "TokenizerError", "vocab.txt")


# the command itself


@pytest.mark.parametrize("arguments", [[], ["convrt"], ["convert", "a", "b"], ["convert", "a", "b", "--to", "onnx"]])
def test_wrong_usage(command, arguments):
    status, out, err = command(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("usage: bert4x")


def test_version_and_help(command):
    from bert4x import __version__

    assert command("--version")[:2] == (0, f"bert4x {__version__}\n")
    out = command("--help")[1]
    assert all(name in out for name in ("inspect", "convert", "verify", "fill-mask"))


@pytest.mark.parametrize(
    "program", [[sys.executable, "-m", "bert4x"], [str(Path(sys.executable).with_name("bert4x"))]], ids=["-m", "script"]
)
def test_in_a_process_of_its_own(program, tiny, tmp_path):
    if not Path(program[0]).is_file():
        pytest.skip("bert4x is not installed in this environment; run from the checkout")
    run = subprocess.run([*program, "inspect", tmp_path / "nowhere"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("bert4x: CheckpointNotFoundError")
    assert "Traceback" not in run.stderr
    run = subprocess.run([*program, "inspect", tiny(), "--json"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert json.loads(run.stdout)["family"] == "bert"


# converters/


def convert_with(script, *arguments):
    command = [sys.executable, ROOT / "converters" / script, *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("script", "model", "source_format", "arguments", "target_format"),
    [
        ("google_tf1.py", "bert", "tf1", [], "hf"),
        ("google_tf1.py", "albert", "tf1", [], "hf"),
        ("huggingface.py", "bert", "hf", [], "tf1"),
        ("huggingface.py", "gpt2", "hf", ["--to", "keras"], "keras"),
        ("megatron_cpm.py", "gpt2", "megatron", [], "hf"),
        ("megatron_cpm.py", "gpt2", "megatron", ["--shards", "4"], "megatron"),
        ("keras_h5.py", "albert_unshared", "keras", [], "bert4x"),
    ],
)
def test_converter(tiny, tmp_path, script, model, source_format, arguments, target_format):
    source = tiny("source", model, source_format)
    arguments = arguments or (["--to", "bert4x"] if target_format == "bert4x" else [])
    run = convert_with(script, source, tmp_path / "target", *arguments)
    assert run.returncode == 0, run.stderr
    assert open_checkpoint(tmp_path / "target").format == target_format
    assert values(tmp_path / "target") == values(source)


def test_keras_converter_needs_only_the_pretrained_config(tiny, tmp_path):
    tiny("pretrained", "bert", "tf1")
    weights = tiny("source", "bert", "keras") / "model.weights.h5"
    (tmp_path / "runs").mkdir()
    weights = weights.rename(tmp_path / "runs" / "best.weights.h5")
    config = tmp_path / "pretrained" / "bert_config.json"
    run = convert_with("keras_h5.py", weights, tmp_path / "target", "--config", config, "--model", "bert")
    assert run.returncode == 0, run.stderr
    assert values(tmp_path / "target") == values(tmp_path / "pretrained")


@pytest.mark.parametrize("script", ["google_tf1.py", "huggingface.py", "megatron_cpm.py", "keras_h5.py"])
def test_converter_refuses_in_one_line(script, tmp_path):
    run = convert_with(script, tmp_path / "nowhere", tmp_path / "target")
    assert run.returncode == 1
    assert run.stderr.startswith("CheckpointNotFoundError")
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "target").exists()
