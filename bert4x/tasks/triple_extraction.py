"""Triples by half pointers and half tags: first the subjects, then for each the objects by predicate."""

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError
from bert4x.tasks.given import check_shares, states_of
from bert4x.tasks.text import Piece
from bert4x.tasks.triples import Found, TripleTask

POWERS = 2, 4  # of the probabilities of subjects and objects: most places are neither, and start lower so
BEGIN = -1.5  # of the scores: with these powers .03 and .001, about the shares of tokens that are a start or an end
# Learning rate of the pointers. At that of the model, 1e-4 say, a score cannot rise from BEGIN to the threshold within
# a few hundred updates where the states that it is made of are small (the last norm of multilingual-e5-small multiplies
# by about 0.2) or nearly the same for all tokens.
LEAST_HEAD_RATE = 3e-3
SUBJECTS = 64  # whose objects are looked for at once


class TripleExtraction(TripleTask):
    """A cascade of pointers with tags for predicates (Su, kexue.fm/archives/6671 and 7161; Wei et al. 2020, arXiv
    1909.03227, have the same idea).

    A sigmoid for the start and one for the end of subjects, at every token, squared. Then, for one subject, a
    conditional layer normalisation of what comes before the model's last norm, by the states of that at the subject's
    start and end; and on it two sigmoids for every predicate, to the fourth power, for the start and end of objects.

    Training draws one start of a subject and independently one end: for pairs that are no subject nothing is to be
    found, by which it learns to mend errors of the first stage. In a text that states nothing, any pair is drawn.

    Args:
        start_threshold, end_threshold: a probability above it is a start, or an end.
    Raises: ConfigError for a threshold that is no probability.
    """

    name = "triple-extraction"
    settings = ("schema", "start_threshold", "end_threshold")
    least_head_rate = LEAST_HEAD_RATE

    def __init__(self, backbone, schema, maxlen: int = 128, start_threshold: float = 0.6, end_threshold: float = 0.5):
        check_shares(start_threshold=start_threshold, end_threshold=end_threshold)
        super().__init__(backbone, schema, maxlen, start_threshold=start_threshold, end_threshold=end_threshold)

    def build(self):
        from keras.initializers import Constant

        def scores(units, name):
            start, bias = L.initializer(self.config.initializer_range), Constant(BEGIN)
            return L.Dense(units, kernel_initializer=start, bias_initializer=bias, name=name, dtype="float32")

        hidden, ours = states_of(self.backbone), {"dtype": "float32"}
        states = L.Activation("linear", name="Triple-States", **ours)(before_last_norm(self.backbone))
        subject = scores(2, "Triple-Subject")(hidden)
        at_ends = L.SpanStates(name="Triple-Subject-States", **ours)
        norm = L.LayerNorm(self.config.layer_norm_eps, conditional=True, name="Triple-Object-Norm", **ours)
        tag = scores(2 * len(self.predicates), "Triple-Object")
        by_predicate = L.Reshape((-1, len(self.predicates), 2), name="Triple-Object-Scores", **ours)
        by_predicate.supports_masking = True

        def objects(states, span):
            return by_predicate(tag(norm(states, at_ends(states, span))))

        span = L.Input((2,), dtype="int32", name="Input-Subject")
        self.encoder = L.Model(self.backbone.inputs, [subject, states])
        given = L.Input((None, self.config.hidden_size), name="Input-States")
        self.objects = L.Model([given, span], objects(given, span))
        return L.Model([*self.backbone.inputs, span], [subject, objects(states, span)])

    def to_export(self):
        return L.Model(self.model.inputs, [*self.model.outputs, self.encoder.outputs[1]])

    def parts_to_export(self):
        return {"objects": (self.objects, ("object_scores",))}

    def adopt(self, exported):
        model, objects = exported.graphs["model"], exported.graphs["objects"]

        def encoder(arrays):
            found = model([*arrays, np.zeros((len(arrays[0]), 2), "int32")])  # whose objects these are is not asked yet
            return [found["subject_scores"], found["states"]]

        self.encoder, self.objects = encoder, objects.listed
        return model.listed

    def batch(self, examples, length, draw):
        """Shape: token and segment ids (B, T), subjects (B, 2); their labels (B, T, 2), those of objects (B, T, P, 2),
        which tokens are real (B, T)"""
        size = len(examples)
        spans, mask = np.zeros((size, 2), "int32"), np.zeros((size, length), "int8")
        subjects = np.zeros((size, length, 2), "int8")
        objects = np.zeros((size, length, len(self.predicates), 2), "int8")
        for row, example in enumerate(examples):
            mask[row, : example.length] = 1
            own = np.array(list(dict.fromkeys(triple.subject for triple in example.triples)), "int32").reshape(-1, 2)
            subjects[row, own[:, 0], 0] = subjects[row, own[:, 1], 1] = 1
            if len(own):
                first = draw.choice(own[:, 0])
                spans[row] = first, draw.choice(own[own[:, 1] >= first, 1])
            else:
                spans[row] = np.sort(draw.choice(self.inner(range(example.length)), 2))
            for subject, predicate, (start, end) in example.triples:
                if subject == tuple(spans[row]):
                    objects[row, start, predicate, 0] = objects[row, end, predicate, 1] = 1
        return [*self.inputs([e.token_ids for e in examples], length), spans], (subjects, objects, mask)

    def loss(self, outputs, targets):
        """The mean over tokens of the cross-entropies of starts and ends, of objects summed over predicates."""
        subject, object = (
            L.ops.mean(powered_crossentropy(labels, scores, power), axis=-1)
            for labels, scores, power in zip(targets, outputs, POWERS, strict=False)
        )
        from bert4x.layers.means import token_mean

        return L.ops.mean(token_mean(subject + L.ops.sum(object, axis=-1), L.ops.cast(targets[2], "bool")))

    def divergence(self, outputs, others):
        """The mean over tokens of the Kullback-Leibler divergences of all starts and ends."""
        total = 0.0
        for scores, other, power in zip(outputs, others, POWERS, strict=True):
            (yes, no), (other_yes, other_no) = log_powers(scores, power), log_powers(other, power)
            each = L.ops.exp(yes) * (yes - other_yes) + L.ops.exp(no) * (no - other_no)
            total += L.ops.sum(each) / L.ops.cast(L.ops.prod(L.ops.shape(scores)[:2]), "float32")
        return total

    def find(self, pieces):
        scores, states = self.predict(self.encoder, self.inputs([piece.token_ids for piece in pieces]))
        subjects = []
        for row, (piece, ours) in enumerate(zip(pieces, probabilities(scores, POWERS[0]), strict=True)):
            self.note("subject", ours[: piece.length][piece.written])
            subjects += [(row, span) for span in self.spans(ours[: piece.length], piece)]
        found: list[list[Found]] = [[] for _ in pieces]
        for some in (subjects[i : i + SUBJECTS] for i in range(0, len(subjects), SUBJECTS)):
            rows, spans = [row for row, _ in some], np.array([span[:2] for _, span in some], "int32")
            tags = probabilities(self.predict(self.objects, [states[rows], spans]), POWERS[1])
            for (row, (start, end, score)), ours in zip(some, tags, strict=True):
                found[row] += self.objects_of((start, end), score, ours[: pieces[row].length], pieces[row])
        return found

    def objects_of(self, subject: tuple[int, int], score: float, tags: np.ndarray, piece: Piece) -> list[Found]:
        """The triples of one subject, from the probabilities (T, P, 2)."""
        self.note("object", tags[piece.written].reshape(-1, 2))
        predicates = np.flatnonzero((tags[..., 0] > self.start_threshold).any(axis=0)).tolist()
        return [
            Found(subject, predicate, (start, end), min(score, sure))
            for predicate in predicates
            for start, end, sure in self.spans(tags[:, predicate], piece)
        ]

    def lacking(self):
        what = "object" if "object" in self.highest else "subject"
        start, end = self.highest.get(what, (0, 0))
        return (
            f"of all tokens the likeliest start of {what}s has p = {start:.3f} ({self.start_threshold:g} is needed), "
            f"the likeliest end {end:.3f} ({self.end_threshold:g})"
        )

    def spans(self, tags: np.ndarray, piece: Piece) -> list[tuple[int, int, float]]:
        """From each start to the next end, with the lower of their probabilities (T, 2)."""
        starts = np.flatnonzero((tags[:, 0] > self.start_threshold) & piece.written)
        ends = np.flatnonzero((tags[:, 1] > self.end_threshold) & piece.written)
        pairs = zip(starts.tolist(), np.searchsorted(ends, starts).tolist(), strict=True)
        found = [(start, int(ends[place])) for start, place in pairs if place < len(ends)]
        return [(start, end, float(min(tags[start, 0], tags[end, 1]))) for start, end in found]


