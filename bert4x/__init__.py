"""Pretrained Chinese language models in Keras 3: load, run, convert and fine-tune them.

Names are imported when first used, so that `import bert4x` is instant and loads no backend.
"""

import importlib
from typing import TYPE_CHECKING

from bert4x import quiet
from bert4x.errors import Bert4xError
from bert4x.version import __version__

if TYPE_CHECKING:
    from bert4x.checkpoints.convert import convert, save
    from bert4x.checkpoints.files import default_model
    from bert4x.checkpoints.inspection import inspect
    from bert4x.config import TransformerConfig
    from bert4x.devices import distribution
    from bert4x.exporting.export import export
    from bert4x.families import register_family
    from bert4x.generation.bidirectional import BidirectionalDecoder
    from bert4x.generation.few_shot import FewShot
    from bert4x.generation.options import GenerationOptions
    from bert4x.models.build import build_transformer_model, load
    from bert4x.tasks.comparison import verify
    from bert4x.tasks.embedder import embedder
    from bert4x.tasks.fill_mask import fill_mask
    from bert4x.tasks.negatives import mine_negatives
    from bert4x.tasks.pipelines import pipeline, task
    from bert4x.tasks.reranker import reranker
    from bert4x.tokenizers import CpmTokenizer, SpTokenizer, Tokenizer, load_tokenizer, load_vocab, save_vocab

_HOME = {
    "build_transformer_model": "bert4x.models",
    "load": "bert4x.models.build",
    "distribution": "bert4x.devices",
    "fill_mask": "bert4x.tasks.fill_mask",
    "embedder": "bert4x.tasks.embedder",
    "mine_negatives": "bert4x.tasks.negatives",
    "reranker": "bert4x.tasks.reranker",
    "pipeline": "bert4x.tasks.pipelines",
    "task": "bert4x.tasks.pipelines",
    "convert": "bert4x.checkpoints.convert",
    "default_model": "bert4x.checkpoints.files",
    "inspect": "bert4x.checkpoints.inspection",
    "verify": "bert4x.tasks.comparison",
    "export": "bert4x.exporting.export",
    "register_family": "bert4x.families",
    "save": "bert4x.checkpoints.convert",
    "TransformerConfig": "bert4x.config",
    "BidirectionalDecoder": "bert4x.generation.bidirectional",
    "FewShot": "bert4x.generation.few_shot",
    "GenerationOptions": "bert4x.generation.options",
    "Tokenizer": "bert4x.tokenizers",
    "CpmTokenizer": "bert4x.tokenizers",
    "SpTokenizer": "bert4x.tokenizers",
    "load_tokenizer": "bert4x.tokenizers",
    "load_vocab": "bert4x.tokenizers",
    "save_vocab": "bert4x.tokenizers",
}

__all__ = [
    "Bert4xError",
    "BidirectionalDecoder",
    "CpmTokenizer",
    "FewShot",
    "GenerationOptions",
    "SpTokenizer",
    "Tokenizer",
    "TransformerConfig",
    "__version__",
    "build_transformer_model",
    "convert",
    "default_model",
    "distribution",
    "embedder",
    "export",
    "fill_mask",
    "inspect",
    "load",
    "load_tokenizer",
    "load_vocab",
    "mine_negatives",
    "pipeline",
    "register_family",
    "reranker",
    "save",
    "save_vocab",
    "task",
    "verify",
]

quiet.install()


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'bert4x' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
