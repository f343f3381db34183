"""bert4keras' odds and ends, against what loops and brute force give."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from bert4x import snippets
from bert4x.errors import Bert4xError, InputError
from bert4x.snippets.parallel import PATIENCE

ROOT = Path(__file__).parents[1]


def test_names():
    for name in snippets.__all__:
        assert getattr(snippets, name).__doc__


# --- arrays


def padded_by_loops(rows, length, value, mode):
    length = max(map(len, rows)) if length is None else length
    rows = [list(row)[:length] for row in rows]
    fill = [[value] * (length - len(row)) for row in rows]
    return [row + more if mode == "post" else more + row for row, more in zip(rows, fill, strict=True)]


@pytest.mark.parametrize("mode", ["post", "pre"])
@pytest.mark.parametrize("length", [None, 0, 3, 9])
def test_padding_is_that_of_loops(mode, length):
    draw = random.Random(0)
    rows = [[draw.randrange(100) for _ in range(draw.randint(0, 7))] for _ in range(20)]
    out = snippets.sequence_padding(rows, length=length, value=-1, mode=mode)
    assert out.dtype == np.int64
    assert out.tolist() == padded_by_loops(rows, length, -1, mode)
    again = snippets.sequence_padding(iter([np.array(row) for row in rows]), length, -1, mode=mode)
    np.testing.assert_array_equal(again, out)


def test_padding_in_two_dimensions():
    rows = [np.arange(6).reshape(2, 3), np.ones((3, 1), int), np.zeros((4, 0), int)]
    out = snippets.sequence_padding(rows, value=9, seq_dims=2)
    assert out.shape == (3, 4, 3)
    expected = np.full((3, 4, 3), 9)
    expected[0, :2], expected[1, :3, :1] = rows[0], 1
    np.testing.assert_array_equal(out, expected)
    cut = snippets.sequence_padding(rows, length=[1, 2], value=9, seq_dims=2, mode="pre")
    assert cut.tolist() == [[[0, 1]], [[9, 1]], [[9, 9]]]
    heads = [[[(0, 3), (4, 5)], [(1, 2)]], [[(7, 8)], [(6, 6)]]]  # the labels of GPLinker: pairs of indices per head
    heads = [snippets.sequence_padding(pairs) for pairs in heads]
    assert snippets.sequence_padding(heads, seq_dims=2).tolist() == [
        [[[0, 3], [4, 5]], [[1, 2], [0, 0]]],
        [[[7, 8], [0, 0]], [[6, 6], [0, 0]]],
    ]


def test_padding_of_trailing_dimensions():
    out = snippets.sequence_padding([np.ones((2, 3)), np.ones((1, 3)), []])
    assert out.shape == (3, 2, 3)
    assert out.sum(axis=(1, 2)).tolist() == [6, 3, 0]


@pytest.mark.parametrize(
    ("rows", "value", "dtype"),
    [
        ([[1, 2], []], 0, "int64"),  # the empty one is float64 by itself
        ([np.array([1], "int32"), np.array([], "float64")], 0, "int32"),
        ([np.array([1], "float32")], 0.1, "float32"),
        ([np.array([1], "float32")], np.nan, "float32"),
        ([[1]], 0.0, "int64"),
        ([[1]], 0.5, "float64"),
        ([[1]], -np.inf, "float64"),
        ([np.array([1], "uint8")], -100, "int16"),
        ([np.array([1], "float16")], -1e9, "float32"),
        ([[True]], 0, "bool"),
        ([[]], 0, "int64"),
        ([[1], [0.5]], 0, "float64"),
    ],
)
def test_padding_keeps_the_dtype_that_holds_all(rows, value, dtype):
    out = snippets.sequence_padding(rows, length=3, value=value)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[:, -1], np.full(len(rows), value, dtype))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: snippets.sequence_padding([]), "inputs is empty"),
        (lambda: snippets.sequence_padding([1, 2]), r"inputs\[0\] has shape \(\)"),
        (lambda: snippets.sequence_padding([[1]], seq_dims=2), "expected 2 or more dimensions"),
        (lambda: snippets.sequence_padding([[[]]], seq_dims=3), r"inputs\[0\] has shape \(1, 0\)"),
        (lambda: snippets.sequence_padding([[[1]], [[1, 2]]]), r"inputs\[1\] has shape \(1, 2\), inputs\[0\] \(1, 1\)"),
        (lambda: snippets.sequence_padding([[1], [[1], [2, 3]]]), r"inputs\[1\] has rows of different lengths"),
        (lambda: snippets.sequence_padding([[1]], mode="left"), "mode is 'left'"),
        (lambda: snippets.sequence_padding([[1]], length=[1, 2]), r"length is \[1, 2\]; expected 1 whole"),
        (lambda: snippets.sequence_padding([[1]], length=-1), "length is -1"),
        (lambda: snippets.sequence_padding([[1]], length=2.5), "length is 2.5"),
        (lambda: snippets.to_array([1], [[1], [1, 2]]), "argument 1 has rows of different lengths"),
    ],
)
def test_what_cannot_be_padded(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_arrays():
    single, several = snippets.to_array([[1, 2]]), snippets.to_array([1], [2.0])
    assert single.shape == (1, 2)
    assert [array.dtype for array in several] == [np.int64, np.float64]
    x = np.random.default_rng(0).normal(size=(3, 4)) * 1000
    for axis in (0, 1):
        shifted = np.exp(x - x.max(axis, keepdims=True))
        np.testing.assert_allclose(snippets.softmax(x, axis), shifted / shifted.sum(axis, keepdims=True))
    assert snippets.softmax([0, 0]).tolist() == [0.5, 0.5]


def popped(maxlen, indices, sequences):
    """One item at a time, as bert4keras does it."""
    while sum(map(len, sequences)) > maxlen:
        longest = int(np.argmax([len(sequence) for sequence in sequences]))
        sequences[longest].pop(indices[longest])
    return sequences


def test_truncation_is_one_item_at_a_time():
    draw = random.Random(1)
    for _ in range(300):
        sequences = [list(range(draw.randint(1, 12))) for _ in range(draw.randint(1, 3))]
        indices = [draw.choice([-2, -1, 0, 1]) for _ in sequences]
        maxlen = draw.randint(2 * len(sequences), 20)
        expected = popped(maxlen, indices, [list(sequence) for sequence in sequences])
        out = snippets.truncate_sequences(maxlen, indices, *sequences)
        assert out == sequences == expected
        assert all(a is b for a, b in zip(out, sequences, strict=True))


def test_truncation_of_one_text_or_two():
    first = list("甲乙丙丁")
    assert snippets.truncate_sequences(3, -2, first, None) == [["甲", "乙", "丁"]]
    assert snippets.truncate_sequences(3, [-1, 0], [1, 2], [3, 4]) == [[1], [3, 4]]
    assert snippets.truncate_sequences(9, -2, [], [1]) == [[], [1]]


def test_truncation_that_cannot_be():
    sequences = [[1, 2, 3], [4]]
    for arguments, message in [
        ((0, -2, *sequences), r"cannot shorten a sequence of 3 to 0 at index -2; expected an index from -1 to 0"),
        ((-1, 0, *sequences), "maxlen is -1"),
        ((1, [0], *sequences), "1 indices for 2 sequences"),
        ((1, 0, "abc"), "sequence 0 is a str; expected a list"),
    ]:
        with pytest.raises(InputError, match=message):
            snippets.truncate_sequences(*arguments)
    assert sequences == [[1, 2, 3], [4]]


def test_resizing():
    a = np.random.default_rng(2).normal(size=(4, 6))
    out = snippets.orthogonally_resize(a, (6, 5))
    repeated = a[[0, 1, 0, 1, 2, 3]][:, :5]  # windows of two, twice, cut
    np.testing.assert_allclose(out, repeated / np.linalg.norm(repeated) * np.linalg.norm(a))
    np.testing.assert_array_equal(snippets.orthogonally_resize(np.zeros(2), (4,)), np.zeros(4))
    for shape, message in (((4,), "another number of dimensions"), ((9, 6), None)):
        if message:
            with pytest.raises(InputError, match=message):
                snippets.orthogonally_resize(a, shape)
    with pytest.raises(InputError, match="cannot resize an axis of 3 to 5"):
        snippets.orthogonally_resize(np.ones(3), (5,))


# --- Viterbi


def best_by_trying(trans, nodes, starts, ends):
    paths = itertools.product(range(len(trans)), repeat=len(nodes))
    allowed = [path for path in paths if (starts is None or path[0] in starts) and (ends is None or path[-1] in ends)]
    return max(
        allowed,
        key=lambda path: (
            sum(nodes[t, k] for t, k in enumerate(path)) + sum(trans[a, b] for a, b in itertools.pairwise(path))
        ),
    )


@pytest.mark.parametrize(("starts", "ends"), [(None, None), ([0], [0, 2]), ({1, 2}, None), (None, np.array([1]))])
def test_viterbi_finds_the_best_of_all_paths(starts, ends):
    generator = np.random.default_rng(3)
    for length in (1, 2, 5):
        for _ in range(10):
            trans, nodes = generator.normal(size=(3, 3)), generator.normal(size=(length, 3)).astype("float32")
            if length == 1 and starts is not None and ends is not None:
                starts = ends = [0]
            before = nodes.copy()
            path = snippets.ViterbiDecoder(trans, starts, ends).decode(nodes)
            assert tuple(path) == best_by_trying(trans, nodes, starts, ends)
            np.testing.assert_array_equal(nodes, before)


def test_viterbi_as_scripts_use_it():
    decoder = snippets.ViterbiDecoder(trans=np.zeros((2, 2)), starts=[0], ends=[0])
    assert decoder.decode([[0, 1], [0, 1], [0, 1]]).tolist() == [0, 1, 0]
    decoder.trans = np.array([[0, -5], [0, 0]])  # assigned after each epoch
    assert decoder.decode([[0, 1], [0, 1], [0, 1]]).tolist() == [0, 0, 0]
    assert decoder.decode(np.zeros((0, 2))).shape == (0,)
    assert snippets.ViterbiDecoder(np.zeros((3, 3))).decode(np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("decoder", "nodes", "message"),
    [
        (
            lambda: snippets.ViterbiDecoder(np.zeros((2, 2)), starts=[2]),
            None,
            r"starts is \[2\]; expected labels from 0 to 1",
        ),
        (lambda: snippets.ViterbiDecoder(np.zeros((2, 2)), ends=[]), None, r"ends is \[\]"),
        (lambda: snippets.ViterbiDecoder(np.zeros((2, 2))), np.zeros((3, 4)), r"nodes \(3, 4\).* expected \(T, 2\)"),
        (lambda: snippets.ViterbiDecoder(np.zeros((2, 2)), [0], [1]), np.zeros((1, 2)), "the best score is -inf"),
        (lambda: snippets.ViterbiDecoder(np.zeros((2, 2))), [[0, np.nan]], "the best score is nan"),
    ],
)
def test_viterbi_without_a_path(decoder, nodes, message):
    with pytest.raises(InputError, match=message):
        decoder().decode(nodes)


# --- strings


def test_small_functions_of_strings():
    assert snippets.is_string("好")
    assert not snippets.is_string(b"a")
    assert snippets.strQ2B("ＡＢｃ１２３！～　，。好") == "ABc123!~ ,。好"
    assert snippets.lowercase_and_normalize("ÀÉÎ Ñ好ﬁ") == "aei n好ﬁ"
    assert snippets.string_matching("dense/kernel", ["bias", "ker.el$"])
    assert not snippets.string_matching("dense/kernel", ["bias", "^kernel"])
    assert not snippets.string_matching("abc", [])
    with pytest.raises(InputError, match=r"'\(笑' is no regular expression"):
        snippets.string_matching("(笑)", ["(笑"])


def test_cutting_texts():
    cut = snippets.text_segmentate
    assert cut("今天天气好。我们去公园，散步。", 8, "。，") == ["今天天气好。", "我们去公园，", "散步。"]
    assert cut("今天天气好。我们去公园，散步。", 7, "。，", "。，") == ["今天天气好", "我们去公园", "散步"]
    assert cut("a。b。c。dddd", 4, "。") == ["a。b。", "c。", "dddd"]
    assert cut("没有标点的长句子", 3, "。") == ["没有标点的长句子"]
    assert cut("  空格 \n", 2) == ["空格"]
    assert cut("", 5) == cut("，，，，", 2, "，", "，") == [""]
    assert cut("一二三<>四五六", 5, ["<>"]) == ["一二三<>", "四五六"]
    with pytest.raises(InputError, match="maxlen is 0"):
        cut("今天", 0)


def test_cutting_loses_nothing_but_what_is_stripped():
    draw, seps = random.Random(4), "\n。，"
    for _ in range(300):
        text = "".join("好" * draw.randint(1, 6) + draw.choice(seps) for _ in range(draw.randint(1, 12)))
        maxlen = draw.randint(2, 20)
        pieces = snippets.text_segmentate(text, maxlen, seps)
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(len(piece) <= maxlen or not set(piece[:-1]) & set(seps) for piece in pieces)
        pieces = snippets.text_segmentate(text.replace("\n", "。"), maxlen, "。")
        assert all(len(a) + len(b) + 1 > maxlen for a, b in itertools.pairwise(pieces))  # none fits to another


def substrings(text):
    return {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)} | {""}


def subsequences(text):
    return {"".join(kept) for n in range(len(text) + 1) for kept in itertools.combinations(text, n)}


def test_what_two_strings_have_in_common():
    draw = random.Random(5)
    for _ in range(200):
        source, target = ("".join(draw.choices("abc", k=draw.randint(0, 8))) for _ in range(2))
        length, (i, j, k, m) = snippets.longest_common_substring(source, target)
        assert source[i:j] == target[k:m]
        assert j - i == length == max(map(len, substrings(source) & substrings(target)))
        length, pairs = snippets.longest_common_subsequence(source, target)
        assert length == len(pairs) == max(map(len, subsequences(source) & subsequences(target)))
        assert all(source[i] == target[j] for i, j in pairs)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))


def test_which_of_several_that_are_in_common():
    assert snippets.longest_common_substring("abxcd", "cdyab") == (2, (0, 2, 3, 5))
    assert snippets.longest_common_substring("ab", "cd") == (0, (0, 0, 0, 0))
    assert snippets.longest_common_subsequence("ab", "ba") == (1, [(0, 1)])
    assert snippets.longest_common_subsequence([1, 2, 3], (3, 1, 2)) == (2, [(0, 1), (1, 2)])


# --- decorators


def test_arguments_inserted_and_deleted():
    class Base:
        def __init__(self, size, name=None):
            self.size, self.name = size, name

    class More(Base):
        @snippets.insert_arguments(rate=0.1, steps=2)
        def __init__(self, size, **kwargs):
            self.seen = self.rate * self.steps
            super().__init__(size, **kwargs)

    class Less(Base):
        @snippets.delete_arguments("name")
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    more = More(3, steps=5, name="a")
    assert (more.size, more.name, more.rate, more.seen) == (3, "a", 0.1, 0.5)
    assert More(3).steps == 2
    assert Less(4).size == 4
    with pytest.raises(TypeError, match="Less got an unexpected keyword argument 'name'"):
        Less(4, name="a")
    with pytest.raises(TypeError):
        More(3, stepps=5)


# --- DataGenerator


class Batches(snippets.DataGenerator):
    def __iter__(self, random=False):
        batch = []
        for is_end, sample in self.sample(random):
            batch.append(sample)
            if len(batch) == self.batch_size or is_end:
                yield [np.array(batch)], None
                batch = []


def firsts(batches, number):
    return [batch[0][0].tolist() for batch in itertools.islice(batches, number)]


def flat(batches):
    return list(itertools.chain(*batches))


def test_batches_in_order_and_at_random():
    generator = Batches(range(7), batch_size=3)
    assert len(generator) == 3
    assert firsts(generator, 9) == [[0, 1, 2], [3, 4, 5], [6]]
    assert firsts(generator.forfit(random=False), 4) == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]
    assert next(generator.fortest())[0].tolist() == [0, 1, 2]
    np.random.seed(0)
    batches = firsts(generator.forfit(), 6)
    passes = [flat(batches[:3]), flat(batches[3:])]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(7))
    assert passes[0] != passes[1]
    np.random.seed(0)
    assert firsts(generator.forfit(), 6) == batches


class Endless:
    """Data without a length that can be gone through again."""

    def __init__(self, number):
        self.number = number

    def __iter__(self):
        return iter(range(self.number))


@pytest.mark.parametrize("number", [1, 4, 5, 50])
def test_data_without_a_length_is_drawn_from_a_buffer(number):
    generator = Batches(Endless(number), batch_size=1, buffer_size=4)
    assert generator.buffer_size == 4
    assert Batches(Endless(3)).buffer_size == 32_000
    with pytest.raises(TypeError, match="Endless, has no length"):
        len(generator)
    drawn = flat(firsts(generator.__iter__(True), number))
    assert sorted(drawn) == list(range(number))
    assert all(sample <= place + 4 for place, sample in enumerate(drawn))  # no further ahead than the buffer
    assert firsts(generator, number) == [[sample] for sample in range(number)]
    flags = [is_end for is_end, _ in generator.sample(random=True)]
    assert flags == [False] * (number - 1) + [True]


def test_buffers_shuffle():
    np.random.seed(1)
    drawn = flat(firsts(Batches(Endless(50), 1, 4).__iter__(True), 50))
    assert drawn != sorted(drawn)


def test_a_pass_that_gives_nothing_is_an_error():
    assert list(Batches([]).sample()) == list(Batches([]).sample(random=True)) == []
    assert len(Batches([])) == 0
    for data in ([], iter([1, 2])):
        batches = Batches(data, batch_size=2).forfit()
        with pytest.raises(InputError, match="a pass through the data gave nothing"):
            list(itertools.islice(batches, 5))


def test_bad_generators():
    for arguments, message in (((0,), "batch_size is 0"), ((1, -1), "buffer_size is -1")):
        with pytest.raises(InputError, match=message):
            Batches([1], *arguments)
    with pytest.raises(NotImplementedError, match="DataGenerator does not define __iter__"):
        iter(snippets.DataGenerator([1]))


class Texts(snippets.DataGenerator):
    """Batches as scripts for bert4keras write them: lists, texts as long as they are, a label for each."""

    def __iter__(self, random=False):
        batch = []
        for is_end, ids in self.sample(random):
            batch.append(ids)
            if len(batch) == self.batch_size or is_end:
                ids = snippets.sequence_padding(batch)
                yield [ids, np.zeros_like(ids)], np.array([[x[0] % 2] for x in batch])
                batch = []


def test_batches_are_what_keras_takes():
    import keras

    texts = [[row + 1] * length for row, length in enumerate([5, 4, 5, 5, 2, 3, 9, 1])]
    generator = Texts(texts, batch_size=2)
    ids, segments = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(10, 3)(ids) + keras.layers.Embedding(2, 3)(segments)
    answers = keras.layers.Dense(2, activation="softmax")(keras.ops.mean(embedded, axis=1))
    model = keras.Model([ids, segments], answers)
    weights = model.get_weights()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    expected = []
    for batch in [*generator, *generator]:
        model.reset_metrics()
        expected.append(model.train_on_batch(*batch))
    model.set_weights(weights)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    found = model.fit(generator.forfit(random=False), steps_per_epoch=len(generator), epochs=2, verbose=0)
    np.testing.assert_allclose(found.history["loss"], np.reshape(expected, (2, 4)).mean(1), rtol=1e-6)
    rows = model.predict(generator.fortest(), steps=4, verbose=0)
    expected = np.concatenate([model.predict_on_batch(x) for x, _ in generator])
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_fractions_have_the_dtype_of_keras():
    """As of arrays for `fit`: a metric of one's own multiplies labels as they come with what is predicted."""
    from bert4x.snippets.endless import arrays

    found = arrays([np.zeros(2), [0.5], np.zeros(2, "int64")])
    assert [array.dtype.name for array in found] == ["float32", "float32", "int64"]


