"""Losses of fine-tuning. All compute in float32 whatever they are given, and are finite for any finite scores.

They can be given to `compile(loss=...)` as they are, or called; further arguments by `functools.partial`, or a loss of
one's own. Where only some places of a text count, a number per row is given, whose mean over the batch is the mean over
the places that count.

A label or a pair out of range is an InputError wherever it can be looked at; in compiled code, as `fit` has it on
TensorFlow and JAX, the loss is NaN.
"""

import keras
from keras import ops

from bert4x.errors import InputError
from bert4x.layers.limits import at_hand, check_numbers, inside, nan_unless
from bert4x.layers.means import token_mean

LEAST = -1e30  # the logarithm of nothing: finite, so that no gradient is NaN

serializable = keras.saving.register_keras_serializable("bert4x")


@serializable
def masked_crossentropy(y_true, y_pred, smoothing=0.0, from_logits=True):
    """Cross-entropy of the labels that are not negative.

    With `smoothing` that share of each label is spread over all of them (Szegedy et al. 2015, arXiv 1512.00567).

    Shape: (B, ...) labels, (B, ..., V) logits or, not `from_logits`, probabilities -> (B,)
    Raises: InputError for a label of V or more.
    """
    logits = ops.cast(y_pred, "float32")
    check_numbers(y_true, logits.shape[-1], "label", negative=True)
    labels = ops.cast(ops.reshape(y_true, ops.shape(logits)[:-1]), "int32")
    if not from_logits:
        logits = ops.log(ops.maximum(logits, 1e-30))
    real, known = labels >= 0, labels < ops.shape(logits)[-1]
    index = ops.where(ops.logical_and(real, known), labels, 0)
    said = nan_unless(known, ops.take_along_axis(logits, index[..., None], axis=-1)[..., 0])
    if smoothing:
        said = (1 - smoothing) * said + smoothing * ops.mean(logits, axis=-1)
    batch = ops.shape(logits)[0]
    loss = ops.logsumexp(logits, axis=-1) - said
    return token_mean(ops.reshape(loss, (batch, -1)), ops.reshape(real, (batch, -1)))


masked_crossentropy.per_row = True  # its labels say what counts; see `bert4x.models.functional`


def unilm_labels(token_ids, segment_ids):
    """What each place of a UniLM's text is to predict: the next token where that is of the target (segment 1), else -1.

    Shape: (B, T), (B, T) -> (B, T) int32
    """
    target = ops.cast(segment_ids, "int32")[:, 1:] > 0
    labels = ops.where(target, ops.cast(token_ids, "int32")[:, 1:], -1)
    return ops.pad(labels, ((0, 0), (0, 1)), constant_values=-1)


def unilm_crossentropy(token_ids, segment_ids, y_pred, smoothing=0.0, from_logits=True):
    """Cross-entropy of the target's tokens, each from the place before it (Dong et al. 2019, arXiv 1905.03197).

    For `compile(loss=masked_crossentropy)` give `unilm_labels(token_ids, segment_ids)` as labels.

    Shape: (B, T), (B, T), (B, T, V) -> (B,)
    """
    return masked_crossentropy(unilm_labels(token_ids, segment_ids), y_pred, smoothing, from_logits)


@serializable
def multilabel_categorical_crossentropy(y_true, y_pred):
    """log(1 + sum e^s of the labels that are not) + log(1 + sum e^-s of those that are): every right label is to score
    above 0, every other below, however many there are of either (Su, kexue.fm/archives/7359).

    Shape: (..., N) of 0 and 1, (..., N) scores, without a sigmoid -> (...)
    Raises: InputError for other labels.
    """
    scores = ops.cast(y_pred, "float32")
    labels, known = between_0_and_1(y_true)
    right = labels > 0.5
    return nan_unless(known, two_sided(ops.where(right, scores, -LEAST), ops.where(right, LEAST, scores)))


@serializable
def soft_multilabel_categorical_crossentropy(y_true, y_pred):
    """The same for labels between 0 and 1: log(1 + sum (1 - t) e^s) + log(1 + sum t e^-s) (Su et al. 2022,
    arXiv 2208.02955; kexue.fm/archives/9064). It is least where t = sigmoid(2 s), which is thus the probability.

    Shape: (..., N), (..., N) scores -> (...)
    Raises: InputError for other labels.
    """
    scores, (labels, known) = ops.cast(y_pred, "float32"), between_0_and_1(y_true)
    return nan_unless(known, two_sided(scores - logarithm(labels), scores + logarithm(1 - labels)))


def between_0_and_1(labels):
    """Labels as they are, and which rows have none but those from 0 to 1.

    Shape: (..., N) -> (..., N) float32, (...) bool
    Raises: InputError for others, where they can be looked at.
    """
    found = at_hand(labels)
    if found is not None and found.size and not (found.min() >= 0 and found.max() <= 1):
        raise InputError(f"labels from {found.min():g} to {found.max():g}; expected 0 to 1")
    labels = ops.cast(labels, "float32")
    return labels, ops.all(ops.logical_and(labels >= 0, labels <= 1), axis=-1)


def two_sided(right, wrong):
    """Shape: (..., N), (..., N) -> (...): log(1 + sum e^wrong) + log(1 + sum e^-right)"""
    return ops.softplus(ops.logsumexp(wrong, axis=-1)) + ops.softplus(ops.logsumexp(-right, axis=-1))


def logarithm(x):
    """log x, and a large negative number instead of that of 0. Shape: any -> the same"""
    return ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), LEAST)


