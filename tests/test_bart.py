"""BART against transformers, CPT against its oracle: outputs, bits, what is written, and what cannot be."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from battery import array, close
from make_checkpoints import assert_same_bits, draw, write_checkpoint
from reference import bart

import bert4x
from bert4x import testing
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.errors import ConfigError
from bert4x.families import family_of
from bert4x.tasks.comparison import verify
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.triple_extraction import before_last_norm
from bert4x.tokenizers import Tokenizer

SIZES = {
    "num_hidden_layers": 3, "num_decoder_layers": 1, "embedding_size": 24, "hidden_act": "gelu_erf",
    "layer_norm_eps": 1e-5, "decoder_start_token_id": 3,
}  # fmt: skip
THEIRS = {
    "vocab_size": 97, "d_model": 40, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 5,
    "decoder_attention_heads": 5, "encoder_ffn_dim": 53, "decoder_ffn_dim": 53, "max_position_embeddings": 31,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    "scale_embedding": True,
}  # fmt: skip
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"春眠不觉晓处闻啼鸟"]


def oracle(config, weights, inputs):
    """The decoder's states."""
    return bart.forward(weights, dataclasses.asdict(config), **inputs)["hidden"]


@pytest.mark.sweep("whole families")
def test_bart():
    """Every layout, `.keras`, decoding, and the oracle."""
    testing.check_family("bart", oracle, ("seq2seq",), **SIZES)


@pytest.mark.sweep("whole families")
def test_cpt():
    testing.check_family("cpt", oracle, ("seq2seq",), **SIZES)


