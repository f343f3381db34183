"""What training stands on: corpora, objectives, training steps, evaluation."""
