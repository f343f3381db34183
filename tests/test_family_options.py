"""Every family with every option: it changes the model, or it is an error; nothing is ignored.

And heads that do not divide the hidden size, in every format.
"""

import json

import keras
import numpy as np
import pytest
from battery import array, close
from make_checkpoints import FAMILIES, LAYOUTS
from random_models import random_model

import bert4x
from bert4x.config import TransformerConfig
from bert4x.errors import ConfigError, UnknownOptionError
from bert4x.families import family_of

SIZES = {"vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position": 9}
# A value of each that is no family's default.
OTHER = {
    "vocab_size": 33, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24,
    "attention_head_size": 5, "attention_key_size": 5, "embedding_size": 8, "embedding_mapping": True,
    "max_position": 11, "segment_vocab_size": 3, "hidden_act": "silu", "layer_norm_eps": 1e-3, "dropout_rate": 0.3,
    "attention_dropout_rate": 0.3, "initializer_range": 0.05, "pad_token_id": 3, "residual_attention_scores": True,
    "hierarchical_position": 0.3, "num_decoder_layers": 2, "with_mlm": "linear", "with_nsp": True, "with_pool": True,
    "return_attentions": True, "custom_position_ids": True, "layer_norm_cond": 4, "layer_norm_cond_hidden_size": 6,
    "layer_norm_cond_hidden_act": "relu", "additional_input_layers": 3, "layers": {}, "prefix": "A-", "name": "mine",
    "sequence_length": 7, "bidirectional": True, "bidirectional_weight": 0.2, "bidirectional_dropout": 0.1,
    "packed": True, "recompute": True, "flash_attention": True, "attention_window": 3,
    "attention_dilation": 2, "dtype": "mixed_bfloat16", "quantize": "int8",
}  # fmt: skip
INPUTS = ("layer_norm_cond", "additional_input_layers")  # given as Keras inputs of that size
OWNERS = {  # what does nothing alone, and what it belongs to
    "bidirectional_weight": {"bidirectional": True},
    "bidirectional_dropout": {"bidirectional": True},
    "attention_dilation": {"attention_window": 3},
    "layer_norm_cond_hidden_size": {"layer_norm_cond": 4},
    "layer_norm_cond_hidden_act": {"layer_norm_cond": 4, "layer_norm_cond_hidden_size": 6},
}
# By the documents: a GPT2 masks padding only where its source is read as a whole.
PASSED_ON = {("gpt2", "pad_token_id")}


def built(family, **options):
    """All that a model is made of, as text. Numbers that layers draw at random are the same each time."""
    keras.utils.set_random_seed(0)
    options |= {"layers": {}} if "layers" in options else {}
    for name in set(INPUTS) & set(options):
        options[name] = keras.Input((options[name],), name=f"Given-{name.replace('_', '-')}")
    model = bert4x.build_transformer_model(model=family, **(SIZES | options))
    described = {name: value for name, value in model.get_config().items() if name in ("layers", "output_layers")}
    variables = [v for v in model.variables if "seed_generator" not in v.path]  # those have numbers of their own
    shapes = [(v.path, tuple(v.shape), v.dtype) for v in variables]
    return json.dumps([described, shapes, model.name if "name" in options else "", model.inputs], default=str)


def test_all_options_are_here():
    known = {*TransformerConfig.spelled(), *(name for family in FAMILIES for name in family_of(family).options)}
    assert set(OTHER) == known


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_ignored(family):
    """Asked alone, and where it belongs to another option, with that."""
    ignored, refused = set(), set()
    plain = built(family)
    assert built(family) == plain
    for name, value in OTHER.items():
        owner = OWNERS.get(name, {})
        try:
            if built(family, **{name: value}) == plain:
                ignored.add(name)
        except ConfigError:
            refused.add(name)
        try:
            if owner and built(family, **owner, **{name: value}) == built(family, **owner):
                ignored.add(name)
        except ConfigError:
            pass
    assert ignored - {"layers"} == {name for other, name in PASSED_ON if other == family}
    expected = {
        "gpt2": {"with_pool", "with_nsp", "embedding_size", "embedding_mapping", "segment_vocab_size"},
        "transformer": {"with_pool", "with_nsp", "embedding_size", "embedding_mapping", "segment_vocab_size"},
    }.get(family, set())
    expected |= (
        {"num_decoder_layers"}
        if family != "transformer"
        else {"custom_position_ids", "hierarchical_position", "packed", "attention_window"}
    )
    expected |= {*OWNERS} | ({"bidirectional"} if family != "transformer" else set())
    assert refused == expected


def test_the_message_says_which_family():
    for family, options in (("gpt2", {"with_pool": True}), ("bert", {"num_decoder_layers": 3})):
        with pytest.raises(UnknownOptionError, match=f"{next(iter(options))}|a {family}") as caught:
            bert4x.build_transformer_model(model=family, **SIZES, **options)
        assert f"a {family}" in str(caught.value) and "did you mean" not in str(caught.value)
    with pytest.raises(UnknownOptionError, match="segment_vocab_size = 2 means nothing to a gpt2"):
        bert4x.build_transformer_model(SIZES | {"segment_vocab_size": 2}, model="gpt2")
    for harmless in ({"with_pool": False}, {"segment_vocab_size": 0}, {"embedding_size": 12}):
        bert4x.build_transformer_model(model="gpt2", **SIZES, **harmless)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_do_not_divide_the_hidden_size(family, tmp_path):
    """Such as mT5-small's 512 and 6 x 64: saved, loaded, and converted to every format and back."""
    sizes = {"hidden_size": 16, "num_attention_heads": 3, "attention_head_size": 8}
    sizes |= {"vocab_size": 32, "intermediate_size": 24}
    model, inputs = random_model(family, sizes)
    expected = array(model(inputs))
    first = bert4x.save(model, tmp_path / "bert4x")
    for format in LAYOUTS[family]:
        saved = bert4x.save(model, tmp_path / f"saved-{format}", format)
        there = bert4x.convert(first, tmp_path / f"to-{format}", format)
        back = bert4x.convert(there, tmp_path / f"back-{format}", "bert4x")
        for folder in (saved, there, back):
            loaded = bert4x.load(folder, model=family, with_mlm=family in ("gpt2", "transformer"))
            assert loaded.config.attention_head_size == 8
            if family not in ("gpt2", "transformer"):  # whose outputs are logits here, probabilities above
                close(loaded(inputs), expected, 1e-5)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_has_other_numbers_in_each_matrix(family):
    """Two layers that share an initializer would start from the same random numbers."""
    model = bert4x.build_transformer_model(model=family, **SIZES)
    starts = [array(v).ravel()[:20].tobytes() for v in model.variables if v.path.endswith(("kernel", "embeddings"))]
    assert len(starts) > 5 and len(set(starts)) == len(starts)
