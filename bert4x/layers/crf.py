"""Sequence labelling that scores neighbouring labels: conditional random field and maximum entropy Markov model."""

from collections.abc import Collection

import keras
import numpy as np
from keras import ops

from bert4x.errors import InputError
from bert4x.layers.base import Layer
from bert4x.layers.limits import check_numbers, inside, nan_unless
from bert4x.layers.means import token_mean
from bert4x.layers.transitions import PADDED, best_path, chain_potentials, memm_potentials


class LabelTransitions(Layer):
    """Base of layers that learn how much each label likes to follow each other one.

    The layer itself passes scores on, in float32, with those of padding at `PADDED`; what it learns acts in its losses
    and in `decode`. Losses and accuracies, as bert4keras names them, go to `compile(loss=layer.sparse_loss,
    metrics=[layer.sparse_accuracy])`; they give a number per row, whose mean over the batch counts.
    Keras cannot store methods, so load such a model with `load_model(path, compile=False)` and compile it again.

    `lr_multiplier`, m, makes the transitions learn faster than the rest: the variable holds them divided by m, and its
    initializer is divided as well, so they start as they would with 1. The updates of Adam and its kin, which do not
    depend on the scale of a gradient, then move them m times as far, those of SGD m^2 times (Su,
    kexue.fm/archives/6418).

    Shape: (B, T, L) scores -> (B, T, L) float32
    """

    def __init__(self, lr_multiplier=1, **kwargs):
        super().__init__(**kwargs)
        self.lr_multiplier = lr_multiplier

    def build(self, x_shape):
        self._trans = self.add_transitions("trans", (x_shape[-1], x_shape[-1]))

    def add_transitions(self, name: str, shape):
        glorot = keras.initializers.GlorotUniform()
        return self.add_weight(
            shape=shape,
            initializer=lambda shape, dtype=None: glorot(shape, dtype) / self.lr_multiplier,
            name=name,
            autocast=False,
        )

    @property
    def trans(self):
        """The score of the label of the column after that of the row.

        Shape: (L, L) float32
        """
        return self.lr_multiplier * ops.cast(self._trans, "float32")

    def call(self, x, mask=None):
        x = ops.cast(x, "float32")
        return x if mask is None else ops.where(ops.cast(mask, "bool")[..., None], x, PADDED)

    def compute_mask(self, x, mask=None):
        return None  # the losses find the padding in the scores; Keras would apply a mask to them once more

    def compute_output_spec(self, x, mask=None):
        return self.symbolic(x.shape, "float32")

    def dense_loss(self, y_true, y_pred):
        """Shape: (B, T, L) one-hot labels, (B, T, L) -> (B,)"""
        return self.sparse_loss(numbered(y_true, y_pred), y_pred)

    def dense_accuracy(self, y_true, y_pred):
        """Shape: (B, T, L) one-hot labels, (B, T, L) -> (B,)"""
        return self.sparse_accuracy(numbered(y_true, y_pred), y_pred)

    def sparse_accuracy(self, y_true, y_pred):
        """How many labels have the best score of their place, whatever the transitions: in JAX's training step a metric
        cannot see the weights. What counts is `decode`.

        Shape: (B, T) or (B, T, 1) labels, (B, T, L) -> (B,)
        """
        labels, scores, real = real_first(y_true, y_pred)
        return token_mean(ops.equal(labels, ops.cast(ops.argmax(scores, axis=-1), "int32")), real)

    def decode(self, scores, starts: Collection[int] | None = None, ends: Collection[int] | None = None) -> np.ndarray:
        """The best labels by the output of this layer; `starts` and `ends` limit the first and last of a row.

        Shape: (B, T, L) -> (B, T) int32, -1 for padding
        Raises: InputError for another shape, NaN, or when starts and ends leave no path.
        """
        scores = np.asarray(ops.convert_to_numpy(scores), "float64")
        trans = np.asarray(ops.convert_to_numpy(self.trans), "float64")
        if scores.ndim != 3 or scores.shape[-1] != len(trans):
            raise InputError(f"scores {scores.shape}; expected (B, T, {len(trans)}), the output of {self.name}")
        found = np.full(scores.shape[:2], -1, "int32")
        for row, labels in zip(scores, found, strict=True):
            real = row.max(-1) > PADDED / 10
            if np.isnan(row).any():
                raise InputError(f"the scores hold NaN; expected the output of {self.name}")
            if real.any():
                labels[real] = best_path(*self.potentials(row[real], trans), starts, ends)
        return found