@pytest.mark.parametrize(
    "one, other, dtype, lengths, expected",
    [
        ((8, 90), (8, 90), "int64", set(), [None, None]),
        ((8, 1), (8, 1), "int64", set(), [None, 1]),
        ((8, 1), (8, 2), "int64", set(), [None, None]),
        ((8, 119), (7, 119), "float64", set(), [None, None]),
        ((8, 10, 4, 2), (8, 10, 4, 2), "int64", set(), [None, None, None, 2]),
        ((8, 90, 49, 2), (8, 90, 49, 2), "float64", {90}, [None, None, 49, 2]),
        ((8, 299, 299, 3), (7, 299, 299, 3), "float32", {17, 20}, [None, 299, 299, 3]),
        ((8,), (5,), "int64", set(), [None]),
    ],
)
def test_open_shapes(one, other, dtype, lengths, expected):
    from bert4x.snippets.endless import open_shape

    assert open_shape(np.zeros(one, dtype), np.zeros(other, dtype), lengths) == expected


@pytest.mark.parametrize(
    "batch, message",
    [
        (([np.zeros((2, 3)), None], None), "holds None"),
        ((np.zeros((2, 3)), {"a": None}), "holds None"),
    ],
)
def test_batches_without_arrays(batch, message):
    generator = Batches([1], batch_size=1)
    generator.__class__ = type("Odd", (Batches,), {"__iter__": lambda self, random=False: iter([batch])})
    with pytest.raises(InputError, match=message):
        next(iter(generator.forfit().get_jax_iterator()))


