"""Sentence vectors as mteb wants them, the benchmark of embeddings (Muennighoff et al. 2022, arXiv 2210.07316)."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from bert4x.tasks import vectors as v
from bert4x.tasks.sentence_embedding import SentenceEmbedding


class MtebEncoder:
    """What `mteb.evaluate(MtebEncoder(encoder), tasks)` runs: the encoder protocol of mteb 2.

    A prompt is chosen by its name as mteb chooses: that of the task, of the kind of task, or "query" and "document",
    the narrowest first; without one that fits, the encoder's default.

    Args:
        encoder: what `bert4x.embedder` gives.
        name: "organisation/model", under which results are kept.
        options: of every call of the encoder, such as `batch_tokens` or `dimensions`.
    """

    def __init__(self, encoder: SentenceEmbedding, name: str = "bert4x/encoder", revision: str = "1", **options):
        self.encoder, self.name, self.revision, self.options = encoder, name, revision, options

    def encode(
        self, inputs: Iterable[dict], *, task_metadata, hf_split="", hf_subset="", prompt_type=None, **others
    ) -> np.ndarray:
        """The vectors of all texts; what mteb says further (batch sizes, bars) is not needed.

        Shape: batches {"text": texts} -> (N, D) float32
        """
        texts = [text for batch in inputs for text in batch["text"]]
        return self.encoder(texts, self.prompt(task_metadata, prompt_type), **self.options)

    def prompt(self, task_metadata, prompt_type) -> str | None:
        """The name of the prompt for a task."""
        kind = getattr(prompt_type, "value", prompt_type)
        names = [name for task in (task_metadata.name, task_metadata.type) for name in (f"{task}-{kind}", task)]
        return next((name for name in (*names, kind) if name in self.encoder.prompts), None)

    def similarity(self, first, second) -> np.ndarray:
        """Shape: (N, D), (M, D) -> (N, M)"""
        return v.similarity(np.atleast_2d(first), np.atleast_2d(second), self.encoder.similarity_name)

    def similarity_pairwise(self, first, second) -> np.ndarray:
        """Shape: (N, D), (N, D) -> (N,)"""
        return v.paired(np.asarray(first), np.asarray(second), self.encoder.similarity_name)

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside results."""
        from mteb.models import ModelMeta

        e = self.encoder
        said = {"name": self.name, "revision": self.revision, "embed_dim": e.size, "max_tokens": e.maxlen}
        return ModelMeta.create_empty(said | {"similarity_fn_name": e.similarity_name, "framework": []})
