"""Checkpoints as the world has them: old and other names, slots, buffers, heads of other tasks, no config."""

import json
import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from battery import array
from make_checkpoints import assert_same_bits, config_of, draw, open_checkpoint, read_all, write_checkpoint

import bert4x
from bert4x import families
from bert4x.checkpoints.files import Files
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.tf1_bundle import write_tf1
from bert4x.checkpoints.tensors import LazyTensor, from_array
from bert4x.errors import ConfigError, TensorMismatchError, UnknownFormatError
from bert4x.families.bert import Bert

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


def test_brightmart(published):
    found = bert4x.inspect(published("albert_tiny_brightmart"))
    assert (found.family, found.config["ln_type"], found.config["hidden_act"]) == ("albert_zh", "postln", "gelu_tanh")
    assert not found.missing + found.unexpected + found.misshapen + found.duplicate + found.stray


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


def test_two_families_of_one_set_of_names(tmp_path, monkeypatch):
    """The config decides; where it says nothing, `model`."""
    (google,) = (table for table in Bert.tables if table.format == "tf1")
    named = replace(Bert.styles["tf1"], labels={"use_twins": True})
    members = {"model_name": "twin", "variables": Bert.variables, "styles": {"tf1": named}}
    twin = type("Twin", (Bert,), members | {"tables": (replace(google, family="twin"),)})
    folder = write_checkpoint(tmp_path / "a", "tf1", config_of())
    monkeypatch.setitem(families._CLASSES, "twin", twin)
    with pytest.raises(UnknownFormatError, match=r"names of bert and of twin.*model='bert'"):
        open_checkpoint(folder)
    for name in ("bert", "twin"):
        assert bert4x.inspect(folder, model=name).family == name
    said = json.loads((folder / "bert_config.json").read_text()) | {"use_twins": True}
    assert open_checkpoint(folder, said, "bert").config.model == "twin"


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
    """Its tensors fit; its position ids do not. It is loaded where the config says what it is."""
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