class Samples(snippets.DataGenerator):
    def __iter__(self, random=False):
        for _, length in self.sample(random):
            yield (list(range(length)), [1] * length), ([length],)


def test_datasets():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    generator = Samples([3, 5, 2], batch_size=2)
    types, shapes = (("float32", "int32"), ("float32",)), (([None], [None]), ([1],))
    names = (("Input-Token", "Input-Segment"), ("Probas",))
    for dataset in (
        generator.to_dataset(types, shapes, names, padded_batch=True),
        generator.to_dataset(list(types), list(shapes), list(names), padded_batch=True),
    ):
        inputs, outputs = next(iter(dataset))
        longest = int(tf.reduce_max(outputs))
        assert inputs["Input-Token"].shape == inputs["Input-Segment"].shape == (2, longest)
        assert inputs["Input-Segment"].numpy().sum(1).tolist() == outputs.numpy()[:, 0].tolist()
    single = Batches([1, 2, 3], batch_size=3)
    single.forfit = lambda: iter([(1, 2.0), (3, 4.0)])
    (first, second), *_ = single.to_dataset(("int32", "float32"), ((), ()))
    assert (first.numpy().tolist(), second.numpy().tolist()) == ([1, 3], [2, 4])
    assert list(next(iter(single.to_dataset(("int32", "float32"), ((), ()), ("a", "b"))))) == ["a", "b"]


