"""Writing text: prompts, sampling, beam search, detokenising as tokens come."""