@keras.saving.register_keras_serializable("bert4x")
class ConditionalRandomField(LabelTransitions):
    """A linear chain (Lafferty, McCallum and Pereira 2001): the probability of labels is the softmax, over all
    sequences of labels, of the sum of their scores and transitions. Padding may be anywhere.

    Shape: (B, T, L) scores -> (B, T, L) float32
    """

    def sparse_loss(self, y_true, y_pred):
        """The negative log-probability of the labels; 0 for a row that is all padding.

        Shape: (B, T) or (B, T, 1) labels, (B, T, L) -> (B,)
        """
        labels, scores, real = real_first(y_true, y_pred)
        trans, count = self.trans, ops.shape(scores)[-1]
        said = ops.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
        steps = ops.take(ops.reshape(trans, (-1,)), labels[:, :-1] * count + labels[:, 1:])
        path = ops.sum(ops.where(real, said, 0.0), axis=1) + ops.sum(ops.where(real[:, 1:], steps, 0.0), axis=1)
        return ops.where(real[:, 0], log_partition(scores, real, trans) - path, 0.0)

    def potentials(self, scores: np.ndarray, trans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return chain_potentials(scores, trans)


@keras.saving.register_keras_serializable("bert4x")
class MaximumEntropyMarkovModel(LabelTransitions):
    """Each label given the one before: a softmax of the mean of its score and transition (McCallum, Freitag and Pereira
    2000), so that training needs no recursion. `bidirectional`, as in bert4keras, averages the loss with that of each
    label given the one after, by the same transitions (Su, kexue.fm/archives/7213); `decode` finds the labels with the
    largest mean of both log-probabilities.

    `hidden_dim` makes the transitions a product of two matrices (L, hidden_dim), both learning `lr_multiplier` faster.

    Shape: (B, T, L) scores -> (B, T, L) float32
    """

    def __init__(self, lr_multiplier=1, hidden_dim=None, bidirectional=True, **kwargs):
        super().__init__(lr_multiplier, **kwargs)
        self.hidden_dim = hidden_dim
        self.bidirectional = bidirectional

    def build(self, x_shape):
        if self.hidden_dim is None:
            super().build(x_shape)
        else:
            self._l_trans = self.add_transitions("l_trans", (x_shape[-1], self.hidden_dim))
            self._r_trans = self.add_transitions("r_trans", (x_shape[-1], self.hidden_dim))

    @property
    def l_trans(self):
        return self.lr_multiplier * ops.cast(self._l_trans, "float32")

    @property
    def r_trans(self):
        return self.lr_multiplier * ops.cast(self._r_trans, "float32")

    @property
    def trans(self):
        return super().trans if self.hidden_dim is None else ops.matmul(self.l_trans, ops.transpose(self.r_trans))

    def sparse_loss(self, y_true, y_pred):
        """The negative log-probability of a label, averaged over the real ones of the batch.

        Shape: (B, T) or (B, T, 1) labels, (B, T, L) -> (B,)
        """

        labels, scores, real = real_first(y_true, y_pred)
        both = real[:, 1:, None]  # without a neighbour, the score stands for its transition
        before = ops.where(both, ops.take(self.trans, labels[:, :-1], axis=0), scores[:, 1:])
        loss = crossentropy(labels, (scores + ops.concatenate([scores[:, :1], before], axis=1)) / 2)
        if self.bidirectional:
            after = ops.where(both, ops.take(ops.transpose(self.trans), labels[:, 1:], axis=0), scores[:, :-1])
            backward = crossentropy(labels, (scores + ops.concatenate([after, scores[:, -1:]], axis=1)) / 2)
            loss = (loss + backward) / 2
        return token_mean(loss, real)

    def potentials(self, scores: np.ndarray, trans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return memm_potentials(scores, trans, self.bidirectional)


def numbered(y_true, y_pred):
    """One-hot labels as numbers.

    Shape: (B, T, L), (B, T, L) -> (B, T) int32
    Raises: InputError for labels of another number than the scores.
    """
    if None not in (y_true.shape[-1], y_pred.shape[-1]) and y_true.shape[-1] != y_pred.shape[-1]:
        raise InputError(f"one-hot labels {tuple(y_true.shape)}; expected {y_pred.shape[-1]} in the last place")
    return ops.argmax(y_true, axis=-1)


def real_first(y_true, y_pred):
    """Labels and scores with the real places of each row before its padding; the padding gets zeros. Compiled, the
    scores of a label that is none are NaN.

    Shape: (B, T) or (B, T, 1), (B, T, L) -> (B, T) int32, (B, T, L) float32, (B, T) bool
    Raises: InputError for a label of a real place that is below 0, or L or more.
    """
    scores = ops.cast(y_pred, "float32")
    real = ops.logical_not(ops.max(scores, axis=-1) <= PADDED / 10)  # NaN is not padding: the loss shall show it
    labels = ops.cast(ops.reshape(y_true, ops.shape(scores)[:2]), "int32")
    check_numbers(labels, scores.shape[-1], "label", where=real)
    known = ops.logical_or(inside(labels, ops.shape(scores)[-1]), ops.logical_not(real))
    labels = ops.where(ops.logical_and(real, known), labels, 0)
    scores = nan_unless(known[..., None], ops.where(real[..., None], scores, 0.0))
    length = ops.shape(scores)[1]
    places = ops.arange(length, dtype="int32")[None]
    order = ops.argsort(ops.where(real, places, places + length), axis=1)  # distinct keys: any sort is stable
    scores = ops.take_along_axis(scores, order[..., None], axis=1)
    return ops.take_along_axis(labels, order, axis=1), scores, ops.take_along_axis(real, order, axis=1)


def crossentropy(labels, logits):
    """Shape: (B, T), (B, T, L) -> (B, T)"""
    said = ops.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return ops.logsumexp(logits, axis=-1) - said


def log_partition(scores, real, trans):
    """The logarithm of the sum of e^score over all paths, by the forward algorithm, padding last.

    Shape: (B, T, L), (B, T) bool, (L, L) -> (B,)
    """
    places = ops.concatenate([scores, ops.cast(real, "float32")[..., None]], axis=-1)
    places = ops.transpose(places, (1, 0, 2))

    def step(state, place):
        through = ops.logsumexp(state[:, :, None] + trans, axis=1) + place[:, :-1]
        return ops.where(place[:, -1:] > 0, through, state)

    first = scores[:, 0]
    if keras.backend.backend() == "jax":  # which has no gradient of while_loop
        state, _ = ops.scan(lambda state, place: (step(state, place), None), first, places[1:])
    else:  # and TensorFlow none of scan, compiled, when the length is not known beforehand
        length = ops.shape(places)[0]

        def body(t, state):
            return t + 1, ops.where(t > 0, step(state, ops.take(places, t, axis=0)), state)

        _, state = ops.while_loop(lambda t, _: t < length, body, (0, first), maximum_iterations=length)
    return ops.logsumexp(state, axis=-1)
