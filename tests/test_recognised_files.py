"""Files that bert4x does not read, but knows: the message says what they are, and what to do."""

import json

import numpy as np
import pytest
from make_checkpoints import config_of, draw, open_checkpoint, write_checkpoint

import bert4x
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.torch_globals import find_global
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import CheckpointNotFoundError, TokenizerError, UnknownFormatError, nearest, similar
from bert4x.hub.selection import choose

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 411577189\n"
PICKLE = b"\x80\x02}q\x00."
# name, content, what the message must say
FILES = [
    ("tf_model-00001-of-00002.h5", b"\x89HDF\r\n\x1a\n", r"TensorFlow classes.*pytorch_model\.bin.*from_tf=True"),
    ("flax_model-00001-of-00002.msgpack", b"\x81\xa4bert", r"Flax classes.*from_flax=True"),
    ("model.pdiparams", PICKLE, r"PaddlePaddle's.*\.pdparams"),
    ("model.onnx", b"\x08\x07", "exported for a runtime"),
    ("openvino_model.bin", b"\x00" * 64, "exported for a runtime"),
    ("model.tflite", b"\x1c\x00\x00\x00TFL3", "exported for a runtime"),
    ("ggml-model-q4_0.ggml", b"ggjt\x03\x00", r"llama\.cpp, before GGUF"),
    ("bert.ckpt", b"\n\x3d\n\x0fbert.embeddings\x12\x2a", "MindSpore's"),
    ("model.mindir", b"\n\x05", "MindSpore's"),
    ("adapter_model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}", r"adapter of PEFT.*merge_and_unload"),
    ("adapter_model.bin", b"PK\x03\x04", "adapter of PEFT"),
    ("pytorch_model.bin", POINTER, r"Git LFS.*git lfs pull"),
    ("model.safetensors", POINTER, "Git LFS"),
    ("pytorch_model.bin", b"<!DOCTYPE html><html>", "a web page"),
    ("model.safetensors", b"\n<html lang=zh>", "a web page"),
    ("__0_0.distcp", b"PK\x03\x04", r"torch\.distributed checkpoint.*dcp_to_torch"),
    ("model_optim_rng.pt", b"PK\x03\x04", "Megatron-LM's own"),
    ("bert-base-chinese.tar.gz", b"\x1f\x8b\x08", "an archive: unpack it"),
    ("pytorch_model.bin", b"\x1f\x8b\x08\x00", "an archive: unpack it"),
    ("pytorch_model.bin.crdownload", b"PK\x03\x04", "an unfinished download"),
    ("frozen_graph.pb", b"\n\x10", "graph without variables"),
    ("bert_model.ckpt.meta", b"\n\x10", "graph without its weights"),
]


@pytest.mark.parametrize("name, content, message", FILES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(FILES)])
def test_recognised(tmp_path, name, content, message):
    """In a folder with config and vocabulary, and by itself."""
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_hidden_layers": 1}))
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UnknownFormatError, match=f"(?s){name}.*{message}") as caught:
            open_checkpoint(path)
        assert "starts with" not in str(caught.value)


def test_pointers_in_the_place_of_parts(tmp_path):
    """A clone without git-lfs has the small files, an index among them."""
    sharded = write_checkpoint(tmp_path / "hf", "hf", config_of(), shards=2)
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    tf1 = write_checkpoint(tmp_path / "tf1", "tf1", config_of())
    config = write_checkpoint(tmp_path / "config", "hf", config_of())
    for folder, file in ((sharded, shard), (tf1, next(tf1.glob("*.data*"))), (config, config / "config.json")):
        file.write_bytes(POINTER)
        with pytest.raises(bert4x.Bert4xError, match=rf"(?s){file.name}.*Git LFS"):
            open_checkpoint(folder)


def test_parts_without_what_joins_them(tmp_path):
    sharded = write_checkpoint(tmp_path / "hf", "hf", config_of(), shards=2)
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"2 parts.*without model\.safetensors\.index\.json.*download"):
        open_checkpoint(sharded)
    (tmp_path / "fsdp" / "pytorch_model_fsdp_0").mkdir(parents=True)
    (tmp_path / "fsdp" / "pytorch_model_fsdp_0" / "__0_0.distcp").write_bytes(b"PK")
    with pytest.raises(UnknownFormatError, match=r"pytorch_model_fsdp_0 holds no weights.*dcp_to_torch"):
        open_checkpoint(tmp_path / "fsdp")


def test_one_file_comes_before_parts(tmp_path):
    """As in transformers: who saves a model again in one file may leave the parts of the older one."""
    folder = write_checkpoint(tmp_path / "hf", "hf", config_of(), shards=2)
    one = write_checkpoint(tmp_path / "one", "hf", config_of()) / "model.safetensors"
    one.rename(folder / one.name)
    assert open_checkpoint(folder).files.path.name == one.name


@pytest.mark.parametrize(
    "name, message",
    [
        ("torch.float8_e5m2", "float8_e5m2: numbers of less than 16 bits"),
        ("torch.ComplexFloatStorage", "or complex ones"),
        ("torch._utils._rebuild_qtensor", "less than 16 bits"),
        ("torch.distributed.tensor.DTensor", r"several devices.*full_tensor\(\)"),
    ],
)
def test_tensors_that_are_not_read(name, message):
    with pytest.raises(UnknownFormatError, match=message):
        find_global(*name.rsplit(".", 1))


