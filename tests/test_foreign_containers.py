"""Checkpoints of other toolkits, their names and files made by hand from the same model by those of transformers."""

import functools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from make_checkpoints import assert_same_bits, config_of, draw, open_checkpoint, read_all, write_checkpoint

import bert4x
from bert4x.checkpoints.formats.gguf_file import open_gguf, write_gguf
from bert4x.checkpoints.formats.hdf5 import write_hdf5
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import TensorMismatchError
from tests.fuzz_targets import packed

UER = (  # a part of a name of transformers, and of UER's
    ("bert.embeddings.word_embeddings.", "embedding.word."), ("bert.embeddings.position_embeddings.", "embedding.pos."),
    ("bert.embeddings.token_type_embeddings.", "embedding.seg."),
    ("bert.embeddings.LayerNorm.", "embedding.layer_norm."), ("bert.encoder.layer.", "encoder.transformer."),
    ("attention.self.query.", "self_attn.linear_layers.0."), ("attention.self.key.", "self_attn.linear_layers.1."),
    ("attention.self.value.", "self_attn.linear_layers.2."), ("attention.output.LayerNorm.", "layer_norm_1."),
    ("attention.output.dense.", "self_attn.final_linear."), ("intermediate.dense.", "feed_forward.linear_1."),
    ("output.dense.", "feed_forward.linear_2."), ("output.LayerNorm.", "layer_norm_2."),
    ("bert.pooler.dense.", "target.sp.linear_1."), ("cls.seq_relationship.", "target.sp.linear_2."),
    ("cls.predictions.transform.dense.", "target.mlm.linear_1."), ("cls.predictions.bias", "target.mlm.linear_2.bias"),
    ("cls.predictions.transform.LayerNorm.", "target.mlm.layer_norm."),
)  # fmt: skip
PARTS = ("weight", "bias")
OLD = (  # names before 2022
    ("embedding.word.embedding.", "embedding.word_embedding."), ("target.mlm.", "target.mlm_"),
    ("embedding.pos.embedding.", "embedding.position_embedding."),
    ("embedding.seg.embedding.", "embedding.segment_embedding."), ("target.sp.", "target.nsp_"),
)  # fmt: skip


def transformers_names(folder, config, weights) -> dict[str, np.ndarray]:
    """The tensors of a model by transformers' names."""
    tensors = open_checkpoint(write_checkpoint(folder, "hf", config, weights)).tensors
    return {name: np.array(tensor.read()) for name, tensor in tensors.items()}


@pytest.mark.parametrize("old", (False, True))
def test_uer(tmp_path, old):
    """Segments have a row before the first; the config says no vocabulary; copies of the embeddings are tied."""
    config = config_of(hidden_act="gelu_tanh")
    weights = draw(config)
    tensors = {}
    for name, values in transformers_names(tmp_path / "hf", config, weights).items():
        for here, there in UER + (OLD if old else ()):
            name = name.replace(here, there)
        if ".layer_norm" in name or "mlm_layer_norm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        elif name in ("embedding.word.weight", "embedding.pos.weight", "embedding.seg.weight"):
            name = name.replace(".weight", ".embedding.weight")
        for here, there in OLD if old else ():
            name = name.replace(here, there)
        tensors[name] = np.concatenate([values[:1] * 0 + 3, values]) if "seg" in name else values
    tied = "target.mlm_linear_2.weight" if old else "target.mlm.linear_2.weight"
    tensors[tied] = weights["Embedding-Token/embeddings"]
    folder = tmp_path / "uer"
    folder.mkdir()
    write_torch(folder / "google_zh_model.bin", [from_array(name, values) for name, values in tensors.items()])
    said = {"emb_size": 35, "feedforward_size": 53, "hidden_size": 35, "hidden_act": "gelu_fast", "heads_num": 5}
    (folder / "base_config.json").write_text(json.dumps(said | {"layers_num": 3, "dropout": 0.2}))
    opened = open_checkpoint(folder)
    assert (opened.format, opened.config.model, opened.config.vocab_size, opened.config.max_position) == (
        "uer",
        "bert",
        97,
        29,
    )
    assert (opened.config.hidden_act, opened.config.dropout_rate, opened.config.attention_dropout_rate) == (
        "gelu_tanh",
        0.2,
        0.2,
    )
    assert_same_bits(read_all(folder), weights)
    assert max(bert4x.verify(tmp_path / "hf", folder).values()) < 1e-6
    scores = np.arange(105, dtype="f4").reshape(3, 35)  # of its script for classes, with a pooler of its own name
    head = {"output_layer_2.weight": scores, "output_layer_2.bias": scores[:, 0]}
    head |= {f"output_layer_1.{part}": tensors[f"target.{'nsp_' if old else 'sp.'}linear_1.{part}"] for part in PARTS}
    named = head | {name: values for name, values in tensors.items() if not name.startswith("target.")}
    write_torch(folder / "google_zh_model.bin", [from_array(name, values) for name, values in named.items()])
    bert4x.convert(folder, tmp_path / "bert4x", "bert4x")
    bert4x.convert(tmp_path / "bert4x", tmp_path / "back", "uer")
    for place in (folder, tmp_path / "back"):
        opened = open_checkpoint(place)
        assert (opened.head.task, opened.head.labels) == ("text-classification", ["LABEL_0", "LABEL_1", "LABEL_2"])
        assert np.array_equal(opened.head.tensors["Label-Scores/kernel"].read(), scores.T)
        assert np.array_equal(opened.read("Pooler-Dense/kernel"), weights["Pooler-Dense/kernel"])
    names = {tensor.name for tensor in open_checkpoint(tmp_path / "back").tensors.values()}
    assert head.keys() <= names and len(names) == len(named)
    assert old or names == named.keys()


