"""Triples by half pointers and by GPLinker: labels, losses and decoding against plain Python; tasks on toy data."""

import json
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x.errors import ConfigError, DataError, InputError
from bert4x.tasks.gplinker import CANDIDATES, GPLinker, decode
from bert4x.tasks.heads import read_task
from bert4x.tasks.readers import read_triples
from bert4x.tasks.text import Piece, encode_pieces
from bert4x.tasks.triple_extraction import POWERS, TripleExtraction, before_last_norm, log_powers, powered_crossentropy
from bert4x.tasks.triples import Found, Labelled, Triple, read_schema
from bert4x.training.trainer import Trainer

DATA = Path(__file__).parents[1] / "recipes" / "data"
TASKS = [TripleExtraction, GPLinker]
tasks = pytest.mark.parametrize("kind", TASKS)
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), *"0123456789"]
SCHEMA = ["首都", "作者", "丈夫"]
ROW = {"text": "《山中来信》由沈砚秋所著", "spo_list": [("山中来信", "作者", "沈砚秋")]}


def toy_rows(count):
    return read_triples(DATA / "toy_triples.jsonl")[:count]


def backbone(model="bert", texts="", maxlen=48, **options):
    """A tiny random model that knows the characters of the toy data and of `texts`."""
    characters = "".join(row["text"] for row in toy_rows(None)) + texts
    tokens = dict.fromkeys([*SPECIALS, *LETTERS, *(c for c in characters if ord(c) > 0x2000 and c not in "😀龘犇")])
    keras.utils.set_random_seed(0)
    config = tiny_config(model, vocab_size=len(tokens), max_position=maxlen, dropout_rate=0.0)
    model = bert4x.build_transformer_model(config, model=model, **options)
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(tokens)})
    return model


def make(kind, schema=SCHEMA, **options):
    return kind(backbone(**options), schema, maxlen=options.get("maxlen", 48))


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def plain_piece(length):
    """A text of one character a token."""
    offsets = [(0, 0), *((i, i + 1) for i in range(length - 2)), (length - 2, length - 2)]
    return Piece(0, length - 2, [0] * length, offsets)


def test_labels_of_half_pointers():
    """Of a text with two subjects, whatever pair is drawn: its labels, made by hand; other pairs have no objects."""
    task = make(TripleExtraction)
    text = "甲和乙，丈夫是山和水"  # tokens 1 甲, 3 乙, 8 山, 10 水
    rows = [{"text": text, "spo_list": [("甲", "丈夫", "山"), ("乙，", "丈夫", "水"), ("甲", "作者", "山和水")]}]
    examples = task.prepare(rows)
    assert examples[0].triples == (
        Labelled((1, 1), 2, (8, 8)),
        Labelled((3, 4), 2, (10, 10)),
        Labelled((1, 1), 1, (8, 10)),
    )
    objects = {(1, 1): {(8, 2, 0), (8, 2, 1), (8, 1, 0), (10, 1, 1)}, (3, 4): {(10, 2, 0), (10, 2, 1)}, (1, 4): set()}
    draw, seen = np.random.default_rng(0), set()
    for _ in range(40):
        (tokens, segments, spans), (of_subjects, of_objects, mask) = task.batch(examples, 16, draw)
        assert tokens.shape == segments.shape == mask.shape == (1, 16)
        assert mask.sum() == 12 and tokens[0, 12:].sum() == 0
        assert set(zip(*(places.tolist() for places in np.nonzero(of_subjects[0])), strict=True)) == {
            *((1, 0), (1, 1), (3, 0), (4, 1)),
        }
        span = tuple(spans[0].tolist())
        seen.add(span)
        assert of_objects.shape == (1, 16, 3, 2)
        assert set(zip(*(places.tolist() for places in np.nonzero(of_objects[0])), strict=True)) == objects[span]
    assert seen == set(objects)


