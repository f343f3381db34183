"""Decoding on the other backends: every test on PyTorch, where nothing is compiled; one of each kind on the rest."""

import pytest
from other_backends import BACKENDS, FILES, run_on, some

OTHERS = ("generation_text", "generation_transformers", "sampling", "cpm_generation", "stop_strings", "auto_regressive")
SOME = (
    "(bert-unilm or gpt2-lm) and (cached or streamed) or test_streams and lm and not unilm or test_scores and lm"
    " or test_stop_strings or test_rules and all or test_beams and never or draws_have or a_prompt or twice or cpm"
    " or test_auto_regressive and (bert-unilm and not albert or script or states or filters)"
)


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_on(backend, files, tmp_path):
    run_on(backend, some(files, "generation", OTHERS, 1), "" if backend == "torch" else SOME, tmp_path)
