"""Architectures by name."""

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
    from bert4x.models import albert, bert, gpt2  # noqa: F401  importing registers them

    if isinstance(model, type):
        return model
    if str(model).lower() not in _MODELS:
        raise UnknownArchitectureError(f"no architecture {model!r}; {nearest(str(model), _MODELS)}")
    return _MODELS[str(model).lower()]