def test_labels_of_gplinker():
    task = make(GPLinker)
    rows = [
        {"text": "甲和乙，丈夫是山和水", "spo_list": [("甲", "丈夫", "山"), ("乙，", "丈夫", "水")]},
        {"text": "今天下雨", "spo_list": []},
    ]
    (tokens, _), (entities, heads, tails) = task.batch(task.prepare(rows), 16, None)
    assert tokens.shape == (2, 16)
    assert entities.tolist() == [[[[1, 1], [3, 4]], [[8, 8], [10, 10]]], [[[0, 0]] * 2] * 2]
    assert heads.tolist() == [[[[0, 0]] * 2] * 2 + [[[1, 8], [3, 10]]], [[[0, 0]] * 2] * 3]
    assert tails.tolist() == [[[[0, 0]] * 2] * 2 + [[[1, 8], [4, 10]]], [[[0, 0]] * 2] * 3]


@tasks
def test_what_cannot_be_located(kind):
    """It is left out and counted: never a wrong label."""
    rows = [
        {"text": "甲的丈夫是乙", "spo_list": [("甲", "丈夫", "丙"), ("丁", "丈夫", "乙"), ("甲", "丈夫", "乙")]},
        {"text": "甲" * 60 + "的丈夫是乙", "spo_list": [("甲", "丈夫", "乙")]},
        {"text": "龘的丈夫是犇", "spo_list": [("犇", "丈夫", "龘")]},  # both have the unknown id
        {"text": " ", "spo_list": []},
        {"text": "今天下雨", "spo_list": []},
    ]
    task = make(kind, texts="甲乙丙丁的今天下雨")
    examples = task.prepare(rows)
    assert [e.triples for e in examples] == [(((1, 1), 2, (6, 6)),), (((6, 6), 2, (1, 1)),), ()]
    assert task.skipped == {
        "object not in the text": 1,
        "subject not in the text": 1,
        "beyond maxlen": 1,
        "no triple left": 1,
        "no text": 1,
    }
    assert max(e.length for e in examples) <= 48
    inputs, targets = task.batch(examples, 16, np.random.default_rng(0))
    assert all(len(array) == 3 for array in (*inputs, *targets))


def test_truncated_texts_keep_their_end_token():
    task = make(TripleExtraction)
    (example,) = task.prepare([{"text": "山" * 60, "spo_list": [("山", "作者", "山")]}])
    assert (example.length, example.token_ids[-1]) == (48, task.tokenizer.end_id)


def test_loss_of_half_pointers():
    """Against loops, in float64."""
    task = make(TripleExtraction)
    draw = np.random.default_rng(0)
    shape = 2, 5, 3
    scores = [draw.normal(size=(2, 5, 2)) * 3, draw.normal(size=(*shape, 2)) * 3]
    labels = [draw.integers(0, 2, x.shape) for x in scores]
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

    def entropy(label, score, power):
        p = (1 / (1 + math.exp(-score))) ** power
        return -math.log(p if label else 1 - p)

    total = 0.0
    for b, t in zip(*np.nonzero(mask), strict=True):
        total += sum(entropy(labels[0][b, t, e], scores[0][b, t, e], 2) for e in (0, 1)) / 2
        for p in range(3):
            total += sum(entropy(labels[1][b, t, p, e], scores[1][b, t, p, e], 4) for e in (0, 1)) / 2
    found = task.loss([x.astype("float32") for x in scores], [*(x.astype("int8") for x in labels), mask.astype("int8")])
    np.testing.assert_allclose(float(found), total / mask.sum(), rtol=1e-5)


