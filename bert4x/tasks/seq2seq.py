"""A text from a text (titles, answers, translations) by one encoder that is a UniLM (Dong et al. 2019)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert4x import layers as L
from bert4x.errors import ConfigError, TokenizerError
from bert4x.metrics import bleu, rouge
from bert4x.tasks.given import check_counts, check_fields
from bert4x.tasks.task import Task
from bert4x.tasks.text import as_texts, batches_by_length, check_texts
from bert4x.training.batches import padded_length
from bert4x.training.report import watched


@dataclass(frozen=True)
class Example:
    """A source with its special tokens, and a target that ends in [SEP]."""

    source: list[int]
    target: list[int]

    @property
    def length(self) -> int:
        return len(self.source) + len(self.target)


class Seq2Seq(Task):
    """[CLS] source [SEP] target [SEP], the target in segment 1: the source sees itself, the target also its own past.
    The loss is the mean cross-entropy of the target's tokens, [SEP] among them (arXiv 1905.03197).

    Rows are (source, target). The scores, all between 0 and 1, are of characters, upper and lower case alike.

    Args:
        backbone: of the application "unilm".
        maxlen: tokens of a source; longer ones are cut, when called too, with one warning.
        max_target: tokens of a target; longer ones are cut in training, with a warning too.
        num_beams: of the search, unless a call says otherwise.
    Raises: ConfigError for a model that is no UniLM, and for lengths that do not fit; TokenizerError without [CLS] and
    [SEP].
    """

    name = "seq2seq"
    best = "bleu"  # as in bert4keras' examples
    application = "unilm"
    settings = ("max_target", "num_beams")

    def __init__(self, backbone, max_target: int = 32, num_beams: int = 3, maxlen: int = 128):
        builder = backbone.builder
        if builder.application != "unilm" or builder.bidirectional or not hasattr(builder, "heads"):
            raise ConfigError(
                f"a {backbone.config.model} of application {builder.application!r}; expected a model like BERT, loaded "
                "with application='unilm'"
            )
        check_counts(maxlen=maxlen, max_target=max_target, num_beams=num_beams)
        if not 2 <= max_target <= backbone.config.max_position - maxlen:
            raise ConfigError(
                f"maxlen = {maxlen} and max_target = {max_target}; expected a target of 2 tokens or more, and no more "
                f"than {backbone.config.max_position} in all"
            )
        self.told: set[str] = set()  # of which texts it was said that they are cut
        super().__init__(backbone, maxlen, max_target=max_target, num_beams=num_beams)
        missing = [name for name in ("start_id", "end_id") if getattr(self.tokenizer, name) is None]
        if missing:
            raise TokenizerError(f"the vocabulary has no {' and no '.join(missing)}; expected one with [CLS] and [SEP]")
        t = self.tokenizer
        self.never = [i for i in (t.pad_id, t.unk_id, t.start_id, t.mask_id) if i is not None and i != t.end_id]

    def build(self):
        return predicting_at_places(self.backbone.builder).build().model

    def to_export(self):
        return self.backbone  # what is trained predicts at given places; this does so everywhere

    def check(self, rows):
        check_fields(rows, "(source, target)", 2)
        for number, row in enumerate(rows):
            check_texts(row, number)

    def prepare(self, rows):
        self.check(rows)
        sources = self.sources([source for source, _ in rows])
        targets = self.cut([target for _, target in rows], self.max_target + 1, "targets", self.max_target)
        self.skipped.clear()
        examples = []
        for source, target in zip(sources, targets, strict=True):
            if min(len(source) - 2, len(target) - 2) < 1:
                self.skipped["empty " + ("source" if len(source) < 3 else "target")] += 1
            else:
                examples.append(Example(source, target[1:]))
        return examples

    def sources(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of sources, cut."""
        return self.cut(texts, self.maxlen, "sources", self.maxlen)

    def cut(self, texts: Sequence[str], maxlen: int, what: str, tokens: int) -> list[list[int]]:
        """The ids of texts, cut to `maxlen`; the first time that some are, a warning says so."""
        texts = list(texts)
        encoded = self.tokenizer.encode_batch(texts)[0]
        long = [number for number, ids in enumerate(encoded) if len(ids) > maxlen]
        if long and what not in self.told:
            self.told.add(what)
            warnings.warn(
                f"{len(long)} of {len(encoded)} {what} have more than {tokens} tokens and are cut", stacklevel=4
            )
        for number in long:
            encoded[number] = self.tokenizer.encode(texts[number], maxlen=maxlen)[0]
        return encoded

    def batch(self, examples, length, draw=None):
        """Shape: token and segment ids (B, T), the places from which the target is predicted (B, K), -1 after them;
        its tokens (B, K), -1 after them. K follows from T, so that there are no more shapes than lengths.
        """
        tokens = self.padded([e.source + e.target for e in examples], length, self.pad_id)
        segments = self.padded([[0] * len(e.source) + [1] * len(e.target) for e in examples], length)
        most = min(length, padded_length(self.max_target))
        places = [range(len(e.source) - 1, e.length - 1) for e in examples]
        return [tokens, segments, self.padded(places, most, -1)], (self.padded([e.target for e in examples], most, -1),)

    def packed_model(self):
        return predicting_at_places(self.backbone.builder.over_the_same_layers(packed=True)).build().model

    def parts(self, example):
        segments = [0] * len(example.source) + [1] * len(example.target)
        places = range(len(example.source) - 1, example.length - 1)
        return example.source + example.target, segments, places, example.target

    def loss(self, outputs, targets):
        from bert4x.training.losses import masked_crossentropy

        return L.ops.mean(masked_crossentropy(targets[0], outputs))

    @watched
    def evaluate(self, rows, batch_size=32):
        self.check(rows)
        found = [text.lower() for text in self([source for source, _ in rows], batch_size=batch_size)]
        true = [target.lower() for _, target in rows]
        scores = {name: score.f1 for name, score in rouge(found, true, tokenize="char").items()}
        return scores | {"bleu": bleu(found, true, tokenize="char").score / 100}

    def __call__(self, texts, num_beams: int | None = None, batch_size: int = 32, **options):
        """The target of a source, or of each of a list of them. Options are those of `bert4x.generation`, such as
        `top_p=0.9, num_beams=1` to draw instead; with `num_return_sequences` above 1 there is a list for each source.
        """
        one, texts = as_texts(texts)
        rows = self.sources(texts)
        options = {
            "num_beams": self.num_beams if num_beams is None else num_beams,
            "max_new_tokens": self.max_target, "stop_ids": self.tokenizer.end_id, "suppress_ids": self.never,
        } | options  # fmt: skip
        count = options.get("num_return_sequences", 1)
        found: list = [None] * len(rows)
        for chosen in batches_by_length([len(row) for row in rows], batch_size):
            # A smaller last batch would be compiled anew.
            fill = batch_size - len(chosen) if len(rows) > batch_size else 0
            ids = self.backbone.generate_ids([rows[i] for i in chosen] + [rows[chosen[0]]] * fill, **options)
            said = [self.text(row) for row in ids]
            for number, i in enumerate(chosen):
                group = said[number * count : (number + 1) * count]
                found[i] = group if count > 1 else group[0]
        return found[0] if one else found

    def text(self, ids: np.ndarray) -> str:
        """What new ids say. Shape: (N,)"""
        ids = [int(i) for i in ids]
        end = self.tokenizer.end_id
        return self.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)


def predicting_at_places(builder, with_first: bool = False):
    """A builder over the same layers, whose model also takes places (B, K) and predicts from them only: the vocabulary
    is by far the largest layer. With `with_first` the state of the first token is an output too, before the logits.
    """

    class AtPlaces(type(builder)):
        model_name = builder.model_name  # all that it decodes is the builder's

        def new_inputs(self):
            self.places = L.Input((None,), dtype="int32", name=f"{self.prefix}Input-Places")
            return super().new_inputs() | {"places": self.places}

        def heads(self, h, last=False):
            logits = super().heads(self.layer(L.TakePlaces, "Take-Places")(h, self.places))
            return [self.layer(L.FirstToken, "First-Token")(h), logits] if with_first else logits

    options = {name: getattr(builder, name) for name in builder.options}
    return AtPlaces(builder.config, builder.application, **options)
