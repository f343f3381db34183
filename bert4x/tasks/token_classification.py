"""Entities in a text: where they are, and of what kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x import layers as L
from bert4x.checkpoints.task_file import OF_METHODS
from bert4x.errors import ConfigError, DataError, nearest
from bert4x.layers.transitions import PADDED, chain_potentials, memm_potentials
from bert4x.metrics.spans import count
from bert4x.tasks.given import INTEGER, check_items, check_keys, is_number, label_list, states_of
from bert4x.tasks.tagging import Bio, Grouped, independent
from bert4x.tasks.task import Task
from bert4x.tasks.text import Piece, as_texts, batches_by_length, check_texts, encode_pieces
from bert4x.training.report import watched

TAGGERS = ("softmax", "crf", "memm", "bi-memm")
POINTERS = {"global-pointer": "GlobalPointer", "efficient-global-pointer": "EfficientGlobalPointer"}  # layers
METHODS = (*TAGGERS, *POINTERS)


@dataclass(frozen=True)
class Entity:
    """A stretch of a text, `text[start:end]`, its label, and how likely it is."""

    label: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Example:
    """A piece of a text, with its entities as (label, first token, last token), and with a tagger their tags."""

    piece: Piece
    spans: tuple[tuple[str, int, int], ...] = ()
    tags: np.ndarray | None = None

    @property
    def length(self) -> int:
        return self.piece.length


class TokenClassification(Task):
    """Entity recognition. The `method` is one of

    - "softmax": each token's BIO tag on its own;
    - "crf": the tags of a text together, by a conditional random field (Lafferty et al. 2001);
    - "memm", "bi-memm": each tag given the one before it, or the ones on both sides (kexue.fm/archives/7213);
    - "global-pointer", "efficient-global-pointer": each pair of a start and an end on its own, so entities may overlap
      (kexue.fm/archives/8373, 8877).

    Rows are `{"text": str, "entities": [(label, start, end), ...]}`, in characters, as `readers.read_bio` gives them;
    a label that is no str is taken for `str(label)`, and white space at the ends of an entity does not count.
    Texts of more than `maxlen` tokens are cut at sentence ends, in training as well. Tags are found such that they
    spell entities: there is no I- without what it goes on with.

    Args:
        labels: of entities, without B- and I-.
        lr_multiplier: how much faster than the rest the transitions between tags learn, where there are some (100).
        head_size: of a pointer's queries and keys (64).
        tags: of the method "softmax", those of a BertForTokenClassification, whatever their scheme. Neighbours of one
            label are then one entity, as in transformers' pipeline, and `labels` are those of the tags.
    Raises: ConfigError for another method, labels that are none, and a setting that the method does not have.
    """

    name = "token-classification"
    best = "f1"
    settings = ("labels", "method", "dropout", "lr_multiplier", "head_size", "tags")

    def __init__(
        self,
        backbone,
        labels: Sequence[str] | None = None,
        method: str = "crf",
        dropout: float = 0.1,
        lr_multiplier: float | None = None,
        head_size: int | None = None,
        maxlen: int = 128,
        tags: Sequence[str] | None = None,
    ):
        grouped = None if tags is None else Grouped(label_list(tags, "tags"))
        if grouped and (method != "softmax" or len(grouped.numbers) < len(grouped.tags)):
            raise ConfigError(f"tags {grouped.tags} of method {method!r}; expected 'softmax', and each of them once")
        if labels is None:
            labels = grouped.entity_labels if grouped else []
        labels = label_list(labels)
        if grouped and labels != grouped.entity_labels:
            raise ConfigError(f"labels {labels} of tags {grouped.tags}; expected {grouped.entity_labels}")
        if any(label.startswith("B-") and f"I-{label[2:]}" in labels for label in labels):
            raise ConfigError(f"labels {labels} are tags; give the labels of entities, without B-, I- and O")
        if not labels or len(set(labels)) < len(labels):
            raise ConfigError(f"labels {labels}; expected at least one, and each of them once")
        if method not in METHODS:
            raise ConfigError(f"no method {method!r}; {nearest(str(method), METHODS)}")
        lr_multiplier = used("lr_multiplier", lr_multiplier, 100.0, method)
        head_size = used("head_size", head_size, 64, method)
        self.bio = None if method in POINTERS else grouped or Bio(labels)
        super().__init__(
            backbone, maxlen, labels=labels, method=method, dropout=dropout, lr_multiplier=lr_multiplier,
            head_size=head_size, tags=grouped and grouped.tags,
        )  # fmt: skip

    def build(self):
        inputs, h = self.backbone.inputs, states_of(self.backbone)
        h = L.Dropout(self.dropout, name="Entity-Dropout", dtype="float32")(h)
        specials = {self.pad_id, self.tokenizer.start_id, self.tokenizer.end_id} - {None}
        written = L.WrittenTokens(sorted(specials), name="Entity-Tokens", dtype="float32")(inputs[0])
        options = {"name": "Entity-Pointer", "dtype": "float32"}
        if self.method in POINTERS:
            pointer = getattr(L, POINTERS[self.method])(len(self.labels), self.head_size, **options)
            return L.Model(inputs, pointer(h, mask=written))
        start = L.initializer(0.02)
        scores = L.Dense(len(self.bio.tags), kernel_initializer=start, name="Entity-Tags", dtype="float32")(h)
        options = {"lr_multiplier": self.lr_multiplier, "name": "Entity-Transitions", "dtype": "float32"}
        if self.method == "crf":
            self.transitions = L.ConditionalRandomField(**options)
        else:
            self.transitions = L.MaximumEntropyMarkovModel(bidirectional=self.method == "bi-memm", **options)
        return L.Model(inputs, scores if self.method == "softmax" else self.transitions(scores, mask=written))

    def adopt(self, exported):
        graph = exported.graphs["model"]
        if "transitions" in graph.outputs:
            ids = np.array([[self.tokenizer.start_id or 0, self.tokenizer.end_id or 0]])
            self.trans = graph(self.model_inputs(ids, np.zeros_like(ids)))["transitions"]
        return lambda arrays: graph(arrays)["scores"]

    def check(self, rows):
        check_keys(rows, "text", "entities")
        check_items(rows, "entities", "(label, start, end)", object, INTEGER, INTEGER)
        for number, row in enumerate(rows):
            check_texts([row["text"]], number)

    def prepare(self, rows):
        examples = []
        self.check(rows)
        for row in rows:
            pieces, found = encode_pieces(self.tokenizer, row["text"], self.maxlen), 0
            entities = self.entities(row, pieces)
            for piece in pieces:
                places = [(label, piece.tokens(start, end)) for label, start, end in entities]
                spans = [(label, *tokens) for label, tokens in places if tokens]
                found += len(spans)
                tags = None
                if self.bio:
                    tags, left_out = self.bio.encode(spans, piece.length)
                    tags[~self.tagged(piece)] = -1
                    self.skipped["entities that overlap with others"] += left_out
                examples.append(Example(piece, tuple(spans), tags))
            self.skipped["entities that do not begin and end with tokens of one piece"] += len(entities) - found
        self.skipped = +self.skipped
        return examples

    def entities(self, row, pieces: Sequence[Piece] | None = None) -> list[tuple[str, int, int]]:
        """The entities of a row as training and scores take them, the long ones first: the label as a str, and the
        characters from the first token to the last, without white space at either end.

        Args:
            pieces: of the row's text, where they are at hand.
        Raises: DataError for what is none.
        """
        for label, start, end in row["entities"]:
            if str(label) not in self.labels:
                raise DataError(f"label {label!r} in {row['text'][:30]!r}; {nearest(str(label), self.labels)}")
            if not 0 <= start < end <= len(row["text"]):
                raise DataError(f"entity {(label, start, end)} of a text of {len(row['text'])}: {row['text'][:30]!r}")
        if pieces is None:
            pieces = encode_pieces(self.tokenizer, row["text"], self.maxlen) if row["entities"] else []
        found = {(str(label), *exact(pieces, start, end)) for label, start, end in row["entities"]}
        return sorted(found, key=lambda e: (e[1] - e[2], e[1], e[0]))

    def batch(self, examples, length, draw=None):
        inputs = self.inputs([example.piece for example in examples], length)
        if self.bio:
            return inputs, (self.padded([example.tags for example in examples], length, -1),)
        most = max([1, *(len(example.spans) for example in examples)])
        pairs = np.zeros((len(examples), len(self.labels), 1 << max(2, (most - 1).bit_length()), 2), "int32")
        for row, example in zip(pairs, examples, strict=True):
            for i, (label, first, last) in enumerate(example.spans):
                row[self.labels.index(label), i] = first, last
        return inputs, (pairs,)

    def inputs(self, pieces: Sequence[Piece], length: int | None = None) -> list[np.ndarray]:
        """What the model takes.

        Shape: -> 1 or 2 x (B, T)
        """
        ids = self.padded([piece.token_ids for piece in pieces], length, self.pad_id)
        return self.model_inputs(ids, np.zeros_like(ids))

    def loss(self, outputs, targets):
        from bert4x.training.losses import masked_crossentropy, sparse_global_pointer_crossentropy

        losses = {"softmax": masked_crossentropy} | dict.fromkeys(POINTERS, sparse_global_pointer_crossentropy)
        loss = losses.get(self.method) or self.transitions.sparse_loss
        return L.ops.mean(loss(targets[0], outputs))

    def divergence(self, outputs, others):
        """Of pointers, that of whether each pair is an entity, in the mean for a start."""
        if self.bio:
            return super().divergence(outputs, others)
        from bert4x.training.losses import binary_divergence

        return binary_divergence(outputs, others, axis=(1, 3))

    def find(
        self, pieces: Sequence[Piece], outputs: Sequence[np.ndarray], scored: bool = True
    ) -> list[list[tuple[tuple, float]]]:
        """The spans of some pieces, (label, first token, last token), by the model's output for each, and how likely
        they are.

        Shape: (T, tags) for each piece, or of pointers (labels, T, T)
        """
        if not self.bio:
            return [self.pointed(scores) for scores in outputs]
        found: list = [[] for _ in pieces]
        kept = [
            np.flatnonzero(self.tagged(piece) & (scores[: piece.length].max(-1) > PADDED / 10))
            for piece, scores in zip(pieces, outputs, strict=True)
        ]
        some = [n for n, places in enumerate(kept) if len(places)]
        if not some:
            return found
        decoded = self.bio.decode_all(self.potentials([outputs[n][kept[n]] for n in some]), scored)
        for n, spans in zip(some, decoded, strict=True):
            found[n] = [((label, kept[n][first], kept[n][last]), score) for (label, first, last), score in spans]
        return found

    def pointed(self, scores: np.ndarray) -> list[tuple[tuple, float]]:
        """The spans with a score above 0. Shape: (labels, T, T)"""
        found = [(int(n), int(i), int(j)) for n, i, j in np.argwhere(scores > 0)]
        # What is the optimum of the loss with soft labels: kexue.fm/archives/9064
        return [((self.labels[n], i, j), float(1 / (1 + np.exp(-2.0 * scores[n, i, j])))) for n, i, j in found]

    def tagged(self, piece: Piece) -> np.ndarray:
        """Which tokens have a tag: those that stand in the text; with `tags` all but the special ones, as in
        transformers, so also a space of byte-level tokens, which may have no characters.

        Shape: (T,) bool
        """
        if self.tags is None:
            return piece.written
        tagged = np.ones(piece.length, bool)
        tagged[: int(self.tokenizer.start_id is not None)] = False
        tagged[piece.length - int(self.tokenizer.end_id is not None) :] = False
        return tagged

    def potentials(self, several: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """What `Bio.decode` takes of the scores of each text. Shape: (T, tags) each"""
        several = [scores.astype("float64") for scores in several]
        if self.method == "softmax":
            return [independent(scores) for scores in several]
        trans = self.trans if self.exported else L.ops.convert_to_numpy(self.transitions.trans)
        if self.method == "crf":
            return [chain_potentials(scores, trans) for scores in several]
        return [memm_potentials(scores, trans, self.method == "bi-memm") for scores in several]

    def recognize(self, texts: Sequence[str], batch_size: int = 32, scored: bool = True) -> list[list[Entity]]:
        """The entities of each text, in order of their places."""
        pieces = [
            (i, piece) for i, text in enumerate(texts) for piece in encode_pieces(self.tokenizer, text, self.maxlen)
        ]
        entities: list[list[Entity]] = [[] for _ in texts]
        for chosen in batches_by_length([piece.length for _, piece in pieces], batch_size):
            rows = [pieces[n] for n in chosen]
            outputs = self.predict(self.model, self.inputs([piece for _, piece in rows]))
            found = self.find([piece for _, piece in rows], outputs, scored)
            for (i, piece), spans in zip(rows, found, strict=True):
                for (label, first, last), score in spans:
                    start, end = piece.characters(first, last)
                    entities[i].append(Entity(label, start, end, texts[i][start:end], score))
        return [sorted(found, key=lambda e: (e.start, e.end)) for found in entities]

    @watched
    def evaluate(self, rows, batch_size=32):
        """Precision, recall and F1 of entities in all texts together, by label, start and end, as seqeval counts."""
        self.check(rows)
        found = self.recognize([row["text"] for row in rows], batch_size, scored=False)
        counts = count(
            [[(e.label, e.start, e.end) for e in entities] for entities in found],
            [self.entities(row) for row in rows],
        )
        return {"f1": counts.f1, "precision": counts.precision, "recall": counts.recall}

    def __call__(self, texts, batch_size=32):
        """The list of each `Entity` in a text, or such a list for each text of a list."""
        one, texts = as_texts(texts)
        found = self.recognize(texts, batch_size)
        return found[0] if one else found


def used(name: str, value: float | None, default: float, method: str) -> float | None:
    """A setting of some methods. Raises: ConfigError where it is given to another one, and for what is no number."""
    if method not in OF_METHODS[name] and value is not None:
        raise ConfigError(f"{name} = {value!r} is for methods {', '.join(OF_METHODS[name])}, not for {method!r}")
    value = default if value is None else value
    if not is_number(value) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} = {value!r}; expected a number above 0")
    return value if method in OF_METHODS[name] else None


def exact(pieces: Sequence[Piece], start: int, end: int) -> tuple[int, int]:
    """The characters of the tokens that begin and end just there, white space aside; as given where none do."""
    for piece in pieces:
        if tokens := piece.tokens(start, end):
            return piece.characters(*tokens)
    return start, end
