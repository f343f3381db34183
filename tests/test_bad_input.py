"""Damaged, contradictory and hostile checkpoints, and inputs a model cannot take: each has its own clear error."""

import json
import os
import pickle
import re
import shutil
import time
import warnings
import zipfile

import numpy as np
import pytest
from make_checkpoints import config_of, draw, write_checkpoint

import bert4x
from bert4x import errors
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tensors import BFLOAT16, from_array
from bert4x.generation import GenerationOptions

FORMATS = {"hf": "bert", "tf1": "bert", "keras": "bert", "bert4x": "bert", "megatron": "gpt2"}
WEIGHTS = {
    "hf": "model.safetensors",
    "tf1": "bert_model.ckpt.data-00000-of-00001",
    "keras": "model.weights.h5",
    "bert4x": "model.safetensors",
    "megatron": "1/mp_rank_01_model_states.pt",
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One checkpoint of every format."""
    folder = tmp_path_factory.mktemp("originals")
    for format, family in FORMATS.items():
        shards = 2 if format == "megatron" else None
        write_checkpoint(folder / format, format, config_of(family), shards=shards)
    return folder


@pytest.fixture(params=FORMATS)
def damaged(request, originals, tmp_path):
    """A copy to damage, and its file of weights."""
    shutil.copytree(originals / request.param, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / WEIGHTS[request.param]


@pytest.fixture
def hf(originals, tmp_path):
    """A Hugging Face BERT as (folder, its arrays by name, a function that writes changed ones)."""
    folder = tmp_path / "hf"
    shutil.copytree(originals / "hf", folder)
    arrays = {name: np.array(t.read()) for name, t in open_checkpoint(folder).tensors.items()}

    def rewrite(changed):
        write_safetensors(folder / "model.safetensors", [from_array(name, x) for name, x in changed.items()])

    return folder, arrays, rewrite


def refused(source, error=errors.Bert4xError, match=None, **options):
    """Loading, inspecting whole and converting all say no, and nothing is written."""
    with pytest.raises(error, match=match):
        bert4x.load(source, **options)
    with pytest.raises(error, match=match):
        bert4x.convert(source, source.parent / "target", "bert4x")
    assert not (source.parent / "target").exists()


def change_config(folder, **changes):
    path = next(folder.glob("*.json"))
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value != "absent"}))


def test_truncated(damaged):
    folder, file = damaged
    whole = file.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 100, 9, 1, 0):
        file.write_bytes(whole[:size])
        refused(folder, errors.CheckpointError, match=re.escape(str(file.name).split(".data")[0]))


def test_other_content(damaged):
    folder, file = damaged
    for content in (
        b"<!DOCTYPE html><html>404</html>" * 40,
        b"version https://git-lfs.github.com/spec/v1\n",
        bytes(5000),
    ):
        file.write_bytes(content)
        refused(folder, errors.CheckpointError)


def test_missing_files(damaged):
    folder, file = damaged
    file.unlink()
    refused(folder, errors.CheckpointError)


def test_a_changed_byte_where_there_are_checksums(originals, tmp_path):
    for format in ("tf1", "megatron"):
        folder = tmp_path / format
        shutil.copytree(originals / format, folder)
        assert bert4x.load(folder, verify=True) is not None
        file = folder / WEIGHTS[format]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        refused(folder, errors.CorruptFileError, match=r"checksum|CRC|crc")
        with pytest.raises(errors.CorruptFileError, match=r"checksum|CRC|crc"):
            bert4x.load(folder, verify=True)


def test_places_without_weights(tmp_path):
    for name in ("no", "no/such/folder", "x" * 300, "x" * 5000, "nul\0byte"):
        with pytest.raises(errors.CheckpointNotFoundError, match="does not exist"):
            bert4x.load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", errors.CheckpointNotFoundError, match=r"holds nothing; expected model\.safetensors")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"\xff\xd8\xff")
    refused(tmp_path / "photos", errors.CheckpointNotFoundError, match=r"cat\.jpg")
    refused(tmp_path / "photos/cat.jpg", errors.UnknownFormatError, match="no format known here")
    with pytest.raises(errors.CheckpointNotFoundError, match="empty"):
        bert4x.load("")


def test_pipes_do_not_hang(originals, tmp_path):
    """Opening one would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", errors.CheckpointNotFoundError, match="no regular file")
    folder = tmp_path / "a"
    shutil.copytree(originals / "hf", folder)
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        refused(folder, errors.Bert4xError)
        (folder / name).unlink()
        shutil.copy(originals / "hf" / name, folder)
    for name in ("other.safetensors", "bert_model.ckpt.index", "mp_rank_00_model_states.pt"):
        (tmp_path / f"{name}-pipe").mkdir()
        os.mkfifo(tmp_path / f"{name}-pipe" / name)
        refused(tmp_path / f"{name}-pipe", errors.CheckpointError)


def test_very_many_tensors(originals, tmp_path):
    """A hostile header costs time in proportion to its size; so does writing small tensors."""
    shutil.copytree(originals / "hf", tmp_path / "a")
    one = np.zeros(1, "f4")
    many = [from_array(f"bert.encoder.layer.{i}.output.dense.weight", one) for i in range(5_000)]
    begin = time.process_time()
    write_safetensors(tmp_path / "a/model.safetensors", many)
    refused(tmp_path / "a", errors.TensorMismatchError, match="and 5.* more")
    assert time.process_time() - begin < 5


def test_no_config(damaged):
    folder, _ = damaged
    for path in folder.glob("*.json"):
        path.unlink()
    refused(folder, errors.ConfigError, match="no config file beside the weights")


def test_config_contradicts_the_tensors(damaged):
    """The tensor is named, with both shapes."""
    folder, _ = damaged
    original = next(folder.glob("*.json")).read_text()
    bert = [
        ({"vocab_size": 96}, "97", "96"),
        ({"hidden_size": 70}, "35", "70"),
        ({"intermediate_size": 50}, "53", "50"),
    ]
    gpt2 = [
        ({"vocab_size": 92}, "45", "46"),
        ({"hidden_size": 84}, "42", "84"),
        ({"intermediate_size": 50}, "27", "25"),
    ]
    for changes, *words in gpt2 if (folder / "1").is_dir() else bert:  # two ranks there
        next(folder.glob("*.json")).write_text(original)
        change_config(folder, **changes)
        with pytest.raises(errors.TensorMismatchError) as caught:
            bert4x.load(folder)
        assert "shape" in str(caught.value)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    for layers, word in ((2, "unexpected"), (4, "missing; expected shape")):
        next(folder.glob("*.json")).write_text(original)
        change_config(folder, num_hidden_layers=layers)
        refused(folder, errors.TensorMismatchError, match=word)


def test_config_values(damaged):
    folder, _ = damaged
    original = next(folder.glob("*.json")).read_text()
    for changes in (
        {"hidden_size": "35"}, {"num_hidden_layers": 10**9}, {"vocab_size": "absent"}, {"num_attention_heads": 4},
        {"num_attention_heads": 0}, {"hidden_act": "gelu_of_mine"}, {"hidden_act": None, "vocab_size": None},
        {"vocab_size": 2**31 - 1}, {"vocab_size": 10**40}, {"max_position_embeddings": 2**31 - 1, "max_position": 1e99},
    ):  # fmt: skip
        next(folder.glob("*.json")).write_text(original)
        change_config(folder, **changes)
        with pytest.raises(errors.Bert4xError):
            bert4x.load(folder)
    next(folder.glob("*.json")).write_text("[]")
    refused(folder, errors.CorruptFileError, match="expected an object")


def test_missing_extra_and_misshapen_tensors(hf):
    folder, arrays, rewrite = hf
    name = "bert.encoder.layer.1.output.dense.weight"
    rewrite({key: value for key, value in arrays.items() if key != name})
    refused(folder, errors.TensorMismatchError, match=re.escape(f"{name}: missing; expected shape (35, 53)"))
    rewrite(arrays | {name: arrays[name][:, :50]})
    refused(
        folder, errors.TensorMismatchError, match=re.escape(f"{name}: shape (35, 50), but the config says (35, 53)")
    )
    rewrite(arrays | {name: arrays[name][None]})
    refused(folder, errors.TensorMismatchError, match=re.escape("(1, 35, 53)"))
    rewrite(arrays | {name: arrays[name].T})
    refused(folder, errors.TensorMismatchError, match=re.escape("(53, 35)"))
    rewrite(arrays | {"bert.encoder.layer.1.adapter.weight": arrays[name]})
    refused(folder, errors.TensorMismatchError, match=re.escape("bert.encoder.layer.1.adapter.weight: unexpected"))
    partial = {key: value for key, value in arrays.items() if key != "cls.predictions.transform.dense.bias"}
    rewrite(partial)
    refused(folder, errors.TensorMismatchError, match=re.escape("cls.predictions.transform.dense.bias: missing"))


def test_not_strict(hf):
    """What is missing starts at random, and a warning names it; nothing else changes."""
    folder, arrays, rewrite = hf
    name = "bert.encoder.layer.1.output.dense.weight"
    rewrite({key: value for key, value in arrays.items() if key != name} | {"bert.more": np.zeros(3, "f4")})
    with pytest.warns(UserWarning, match=r"Transformer-1-FeedForward/output/kernel"):
        model = bert4x.load(folder, strict=False)
    assert model.load_report.missing == [f"{name}: missing; expected shape (35, 53)"]
    assert model.load_report.unexpected == ["bert.more: unexpected"]
    for variable in model.variables:
        if variable.path == "Transformer-1-FeedForward/output/kernel":
            assert 0 < np.abs(np.array(variable.value)).max() < 0.1
        elif variable.path == "Transformer-2-FeedForward/output/kernel":
            assert np.array_equal(np.array(variable.value), arrays[name.replace("layer.1", "layer.2")].T)


def test_tensors_that_are_there_twice(hf):
    folder, arrays, rewrite = hf
    gamma, weight = ("bert.embeddings.LayerNorm." + name for name in ("gamma", "weight"))
    bias, decoder = "cls.predictions.bias", "cls.predictions.decoder.bias"
    rewrite(arrays | {gamma: arrays[weight], decoder: arrays[bias]})
    assert not open_checkpoint(folder).report.problems
    bert4x.load(folder)
    rewrite(arrays | {decoder: arrays[bias] + 1})
    refused(folder, errors.TensorMismatchError, match=rf"'{decoder}'.*are one tensor, but differ|'{bias}'.*differ")
    rewrite(arrays | {gamma: -arrays[weight]})
    refused(folder, errors.TensorMismatchError, match="are one tensor, but differ")
    rewrite(arrays | {"embeddings.word_embeddings.weight": arrays["bert.embeddings.word_embeddings.weight"][:5]})
    refused(folder, errors.TensorMismatchError, match="are one tensor, but differ")


def test_weights_that_are_not_numbers_of_a_kind(hf):
    """Quantized files hold integers under the usual names: taken as weights, they would be nonsense."""
    folder, arrays, rewrite = hf
    name = "bert.encoder.layer.1.output.dense.weight"
    for dtype in ("i1", "u1", "i4", "i8", "bool"):
        rewrite(arrays | {name: arrays[name].astype(dtype)})
        refused(folder, errors.TensorMismatchError, match=rf"{re.escape(name)}: .*int|bool")


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(dtype, value, originals, tmp_path):
    dtype = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    config = config_of()
    weights = {path: x.astype(dtype) for path, x in draw(config).items()}
    path = "Transformer-2-FeedForward/output/bias"
    weights[path][-1] = value
    folder = write_checkpoint(tmp_path / "a", "hf", config, weights)
    refused(folder, errors.NotFiniteError, match=rf"{path} has 1 values that are NaN or infinite")
    with pytest.raises(errors.NotFiniteError, match=path):
        bert4x.load(folder, strict=False)


class Evil:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('pwned').write_text('x')",)


def test_pickles_that_run_code(originals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pytorch_model.bin", "model.pt"):
        folder = tmp_path / name.split(".")[0]
        shutil.copytree(originals / "hf", folder)
        (folder / "model.safetensors").unlink()
        tensors = open_checkpoint(originals / "hf").tensors.values()
        write_torch(folder / name, tensors)
        bert4x.load(folder)
        for content in (pickle.dumps(Evil()), pickle.dumps({"w": Evil()}, 2)):
            (folder / name).write_bytes(content)
            refused(folder, errors.CheckpointError)
            assert not (tmp_path / "pwned").exists()
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    (folder / name).write_bytes(legacy + pickle.dumps({"w": Evil()}, 2))
    refused(folder, errors.UnsafeFileError, match="eval")
    assert not (tmp_path / "pwned").exists()


def test_a_keras_file_that_unpacks_to_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(1 << 25))
    with pytest.raises(errors.UnsafeFileError, match="zip bomb"):
        bert4x.load(tmp_path / "a.keras")


def test_ranks(originals, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(originals / "megatron", folder)
    first, second = (folder / f"1/mp_rank_0{rank}_model_states.pt" for rank in (0, 1))
    second.rename(folder / "1/mp_rank_02_model_states.pt")
    refused(folder, errors.CheckpointNotFoundError, match=r"ranks \[0, 2\], but lacks \[1\]")
    (folder / "1/mp_rank_02_model_states.pt").rename(second)
    other = write_checkpoint(tmp_path / "b", "megatron", config_of("gpt2", max_position=31), shards=2)
    shutil.copy(other / "1/mp_rank_01_model_states.pt", second)
    refused(folder, errors.TensorMismatchError, match=r"position_embeddings\.weight.*29.*31")
    other = write_checkpoint(tmp_path / "c", "megatron", config_of("gpt2", num_hidden_layers=2), shards=2)
    shutil.copy(other / "1/mp_rank_01_model_states.pt", second)
    refused(folder, errors.TensorMismatchError, match="not in all ranks")
    second.unlink()  # one of two ranks, the other forgotten: the sizes tell
    refused(folder, errors.TensorMismatchError, match=r"word_embeddings\.weight: shape \(45, 42\).*\(90, 42\)")
    first.unlink()
    refused(folder, errors.CheckpointNotFoundError, match="mp_rank_XX_model_states")
    (folder / "latest_checkpointed_iteration.txt").write_text("../../etc")
    refused(folder, errors.CheckpointError)


def test_families_that_are_asked_for_but_not_there(originals):
    for model in ("gpt2", "albert", "albert_unshared"):
        with pytest.raises(errors.ConfigError, match=f"bert checkpoint; it cannot be loaded as model='{model}'"):
            bert4x.load(originals / "hf", model=model)
    with pytest.raises(errors.UnknownArchitectureError, match="did you mean 'bert'"):
        bert4x.load(originals / "hf", model="berrt")
    with pytest.raises(errors.UnknownArchitectureError, match="did you mean 'unilm'"):
        bert4x.load(originals / "hf", "unlm")
    with pytest.raises(errors.UnknownOptionError, match="did you mean 'with_mlm'"):
        bert4x.load(originals / "hf", with_mln=True)
    with pytest.raises(errors.ConfigError, match="float12"):
        bert4x.load(originals / "hf", dtype="float12")
    with pytest.raises(errors.ConfigError, match="wobbly"):
        bert4x.load(originals / "hf", with_mlm="wobbly")


def test_options_of_a_wrong_kind(originals):
    for options in (
        {"keep_tokens": 5}, {"keep_tokens": "abc"}, {"keep_tokens": []}, {"keep_tokens": [97]}, {"keep_tokens": [-1]},
        {"keep_tokens": [1.5]}, {"compound_tokens": [[97]]}, {"compound_tokens": [[]]}, {"compound_tokens": 3},
        {"compound_tokens": [([1, 2], [1.0])]}, {"compound_tokens": [([1, 2], [1.0, -1.0])]},
        {"compound_tokens": [([1, 2], ["a", "b"])]}, {"num_hidden_layers": "3"}, {"hidden_size": 0},
        {"max_position": 40}, {"vocab_size": 50}, {"num_hidden_layers": 4}, {"segment_vocab_size": 5},
    ):  # fmt: skip
        with pytest.raises(errors.Bert4xError):
            bert4x.load(originals / "bert4x", **options)


def test_a_head_the_checkpoint_lacks(tmp_path):
    config = config_of()
    folder = write_checkpoint(tmp_path / "a", "tf1", config, draw(config, heads=False))
    bert4x.load(folder)
    with pytest.raises(errors.TensorMismatchError, match="MLM-Dense/kernel: missing"):
        bert4x.load(folder, with_mlm=True)
    with pytest.raises(errors.TensorMismatchError, match="Pooler-Dense/kernel: missing"):
        bert4x.load(folder, "lm", with_mlm=False, with_pool=True)
    with pytest.warns(UserWarning, match="MLM-Bias/bias"):
        model = bert4x.load(folder, with_mlm=True, strict=False)
    assert model(np.ones((1, 3), int)).shape == (1, 3, 97)


@pytest.mark.compiled  # `predict` must look before: compiled code cannot raise
def test_inputs_a_model_cannot_take(originals):
    bert = bert4x.load(originals / "bert4x")
    gpt2 = bert4x.load(originals / "megatron")
    ids, zeros = np.ones((2, 5), "int32"), np.zeros((2, 5), "int32")
    long = np.ones((1, 30), "int32")
    bad = [
        (bert, [ids + 96, zeros], "token id 97 is outside the table of 97"),
        (bert, [ids - 2, zeros], "token id -1"),
        (bert, {"token_ids": ids + 96}, "token id 97"),
        (bert, {"token_ids": ids, "segment_ids": zeros + 2}, "segment id 2 is outside the table of 2"),
        (bert, {"token_ids": ids, "segment_ids": zeros - 1}, "segment id -1"),
        (bert, [long, 0 * long], "sequence of 30 tokens, but this model has positions for 29"),
        (bert, {"token_ids": long}, "positions for 29"),
        (gpt2, ids + 89, "token id 90"),
        (gpt2, {"token_ids": long}, "positions for 29"),
    ]
    for model, inputs, message in bad:
        for call in (model, lambda x, m=model: m.predict(x, verbose=0), model.predict_on_batch):
            with pytest.raises(errors.InputError, match=message):
                call(inputs)
    for inputs in ([[[1, 2], [3]]], {"token_ids": [[1, 2], [3]]}):
        with pytest.raises(errors.InputError, match="rows of different lengths"):
            bert(inputs)
    shorter = np.ones((2, 4), int)
    for inputs in (
        [ids, shorter],
        {"token_ids": ids, "segment_ids": shorter},
        {"token_ids": ids, "padding_mask": shorter},
    ):
        for call in (bert, bert.predict_on_batch):
            with pytest.raises(errors.InputError, match=r"has shape \(2, 4\), the token ids have \(2, 5\)"):
                call(inputs)
    with pytest.raises(errors.InputError, match="token ids are <U1; expected integers"):
        bert(np.array([["a"]]))
    for inputs in (ids[0], ids[:, :0], [ids[None], zeros]):
        for call in (bert, bert.predict_on_batch):
            with pytest.raises(errors.InputError, match=r"expected \(batch, length\)"):
                call(inputs)
    for inputs in ({"token_id": ids}, {"segment_ids": ids}, {}, [ids, ids, ids], {"token_ids": ids, "mask": ids}):
        with pytest.raises(errors.InputError):
            bert(inputs)


@pytest.mark.compiled
def test_ids_in_training(originals):
    model = bert4x.load(originals / "bert4x", with_pool=True)
    model.compile("sgd", "mse")
    ids, zeros, targets = np.ones((2, 5), "int32"), np.zeros((2, 5), "int32"), np.zeros((2, 35), "float32")
    model.fit({"token_ids": ids, "segment_ids": zeros}, targets, verbose=0)
    for call in (lambda x: model.fit(x, targets, verbose=0), lambda x: model.train_on_batch(x, targets)):
        with pytest.raises(errors.InputError, match="token id 100"):
            call([ids + 99, zeros])
    with pytest.raises(errors.InputError, match="token id 100"):
        model.evaluate([ids + 99, zeros], targets, verbose=0)


def test_no_path_gives_random_weights(originals, tmp_path, monkeypatch):
    """Whatever is asked of `load`, every variable is read, or there is an error."""
    from bert4x.checkpoints.weights import Weights

    given = []
    call = Weights.__call__

    def recorded(self, path, *args):
        values = call(self, path, *args)
        if values is not None:
            given.append(path)
        return values

    monkeypatch.setattr(Weights, "__call__", recorded)
    for format, family in FORMATS.items():
        for options in (
            {},
            {"with_mlm": True},
            {"application": "unilm"},
            {"dtype": "bfloat16"},
            {"num_hidden_layers": 2},
        ):
            if family == "bert":
                options = options | {"with_nsp": True}
            given.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                model = bert4x.load(originals / format, **options)
            paths = [v.path for v in model.variables if "seed_generator" not in v.path]
            assert sorted(given) == sorted(paths)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_ids_that_are_no_integers(hf, value):
    model = bert4x.load(hf[0])
    ids, segments = np.array([[2.0, value, 3.0]]), np.zeros((1, 3), int)
    for use in (model, model.predict, model.predict_on_batch):
        with pytest.raises(errors.InputError, match=r"expected integers|outside the table"):
            use([ids, segments])
    whole = np.array([[2.0, 1.0, 3.0]])  # as some pipelines of data give them
    expected = model.predict([whole.astype(int), segments], verbose=0)
    np.testing.assert_array_equal(model.predict([whole, segments], verbose=0), expected)


def test_empty_batches(hf):
    model, nothing = bert4x.load(hf[0]), np.zeros((0, 3), int)
    for use in (model.predict, model.predict_on_batch):
        with pytest.raises(errors.InputError, match="the batch is empty"):
            use([nothing, nothing])


@pytest.mark.parametrize("options", [{"num_beams": 10**6}, {"num_return_sequences": 10**6}, {"num_beams": 2.5}])
def test_more_beams_than_any_memory_holds(options):
    with pytest.raises(errors.GenerationError, match="a whole number, at least 1, at most"):
        GenerationOptions(**options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5, None, "x"])
def test_odd_numbers_for_a_tokenizer(value):
    tokenizer = bert4x.load_tokenizer()
    for use in (tokenizer.ids_to_tokens, tokenizer.decode):
        with pytest.raises(errors.TokenizerError, match="id"):
            use([2, value])
    if value is not None:
        with pytest.raises(errors.TokenizerError, match="maxlen"):
            tokenizer.encode("今天天气", maxlen=value)
