"""What `load` finds: other libraries' files, wherever they lie, on every backend; and what others find in ours."""

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import transformers_models
from battery import array, close
from conftest import VOCABULARY
from make_checkpoints import assert_same_bits, config_of, draw, open_checkpoint, read_all, write_checkpoint
from random_models import random_inputs, tiny_config

import bert4x
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import ConfigError

PRETRAINING = [("bert", "BertForPreTraining"), ("albert", "AlbertForPreTraining"), ("gpt2", "GPT2LMHeadModel")]
CLASSES = [
    *PRETRAINING,
    ("bert", "BertModel"), ("bert", "BertForMaskedLM"), ("bert", "BertForSequenceClassification"),
    ("albert", "AlbertModel"), ("albert", "AlbertForMaskedLM"), ("gpt2", "GPT2Model"),
]  # fmt: skip


@pytest.mark.parametrize("family, name", CLASSES, ids=[name for _, name in CLASSES])
def test_classes_of_transformers(family, name, tmp_path):
    """What save_pretrained leaves of each class: one file, shards, and torch.save in both serializations."""
    config = tiny_config(family, hidden_act="gelu_erf" if family == "bert" else "gelu_tanh")
    whole = transformers_models.random_model(config)
    import torch
    import transformers

    whole.save_pretrained(tmp_path / "whole")
    model = getattr(transformers, name).from_pretrained(tmp_path / "whole", attn_implementation="eager").eval()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded/model.safetensors.index.json").is_file()
    for kind in ("zip", "legacy"):
        (tmp_path / kind).mkdir()
        shutil.copy(tmp_path / "one/config.json", tmp_path / kind)
        path = tmp_path / kind / "pytorch_model.bin"
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    inputs = random_inputs(config)
    real = inputs["padding_mask"]
    expected = transformers_models.outputs(whole, inputs)["hidden"]
    expected_weights = None
    for folder in ("one", "sharded", "zip", "legacy"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = bert4x.load(tmp_path / folder, "encoder")
        close(array(found(inputs))[real], expected[real])
        weights = read_all(tmp_path / folder)
        assert_same_bits(weights, expected_weights or weights)
        expected_weights = weights
    heads = {path.split("-")[0] for path in expected_weights} & {"Pooler", "NSP", "MLM"}
    assert heads == {
        "BertModel": {"Pooler"}, "BertForMaskedLM": {"MLM"}, "BertForSequenceClassification": {"Pooler"},
        "AlbertModel": {"Pooler"}, "AlbertForMaskedLM": {"MLM"},
        "GPT2Model": set(), "GPT2LMHeadModel": set(),
    }.get(name, {"Pooler", "NSP", "MLM"})  # fmt: skip
    assert bool(open_checkpoint(tmp_path / "one").report.stray) == ("Classification" in name)


@pytest.mark.parametrize("family, name", PRETRAINING, ids=[name for _, name in PRETRAINING])
@pytest.mark.parametrize("shards", [None, 3])
def test_transformers_loads_what_convert_wrote(family, name, shards, tmp_path):
    pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    # 4 * hidden_size differs from transformers' default of 3072: the file must say it
    config = config_of(family, intermediate_size=140 if family != "gpt2" else 168, layer_norm_eps=1e-6)
    source = write_checkpoint(tmp_path / "a", "tf1", config)
    (source / "vocab.txt").write_text(
        "".join(f"{t}\n" for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "国"))
    )
    target = bert4x.convert(source, tmp_path / "b", "hf", shards=shards)
    model, info = getattr(transformers, name).from_pretrained(target, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    inputs = random_inputs(tiny_config(vocab_size=config.vocab_size))
    real = inputs["padding_mask"]
    expected = transformers_models.outputs(model.eval(), inputs)
    options = {} if family == "gpt2" else {"with_nsp": True, "with_mlm": True}
    found = keras.tree.flatten(bert4x.load(target, **options)(inputs))
    names = ["lm_logits"] if family == "gpt2" else ["nsp_logits", "mlm_logits"]
    for output, key in zip(found, names, strict=True):
        at = real if expected[key].shape[:2] == real.shape else ...
        close(array(output)[at], expected[key][at])
    if family == "bert":
        tokenizer = transformers.AutoTokenizer.from_pretrained(target)
        assert tokenizer("中国[MASK]")["input_ids"] == [2, 5, 6, 4, 3]
        assert bert4x.load(target).tokenizer.encode("中国[MASK]")[0] == [2, 5, 6, 4, 3]


def test_tensorflow_reads_what_convert_wrote(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    for family in ("bert", "albert", "gpt2"):
        config = config_of(family)
        source = write_checkpoint(tmp_path / f"{family}-hf", "hf", config)
        target = bert4x.convert(source, tmp_path / family, "tf1")
        reader = tensorflow.train.load_checkpoint(str(next(target.glob("*.index"))).removesuffix(".index"))
        shapes = reader.get_variable_to_shape_map()
        weights = draw(config)
        if family == "gpt2":
            qkv = [weights[f"Transformer-1-MultiHeadSelfAttention/{name}/kernel"] for name in ("query", "key", "value")]
            assert np.array_equal(reader.get_tensor("model/h1/attn/c_attn/w")[0], np.concatenate(qkv, 1))
            assert shapes["model/wte"] == [90, 42] and len(shapes) == 4 + 12 * 3
            continue
        ours = "Transformer-1-" if family == "bert" else "Transformer-"
        theirs = "layer_1" if family == "bert" else "transformer/group_0/inner_group_0"
        part = "attention" if family == "bert" else "attention_1"
        kernel = reader.get_tensor(f"bert/encoder/{theirs}/{part}/self/key/kernel")
        assert np.array_equal(kernel, weights[f"{ours}MultiHeadSelfAttention/key/kernel"])
        assert np.array_equal(reader.get_tensor("cls/seq_relationship/output_weights"), weights["NSP-Proba/kernel"].T)
        assert np.array_equal(reader.get_tensor("cls/predictions/output_bias"), weights["MLM-Bias/bias"])


def test_the_vocabulary_knows_the_padding_id(tmp_path):
    """hfl's RoBERTa-wwm-ext says pad_token_id 1; [PAD] is 0. After trimming it may be anything."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of(vocab_size=8))
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"pad_token_id": 1}))
    assert bert4x.load(folder).config.pad_token_id == 0
    tokens = ["a", "b", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "c"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    for model in (bert4x.load(folder), bert4x.build_transformer_model(checkpoint_path=folder)):
        assert model.config.pad_token_id == 2


def test_unshared_albert(tmp_path):
    """Equal at load, different after a step, as many times the parameters of a layer as there are layers."""
    config = config_of("albert", dropout_rate=0.0, attention_dropout_rate=0.0)
    source = write_checkpoint(tmp_path / "a", "tf1", config)
    inputs = random_inputs(tiny_config())
    shared = bert4x.load(source, with_nsp=True, with_mlm=True)
    unshared = bert4x.build_transformer_model(
        checkpoint_path=source, model="albert_unshared", with_nsp="linear", with_mlm="linear"
    )
    for a, b in zip(shared(inputs), unshared(inputs), strict=True):
        close(a, array(b), 0)
    block = sum(math.prod(v.shape) for v in shared.trainable_variables if v.path.startswith("Transformer-"))
    assert unshared.count_params() - shared.count_params() == (config.num_hidden_layers - 1) * block

    encoder = bert4x.load(source, model="albert_unshared")
    bert4x.convert(bert4x.save(encoder, tmp_path / "untrained"), tmp_path / "shared-again", "hf")
    encoder.compile(keras.optimizers.Adam(1e-2), "mse")
    encoder.fit([inputs["token_ids"], inputs["segment_ids"]], np.zeros((3, 13, 35)), verbose=0)
    trained = {v.path: array(v) for v in encoder.trainable_variables}
    for name in ("MultiHeadSelfAttention/query/kernel", "FeedForward/output/bias", "FeedForward-Norm/gamma"):
        a, b, c = (trained[f"Transformer-{i}-{name}"] for i in range(3))
        assert not (np.array_equal(a, b) or np.array_equal(b, c) or np.array_equal(a, c))
    saved = bert4x.save(encoder, tmp_path / "trained")
    with pytest.raises(bert4x.Bert4xError, match="this albert_unshared was trained"):
        bert4x.convert(saved, tmp_path / "refused", "hf")
    with pytest.raises(bert4x.Bert4xError, match="this albert_unshared was trained"):
        bert4x.save(encoder, tmp_path / "refused", "tf1")
    assert not (tmp_path / "refused").exists()
    close(bert4x.load(saved)(inputs), array(encoder(inputs)), 0)


def test_places_of_files(tmp_path):
    """The folder, the file, the prefix, any file of the checkpoint, an unpacked archive's outer folder."""
    bert = write_checkpoint(tmp_path / "bert" / "inner", "tf1", config_of())
    expected = read_all(bert)
    for path in (
        bert, bert.parent, bert / "bert_model.ckpt", bert / "bert_model.ckpt.index",
        bert / "bert_model.ckpt.data-00000-of-00001", str(bert), os.path.relpath(bert),
    ):  # fmt: skip
        assert_same_bits(read_all(path), expected)
    cpm = write_checkpoint(tmp_path / "cpm", "megatron", config_of("gpt2"), shards=2)
    for path in (cpm, cpm / "1", cpm / "1/mp_rank_00_model_states.pt", cpm / "1/mp_rank_01_model_states.pt"):
        assert_same_bits(read_all(path), draw(config_of("gpt2")))
    hf = write_checkpoint(tmp_path / "hf", "hf", config_of())
    tensors = list(open_checkpoint(hf).tensors.values())
    for name in ("pytorch_model.bin", "whatever.pt", "odd.pth"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        write_torch(folder / name, tensors)
        shutil.copy(hf / "config.json", folder / "bert_config_tiny.json")
        assert_same_bits(read_all(folder), expected)
        assert_same_bits(read_all(folder / name), expected)


def test_config_given_by_hand(tmp_path):
    config = config_of()
    folder = write_checkpoint(tmp_path / "a", "tf1", config)
    data = json.loads((folder / "bert_config.json").read_text())
    (folder / "bert_config.json").rename(tmp_path / "elsewhere.json")
    for given in (tmp_path / "elsewhere.json", data, config):
        assert open_checkpoint(folder, given).config == config
        assert bert4x.load(folder, config=given).config == config
    two = {"a_config.json", "b_config.json"}
    for name in two:
        shutil.copy(tmp_path / "elsewhere.json", folder / name)
    with pytest.raises(ConfigError, match=r"several config files.*a_config\.json, b_config\.json"):
        bert4x.load(folder)


def test_header_lengths_of_all_kinds(tmp_path):
    """The first byte of a safetensors file is a length; it may look like the beginning of a pickle, or of a zip."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    tensors = list(open_checkpoint(folder).tensors.values())
    arrays = [from_array(tensor.name, np.array(tensor.read())) for tensor in tensors]
    seen = set()
    for padding in range(0, 256, 8):
        write_safetensors(folder / "model.safetensors", arrays, {"format": "pt", "note": "x" * padding})
        seen.add((folder / "model.safetensors").read_bytes()[0])
        assert len(open_checkpoint(folder).entries) == len(arrays)
    assert 0x80 in seen and len(seen) > 30


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    if keras.backend.backend() == backend:
        pytest.skip("this run is on it already")
    source = write_checkpoint(tmp_path / "a", "hf", config_of(), draw(config_of(), "float16"))
    expected = bert4x.load(source, with_nsp=True, with_mlm=True)(np.ones((2, 5), int))
    np.savez(tmp_path / "expected.npz", *map(array, expected))
    program = (
        "import numpy as np, keras, bert4x\n"
        "model = bert4x.load('a', with_nsp=True, with_mlm=True)\n"
        "expected = np.load('expected.npz').values()\n"
        "found = map(keras.ops.convert_to_numpy, model(np.ones((2, 5), int)))\n"
        "predicted = model.predict(np.ones((2, 5), int), verbose=0)\n"
        "for a, b, c in zip(expected, found, predicted, strict=True):\n"
        "    assert abs(a - b).max() < 2e-5 and abs(a - c).max() < 2e-5\n"
        "for bad in (np.full((2, 5), 97), -np.ones((2, 5), int), np.ones((1, 30), int)):\n"
        "    for call in (model, model.predict_on_batch):\n"
        "        try: call(bad)\n"
        "        except bert4x.Bert4xError: pass\n"
        "        else: raise SystemExit('bad ids were taken')\n"
        "bert4x.save(model, 'b', 'tf1')\n"
        "print(keras.backend.backend(), bert4x.verify('a', 'b'))\n"
    )
    root = str(Path(bert4x.__file__).parents[1])
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": root}
    command = [sys.executable, "-c", program]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert f"{backend} {{'hidden': 0.0, 'with_pool': 0.0, 'with_nsp': 0.0, 'with_mlm': 0.0}}" in run.stdout


def test_a_gpt2_over_berts_vocabulary_says_that_prompts_are_read_without_cls(tiny):
    folder = tiny("uer", "gpt2")
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"start_id=2\)"):
        bert4x.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert4x.load(folder, application="encoder")
