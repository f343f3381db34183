"""What bert4keras' scripts use of a builder, the object that `return_keras_model=False` gives."""

from typing import TYPE_CHECKING, Any

from bert4x import layers as L
from bert4x.models.attention import Attention

if TYPE_CHECKING:
    import keras


class Hooks(Attention):
    """A builder as bert4keras' scripts know it.

    Its attributes: `inputs` and `outputs`, lists of symbolic tensors, `input` and `output`, the same or the only one;
    `initializer`; and all fields of the config, as `hidden_size`.
    """

    model: "keras.Model | None"
    model_inputs: "list[keras.KerasTensor]"

    def __getattr__(self, name: str) -> Any:
        if name != "config" and name in self.config.names():  # without a config yet it is asked for `config`, below
            return L.activation(self.config.hidden_act) if name == "hidden_act" else getattr(self.config, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def inputs(self) -> list:
        """The symbolic inputs of the model, conditions and other additional ones last."""
        return list(self.model_inputs)

    @property
    def input(self):
        """The inputs, or the only one."""
        return self.inputs if len(self.inputs) > 1 else self.inputs[0]

    @property
    def outputs(self) -> list:
        """The symbolic outputs of the model."""
        return list(self.model.outputs)

    @property
    def output(self):
        """The outputs, or the only one."""
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    @property
    def initializer(self):
        """A new initializer each time: one for several layers would give all of them the same numbers."""
        return L.initializer(self.config.initializer_range)
