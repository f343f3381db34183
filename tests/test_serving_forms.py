"""`response_format` of the server: answers that keep to a form, in batches that are shared."""

import concurrent.futures
import json
import re
from typing import Literal

import pydantic
import pytest
from test_serving import running

from bert4x.checkpoints.files import default_model
from bert4x.serving.app import create_app
from bert4x.serving.limits import Limits
from bert4x.serving.models import open_models
from bert4x.serving.writing import Decoder, Writing

openai, _ = pytest.importorskip("openai"), pytest.importorskip("llguidance")
LIMITS = Limits(seconds=60)
SCHEMA = {
    "type": "object",
    "properties": {"诗人": {"enum": ["李白", "杜甫"]}, "年": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["诗人", "年"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "poet", "schema": SCHEMA, "strict": True}}


class Poet(pydantic.BaseModel):
    """As the client's own helper sends it."""

    poet: Literal["李白", "杜甫"]


@pytest.fixture(scope="module")
def models():
    return open_models([f"small={default_model()}"], LIMITS, num_hidden_layers=1)


@pytest.fixture(scope="module")
def writing(models):
    return models.served["small"].abilities["generation"]


@pytest.fixture(scope="module")
def official(models):
    with running(create_app(models, LIMITS), LIMITS) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_texts_of_other_forms_join_between_steps(writing):
    """Three forms share a batch, begun at three steps; each is written as by itself."""
    asked = [
        ("今天是个好天气，李白在长安写诗：", {"json_schema": SCHEMA, "seed": 1}),
        ("杜甫", {"regex": "[一二三四五六七八九十]{2,6}年", "seed": 2}),
        ("他说", {"choices": ["很好", "不好"], "seed": 3}),
    ]
    told = [[] for _ in asked]
    decoder = Decoder(lambda: writing.engine, 8)
    for (prompt, options), pieces in zip(asked, told, strict=True):
        (request,) = writing.requests([prompt], options | {"max_new_tokens": 40}, 1, False, LIMITS)
        decoder.add([Writing(request, writing.tokenizer, pieces.append)])
        for _ in range(3):
            decoder.step()
        assert len(decoder.batches) == 1
    while decoder.busy:
        decoder.step()
    assert [pieces[-1].finish_reason for pieces in told] == ["stop"] * 3
    found = ["".join(piece.text for piece in pieces) for pieces in told]
    assert found == [writing.model.generate(prompt, max_new_tokens=40, **options) for prompt, options in asked]
    assert json.loads(found[0])["诗人"] in ("李白", "杜甫") and found[2] in ("很好", "不好")


def test_answers_parse(official, writing):
    """Of the official client: chat and completions, whole and streamed, drawn and not, many at a time."""
    messages = [{"role": "user", "content": "写一首诗"}]

    def chat(seed):
        pieces = official.chat.completions.create(
            model="small", messages=messages, response_format=FORMAT, seed=seed, max_tokens=40, stream=True
        )
        return json.loads("".join(piece.choices[0].delta.content or "" for piece in pieces))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(chat, range(6)))
    assert all(set(one) == {"诗人", "年"} and 1 <= one["年"] <= 99 for one in answers)
    parsed = official.chat.completions.parse(model="small", messages=messages, response_format=Poet, max_tokens=40)
    assert parsed.choices[0].message.parsed.poet in ("李白", "杜甫")
    found = official.completions.create(
        model="small", prompt=["李白", "杜甫"], max_tokens=40, n=2, extra_body={"guided_regex": r"\d{4}年"}
    )
    assert all(re.fullmatch(r"\d{4}年", one.text) and one.finish_reason == "stop" for one in found.choices)
    found = official.completions.create(
        model="small", prompt="他很", max_tokens=4, extra_body={"guided_choice": ["好", "不好"]}
    )
    assert found.choices[0].text == writing.model.generate("他很", choices=["好", "不好"], max_new_tokens=4)
    cut = official.completions.create(
        model="small", prompt="李白", max_tokens=3, extra_body={"response_format": {"type": "json_object"}}
    ).choices[0]
    assert cut.text.startswith("{") and cut.finish_reason in ("length", "stop")


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({"response_format": {"type": "json_schema"}}, 400, "json_schema is missing"),
        ({"response_format": FORMAT | {"type": "json_object"}}, 400, "json_schema is given"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, 400, "no form"),
        ({"response_format": FORMAT, "stop": "。"}, 400, "stop does not go with json_schema"),
        ({"extra_body": {"guided_regex": "("}}, 400, "no form"),
        ({"extra_body": {"guided_regex": "A+"}}, 400, "cannot spell"),
        ({"extra_body": {"guided_regex": "A", "guided_choice": ["好"]}}, 400, "give one of them"),
        ({"extra_body": {"guided_choice": ["𠮷"]}}, 400, "no token with"),
    ],
)
def test_forms_that_cannot_be(official, given, status, says):
    with pytest.raises(openai.APIStatusError, match=says) as error:
        official.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "好"}], max_tokens=5, **given
        )
    assert error.value.status_code == status and set(error.value.body) == {"message", "type", "param", "code"}
