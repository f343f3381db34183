"""The lists of long sweeps name tests that are there: a stale name would leave all cases in, or out, without a word."""

from pathlib import Path

import pytest
from exhaustive import IN_TURN, STAY, in_turn, stays


@pytest.mark.parametrize("name", [*STAY, *IN_TURN])
def test_every_name_is_that_of_a_test(name):
    file, _, function = name.partition("::")
    assert f"def {function}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert name in IN_TURN or not stays(file, function, f"{function}[no such case]")


@pytest.mark.parametrize(("cases", "count"), [(10, 3), (9, 4), (8, 4), (2, 3), (7, 1)])
def test_every_case_has_its_turn(cases, count):
    turns = -(-cases // count)
    for first in (0, 1, 5347):
        tried = [in_turn(range(cases), turn, count) for turn in range(first, first + turns)]
        assert {case for turn in tried for case in turn} == set(range(cases))
        assert all(len(set(turn)) == min(cases, count) for turn in tried)
