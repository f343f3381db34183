"""One library a file, each with the same two functions:

`encoder(setup)`: a call from token and segment ids, (B, T) int32, to hidden states, (B, T, D) float32, both NumPy;
`classifier(setup)`: two calls, one from the same to scores, (B, labels) float32, without dropout; the other takes the
labels (B,) as well, updates the weights by AdamW, with dropout, and returns the loss.

The classifier is a dense layer on the first token's hidden state. Its weights are the same in all libraries.
"""

from dataclasses import asdict, dataclass

import numpy as np

RATE, DECAY, EPSILON, CLIP = 2e-5, 0.01, 1e-7, 1.0  # of AdamW in all libraries
PLAIN = ("bias", "gamma", "beta")  # what is not decayed
LABELS = 2


@dataclass(frozen=True)
class Setup:
    """What a library is asked for.

    Args:
        folder: of the checkpoint, as published on Hugging Face; `tf1/` in it is Google's layout.
        form: how the library runs: "graph", "XLA", "eager", "compiled" ...
        dtype: of weights and computation; "mixed_bfloat16" leaves weights in float32.
        dropout: everywhere in the model.
        device: "cpu" or "gpu".
    """

    folder: str
    form: str = ""
    dtype: str = "float32"
    dropout: float = 0.1
    device: str = "cpu"

    def asdict(self) -> dict:
        return asdict(self)


def head(hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the classifier. Shape: (hidden, LABELS), (LABELS,)"""
    random = np.random.default_rng(7)
    return (0.02 * random.standard_normal((hidden, LABELS))).astype("float32"), np.zeros(LABELS, "float32")


def compiled(function, model, form: str):
    """A function of arrays by a Keras model that changes nothing, compiled as ours are; the form "XLA" of TensorFlow by
    that.
    """
    import keras

    from bert4x.training.compiled import Compiled

    if form == "XLA" and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    return Compiled(function, model.variables, assigns=False)
