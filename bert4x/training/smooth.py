"""Scores as losses, and estimates of a large softmax.

Sources: Su, kexue.fm/archives/6620 (accuracy and F1 with probabilities in place of choices) and 5617 (noise contrast).
"""

import keras
from keras import ops

serializable = keras.saving.register_keras_serializable("bert4x")


@serializable
def smooth_accuracy(y_true, y_pred, from_logits: bool = False):
    """One minus the mean probability of the right label.

    Shape: (B, ...) labels, (B, ..., N) -> scalar
    """
    p = ops.softmax(y_pred, axis=-1) if from_logits else y_pred
    right = ops.one_hot(ops.cast(y_true, "int32"), p.shape[-1], dtype=p.dtype)
    return 1 - ops.mean(ops.sum(right * p, axis=-1))


@serializable
def smooth_f1(y_true, y_pred, from_logits: bool = False):
    """One minus F1 of a batch, 2 sum(y p) / (sum(y) + sum(p)), of yes and no; of several classes the mean over those.

    It begins well only near its end: train by cross-entropy first, and go on with this.

    Shape: (B,) or (B, N) of 0 and 1, the same of probabilities -> scalar
    """
    p = ops.sigmoid(y_pred) if from_logits else ops.convert_to_tensor(y_pred)
    y = ops.cast(y_true, p.dtype)
    both, sizes = ops.sum(y * p, axis=0), ops.sum(y, axis=0) + ops.sum(p, axis=0)
    return 1 - ops.mean(2 * both / (sizes + 1e-7))


def nce_loss(scores, noise_scores, log_noise, noise_log_noise):
    """Noise contrast (Gutmann and Hyvärinen 2010): tells what is in the data from k draws of a known distribution, so
    that scores become log-probabilities, without a sum over all there is.

    Args:
        scores: of what is in the data. Shape: (B,)
        noise_scores: of the draws. Shape: (B, k)
        log_noise, noise_log_noise: the logarithms of the noise's probabilities of these. Shape: (B,), (B, k)

    Shape: -> (B,)
    """
    k = ops.log(ops.cast(ops.shape(noise_scores)[-1], scores.dtype))
    data, noise = scores - log_noise - k, noise_scores - noise_log_noise - k
    return ops.softplus(-data) + ops.sum(ops.softplus(noise), axis=-1)


def sampled_softmax_loss(scores, noise_scores, log_noise, noise_log_noise):
    """The cross-entropy of a softmax over the right one and k draws, each score less the logarithm of how likely it was
    drawn (Bengio and Senécal 2008). A draw that is the right one should have a score of minus infinity.

    Shape: (B,), (B, k), (B,), (B, k) -> (B,)
    """
    right = (scores - log_noise)[:, None]
    return ops.logsumexp(ops.concatenate([right, noise_scores - noise_log_noise], axis=-1), axis=-1) - right[:, 0]


def self_orthogonality(outputs, scale: float = 10.0, largest: float = 100.0):
    """How much the features of a layer, over a batch, are like each other (Su, kexue.fm/archives/7169): the sum of the
    squared cosines of tanh(scale Y) between pairs of them, and `largest` times the square of their sum.

    Shape: (B, K) -> scalar
    """
    y = ops.tanh(scale * outputs)
    y = y * ops.rsqrt(ops.sum(ops.square(y), axis=0, keepdims=True) + 1e-12)
    angles = ops.matmul(ops.transpose(y), y)
    off = angles * (1 - ops.eye(y.shape[-1], dtype=y.dtype))
    return largest * ops.square(ops.sum(off)) + ops.sum(ops.square(off))
