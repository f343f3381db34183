"""Texts that keep to a form, whatever the vocabulary; and errors where they cannot."""

import json
import re

import numpy as np
import pytest
from test_detokenize import MAKERS

import bert4x
from bert4x.errors import GenerationError
from bert4x.generation.grammar import Form, Guide, spelled
from bert4x.generation.options import GenerationOptions

pytest.importorskip("llguidance")
WORDS = {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 2}
YEAR = {"type": "integer", "minimum": 100, "maximum": 999}
SCHEMA = {
    "type": "object",
    "properties": {"诗人": {"enum": ["李白", "杜甫", "白居易"]}, "年": YEAR, "句": WORDS},
    "required": ["诗人", "年", "句"],
    "additionalProperties": False,
}
REGEXES = (r"[一二三四五六七八九十]{2,4}年", r"\d{3}/\d+?\.", r"(春|秋)[风雨]{2}。?", r"a\\?b/c")


@pytest.fixture(scope="module")
def model():
    return bert4x.load(application="lm", num_hidden_layers=1)


def test_choices(model):
    choices = ["很好", "很不好", "好"]
    found = model.generate(["今天天气", "床前明月光，", "他"], choices=choices)
    assert set(found) <= set(choices)
    drawn = model.generate("今天天气", choices=choices, num_return_sequences=24, seed=0, temperature=5.0)
    assert set(drawn) == set(choices)
    best = max(choices, key=lambda one: model.score("今天天气", [one])[0])
    assert model.generate("今天天气", choices=[best]) == best


@pytest.mark.parametrize("regex", REGEXES)
def test_regular_expressions(model, regex):
    for text in model.generate("今年是", regex=regex, num_return_sequences=4, seed=1, max_new_tokens=40):
        assert re.fullmatch(regex, text)


def test_json(model):
    options = {"json_schema": SCHEMA, "max_new_tokens": 60, "num_return_sequences": 3, "seed": 3}
    found = model.generate(["李白写道：", "他在"], **options)
    for text in [text for group in found for text in group]:
        value = json.loads(text)
        assert set(value) == {"诗人", "年", "句"} and 100 <= value["年"] <= 999
        assert value["诗人"] in SCHEMA["properties"]["诗人"]["enum"] and 1 <= len(value["句"]) <= 2
    same = model.generate("李白写道：", json_schema=json.dumps(SCHEMA), max_new_tokens=60, seed=3)
    assert json.loads(same)


def test_without_a_stop_token_a_text_ends_as_soon_as_it_may(model):
    assert re.fullmatch("[一二]", model.generate("第", regex="[一二]+", stop_ids=[]))


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes", "cpm small", "bpe"])
def test_what_tokens_spell(kind, tmp_path):
    """Of every vocabulary: what a form allows at first is what its text begins with; and a text is spelled whole."""
    if kind == "cpm small":
        pytest.importorskip("jieba")
    tokenizer = MAKERS[kind](tmp_path)
    size = tokenizer.vocab_size
    texts = spelled(tokenizer, size)
    assert len(texts) == size and all(not texts[i] for i in (tokenizer.pad_id, tokenizer.end_id) if i is not None)
    letters = sorted({text.decode() for text in texts if text.isascii() and len(text) == 1 and text.isalnum()})
    if len(letters) < 2:
        letters = sorted({t.decode("utf-8", "ignore") for t in texts if len(t) == 3 and t[0] >= 0xE0})
    word = "".join(letters[:2] * 2)
    form = Form(tokenizer, size, GenerationOptions(choices=[word], stop_ids=()))
    guide, ids, said = Guide(form), [], ""
    while not guide.has_ended:
        allowed = np.flatnonzero(guide.allowed())
        assert len(allowed) and all(word.encode()[len(form.text(ids).encode()) :].startswith(texts[i]) for i in allowed)
        ids.append(int(allowed[0]))
        guide.follow(ids[-1])
        said += guide.add(ids[-1])
    assert guide.is_whole and form.text(ids) == said + guide.finish() == word


BAD = {
    "(": ({"regex": "("}, "regex is no form"),
    "type": ({"json_schema": {"type": "nonsense"}}, "json_schema is no form"),
    "json": ({"json_schema": "{"}, "json_schema is no JSON"),
    "character": ({"choices": ["好", "𠮷"]}, "no token with '𠮷'"),
    "upper case": ({"regex": "A+"}, "cannot spell"),
    "too long": ({"regex": "[一二]{90}", "max_new_tokens": 8}, "after 8 tokens"),
    "two": ({"regex": "a", "choices": ["b"]}, "give one of them"),
    "beams": ({"choices": ["好"], "num_beams": 2}, "num_beams does not go with choices"),
    "empty": ({"choices": [""]}, "not empty"),
    "none": ({"choices": []}, "choices has no text"),
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_forms_that_cannot_be(model, options):
    given, message = options
    with pytest.raises(GenerationError, match=re.escape(message)):
        model.generate("床前", **given)


def test_where_no_form_is_kept(model):
    with pytest.raises(GenerationError, match="knows no text, and so no regex"):
        model.generate_ids([[2, 3]], regex="a")
    with pytest.raises(GenerationError, match="with choices no text can be streamed"):
        next(model.stream("床前", choices=["好"]))
