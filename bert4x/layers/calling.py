"""How the layers here are called on tensors: at once, without what Keras looks at in each call of any layer.

Keras binds arguments, converts, opens scopes and looks for symbolic tensors at every call: 0.3 ms a layer, which is
most of a short text's time on PyTorch. A built layer that is given tensors of its own dtype needs none of that. Its
masks and its phase, training or not, are found here as Keras finds them; in all other cases, and where Keras' modules
are not where they were in 3.15, Keras does it.
"""

import functools
import inspect

import keras
from keras import ops

try:
    from keras.src.backend.common.global_state import get_global_attribute
    from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
    from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
except ImportError:  # another Keras
    get_global_attribute = None

FLOATS = ("float16", "bfloat16", "float32", "float64")


class CalledAtOnce:
    """Mix-in for a Keras layer, before its class: the call itself, where it is a plain one."""

    def __call__(self, *args, **kwargs):
        if get_global_attribute is None or not self.built or not self.is_plain():
            return super().__call__(*args, **kwargs)
        names = parameters(type(self).call)
        given = dict(zip(names, args, strict=False)) | kwargs
        as_keras_binds = len(given) == len(args) + len(kwargs) and given and next(iter(given)) == names[0]
        training = given.pop("training", None)
        tensors = self.tensors_of(given) if as_keras_binds else None
        if tensors is None:
            return super().__call__(*args, **kwargs)
        context = get_global_attribute("current_call_ctx")
        outer = None if context is None else context.get_value("training")
        if training is not None and training != outer:  # layers within have to know it
            return super().__call__(*args, **kwargs)
        if outer is not None and "training" in names:
            given["training"] = outer
        return self.called(given, tensors, names)

    def called(self, given: dict, tensors: list[str], names: tuple[str, ...]):
        """The outputs, with their masks. `tensors` are the names of those arguments that are tensors."""
        for name in tensors:
            own = "mask" if len(tensors) == 1 else f"{name}_mask"
            if own in names and given.get(own) is None:
                given[own] = mask_of(given[name])
        mask = given.get("mask")
        mask = mask_of(given[names[0]]) if mask is None else mask
        call = self.call if self.quantization_mode is None else self.quantized_call
        scope, dtype = get_autocast_scope(), self.compute_dtype
        if (self.variable_dtype if scope is None else scope.dtype) == dtype:
            outputs = call(**given)
        else:
            with AutocastScope(dtype):
                outputs = call(**given)
        if isinstance(outputs, list | tuple):
            self._set_mask_metadata(given[names[0]], outputs, mask)
        elif get_keras_mask(outputs) is None:
            mask = self.compute_mask(given[names[0]], mask)
            if mask is not None:
                set_keras_mask(outputs, mask)
        return outputs

    def is_plain(self) -> bool:
        """Whether nothing was asked of Keras for this layer's calls."""
        divided = get_global_attribute("distribution") is not None
        return not divided and self.supports_masking and self._remat_mode is None and self.activity_regularizer is None

    def tensors_of(self, given: dict) -> list[str] | None:
        """The names of the arguments that are tensors, or lists of them; None where one has to be converted first."""
        found, own = [], self.compute_dtype
        for name, value in given.items():
            if value is None or isinstance(value, bool | int | float | str):
                continue
            several = isinstance(value, list | tuple)
            for one in value if several else (value,):
                if several and one is None:
                    continue
                if isinstance(one, keras.KerasTensor) or not ops.is_tensor(one):
                    return None
                dtype = dtype_name(one.dtype)
                if dtype != own and dtype in FLOATS and self.autocast:
                    return None
            found.append(name)
        return found


@functools.cache
def parameters(call) -> tuple[str, ...]:
    """The names of a method's arguments after self; none unless all can be given by place and by name."""
    found = list(inspect.signature(call).parameters.values())[1:]
    return tuple(one.name for one in found) if all(one.kind == one.POSITIONAL_OR_KEYWORD for one in found) else ()


@functools.cache
def dtype_name(dtype) -> str:
    """A backend's dtype by Keras' name of it."""
    return keras.backend.standardize_dtype(dtype)


def mask_of(value):
    """The Keras mask of a tensor, or those of several."""
    return [mask_of(one) for one in value] if isinstance(value, list | tuple) else get_keras_mask(value)