# --- files of lines


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("第一行\nsecond\r\n\n最后，没有换行".encode())
    return path


def test_lines_by_number(corpus):
    lines = ["第一行\n", "second\n", "\n", "最后，没有换行"]
    with snippets.open(corpus, indexable=True) as file:
        assert len(file) == 4
        assert next(file) == lines[0]
        assert [file[k] for k in (3, 0, -1, -4)] == [lines[3], lines[0], lines[3], lines[0]]
        assert file[1:] == lines[1:]
        assert list(file) == lines[1:]  # reading by number does not move the place
        assert file[1] == lines[1]
        for key in (4, -5):
            with pytest.raises(IndexError, match="has 4 lines; there is no line"):
                file[key]
    with snippets.open(corpus, "rb", indexable=True) as file:
        assert file[1] == b"second\r\n"
    batches = Batches(snippets.open(corpus, indexable=True), batch_size=2)
    assert len(batches) == 2
    assert sorted(flat(firsts(batches.__iter__(True), 2))) == sorted(lines)
    assert firsts(Batches(snippets.open(corpus), 4), 1) == [lines]


def test_files_without_an_index_are_pythons(corpus, tmp_path):
    with snippets.open(tmp_path / "new.txt", "w") as file:
        file.write("好\n")
        file.flush()
    assert (tmp_path / "new.txt").read_bytes() == "好\n".encode()
    with snippets.open(corpus) as file:
        assert file.readline() == "第一行\n"
        assert file.read().startswith("second")
        file.seek(0)
        assert len(file.readlines()) == 4
        with pytest.raises(TypeError, match="opened without an index"):
            len(file)
        with pytest.raises(TypeError, match="opened without an index"):
            file[0]
    assert file.closed
    assert snippets.open(corpus, encoding="gbk", errors="ignore").readline()
    (tmp_path / "empty").touch()
    assert len(snippets.open(tmp_path / "empty", indexable=True)) == 0


