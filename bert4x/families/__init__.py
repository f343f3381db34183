"""The families: one file an architecture, with all that is particular to it; and those of users.

A family is a class: how the model computes (`forward`), its variables, a table for every layout it was published in,
how its config files spell things, and what it can do. `bert4x.models.backbone.Backbone` lists what a class can say.
"""

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from bert4x.errors import UnknownArchitectureError, nearest

if TYPE_CHECKING:
    from bert4x.models.backbone import Backbone

_CLASSES: dict[str, "type[Backbone]"] = {}  # by all their names


def register_family(cls: "type[Backbone]") -> "type[Backbone]":
    """Class decorator: makes a family, or a class that builds another's models in its own way, known by its names."""
    _CLASSES.update(dict.fromkeys((cls.model_name, *vars(cls).get("aliases", ())), cls))
    return cls


@functools.cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")  # which registers what is in it


def families() -> "dict[str, type[Backbone]]":
    """The families by name: the classes with variables of their own."""
    _import_all()
    return {name: cls for name, cls in sorted(_CLASSES.items()) if name == cls.model_name and "variables" in vars(cls)}


def family_of(model: "str | type[Backbone]") -> "type[Backbone]":
    """The class of a model's name; a class is returned as it is, so that users can bring their own.

    Raises: UnknownArchitectureError
    """
    _import_all()
    if isinstance(model, type):
        return model
    if str(model).lower() not in _CLASSES:
        raise UnknownArchitectureError(f"no architecture {model!r}; {nearest(str(model), _CLASSES)}")
    return _CLASSES[str(model).lower()]


def family_name(cls: "type[Backbone]") -> str:
    """The family that the weights of a class are of: the class itself, or the parent whose variables it has."""
    return next(vars(parent)["model_name"] for parent in cls.__mro__ if "variables" in vars(parent))
