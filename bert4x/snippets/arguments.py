"""Decorators of `__init__` that give a subclass more arguments than its base, or fewer."""

import functools
from collections.abc import Callable
from typing import Any


def insert_arguments(**arguments: Any) -> Callable:
    """Decorates a method so that it takes these keywords too; their values, or the defaults, become attributes.

    The attributes are there before the method runs; the method itself does not see the keywords.

        class ELECTRA(BERT):
            @insert_arguments(with_discriminator=False)
            def __init__(self, max_position, **kwargs): ...   # self.with_discriminator is set
    """

    def decorate(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped(self, *args, **kwargs):
            for name, default in arguments.items():
                setattr(self, name, kwargs.pop(name, default))
            return method(self, *args, **kwargs)

        return wrapped

    return decorate


def delete_arguments(*arguments: str) -> Callable:
    """Decorates a method that takes these keywords, so that it refuses them: TypeError, when called with one."""

    def decorate(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped(self, *args, **kwargs):
            for name in arguments:
                if name in kwargs:
                    raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {name!r}")
            return method(self, *args, **kwargs)

        return wrapped

    return decorate