@pytest.mark.parametrize("power", POWERS)
def test_powered_crossentropy_is_finite_and_never_flat(power):
    """Where bert4keras clips the probability, a label of 1 has no gradient; here, `power` times that of a sigmoid."""
    scores = np.array([-1e4, -80, -20, -5, 0, 5, 20, 80, 1e4], "float32")
    for label in (0, 1):
        labels = np.full(scores.shape, label, "int8")
        losses = numpy(powered_crossentropy(labels, keras.ops.convert_to_tensor(scores), power))
        assert np.isfinite(losses).all()
        step = 1e-2 * np.maximum(1, np.abs(scores) / 100)
        low, high = (
            numpy(powered_crossentropy(labels, keras.ops.convert_to_tensor(scores + s), power)) for s in (-step, step)
        )
        slopes = ((high - low) / (2 * step))[1:5]  # up to a score of 0
        sigmoid = 1 / (1 + np.exp(-scores[1:5].astype("float64")))
        if label:
            np.testing.assert_allclose(slopes, -power * (1 - sigmoid), rtol=1e-2)
        else:
            exact = power * sigmoid**power * (1 - sigmoid) / (1 - sigmoid**power)
            np.testing.assert_allclose(slopes, exact, rtol=1e-2, atol=1e-5)
    yes, no = (numpy(x).astype("float64") for x in log_powers(keras.ops.convert_to_tensor(scores[3:7]), power))
    np.testing.assert_allclose(np.exp(yes) + np.exp(no), 1, rtol=1e-6)


def slow_spans(tags, starts, ends):
    """The rule of bert4keras: from each start to the first end that is not before it; [CLS] and [SEP] are neither."""
    inner = range(1, len(tags) - 1)
    found = []
    for start in (i for i in inner if tags[i, 0] > starts):
        for end in (i for i in inner if i >= start and tags[i, 1] > ends):
            found.append((start, end))
            break
    return found


def test_half_pointers_decode(monkeypatch):
    """Random scores of texts of different lengths: the same triples as by loops."""
    task = make(TripleExtraction)
    draw = np.random.default_rng(0)
    pieces = [plain_piece(length) for length in (9, 14, 5)]
    first = draw.normal(1.5, 2, (3, 16, 2)).astype("float32")
    states = np.arange(3 * 16, dtype="float32").reshape(3, 16, 1)
    tags = {}

    def predict(model, arrays):
        if model is task.encoder:
            return first, states
        owners = (arrays[0][:, 0, 0] / 16).astype(int)
        for row, span in zip(owners.tolist(), arrays[1].tolist(), strict=True):
            tags.setdefault((row, *span), draw.normal(2, 2, (16, 3, 2)).astype("float32"))
        return np.stack([tags[row, *span] for row, span in zip(owners.tolist(), arrays[1].tolist(), strict=True)])

    monkeypatch.setattr(task, "predict", predict)
    found = task.find(pieces)
    count = 0
    for row, piece in enumerate(pieces):
        n, expected = piece.length, set()
        for subject in slow_spans(sigmoid(first[row, :n]) ** 2, 0.6, 0.5):
            for predicate in range(3):
                ours = sigmoid(tags[row, *subject][:n, predicate]) ** 4
                expected |= {(subject, predicate, span) for span in slow_spans(ours, 0.6, 0.5)}
        assert {one[:3] for one in found[row]} == expected
        assert all(0.5 < one.score <= 1 for one in found[row])
        count += len(expected)
    assert count > 50


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def test_gplinker_decode():
    draw = np.random.default_rng(0)
    for length in (3, 6, 9):
        entities, heads, tails = (draw.normal(0, 1, (n, 10, 10)) for n in (2, 3, 3))
        allowed = plain_piece(length).written
        inner, expected = range(1, length - 1), {}
        for s0, s1, o0, o1 in ((a, b, c, d) for a in inner for b in inner for c in inner for d in inner):
            for p in range(3):
                least = min(entities[0, s0, s1], entities[1, o0, o1], heads[p, s0, o0], tails[p, s1, o1])
                if least > 0:
                    expected[(s0, s1), p, (o0, o1)] = sigmoid(2 * least)
        found = {one[:3]: one.score for one in decode(entities, heads, tails, allowed)}
        assert found == pytest.approx(expected)
    assert len(expected) > 50


