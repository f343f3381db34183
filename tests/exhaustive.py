"""Of which long sweeps a run tries only some cases: those whose turn it is.

The turn is drawn for every run, which says it at its end; `--turn` asks for one. Turns that follow each other try all
cases, and `python -m pytest -m exhaustive` tries all of these sweeps, `-m ""` all there is.
"""

from collections.abc import Sequence

# Test, or name of a mark, -> how many of its cases a run tries at most; of those that `-k` leaves, if it is given.
IN_TURN = {
    "recipes of articles": 4,
    "test_accumulation.py::test_parts_have_the_gradient_of_the_whole": 1,
    "test_adversarial.py::test_transformer_learns": 1,
    "test_attentions.py::test_one_text": 2,
    "test_auto_regressive.py::test_last_token_of_our_models": 2,
    "test_auto_regressive.py::test_wide_beams_find_the_best_of_all_outputs": 2,
    "test_bert4keras_families.py::test_family": 2,
    "test_bert4keras_scripts.py::test_numbers_are_those_of_bert4keras": 9,
    "test_bidirectional.py::test_training": 1,
    "test_bidirectional_decoding.py::test_equals_a_search_in_python": 1,
    "test_cache.py::test_cached_equals_uncached": 8,
    "test_conversion.py::test_config_survives": 20,
    "test_conversion.py::test_outputs_are_equal_after_conversion": 1,
    "test_conversion.py::test_there_and_back": 20,
    "test_default_model.py::test_the_figures_of_the_card": 1,
    "test_docs.py::test_commands": 2,
    "test_docs.py::test_python": 6,
    "test_family_options.py::test_heads_that_do_not_divide_the_hidden_size": 2,
    "test_family_options.py::test_nothing_is_ignored": 1,
    "test_fit.py::test_every_task": 2,
    "test_flash_attention.py::test_outputs_and_gradients_are_the_same": 2,
    "test_generation.py::test_cached_equals_uncached": 1,
    "test_generation.py::test_segments_of_the_prompt": 1,
    "test_generation.py::test_streamed_equals_uncached": 1,
    "test_heads.py::test_a_published_classifier_answers": 4,
    "test_heads.py::test_our_classifier_in_other_layouts": 2,
    "test_lookup.py::test_another_model_drafts": 1,
    "test_lookup.py::test_the_same_tokens_in_fewer_passes": 1,
    "test_lora.py::test_base_stays_bit_for_bit_and_the_head_learns": 1,
    "test_lora.py::test_same_outputs": 2,
    "test_packing.py::test_a_text_is_what_it_is_alone": 10,
    "test_parity.py::test_every_weight_learns": 3,
    "test_parity.py::test_explicit_padding_mask": 3,
    "test_parity.py::test_long_texts": 3,
    "test_parity.py::test_precision_policy": 6,
    "test_parity.py::test_serialization": 5,
    "test_parity.py::test_variant": 15,
    "test_pointer.py::test_fit_learns_and_a_saved_model_is_the_same": 1,
    "test_precision.py::test_gradients_are_those_of_float32": 1,
    "test_recipe_runs.py::test_it_runs_to_its_end": 2,
    "test_recipe_runs.py::test_its_losses_are_those_recorded": 2,
    "test_recompute.py::test_gradients_are_those_without": 2,
    "test_token_classification.py::test_learns_saves_and_finds": 1,
    "test_triple_extraction.py::test_learns_a_few_sentences": 1,
    "test_triple_extraction.py::test_low_precision": 1,
}


def in_turn(cases: Sequence, turn: int, count: int) -> list:
    """At most so many of the cases, evenly from all of them; the next turn has the neighbours."""
    step = -(-len(cases) // count)
    return list(cases[turn % step :: step])