def before_last_norm(backbone: "L.Model"):
    """The input of the layer normalisation that a model ends in; its layer may have other inputs too, as in ALBERT.

    Shape: (B, T, D)
    Raises: ConfigError for a model that does not end in one.
    """
    layer, node, _ = backbone.output._keras_history if not isinstance(backbone.output, list) else (None, 0, 0)
    if isinstance(layer, L.Activation) and layer.activation is L.activation("linear"):  # a name for an output, no more
        layer, node, _ = layer._inbound_nodes[node].input_tensors[0]._keras_history
    if not isinstance(layer, L.LayerNorm):
        raise ConfigError(
            "triple extraction needs the states before the model's last layer normalisation, but this model does not "
            "end in one; load it with application='encoder', without heads"
        )
    return layer._inbound_nodes[node].input_tensors[0]


def log_powers(scores, power: int):
    """log(p) and log(1 - p) for p = sigmoid(score)^power, finite and with a slope for any score.

    1 - p is (1 - s)(1 + s + ... + s^(power - 1)) with s = sigmoid(score), so that nothing is subtracted from 1.
    """
    scores = L.ops.cast(scores, "float32")
    s = L.ops.sigmoid(scores)
    others = sum((s**k for k in range(2, power)), 1 + s)
    return -power * L.ops.softplus(-scores), L.ops.log(others) - L.ops.softplus(scores)


def powered_crossentropy(labels, scores, power: int):
    """The binary cross-entropy of p = sigmoid(score)^power.

    bert4keras clips p to 1e-7 and more: below a score of -4, where sigmoid^4 is so small, a label of 1 has no gradient.

    Shape: (...) of 0 and 1, (...) -> (...)
    """
    yes, no = log_powers(scores, power)
    return -L.ops.where(L.ops.cast(labels, "float32") > 0.5, yes, no)


def probabilities(scores: np.ndarray, power: int) -> np.ndarray:
    """sigmoid(score)^power in NumPy. Shape: any -> the same"""
    return np.exp(-power * np.logaddexp(0, -np.asarray(scores, "float32")))
