"""Answers of two runtimes beside each other: the same but for rounding."""

import dataclasses

import numpy as np


def plain(answer):
    """An answer as numbers, and all else that is in it."""
    if isinstance(answer, list):
        pairs = [plain(one) for one in answer]
        return [number for numbers, _ in pairs for number in numbers], [rest for _, rest in pairs]
    fields = dataclasses.asdict(answer)
    numbers = [fields.pop(name) for name in ("score", "probability") if name in fields]
    return numbers + list(fields.pop("probabilities", {}).values()), fields


def assert_same_answers(expected, found):
    (numbers, rest), (other_numbers, other_rest) = plain(expected), plain(found)
    assert rest == other_rest
    assert numbers
    np.testing.assert_allclose(other_numbers, numbers, atol=2e-5)
