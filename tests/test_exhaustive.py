"""The list of long sweeps names tests that are there: a stale name would try all cases, without a word."""

from pathlib import Path

import pytest
from exhaustive import IN_TURN, in_turn


@pytest.mark.parametrize("name", IN_TURN)
def test_every_name_is_that_of_a_test(name):
    file, _, function = name.partition("::")
    folder = Path(__file__).parent
    if not function:
        assert any(f'mark.sweep("{name}")' in path.read_text(encoding="utf-8") for path in folder.glob("test_*.py"))
        return
    files = [folder / file, *([folder / "battery.py"] if file == "test_parity.py" else [])]
    assert any(f"def {function}(" in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize(("cases", "count"), [(10, 3), (9, 4), (8, 4), (2, 3), (7, 1)])
def test_every_case_has_its_turn(cases, count):
    for first in (0, 1, 5347):
        turns = [in_turn(range(cases), turn, count) for turn in range(first, first + -(-cases // count))]
        assert sorted(case for turn in turns for case in turn) == list(range(cases))
        assert all(0 < len(turn) <= count for turn in turns)
