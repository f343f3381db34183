"""What layers of Keras 2 have, and scripts for bert4keras ask for."""


class KnowsCalls:
    """Mix-in for a Keras layer: what it was given and gave in each call on symbolic tensors, as Keras 2 has it."""

    def get_input_at(self, node_index: int):
        """The symbolic input of a call, by its number; of several a list."""
        return one_or_list(self._inbound_nodes[node_index].input_tensors)

    def get_output_at(self, node_index: int):
        """The symbolic output of a call, by its number; of several a list."""
        return one_or_list(self._inbound_nodes[node_index].output_tensors)

    @property
    def output_mask(self):
        """The symbolic mask of the output; None where nothing is masked."""
        return getattr(self.output, "_keras_mask", None)


def integerize_shape(build):
    """The function itself: shapes are of numbers and None here, and were of objects in TensorFlow 1."""
    return build


def one_or_list(tensors):
    """The only one of some tensors, or all of them as a list."""
    return tensors[0] if len(tensors) == 1 else list(tensors)
