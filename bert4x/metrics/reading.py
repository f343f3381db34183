"""Exact match and F1 of answers found in passages, as CMRC 2018 evaluates them (Cui et al. 2019, arXiv 1810.07366)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bert4x.errors import InputError
from bert4x.metrics.tokens import check_texts

# What the official evaluation takes for punctuation; the comma, dot and double quote of ASCII are not among it.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
CHINESE = re.compile(r"([\u4e00-\u9fa5])")
ALONE = re.compile(r"(\.{2,}|[;@#$%&?!*\[\](){}<>\"«»“”‘„…])")
BEFORE_NO_DIGIT = re.compile(r"([:,])(?!\d)")
FINAL_DOT = re.compile(r"(?<=[^.\s])(\.)(?=[\])}>\"'»”’ ]*$)")
DOT_OF_A_SENTENCE = re.compile(r"((?<![\w.])[^\s.]+)(\.)(?=\s)")
CONTRACTION = re.compile(r"('s|'m|'d|'ll|'re|'ve|n't)(?=\s|$)")


@dataclass(frozen=True)
class AnswerScores:
    """Means over the questions: how many answers are right, and how much of them is.

    `average` is the mean of both, by which CMRC 2018 ranks.
    """

    exact_match: float
    f1: float

    @property
    def average(self) -> float:
        """The mean of both, as CMRC 2018 ranks by it."""
        return (self.exact_match + self.f1) / 2


def score_answers(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> AnswerScores:
    """Compares an answer to each question with all that are right; the best of these counts. "" is no answer.

    Raises: InputError when there is not a list of references for each prediction, or an empty one.
    """
    check_texts(predictions, references)
    for index, answers in enumerate(references):
        if isinstance(answers, str) or not answers:
            raise InputError(f"references[{index}] is {answers!r}; expected a list of right answers")
    pairs = list(zip(predictions, references, strict=True))
    exact = sum(any(exact_match(found, answer) for answer in answers) for found, answers in pairs)
    overlap = sum(max(answer_f1(found, answer) for answer in answers) for found, answers in pairs)
    return AnswerScores(exact / len(pairs), overlap / len(pairs))


def exact_match(prediction: str, answer: str) -> bool:
    """Whether they are equal in lower case and without punctuation."""
    return without_punctuation(prediction) == without_punctuation(answer)


def answer_f1(prediction: str, answer: str) -> float:
    """F1 of the longest common run of segments: not of a bag of them, as in SQuAD."""
    found, right = segments(prediction), segments(answer)
    common = longest_common_run(found, right)
    return 2 * common / (len(found) + len(right)) if common else 0.0


def segments(text: str) -> list[str]:
    """Every Chinese character on its own, and between them words as the Penn Treebank splits them; no punctuation.

    The official evaluation leaves words to NLTK, whose lists of abbreviations and contractions are longer than this.
    """
    parts = CHINESE.split(without_punctuation(text))
    return [segment for part in parts for segment in ([part] if CHINESE.fullmatch(part) else words(part))]


def words(text: str) -> list[str]:
    """The words and marks of an English text."""
    for pattern in (ALONE, BEFORE_NO_DIGIT, FINAL_DOT, CONTRACTION):
        text = pattern.sub(r" \1 ", text)
    return DOT_OF_A_SENTENCE.sub(r"\1 \2", text).split()


def without_punctuation(text: str) -> str:
    """A text in lower case without punctuation."""
    return "".join(character for character in text.lower().strip() if character not in PUNCTUATION)


def longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest run of items in both."""
    longest, before = 0, [0] * (len(second) + 1)
    for item in first:
        here = [0] * (len(second) + 1)
        for j, other in enumerate(second):
            if item == other:
                here[j + 1] = before[j] + 1
        longest, before = max(longest, *here), here
    return longest