@serializable
def sparse_multilabel_categorical_crossentropy(y_true, y_pred, mask_zero=False):
    """`multilabel_categorical_crossentropy` of the indices of the right labels. With `mask_zero`, index 0 pads, and
    the score of label 0 does not count. Indices may repeat.

    Shape: (..., K) indices, (..., N) scores -> (...)
    Raises: InputError for an index below 0, and for N or more.
    """
    scores = ops.cast(y_pred, "float32")
    check_numbers(y_true, scores.shape[-1], "label")
    leading, size = ops.shape(scores)[:-1], ops.shape(scores)[-1]
    flat = ops.reshape(scores, (-1, size))
    indices = ops.reshape(ops.cast(y_true, "int32"), (-1, ops.shape(y_true)[-1]))
    known = inside(indices, size)
    indices = ops.where(known, indices, 0)
    rows = ops.broadcast_to(ops.arange(ops.shape(flat)[0], dtype="int32")[:, None], ops.shape(indices))
    marks = ops.reshape(ops.stack([rows, indices], axis=-1), (-1, 2))
    ones = ops.ones_like(marks[:, 0], dtype="float32")
    right = ops.scatter_update(ops.zeros_like(flat), marks, ones) > 0
    counts = ops.arange(size, dtype="int32") >= int(mask_zero)
    wrong = ops.where(ops.logical_and(counts, ops.logical_not(right)), flat, LEAST)
    loss = two_sided(ops.where(ops.logical_and(counts, right), flat, -LEAST), wrong)
    return ops.reshape(nan_unless(ops.all(known, axis=-1), loss), leading)


@serializable
def global_pointer_crossentropy(y_true, y_pred):
    """The multi-label cross-entropy of a `GlobalPointer`, over all pairs of places, summed over the heads.

    Shape: (B, heads, T, T) of 0 and 1, (B, heads, T, T) scores -> (B,)
    """
    batch, heads, length = ops.shape(y_pred)[:3]
    shape = (batch, heads, length * length)
    return ops.sum(multilabel_categorical_crossentropy(ops.reshape(y_true, shape), ops.reshape(y_pred, shape)), axis=-1)


@serializable
def sparse_global_pointer_crossentropy(y_true, y_pred):
    """The same of the right pairs (start, end); pairs (0, 0) pad (GPLinker: Su, kexue.fm/archives/8888).

    Shape: (B, heads, K, 2) pairs, (B, heads, T, T) scores -> (B,)
    Raises: InputError for labels of another shape, and for a place of T or more, or below 0.
    """
    if len(y_true.shape) != 4 or y_true.shape[-1] != 2:
        raise InputError(f"labels {tuple(y_true.shape)}; expected pairs (B, heads, K, 2), padded with (0, 0)")
    check_numbers(y_true, y_pred.shape[-1], "a pair has the place")
    batch, heads, length = ops.shape(y_pred)[:3]
    pairs = ops.cast(y_true, "int32")
    scores = ops.reshape(y_pred, (batch, heads, length * length))
    both = ops.all(inside(pairs, length), axis=-1)  # or the pair (0, T) would be (1, 0)
    places = ops.where(both, pairs[..., 0] * length + pairs[..., 1], -1)
    loss = sparse_multilabel_categorical_crossentropy(places, scores, mask_zero=True)
    return ops.sum(loss, axis=-1)


@serializable
def binary_focal_crossentropy(y_true, y_pred, gamma=2.0, alpha=None):
    """Binary cross-entropy of logits times (1 - p)^gamma, p the probability of what is right, so that what is easy
    counts less; `alpha` weighs the ones, 1 - alpha the zeros (Lin et al. 2017, arXiv 1708.02002).

    Shape: (..., N) of 0 and 1, (..., N) logits -> (...)
    Raises: InputError for other labels.
    """
    logits = ops.cast(y_pred, "float32")
    labels, known = between_0_and_1(y_true)
    positive = labels > 0.5
    margin = ops.where(positive, logits, -logits)
    loss = ops.softplus(-margin) * ops.exp(-gamma * ops.softplus(margin))
    if alpha is not None:
        loss = loss * ops.where(positive, alpha, 1 - alpha)
    return nan_unless(known, ops.mean(loss, axis=-1))


@serializable
def sparse_categorical_focal_crossentropy(y_true, y_pred, gamma=2.0):
    """The focal loss of a softmax over labels.

    Shape: (...) or (..., 1) labels, (..., N) logits -> (...)
    Raises: InputError for a label below 0, and for N or more.
    """
    logits = ops.cast(y_pred, "float32")
    check_numbers(y_true, logits.shape[-1], "label")
    labels = ops.cast(ops.reshape(y_true, ops.shape(logits)[:-1]), "int32")
    known = inside(labels, ops.shape(logits)[-1])
    labels = ops.where(known, labels, 0)
    ours = ops.arange(ops.shape(logits)[-1], dtype="int32") == labels[..., None]
    ahead = logits - ops.take_along_axis(logits, labels[..., None], axis=-1)
    margin = -ops.logsumexp(ops.where(ours, LEAST, ahead), axis=-1)  # of a choice between the label and all others
    return nan_unless(known, ops.softplus(-margin) * ops.exp(-gamma * ops.softplus(margin)))


def binary_divergence(outputs, others, axis=-1):
    """How far other yes-or-no answers are from these, whose log-odds are twice the scores: the Kullback-Leibler
    divergence, summed over `axis`, in the mean over the rest.

    Shape: two of (...) scores -> ()
    """
    ours, theirs = (2 * ops.cast(scores, "float32") for scores in (outputs, others))
    both = ops.sigmoid(ours) * (ours - theirs) + ops.softplus(theirs) - ops.softplus(ours)
    return ops.mean(ops.sum(both, axis=axis))
