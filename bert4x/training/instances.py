"""How far images are from others, by features that are learnt without labels: each image is a class of its own."""

import keras
import numpy as np

from bert4x.metrics import frechet_distance


class ImageDistance:
    """The Fréchet distance of images to those that a model learns from, in features of a small network, which is
    trained here to tell images apart, each moved by up to `shift` pixels and with noise of a normal distribution
    (instance discrimination, Dosovitskiy et al. 2014, arXiv 1406.6909).

    `floor` is the distance of images that are kept back, `ceiling` that of as many whose pixels are drawn one by one.
    `right`: how often the network knows an image, moved once more.

    Args:
        images: 0 outside; the network learns all of them. Shape: (N, H, W, 1)
        kept: how many, the first, are kept back.
        size: of the features.

    Shape: (M, H, W, 1) -> number
    """

    def __init__(self, images, kept: int, size: int = 32, epochs: int = 12, shift=2, noise=0.2, seed: int = 0):
        rng, layers = np.random.default_rng(seed), keras.layers
        keras.utils.set_random_seed(seed)
        inputs = h = keras.Input(images.shape[1:])
        for width in (16, 32):
            h = layers.Conv2D(width, 4, 2, padding="same", activation="relu")(h)
        h = layers.Dense(size, activation="tanh")(layers.Flatten()(h))
        model = keras.Model(inputs, layers.Dense(len(images))(layers.BatchNormalization(momentum=0.9)(h)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        jit = keras.config.backend() == "jax"  # elsewhere compiling takes longer than it saves here
        model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"], jit_compile=jit)
        which = np.arange(len(images))
        for _ in range(epochs):
            model.fit(changed(images, shift, noise, rng), which, batch_size=64, verbose=0)
        self.right = float(model.evaluate(changed(images, shift, noise, rng), which, batch_size=256, verbose=0)[1])
        self.network, self.seen = keras.Model(inputs, h), images[kept:]
        columns = [rng.choice(column, kept) for column in self.seen.reshape(len(self.seen), -1).T]
        self.floor, self.ceiling = self(images[:kept]), self(np.stack(columns, -1).reshape(images[:kept].shape))

    def __call__(self, images) -> float:
        return frechet_distance(self.features(images), self.features(self.seen))

    def features(self, images):
        """What the network sees. Shape: (M, H, W, 1) -> (M, size)"""
        return self.network.predict(images, batch_size=256, verbose=0)


def changed(images, shift, noise, rng):
    """Each image moved by up to `shift` pixels up or down and aside, with noise. Shape: (N, H, W, 1) -> the same"""
    found, (height, width) = np.zeros_like(images), images.shape[1:3]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    for row, (down, aside) in enumerate(rng.integers(0, 2 * shift + 1, (len(images), 2))):
        found[row] = padded[row, down : down + height, aside : aside + width]
    return found + rng.normal(0, noise, images.shape).astype(images.dtype)
