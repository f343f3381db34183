"""The encoder-decoder beyond the battery: loading and saving, decoding with a cache, the oracle against PyTorch."""

import keras
import numpy as np
import pytest
from battery import array, close, given
from keras import ops
from make_checkpoints import assert_same_bits, config_of, draw, read_all, write_checkpoint
from random_models import random_pairs, random_weights, tiny_config
from reference import transformer
from reference.parts import Weights

import bert4x
from bert4x.errors import ConversionError
from bert4x.layers import SinusoidalPosition
from bert4x.models.cache import new_cache

CONFIG = tiny_config("transformer")


@pytest.fixture
def source(tmp_path):
    return write_checkpoint(tmp_path / "source", "bert4x", config_of("transformer"))


@pytest.mark.parametrize("format", ["bert4x", "keras"])
def test_load_and_save(format, source, tmp_path):
    """`load` finds family and application, and gives logits; what `save` and `convert` write is the same again."""
    model = bert4x.load(source)
    inputs = given(random_pairs(CONFIG))
    expected = transformer.forward(read_all(source), CONFIG, **inputs)["lm_logits"]
    real = random_pairs(CONFIG)["target_mask"]
    close(array(model(inputs))[real], expected[real], 5e-5)  # logits of about 30
    bert4x.save(model, tmp_path / "saved", format)
    assert bert4x.load(tmp_path / "saved").config == model.config
    assert_same_bits(read_all(tmp_path / "saved"), read_all(source))
    bert4x.convert(tmp_path / "saved", tmp_path / "converted", "bert4x")
    assert_same_bits(read_all(tmp_path / "converted"), read_all(source))
    with pytest.raises(ConversionError, match="no hf layout of transformer"):
        bert4x.save(model, tmp_path / "hf", "hf")


def test_loads_with_another_depth(source):
    config = config_of("transformer")
    weights = draw(config)
    with pytest.raises(bert4x.Bert4xError, match="Decoder-Transformer-2"):
        bert4x.load(source, num_decoder_layers=3)
    shallow = bert4x.load(source, num_decoder_layers=1)
    path = "Decoder-Transformer-0-FeedForward/output/bias"
    found = {variable.path: np.array(variable) for variable in shallow.variables}
    assert np.array_equal(found[path], weights[path])
    assert not any(path.startswith("Decoder-Transformer-1") for path in found)


@pytest.mark.parametrize("options", [{}, {"residual_attention_scores": True}], ids=["plain", "residual"])
def test_cached_equals_uncached(options):
    """The source read once, then targets in several passes: what the whole gives, with padding in both."""
    config = tiny_config("transformer", initializer_range=0.3, **options)
    backbone = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", return_keras_model=False)
    inputs = given(random_pairs(config))
    whole = array(backbone.model(inputs))
    assert np.ptp(whole) > 1
    cache, steps, start = new_cache(backbone.config, batch_size=3, length=12, dtype="float32"), [], 0
    assert len(cache.layers) == 2
    inputs = {name: ops.convert_to_tensor(values) for name, values in inputs.items()}
    source, targets, mask = inputs, inputs["target_ids"], ops.not_equal(inputs["target_ids"], 0)
    for stop in (2, 3, 4, 7, 9):
        step = {"target_ids": targets[:, start:stop], "target_mask": mask[:, start:stop]}
        logits, cache = backbone.forward(source | step, cache, start)
        steps.append(array(logits))
        source, start = {}, stop  # the first pass alone needs the source
    assert cache.source.valid.shape == (3, 13) and len(cache.source.layers) == 2
    real = random_pairs(config)["target_mask"]
    close(np.concatenate(steps, axis=1)[real], whole[real])


def test_a_written_padding_id_is_not_seen_later_on():
    """As in a whole text, where nothing but the id tells padding: decoding gives what the model says of the whole."""
    config = tiny_config("transformer", initializer_range=0.3)
    model = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear")
    pad, source = config["pad_token_id"], [[7, 9, 11, 8]]
    ids, scores = model.generate_ids(
        source, start_id=5, max_new_tokens=6, forced_ids={1: pad}, stop_ids=(), return_scores=True
    )
    assert ids[0, 1] == pad
    whole = array(model({"token_ids": np.array(source), "target_ids": np.append([[5]], ids[:, :-1], axis=1)}))[0]
    logs = whole - np.logaddexp.reduce(whole, axis=-1, keepdims=True)
    assert [i for place, i in enumerate(ids[0]) if place != 1] == [i for n, i in enumerate(logs.argmax(-1)) if n != 1]
    assert scores[0] == pytest.approx(logs[np.arange(6), ids[0]].sum(), abs=1e-4)
    beams, found = model.generate_ids(
        source, start_id=5, max_new_tokens=6, forced_ids={1: pad}, stop_ids=(), num_beams=2, return_scores=True
    )
    whole = array(model({"token_ids": np.array(source), "target_ids": np.append([[5]], beams[:, :-1], axis=1)}))[0]
    logs = whole - np.logaddexp.reduce(whole, axis=-1, keepdims=True)
    free = [n for n in range(6) if n != 1]  # of beams scores are after the rules
    assert found[0] == pytest.approx(logs[free, beams[0, free]].sum() / 6, abs=1e-4)


