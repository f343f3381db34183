"""Architectures by name."""

import importlib
import pkgutil

import bert4x.models
from bert4x.errors import UnknownArchitectureError, nearest

_MODELS: dict[str, type] = {}


def register(*names: str):
    """Class decorator: make a backbone known under these names; the first is its own."""

    def decorate(cls):
        cls.model_name = names[0]
        _MODELS.update(dict.fromkeys(names, cls))
        return cls

    return decorate


def backbone_class(model) -> type:
    """The backbone of a name; a class is returned as it is, so that users can bring their own.

    Raises: UnknownArchitectureError
    """
    for module in pkgutil.iter_modules(bert4x.models.__path__):
        importlib.import_module(f"bert4x.models.{module.name}")  # importing registers its models
    if isinstance(model, type):
        return model
    if str(model).lower() not in _MODELS:
        raise UnknownArchitectureError(f"no architecture {model!r}; {nearest(str(model), _MODELS)}")
    return _MODELS[str(model).lower()]
