"""The CPM reference checkpoints continue prompts as a step-by-step argmax over their authors' logits would.

The NumPy oracle stands in for the authors' code: first it must give their recorded logits, then it is asked for the
next token, whole text by whole text, without a cache.
"""

from pathlib import Path

import numpy as np
import pytest
from random_models import tiny_config
from reference import gpt2
from reference.foreign import read_megatron

import bert4x

pytestmark = pytest.mark.compiled

CHECKPOINTS = Path(__file__).parents[2] / "shared" / "data" / "checkpoints"
NAMES = ["cpm_1shard_fp32_zip", "cpm_2shards_fp16_zip", "cpm_2shards_fp16_legacy"]
PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 3, 9]]
NEW = 8


class Reference:
    """A checkpoint, the oracle with its weights (read by PyTorch), and the model that bert4x loads."""

    def __init__(self, path):
        torch = pytest.importorskip("torch", reason="reads the checkpoint for the oracle")
        self.recorded = np.load(path / "reference.npz")
        self.model = bert4x.load(path)
        files = sorted(path.rglob("mp_rank_*_model_states.pt"))
        shards = [torch.load(file, map_location="cpu", weights_only=False)["module"] for file in files]
        c = self.model.config
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        sizes = {name: getattr(c, name) for name in (*sizes, "max_position", "layer_norm_eps", "hidden_act")}
        self.config = tiny_config("gpt2", **sizes)
        self.weights = read_megatron(shards, c.num_hidden_layers)

    def logits(self, ids):
        """Shape: (B, T) -> (B, T, V)"""
        return gpt2.forward(self.weights, self.config, np.asarray(ids))["lm_logits"]

    def argmax(self, prompt, steps):
        """The new ids, and the least distance of a chosen token to the second best."""
        ids, margins = list(prompt), []
        for _ in range(steps):
            last = self.logits([ids])[0, -1]
            margins.append(np.ptp(np.sort(last)[-2:]))
            ids.append(int(last.argmax()))
        return ids[len(prompt) :], min(margins)


@pytest.fixture(scope="module", params=NAMES)
def reference(request):
    path = CHECKPOINTS / request.param
    if not path.is_dir():
        pytest.skip(f"the reference checkpoint {request.param} is not beside this checkout")
    return Reference(path)


def test_the_oracle_is_the_reference(reference):
    found = reference.logits(reference.recorded["input_ids"])
    np.testing.assert_allclose(found, reference.recorded["logits"], rtol=0, atol=2e-5)


def test_continues_as_the_reference_would(reference):
    recorded = reference.recorded["input_ids"][:, : reference.config["max_position"] - NEW]
    prompts = [*PROMPTS, *recorded.tolist()]
    expected, margins = zip(*(reference.argmax(prompt, NEW) for prompt in prompts), strict=True)
    assert min(margins) > 1e-5  # no token was chosen by rounding
    assert len({tuple(ids) for ids in expected}) > 2
    together = reference.model.generate_ids(prompts, max_new_tokens=NEW)
    np.testing.assert_array_equal(together, expected)
    for prompt, ids in zip(prompts, expected, strict=True):
        np.testing.assert_array_equal(reference.model.generate_ids([prompt], max_new_tokens=NEW), [ids])


def test_scores_are_the_references(reference):
    ids, scores = reference.model.generate_ids([PROMPTS[1]], max_new_tokens=NEW, return_scores=True)
    whole = [*PROMPTS[1], *ids[0].tolist()]
    logits = reference.logits([whole])[0, len(PROMPTS[1]) - 1 : -1]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(scores[0], log[np.arange(NEW), ids[0]].sum(), atol=1e-4)
