"""How any family is built; of bert4keras.models' names those that are here, imported when asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras import Model

    from bert4x.models.build import build_transformer_model
    from bert4x.models.builder import TransformerBuilder as Transformer
    from bert4x.models.hooks import (
        LM_Mask,
        UniLM_Mask,
        extend_with_language_model,
        extend_with_unified_language_model,
    )
    from bert4x.models.parallel import data_parallel

HOOKS = ("LM_Mask", "UniLM_Mask", "extend_with_language_model", "extend_with_unified_language_model")
_HOME = {
    "build_transformer_model": ("bert4x.models.build", "build_transformer_model"),
    "Model": ("keras", "Model"),
    "Transformer": ("bert4x.models.builder", "TransformerBuilder"),
    "data_parallel": ("bert4x.models.parallel", "data_parallel"),
    **{name: ("bert4x.models.hooks", name) for name in HOOKS},
}
FAMILIES = {  # bert4keras' classes, by the names of families
    "ALBERT": "albert",
    "ALBERT_Unshared": "albert_unshared",
    "BERT": "bert",
    "ELECTRA": "electra",
    "GPT": "gpt",
    "GPT2": "gpt2",
    "GPT2_ML": "gpt2_ml",
    "NEZHA": "nezha",
    "RoFormer": "roformer",
    "RoFormerV2": "roformer_v2",
    "T5": "t5",
    "T5_Base": "t5",
    "T5_Decoder": "t5_decoder",
    "T5_Encoder": "t5_encoder",
}

__all__ = [
    "ALBERT",
    "BERT",
    "ELECTRA",
    "GPT",
    "GPT2",
    "GPT2_ML",
    "NEZHA",
    "T5",
    "ALBERT_Unshared",
    "LM_Mask",
    "Model",
    "RoFormer",
    "RoFormerV2",
    "T5_Base",
    "T5_Decoder",
    "T5_Encoder",
    "Transformer",
    "UniLM_Mask",
    "build_transformer_model",
    "data_parallel",
    "extend_with_language_model",
    "extend_with_unified_language_model",
]


def __getattr__(name: str):
    if name in FAMILIES:
        return importlib.import_module("bert4x.families").family_of(FAMILIES[name])
    if name not in _HOME:
        raise AttributeError(f"module 'bert4x.models' has no attribute {name!r}")
    for module in ("functional", "loading"):  # a script that has any of these can load `.keras` files of our models
        importlib.import_module(f"bert4x.models.{module}")
    module, known = _HOME[name]
    return getattr(importlib.import_module(module), known)
