"""Triples by global pointers: all spans and links of a text at once."""

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError
from bert4x.tasks.given import check_counts, states_of
from bert4x.tasks.triples import Found, TripleTask

PARTS = "entities", "first tokens linked", "last tokens linked"  # what the three outputs score
CANDIDATES = 128  # subjects, and objects, of a text at most: the likeliest
# What all scores begin near: the loss of a text then begins with that of the labels, and not with that of its thousands
# of other pairs (64^2 e^-8 is about 1), which would take most of a short training to bring down.
BEGIN = -8.0
SCORES = 1 << 25  # numbers of an output that are brought over at once


class GPLinker(TripleTask):
    """Su, kexue.fm/archives/8888: a pointer to the spans that are subjects or objects, one from the first token of a
    subject to that of its object for each predicate, and one from last token to last token. A triple is where all three
    agree: its score is above 0. Overlapping, nested and many triples need no care.

    Memory: about 8 * P * maxlen^2 bytes for each text of a batch, and several times that in training.

    Args:
        head_size: of the pointers' queries and keys.
    Raises: ConfigError for a head_size that is odd.
    """

    name = "gplinker"
    settings = ("schema", "head_size")

    def __init__(self, backbone, schema, maxlen: int = 128, head_size: int = 64):
        check_counts(head_size=head_size)
        if head_size % 2:
            raise ConfigError(f"head_size = {head_size!r}; expected an even number, 64 for instance")
        super().__init__(backbone, schema, maxlen, head_size=head_size)

    def build(self):
        h, count = states_of(self.backbone), len(self.predicates)

        def pointer(part, heads, **options):
            name = f"Triple-{part}"
            layer = L.EfficientGlobalPointer(heads, self.head_size, name=name, dtype="float32", **options)
            scores = layer(h)
            layer.q_dense.bias.assign(np.full(2 * heads, BEGIN, "float32"))
            return scores

        anywhere = {"RoPE": False, "tril_mask": False}
        outputs = [pointer("Entities", 2), pointer("Heads", count, **anywhere), pointer("Tails", count, **anywhere)]
        return L.Model(self.backbone.inputs, outputs)

    def batch(self, examples, length, draw=None):
        """Shape: token and segment ids (B, T); pairs of places (B, 2, K, 2), twice (B, P, K, 2), filled up with (0, 0),
        K a power of 2"""
        pairs = [self.pairs(example) for example in examples]
        labels = []
        for part, heads in enumerate((2, len(self.predicates), len(self.predicates))):
            most = max((len(found) for each in pairs for found in each[part].values()), default=1)
            array = np.zeros((len(examples), heads, 1 << (most - 1).bit_length(), 2), "int32")
            for row, each in enumerate(pairs):
                for head, found in each[part].items():
                    array[row, head, : len(found)] = sorted(found)
            labels.append(array)
        return self.inputs([example.token_ids for example in examples], length), tuple(labels)

    @staticmethod
    def pairs(example) -> tuple[dict[int, set], ...]:
        """Of entities, heads and tails: head of the pointer -> its pairs."""
        found: tuple[dict[int, set], ...] = ({}, {}, {})
        for subject, predicate, object in example.triples:
            found[0].setdefault(0, set()).add(subject)
            found[0].setdefault(1, set()).add(object)
            for end in (0, 1):
                found[1 + end].setdefault(predicate, set()).add((subject[end], object[end]))
        return found

    def loss(self, outputs, targets):
        """The sum of the three multi-label cross-entropies, each a mean over texts and a sum over heads."""
        from bert4x.training.losses import sparse_global_pointer_crossentropy

        each = zip(targets, outputs, strict=True)
        return sum(L.ops.mean(sparse_global_pointer_crossentropy(pairs, scores)) for pairs, scores in each)

    def divergence(self, outputs, others):
        """The Kullback-Leibler divergences of all pairs, summed, as a mean over texts."""
        total = 0.0
        for scores, other in zip(outputs, others, strict=True):
            both = [(-L.ops.softplus(-x), -L.ops.softplus(x)) for x in (scores, other)]
            each = sum(L.ops.exp(ours) * (ours - theirs) for ours, theirs in zip(*both, strict=True))
            total += L.ops.mean(L.ops.sum(each, axis=(1, 2, 3)))
        return total

    def find(self, pieces):
        arrays = self.inputs([piece.token_ids for piece in pieces])
        rows = max(1, SCORES // (len(self.predicates) * arrays[0].shape[1] ** 2))
        found: list[list[Found]] = []
        for start in range(0, len(pieces), rows):
            outputs = self.predict(self.model, [array[start : start + rows] for array in arrays])
            for piece, *scores in zip(pieces[start : start + rows], *outputs, strict=True):
                for part, each in zip(PARTS, scores, strict=True):
                    self.note(part, each[:, : piece.length, : piece.length].reshape(-1, 1))
                found.append(decode(*scores, piece.written))
        return found

    def lacking(self):
        highest = ", ".join(f"{self.highest[part][0]:.2f} ({part})" for part in PARTS if part in self.highest)
        return f"the highest scores of pairs of tokens are {highest}; all three parts must agree on one above 0"


def decode(entities: np.ndarray, heads: np.ndarray, tails: np.ndarray, allowed: np.ndarray) -> list[Found]:
    """Triples of one text: every subject and object, and the predicates that link both their first and last tokens.

    Shape: (2, T, T), (P, T, T), (P, T, T) scores, (N,) bool: which of the first N tokens may begin or end anything
    """
    (s, s_score), (o, o_score) = (best_pairs(scores, allowed) for scores in entities)
    if not len(s) or not len(o):
        return []
    first, last = (scores[:, s[:, None, e], o[None, :, e]] for scores, e in ((heads, 0), (tails, 1)))
    least = np.minimum(np.minimum(first, last), np.minimum(s_score[:, None], o_score[None, :]))
    found = np.argwhere(least > 0)
    sure = 1 / (1 + np.exp(-2 * least[tuple(found.T)]))  # the probability that a score means, by kexue.fm/archives/9064
    pairs = zip(found.tolist(), sure.tolist(), strict=True)
    return [Found(tuple(s[i].tolist()), p, tuple(o[j].tolist()), score) for (p, i, j), score in pairs]


def best_pairs(scores: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (start, end) of allowed places that score above 0, at most `CANDIDATES`, and their scores.

    Shape: (T, T), (N,) -> (K, 2), (K,)
    """
    scores = scores[: len(allowed), : len(allowed)]
    pairs = np.argwhere((scores > 0) & allowed[:, None] & allowed[None, :])
    own = scores[pairs[:, 0], pairs[:, 1]]
    if len(pairs) > CANDIDATES:
        best = np.sort(np.argsort(-own, kind="stable")[:CANDIDATES])
        pairs, own = pairs[best], own[best]
    return pairs, own
