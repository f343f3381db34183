"""Answers to questions, found in a passage."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from bert4x import layers as L
from bert4x.errors import DataError, InputError
from bert4x.metrics.reading import score_answers
from bert4x.numpy_ops import log_softmax
from bert4x.tasks.given import INTEGER, check_counts, check_items, check_keys, states_of
from bert4x.tasks.task import Task
from bert4x.tasks.text import Piece, batches_by_length, check_texts, encode_with_offsets
from bert4x.training.report import watched

LEAST_ROOM = 4  # tokens of a passage that every window has, however long the question
STRIDE = 128  # tokens from window to window at most, where none is given
ADVICE = "let windows overlap more, by a smaller stride or a larger maxlen"


@dataclass(frozen=True)
class Answer:
    """A stretch of the passage, `passage[start:end]`, and how likely it is the answer."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Window:
    """A question and a part of its passage, as an input: [CLS] question [SEP] part [SEP], or what the tokenizer makes
    of two texts.

    The part's tokens begin at `first`; `offsets` gives for each the (start, end) of its characters in the passage.
    `answers` are right ones as first and last token of the input; none where the part has none. `numbers` says which
    they are of those that were asked for.
    """

    token_ids: list[int]
    segment_ids: list[int]
    first: int
    offsets: list[tuple[int, int]]
    answers: tuple[tuple[int, int], ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        return len(self.token_ids)


class ReadingComprehension(Task):
    """Extractive question answering: a score of each token as the first, and as the last, of the answer (Devlin et al.
    2018, section 4.2).

    A passage of more tokens than fit beside the question is read in windows that overlap. One that lacks the answer
    learns to point to [CLS] instead, so that the probabilities of all windows compare: the likeliest span is the
    answer. Answers that are in no window are counted in `skipped` by training, and warned of by `evaluate`.

    Rows are `{"question": str, "passage": str, "answers": [(text, start), ...]}`, as `readers.read_squad` gives them.

    Args:
        stride: tokens from the beginning of a window to that of the next. None, or one that leaves no overlap: such
            that an answer of `longest_answer` tokens is in some window, or half a window where that is more; but no
            more than 128.
        longest_answer: its tokens at most.
        longest_question: its tokens at most; what is beyond is not read.
    """

    name = "reading-comprehension"
    best = "f1"
    settings = ("stride", "longest_answer", "longest_question", "dropout")

    def __init__(
        self,
        backbone,
        stride: int | None = None,
        longest_answer: int = 64,
        longest_question: int = 64,
        dropout: float = 0.1,
        maxlen: int = 384,
    ):
        check_counts(longest_answer=longest_answer, longest_question=longest_question)
        if stride is not None:
            check_counts(stride=stride)
        super().__init__(
            backbone, maxlen, stride=stride, longest_answer=longest_answer, longest_question=longest_question,
            dropout=dropout,
        )  # fmt: skip

    def build(self):
        inputs, h = self.backbone.inputs, states_of(self.backbone)
        h = L.Dropout(self.dropout, name="Answer-Dropout", dtype="float32")(h)
        real = L.WrittenTokens([self.pad_id], name="Answer-Tokens", dtype="float32")(inputs[0])
        scores = L.Dense(2, kernel_initializer=L.initializer(0.02), name="Answer-Scores", dtype="float32")(h)
        return L.Model(inputs, L.PlaceScores(name="Answer-Places", dtype="float32")(scores, real))

    def windows(self, question: str, passage: str, answers: Iterable[tuple[int, int]] = ()) -> Iterator[Window]:
        """The inputs of a question; answers are characters of the passage, (start, end). None without a passage."""
        specials, end = len(self.tokenizer.joined([], [])[0]), int(self.tokenizer.end_id is not None)
        asked, _ = encode_with_offsets(self.tokenizer, question)
        asked = asked[: max(0, min(self.longest_question, self.maxlen - specials - LEAST_ROOM))]
        ids, offsets = encode_with_offsets(self.tokenizer, passage)
        whole = Piece(0, len(passage), ids, offsets)
        spans = [(n, span) for n, span in enumerate(whole.tokens(*answer) for answer in answers) if span]
        room = self.maxlen - specials - len(asked)
        for begin in range(0, len(ids), self.step(room)):
            part = slice(begin, begin + room)
            token_ids, segment_ids = self.tokenizer.joined(asked, ids[part])
            first = len(token_ids) - end - len(ids[part])
            here = [(n, a, b) for n, (a, b) in spans if begin <= a and b < begin + room]
            places = tuple((a - begin + first, b - begin + first) for _, a, b in here)
            numbers = tuple(n for n, _, _ in here)
            yield Window(token_ids, segment_ids, first, offsets[part], places, numbers)
            if begin + room >= len(ids):
                break

    def step(self, room: int) -> int:
        """Tokens from a window to the next, where each has `room` for so many of the passage."""
        if self.stride is not None and self.stride < room:
            return self.stride
        return min(STRIDE, max(room - self.longest_answer + 1, (room + 1) // 2))

    def check(self, rows):
        check_keys(rows, "question", "passage", "answers")
        check_items(rows, "answers", "(text, start)", str, INTEGER | None)
        for number, row in enumerate(rows):
            check_texts([row["question"], row["passage"]], number)

    def prepare(self, rows):
        """`skipped` counts the questions left out, "no answer that is a part of the passage, from token to token", and
        the answers that no window holds, which teach nothing: "answers that lie in no window".
        """
        examples = []
        self.check(rows)
        for row in rows:
            places = self.places(row)
            windows = list(self.windows(row["question"], row["passage"], places))
            lost = self.lost(row["passage"], places, windows)
            if lost:
                self.skipped[f"answers that lie in no window; {ADVICE}"] += lost
            if any(window.answers for window in windows):
                examples += windows
            elif not lost:
                self.skipped["no answer that is a part of the passage, from token to token"] += 1
        return examples

    def places(self, row) -> list[tuple[int, int]]:
        """The characters of a row's answers, as far as they say where they stand. Raises: DataError."""
        places = [(start, start + len(text)) for text, start in row["answers"] if start is not None]
        for start, end in places:
            if not 0 <= start < end <= len(row["passage"]):
                raise DataError(f"answer at {start} to {end} of a passage of {len(row['passage'])} characters")
        for text, start in row["answers"]:
            if start is not None and row["passage"][start : start + len(text)] != text:
                found = row["passage"][start : start + len(text)]
                raise DataError(f"the answer {text!r:.40} is not at {start} of its passage, where {found!r:.40} stands")
        return places

    def lost(self, passage: str, places: Sequence[tuple[int, int]], windows: Sequence[Window]) -> int:
        """How many answers begin and end with tokens, and lie in no window."""
        held = {number for window in windows for number in window.numbers}
        others = [place for number, place in enumerate(places) if number not in held]
        if not others:
            return 0
        whole = Piece(0, len(passage), *encode_with_offsets(self.tokenizer, passage))
        return sum(whole.tokens(*place) is not None for place in others)

    def batch(self, examples, length, draw=None):
        draw = np.random.default_rng(0) if draw is None else draw
        places = [
            window.answers[draw.integers(len(window.answers))] if window.answers else (0, 0) for window in examples
        ]
        return self.inputs(examples, length), (np.array(places, "int32"),)

    def inputs(self, windows: Sequence[Window], length: int | None = None) -> list[np.ndarray]:
        """What the model takes.

        Shape: -> 1 or 2 x (B, T)
        """
        ids = self.padded([window.token_ids for window in windows], length, self.pad_id)
        return self.model_inputs(ids, self.padded([window.segment_ids for window in windows], ids.shape[1]))

    def loss(self, outputs, targets):
        from bert4x.training.losses import masked_crossentropy

        return L.ops.mean(masked_crossentropy(targets[0], outputs))

    def likeliest(self, window: Window, scores: np.ndarray) -> tuple[float, int, int]:
        """The best span of a window: its probability, and the characters of the passage from its start to its end.

        Shape: (2, T)
        """
        tokens = len(window.offsets)
        places = [0, *range(window.first, window.first + tokens)]  # pointing to [CLS]: the answer is not here
        start, end = log_softmax(scores[:, places].astype("float64"), -1)[:, 1:]
        spans = start[:, None] + end
        apart = np.arange(tokens)[None] - np.arange(tokens)[:, None]
        spans[(apart < 0) | (apart >= self.longest_answer)] = -np.inf
        first, last = np.unravel_index(spans.argmax(), spans.shape)
        return float(np.exp(spans[first, last])), window.offsets[first][0], window.offsets[last][1]

    def answers(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> list[Answer | None]:
        """The answer to each (question, passage); None where the passage is empty."""
        return self.read([list(self.windows(*pair)) for pair in pairs], [passage for _, passage in pairs], batch_size)

    def read(self, several: Sequence[list[Window]], passages: Sequence[str], batch_size: int) -> list[Answer | None]:
        """The answer in the windows of each passage."""
        windows = [(i, window) for i, ours in enumerate(several) for window in ours]
        best: list[Answer | None] = [None for _ in passages]
        for chosen in batches_by_length([window.length for _, window in windows], batch_size):
            rows = [windows[n] for n in chosen]
            outputs = self.predict(self.model, self.inputs([window for _, window in rows]))
            for (i, window), scores in zip(rows, outputs, strict=True):
                score, start, end = self.likeliest(window, scores)
                found = Answer(passages[i][start:end], start, end, score)
                # Of windows that find the same, the likeliest; of equals, the earlier place, whatever the batches.
                if best[i] is None or (-found.score, found.start, found.end) < (
                    -best[i].score,
                    best[i].start,
                    best[i].end,
                ):
                    best[i] = found
        return best

    @watched
    def evaluate(self, rows, batch_size=32):
        """F1 and exact match, as CMRC 2018 counts them, of the rows that have an answer. Warns of questions whose
        answers lie in no window.

        Raises: DataError without such rows.
        """
        self.check(rows)
        rows = [row for row in rows if row["answers"]]
        if not rows:
            raise DataError("no questions with answers to score on")
        places = [self.places(row) for row in rows]
        several = [
            list(self.windows(row["question"], row["passage"], own)) for row, own in zip(rows, places, strict=True)
        ]
        hopeless = sum(
            not any(window.answers for window in windows) and self.lost(row["passage"], own, windows) > 0
            for row, own, windows in zip(rows, places, several, strict=True)
        )
        if hopeless:
            warnings.warn(
                f"the answers of {hopeless} of {len(rows)} questions lie in no window and cannot be found; {ADVICE}",
                stacklevel=2,
            )
        found = self.read(several, [row["passage"] for row in rows], batch_size)
        texts = [answer.text if answer else "" for answer in found]
        scores = score_answers(texts, [[text for text, _ in row["answers"]] for row in rows])
        return {"f1": scores.f1, "exact_match": scores.exact_match, "average": scores.average}

    def __call__(self, question, passage=None, batch_size=32):
        """The `Answer` to a question in a passage. Of a list of questions and a passage, or as many passages, the list
        of answers; so of a list of (question, passage). None where the passage is empty.

        Raises: InputError for anything else.
        """
        one = isinstance(question, str) and isinstance(passage, str)
        pairs = [(question, passage)] if one else pairs_of(question, passage)
        found = self.answers(pairs, batch_size)
        return found[0] if one else found


def pairs_of(questions, passages=None) -> list[tuple[str, str]]:
    """Pairs of a question and a passage: of questions and passages, of which either may be one for all of the other;
    or of what are pairs already.

    Raises: InputError
    """
    wanted = "expected a question and a passage, lists of them, or a list of such pairs"
    if any(isinstance(side, Mapping | Set) for side in (questions, passages)):
        raise InputError(f"found {questions!r:.80}; {wanted}")
    if passages is None:
        pairs = [] if isinstance(questions, str) or not isinstance(questions, Iterable) else list(questions)
        if not pairs and questions != []:
            raise InputError(f"found {questions!r:.80}; {wanted}")
    else:
        sides = [[side] if isinstance(side, str) else list(side) for side in (questions, passages)]
        most = max(map(len, sides))
        sides = [side * most if len(side) == 1 else side for side in sides]
        if len(sides[0]) != len(sides[1]):
            raise InputError(f"{len(sides[0])} questions and {len(sides[1])} passages; {wanted}")
        pairs = list(zip(*sides, strict=True))
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InputError(f"found {pair!r:.80}; {wanted}")
    return [tuple(pair) for pair in pairs]
