"""Losses of sentence vectors. Each is a scalar in float32, of vectors of any length: what counts is their cosine."""

from bert4x import layers as L

SCALE = 20.0  # of cosines, as sentence-transformers has it: 1 / temperature
NEVER = 1e9


def unit(vectors):
    """The vectors at length 1, in float32. Shape: (B, D)"""
    vectors = L.ops.cast(vectors, "float32")
    return vectors / L.ops.sqrt(L.ops.maximum(L.ops.sum(L.ops.square(vectors), axis=-1, keepdims=True), 1e-24))


def cosent(first, second, grades, scale: float = SCALE):
    """log(1 + the sum, over all two pairs of which the first has the lower grade, of exp(scale (cos_1 - cos_2))).

    Only the order of the grades counts. Source: kexue.fm/archives/8847.
    Shape: (B, D), (B, D), (B,)
    """
    scores = scale * L.ops.sum(unit(first) * unit(second), axis=-1)
    grades = L.ops.cast(grades, "float32")
    lower = L.ops.cast(grades[:, None] < grades[None, :], "float32")
    differences = scores[:, None] - scores[None, :] - (1 - lower) * NEVER
    return L.ops.logsumexp(L.ops.concatenate([L.ops.zeros((1,)), L.ops.reshape(differences, (-1,))]))


def infonce(anchors, candidates, names=None, scale: float = SCALE):
    """The cross-entropy of finding, for each anchor, its own candidate: number i of the first B. All others of the
    batch are wrong answers, and so are the candidates after the first B, which were looked for as such; but none that
    is known to be right.

    Source: Henderson et al. 2017 (arXiv 1705.00652, section 4.4); van den Oord et al. 2018 (arXiv 1807.03748).

    Args:
        names: a number, at least 0, for each anchor and each candidate, the same for the same text. By these it is
            known what is not wrong, and does not count: the right answer in another place, the right answer of another
            row with the same anchor, and the anchor's own text.
    Shape: (B, D), (N, D) with N >= B, (B + N,)
    """
    scores = scale * L.ops.matmul(unit(anchors), L.ops.transpose(unit(candidates)))
    rows, columns = L.ops.shape(scores)[0], L.ops.shape(scores)[1]
    right = L.ops.cast(L.ops.arange(rows)[:, None] == L.ops.arange(columns)[None, :], "float32")
    if names is not None:
        asked, given = names[:rows], names[rows:]
        asked_for = L.ops.concatenate([asked, -1 - L.ops.zeros_like(given[rows:])])  # the question of each right answer
        pairs = (given[:rows], given), (asked, asked_for), (asked, given)
        known = sum(L.ops.cast(a[:, None] == b[None, :], "float32") for a, b in pairs)
        scores = scores - L.ops.minimum(known, 1) * (1 - right) * NEVER
    return L.ops.mean(L.ops.logsumexp(scores, axis=-1) - L.ops.sum(L.ops.where(right > 0, scores, 0.0), axis=-1))


def distance(vectors, teachers):
    """The mean squared difference from a teacher's vectors (Reimers and Gurevych 2020, arXiv 2004.09813).

    Shape: (B, D), (B, D)
    """
    return L.ops.mean(L.ops.square(L.ops.cast(vectors, "float32") - L.ops.cast(teachers, "float32")))


def matryoshka(loss, sizes):
    """A loss of vectors as the sum of it over their beginnings (Kusupati et al. 2022, arXiv 2205.13147): those of
    so many numbers, and all.

    Args:
        loss: a function of one array of vectors.
    """

    def summed(vectors):
        return sum(loss(vectors[:, :size]) for size in dict.fromkeys([*sizes, vectors.shape[-1]]))

    return summed


def of_grades(vectors, targets, scale):
    """CoSENT of the first half of the vectors with the second."""
    rows = L.ops.shape(vectors)[0]
    return cosent(vectors[: rows // 2], vectors[rows // 2 :], targets, scale)


def of_answers(vectors, targets, scale):
    """InfoNCE of the first vectors with the others; targets are the names of all texts. Shape: (C B, D), (B, C)"""
    anchors = L.ops.shape(targets)[0]
    return infonce(vectors[:anchors], vectors[anchors:], L.ops.reshape(L.ops.transpose(targets), (-1,)), scale)


def of_vectors(vectors, targets, scale):
    """The distance from a teacher's vectors, or their beginnings."""
    return distance(vectors, targets[:, : vectors.shape[-1]])


# By the kind of rows (`bert4x.tasks.compared`): of vectors (N, D) and targets.
LOSSES = {"grades": of_grades, "answers": of_answers, "single texts": of_answers, "vectors": of_vectors}