def paddle_names(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """The name of PaddleNLP for one of transformers, and the values as they lie there."""
    for here, there in PADDLE:
        name = name.replace(here, there)
    matrix = values.ndim == 2 and "embeddings" not in name
    return name, np.ascontiguousarray(values.T if matrix else values)


PADDLE = (
    ("encoder.layer.", "encoder.layers."), ("attention.self.query", "self_attn.q_proj"),
    ("attention.self.key", "self_attn.k_proj"), ("attention.self.value", "self_attn.v_proj"),
    ("attention.output.LayerNorm", "norm1"), ("attention.output.dense", "self_attn.out_proj"),
    ("intermediate.dense", "linear1"), ("output.dense", "linear2"), ("output.LayerNorm", "norm2"),
    ("transform.dense", "transform"), ("transform.LayerNorm", "layer_norm"),
    ("embeddings.LayerNorm", "embeddings.layer_norm"), ("cls.predictions.bias", "cls.predictions.decoder_bias"),
)  # fmt: skip


@pytest.mark.parametrize("protocol", (2, 4, 5))
def test_paddle(tmp_path, protocol):
    """A pickle of arrays; the config lies in arguments of a class, in those of another; bfloat16 looks like uint16."""
    config = config_of("ernie", layer_norm_eps=1e-5)
    weights = draw(config, "bfloat16" if protocol == 4 else "float32")
    named = transformers_names(tmp_path / "hf", config, weights)
    state = dict(paddle_names(name, values) for name, values in named.items())
    state["cls.predictions.decoder_weight"] = state["ernie.embeddings.word_embeddings.weight"]
    state = {name: values.view("u2") if protocol == 4 else values for name, values in state.items()}
    folder = tmp_path / "paddle"
    folder.mkdir()
    said = json.loads((tmp_path / "hf" / "config.json").read_text()) | {"layer_norm_eps": None}
    inner = {
        "init_args": [{key: value for key, value in said.items() if value is not None}],
        "init_class": "ErnieModel",
    }
    (folder / "model_config.json").write_text(json.dumps({"init_args": [inner], "init_class": "ErnieForPretraining"}))
    names = {"StructuredToParameterName@@": {name: f"linear_{i}.w_0" for i, name in enumerate(state)}}
    (folder / "model_state.pdparams").write_bytes(pickle.dumps(state | names, protocol))
    opened = open_checkpoint(folder)
    assert (opened.format, opened.config.replace(extra={})) == ("paddle", config)
    assert_same_bits(read_all(folder), weights)
    (folder / "model_state.pdparams").write_bytes(pickle.dumps({"a": Path("x")}, protocol))
    with pytest.raises(bert4x.Bert4xError, match=r"model_state\.pdparams"):
        open_checkpoint(folder)


def keras_path(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """The path that transformers' TensorFlow classes give what PyTorch calls `name`."""
    name = name.replace("cls.", "mlm___cls.")
    if name.endswith(("position_embeddings.weight", "token_type_embeddings.weight")):
        name = name.replace(".weight", ".embeddings")
    elif "LayerNorm" in name:
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    elif name.endswith(".weight") and "embeddings" not in name:
        name, values = name.replace(".weight", ".kernel"), values.T
    name = name.replace(".", "/").replace("encoder/layer/", "encoder/layer_._")
    return f"tf_bert_for_pre_training/{name}:0", values


def flax_tree(tensors: dict[str, np.ndarray]) -> dict:
    """The tensors as Flax nests and names them."""
    tree = {}
    for name, values in tensors.items():
        *groups, word = name.split(".")
        if word == "weight":
            word = "embedding" if "embeddings" in groups[-1] else "scale" if groups[-1] == "LayerNorm" else "kernel"
        inner = functools.reduce(lambda level, group: level.setdefault(group, {}), groups, tree)
        inner[word] = np.ascontiguousarray(values.T if word == "kernel" else values)
    return tree


@pytest.mark.parametrize("changed", (False, True))
def test_tf_model(tmp_path, changed):
    """The head's layer repeats the embeddings, which must be the same."""
    config = config_of()
    weights = draw(config)
    named = transformers_names(tmp_path, config, weights)
    arrays = dict(keras_path(name, values) for name, values in named.items())
    word = next(path for path in arrays if "word_embeddings" in path)
    layers = {
        "bert": [path for path in arrays if "/bert/" in path],
        "cls": [path for path in arrays if "_cls/" in path],
    }
    layers["cls"].append(word)
    tensors = [from_array(f"{layer}/{path}", arrays[path]) for layer, paths in layers.items() for path in paths]
    if changed:
        tensors[-1] = from_array(tensors[-1].name, arrays[word] + 1)
    attributes = {layer: {"weight_names": paths} for layer, paths in layers.items()}
    write_hdf5(tmp_path / "tf_model.h5", tensors, {"": {"layer_names": list(layers)}} | attributes)
    (tmp_path / "model.safetensors").unlink()
    if changed:
        with pytest.raises(TensorMismatchError, match=r"word_embeddings\.weight' is there twice"):
            open_checkpoint(tmp_path)
    else:
        assert_same_bits(read_all(tmp_path), weights)


def test_flax(tmp_path):
    config = config_of("albert")
    weights = draw(config, "bfloat16")
    tree = flax_tree(transformers_names(tmp_path, config, weights))
    (tmp_path / "flax_model.msgpack").write_bytes(packed(tree))
    (tmp_path / "model.safetensors").unlink()
    assert_same_bits(read_all(tmp_path), weights)


@pytest.mark.parametrize("dtype", ("float16", "q8_0"))
def test_gguf(tmp_path, dtype):
    """What llama.cpp's own reader finds: names, shapes, values, and metadata; and back."""
    gguf = pytest.importorskip("gguf")
    config = config_of("bert", hidden_size=64, num_attention_heads=4, embedding_size=64)
    weights = draw(config)
    source = write_checkpoint(tmp_path / "hf", "hf", config, weights)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "##中", "a"]
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    with pytest.raises(bert4x.Bert4xError, match="drop_head"):
        bert4x.convert(source, tmp_path / "gguf", "gguf", dtype=dtype)
    bert4x.convert(source, tmp_path / "gguf", "gguf", dtype=dtype, drop_head=True)
    reader = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf")
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.architecture"] == said["tokenizer.ggml.model"] == "bert"
    assert (said["bert.attention.head_count"], said["bert.block_count"], said["bert.attention.causal"]) == (4, 3, False)
    assert said["tokenizer.ggml.tokens"][:9] == [*tokens[:5], "\u2581中", "中", "\u2581a", "[PAD8]"]
    assert said["tokenizer.ggml.token_type"][:9] == [3, 2, 3, 3, 3, 1, 1, 1, 5]
    assert [said[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "unknown", "padding")] == [2, 3, 1, 0]
    arrays = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 3).mapping.values()
    assert set(arrays) <= {f"{name}.{part}" for _, name in known for part in ("weight", "bias")}
    for i, name in enumerate(("query", "key", "value", "output")):
        kernel = weights[f"Transformer-1-MultiHeadSelfAttention/{name}/kernel"].T
        assert np.abs(arrays[f"blk.1.attn_{('q', 'k', 'v', 'output')[i]}.weight"] - kernel).max() < 0.01
    assert np.array_equal(arrays["blk.2.layer_output_norm.bias"], weights["Transformer-2-FeedForward-Norm/beta"])
    again = open_checkpoint(tmp_path / "gguf")
    assert (again.format, again.config) == ("gguf", config)
    for name, tensor in again.tensors.items():
        assert np.array_equal(tensor.read().astype("f4"), arrays[name].astype("f4")), name
    found = read_all(tmp_path / "gguf")
    assert max(np.abs(found[path].astype("f4") - weights[path]).max() for path in found) < 0.01


