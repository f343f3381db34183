"""bert4keras' decoder against every possible output, against beams kept in plain lists, and on models."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from bert4x.errors import GenerationError
from bert4x.generation import sampling
from bert4x.generation.auto_regressive import candidates, take_rows
from bert4x.models.build import build_transformer_model
from bert4x.snippets import AutoRegressiveDecoder
from tests.random_models import tiny_config

VOCAB, END = 4, 2


def distribution(prefix, seed=0, vocab=VOCAB) -> np.ndarray:
    """Made-up probabilities of the token after a prefix."""
    generator = np.random.default_rng([seed, len(prefix), *map(int, prefix)])
    return generator.dirichlet(np.full(vocab, 0.6))


class Table(AutoRegressiveDecoder):
    """A model that is a table of prefixes."""

    seed = 0

    @AutoRegressiveDecoder.wraps(default_rtype="probas")
    def predict(self, inputs, output_ids, states):
        return np.array([distribution(prefix, self.seed) for prefix in output_ids])


def log_probability(ids, start: int, seed: int) -> float:
    return sum(np.log(distribution(ids[:t], seed)[ids[t]]) for t in range(start, len(ids)))


def is_complete(ids, start: int, maxlen: int, minlen: int, min_ends: int) -> bool:
    ends = [t for t in range(start, len(ids)) if ids[t] == END]
    ended = len(ends) >= min_ends and ends[min_ends - 1] == len(ids) - 1
    too_early = len(ends) >= min_ends and len(ids) < minlen
    return not too_early and (ended or (len(ends) < min_ends and len(ids) == start + maxlen))


@pytest.mark.parametrize("start_id", [None, 3])
@pytest.mark.parametrize(("minlen", "min_ends"), [(1, 1), (3, 1), (1, 2), (4, 2)])
def test_wide_beams_find_the_best_of_all_outputs(start_id, minlen, min_ends):
    first = () if start_id is None else (start_id,)
    maxlen = 5 - len(first)
    for seed in range(15):
        decoder = Table(start_id, END, maxlen=maxlen, minlen=minlen)
        decoder.seed = seed
        outputs = (first + rest for n in range(1, maxlen + 1) for rest in itertools.product(range(VOCAB), repeat=n))
        start = len(first)
        complete = [ids for ids in outputs if is_complete(ids, start, maxlen, minlen, min_ends)]
        best = max(complete, key=lambda ids: log_probability(ids, start, seed))
        found = decoder.beam_search([], topk=VOCAB**maxlen, min_ends=min_ends)
        assert found.tolist() == list(best)


def plain_beam_search(topk: int, maxlen: int, minlen: int, min_ends: int, seed: int) -> list[int]:
    """The search with its beams in a list, written for reading."""
    beams, ended = [(0.0, [])], []
    for _ in range(maxlen):
        candidates = [
            (score + np.log(p), [*ids, token])
            for score, ids in beams
            for token, p in enumerate(distribution(ids, seed))
        ]
        is_end = [ids[-1] == END and ids.count(END) >= min_ends for _, ids in candidates]
        candidates = [(c, end) for c, end in zip(candidates, is_end, strict=True) if not end or len(c[1]) >= minlen]
        candidates.sort(key=lambda candidate: -candidate[0][0])
        ended += [c for c, end in candidates[:topk] if end]
        beams = [c for c, end in candidates if not end][:topk]
    return max(beams + ended, key=lambda beam: beam[0])[1]


@pytest.mark.parametrize("topk", [1, 2, 3, 5])
def test_narrow_beams(topk):
    differs_from_greedy = 0
    for seed in range(40):
        minlen, min_ends = 1 + seed % 4, 1 + seed % 3 // 2
        decoder = Table(None, END, maxlen=7, minlen=minlen)
        decoder.seed = seed
        found = decoder.beam_search([], topk, min_ends=min_ends).tolist()
        assert found == plain_beam_search(topk, 7, minlen, min_ends, seed)
        differs_from_greedy += found != decoder.beam_search([], 1, min_ends=min_ends).tolist()
    assert topk == 1 or differs_from_greedy > 5


def test_an_ended_beam_is_not_forgotten():
    """Token 0, then the end, has 0.5 * 0.5: second when it ends, yet all that goes on from token 1 falls below."""

    class Trap(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps("probas")
        def predict(self, inputs, output_ids, states):
            after = {(): [0.5, 0.5, 0], (0,): [0.25, 0.25, 0.5], (1,): [0.4, 0.6, 0]}
            return np.array([after.get(tuple(ids), [0.5, 0.5, 0]) for ids in output_ids])

    assert Trap(None, END, maxlen=5).beam_search([], topk=2).tolist() == [0, END]


class Remembering(AutoRegressiveDecoder):
    """Keeps its own prefix in states of several kinds, and checks them against the outputs."""

    calls = 0

    @AutoRegressiveDecoder.wraps(default_rtype="logits", use_states=True)
    def predict(self, inputs, output_ids, states):
        history, nested, counter = states
        self.calls += 1
        assert counter == output_ids.shape[1] and len(inputs[0]) == len(output_ids)
        if history is not None:
            spelled = (output_ids[:, :-1] * 10.0 ** np.arange(counter - 1)).sum(axis=1)
            np.testing.assert_array_equal(history, spelled)
            np.testing.assert_array_equal(nested["before"][0], spelled)
            np.testing.assert_array_equal(np.asarray(ops.convert_to_numpy(nested["tensor"])), spelled)
            np.testing.assert_array_equal(inputs[0][:, 0], spelled)
        history = (output_ids * 10.0 ** np.arange(counter)).sum(axis=1)
        inputs[0][:, 0] = history  # a script may write into its inputs
        tensor = ops.convert_to_tensor(history.astype("float32"))
        states = (history, {"before": [history], "tensor": tensor}, counter + 1)
        return np.log([distribution(prefix, 5) for prefix in output_ids]) + 3.0, states


def test_states_and_inputs_follow_their_beams():
    decoder = Remembering(None, END, maxlen=6)
    decoder.beam_search([[0.0, 7.0]], topk=3, states=(None, {}, 0))
    assert decoder.calls > 2
    np.random.seed(0)
    decoder.random_sample([[0.0, 7.0]], n=9, states=(None, {}, 0))


def test_what_predict_is_given():
    seen = []

    class Script(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps()
        def predict(self, inputs, output_ids, states):
            seen.append(([x.shape for x in inputs], output_ids.copy(), states))
            return np.tile([0.1, 0.6, 0.3, 0], (len(output_ids), 1))

    script = Script(start_id=3, end_id=0, maxlen=2)
    features = np.zeros((5, 6))
    assert script.first_output_ids.tolist() == [[3]]
    assert script.beam_search([[1, 2, 3], features, 4], topk=2).tolist() == [3, 1, 1]
    assert seen[0][0] == [(1, 3), (1, 5, 6), (1,)] and seen[0][1].tolist() == [[3]]
    assert seen[1][0] == [(2, 3), (2, 5, 6), (2,)] and seen[1][1].tolist() == [[3, 1], [3, 2]]
    samples = script.random_sample([np.array([1, 2])], 3)
    assert len(samples) == 3 and all(isinstance(ids, np.ndarray) and ids[0] == 3 for ids in samples)
    script.first_output_ids = np.array([[3, 1]])  # as scripts do that continue a given beginning
    assert script.beam_search([], 1).tolist() == [3, 1, 1, 1]


def test_result_types_and_temperature():
    table = np.log([[0.1, 0.2, 0.3, 0.4]])

    class Logits(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="logits")
        def predict(self, inputs, output_ids, states):
            return (table + 7).astype("float32")

    class Probabilities(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="probas", use_states=True)
        def predict(self, inputs, output_ids, states):
            return np.exp(table), "states"

    one, other = Logits(None, 0, 3), Probabilities(None, 0, 3)
    assert one.predict([], np.empty((1, 0)), None)[1] is None
    assert other.predict([], np.empty((1, 0)), None)[1] == "states"
    for temperature in (1, 0.5, 2.0):
        expected = np.exp(table / temperature) / np.exp(table / temperature).sum()
        for decoder in (one, other):
            probas, _ = decoder.predict([], np.empty((1, 0)), None, temperature, "probas")
            logits, _ = decoder.predict([], np.empty((1, 0)), None, temperature, "logits")
            np.testing.assert_allclose(probas, expected, rtol=1e-6)
            np.testing.assert_allclose(logits, np.log(expected), rtol=1e-6)
    np.testing.assert_allclose(one.predict([], None, None)[0], table, atol=1e-6)  # its own type: log-probabilities
    with pytest.raises(NotImplementedError, match="AutoRegressiveDecoder has no predict"):
        AutoRegressiveDecoder(None, 0, 3).beam_search([], 1)


# sampling


def test_samples_have_the_distribution():
    """Of all outputs of up to 3 tokens, by chi-square."""
    decoder = Table(None, END, maxlen=3)
    decoder.seed, count = 3, 20_000
    np.random.seed(1)
    samples = decoder.random_sample([], count)
    counts = {}
    for ids in samples:
        counts[tuple(ids.tolist())] = counts.get(tuple(ids.tolist()), 0) + 1
    outputs = [ids for n in (1, 2, 3) for ids in itertools.product(range(VOCAB), repeat=n)]
    outputs = [ids for ids in outputs if is_complete(ids, 0, 3, 1, 1)]
    expected = {ids: count * np.exp(log_probability(ids, 0, 3)) for ids in outputs}
    assert counts.keys() <= expected.keys() and abs(sum(expected.values()) - count) < 1e-6
    common = [ids for ids in outputs if expected[ids] >= 10]
    chi_square = sum((counts.get(ids, 0) - expected[ids]) ** 2 / expected[ids] for ids in common)
    assert len(common) > 8 and chi_square < len(common) + 4 * np.sqrt(2 * len(common))


def test_samples_end_as_they_should():
    decoder = Table(3, END, maxlen=6, minlen=4)
    np.random.seed(2)
    for ids in decoder.random_sample([], 300):
        ids = ids.tolist()
        assert ids[0] == 3 and 4 <= len(ids) <= 7 and END not in ids[1:-1]
        assert ids[-1] == END or len(ids) == 7
    for ids in decoder.random_sample([], 300, min_ends=2):
        ids = ids.tolist()
        assert ids[1:].count(END) <= 2 and ((ids.count(END) == 2 and ids[-1] == END) or len(ids) == 7)
    for ids in Table(None, None, maxlen=4).random_sample([], 5):
        assert len(ids) == 4
    assert len(Table(None, None, maxlen=4).beam_search([], 2)) == 4


def test_samples_come_again_and_in_order():
    decoder = Table(None, END, maxlen=8)
    np.random.seed(5)
    first = decoder.random_sample([], 20, topk=3, topp=0.9, temperature=0.8)
    np.random.seed(5)
    again = decoder.random_sample([], 20, topk=3, topp=0.9, temperature=0.8)
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in again]
    assert len({tuple(ids) for ids in first}) > 1
    greedy = decoder.beam_search([], 1).tolist()
    for options in ({"topk": 1}, {"topp": 1e-9}, {"temperature": 1e-4}):
        assert [ids.tolist() for ids in decoder.random_sample([], 3, **options)] == [greedy] * 3


@pytest.mark.parametrize(("topk", "topp"), [(None, None), (1, None), (7, None), (500, None), (None, 0.3), (11, 0.8)])
def test_filters_are_those_of_the_engine(topk, topp):
    probabilities = np.random.default_rng(0).dirichlet(np.full(50, 0.3), 40)
    theirs = ops.convert_to_tensor(probabilities.astype("float32"))
    theirs = sampling.keep_top_k(theirs, topk) if topk else theirs
    theirs = sampling.keep_top_p(theirs, topp) if topp else theirs
    tokens, weights = candidates(probabilities, topk, topp)
    ours = np.zeros_like(probabilities)
    np.put_along_axis(ours, tokens, weights / weights.sum(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(ours, ops.convert_to_numpy(theirs), atol=1e-5)


def test_as_many_as_are_asked_for_where_all_are_as_likely():
    equal = np.full((1, 10), 0.1)
    assert [(candidates(equal, *pair)[1] > 0).sum() for pair in ((3, None), (None, 0.35), (5, 0.5), (5, 2))] == [
        3,
        4,
        3,
        5,
    ]


def test_the_whole_distribution_is_kept_at_topp_1():
    probabilities = np.full((1, 10), 0.1)
    for topp in (1, 5, 1 - 1e-16, 0.9999999999999999):
        assert (candidates(probabilities, None, topp)[1] > 0).all()


@pytest.mark.parametrize(
    ("topk", "topp", "expected"),
    [
        (12, 0.7, [[1, 0, 11, 6, 25], [6, 38, 26, 30, 27], [39, 16, 20, 4, 23]]),
        (None, 0.9, [[21, 36, 23, 4, 16], [33, 8, 26, 33, 38], [39, 31, 6, 1, 26]]),
    ],
)
def test_a_seed_draws_what_it_draws_in_bert4keras(topk, topp, expected):
    """Recorded from bert4keras 0.11.5. Without `topp`, the order among the `topk` is NumPy's for a processor."""

    class Wide(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps(default_rtype="probas")
        def predict(self, inputs, output_ids, states):
            return np.array([distribution(prefix, 0, 40) for prefix in output_ids])

    np.random.seed(7)
    samples = Wide(None, END, maxlen=5).random_sample([], 3, topk=topk, topp=topp)
    assert sorted(ids.tolist() for ids in samples) == expected


# bad input


def test_refused():
    for sizes in ({"maxlen": 0}, {"maxlen": 3, "minlen": 5}):
        with pytest.raises(GenerationError, match="maxlen"):
            Table(None, END, **sizes)
    decoder = Table(None, END, maxlen=3)
    with pytest.raises(GenerationError, match="topk=0"):
        decoder.beam_search([], 0)
    with pytest.raises(GenerationError, match="n=0"):
        decoder.random_sample([], 0)
    with pytest.raises(GenerationError, match="topp=0"):
        decoder.random_sample([], 1, topp=0)
    with pytest.raises(GenerationError, match="topk=0"):
        decoder.random_sample([], 1, topk=0)
    with pytest.raises(GenerationError, match="topp=nan"):
        decoder.random_sample([], 1, topp=float("nan"))
    for temperature in (0, -1, float("nan")):
        with pytest.raises(GenerationError, match="temperature"):
            decoder.beam_search([], 1, temperature=temperature)
    with pytest.raises(GenerationError, match="'probas' or 'logits'"):
        AutoRegressiveDecoder.wraps("scores")
    with pytest.raises(GenerationError, match="end_id=9"):
        Table(None, 9, maxlen=3).beam_search([], 1)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([[0.5, np.nan]], "NaN"),
        ([[-1.0, 2.0]], "wraps.default_rtype='logits'"),
        ([0.5, 0.5], "shape"),
        ([[0.5, 0.5]] * 3, "shape"),
        ([[0.0, 0.0]], "no token"),
    ],
)
def test_bad_predictions(result, message):
    class Bad(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps()
        def predict(self, inputs, output_ids, states):
            return result

    with pytest.raises(GenerationError, match=message):
        Bad(None, 0, 3).random_sample([], 2)


def test_nothing_to_go_on_with():
    class Dead(AutoRegressiveDecoder):
        @AutoRegressiveDecoder.wraps()
        def predict(self, inputs, output_ids, states):
            return np.zeros((len(output_ids), 3)) if output_ids.shape[1] == 2 else np.full((len(output_ids), 3), 1 / 3)

    assert len(Dead(None, 0, 5, minlen=5).beam_search([], 2)) == 2
    assert Dead(None, 0, 5).beam_search([], 5).tolist() == [0]


def test_take_rows():
    rows = np.array([1, 1])
    values = {"a": (np.arange(3), [np.arange(2)]), "b": 3, "c": None, "d": "abc"}
    taken = take_rows(values, rows, 3)
    assert taken["a"][0].tolist() == [1, 1] and taken["a"][1][0].tolist() == [0, 1]
    assert isinstance(taken["a"], tuple) and {k: taken[k] for k in "bcd"} == {"b": 3, "c": None, "d": "abc"}


# models

SIZES = [(1, 3), (2, 32), (2, 33), (3, 70)]
if keras.backend.backend() == "jax":
    SIZES = [(2, 4), (3, 70)]  # every other size is compiled anew


def tiny_model(application="unilm", family="bert"):
    keras.utils.set_random_seed(3)
    config = tiny_config(family, initializer_range=0.5, max_position=70)
    model = build_transformer_model(config, model=family, application=application, with_mlm=True)
    if family == "bert":  # never [PAD], which the model would not see
        bias = model.get_layer("MLM-Bias").weights[0]
        bias.assign(-100.0 * (np.arange(97) == 0))
    return model


def whole(model, inputs) -> np.ndarray:
    compiled = keras.backend.backend() == "jax"  # where every operation is compiled for every shape
    outputs = model.predict_on_batch(inputs) if compiled else ops.convert_to_numpy(model(inputs))
    return outputs[:, -1]


@pytest.mark.parametrize("application", ["lm", "unilm", "encoder"])
@pytest.mark.parametrize("family", ["bert", "albert", "gpt2"])
def test_last_token_of_our_models(family, application):
    model = tiny_model(application, family)
    decoder = AutoRegressiveDecoder(None, 2, 5)
    last_token = decoder.last_token(model)
    assert decoder.last_token(model) is last_token
    generator = np.random.default_rng(0)
    for rows, length in SIZES:
        ids = generator.integers(1, 97, (rows, length))
        segments = (np.arange(length) > length // 2).astype(int) * np.ones((rows, 1), int)
        for segment_ids in (segments, segments * 0) if len(model.inputs) > 1 else (None,):
            inputs = [ids] if segment_ids is None else [ids, segment_ids]
            got = last_token.predict(inputs)
            assert isinstance(got, np.ndarray) and got.shape == (rows, 97)
            np.testing.assert_allclose(got, whole(model, inputs), atol=2e-5)


def test_last_token_of_a_fine_tuned_model():
    """Training is seen; so is a model of the user's around ours, and one that has no graph."""
    model = tiny_model()
    decoder = AutoRegressiveDecoder(None, 2, 5)
    inputs = [np.array([[5, 6, 7]]), np.array([[0, 0, 1]])]
    before = decoder.last_token(model).predict(inputs)
    for variable in model.trainable_variables[:3]:
        variable.assign(variable * 0.5)
    after = decoder.last_token(model).predict(inputs)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, whole(model, inputs), atol=2e-5)
    around = keras.Model(model.inputs, keras.layers.Rescaling(0.5)(model.output))
    np.testing.assert_allclose(decoder.last_token(around).predict(inputs), after / 2, atol=2e-5)
    both = keras.Model(model.inputs, [around.output, model.output])
    for found, part in zip(decoder.last_token(both).predict(inputs), (2, 1), strict=True):
        np.testing.assert_allclose(found, after / part, atol=2e-5)

    class Subclassed(keras.Model):
        def call(self, x):
            return 2 * model(x)

    np.testing.assert_allclose(decoder.last_token(Subclassed()).predict(inputs), after * 2, atol=2e-5)


class Titles(AutoRegressiveDecoder):
    """What a script of bert4keras' users looks like: a title for a text, with UniLM."""

    model = None

    @AutoRegressiveDecoder.wraps(default_rtype="probas")
    def predict(self, inputs, output_ids, states):
        source_ids, source_segments = inputs
        token_ids = np.concatenate([source_ids, output_ids], axis=1)
        segment_ids = np.concatenate([source_segments, np.ones_like(output_ids)], axis=1)
        return self.last_token(self.model).predict([token_ids, segment_ids])

    def generate(self, source_ids, topk):
        return self.beam_search([source_ids, [0] * len(source_ids)], topk=topk)


def test_a_unilm_script():
    titles = Titles(start_id=None, end_id=4, maxlen=5)
    titles.model = tiny_model()
    generator = np.random.default_rng(1)
    for _ in range(3):
        source = generator.integers(5, 97, 8).tolist()
        greedy = []
        while len(greedy) < 5 and 4 not in greedy:
            segments = [0] * len(source) + [1] * len(greedy)
            probabilities = whole(titles.model, [np.array([source + greedy]), np.array([segments])])
            greedy.append(int(probabilities.argmax()))
        assert titles.generate(source, topk=1).tolist() == greedy
        assert len(titles.generate(source, topk=3)) <= 5
    np.random.seed(0)
    assert len(titles.random_sample([source, [0] * 8], 4, topk=5)) == 4


def test_a_unilm_script_gives_what_the_engine_gives():
    titles = Titles(start_id=None, end_id=4, maxlen=5)
    titles.model = tiny_model()
    source = np.random.default_rng(2).integers(5, 97, (4, 8)).astype("int32")
    new = titles.model.generate_ids(source, max_new_tokens=5, stop_ids=[4], pad_id=0)
    for row, ids in zip(source, new, strict=True):
        output = titles.generate(row.tolist(), topk=1)
        assert ids[: len(output)].tolist() == output.tolist() and not ids[len(output) :].any()
