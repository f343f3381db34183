"""The training side of two directions at once: pseudo targets, batches, the loss, resuming."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x.errors import ConfigError, CorruptFileError
from bert4x.training.bidirectional import (
    SmoothedCrossEntropy,
    Symbols,
    Triple,
    Triples,
    decode_both_ways,
    decode_one_way,
    gold_triples,
    make_batch,
    make_unilm_batch,
    pseudo_triples,
)
from bert4x.training.epochs import load_state, save_state, train_epochs
from bert4x.training.pairs import pair_tokenizer, read_pairs

SYMBOLS = Symbols(l2r=2, r2l=4, stop=3, pad=0)
ROOT = Path(__file__).parents[1]


def transformer(**options):
    config = tiny_config("transformer", initializer_range=0.2, pad_token_id=0)
    return bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", **options)


def random_triples(count=10, seed=0):
    draw = np.random.default_rng(seed)
    return [Triple(*(list(draw.integers(5, 40, draw.integers(1, 9))) for _ in range(3))) for _ in range(count)]


def test_pseudo_triples():
    """Each true target is in one direction, beside what the plain model of the other made of the same source."""
    made = pseudo_triples([[5], [6]], ["y1", "y2"], ["l1", "l2"], ["r1", "r2"])
    assert made == [([5], "y1", "r1"), ([6], "y2", "r2"), ([5], "l1", "y1"), ([6], "l2", "y2")]


def test_batch_of_an_encoder_decoder():
    """Marker first; what is right to left is reversed; the shorter target is filled up before the stop token."""
    triples = [Triple([7, 8, 9], [11, 12, 13], [21, 22]), Triple([10], [14], [24])]
    inputs, labels, weights = make_batch(triples, SYMBOLS, multiple=1)
    assert inputs["token_ids"].tolist() == [[7, 8, 9], [10, 0, 0]] * 2
    assert inputs["target_ids"].tolist() == [[2, 11, 12, 13], [2, 14, 0, 0], [4, 22, 21, 0], [4, 24, 0, 0]]
    assert labels.tolist() == [[11, 12, 13, 3], [14, 3, 0, 0], [22, 21, 0, 3], [24, 3, 0, 0]]
    assert weights.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 0]]
    one_way, one_labels, _ = make_batch(triples, SYMBOLS, ["r2l"], multiple=4)
    assert one_way["target_ids"].tolist() == [[4, 22, 21, 0], [4, 24, 0, 0]]
    assert one_labels.tolist() == [[22, 21, 3, 0], [24, 3, 0, 0]]
    assert one_way["token_ids"].shape == (2, 4)


def test_batch_of_a_unilm():
    """Source and target are one row; the targets of both directions are in the same places."""
    inputs, labels, weights = make_unilm_batch([Triple([7, 8], [11, 12], [21])], SYMBOLS, multiple=8)
    assert inputs["token_ids"].tolist() == [[7, 8, 2, 11, 12, 0, 0, 0], [7, 8, 4, 21, 0, 0, 0, 0]]
    assert inputs["segment_ids"].tolist() == [[0, 0, 1, 1, 1, 0, 0, 0]] * 2
    assert labels.tolist() == [[0, 0, 11, 12, 3, 0, 0, 0], [0, 0, 21, 0, 3, 0, 0, 0]]
    assert weights.tolist() == [[0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0]]


def test_epochs_of_triples():
    """Every triple once in an epoch, those of a length together, in an order that the seed and the epoch decide."""
    triples = random_triples(50)
    batches = Triples(triples, SYMBOLS, rows=8, seed=3)
    assert len(batches) == 13

    def sources():
        halves = (ids[: len(ids) // 2] for ids in (batches[i][0]["token_ids"] for i in range(len(batches))))
        return [tuple(row[row != 0]) for half in halves for row in half]

    first = sources()
    assert sorted(first) == sorted(tuple(t.source) for t in triples)
    batches.start_epoch(1)
    second = sources()
    assert second != first
    assert sorted(second) == sorted(first)
    batches.start_epoch(0)
    assert sources() == first
    widths = {batches[i][1].shape[1] for i in range(len(batches))}
    assert widths == {4, 8, 12} & widths
    assert len(widths) > 1


def test_smoothed_cross_entropy():
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(3, 5, 7)).astype("float32"), draw.integers(0, 7, (3, 5))
    weights = (draw.random((3, 5)) > 0.4).astype("float32")
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = np.take_along_axis(logs, labels[..., None], -1)[..., 0]
    for smoothing in (0.0, 0.3):
        expected = -((1 - smoothing) * right + smoothing * logs.mean(-1))
        loss = SmoothedCrossEntropy(smoothing)(labels, logits, sample_weight=weights)
        np.testing.assert_allclose(float(loss), (expected * weights).sum() / weights.sum(), rtol=1e-5)
    copy = SmoothedCrossEntropy.from_config(SmoothedCrossEntropy(0.2).get_config())
    assert copy.smoothing == 0.2


def test_decoded_right_to_left_is_turned_around():
    model = transformer()
    sources = [[7, 8, 9], [10], [11, 12]]
    # Random weights may repeat one token for ever, and that reads the same from either end.
    options = {"max_new_tokens": 5, "suppress_ids": [0, 1, 2, 4], "no_repeat_ngram_size": 1}
    found = {way: decode_one_way(model, sources, way, SYMBOLS, batch=2, **options) for way in ("l2r", "r2l")}
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
    config = tiny_config(
        "transformer", initializer_range=0.2, pad_token_id=0, dropout_rate=0.0, attention_dropout_rate=0.0
    )
    options = {"bidirectional": True, "bidirectional_dropout": 0.0}
    model = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", **options)
    model.compile(keras.optimizers.Adam(0.01), SmoothedCrossEntropy(0.0), jit_compile=False)
    inputs, labels, weights = make_batch(triples, SYMBOLS)
    losses = [float(model.train_on_batch(inputs, labels, sample_weight=weights)) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    from bert4x.generation.bidirectional import BidirectionalDecoder

    decoder = BidirectionalDecoder(model, SYMBOLS.l2r, SYMBOLS.r2l)
    found = decode_both_ways(decoder, [t.source for t in triples], SYMBOLS, num_beams=2, max_new_tokens=6)
    assert found == [[20, 21, 22, 23], [30, 31]]


def test_resumed_is_as_if_nothing_had_happened(tmp_path):
    """Two epochs, and the same with another model for the second one: same dropout, same order, same optimizer."""
    draw = np.random.default_rng(0)
    triples = [Triple(*draw.integers(5, 40, (3, 3)).tolist()) for _ in range(8)]
    inputs, _, _ = make_batch(triples, SYMBOLS)

    def train(resume, seed, fail_at=None):
        keras.utils.set_random_seed(seed)
        model, batches = transformer(bidirectional=True), Triples(triples, SYMBOLS, rows=8)
        start_epoch = batches.start_epoch

        def start(epoch):
            if epoch == fail_at:
                raise KeyboardInterrupt
            start_epoch(epoch)

        batches.start_epoch = start
        file = tmp_path / ("half" if resume or fail_at else "whole")
        train_epochs(model, batches, 2, 1e-2, file, SmoothedCrossEntropy(), resume)
        return keras.ops.convert_to_numpy(model(inputs))

    whole = train(resume=False, seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(resume=False, seed=1, fail_at=1)
    resumed = train(resume=True, seed=2)
    np.testing.assert_allclose(resumed, whole, atol=1e-3)
    assert np.abs(whole).max() > 0.1


def test_states_that_do_not_fit(tmp_path):
    model = transformer()
    save_state(model, tmp_path / "state")
    other = bert4x.build_transformer_model(
        tiny_config("transformer", vocab_size=50, pad_token_id=0), model="transformer", with_mlm="linear"
    )
    with pytest.raises(ConfigError, match="other sizes"):
        load_state(other, tmp_path / "state")
    (tmp_path / "state").write_bytes(b"nonsense")
    with pytest.raises(CorruptFileError, match="start without resuming"):
        load_state(model, tmp_path / "state")


def test_pairs(tmp_path):
    """Held-out sources keep all their targets, and none of them is trained on."""
    file = tmp_path / "pairs.tsv"
    rows = [(f"Sentence {i % 8}.", f"句子{i}。") for i in range(20)] + [("sentence  3.", "第三句。")]
    file.write_text("".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")
    train, tests = read_pairs(file, 3)
    assert len(tests) == 3
    assert sum(len(targets) for _, targets in tests) + len(train) == len(rows)
    held_out = {" ".join(source.lower().split()) for source, _ in tests}
    assert not held_out & {" ".join(source.lower().split()) for source, _ in train}
    assert read_pairs(file, 3) == (train, tests)
    with pytest.raises(CorruptFileError, match="expected more than the 8"):
        read_pairs(file, 8)
    file.write_text("one column\n", encoding="utf-8")
    with pytest.raises(CorruptFileError, match="line 1: expected source <tab> target"):
        read_pairs(file, 1)


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


def test_recipe_runs_and_resumes(tmp_path):
    """The recipe from its start; then again with --resume, which trains nothing."""
    command = [sys.executable, str(ROOT / "recipes/bidirectional_decoding.py"), "--smoke", "--output", str(tmp_path)]
    for resume in ([], ["--resume"]):
        done = subprocess.run([*command, *resume], capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ("epoch 1/" in done.stdout) == (not resume)
        assert [row.split()[1] for row in done.stdout.splitlines() if row.startswith("| ")][1:] == [
            "l2r",
            "r2l",
            "both",
        ]
    assert (tmp_path / "paths.png").stat().st_size > 10_000