def test_the_index_is_kept_until_the_file_changes(corpus, tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    assert len(snippets.open(corpus, indexable=str(index))) == 4
    with monkeypatch.context() as patch:
        patch.setattr("bert4x.snippets.corpus._offsets", None)  # it is not found again
        assert snippets.open(corpus, indexable=index)[3] == "最后，没有换行"
    corpus.write_text("一\n二\n", encoding="utf-8")
    assert snippets.open(corpus, indexable=index)[1] == "二\n"
    size, time_before = corpus.stat().st_size, corpus.stat().st_mtime_ns
    corpus.write_text("一二\n\n", encoding="utf-8")
    os.utime(corpus, ns=(time_before + 1, time_before + 1))
    assert corpus.stat().st_size == size
    assert snippets.open(corpus, indexable=index)[:] == ["一二\n", "\n"]
    corpus.write_text("一\n二\n", encoding="utf-8")
    index.write_text("[0, 4, 5]", encoding="utf-8")  # bert4keras', which cannot say of which state it is
    assert snippets.open(corpus, indexable=index)[-1] == "二\n"
    damaged = json.loads(index.read_bytes()) | {"offsets": [0, 9, 4, corpus.stat().st_size]}
    index.write_text(json.dumps(damaged), encoding="utf-8")
    assert snippets.open(corpus, indexable=index)[:] == ["一\n", "二\n"]


@pytest.mark.parametrize(
    "content", ["一\n", "{}", '{"offsets": ["a"]}', '["a"]', "3", '{"offsets": [99999999999999999999]}']
)
def test_what_is_no_index_is_left_alone(corpus, tmp_path, content):
    index = tmp_path / "other.json"
    index.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="is no index of the lines of a file"):
        snippets.open(corpus, indexable=index)
    assert index.read_text(encoding="utf-8") == content
    for path in (index, corpus):
        with pytest.raises(InputError, match="is no index"):
            snippets.open(path, indexable=path)


