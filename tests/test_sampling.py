"""Filters against oracles that sort, draws against the exact distribution, seeds that reproduce."""

import numpy as np
import pytest
from battery import build
from keras import ops
from random_models import random_weights, tiny_config

from bert4x.generation import sampling
from bert4x.generation.options import GenerationOptions
from bert4x.generation.search import Sampling

VOCABULARY = 23


def array(tensor):
    return ops.convert_to_numpy(tensor)


def softmax(logits):
    odds = np.exp(np.asarray(logits, "float64") - np.max(logits, axis=-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


# The oracles: one row at a time, sorted, in float64.


def top_k(p, k):
    kept = p >= np.sort(p)[::-1][min(k, len(p)) - 1]
    return np.where(kept, p, 0) / p[kept].sum()


def top_p(p, amount):
    falling = np.sort(p)[::-1]
    count = (np.cumsum(falling) < amount).sum() + 1
    kept = p >= falling[min(count, len(p)) - 1]
    return np.where(kept, p, 0) / p[kept].sum()


def min_p(p, share):
    kept = p >= share * p.max()
    return np.where(kept, p, 0) / p[kept].sum()


ORACLES = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
FILTERS = {name: getattr(sampling, f"keep_{name}") for name in ORACLES}
VALUES = {
    "top_k": (1, 2, 3, 7, VOCABULARY - 1, VOCABULARY, 1000),
    "top_p": (1e-6, 0.1, 0.5, 0.9, 0.999, 1.0),
    "min_p": (0.0, 1e-4, 0.1, 0.5, 1.0),
}


def distributions():
    """Flat, peaked and very peaked rows."""
    random = np.random.default_rng(0)
    scales = np.array([0.01, 0.3, 1, 2, 4, 8, 20])
    return softmax(random.standard_normal((7, VOCABULARY)) * scales[:, None])


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in VALUES for value in VALUES[name]])
def test_filter(name, value):
    rows = distributions()
    expected = np.stack([ORACLES[name](row, value) for row in rows])
    found = array(FILTERS[name](ops.convert_to_tensor(rows, "float32"), value))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)
    assert (found[expected > 1e-6] > 0).all()


@pytest.mark.parametrize("name", ORACLES)
def test_ties_are_kept_together(name):
    """Equal tokens are all kept or all left out: an order among them would be arbitrary."""
    p = np.array([[0.3, 0.2, 0.2, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2], [0.0, 0.5, 0.0, 0.5, 0.0]])
    value = {"top_k": 2, "top_p": 0.4, "min_p": 0.6}[name]
    found = array(FILTERS[name](ops.convert_to_tensor(p, "float32"), value))
    thirds = np.array([0.3, 0.2, 0.2, 0.2, 0]) / 0.9
    np.testing.assert_allclose(found, [thirds, p[1], p[2]], rtol=1e-6)


@pytest.mark.parametrize("name", ORACLES)
def test_certain_tokens(name):
    """One token has all the probability, or all but what underflows."""
    logits = np.full((2, VOCABULARY), -1e9, "float32")
    logits[0, 4], logits[1, VOCABULARY - 1] = 0, 300
    p = ops.softmax(ops.convert_to_tensor(logits), axis=-1)
    for value in VALUES[name]:
        if (name, value) == ("min_p", 0.0):
            continue
        found = array(FILTERS[name](p, value))
        np.testing.assert_array_equal(found, np.eye(VOCABULARY)[[4, VOCABULARY - 1]])


COMBINATIONS = [
    {"temperature": 0.7},
    {"temperature": 3.0},
    {"temperature": 0.5, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.8},
    {"top_k": 6, "top_p": 0.7},
    {"top_p": 0.9, "min_p": 0.2},
    {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.15},
]


def names(options):
    return ", ".join(options)


def filtered(logits, options):
    """The exact distribution that tokens are drawn from."""
    rows = softmax(np.asarray(logits, "float64") / options.get("temperature", 1))
    for name in ("top_k", "top_p", "min_p"):
        if name in options:
            rows = np.stack([ORACLES[name](row, options[name]) for row in rows])
    return rows


