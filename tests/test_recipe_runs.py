"""Every recipe with a file in golden/recipes is run once, as `--smoke` does, and gives what was recorded."""

import json
import time

import keras
import numpy as np
import pytest
from recipe_runs import GOLDEN, first_losses, smoke

pytestmark = pytest.mark.compiled
RECORDED = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(name)` gives (what main returned, the folder, seconds) of a run that is made once."""
    runs = {}

    def run(name):
        if name not in runs:
            pytest.importorskip("matplotlib", reason="the recipes draw, which needs matplotlib")
            folder, began = tmp_path_factory.mktemp(name), time.process_time()
            runs[name] = smoke(name, folder), folder, time.process_time() - began
        return runs[name]

    return run


@pytest.mark.parametrize("name", RECORDED)
def test_it_runs_to_its_end(run, name):
    result, folder, seconds = run(name)
    for pattern in RECORDED[name]["files"]:
        assert any(path.stat().st_size for path in folder.glob(pattern)), f"{pattern} is not in {folder}"
    for score, least in RECORDED[name]["least"].items():
        assert result.scores[score] >= least
    assert seconds < 120  # of two cores: a minute at most


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the losses were recorded on TensorFlow")
@pytest.mark.parametrize("name", RECORDED)
def test_its_losses_are_those_recorded(run, name):
    found, recorded = first_losses(run(name)[1]), RECORDED[name]["losses"]
    assert found.keys() == recorded.keys()
    for part, losses in recorded.items():
        count = RECORDED[name].get("compared", {}).get(part, len(losses))
        assert len(found[part]) == len(losses) and count > 0
        np.testing.assert_allclose(found[part][:count], losses[:count], rtol=1e-3, err_msg=f"{name}, run {part}")