def test_files_that_cannot_have_an_index(corpus, tmp_path):
    for encoding in ("utf-16", "utf-16-be", "utf-32-le", "cp037"):
        with pytest.raises(InputError, match="cannot have an index"):
            snippets.open(corpus, encoding=encoding, indexable=True)
    with pytest.raises(InputError, match="only read"):
        snippets.open(tmp_path / "new", "w", indexable=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError):
        snippets.open(tmp_path / "new", indexable=True)
    for encoding in ("utf-8-sig", "gb18030"):
        (tmp_path / encoding).write_text("一\n二\n", encoding=encoding)
        assert snippets.open(tmp_path / encoding, encoding=encoding, indexable=True)[:] == ["一\n", "二\n"]


# --- parallel_apply

BOTH = pytest.mark.parametrize("dummy", [False, True])


@BOTH
@pytest.mark.parametrize("workers", [1, 3])
def test_results_of_all_items(dummy, workers):
    offset = 10  # of a function's own, which cannot be pickled
    items = list(range(25))
    function = lambda item: item + offset  # noqa: E731
    options = {"workers": workers, "max_queue_size": 5, "dummy": dummy}
    assert sorted(snippets.parallel_apply(function, items, **options)) == [item + 10 for item in items]
    assert snippets.parallel_apply(function, iter(items), unordered=False, **options) == [item + 10 for item in items]
    pairs = dict(snippets.parallel_apply_generator(function, items, **options))
    assert pairs == {item: item + 10 for item in items}
    seen = []
    assert snippets.parallel_apply(function, items, callback=seen.append, **options) is None
    assert sorted(seen) == [item + 10 for item in items]
    assert snippets.parallel_apply(function, [], **options) == []


