"""Whatever makes vectors of texts, by one name."""

import os
import warnings
from pathlib import Path

from bert4x.checkpoints import sentence_vectors
from bert4x.checkpoints.files import default_vectors
from bert4x.checkpoints.task_file import FILE
from bert4x.errors import ConfigError
from bert4x.hub.names import local
from bert4x.runtimes.exported import is_export
from bert4x.tasks.heads import read_task
from bert4x.tasks.sentence_embedding import SentenceEmbedding


def embedder(source: str | os.PathLike | None = None, **options) -> SentenceEmbedding:
    """What makes vectors of texts: `embedder("BAAI/bge-small-zh-v1.5")(["今天天气很好", "..."])`, (N, D).

    Args:
        source: a folder of sentence-transformers, whose pooling, dense layers, normalisation, prompts and longest text
            are obeyed; a run of ours; or any encoder, or a run of another task, whose mean hidden state then is the
            vector, with a warning. By default the small model of sentence vectors inside the package; with `pooling`,
            the small BERT there.
        options: of `bert4x.load`, such as `dtype`, and settings of `SentenceEmbedding`, such as `pooling`.
    Raises: the errors of `load`; ConfigError for an export without vectors; CorruptFileError for settings that cannot
    be.
    """
    from bert4x.models.build import load

    if source is None and "pooling" not in options:
        source = default_vectors()
    folder = None if source is None else Path(local(source)).expanduser()
    told = folder is not None and ((folder / FILE).is_file() or sentence_vectors.are_sentence_vectors(folder))
    if told and read_task(folder)[0] == SentenceEmbedding.name:
        return SentenceEmbedding.load(folder, **options)
    if is_export(folder):
        raise ConfigError(
            f"{folder} is the export of a model that gives no vectors of texts; export what gives them: "
            "bert4x.export(bert4x.embedder(SOURCE), FOLDER)"
        )
    settings = {name: options.pop(name) for name in ("maxlen", *SentenceEmbedding.settings) if name in options}
    if "pooling" not in settings:
        warnings.warn(
            f"{source} says nothing of sentence vectors: the mean of its hidden "
            "states is taken. Pass pooling= to say so, or another",
            stacklevel=2,
        )
    return SentenceEmbedding(load(source, application="encoder", **options), **settings)