def test_gplinker_bounds_what_an_untrained_model_finds():
    scores = np.random.default_rng(0).random((2, 60, 60)) + 0.1
    links = np.zeros((1, 60, 60)) - 1
    links[0, 3, 4] = links[0, 5, 6] = 1
    scores[0, 3, 5] = scores[1, 4, 6] = 9
    assert (scores[0] > 0).sum() > CANDIDATES
    found = decode(scores, links, links, np.ones(60, bool))
    assert ((3, 5), 0, (4, 6)) in [one[:3] for one in found]


@tasks
def test_learns_a_few_sentences(kind, tmp_path):
    """Ten sentences are learned by heart; saved and loaded, the answers are the same; long texts have them in turn."""
    rows = toy_rows(10)
    schema = read_schema(DATA / "toy_schema.jsonl")
    task = kind(backbone(), schema, maxlen=48)
    before = task.evaluate(rows)
    assert before["gold"] == sum(len(row["spo_list"]) for row in rows)
    assert before["f1"] < 0.2
    if not before["predicted"]:
        assert before["precision"] == 0
    examples, draw = task.prepare(rows), np.random.default_rng(0)
    trainer = Trainer(task.model, task.loss, task.optimizer(1e-2), ema=0.9)
    length = max(example.length for example in examples)
    for _ in range(50):
        loss = float(trainer.learn([task.batch(examples, length, draw)], 1e-2))
    assert loss < 0.05
    scores = task.evaluate(rows)
    assert scores["f1"] > 0.9
    with trainer.ema.swapped_in():
        assert task.evaluate(rows, batch_size=3)["f1"] > 0.9
    texts = [row["text"] for row in rows]
    answers = task(texts)
    for text, triples in zip(texts, answers, strict=True):
        for triple in triples:
            check_offsets(text, triple)
            assert 0 < triple.score <= 1
    task.save(tmp_path / "saved")
    name, settings = read_task(tmp_path / "saved")
    assert (name, settings["schema"]) == (kind.name, schema)
    again = kind.load(tmp_path / "saved")
    assert [[(*t.subject_span, t.predicate, *t.object_span) for t in found] for found in again(texts)] == [
        [(*t.subject_span, t.predicate, *t.object_span) for t in found] for found in answers
    ]
    check_long_text(task, "。\n".join([*texts, texts[0]]))


def check_long_text(task, text):
    """What is found in a long text is what is found in its pieces, there."""
    pieces, expected = encode_pieces(task.tokenizer, text, task.maxlen), set()
    assert len(pieces) > 3
    for piece in pieces:
        for triple in task(text[piece.start : piece.end]):
            expected.add((triple.subject, triple.predicate, triple.object))
    found = task(text)
    assert len(found) > 3
    assert len(found) == len(expected)
    for triple in found:
        assert (triple.subject, triple.predicate, triple.object) in expected
        check_offsets(text, triple)


def check_offsets(text, triple):
    assert text[slice(*triple.subject_span)] == triple.subject
    assert text[slice(*triple.object_span)] == triple.object


@tasks
@pytest.mark.parametrize(
    ("text", "subject", "object"),
    [
        ("  Anna  LIN 的丈夫是 Tom。", "Anna  LIN", "Tom"),
        ("😀😀的丈夫😀是龘龘山", "😀😀", "龘龘山"),
        ("Café的丈夫\t是\u3000Ｔｏｍ2", "Café", "Ｔｏｍ2"),
        ("a\ud800b的丈夫是水\u0301", "b", "水\u0301"),
    ],
)
def test_offsets_in_the_original(kind, text, subject, object, monkeypatch):
    """Whatever the tokenizer makes of a text, triples are stretches of the text itself."""
    task = make(kind)

    def find(pieces):
        (piece,) = pieces
        spans = []
        for part in (subject, object):
            start = text.index(part)
            spans.append(piece.tokens(start, start + len(part)))
        return [[(spans[0], 2, spans[1], 0.5)]]

    monkeypatch.setattr(task, "find", lambda pieces: [[Found(*one) for one in each] for each in find(pieces)])
    (triple,) = task(text)
    start, other = text.index(subject), text.index(object)
    spans = (start, start + len(subject)), (other, other + len(object))
    assert triple == Triple(subject, "丈夫", object, *spans, 0.5)