def test_positions_of_ones_own_and_the_last_token():
    """Targets padded on the left, as in a batch of prompts, give what they give without padding."""
    config = tiny_config("transformer", initializer_range=0.3)
    backbone = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", return_keras_model=False)
    ids = np.random.default_rng(0).integers(1, 97, (1, 7)).astype("int32")
    whole = array(backbone.model({"token_ids": ids, "target_ids": ids[:, :4]}))
    padded = np.concatenate([np.zeros((1, 3), "int32"), ids[:, :4]], axis=1)
    step = {
        "token_ids": ids,
        "target_ids": padded,
        "target_mask": padded > 0,
        "position_ids": np.maximum(np.arange(7) - 3, 0)[None],
    }
    step = {name: ops.convert_to_tensor(values) for name, values in step.items()}
    logits, _ = backbone.forward(step, new_cache(backbone.config, 1, 8, "float32"), 0)
    close(array(logits)[:, 3:], whole)
    last, _ = backbone.forward(step, new_cache(backbone.config, 1, 8, "float32"), 0, last=True)
    close(last, whole[:, -1:])


def test_long_positions_are_exact():
    """Angles of large positions lose their digits in single precision; the table must not."""
    layer = SinusoidalPosition(max_position=4000)
    found = array(layer(np.zeros((1, 4000, 6), "float32")))[0]
    expected = [[transformer.sinusoid(pos, j, 6) for j in range(6)] for pos in (0, 1, 3999)]
    close(found[[0, 1, 3999]], expected, 1e-7)


def test_learns_to_copy():
    """`fit` on dicts, with the padding of the target left out of the loss."""
    sizes = {"vocab_size": 12, "num_hidden_layers": 1, "num_decoder_layers": 1}
    config = tiny_config("transformer", initializer_range=0.17, dropout_rate=0.0, **sizes)
    model = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear")
    random = np.random.default_rng(0)
    source = random.integers(2, 12, (256, 5)).astype("int32")
    target_in = np.concatenate([np.ones_like(source[:, :1]), source[:, :-1]], axis=1)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = {"token_ids": source, "target_ids": target_in}
    before = model.evaluate(data, source, verbose=0)
    model.fit(data, source, epochs=25, batch_size=32, verbose=0)
    assert model.evaluate(data, source, verbose=0) < before / 4


def test_oracle_against_torch():
    """PyTorch's post-norm Transformer, which the oracle shares nothing with, on the same embeddings."""
    torch = pytest.importorskip("torch", reason="compares with torch.nn.Transformer")
    config = tiny_config("transformer")
    weights, inputs = random_weights(config), random_pairs(config)
    w = Weights(weights)
    theirs = torch.nn.Transformer(
        35, 5, 3, 2, 53, dropout=0.0, activation="relu", layer_norm_eps=1e-6, batch_first=True, dtype=torch.float64
    ).eval()
    theirs.encoder.norm = theirs.decoder.norm = None  # theirs normalises once more at the end

    def attention(layer, path):
        names = ("query", "key", "value")
        layer.in_proj_weight.data = torch.tensor(np.concatenate([w[f"{path}/{name}/kernel"].T for name in names]))
        layer.in_proj_bias.data = torch.tensor(np.concatenate([w[f"{path}/{name}/bias"] for name in names]))
        linear(layer.out_proj, f"{path}/output")

    def linear(layer, path):
        layer.weight.data, layer.bias.data = torch.tensor(w[f"{path}/kernel"].T), torch.tensor(w[f"{path}/bias"])

    def norm(layer, path):
        layer.weight.data, layer.bias.data = torch.tensor(w[f"{path}-Norm/gamma"]), torch.tensor(w[f"{path}-Norm/beta"])

    for side, layers in (("Encoder", theirs.encoder.layers), ("Decoder", theirs.decoder.layers)):
        for i, layer in enumerate(layers):
            block = f"{side}-Transformer-{i}"
            parts = ["MultiHeadSelfAttention"] + ["MultiHeadCrossAttention"] * (side == "Decoder") + ["FeedForward"]
            attention(layer.self_attn, f"{block}-{parts[0]}")
            if side == "Decoder":
                attention(layer.multihead_attn, f"{block}-{parts[1]}")
            linear(layer.linear1, f"{block}-FeedForward/intermediate")
            linear(layer.linear2, f"{block}-FeedForward/output")
            for n, part in enumerate(parts, start=1):
                norm(getattr(layer, f"norm{n}"), f"{block}-{part}")

    def embed(ids):
        places = [[transformer.sinusoid(pos, j, 35) for j in range(35)] for pos in range(ids.shape[1])]
        return torch.tensor(w["Embedding-Token/embeddings"][ids] * 35**0.5 + np.array(places))

    padding = torch.tensor(~inputs["padding_mask"])
    with torch.no_grad():
        expected = theirs(
            embed(inputs["token_ids"]),
            embed(inputs["target_ids"]),
            tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        ).numpy()
    ours = transformer.forward(weights, config, **given(inputs))["hidden"]
    real = inputs["target_mask"]
    np.testing.assert_allclose(ours[real], expected[real], rtol=0, atol=1e-9)
