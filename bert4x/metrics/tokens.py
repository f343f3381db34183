"""How texts are split for ROUGE and BLEU."""

import re
from collections.abc import Callable, Sequence

from bert4x.errors import InputError, nearest

Tokenize = Callable[[str], Sequence[str]]

# Code points that sacrebleu's "zh" takes for Chinese. Its two entries for planes beyond the first are strings of two
# characters, which select U+2001-2A6D and U+2F81-2FA1; scores can only be compared if these are taken too.
CHINESE = (
    r"\u2001-\u2a6d\u2e80-\u2eff\u2f00-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u33ff"
    r"\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef"
)
CHINESE_CHARACTER = re.compile(f"[{CHINESE}]")
# mteval-v13a: symbols stand alone; a full stop or comma does unless between digits; so does a hyphen after a digit.
# Pairs are consumed from the left, as there: "a.,5" is "a . ,5".
SYMBOL = re.compile(r"[!-&(-+/:-@\[-`{-~]")
AFTER_A_LETTER = re.compile(r"([^0-9])([.,])")
BEFORE_A_LETTER = re.compile(r"([.,])([^0-9])")
AFTER_A_DIGIT = re.compile(r"([0-9])(-)")
ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


def characters(text: str) -> list[str]:
    """Each character but white space: for Chinese, and comparable between any two systems."""
    return [character for character in text if not character.isspace()]


def chinese(text: str) -> list[str]:
    """Each Chinese character, and between them words and punctuation as in `words`; sacrebleu's "zh"."""
    return _split_punctuation(CHINESE_CHARACTER.sub(r" \g<0> ", text.strip()))


def words(text: str) -> list[str]:
    """Words and punctuation of languages with spaces, as mteval-v13a splits them; sacrebleu's "13a"."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in ENTITIES.items():
        text = text.replace(entity, character)
    return _split_punctuation(f" {text} ")


def _split_punctuation(text: str) -> list[str]:
    text = SYMBOL.sub(r" \g<0> ", text)
    text = AFTER_A_LETTER.sub(r"\1 \2 ", text)
    text = BEFORE_A_LETTER.sub(r" \1 \2", text)
    return AFTER_A_DIGIT.sub(r"\1 \2 ", text).split()


TOKENIZERS: dict[str, Tokenize] = {"char": characters, "zh": chinese, "13a": words, "none": str.split}


def tokenizer(tokenize: str | Tokenize) -> Tokenize:
    """The function of that name, or the function itself.

    Raises: InputError for a name there is none of.
    """
    if callable(tokenize):
        return tokenize
    if tokenize not in TOKENIZERS:
        raise InputError(f"no tokenization {tokenize!r}; {nearest(str(tokenize), TOKENIZERS)}, or a function")
    return TOKENIZERS[tokenize]


def check_texts(predictions: Sequence[str], references: Sequence) -> None:
    """Raises InputError unless there are predictions, all of them strings, and as many references."""
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise InputError(f"{name} is a single string; expected a list of one for each text")
    if not predictions or len(predictions) != len(references):
        raise InputError(f"{len(predictions)} predictions for {len(references)} references; expected as many, and one")
    for index, text in enumerate(predictions):
        if not isinstance(text, str):
            raise InputError(f"predictions[{index}] is {text!r}; expected a string")
