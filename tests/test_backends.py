"""The parity tests again on every other backend that is installed: the same code must run on all of them."""

import pytest
from other_backends import BACKENDS, FILES, run_on, some

# File -> what runs of it.
SELECTION = {
    # one family with shared layers and a mapping, one causal, one of two sides; training
    "parity": "(TestAlbert or TestGpt2) and not Unshared and not Ml and (application or conditional or serialization"
    " or learns) or TestGpt2 and not Ml and mixed_bfloat16"
    " or TestTransformer and (application or serialization or learns)",
    "published": "saved_by_transformers or cpm",  # loading
    "transformer": "cached",
    "bidirectional": "plain and not albert",  # two directions
    "training_loop": "killed_run_goes_on",
    "precision": "gradients_are_those_of_float32 and seq2seq",  # in 16 bits
    "flash_attention": "not shared and not lm",  # Keras' own attention
    "limits": "test",  # labels and ids out of range
    "attentions": "one_text and not albert or encoder_decoder",
    "models": "on_top or pickle",  # models over ours, and copies
    "quantized": "(equals_the_oracle or product or test_generation) and not albert",  # int8
}


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_parity_on(backend, files, tmp_path):
    first, *others = SELECTION
    files = some(files, first, others, 2)
    run_on(backend, files, " or ".join(f"test_{name}.py and ({SELECTION[name]})" for name in files), tmp_path)
