"""The extensions that come before an update: accumulation of gradients, and operations on them."""

import re
from collections.abc import Callable
from typing import ClassVar

import keras
from keras import ops

from bert4x.errors import ConfigError
from bert4x.optimizers.checks import check_count, check_patterns, warn_unmatched
from bert4x.optimizers.extension import OWN, Extension, settled, when


class GradientAccumulation(Extension):
    """One update for several batches; see `extend_with_gradient_accumulation`. Raises: ConfigError"""

    defaults: ClassVar = {"grad_accum_steps": 2}

    def configure(self):
        check_count(self.options, "grad_accum_steps")
        super().configure()

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.gradient_sums = self.add_slots(variables, "gradient_sum")
            self.micro_steps = self.add_variable((), dtype="int32", name=f"{OWN}_micro_steps")

    def apply(self, grads, trainable_variables=None):
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if self.options["grad_accum_steps"] == 1 or len(grads) != len(variables):  # Keras raises for the latter
            super().apply(grads, trainable_variables)
            return
        self._check_variables_are_known(variables)
        given = [(v, g) for v, g in zip(variables, grads, strict=True) if g is not None]
        above_replicas(self.accumulate, settled([g for _, g in given]), [v for v, _ in given])

    def accumulate(self, grads: list, variables: list) -> None:
        """Adds up gradients, and updates the variables with the average of every `grad_accum_steps`."""
        steps, apply = self.options["grad_accum_steps"], super().apply
        sums = [self.gradient_sums[self._get_variable_index(v)] for v in variables]
        for total, gradient in zip(sums, grads, strict=True):
            total.assign_add(gradient)
        self.micro_steps.assign((self.micro_steps + 1) % steps)

        def update():
            apply([total / steps for total in sums], variables)
            for total in sums:
                total.assign(ops.zeros(total.shape, total.dtype))

        when(ops.equal(self.micro_steps, 0), update, [*self.variables, *self._trainable_variables])

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not is_above_replicas():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        import tensorflow as tf

        pairs = [(g, getattr(v, "value", v)) for g, v in zip(grads, trainable_variables, strict=True)]
        self._distributed_tf_update_step(tf.distribute.get_strategy(), pairs, learning_rate)


def above_replicas(function: Callable, grads: list, variables: list) -> None:
    """Calls a function of gradients and variables; where TensorFlow trains copies of a model, once for all of them,
    with the sums of their gradients: a strategy allows no condition around an update within the copies.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is not None and tf.distribute.has_strategy():
            sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, grads)

            def once(strategy, of_copies):  # all copies have the same sums
                function([strategy.experimental_local_results(copies)[0] for copies in of_copies], variables)

            replica.merge_call(once, args=(sums,))
            return
    function(grads, variables)


def is_above_replicas() -> bool:
    """Whether this is within the function that `above_replicas` calls for all copies."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.in_cross_replica_context()


class GradientOperations(Extension):
    """Functions of gradients; see `extend_with_gradient_operations`. Raises: ConfigError"""

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
        """The variables of the random numbers."""
        return [self.seed.state]

    def __call__(self, gradient):
        return gradient + keras.random.normal(gradient.shape, stddev=self.stddev, dtype=gradient.dtype, seed=self.seed)

    def get_config(self):
        return {"stddev": self.stddev, "seed": self.seed.get_config()["seed"]}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