def test_results_come_as_they_are_ready():
    def sleep(seconds):
        time.sleep(seconds)
        return seconds

    for dummy in (False, True):
        assert snippets.parallel_apply(sleep, [1.0, 0.01], workers=2, max_queue_size=2, dummy=dummy) == [0.01, 1.0]


@BOTH
def test_items_are_read_when_workers_are_free(dummy):
    read = []

    def items():
        for item in itertools.count():
            read.append(item)
            yield item

    results = snippets.parallel_apply_generator(abs, items(), workers=2, max_queue_size=2, dummy=dummy)
    assert len(list(itertools.islice(results, 10))) == 10
    assert len(read) <= 13
    results.close()


def test_two_at_once_end_without_waiting_for_each_other():
    first, second = (snippets.parallel_apply_generator(abs, [-1, -2, -3], workers=2) for _ in range(2))
    started = [next(first), next(second)]
    begin = time.monotonic()
    rest = [list(first), list(second)]
    assert time.monotonic() - begin < PATIENCE  # a worker that does not end by itself is killed only after that
    assert [sorted(value for _, value in [one, *more]) for one, more in zip(started, rest, strict=True)] == [
        [1, 2, 3]
    ] * 2


def test_large_items_and_results_do_not_wait_for_each_other():
    items = [np.full(200_000, k, "float32") for k in range(6)]
    results = snippets.parallel_apply(lambda x: x * 2, items, workers=2, max_queue_size=1, unordered=False)
    assert [result[0] for result in results] == [0, 2, 4, 6, 8, 10]


@BOTH
def test_an_exception_in_a_worker_is_raised_here(dummy):
    def fails(item):
        if item == 3:
            raise KeyError("第三个")
        return item

    with pytest.raises(KeyError, match="第三个") as raised:
        snippets.parallel_apply(fails, range(1000), workers=2, max_queue_size=10, dummy=dummy)
    assert "item 3, in a" in raised.value.__notes__[0]
    assert dummy or "in fails" in raised.value.__notes__[0]  # where it was raised


class NeedsTwo(Exception):
    """Pickles, and cannot be made again."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_what_cannot_be_sent():
    def fails(item):
        raise NeedsTwo("this", "that")

    apply = snippets.parallel_apply
    with pytest.raises(Bert4xError, match="NeedsTwo: this and that"):
        apply(fails, [1], 1)
    with pytest.raises(Bert4xError, match="the result, a generator, cannot be sent from a process"):
        apply(lambda item: (x for x in item), [[1]], 1)
    with pytest.raises(InputError, match="item 1, a lock, cannot be sent to a process"):
        apply(str, [1, threading.Lock()], 2)
    assert len(apply(str, [threading.Lock()], 1, dummy=True)) == 1


def test_a_function_that_cannot_be_sent_where_there_is_no_fork(monkeypatch):
    monkeypatch.setattr("bert4x.snippets.parallel.START", "spawn")
    with pytest.raises(InputError, match="func cannot be sent to a process"):
        snippets.parallel_apply(lambda item: item, [1], 1)


def test_a_worker_that_is_killed_is_an_error():
    def dies(item):
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(Bert4xError, match="the process of item 2 ended with code -9"):
        snippets.parallel_apply(dies, range(100), workers=2, max_queue_size=2)


def test_exceptions_of_the_items_and_of_the_callback():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        snippets.parallel_apply(abs, items(), workers=2)

    def callback(result):
        raise ArithmeticError(result)

    with pytest.raises(ArithmeticError):
        snippets.parallel_apply(abs, itertools.count(), workers=2, callback=callback)


def test_seeds():
    def draw(_):
        time.sleep(0.05)  # so that each process has one
        return os.getpid(), int(np.random.randint(1 << 30))

    def drawn(random_seeds):
        return dict(snippets.parallel_apply(draw, range(2), workers=2, random_seeds=random_seeds)).values()

    assert len(set(drawn(True))) == 2
    expected = [int(np.random.RandomState(seed).randint(1 << 30)) for seed in (5, 6)]
    assert sorted(drawn([5, 6])) == sorted(expected)
    state = np.random.get_state()[1].tolist()
    assert len(set(drawn(False))) == 1
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "0 workers"),
        ({"workers": 2.5}, "2.5 workers"),
        ({"workers": 1, "max_queue_size": 0}, "max_queue_size 0"),
        ({"workers": 3, "random_seeds": [1, 2]}, "2 random_seeds for 3 workers"),
    ],
)
def test_bad_arguments_of_parallel_apply(options, message):
    with pytest.raises(InputError, match=message):  # at once, not when the first result is taken
        snippets.parallel_apply_generator(abs, [1], **options)


SLEEPERS = """
import os, signal, sys, time
from bert4x.snippets import parallel_apply_generator

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it