@pytest.mark.parametrize("options", COMBINATIONS, ids=names)
def test_order_of_filters_is_that_of_transformers(options):
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    logits = np.random.default_rng(1).standard_normal((50, VOCABULARY)).astype("float32") * 2
    warpers = {
        "temperature": transformers.TemperatureLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
    }
    scores = torch.tensor(logits)
    for name, warper in warpers.items():
        if name in options:
            scores = warper(options[name])(None, scores)
    theirs = torch.softmax(scores, -1).numpy()
    np.testing.assert_allclose(filtered(logits, options), theirs, atol=1e-5)

    # the library's own composition: a uniform u draws the token in whose share of [0, 1) it lies
    search = Sampling.of(GenerationOptions(**options), 16)
    given = {name: np.float32(options.get(name) or 1) for name in ("temperature", "top_k", "top_p", "min_p")}
    upper = np.cumsum(theirs, axis=-1)
    for u in np.linspace(0.013, 0.987, 9):
        uniform = ops.convert_to_tensor(np.full(50, u, "float32"))
        drawn = array(search.draw(ops.convert_to_tensor(logits), uniform, given))
        inside = np.abs(upper - u).min(axis=-1) > 1e-5
        assert inside.sum() > 40
        np.testing.assert_array_equal(drawn[inside], (upper <= u).sum(-1)[inside])


def test_draw_is_the_inverse_of_the_cumulative_distribution():
    p = np.array([0.0, 0.25, 0.0, 0.5, 0.0, 0.25, 0.0], "float32")
    last = np.float32(1 - 2**-24)
    uniforms = np.array([0.0, 0.2499, 0.25, 0.5, 0.7499, 0.75, last], "float32")
    rows = ops.convert_to_tensor(np.tile(p, (len(uniforms), 1)))
    np.testing.assert_array_equal(array(sampling.draw(rows, ops.convert_to_tensor(uniforms))), [1, 1, 3, 3, 3, 5, 5])


@pytest.mark.parametrize("size", [2, 33, 30_000])
def test_extreme_uniforms_draw_possible_tokens(size):
    """0 and the greatest number below 1, over distributions whose sums round, with impossible tokens at both ends."""
    random = np.random.default_rng(2)
    p = softmax(random.standard_normal((8, size)) * 5) * (random.random((8, size)) < 0.5)
    p[:, size // 2] += 0.1
    if size > 2:
        p[:, [0, -1]] = 0
    p = (p / p.sum(-1, keepdims=True)).astype("float32")
    for u in (0.0, 2**-24, 0.5, 1 - 2**-24):
        drawn = array(sampling.draw(ops.convert_to_tensor(p), ops.convert_to_tensor(np.full(8, u, "float32"))))
        assert (drawn >= 0).all() and (drawn < size).all()
        assert (p[np.arange(8), drawn] > 0).all()


# Whole models.


@pytest.fixture(scope="module")
def model():
    config = tiny_config("gpt2", num_hidden_layers=1, vocab_size=VOCABULARY, max_position=64)
    return build(config, random_weights(config), "lm", with_mlm="linear")


PROMPT = [3, 1, 4, 1, 5]
DRAWS = 4096
EVERYTHING = {"temperature": 1.0, "top_k": VOCABULARY, "top_p": 1.0, "min_p": 0.0}  # filters that let everything pass
SETTINGS = {"max_new_tokens": 12, "temperature": 1.3, "top_p": 0.95, "top_k": 20, "min_p": 0.0}


@pytest.mark.parametrize("options", COMBINATIONS, ids=names)
def test_draws_have_the_filtered_distribution(model, options):
    """Chi-square over the first two tokens of many rows: of the prompt, and of the prompt with each first token."""
    ids = model.generate_ids([PROMPT] * DRAWS, max_new_tokens=2, seed=5, **EVERYTHING | options)
    first, second = ids.T
    logits = array(model({"token_ids": np.array([PROMPT])}))[:, -1]
    check_frequencies(first, filtered(logits, options)[0])
    for token in np.unique(first):
        after = second[first == token]
        if len(after) > 200:
            logits = array(model({"token_ids": np.array([[*PROMPT, token]])}))[:, -1]
            check_frequencies(after, filtered(logits, options)[0])


def check_frequencies(drawn, expected):
    """Nothing impossible, and chi-square below its 99.99th percentile (Wilson and Hilferty's approximation)."""
    counts = np.bincount(drawn, minlength=len(expected)).astype("float64")
    expected = expected * len(drawn)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    counts, expected = (np.append(x[~rare], x[rare].sum()) for x in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    if freedom:
        statistic = ((counts - expected) ** 2 / expected).sum()
        limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * np.sqrt(2 / (9 * freedom))) ** 3
        assert statistic < limit, (statistic, freedom)


def test_the_chi_square_would_find_an_error():
    random = np.random.default_rng(0)
    p = softmax(random.standard_normal(VOCABULARY))
    check_frequencies(random.choice(VOCABULARY, DRAWS, p=p), p)
    with pytest.raises(AssertionError):
        check_frequencies(random.choice(VOCABULARY, DRAWS, p=softmax(np.log(p) * 1.15)), p)


def test_seeds_reproduce_wherever_the_prompt_stands(model):
    other, longer = [2, 7, 1, 8], list(range(14))
    alone = model.generate_ids([PROMPT], seed=3, **SETTINGS)[0]
    assert len(set(alone.tolist())) > 3
    eight = [longer, other, [1], [2, 3], longer, [4], PROMPT, other]
    for batch in ([PROMPT, other], [other, PROMPT], eight, [other] * 7 + [PROMPT], [longer] * 4 + [PROMPT]):
        rows = model.generate_ids(batch, seed=3, **SETTINGS)
        np.testing.assert_array_equal(rows[batch.index(PROMPT)], alone)
    padded = np.array([[0] * 3 + PROMPT + [0] * 2])
    np.testing.assert_array_equal(model.generate_ids(padded, padding_mask=padded > 0, seed=3, **SETTINGS)[0], alone)


def test_samples_of_a_prompt(model):
    """More samples do not change the first ones, and occurrences of a prompt are samples of it."""
    four = model.generate_ids([PROMPT], num_return_sequences=4, seed=3, **SETTINGS)
    assert len({row.tobytes() for row in four}) == 4
    for count in (1, 2, 3):
        found = model.generate_ids([PROMPT], num_return_sequences=count, seed=3, **SETTINGS)
        np.testing.assert_array_equal(found, four[:count])
    np.testing.assert_array_equal(model.generate_ids([PROMPT] * 4, seed=3, **SETTINGS), four)
    other = model.generate_ids([[9, 9], PROMPT], num_return_sequences=4, seed=3, **SETTINGS)
    np.testing.assert_array_equal(other[4:], four)


def test_seeds_differ(model):
    rows = {model.generate_ids([PROMPT], seed=seed, **SETTINGS).tobytes() for seed in range(20)}
    assert len(rows) == 20
    unseeded = {model.generate_ids([PROMPT], **SETTINGS).tobytes() for _ in range(3)}
    assert len(unseeded) == 3


def test_a_prefix_of_the_steps(model):
    """Fewer new tokens are the first of more."""
    long = model.generate_ids([PROMPT], seed=3, **SETTINGS)
    short = model.generate_ids([PROMPT], seed=3, **SETTINGS | {"max_new_tokens": 5})
    np.testing.assert_array_equal(short, long[:, :5])


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-44])
def test_freezing_is_greedy(model, temperature):
    greedy = model.generate_ids([PROMPT], max_new_tokens=12)
    for seed in range(3):
        options = SETTINGS | {"temperature": temperature}
        np.testing.assert_array_equal(model.generate_ids([PROMPT], seed=seed, **options), greedy)


