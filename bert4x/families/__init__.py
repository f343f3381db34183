"""The families: one file an architecture, with all that is particular to it; and those of users.

A family is a class: how the model computes (`forward`), its variables, a table for every layout it was published in,
how its config files spell things, and what it can do. What a class can say stands in
`bert4x.models.builder.TransformerBuilder`.
"""

import importlib
import pkgutil
import warnings
from importlib import metadata
from typing import TYPE_CHECKING

from bert4x.errors import ConfigError, UnknownArchitectureError, nearest

if TYPE_CHECKING:
    from bert4x.models.builder import TransformerBuilder

GROUP = "bert4x.families"  # the entry points by which packages of users name their families
_CLASSES: dict[str, "type[TransformerBuilder]"] = {}  # by all their names
_imported = False


def register_family(cls: "type[TransformerBuilder]") -> "type[TransformerBuilder]":
    """Class decorator: makes a family known by its `model_name` and `aliases`. `load`, `save`, `convert`, `verify`,
    `.keras` files and generation then know it as they know those of this package.

    A subclass of a family that has no `variables` of its own is not a family but another way to build its models: what
    is saved of it is a checkpoint of that family, which says which class opens it.

    Raises: ConfigError for a class without a name of its own, for a name that is taken, and for tables or
        config files of another family.
    """
    own = vars(cls)
    name = own.get("model_name")
    if not isinstance(name, str) or name != name.lower():
        raise ConfigError(
            f'{cls.__name__} needs a name of its own in lower case: model_name = "{cls.__name__.lower()}"'
        )
    if not cls.__module__.startswith(f"{__name__}."):
        _import_all()
    names = (name, *own.get("aliases", ()))
    for known in (_CLASSES[other] for other in names if other in _CLASSES):
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # it may be defined anew
            raise ConfigError(f"{cls.__name__}: {known.__name__} of {known.__module__} has the name {name!r} already")
    for table in cls.tables if "variables" in own else ():
        if table.family != name:
            raise ConfigError(
                f"{cls.__name__} has variables of its own and a table of {table.family!r}; expected tables of {name!r} "
                f"(`table.of({name!r}, ...)` derives one), or tables = () for a family that is published nowhere"
            )
    if "variables" in own and cls.tables and "styles" not in own:
        raise ConfigError(
            f"{cls.__name__} has tables of its own, and the config files of its parent, which would be opened as such; "
            f"give it styles (`style.of({name!r})` derives one)"
        )
    _CLASSES.update(dict.fromkeys(names, cls))
    return cls


def _import_all() -> None:
    """Imports what registers families: the modules beside this one, and those that installed packages name."""
    global _imported
    if _imported:
        return
    _imported = True
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    for point in metadata.entry_points(group=GROUP):
        try:
            register_family(point.load())
        except Exception as error:  # whatever a package of others raises; ours must go on
            warnings.warn(f"the family {point.name!r} of {point.value} cannot be used: {error!r}", stacklevel=2)


def families() -> "dict[str, type[TransformerBuilder]]":
    """The families by name: the classes with variables of their own."""
    _import_all()
    return {name: cls for name, cls in sorted(_CLASSES.items()) if name == cls.model_name and "variables" in vars(cls)}


def family_of(model: "str | type[TransformerBuilder]") -> "type[TransformerBuilder]":
    """The class of a model's name; a class is returned as it is, so that users can bring their own.

    Raises: UnknownArchitectureError
    """
    _import_all()
    if isinstance(model, type):
        return model
    if str(model).lower() not in _CLASSES:
        raise UnknownArchitectureError(f"no architecture {model!r}; {nearest(str(model), _CLASSES)}")
    return _CLASSES[str(model).lower()]


def family_name(cls: "type[TransformerBuilder]") -> str:
    """The family that the weights of a class are of: the class itself, or the parent whose variables it has."""
    return next(vars(parent)["model_name"] for parent in cls.__mro__ if "variables" in vars(parent))
