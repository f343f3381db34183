"""The extensions that come before an update: accumulation of gradients, and operations on them."""

import re
from typing import ClassVar

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.checks import check_count, check_patterns, warn_unmatched
from bert4x.optimizers.extension import OWN, Extension, settled, when


class GradientAccumulation(Extension):
    defaults: ClassVar = {"grad_accum_steps": 2}

    def configure(self):
        check_count(self.options, "grad_accum_steps")
        super().configure()

    def build(self, variables):
        if not self.built:
            refuse_replicas()
            super().build(variables)
            self.gradient_sums = self.add_slots(variables, "gradient_sum")
            self.micro_steps = self.add_variable((), dtype="int32", name=f"{OWN}_micro_steps")

    def apply(self, grads, trainable_variables=None):
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        steps, apply = self.options["grad_accum_steps"], super().apply
        if steps == 1 or len(grads) != len(variables):  # Keras has the words for the latter
            apply(grads, trainable_variables)
            return
        self._check_variables_are_known(variables)
        given = [(v, g) for v, g in zip(variables, grads, strict=True) if g is not None]
        sums = [self.gradient_sums[self._get_variable_index(v)] for v, _ in given]
        for total, gradient in zip(sums, settled([g for _, g in given]), strict=True):
            total.assign_add(gradient)
        self.micro_steps.assign((self.micro_steps + 1) % steps)

        def update():
            apply([total / steps for total in sums], [v for v, _ in given])
            for total in sums:
                total.assign(ops.zeros(total.shape, total.dtype))

        when(ops.equal(self.micro_steps, 0), update, [*self.variables, *self._trainable_variables])


def refuse_replicas() -> None:
    """Raises: ConfigError where TensorFlow trains several copies of a model, whose optimizers cannot wait."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ConfigError(
            f"gradients cannot be accumulated on {replicas} replicas: TensorFlow's strategies allow no condition "
            "around an update, nor can Keras' gradient_accumulation_steps. Take larger batches, or a recipe with "
            "--backend jax, --devices and --gradient-accumulation"
        )


class GradientOperations(Extension):
    defaults: ClassVar = {"gradient_operations": {}}

    def configure(self):
        operations = dict(self.options["gradient_operations"])
        if not all(map(callable, operations.values())):
            raise ConfigError(f"gradient_operations {operations!r}; expected {{pattern: function of a gradient}}")
        self.options["gradient_operations"] = operations
        check_patterns({"gradient_operations": list(operations)}, "gradient_operations")
        super().configure()

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        warn_unmatched("gradient_operations", self.options["gradient_operations"], variables)
        state = [
            v for operation in self.options["gradient_operations"].values() for v in getattr(operation, "variables", ())
        ]
        for variable in {id(v): v for v in state}.values():
            self._track_variable(variable)

    def operated(self, gradient, path):
        for pattern, operation in self.options["gradient_operations"].items():
            if re.search(pattern, path):
                gradient = operation(gradient)
        return super().operated(gradient, path)

    def get_config(self):
        operations = self.options["gradient_operations"]
        saved = {pattern: keras.saving.serialize_keras_object(operation) for pattern, operation in operations.items()}
        return super().get_config() | {"gradient_operations": saved}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        saved = config.get("gradient_operations", {})
        operations = {k: keras.saving.deserialize_keras_object(v, custom_objects) for k, v in saved.items()}
        return super().from_config(config | {"gradient_operations": operations}, custom_objects)


@keras.saving.register_keras_serializable("bert4x")
class GradientNoise:
    """An operation that adds normal noise to a gradient.

    An operation with a state lists it as `variables`, so that it is kept with the optimizer's own.
    """

    def __init__(self, stddev: float, seed: int | None = None):
        self.stddev, self.seed = stddev, keras.random.SeedGenerator(seed)

    @property
    def variables(self) -> list:
        return [self.seed.state]

    def __call__(self, gradient):
        return gradient + keras.random.normal(gradient.shape, stddev=self.stddev, dtype=gradient.dtype, seed=self.seed)

    def get_config(self):
        return {"stddev": self.stddev, "seed": self.seed.get_config()["seed"]}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