@pytest.mark.parametrize("temperature", [1e8, 1e30])
def test_heat_does_not_bring_back_what_is_suppressed(model, temperature):
    options = EVERYTHING | {"temperature": temperature, "suppress_ids": range(2, VOCABULARY)}
    ids = [model.generate_ids([PROMPT] * 8, max_new_tokens=12, seed=seed, **options) for seed in range(8)]
    assert set(np.ravel(ids)) == {0, 1}
    assert abs(np.mean(ids) - 0.5) < 0.1


def test_the_only_token_left(model):
    options = SETTINGS | {"suppress_ids": [i for i in range(VOCABULARY) if i != 6]}
    ids, scores = model.generate_ids([PROMPT] * 8, seed=0, return_scores=True, **options)
    assert (ids == 6).all() and np.isfinite(scores).all()


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}], ids=names)
def test_narrowest_filters_are_greedy(model, options):
    greedy = model.generate_ids([PROMPT], max_new_tokens=12)
    found = model.generate_ids([PROMPT], seed=1, max_new_tokens=12, **EVERYTHING | options)
    np.testing.assert_array_equal(found, greedy)


def test_uniforms():
    """Floats in [0, 1), independent between rows, the same whatever the batch."""
    prompts = [np.array(PROMPT), np.array([1]), np.array(PROMPT)]
    numbers = sampling.uniforms(0, prompts, 2, 1000)
    assert numbers.shape == (6, 1000) and numbers.dtype == np.float32
    assert numbers.min() >= 0 and numbers.max() < 1
    correlations = np.corrcoef(numbers)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 0.15
    np.testing.assert_array_equal(sampling.uniforms(0, prompts[:1], 1, 10), numbers[:1, :10])
    big = sampling.uniforms(2**200 + 1, prompts[:1], 1, 10)
    assert (big != sampling.uniforms(2**200, prompts[:1], 1, 10)).any()