def test_repeated_triples_are_given_once(monkeypatch):
    """With the place of the higher score, also from two pieces of a text."""
    task = make(TripleExtraction, maxlen=10)

    def find(pieces):
        return [[Found((1, 1), 2, (3, 3), 0.9 if piece.start else 0.6)] for piece in pieces]

    monkeypatch.setattr(task, "find", find)
    (triple,) = task("山和水走了。山和水走了")
    assert triple == Triple("山", "丈夫", "水", (6, 7), (8, 9), 0.9)


@tasks
def test_padding_changes_nothing(kind):
    """The outputs for real tokens do not depend on what a text is padded to."""
    task = make(kind)
    examples = task.prepare([ROW])
    extra = [np.array([[2, 5]])] if kind is TripleExtraction else []
    n = examples[0].length
    outputs = []
    for length in (n, n + 7):
        inputs = [np.concatenate([*task.inputs([examples[0].token_ids], length)][:1]), np.zeros((1, length), "int32")]
        outputs.append([numpy(x) for x in task.model([*inputs, *extra])])
    for short, long in zip(*outputs, strict=True):
        cut = long[:, :n] if kind is TripleExtraction else long[:, :, :n, :n]
        np.testing.assert_allclose(cut, short, atol=2e-5)


def test_padding_does_not_change_the_loss_of_gplinker():
    task = make(GPLinker)
    examples = task.prepare([ROW])
    losses = []
    for length in (examples[0].length, 40):
        inputs, targets = task.batch(examples, length)
        losses.append(float(numpy(task.loss(task.model(inputs), targets))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("model", ["bert", "albert", "albert_unshared"])
def test_states_before_the_last_norm(model):
    """Normalised by the last layer's own norm they are its output, also where layers are shared."""
    body = backbone(model)
    last = "Transformer-FeedForward-Norm" if model == "albert" else "Transformer-2-FeedForward-Norm"
    norm = body.builder.layers[last]
    norm.beta.assign(np.random.default_rng(0).normal(size=norm.beta.shape))
    both = keras.Model(body.inputs, [before_last_norm(body), body.output])
    inputs = [np.arange(5, 15)[None], np.zeros((1, 10), "int32")]
    states, output = (numpy(x) for x in both(inputs))
    assert np.abs(states - output).max() > 0.1
    np.testing.assert_allclose(numpy(norm(states)), output, atol=1e-5)


@tasks
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision(kind, precision):
    """Heads and losses compute in float32; nothing overflows, even where scores are extreme."""
    task = make(kind, dtype=precision)
    assert all(output.dtype == "float32" for output in task.model.outputs)
    draw = np.random.default_rng(0)
    inputs, targets = task.batch(task.prepare([ROW, *toy_rows(0)]), 16, draw)
    outputs = task.model(inputs)
    for factor in (1, 1e4, -1e4):
        assert np.isfinite(float(task.loss([output * factor for output in outputs], targets)))
    task(ROW["text"])


@tasks
def test_divergence(kind):
    """Nothing between equal outputs, something between others, and finite for extreme ones."""
    task = make(kind)
    inputs, _ = task.batch(task.prepare([ROW]), 16, np.random.default_rng(0))
    outputs = task.model(inputs)
    assert float(task.divergence(outputs, outputs)) == pytest.approx(0, abs=1e-6)
    others = [output + 0.5 for output in outputs]
    assert float(task.divergence(outputs, others)) > 1e-4
    assert np.isfinite(float(task.divergence([x * 1e4 for x in outputs], [x * -1e4 for x in outputs])))


def test_schema(tmp_path):
    """A predicate may have several pairs of types; what is there twice is named."""
    path = tmp_path / "schema"

    def write(*entries):
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(e, ensure_ascii=False) for e in entries).encode())
        return read_schema(path)

    typed = [{"predicate": "成立日期", "subject_type": kind, "object_type": "日期"} for kind in ("机构", "企业")]
    assert write(*typed) == typed
    assert make(TripleExtraction, [*typed, "作者"]).predicates == ["成立日期", "作者"]
    with pytest.raises(DataError, match=r"line 3: .*成立日期.* twice.*line 1"):
        write(*typed, typed[0])
    with pytest.raises(DataError, match="line 1: found 'predicate': none"):
        write({"label": "作者"})
    with pytest.raises(DataError, match="no examples"):
        write()


