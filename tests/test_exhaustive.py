"""The list of long sweeps names tests that are there: a stale name would leave all cases in, or out, without a word."""

from pathlib import Path

import pytest
from exhaustive import STAY, stays


@pytest.mark.parametrize("name", STAY)
def test_every_name_is_that_of_a_test(name):
    file, _, function = name.partition("::")
    assert f"def {function}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert not stays(file, function, f"{function}[no such case]")
