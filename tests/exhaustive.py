"""Which cases of the long sweeps a run tries; `python -m pytest -m exhaustive` tries the others, `-m ""` all.

`STAY`: the same cases every time. Each that is left out differs from one that stays in something that other, cheaper
tests hold by themselves.

`IN_TURN`: so many cases every time, those whose turn it is. The turn is drawn for every run, which says it at its end;
`--turn` asks for one. Turns that follow each other try all cases.
"""

import re
from collections.abc import Sequence

# Test -> what the names of the cases that stay match.
STAY = {
    "test_accumulation.py::test_parts_have_the_gradient_of_the_whole": r"\[(one label|gplinker|seq2seq)\]",
    "test_adversarial.py::test_transformer_learns": r"FGM|VAT",
    "test_attentions.py::test_one_text": r"bert-encoder|gpt2-lm",
    "test_auto_regressive.py::test_last_token_of_our_models": r"\[(bert-unilm|gpt2-lm|albert-encoder)\]",
    "test_auto_regressive.py::test_wide_beams_find_the_best_of_all_outputs": r"\[(1-1-None|4-2-3|3-1-None)\]",
    "test_bidirectional.py::test_training": r"\[bert\]",
    "test_conversion.py::test_outputs_are_equal_after_conversion": r"\[(bert|albert_unshared|gpt2)\]",
    "test_fit.py::test_every_task": r"text-classification|gplinker|seq2seq",
    "test_flash_attention.py::test_outputs_and_gradients_are_the_same": r"encoder|two sides-True",
    "test_generation.py::test_cached_equals_uncached": r"bert-unilm|albert-lm|gpt2-lm",
    "test_generation.py::test_segments_of_the_prompt": r"bert-unilm|gpt2-lm",
    "test_generation.py::test_streamed_equals_uncached": r"bert-unilm|gpt2-lm",
    "test_heads.py::test_our_classifier_in_other_layouts": r"[\[-]bert[\]-]",
    "test_lora.py::test_base_stays_bit_for_bit_and_the_head_learns": r"\[bfloat16\]",
    "test_lora.py::test_same_outputs": r"True",
    "test_pointer.py::test_fit_learns_and_a_saved_model_is_the_same": r"\[EfficientGlobalPointer\]",
    "test_precision.py::test_gradients_are_those_of_float32": r"\[(crf|half pointers|seq2seq)\]",
    "test_token_classification.py::test_learns_saves_and_finds": r"crf|efficient",
    "test_triple_extraction.py::test_low_precision": r"float16-GPLinker|bfloat16-TripleExtraction",
}


def stays(file: str, function: str, name: str) -> bool:
    """Whether a run tries this case, of a test function in a file."""
    pattern = STAY.get(f"{file}::{function}")
    return pattern is None or re.search(pattern, name) is not None


# Test -> how many of its cases a run tries.
IN_TURN = {
    "test_recipe_runs.py::test_it_runs_to_its_end": 3,
    "test_recipe_runs.py::test_its_losses_are_those_recorded": 3,
}


def in_turn(cases: Sequence, turn: int, count: int) -> list:
    """So many of the cases; each turn goes on where the one before it ended."""
    return [cases[(turn * count + n) % len(cases)] for n in range(min(count, len(cases)))]
