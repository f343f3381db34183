"""Llama, Mistral, Qwen2 and Qwen3 beside transformers: their files, bit for bit, what they compute, what they write."""

import copy
import json

import numpy as np
import pytest
from battery import array, close
from random_models import random_model, tiny_config

import bert4x
from bert4x.checkpoints.checkpoint import bits
from bert4x.checkpoints.formats.safetensors_file import read_safetensors
from bert4x.errors import Bert4xError, ConfigError, ConversionError, TensorMismatchError
from bert4x.tasks.text_classification import TextClassification

SIZES = {
    "vocab_size": 97,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 53,
    "max_position_embeddings": 40,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
LLAMA3 |= {"original_max_position_embeddings": 20, "rope_theta": 50.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10, "rope_theta": 100.0}
KINDS = {
    "llama": {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3, "head_dim": 10},
    "mistral": {"sliding_window": 4, "tie_word_embeddings": True},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "tie_word_embeddings": True},
    "qwen3": {"head_dim": 10, "rope_parameters": YARN},
}
PROMPTS = [[5, 6, 7, 8, 9], [11, 12]]


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory):
    """A random model of transformers, and the folder into which it was saved, in several files."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    kind = request.param
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **KINDS[kind], attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.3)
        if "norm" in name:
            parameter.data += 1
        parameter.data = parameter.data.to(torch.bfloat16).float()
    halved = copy.deepcopy(model).to(torch.bfloat16)  # which rounds what is computed from the config, too
    halved.save_pretrained(folder := tmp_path_factory.mktemp(kind), max_shard_size="40KB")
    return model, folder


def test_equal_to_transformers(published):
    theirs, folder = published
    import torch

    ours = bert4x.load(folder)
    ids = np.random.default_rng(0).integers(1, 97, (2, 13))
    real = np.arange(13) < np.array([[13], [9]])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(real * 1)).logits.numpy()
    found = array(ours({"token_ids": ids, "padding_mask": real}))
    assert expected.std() > 1
    close(found[real], expected[real], 2e-5)
    padded, mask = torch.tensor([PROMPTS[0], [0, 0, 0, *PROMPTS[1]]]), torch.ones(2, 5, dtype=torch.long)
    mask[1, :3] = 0
    new = theirs.generate(padded, attention_mask=mask, max_new_tokens=12, do_sample=False)[:, 5:].numpy()
    assert ours.generate_ids(PROMPTS, max_new_tokens=12).tolist() == new.tolist()


def tensors(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: (t.dtype, bits(t.read())) for file in files for name, t in read_safetensors(file).items()}


def test_files_bit_for_bit(published, tmp_path):
    _, folder = published
    bert4x.convert(folder, tmp_path / "ours", "bert4x")
    bert4x.convert(tmp_path / "ours", tmp_path / "theirs", "hf", shards=2)
    held, written = tensors(folder), tensors(tmp_path / "theirs")
    assert len({*folder.glob("*.safetensors")}) > 1
    assert held.keys() == written.keys()
    for name, (dtype, values) in held.items():
        assert dtype == written[name][0] == "bfloat16"
        assert np.array_equal(values, written[name][1]), name
    assert bert4x.load(folder).config.replace(extra={}) == bert4x.load(tmp_path / "theirs").config.replace(extra={})
    assert max(bert4x.verify(folder, tmp_path / "theirs").values()) == 0


def test_what_is_refused(published, tmp_path):
    """A config that asks for what is not computed, a head that is no copy of the table, another family's config."""
    _, folder = published
    said = json.loads((folder / "config.json").read_text())
    yarn = {"rope_type": "yarn", "factor": 2.0}
    for changes, message in (
        ({"num_key_value_heads": 4}, "num_key_value_heads = 4, which 6"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope.*expected rope_type linear"),
        ({"rope_scaling": yarn | {"mscale": 1.0}}, "mscale = 1.0 in rope_scaling"),
        ({"rope_parameters": {"rope_type": "linear"}}, "without a factor"),
        ({"tie_word_embeddings": "yes"}, "expected true or false"),
    ):
        with pytest.raises(ConfigError, match=message):
            bert4x.load(folder, config=said | changes)
    with pytest.raises(Bert4xError, match=r"gemma|say it, with model='llama'"):
        bert4x.load(folder, config=said | {"model_type": "gemma"})
    if said["tie_word_embeddings"]:
        with pytest.raises(TensorMismatchError, match="LM-Head"):
            bert4x.load(folder, config=said | {"tie_word_embeddings": False})
    else:
        with pytest.raises(TensorMismatchError, match=r"lm_head.weight differs from the embedding table"):
            bert4x.load(folder, config=said | {"tie_word_embeddings": True})


def test_classes_of_texts(published, tmp_path):
    """The scores of the last token, as transformers' ForSequenceClassification gives them, read and written."""
    theirs, _ = published
    import torch
    import transformers

    config = copy.deepcopy(theirs.config)
    config.id2label = {0: "好", 1: "坏", 2: "平"}
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    model.model.load_state_dict(theirs.model.state_dict())
    model.score.weight.data.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "theirs")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 92))]
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    ids, task = [[5, 6, 7, 8, 0, 0], [9, 8, 7, 6, 5, 4]], TextClassification.load(tmp_path / "theirs")
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    close(task.model(np.array(ids)), expected, 2e-5)
    task.save(tmp_path / "ours", "hf")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    again.config.pad_token_id = 0
    with torch.no_grad():
        close(again(torch.tensor(ids)).logits.numpy(), expected, 2e-5)
    assert again.config.id2label == config.id2label


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_longer_texts_by_name(tmp_path, kind):
    """A Llama of 10 positions, loaded for 40: as transformers computes it, of what it wrote and of what we write."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(0)
    sizes = SIZES | {"max_position_embeddings": 10, "num_hidden_layers": 2}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, attn_implementation="eager")).eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path / "short")
    ours = bert4x.load(tmp_path / "short", max_position=40, rope_scaling=kind)
    known = {} if kind == "linear" else {"original_max_position_embeddings": 10}
    assert ours.config.rope_scaling == {"rope_type": kind, "factor": 4.0} | known
    bert4x.save(ours, tmp_path / "long", "hf")
    said = json.loads((tmp_path / "long" / "config.json").read_text())
    if kind == "dynamic":  # of which transformers knows the length in training as this only
        said["max_position_embeddings"] = 10
    config = transformers.LlamaConfig(**said, attn_implementation="eager")
    back = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "long", config=config).eval()
    ids = np.random.default_rng(0).integers(1, 97, (2, 33))
    real = np.arange(33) < np.array([[33], [21]])
    with torch.no_grad():
        expected = back(input_ids=torch.tensor(ids), attention_mask=torch.tensor(real * 1)).logits.numpy()
        unscaled = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(real * 1)).logits.numpy()
    close(array(ours({"token_ids": ids, "padding_mask": real}))[real], expected[real], 2e-5)
    assert np.abs(expected - unscaled)[real].max() > 0.1
    again = bert4x.load(tmp_path / "long")
    assert again.config.replace(extra={}) == ours.config.replace(extra={})
    assert again.config.replace(max_position=60).rope_scaling == ours.config.rope_scaling  # still trained with 10


def test_what_is_said_of_long_texts_is_refused(tmp_path):
    """Names and numbers that mean nothing."""
    folder = bert4x.save(random_model("gau")[0], tmp_path / "gau")
    assert bert4x.load(folder, max_position=58, rope_scaling="yarn").config.rope_scaling["factor"] == 2
    for changes, message in (
        ({"rope_scaling": "yarn"}, "29 positions of a model that was trained with 29; expected a larger max_position"),
        ({"rope_scaling": "ntk", "max_position": 58}, "expected rope_type linear, dynamic, yarn"),
        ({"log_n": 1}, "log_n = 1; expected a whole number from 2"),
        ({"log_n_beyond": "yes"}, "log_n_beyond = 'yes'; expected true or false"),
        ({"rope_theta": 0}, "rope_theta = 0; expected a positive number"),
    ):
        with pytest.raises(ConfigError, match=message):
            bert4x.load(folder, **changes)
    with pytest.raises(ConfigError, match="log_n_beyond without log_n"):
        bert4x.build_transformer_model(**tiny_config("roformer"), log_n_beyond=True)
    with pytest.raises(ConfigError, match="expected an object"):
        bert4x.build_transformer_model(**tiny_config("roformer"), rope_scaling="yarn")
    with pytest.raises(ConversionError, match="log_n"):
        bert4x.save(random_model("qwen3", {"log_n": 30})[0], tmp_path / "gguf", "gguf")
