"""Chat templates beside transformers, with what the templates of Qwen2.5, Qwen3 and Llama 3 use; answers by them."""

import io
import json
import sys
from datetime import datetime

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import bert4x
from bert4x.errors import TokenizerError
from bert4x.tokenizers import load_tokenizer
from bert4x.tokenizers.chat import render

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" %}{%- set ns.last = (messages|length - 1) - loop.index0 %}{%- break %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and '</think>' in message.content and loop.index0 < ns.last %}
        {{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}
    {%- elif message.role != 'system' %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%Y") %}{%- endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate user/assistant') }}
    {% endif %}
    {% generation %}{{ date_string + ' ' + message['content'] + eos_token }}{% endgeneration %}
{% endfor %}
{{ {"b": messages[0]['content'], "a": none} | tojson(indent=2, sort_keys=true) }}"""
TALK = [
    {"role": "system", "content": "你很有用。"},
    {"role": "user", "content": " 你好<b>&\"'"},
    {"role": "assistant", "content": "<think>\n他问好\n</think>\n\n你好！", "tool_calls": None},
    {"role": "user", "content": "再见"},
]
TOOLS = [{"type": "function", "function": {"name": "天气", "parameters": {"city": "<城市>"}}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen3 with a byte-level vocabulary, its chat template, and two ids that end an answer."""
    folder = tmp_path_factory.mktemp("qwen3")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(r"\s+", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"chat_template": QWEN}), encoding="utf-8")
    model = bert4x.build_transformer_model(
        model="qwen3", vocab_size=264, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        attention_head_size=6, num_key_value_heads=2, intermediate_size=30, max_position=256, initializer_range=0.5,
    )  # fmt: skip
    bert4x.save(model, folder, "hf")
    ends = [backend.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [*ends, 50256]}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_names_of_thoughts(name):
    """Servers call them differently; templates read the first of these names, some the second."""
    template = "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}{{ messages[0].content }}"
    assert render(template, [{"role": "assistant", name: "因", "content": "果"}]) == "因因果"
    assert render(template, [{"content": "果", "thinking": "甲", "reasoning_content": "乙"}]) == "乙甲果"