def test_what_is_no_file_of_weights(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    with pytest.raises(UnknownFormatError, match=r"config\.json is no file of weights; pass its folder"):
        open_checkpoint(folder / "config.json")


def test_a_pointer_in_the_place_of_a_vocabulary(tmp_path):
    """It would be a vocabulary of three tokens."""
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        file = tmp_path / name
        file.write_bytes(POINTER)
        with pytest.raises(TokenizerError, match=rf"{name}.*Git LFS"):
            bert4x.load_tokenizer(tmp_path)
        file.unlink()


def test_what_is_read_comes_before_what_is_not(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    for name in ("tf_model.h5", "flax_model.msgpack", "model.onnx", "rust_model.ot", "training_args.bin"):
        (folder / name).write_bytes(PICKLE)
    assert open_checkpoint(folder).format == "hf"
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert open_checkpoint(folder).files.path.name == "weights.safetensors"


def test_weights_that_were_changed(tmp_path):
    """The names of a BERT, and yet not its weights as they are."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    matrix = "bert.encoder.layer.1.attention.self.query."
    kernel = tensors.pop(matrix + "weight")
    a, b = np.ones((2, 35), "f4"), np.ones((35, 2), "f4")
    for changed, message in (
        ({"base_layer.weight": kernel, "lora_A.default.weight": a, "lora_B.default.weight": b}, "adapters of PEFT"),
        ({"qweight": kernel, "g_idx": np.zeros(35, "i4")}, "quantized"),
        ({"weight": kernel.astype("i1"), "SCB": kernel[0]}, "quantized"),
        ({"weight_orig": kernel, "weight_mask": kernel}, "parametrization"),
        ({"weight": kernel[0, :0]}, r"without values.*ZeRO 3.*zero_to_fp32\.py"),
    ):
        named = tensors | {matrix + name: array for name, array in changed.items()}
        write_safetensors(folder / "model.safetensors", [from_array(name, array) for name, array in named.items()])
        with pytest.raises(UnknownFormatError, match=message):
            open_checkpoint(folder)
    named = tensors | {matrix + "weight": kernel, "unused": kernel[0, :0]}  # of no weight: ZeRO has not been here
    write_safetensors(folder / "model.safetensors", [from_array(name, array) for name, array in named.items()])
    assert open_checkpoint(folder).report.stray == ["unused"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("embedding.word_embedding.weight", "UER-py and TencentPretrain, of whose models BERT"),
        ("bert.encoder.layers.0.self_attn.q_proj.weight", "PaddleNLP"),
        ("model.layers.0.self_attn.q_proj.weight", "Llama"),
        ("something.else", "model_type = 'mystery'"),
    ],
)
def test_names_of_others(tmp_path, name, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mystery", "hidden_size": 8, "n_layer": 1}))
    write_torch(tmp_path / "pytorch_model.bin", [from_array(name, np.zeros((2, 2), "f4"))])
    with pytest.raises(UnknownFormatError, match=message):
        open_checkpoint(tmp_path)


def test_adapters_of_peft_are_no_lora_of_ours(tmp_path):
    from bert4x.training.lora import load_lora

    (tmp_path / "adapter_config.json").write_text("{}")
    array = from_array(
        "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight", np.ones((4, 8), "f4")
    )
    write_safetensors(tmp_path / "adapter_model.safetensors", [array])
    model = bert4x.load(write_checkpoint(tmp_path / "a", "hf", config_of(), draw(config_of())))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(UnknownFormatError, match="adapter of PEFT"):
            load_lora(model, path)


def test_names_that_may_be_meant():
    options = ["hidden_size", "num_hidden_layers", "layer_norm_eps", "with_mlm", "with_nsp", "dropout_rate", "dtype"]
    meant = {
        "with_mml": "with_mlm", "hiden_size": "hidden_size", "HIDDEN_SIZE": "hidden_size", "dtyp": "dtype",
        "layer_norm_epsilon": "layer_norm_eps", "num_layers": "num_hidden_layers", "dropout": "dropout_rate",
    }  # fmt: skip
    for name, expected in meant.items():
        assert similar(name, options) == [expected]
        assert nearest(name, options).startswith(f"did you mean {expected!r}? valid: dropout_rate, dtype")
    for name in ("num_labels", "with_cls", "output_attentions", "torch_dtype", "size", "", "_", "x" * 10**6):
        assert not similar(name, options)
        assert nearest(name, options).startswith("valid: ")
    for name, other in (("正面", "负面"), ("decoder", "encoder"), ("positive", "negative"), ("roberta", "bert")):
        assert not similar(name, [other])


def test_repositories_without_weights_that_are_read():
    """The hub says the same, before anything is fetched."""
    for name, message in (
        ("tf_model.h5.index.json", "the weights of transformers' TensorFlow classes in several files"),
        ("adapter_model.safetensors", "adapter of PEFT"),
        ("openvino_model.bin", "exported for a runtime"),
    ):
        with pytest.raises(UnknownFormatError, match=message):
            choose(["config.json", "vocab.txt", name], "the repository")
    assert choose(["config.json", "openvino_model.bin", "weights.bin"], "x") == ["config.json", "weights.bin"]