@pytest.mark.parametrize("family", ("gpt2", "qwen3"))
def test_gguf_of_decoders(tmp_path, family):
    """Bit for bit, there and back; a GGUF says in its tensors whether the output layer is tied."""
    changes = {"tie_word_embeddings": False} if family == "qwen3" else {}
    config = config_of(family, **changes)
    weights = draw(config)
    source = write_checkpoint(tmp_path / "hf", "hf", config, weights)
    target = bert4x.convert(source, tmp_path / "gguf", "gguf")
    assert open_checkpoint(target).config.replace(extra={}) == config
    assert_same_bits(read_all(bert4x.convert(target, tmp_path / "again", "hf")), weights)
    with pytest.raises(bert4x.Bert4xError, match="hidden_act"):
        write_checkpoint(tmp_path / "b", "gguf", config.replace(hidden_act="relu"), weights)
    metadata, tensors = open_gguf(target / "model.gguf")
    unsaid = {key: value for key, value in metadata.items() if key != f"{family}.vocab_size"}
    write_gguf(tmp_path / "unsaid.gguf", tensors.values(), unsaid)
    assert open_checkpoint(tmp_path / "unsaid.gguf").config.vocab_size == config.vocab_size
    for said, error in (
        ({"general.architecture": "mamba"}, "architecture 'mamba'; expected bert"),
        ({f"{family}.attention.head_count": [6, 6, 6]}, "num_attention_heads"),
        ({f"{family}.block_count.x": 3}, "damaged"),
        ({f"{family}.attention.causal": False}, "attention.causal = False; only True"),
        ({f"{family}.logit_scale": 0.5}, "logit_scale = 0.5"),
        ({f"{family}.rope.dimension_count": 2}, "dimension_count is 2, of . features of a head"),
    ):
        write_gguf(tmp_path / "c.gguf", tensors.values(), metadata | said)
        with pytest.raises(bert4x.Bert4xError, match=rf"c\.gguf: .*{error}"):
            open_checkpoint(tmp_path / "c.gguf")


