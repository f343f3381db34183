"""T5, mT5 and T5-PEGASUS beyond the battery: their layouts, bert4keras' names and numbers, what targets begin with."""

import dataclasses
import json

import numpy as np
import pytest
from battery import array, close
from make_checkpoints import draw, write_checkpoint
from reference import t5

import bert4x
from bert4x import testing
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import ConversionError, GenerationError
from bert4x.families import family_of
from bert4x.models import T5, T5_Base, T5_Decoder, T5_Encoder
from bert4x.tokenizers import Tokenizer

MT5 = {"gated": True, "hidden_act": "gelu_tanh", "tied_output": False, "as_mt5": True}
SIZES = {
    "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "attention_head_size": 5,
    "intermediate_size": 14, "segment_vocab_size": 0, "layer_norm_eps": 1e-6, "pad_token_id": 0,
}  # fmt: skip
# What bert4keras 0.11.5 itself gives for the weights and texts below: cross_position_bias, the logits [:, 2, :4].
BERT4KERAS = {
    "t5.1.0": (
        {},
        True,
        [[0.1351811, 0.0328931, -0.0636985, 0.1647695], [0.1097049, 0.1452831, -0.0318148, 0.0575567]],
    ),
    "mt5.1.1": (
        MT5 | {"hidden_act": "gelu_erf"},
        True,
        [[0.0028739, -0.0112744, -0.0375782, 0.0484277], [0.0214145, -0.0755940, 0.0432156, -0.0072067]],
    ),
    "mt5.1.1_without": (
        MT5 | {"hidden_act": "gelu_erf"},
        False,
        [[-0.0038304, -0.0097994, -0.0356934, 0.0339799], [0.0216676, -0.0753813, 0.0474528, -0.0036168]],
    ),
}
SOURCES, TARGETS = np.array([[3, 9, 4, 7, 11], [5, 6, 0, 0, 0]]), np.array([[0, 8, 9, 2], [0, 7, 3, 0]])


def config_of(**fields):
    return T5.config_class(model="t5", **{"hidden_act": "relu"} | SIZES | fields)


@pytest.mark.sweep("whole families")
def test_family():
    """Every layout of mT5, `.keras`, decoding, and the oracle."""

    def oracle(config, weights, inputs):
        return t5.forward(weights, dataclasses.asdict(config), **inputs)["hidden"]

    sizes = {"num_decoder_layers": 3, "num_attention_heads": 3, "attention_head_size": 10, "attention_key_size": 10}
    fields = {"relative_buckets": 8, "relative_max_distance": 11, "max_position": 1 << 20, "embedding_size": 24}
    said = {"scale_output": False, "cross_position_bias": False, "layer_norm_eps": 1e-6}
    testing.check_family("t5", oracle, ("seq2seq",), **sizes, **fields, **said, **MT5)


@pytest.mark.parametrize("case", BERT4KERAS)
def test_as_bert4keras(case, tmp_path):
    """It always scales, and by default adds biases in the attention to the source."""
    fields, crossing, expected = BERT4KERAS[case]
    config, generator = config_of(**fields), np.random.default_rng(0)
    weights = {path: generator.normal(0, 0.3, s).astype("float32") for path, (s, _) in variables(config).items()}
    folder, name = write_checkpoint(tmp_path, "tf1", config, weights), case.removesuffix("_without")
    options = {} if crossing else {"cross_position_bias": False}
    options |= {"return_keras_model": False, "with_lm": "linear", "name": "T5"}
    built = bert4x.build_transformer_model(folder / "config.json", folder / "model.ckpt", model=name, **options)
    assert built.config.as_mt5 == (name == "mt5.1.1") and built.config.has_cross_position_bias == crossing
    logits = array(built.model([SOURCES, TARGETS]))
    close(logits[:, 2, :4], np.array(expected), 2e-6)
    if crossing:
        encoded = built.encoder.predict(SOURCES[:1], verbose=0)
        close(built.decoder.predict([encoded, TARGETS[:1]], verbose=0), logits[:1], 2e-6)
        with pytest.raises(GenerationError, match="decoder without its encoder"):
            built.decoder.generate_ids([[3]])
    if name == "t5.1.0":
        testing.check_decoding(T5, built.config.replace(model="t5"), "seq2seq")
        files = folder / "config.json", folder / "model.ckpt"
        assert issubclass(T5_Encoder, T5_Base) and family_of("t5_decoder") is T5_Decoder
        alone = bert4x.build_transformer_model(*files, model=T5_Encoder, cross_position_bias=False)
        close(alone(SOURCES[:1]), encoded, 2e-6)
        bert4x.save(alone, tmp_path / "encoder", "hf")  # transformers' T5EncoderModel
        assert json.loads((tmp_path / "encoder" / "config.json").read_text())["architectures"] == ["T5EncoderModel"]
        close(bert4x.load(tmp_path / "encoder", "encoder")(SOURCES[:1]), encoded, 2e-6)