def published(folder):
    """A random BART, and how transformers saves it."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(0)
    cls = transformers.BartForConditionalGeneration
    model = cls(transformers.BartConfig(**THEIRS, attn_implementation="eager")).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.6 if "embed_positions" in name else 0.2)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    model.final_logits_bias.normal_(0, 0.2)
    model.generation_config.forced_bos_token_id = 1
    model.save_pretrained(folder)
    return model


def test_as_transformers(tmp_path):
    """Logits and states with padding, bits back and forth, a file without the prefix, and what `generate` writes, with
    the tokens that config files force.
    """
    golden = published(tmp_path / "theirs")
    import torch

    draws, real, known = np.random.default_rng(0), np.arange(13) < [[13], [9]], np.arange(9) < [[6], [9]]
    ids, target = (np.where(mask, draws.integers(4, 97, mask.shape), 0) for mask in (real, known))
    source = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real.astype(int))}
    theirs = {"decoder_input_ids": torch.tensor(target), "decoder_attention_mask": torch.tensor(known.astype(int))}
    with torch.no_grad():
        expected = golden(**source, **theirs)
        written = [golden.generate(**source, max_new_tokens=7, do_sample=False, num_beams=n).numpy() for n in (1, 3)]
    model = bert4x.load(tmp_path / "theirs")
    close(array(model({"token_ids": ids, "target_ids": target}))[known], expected.logits.numpy()[known])
    for beams, new in zip((1, 3), written, strict=True):
        given = {"padding_mask": real, "max_new_tokens": 7, "num_beams": beams, "stop_ids": 2, "pad_id": 0}
        assert np.array_equal(model.generate_ids(ids, **given), new[:, 1:])
    assert set(new[:, 1]) == {1} and {row[-1] for row in new} <= {0, 2}  # [CLS] first, [SEP] last
    golden.model.save_pretrained(tmp_path / "bare")  # without head, and without the word before all names
    states = array(bert4x.load(tmp_path / "bare", "encoder")({"token_ids": ids}))
    close(states[real], expected.encoder_last_hidden_state.numpy()[real])
    assert not open_checkpoint(tmp_path / "bare").config.output_bias
    bert4x.convert(tmp_path / "theirs", tmp_path / "ours", "bert4x")
    bert4x.convert(tmp_path / "ours", tmp_path / "back", "hf")
    before, after = (
        {t.name: np.array(t.read()) for t in open_checkpoint(tmp_path / name).tensors.values()}
        for name in ("theirs", "back")
    )
    assert_same_bits(after, before)


def test_heads_of_cpt(tmp_path):
    """The whole encoder fills masks and has a pooler; what writes is without its last block, and is saved so."""
    cls = family_of("cpt")
    config = testing.tiny_config(cls, **SIZES, vocab_size=len(TOKENS))
    weights = draw(config)
    folder = write_checkpoint(tmp_path / "whole", "hf", config, weights)
    (folder / "vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    ids = np.array([[2, 5, 4, 7, 3, 0], [2, 8, 9, 10, 11, 3]])
    expected = bart.forward(weights, dataclasses.asdict(config), ids, ids)
    for options, name in (({}, "states"), ({"with_mlm": True}, "mlm_logits"), ({"with_pool": True}, "pooled")):
        output = array(bert4x.load(folder, "encoder", **options)(ids))
        at = ids != 0 if output.ndim == 3 else ...
        close(output[at], expected[name][at])
    guessed = bert4x.fill_mask("春[MASK]不", folder, top_k=1)[0][0]
    alone = bart.forward(weights, dataclasses.asdict(config), [[2, 5, 4, 7, 3]], [[3]])["mlm_logits"][0, 2]
    assert guessed.token == TOKENS[int(alone.argmax())]
    bert4x.save(bert4x.load(folder), tmp_path / "writes", "hf")
    close(bert4x.load(tmp_path / "writes")([ids, ids]), expected["lm_logits"])
    with pytest.raises(bert4x.Bert4xError, match="Encoder-Transformer-2"):
        bert4x.load(tmp_path / "writes", "encoder")
    with pytest.raises(ConfigError, match="with_pool"):
        bert4x.load(folder, with_pool=True)
    file = folder / "config.json"
    for changes, message in (({"cls_mode": 2}, "cls_mode"), ({"activation_function": "relu"}, "only 'gelu'")):
        changed = tmp_path / "config.json"
        changed.write_text(json.dumps(json.loads(file.read_text()) | changes))
        with pytest.raises(ConfigError, match=message):
            open_checkpoint(folder, changed)


def test_tasks_on_an_encoder(tmp_path):
    """A head over CPT's encoder, or a Llama without what writes, is the same model in both layouts; triples find BART's
    last norm behind its name.
    """
    models = {}
    for family, application in (("bart", "encoder"), ("cpt", "encoder"), ("llama", "lm")):
        config = testing.tiny_config(family_of(family), **(SIZES if family != "llama" else {}), vocab_size=len(TOKENS))
        models[family] = testing.build(family_of(family), config, testing.random_weights(config), application)
        models[family].tokenizer = Tokenizer({token: number for number, token in enumerate(TOKENS)})
    for family in ("cpt", "llama"):
        task = TextClassification(models[family], ["a", "b"], maxlen=9)
        folders = [task.save(tmp_path / f"{family}-{format}", format) for format in ("bert4x", "hf")]
        assert verify(*folders)["text-classification"] < 1e-6
    body = models["bart"]
    norm = body.builder.layers["Encoder-Transformer-2-FeedForward-Norm"]
    states, output = keras.Model(body.inputs, [before_last_norm(body), body.output])(np.arange(5, 11)[None])
    close(norm(states), array(output))


def test_config(tmp_path):
    """Sides of different sizes, pre-norm models of the same names, and forced tokens that are kept or replaced."""
    config = testing.tiny_config(family_of("bart"), **SIZES, forced_bos_token_id=2, forced_eos_token_id=3)
    folder = write_checkpoint(tmp_path, "hf", config, draw(config))
    said = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"decoder_ffn_dim": 7}, "decoder_ffn_dim = 7"),
        ({"normalize_before": True}, "normalize_before"),
        ({"forced_eos_token_id": [3]}, "forced_eos_token_id"),
        ({"model_type": "mbart"}, "mbart"),
    ):
        with pytest.raises(bert4x.Bert4xError, match=message):
            open_checkpoint(folder, said | changes)
    (folder / "generation_config.json").write_text("{}")  # says of forced tokens that there are none
    again = bert4x.convert(bert4x.convert(folder, tmp_path / "own", "bert4x"), tmp_path / "again", "hf")
    assert json.loads((again / "config.json").read_text())["forced_eos_token_id"] is None, "or it is 2 in transformers"
    (folder / "generation_config.json").unlink()
    model = bert4x.load(folder, keep_tokens=[0, 3, 2, *range(4, 20)])
    assert (model.config.forced_bos_token_id, model.config.forced_eos_token_id) == (2, 1)
    model.tokenizer = Tokenizer({token: i for i, token in enumerate(TOKENS)})
    assert model.generate_ids([[5, 6]], max_new_tokens=3)[0, [0, -1]].tolist() == [2, 1]
    assert model.generate_ids([[5, 6]], max_new_tokens=1).tolist() == [[1]]
    other = model.generate_ids([[5, 6]], max_new_tokens=3, forced_ids={0: 7})[0]
    assert other[0] == 7