@pytest.mark.parametrize("template", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_equal_to_transformers(folder, template):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    talk = TALK if template == QWEN else TALK[1:]
    for variables in ({}, {"enable_thinking": False}, {"tools": TOOLS, "date_string": "<今天>"}):
        given = {"add_generation_prompt": True} | variables
        text = theirs.apply_chat_template(talk, chat_template=template, tokenize=False, **given)
        assert ours.apply_chat_template(talk, template=template, **given) == text
        ids = theirs.apply_chat_template(talk, chat_template=template, return_dict=False, **given)
        assert ours.apply_chat_template(talk, template=template, tokenize=True, **given) == ids
    assert str(datetime.now().year) in ours.apply_chat_template(TALK[1:], template=LLAMA)


def test_files(folder, tmp_path):
    """What ends an answer and the template stay beside the weights, whoever writes them."""
    model = bert4x.load(folder)
    assert model.tokenizer.stop_ids == (258, 256)
    bert4x.save(model, tmp_path / "saved", "hf")
    bert4x.convert(tmp_path / "saved", tmp_path / "converted", "bert4x")
    (tmp_path / "converted" / "chat_template.jinja").write_text("{{ messages[0].content }}。", encoding="utf-8")
    pieces = load_tokenizer()
    pieces.chat_templates, pieces.stop_ids = {"default": "{{ eos_token }}", "tool_use": "x"}, (3,)
    pieces.special_names = {"eos_token": "[SEP]"}
    (tmp_path / "pieces").mkdir()
    pieces.save(tmp_path / "pieces")
    other = load_tokenizer(tmp_path / "pieces")
    assert (other.chat_templates, other.stop_ids) == (pieces.chat_templates, (3,))
    assert other.apply_chat_template(TALK) == "[SEP]"
    again = load_tokenizer(tmp_path / "converted")
    assert again.stop_ids == model.tokenizer.stop_ids
    assert load_tokenizer(tmp_path / "saved").apply_chat_template(TALK) == model.tokenizer.apply_chat_template(TALK)
    assert again.apply_chat_template(TALK) == "你很有用。。", "a file of its own comes first"


def test_answers(folder):
    model = bert4x.load(folder)
    text = model.tokenizer.apply_chat_template(TALK, add_generation_prompt=True, enable_thinking=False)
    answer = model.chat(TALK, {"enable_thinking": False}, max_new_tokens=20)
    assert answer == model.generate(text, max_new_tokens=20)
    assert (
        "".join(p.text for p in model.chat(TALK, {"enable_thinking": False}, stream=True, max_new_tokens=20)) == answer
    )
    ended = list(model.chat(TALK, stream=True, max_new_tokens=9, forced_ids={0: 259, 1: 258}))
    assert [piece.finish_reason for piece in ended] == [None, "stop"]
    assert ended[0].text == "<think>", "a tag is text, the end of the answer is not"


def test_what_is_refused(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    with pytest.raises(TokenizerError, match="alternate"):
        tokenizer.apply_chat_template(TALK, template=LLAMA)
    for template, message in (
        ("{% for", "end of template"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ missing.name }}", "missing"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "more than 30,000,000"),
    ):
        with pytest.raises(TokenizerError, match=message):
            render(template, TALK)
    for messages in ([], "你好", [TALK], [{"content": object()}]):
        with pytest.raises(TokenizerError, match="messages"):
            tokenizer.apply_chat_template(messages)
    with pytest.raises(TokenizerError, match="no chat template"):
        bert4x.load().chat(TALK)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n", encoding="utf-8")
    for name, said in (
        ("generation_config.json", {"eos_token_id": "x"}),
        ("tokenizer_config.json", {"chat_template": 3}),
    ):
        (tmp_path / name).write_text(json.dumps(said))
        with pytest.raises(TokenizerError, match=name):
            load_tokenizer(tmp_path)


def test_command(command, folder, monkeypatch):
    def typed(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    typed("你好\n再见\n /exit \n还在吗\n")
    status, out, err = command("chat", folder, "--no-thinking", "--system", "短。", "--max-new-tokens", 8)
    assert (status, err.count("\n")) == (0, 1)
    model, talk, answers = bert4x.load(folder), [{"role": "system", "content": "短。"}], []
    for text in ("你好", "再见"):
        talk.append({"role": "user", "content": text})
        answers.append(model.chat(talk, {"enable_thinking": False}, max_new_tokens=8))
        talk.append({"role": "assistant", "content": answers[-1]})
    assert out == "".join(f"{answer}\n" for answer in answers)
    for arguments, word in (
        ((folder, "--model", folder), "two models"),
        ((folder, "--thinking", "--template", "{text}"), "--thinking"),
        (("--system", "短。"), "--system"),
    ):
        typed("你好\n")
        status, _, err = command("chat", *arguments)
        assert status != 0
        assert word in err


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a recursive loop": "{% for i in range(9) recursive %}{{ loop(range(99999)) if loop.depth < 4 }}{% endfor %}",
    "doubled by ~": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "joined": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s.join(n.s) %}{% endfor %}",
    "replaced": "{% set n = namespace(s='a') %}{% for i in range(9) %}{% set n.s = n.s|replace('', n.s) %}{% endfor %}",
    "nested": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "repeated": "{{ 'a' * 10000000000 }}",
    "a power": "{{ 9 ** 999999999 }}",
    "a width": "{{ '%1000000000000d' % 3 }}",
    "another width": "{{ '{:1000000000000}'.format(3) }}",
    "filled up": "{{ 'a'.ljust(10000000000) }}",
    "centred": "{{ 'a'|center(10000000000) }}",
    "written": "{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_templates_that_would_not_end(kind):
    message = r"it makes a text, a list or a number of more than|it takes more than 100,000 turns|it has the format"
    with pytest.raises(TokenizerError, match=message):
        render(ENDLESS[kind], [{"role": "user", "content": "你好"}])
