"""What bert4keras' example scripts do, with the numbers that bert4keras 0.11.5 gives for it.

The patterns and how their numbers were recorded: bert4keras_patterns.py. The scripts themselves, from a checkout:
bert4keras_scripts.py.
"""

import json

import bert4keras_data
import bert4keras_patterns
import keras
import numpy as np
import pytest

GOLDEN = json.loads(bert4keras_patterns.GOLDEN.read_text())
PATTERNS = dict.fromkeys(bert4keras_patterns.PATTERNS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The checkpoints of all patterns."""
    found = tmp_path_factory.mktemp("checkpoints")
    bert4keras_data.make_small(found)
    return found


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_numbers_are_those_of_bert4keras(pattern, folder):
    """The first loss to 1e-6 of it; what follows an update, and single numbers, to what float32 leaves."""
    if pattern in bert4keras_patterns.TENSORFLOW_ONLY and keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's own calls")
    found, expected = pattern(bert4keras_patterns.library("bert4x"), folder), GOLDEN[pattern.__name__]
    assert len(found) == len(expected)
    first = 2 if expected[0].is_integer() else 1  # three patterns count something before their first loss
    np.testing.assert_allclose(found[:first], expected[:first], rtol=1e-6)
    np.testing.assert_allclose(found[first:], expected[first:], rtol=5e-5)


def test_every_pattern_is_recorded():
    assert set(GOLDEN) == {pattern.__name__ for pattern in PATTERNS}
