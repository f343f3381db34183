"""Checkpoints as the world has them: other names, other heads, other libraries' files, and nothing forgotten."""

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
from make_checkpoints import assert_same_bits, config_of, draw, read_all, write_checkpoint
from random_models import random_inputs, tiny_config

import bert4x
from bert4x.checkpoints.checkpoint import open_checkpoint
from bert4x.checkpoints.files import Files
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.tf1_bundle import write_tf1
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.errors import ConfigError, TensorMismatchError, UnknownFormatError

SHARED = Path(__file__).parents[2] / "shared" / "data"
CONFIGS = {
    "chinese_rbt3": {"hidden_size": 768, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 3072},
    "albert_small_zh_google": {
        "hidden_size": 384, "embedding_size": 128, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536, "num_hidden_groups": 1, "inner_group_num": 1, "net_structure_type": 0,
    },
    "albert_tiny_brightmart": {
        "hidden_size": 312, "embedding_size": 128, "num_hidden_layers": 4, "num_attention_heads": 12,
        "intermediate_size": 1248,
    },
}  # fmt: skip
COMMON = {"vocab_size": 21128, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu"}


def inventory(name):
    path = SHARED / "checkpoints" / "inventories" / f"{name}.json"
    if not path.is_file():
        pytest.skip("the inventories of published checkpoints are not beside this checkout")
    return {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Opens an inventory as if the file were there: names and shapes as published, all values 0."""

    def make(name):
        tensors = {
            key: LazyTensor(key, shape, np.dtype("f4"), lambda shape=shape: np.zeros(shape, "f4"))
            for key, shape in inventory(name).items()
        }
        (tmp_path / "bert_model.ckpt.index").touch()
        (tmp_path / "bert_config.json").write_text(json.dumps(COMMON | CONFIGS[name]))
        monkeypatch.setattr(Files, "read", lambda self: tensors)
        return tmp_path

    return make


def test_rbt3(published):
    """hfl's 3-layer RoBERTa carries the heads of another task."""
    path = published("chinese_rbt3")
    found = bert4x.inspect(path)
    assert (found.family, found.format) == ("bert", "tf1")
    strays = ["key", "query", "value"]
    strays = [f"cls/predictions/{name}/{kind}" for name in strays for kind in ("bias", "kernel")]
    assert sorted(found.stray) == sorted([*strays, "cls/predictions/output_prev_bias"])
    assert found.ignored == ["global_step"]
    weights = [shape for name, shape in inventory("chinese_rbt3").items() if name not in [*found.stray, "global_step"]]
    assert found.parameters == sum(map(math.prod, weights))
    assert not found.missing + found.unexpected + found.misshapen + found.duplicate + found.absent_heads


def test_albert_small(published):
    """Its optimizer slots outnumber its weights."""
    found = bert4x.inspect(published("albert_small_zh_google"))
    assert (found.family, found.config["hidden_act"], found.config["embedding_mapping"]) == (
        "albert",
        "gelu_tanh",
        True,
    )
    assert len(found.ignored) > 60 and all("adam" in name or name == "global_step" for name in found.ignored)
    assert not found.missing + found.unexpected + found.misshapen + found.duplicate + found.absent_heads + found.stray
    assert found.parameters == sum(
        math.prod(shape) for name, shape in inventory("albert_small_zh_google").items() if name not in found.ignored
    )


def test_brightmart_is_refused_by_name(published):
    with pytest.raises(UnknownFormatError, match=r"brightmart's early ALBERT.*'_google' version"):
        bert4x.load(published("albert_tiny_brightmart"))


@pytest.mark.parametrize("name", ["chinese_rbt3", "albert_small_zh_google"])
def test_published_names_at_a_smaller_size(name, tmp_path):
    """The same inventories on disk and through a model, with every size made small."""
    sizes = {21128: 40, 768: 24, 3072: 30, 512: 9, 1536: 48, 384: 36, 128: 11}
    generator = np.random.default_rng(0)
    tensors = [
        from_array(key, generator.standard_normal([sizes.get(n, n) for n in shape]).astype("f4"))
        for key, shape in inventory(name).items()
    ]
    write_tf1(tmp_path / "bert_model.ckpt", tensors)
    config = {key: sizes.get(value, value) for key, value in (COMMON | CONFIGS[name]).items()}
    (tmp_path / "bert_config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nsp, mlm = bert4x.load(tmp_path, with_nsp=True, with_mlm=True)(np.ones((1, 3), int))
    assert nsp.shape == (1, 2) and mlm.shape == (1, 3, 40)
    written = {tensor.name: tensor.read() for tensor in tensors}
    found = bert4x.load(tmp_path).get_layer("Embedding-Token").embeddings
    assert np.array_equal(array(found), written["bert/embeddings/word_embeddings"])


@pytest.fixture
def hf(tmp_path):
    """Tensors of a Hugging Face BERT by name, and a function that writes others beside its config and loads them."""
    config = config_of()
    folder = write_checkpoint(tmp_path / "a", "hf", config)
    arrays = {name: np.array(t.read()) for name, t in open_checkpoint(folder).tensors.items()}
    expected = read_all(folder)

    def check(changed, heads=True):
        write_safetensors(folder / "model.safetensors", [from_array(name, x) for name, x in changed.items()])
        wanted = {path: x for path, x in expected.items() if heads or not path.startswith(("MLM", "NSP", "Pooler"))}
        assert_same_bits(read_all(folder), wanted)
        return open_checkpoint(folder).report

    return arrays, check


def test_old_and_other_names(hf):
    arrays, check = hf
    decoder = arrays["bert.embeddings.word_embeddings.weight"]
    bias = arrays["cls.predictions.bias"]
    replaced = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in arrays.items()
    }
    for changed in (
        replaced,
        {name.removeprefix("bert."): x for name, x in arrays.items()},
        {name.removeprefix("bert."): x for name, x in replaced.items()},
        {f"module.{name}": x for name, x in arrays.items()},
        arrays | {"cls.predictions.decoder.weight": decoder, "cls.predictions.decoder.bias": bias},
        {name.replace("predictions.bias", "predictions.decoder.bias"): x for name, x in arrays.items()},
    ):
        report = check(changed)
        assert not report.problems + report.stray + report.ignored + report.absent_heads
    report = check(arrays | {"bert.embeddings.position_ids": np.arange(29)[None]})
    assert report.ignored == ["bert.embeddings.position_ids"] and not report.problems
    task = {"classifier.weight": np.zeros((2, 35), "f4"), "classifier.bias": np.zeros(2, "f4")}
    report = check(arrays | task)
    assert sorted(report.stray) == sorted(task) and not report.problems
    report = check({name: x for name, x in arrays.items() if name.startswith("bert.e")}, heads=False)
    assert len(report.absent_heads) == 9 and not report.problems


def test_real_roberta_is_refused_by_name(tmp_path):
    """Its tensors fit; its position ids do not."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    arrays = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    named = [from_array(name.replace("bert.", "roberta."), x) for name, x in arrays.items()]
    write_safetensors(folder / "model.safetensors", named)
    with pytest.raises(UnknownFormatError, match="RoBERTa as fairseq built it"):
        bert4x.load(folder)


def test_training_checkpoints_of_pytorch(tmp_path):
    """The weights lie under a key of a larger dict, often with the optimizer's."""
    torch = pytest.importorskip("torch", reason="writes PyTorch files")
    for family in ("bert", "albert", "gpt2"):
        folder = write_checkpoint(tmp_path / family, "hf", config_of(family))
        state = {t.name: torch.tensor(np.array(t.read())) for t in open_checkpoint(folder).tensors.values()}
        (folder / "model.safetensors").unlink()
        for whole in (
            {"state_dict": state, "epoch": 3},
            {"model_state_dict": state, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
            {"module": {f"module.{name}": tensor for name, tensor in state.items()}},
            {f"model.{name}": tensor for name, tensor in state.items()},
        ):
            torch.save(whole, folder / "pytorch_model.bin")
            assert not open_checkpoint(folder).report.problems
            assert_same_bits(read_all(folder), draw(config_of(family)))


def test_slots_of_any_optimizer(tmp_path):
    """They are named after their variables."""
    folder = write_checkpoint(tmp_path / "a", "tf1", config_of())
    tensors = [from_array(t.name, np.array(t.read())) for t in open_checkpoint(folder).tensors.values()]
    slots = [
        from_array(f"{t.name}/{slot}", np.zeros(t.shape, "f4"))
        for t, slot in zip(
            tensors, ("Momentum", "adam_m", "lamb_v", "ExponentialMovingAverage", "vr") * 9, strict=False
        )
    ]
    counters = [from_array(name, np.zeros((), "f4")) for name in ("global_step", "beta1_power", "loss_scale")]
    write_tf1(folder / "bert_model.ckpt", [*tensors, *slots, *counters])
    found = bert4x.inspect(folder)
    assert sorted(found.ignored) == sorted(t.name for t in [*slots, *counters])
    assert not found.missing + found.unexpected + found.stray
    assert_same_bits(read_all(folder), draw(config_of()))


def test_buffers_of_old_gpt2(tmp_path):
    config = config_of("gpt2")
    folder = write_checkpoint(tmp_path / "a", "hf", config)
    arrays = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    for i in range(3):
        arrays[f"transformer.h.{i}.attn.bias"] = np.ones((1, 1, 29, 29), "u1")
        arrays[f"transformer.h.{i}.attn.masked_bias"] = np.float32(-1e4)
    for prefix in ("transformer.", ""):
        named = [from_array(name.replace("transformer.", prefix), np.asarray(x)) for name, x in arrays.items()]
        write_safetensors(folder / "model.safetensors", named)
        assert_same_bits(read_all(folder), draw(config))
        assert len(open_checkpoint(folder).report.ignored) == 6


def test_names_are_not_confused(hf):
    """A tensor with two names counts once even where the file holds both, old and new."""
    arrays, check = hf
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x for name, x in arrays.items()}
    assert not check(arrays | old).problems


def test_separate_output_layers_are_refused(tmp_path):
    for family, name in (("bert", "cls.predictions.decoder.weight"), ("gpt2", "lm_head.weight")):
        config = config_of(family)
        folder = write_checkpoint(tmp_path / family, "hf", config)
        arrays = {key: np.array(t.read()) for key, t in open_checkpoint(folder).tensors.items()}
        table = draw(config)["Embedding-Token/embeddings"]
        for copy, fits in ((table, True), (table + 1, False), (table[:-1], False)):
            changed = [from_array(key, x) for key, x in (arrays | {name: copy}).items()]
            write_safetensors(folder / "model.safetensors", changed)
            if fits:
                bert4x.load(folder)
                continue
            for strict in (True, False):
                with pytest.raises(TensorMismatchError, match=f"{name} differs from the embedding table"):
                    bert4x.load(folder, strict=strict)


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


def test_cpm_without_a_config(monkeypatch, tmp_path):
    """The original download has none: its width tells it."""

    def rows(hidden, ranks=2):
        shapes = {"word_embeddings.weight": (30000 // ranks, hidden), "position_embeddings.weight": (1024, hidden)}
        for i in range(32):
            layer = f"transformer.layers.{i}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes |= {f"{layer}.{norm}.weight": (hidden,), f"{layer}.{norm}.bias": (hidden,)}
            for name, out, into in (
                ("attention.query_key_value", 3 * hidden // ranks, hidden),
                ("attention.dense", hidden, hidden // ranks),
                ("mlp.dense_h_to_4h", 4 * hidden // ranks, hidden),
                ("mlp.dense_4h_to_h", hidden, 4 * hidden // ranks),
            ):
                shapes |= {f"{layer}.{name}.weight": (out, into), f"{layer}.{name}.bias": (out,)}
        shapes |= {f"transformer.final_layernorm.{name}": (hidden,) for name in ("weight", "bias")}
        named = {f"{rank}/{name}": shape for rank in range(ranks) for name, shape in shapes.items()}
        return {name: LazyTensor(name, shape, np.dtype("f2"), lambda: None) for name, shape in named.items()}

    (tmp_path / "mp_rank_00_model_states.pt").touch()
    for ranks in (1, 2, 4):
        monkeypatch.setattr(Files, "read", lambda self, ranks=ranks: rows(2560, ranks))
        found = bert4x.inspect(tmp_path)
        assert (found.family, found.format, found.parameters) == ("gpt2", "megatron", 2_597_073_920)
        assert not found.missing + found.unexpected + found.misshapen
        assert found.config["hidden_act"] == "gelu_tanh" and found.config["pad_token_id"] == 5
    monkeypatch.setattr(Files, "read", lambda self: rows(2048))
    with pytest.raises(ConfigError, match="no config file beside the weights"):
        bert4x.inspect(tmp_path)


def test_cpm_as_repackaged_on_hugging_face(tmp_path):
    """gpt2's config and names, CpmTokenizer, and its vocabulary in spiece.model."""
    pieces = SHARED / "vocab" / "cpm"
    if not pieces.is_dir():
        pytest.skip("CPM's vocabularies are not beside this checkout")
    pytest.importorskip("sentencepiece")
    pytest.importorskip("jieba")
    config = config_of("gpt2", vocab_size=30000, hidden_size=6, num_hidden_layers=1, intermediate_size=8)
    folder = write_checkpoint(tmp_path / "a", "hf", config, draw(config, "float16"))
    shutil.copy(next(pieces.glob("*.model")), folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CpmTokenizer"}))
    model = bert4x.load(folder)
    assert type(model.tokenizer).__name__ == "CpmTokenizer"
    ids = model.tokenizer.encode("美国的首都是华盛顿\n狗 dog\n中国的首都是")[0]
    assert ids[:5] == [356, 11, 6597, 15, 13176]
    assert model(np.array([ids])).shape == (1, len(ids), 30000)
    target = bert4x.convert(folder, tmp_path / "b", "megatron", shards=2)
    assert type(bert4x.load(target).tokenizer).__name__ == "CpmTokenizer"
    back = bert4x.convert(target, tmp_path / "c", "hf")
    assert (back / "spiece.model").read_bytes() == (folder / "spiece.model").read_bytes()
    assert_same_bits(read_all(back), read_all(folder))


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
    with pytest.raises(bert4x.Bert4xError, match="this unshared ALBERT was trained"):
        bert4x.convert(saved, tmp_path / "refused", "hf")
    with pytest.raises(bert4x.Bert4xError, match="this unshared ALBERT was trained"):
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
    assert f"{backend} {{'with_nsp': 0.0, 'with_mlm': 0.0}}" in run.stdout