def sleep(item):
    os.write(1, b"%d\\n" % os.getpid())  # at once, so that two do not mix
    time.sleep(float(sys.argv[1]))

try:
    list(parallel_apply_generator(sleep, range(1_000_000), workers=2, max_queue_size=2))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def sleepers():
    runs = []

    def start(seconds):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        run = subprocess.Popen(
            [sys.executable, "-c", SLEEPERS, str(seconds)], cwd=ROOT, start_new_session=True, **pipes
        )
        runs.append(run)
        return run, {int(run.stdout.readline()) for _ in range(2)}

    yield start
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_interrupting_ends_the_workers_at_once(sleepers):
    run, workers = sleepers(600)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGINT)  # a terminal sends it to all; from a worker alone nothing should come
    time.sleep(0.5)
    os.kill(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (out, err, run.returncode) == ("interrupted\n", "", 0)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_workers_end_when_the_main_process_is_killed(sleepers):
    run, _ = sleepers(0.1)
    run.kill()
    run.communicate(timeout=60)  # returns when the last process that can write has ended


# --- a web server


@pytest.fixture
def web():
    """The address of a server with two functions."""
    web = snippets.WebServing(port=0)
    web.route("/repeat", lambda text, n=2: {"texts": [text] * n, "length": np.int64(len(text))}, TWO)
    web.route("/half", lambda n: n / (n - 1), {"n": (int, True)}, "post")
    web.route("/odd", lambda: {1, 2}, {})
    server = web.listen()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{web.host}:{web.port}"
    web.stop()
    thread.join()
    server.server_close()


TWO = {"text": (None, True), "n": (int, False)}
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("path", "body", "code", "found"),
    [
        ("/repeat?text=苹果&n=3", None, 0, {"texts": ["苹果"] * 3, "length": 2}),
        ("/repeat?text=", None, 0, {"texts": ["", ""], "length": 0}),
        ("/repeat?n=3", None, 1, 'lack of "text" argument'),
        ("/repeat?text=a&n=x", None, 1, 'argument "n": invalid literal'),
        ("/half", (FORM, "n=3"), 0, 1.5),
        ("/half", ("application/json", '{"n": 3}'), 0, 1.5),
        ("/half", (FORM, "n=1"), 2, "ZeroDivisionError: division by zero"),
        ("/half", ("application/json", "[3]"), 1, "the body is a list"),
        ("/half", ("application/json", "{"), 1, "Expecting property name"),
        ("/half?n=3", None, 1, "no GET /half"),
        ("/odd", None, 2, "nothing that JSON holds: a set"),
    ],
)
def test_web(web, path, body, code, found):
    address = web + urllib.parse.quote(path, safe="/?&=")
    request = urllib.request.Request(address)
    if body:
        request = urllib.request.Request(address, body[1].encode(), {"Content-Type": body[0]})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    assert answer["code"] == code
    if code:
        assert found in answer["desc"]
    else:
        assert answer == {"code": 0, "desc": "succeeded", "data": found}


def test_web_says_what_it_cannot():
    web = snippets.WebServing()
    assert web.host == "127.0.0.1"
    for path, method in (("repeat", "GET"), ("/repeat", "PUT")):
        with pytest.raises(InputError, match="expected GET or POST"):
            web.route(path, len, {}, method)
