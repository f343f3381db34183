"""The training side of two directions at once: pseudo targets, batches, the loss."""

from pathlib import Path

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x.errors import DataError
from bert4x.training.bidirectional import (
    Decoder,
    Symbols,
    Triple,
    Writer,
    gold_triples,
    make_batch,
    make_unilm_batch,
    pseudo_triples,
)
from bert4x.training.pairs import hold_out, pair_tokenizer
from bert4x.training.trainer import Trainer

SYMBOLS = Symbols(l2r=2, r2l=4, stop=3, pad=0)
ROOT = Path(__file__).parents[1]


def transformer(**options):
    config = tiny_config("transformer", initializer_range=0.2, pad_token_id=0)
    return bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", **options)


def test_pseudo_triples():
    """Each true target is in one direction, beside what the plain model of the other made of the same source."""
    made = pseudo_triples([[5], [6]], ["y1", "y2"], ["l1", "l2"], ["r1", "r2"])
    assert made == [([5], "y1", "r1"), ([6], "y2", "r2"), ([5], "l1", "y1"), ([6], "l2", "y2")]


def test_batch_of_an_encoder_decoder():
    """Marker first; what is right to left is reversed; the shorter target is filled up before the stop token."""
    triples = [Triple([7, 8, 9], [11, 12, 13], [21, 22]), Triple([10], [14], [24])]
    assert [triple.length for triple in triples] == [7, 3]
    inputs, labels = make_batch(triples, SYMBOLS, multiple=1)
    assert inputs["token_ids"].tolist() == [[7, 8, 9], [10, 0, 0]] * 2
    assert inputs["target_ids"].tolist() == [[2, 11, 12, 13], [2, 14, 0, 0], [4, 22, 21, 0], [4, 24, 0, 0]]
    assert labels.tolist() == [[11, 12, 13, 3], [14, 3, -1, -1], [22, 21, -1, 3], [24, 3, -1, -1]]
    one_way, one_labels = make_batch(triples, SYMBOLS, ["r2l"], multiple=4)
    assert one_way["target_ids"].tolist() == [[4, 22, 21, 0], [4, 24, 0, 0]]
    assert one_labels.tolist() == [[22, 21, 3, -1], [24, 3, -1, -1]]
    assert one_way["token_ids"].shape == (2, 4)
    assert one_way["token_ids"].dtype == one_labels.dtype == "int32"


def test_batch_of_a_unilm():
    """Source and target are one row; the targets of both directions are in the same places."""
    inputs, labels = make_unilm_batch([Triple([7, 8], [11, 12], [21])], SYMBOLS, multiple=8)
    assert inputs["token_ids"].tolist() == [[7, 8, 2, 11, 12, 0, 0, 0], [7, 8, 4, 21, 0, 0, 0, 0]]
    assert inputs["segment_ids"].tolist() == [[0, 0, 1, 1, 1, 0, 0, 0]] * 2
    assert labels.tolist() == [[-1, -1, 11, 12, 3, -1, -1, -1], [-1, -1, 21, -1, 3, -1, -1, -1]]


def test_loss():
    """The mean of both directions over what counts, of labels of which a tenth is spread over all tokens."""
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(4, 5, 7)).astype("float32"), draw.integers(-1, 7, (4, 5))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = np.take_along_axis(logs, np.maximum(labels, 0)[..., None], -1)[..., 0]
    expected = -(0.9 * right + 0.1 * logs.mean(-1))[labels >= 0].mean()
    loss = Writer(transformer(), SYMBOLS).loss(logits, (labels,))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_decoded_right_to_left_is_turned_around():
    model = transformer()
    sources = [[7, 8, 9], [10], [11, 12]]
    # Random weights may repeat one token for ever, and that reads the same from either end.
    options = {"max_new_tokens": 5, "suppress_ids": [0, 1, 2, 4], "no_repeat_ngram_size": 1}
    decode = Decoder(model, SYMBOLS, batch=2, **options)
    found = {way: decode(model.get_weights(), sources, way) for way in ("l2r", "r2l")}
    for way, marker in (("l2r", 2), ("r2l", 4)):
        for source, ids in zip(sources, found[way], strict=True):
            alone = [int(i) for i in model.generate_ids([source], start_id=marker, stop_ids=3, pad_id=0, **options)[0]]
            written = [i for i in alone if i not in (0, 3)]
            assert ids == (written if way == "l2r" else written[::-1])
    assert found["l2r"] != found["r2l"]


def test_two_directions_learn():
    """A few steps of both at once lower the loss, and the model then writes what it has learned, from either side."""
    keras.utils.set_random_seed(0)
    triples = gold_triples([[7, 8, 9], [10, 11]], [[20, 21, 22, 23], [30, 31]])
    rates = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    depth = {"num_hidden_layers": 1, "num_decoder_layers": 1}
    config = tiny_config("transformer", initializer_range=0.2, pad_token_id=0, **rates, **depth)
    options = {"bidirectional": True, "bidirectional_dropout": 0.0}
    model = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", **options)
    writer = Writer(model, SYMBOLS, smoothing=0.0)
    trainer, batch = Trainer(model, writer.loss, writer.optimizer(0.01)), writer.batch(triples)
    losses = [float(keras.ops.convert_to_numpy(trainer.learn([batch], 0.01))) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    decode = Decoder(model, SYMBOLS, max_new_tokens=6)
    found = decode(model.get_weights(), [triple.source for triple in triples], "both", num_beams=2)
    assert found == [[20, 21, 22, 23], [30, 31]]


def test_held_out_sources_keep_all_their_targets_and_none_is_trained_on():
    pairs = [(f"Sentence {i % 8}.", f"句子{i}。") for i in range(20)] + [("sentence  3.", "第三句。")]
    train, tests = hold_out(pairs, 3)
    assert len(tests) == 3
    assert sum(len(targets) for _, targets in tests) + len(train) == len(pairs)
    held_out = {" ".join(source.lower().split()) for source, _ in tests}
    assert not held_out & {" ".join(source.lower().split()) for source, _ in train}
    assert hold_out(pairs, 3) == (train, tests)
    with pytest.raises(DataError, match="expected more than the 8"):
        hold_out(pairs, 8)


def test_pair_tokenizer():
    """Frequent characters and words are tokens, rare words are spelled, rare characters unknown."""
    pairs = [
        ("the book", "那本书"),
        ("The book", "那本书"),
        ("the zyx", "那狗"),
        ("the book", "书"),
        ("the book", "书"),
    ]
    tokenizer = pair_tokenizer(pairs, ROOT / "bert4x/assets/default/vocab.txt", 200)
    assert tokenizer.tokenize("the zyx")[1:-1] == ["the", "z", "##y", "##x"]
    assert tokenizer.encode("那狗")[0][1:-1] == [tokenizer.token_dict["那"], tokenizer.unk_id]
