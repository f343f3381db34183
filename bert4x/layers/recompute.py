"""Activations that are computed again in the backward pass instead of being kept (Chen et al. 2016, arXiv 1604.06174).

`keras.remat` around dropout gives wrong gradients on TensorFlow and PyTorch, silently: the second pass draws other
masks. Here the seeds are drawn once, outside, and both passes start from them.
"""

import keras
from keras import ops

from bert4x.layers.base import Layer


def recomputed(layer: Layer, function, *tensors, dropouts=()):
    """`function(*tensors)`, a part of what the layer computes, of which only arguments and results are kept.

    It may use the layer's variables by way of its sublayers, and draw once from each of its dropout layers.
    """
    drawn = [d.seed_generator for d in dropouts if d.rate > 0]
    fixed = [(generator.state, generator.next()) for generator in drawn]
    learned = layer.trainable_variables
    known = {id(v) for v in learned} | {id(generator.state) for generator in drawn}
    fixed += [(v, v.value) for v in layer.variables if id(v) not in known]

    def pure(*values):
        # All that the function reads comes from here, so that it is the same wherever and whenever it runs.
        scope = [*fixed, *zip(learned, values, strict=False)]
        with keras.StatelessScope(scope, initialize_variables=False):
            return function(*values[len(learned) :])

    return keras.remat(pure)(*(v.value for v in learned), *map(ops.convert_to_tensor, tensors))