def write_hf(folder, tensors, **changes):
    """A folder of transformers with these changes of its config."""
    from bert4x.checkpoints.formats.safetensors_file import write_safetensors

    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    write_safetensors(folder / "model.safetensors", [from_array(name, values) for name, values in tensors.items()])
    return open_checkpoint(folder)


def test_which_output_layer(tmp_path):
    """By the tensors that are there, and by what both versions of transformers say."""
    config = config_of(**MT5, scale_output=False, cross_position_bias=False)
    folder = write_checkpoint(tmp_path, "hf", config, draw(config))
    tensors = {name: tensor.read().copy() for name, tensor in open_checkpoint(folder).tensors.items()}
    table = tensors["shared.weight"]
    for more, changes, tied, scaled in (
        ({}, {}, False, False),
        ({}, {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}, False, False),
        ({}, {"model_type": "mt5", "tie_word_embeddings": True}, False, False),
        ({"lm_head.weight": table, "encoder.embed_tokens.weight": table}, {"model_type": "t5"}, True, True),
        ({"lm_head.weight": None}, {"tie_word_embeddings": False}, True, False),
    ):
        given = {name: values for name, values in (tensors | more).items() if values is not None}
        checkpoint = write_hf(folder, given, **{"scale_decoder_outputs": None} | changes)
        assert not checkpoint.report.problems
        checkpoint.check_tied()
        assert (checkpoint.config.tied_output, checkpoint.config.scales_output) == (tied, scaled), changes
    with pytest.raises(bert4x.Bert4xError, match="umt5"):
        write_hf(folder, tensors, model_type="umt5")


def test_pegasus_and_kept_tokens(tmp_path):
    """Its vocabulary tells what it computes; transformers cannot say it. Both matrices are trimmed."""
    config = config_of(**MT5 | {"vocab_size": 50000, "hidden_act": "gelu_erf"}, decoder_start_token_id=7)
    weights = draw(config)
    folder = write_checkpoint(tmp_path / "a", "tf1", config, weights)
    found = open_checkpoint(folder).config
    assert found.scale_output and found.cross_position_bias and found.hidden_act == "gelu_erf"
    with pytest.raises(ConversionError, match="cross_position_bias"):
        bert4x.convert(folder, tmp_path / "hf", "hf")
    keep = [0, 9, 7, 5]
    bert4x.convert(folder, tmp_path / "b", "bert4x", keep_tokens=keep)
    trimmed = open_checkpoint(tmp_path / "b")
    assert trimmed.config.decoder_start_token_id == 2 and trimmed.config.cross_position_bias
    for path, axis in (("Embedding-Token/embeddings", 0), ("Decoder-Output-LM/kernel", 1)):
        assert np.array_equal(trimmed.read(path), weights[path].take(keep, axis))
    model = bert4x.load(folder, keep_tokens=keep)
    kept = {v.path: array(v) for v in model.variables}["Decoder-Output-LM/kernel"]
    assert np.array_equal(kept, trimmed.read("Decoder-Output-LM/kernel")) and model.config.decoder_start_token_id == 2


def test_what_targets_begin_with():
    """What the config says, or the [CLS] of a vocabulary, or the padding."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"春眠不觉晓处闻啼鸟"]
    tokenizer = Tokenizer({token: i for i, token in enumerate(tokens)})
    for said, vocabulary, start in ((None, None, 0), (None, tokenizer, 2), (5, tokenizer, 5)):
        assert T5(config_of(decoder_start_token_id=said)).target_start(vocabulary) == start
    model = testing.build(T5, config := config_of(vocab_size=14), testing.random_weights(config), with_mlm="linear")
    model.tokenizer = tokenizer
    ids = model.generate_ids([[2, 5, 6, 3]], max_new_tokens=4, suppress_ids=[0, 1, 2, 3, 4])
    assert model.generate("春眠", max_new_tokens=4, suppress_ids=[0, 1, 2, 3, 4]) == "".join(tokens[i] for i in ids[0])
    source, target = np.array([[2, 5, 6, 3]]), np.array([[2]])
    expected = array(model({"token_ids": source, "target_ids": target}))[0, 0]
    by_old_names = model({"Encoder-Input-Token": source, "Decoder-Input-Token": target})
    np.testing.assert_array_equal(array(by_old_names)[0, 0], expected)
    assert ids[0, 0] == expected[5:].argmax() + 5