def write_adapters(folder, modules: dict[str, tuple[np.ndarray, np.ndarray]], base, **said) -> None:
    """A folder of PEFT: of each module A (rank, in) and B (out, rank)."""
    folder.mkdir(exist_ok=True)
    names = {f"base_model.model.{m}.lora_{'AB'[i]}.weight": pair[i] for m, pair in modules.items() for i in (0, 1)}
    write_safetensors(folder / "adapter_model.safetensors", [from_array(name, x) for name, x in names.items()])
    about = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 6} | said
    (folder / "adapter_config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("family", ("bert", "gpt2"))
def test_peft_merged(tmp_path, family):
    """The folder opens as the model it changes; GPT2 has one adapter for query, key and value, of (in, out)."""
    config, draws = config_of(family), np.random.default_rng(5)
    weights = draw(config)
    write_checkpoint(tmp_path / "base", "hf", config, weights)
    size = config.hidden_size
    a, b = draws.normal(size=(2, size)).astype("f4"), draws.normal(size=(size, 2)).astype("f4")
    module = "bert.encoder.layer.1.attention.self.query"
    if family == "gpt2":
        module, b = "transformer.h.1.attn.c_attn", np.concatenate([b, b + 1, b - 1])
    write_adapters(tmp_path / "peft", {module: (a, b)}, "elsewhere/base", fan_in_fan_out=family == "gpt2")
    found = read_all(tmp_path / "peft")
    product = np.split(3 * (b @ a).T, len(b) // size, axis=1)
    for name, part in zip(("query", "key", "value"), product, strict=False):
        path = f"Transformer-1-MultiHeadSelfAttention/{name}/kernel"
        assert np.abs(found.pop(path) - weights.pop(path) - part).max() < 1e-5
    assert_same_bits(found, weights)
    for said, error in (
        ({"peft_type": "IA3"}, "peft_type = 'IA3'; expected plain LoRA"),
        ({"use_dora": True}, "use_dora"),
        ({"kasa_config": {"beta": 0.1}}, "kasa_config"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"base_model_name_or_path": "\0"}, "base_model_name_or_path"),
        ({"base_model_name_or_path": str(tmp_path / "none")}, r"none.*which is not here"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path = None"),
        ({"lora_alpha": "6"}, "lora_alpha"),
    ):
        write_adapters(tmp_path / "peft", {module: (a, b)}, tmp_path / "base", **said)
        with pytest.raises(bert4x.Bert4xError, match=error):
            open_checkpoint(tmp_path / "peft")
    write_adapters(tmp_path / "peft", {f"{module}s": (a, b)}, tmp_path / "base")
    with pytest.raises(TensorMismatchError, match=f"has no {module}s.weight"):
        open_checkpoint(tmp_path / "peft")
    table = from_array("base_model.model.bert.embeddings.word_embeddings.lora_embedding_A", a)
    write_safetensors(tmp_path / "peft" / "adapter_model.safetensors", [table])
    with pytest.raises(bert4x.Bert4xError, match="word_embeddings, a table of embeddings"):
        open_checkpoint(tmp_path / "peft")


def test_peft_as_lora(tmp_path):
    """Adapters of ours, written for PEFT: the folder opened, and read as adapters, give the same outputs."""
    from bert4x.training.lora import adapted, adapters, add_lora
    from bert4x.training.peft import load_peft, save_peft

    config, draws = config_of("gpt2"), np.random.default_rng(6)
    base = write_checkpoint(tmp_path / "base", "hf", config, draw(config))
    model, other = bert4x.load(base), bert4x.load(base)
    inputs = {"token_ids": draws.integers(0, config.vocab_size, (2, 7))}
    add_lora(model, rank=2, alpha=3)
    for layer in adapted(model).values():
        for variable in adapters(layer):
            variable.assign(draws.normal(0, 0.3, variable.shape))
    save_peft(model, tmp_path / "peft", base)
    expected = np.asarray(ops.convert_to_numpy(model(inputs)))
    load_peft(other, tmp_path / "peft")
    for read in (other, bert4x.load(tmp_path / "peft")):
        assert np.abs(ops.convert_to_numpy(read(inputs)) - expected).max() < 2e-5
    with pytest.raises(bert4x.Bert4xError, match="adapters already"):
        load_peft(model, tmp_path / "peft")


MEGATRON = (
    ("transformer.wte.", "embedding.word_embeddings."), ("transformer.wpe.", "embedding.position_embeddings."),
    ("transformer.ln_f.", "encoder.final_layernorm."), ("transformer.h.", "encoder.layers."),
    (".attn.c_attn.", ".self_attention.query_key_value."), (".attn.c_proj.", ".self_attention.dense."),
    (".mlp.c_fc.", ".mlp.dense_h_to_4h."), (".mlp.c_proj.", ".mlp.dense_4h_to_h."),
    (".ln_1.", ".input_layernorm."), (".ln_2.", ".post_attention_layernorm."),
)  # fmt: skip
CORE = (  # Megatron Core's names, over Transformer Engine's layers
    ("encoder.", "decoder."), (".self_attention.query_key_value.", ".self_attention.linear_qkv."),
    (".self_attention.dense.", ".self_attention.linear_proj."), (".mlp.dense_h_to_4h.", ".mlp.linear_fc1."),
    (".mlp.dense_4h_to_h.", ".mlp.linear_fc2."), (".input_layernorm.", ".self_attention.linear_qkv.layer_norm_"),
    (".post_attention_layernorm.", ".mlp.linear_fc1.layer_norm_"),
)  # fmt: skip
COLUMNS = ("word_embeddings.weight", "query_key_value.weight", "query_key_value.bias", "h_to_4h.weight", "h_to_4h.bias")


def of_rank(name: str, values: np.ndarray, rank: int, version: int, heads: int) -> np.ndarray:
    """What one of two ranks of Megatron-LM holds of a tensor of GPT2 in transformers."""
    values = values.T if values.ndim == 2 and "embedding" not in name else values
    if "query_key_value" in name:
        each = values.reshape(3, heads, -1, *values.shape[1:])[:, heads // 2 * rank : heads // 2 * (rank + 1)]
        order = {0: (0, 1, 2), 1: (1, 2, 0)}.get(version, (1, 0, 2))
        return each.transpose(*order, *range(3, each.ndim)).reshape(-1, *values.shape[1:])
    axis = 0 if name.endswith(COLUMNS) else 1 if name.endswith(("dense.weight", "4h_to_h.weight")) else None
    return values if axis is None else np.split(values, 2, axis)[rank]


@pytest.mark.parametrize("core", (False, True))
@pytest.mark.parametrize("version", (0, 1, 2, 3))
def test_megatron_lm(tmp_path, version, core):
    """Two ranks; the order of query, key and value is that of the version; older names are taken, too, and those of
    Megatron Core. Rows that it adds to the vocabulary are left out.
    """
    config = config_of("gpt2", vocab_size=89 if version > 1 else 90)
    weights = draw(config)
    named = transformers_names(tmp_path / "hf", config, weights)
    for rank in range(2):
        tensors = []
        for name, values in named.items():
            for here, there in MEGATRON:
                name = name.replace(here, there)
            if version > 1 and "word_embeddings" in name:
                values = np.pad(values, ((0, 256 - 89), (0, 0)), constant_values=5)
            part = of_rank(name, values, rank, version, config.num_attention_heads)
            if version < 2:
                name = name.replace("encoder.", "transformer.").replace("self_attention", "attention")
            if core:
                for here, there in CORE:
                    name = name.replace("transformer.", "encoder.").replace(".attention.", ".self_attention.")
                    name = name.replace(here, there)
            tensors.append(from_array(name if core else f"language_model.{name}", np.ascontiguousarray(part)))
        file = tmp_path / "run" / "iter_0000007" / f"mp_rank_0{rank}" / "model_optim_rng.pt"
        file.parent.mkdir(parents=True)
        write_torch(file, tensors, root="model", extra={"checkpoint_version": version + 0.0, "iteration": 7})
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("7")
    with pytest.raises(bert4x.Bert4xError, match="no config says which it is"):
        open_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text((tmp_path / "hf" / "config.json").read_text())
    for path in (tmp_path / "run", file):
        opened = open_checkpoint(path)
        assert (opened.format, opened.ranks, opened.config.replace(extra={})) == ("megatron-lm", 2, config)
        assert_same_bits(read_all(path), weights)
    untied = from_array("language_model.output_layer.weight", np.ones((3, 3), "f4"))
    for other in sorted((tmp_path / "run").glob("*/*/model_optim_rng.pt")):
        write_torch(other, [*tensors, untied], root="model", extra={"checkpoint_version": version + 0.0})
    with pytest.raises(bert4x.Bert4xError, match="output layer is not its embedding table"):
        open_checkpoint(file)
    write_torch(file, tensors, root="model", extra={"checkpoint_version": 4.0})
    with pytest.raises(bert4x.Bert4xError, match=r"version 4\.0 of Megatron-LM's checkpoints; expected 0 to 3"):
        open_checkpoint(tmp_path / "run")
