"""Config files: how each is spelled, what is assumed where they are silent, and what they may not say."""

import json

import pytest
from make_checkpoints import FAMILIES, LAYOUTS, config_of

from bert4x.checkpoints.tables import FORMATS, style_for
from bert4x.config import TransformerConfig, from_json, read_config_file, to_json
from bert4x.errors import ConfigError, CorruptFileError, UnknownArchitectureError, UnknownOptionError
from bert4x.families import family_of

GOOGLE_BERT = {
    "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 512,
    "num_attention_heads": 12, "num_hidden_layers": 12, "pooler_fc_size": 768, "type_vocab_size": 2,
    "vocab_size": 21128,
}  # fmt: skip
SIZES = {"vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}


def read(data, format, model):
    return from_json(data, model, style_for(format, model), family_of(model).config_class)


def test_google_bert():
    config = read(GOOGLE_BERT, "tf1", "bert")
    assert config.extra == {"directionality": "bidi", "pooler_fc_size": 768}
    expected = TransformerConfig(
        "bert", 21128, 768, 12, 12, 3072, max_position=512, hidden_act="gelu_erf", pad_token_id=0, extra=config.extra
    )
    assert config == expected
    assert (config.attention_head_size, config.attention_key_size, config.embedding_size) == (64, 64, 768)
    assert not config.embedding_mapping
    assert to_json(config, style_for("tf1", "bert")) == GOOGLE_BERT


def test_zhuiyi_key_size():
    """The small RoBERTa of Zhuiyi: 4 times longer keys, factorised embeddings."""
    config = read(GOOGLE_BERT | {"attention_key_size": 128, "embedding_size": 128}, "tf1", "bert")
    assert (config.attention_head_size, config.attention_key_size, config.embedding_mapping) == (64, 128, True)


def test_what_gelu_means():
    said = {"hidden_act": "gelu"}
    assert read(SIZES | said, "tf1", "bert").hidden_act == "gelu_erf"
    assert read(SIZES | said, "hf", "bert").hidden_act == "gelu_erf"
    assert read(SIZES | said, "tf1", "albert").hidden_act == "gelu_tanh"
    assert read(SIZES | said, "hf", "albert").hidden_act == "gelu_erf"
    assert read(SIZES, "hf", "albert").hidden_act == "gelu_tanh"  # transformers' default is gelu_new
    assert read(SIZES, "hf", "gpt2").hidden_act == "gelu_tanh"
    assert read(SIZES | {"activation_function": "gelu"}, "hf", "gpt2").hidden_act == "gelu_erf"
    assert read(SIZES | {"hidden_act": "gelu"}, "megatron", "gpt2").hidden_act == "gelu_tanh"
    for name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        assert read(SIZES | {"hidden_act": name}, "hf", "bert").hidden_act == "gelu_tanh"


def test_defaults_of_the_families():
    assert read(SIZES, "hf", "gpt2").layer_norm_eps == 1e-5
    assert read(SIZES, "hf", "bert").layer_norm_eps == read(SIZES, "tf1", "albert").layer_norm_eps == 1e-12
    assert read(SIZES, "hf", "albert").embedding_size == 128
    assert read(SIZES, "hf", "bert").pad_token_id == 0
    assert read(SIZES, "hf", "gpt2").pad_token_id is None
    assert read(SIZES, "megatron", "gpt2").pad_token_id == 5
    # hfl's RoBERTa-wwm says 1 and means [PAD], which is 0
    assert read(SIZES | {"pad_token_id": 1}, "hf", "bert").pad_token_id == 0
    assert read(SIZES | {"n_inner": None}, "hf", "gpt2").intermediate_size == 48
    assert read(SIZES | {"pad_token_id": 3}, "hf", "t5").pad_token_id == 3


def test_gpt2_spellings():
    openai = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
    config = read(openai, "tf1", "gpt2")
    assert (config.vocab_size, config.max_position, config.hidden_size) == (50257, 1024, 768)
    assert config.intermediate_size == 3072
    hf = to_json(config, style_for("hf", "gpt2"))
    assert hf["n_embd"] == 768 and hf["model_type"] == "gpt2" and hf["activation_function"] == "gelu_new"


@pytest.mark.parametrize("family", FAMILIES)
def test_written_and_read_again(family):
    for format in FORMATS:
        if format not in LAYOUTS[family] and family != "albert_unshared":
            continue
        if format not in LAYOUTS[family]:  # written as an ALBERT
            continue
        for act in ("gelu_erf", "gelu_tanh", "relu", "silu", "tanh"):
            for changes in ({}, {"layer_norm_eps": 1e-7}, {"initializer_range": 0.5}, {"dropout_rate": 0}):
                config = config_of(family, hidden_act=act, **changes)
                data = json.loads(json.dumps(to_json(config, style_for(format, family))))
                assert read(data, format, family) == config, (format, data)


WRONG = [
    ("hidden_size", "768", "hidden_size = '768'; expected a positive integer"),
    ("hidden_size", 12.0, "hidden_size = 12.0"),
    ("hidden_size", True, "hidden_size = True"),
    ("hidden_size", 0, "hidden_size = 0"),
    ("hidden_size", 2**31, "hidden_size"),
    ("hidden_size", [12], "hidden_size"),
    ("num_attention_heads", 5, "12 is not a multiple of num_attention_heads 5"),
    ("num_hidden_layers", -3, "num_hidden_layers"),
    ("num_hidden_layers", 10**6, "num_hidden_layers = 1000000; expected"),
    ("vocab_size", 10**30, "vocab_size"),
    ("vocab_size", {}, "vocab_size"),
    ("layer_norm_eps", "1e-12", "layer_norm_eps"),
    ("layer_norm_eps", float("nan"), "layer_norm_eps = nan"),
    ("layer_norm_eps", float("inf"), "layer_norm_eps = inf"),
    ("hidden_dropout_prob", 1.5, "dropout_rate = 1.5; expected a number from 0 to 1"),
    ("attention_probs_dropout_prob", -0.1, "attention_dropout_rate"),
    ("type_vocab_size", -1, "segment_vocab_size"),
    ("type_vocab_size", 10**12, "segment_vocab_size"),
    ("hidden_act", 3, "hidden_act = 3; expected a name"),
    ("hierarchical_position", "yes", "hierarchical_position = 'yes'"),
    ("hierarchical_position", 1.0, "hierarchical_position = 1.0"),
    ("hierarchical_position", float("nan"), "hierarchical_position"),
    ("residual_attention_scores", "no", "residual_attention_scores = 'no'"),
    ("embedding_mapping", 2, "embedding_mapping = 2"),
    ("position_embedding_type", "relative_key", "position_embedding_type = 'relative_key'; only 'absolute'"),
]


@pytest.mark.parametrize("key, value, message", WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_values_that_cannot_be(key, value, message):
    with pytest.raises(ConfigError) as caught:
        read(SIZES | {key: value}, "hf", "bert")
    assert message in str(caught.value)


def test_gpt2_settings_that_change_the_computation():
    for key, value in {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}.items():
        with pytest.raises(ConfigError, match=key):
            read(SIZES | {key: value}, "hf", "gpt2")


OTHER_NUMBERS = [  # what config files can ask for, and is not computed here
    ("bert", "hf", {"model_type": "bert", "hidden_act": "leaky_relu"}, "leaky_relu"),
    ("deberta_v2", "hf", {"relative_attention": True, "share_att_key": True, "norm_rel_ebd": "layer_norm"}, "pos_att"),
    ("modernbert", "hf", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
    ("bert", "uer", {"mask": "causal"}, "mask = 'causal'"),
    ("bert", "uer", {"layernorm_positioning": "pre"}, "layernorm_positioning"),
    ("gpt2", "uer", {"has_residual_attention": True}, "has_residual_attention"),
    ("ernie", "paddle", {"task_id": 2}, "task_id"),
    ("llama", "gguf", {"llama": {"rope": {"scaling": {"type": "yarn", "factor": 2.0, "attn_factor": 0.5}}}}, "attn_f"),
]


@pytest.mark.parametrize(("family", "format", "said", "message"), OTHER_NUMBERS, ids=[m for *_, m in OTHER_NUMBERS])
def test_what_is_not_computed_is_named(family, format, said, message):
    with pytest.raises(ConfigError, match=message):
        read(SIZES | said, format, family)


def test_what_files_say_twice_or_not_at_all():
    """As transformers has it: a window of 4096 where nothing is said of it, null is none; of two bases the inner one;
    of two activations of a T5 the one alone.
    """
    for family in ("mistral", "qwen2", "qwen3"):
        assert read(SIZES, "hf", family).sliding_window == 4096
        config = read(SIZES | {"sliding_window": None}, "hf", family)
        assert config.sliding_window is None
        assert to_json(config, style_for("hf", family))["sliding_window"] is None
    for name in ("rope_parameters", "rope_scaling"):
        said = {"rope_theta": 7.0, name: {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}}
        assert read(SIZES | said, "hf", "llama").rope_theta == 9.0
    said = {"feed_forward_proj": "relu", "dense_act_fn": "gelu_new", "is_gated_act": True}
    config = read(SIZES | said, "hf", "t5")
    assert (config.hidden_act, config.gated) == ("gelu_tanh", True)
    said = {"global_rope_theta": 7.0, "rope_parameters": {"full_attention": {"rope_theta": 9.0}}}
    assert read(SIZES | said, "hf", "modernbert").rotary_theta == 9.0


def test_the_activation_of_an_electra_generator():
    """Of transformers' before its output: gelu whatever the config says, here what it says."""
    electra = family_of("electra")
    table = next(table for table in electra.tables if table.format == "hf")
    config = read(SIZES | {"hidden_act": "relu"}, "hf", "electra")
    assert electra.config_by_tensors(config, table, {}) == config
    with pytest.raises(ConfigError, match="only 'gelu'"):
        electra.config_by_tensors(config, table, {"MLM-Dense": None})


def test_missing_keys_are_named():
    for key in SIZES:
        with pytest.raises(ConfigError, match=f"lacks {key}; found only"):
            read({name: value for name, value in SIZES.items() if name != key}, "hf", "bert")
    with pytest.raises(ConfigError, match="lacks vocab_size, n_embd/hidden_size, n_layer"):
        read({}, "hf", "gpt2")
    with pytest.raises(ConfigError, match="lacks vocab_size"):
        read(SIZES | {"vocab_size": None}, "hf", "bert")


def test_another_architecture_with_the_same_names():
    """Real RoBERTa counts positions from 2, NEZHA has relative ones: their tensors are named like BERT's."""
    for kind in ("roberta", "xlm-roberta", "nezha", "electra"):
        with pytest.raises(UnknownArchitectureError, match=f"{kind}.*bert"):
            read(SIZES | {"model_type": kind}, "hf", "bert")


def test_replace():
    config = config_of()
    assert config.replace(vocab_size=5).vocab_size == 5
    with pytest.raises(UnknownOptionError, match="did you mean 'vocab_size'"):
        config.replace(vocab_sizes=5)
    with pytest.raises(ConfigError):
        config.replace(vocab_size=0)


BAD_JSON = {
    "nothing": b"",
    "not JSON": b"{'a': 1}",
    "a list": b"[1, 2]",
    "a number": b"3",
    "cut": b'{"a": 1',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "deep": b"[" * 100_000,
    "long number": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_unreadable_files(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(BAD_JSON[name])
    with pytest.raises(CorruptFileError, match=r"config\.json"):
        read_config_file(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptFileError, match="bytes"):
        read_config_file(path)