@tasks
def test_bad_input(kind):
    with pytest.raises(DataError, match="'作者'} 2 times"):
        make(kind, ["作者", "首都", "作者"])
    for schema, words in (([], "empty"), ("作者", "a list of predicates"), ([3], "holds 3"), ([{"name": "x"}], "name")):
        with pytest.raises(DataError, match=words):
            make(kind, schema)
    task = make(kind)
    with pytest.raises(DataError, match=r"predicate '首府' of '甲.*valid: 丈夫, 作者, 首都"):
        task.prepare([{"text": "甲的首府是乙", "spo_list": [("甲", "首府", "乙")]}])
    with pytest.raises(InputError, match="found 3"):
        task(["山", 3])
    assert task([]) == [] and task("") == [] and task(["", " \n"]) == [[], []]
    with pytest.raises(ConfigError, match="gpt2"):
        kind(backbone("gpt2", segment_vocab_size=0), SCHEMA, maxlen=48)
    with pytest.raises(ConfigError, match="maxlen = 1000"):
        kind(backbone(), SCHEMA, maxlen=1000)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match=r"threshold = 1\.5"):
        TripleExtraction(backbone(), SCHEMA, maxlen=48, start_threshold=1.5)
    with pytest.raises(ConfigError, match="head_size = 3"):
        GPLinker(backbone(), SCHEMA, maxlen=48, head_size=3)
    with pytest.raises(ConfigError, match="without heads"):
        TripleExtraction(backbone(with_mlm=True), SCHEMA, maxlen=48)


def test_nothing_found_is_no_precision_of_one():
    """What bert4keras reports as P=1, R=0, F1=0."""
    scores = make(TripleExtraction).evaluate([ROW])
    assert scores == {"f1": 0, "precision": 0, "recall": 0, "correct": 0, "predicted": 0, "gold": 1}


@tasks
def test_it_says_what_is_lacking_where_nothing_is_found_yet(kind):
    task = make(kind)
    scores = task.evaluate([ROW])
    assert scores["predicted"] == 0
    values = [float(x) for x in re.findall(r"-?\d+\.\d\d+", task.remark(scores))]
    piece = encode_pieces(task.tokenizer, ROW["text"], task.maxlen)[0]
    arrays = task.inputs([piece.token_ids])
    if kind is TripleExtraction:
        tags = sigmoid(task.predict(task.encoder, arrays)[0][0, : piece.length])[piece.written] ** POWERS[0]
        expected, digits = tags.max(axis=0), 3
    else:
        outputs = task.predict(task.model, arrays)
        expected, digits = [scores[0, :, : piece.length, : piece.length].max() for scores in outputs], 2
    np.testing.assert_allclose(values, expected, atol=10.0**-digits)
    assert task.remark(scores | {"predicted": 1.0}) is None


def test_pointers_learn_at_a_rate_of_their_own():
    task = make(TripleExtraction)
    assert task.optimizer(1e-4).multiplier == pytest.approx(30)
    assert task.optimizer(5e-3).multiplier == 1
    assert task.optimizer(1e-4, head_learning_rate=1e-4).multiplier == 1
    assert set(task.optimizer(1e-4).faster) == {v.path for v in task.model.variables if v.path.startswith("Triple-")}
