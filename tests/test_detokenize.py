"""Incremental detokenizing equals decoding the whole, stop strings do not depend on the pieces, prompts become ids."""

import io
import json
import random
import time
from pathlib import Path

import pytest
from text_samples import chinese_sentences, hostile_lines

import bert4x
from bert4x.errors import GenerationError, TokenizerError
from bert4x.generation.detokenize import Detokenizer, StopStrings
from bert4x.generation.prompt import choice_ids, default_stop_ids, encode_prompt, stop_id
from bert4x.tokenizers import BpeTokenizer, CpmTokenizer, SpTokenizer, Tokenizer
from bert4x.tokenizers.base import TokenizerBase

VOCABULARIES = Path(__file__).parents[2] / "shared" / "data" / "vocab"
EMBEDDED = Path(bert4x.__file__).parent / "assets" / "default" / "vocab.txt"
CORPUS = [*chinese_sentences(40), "the model of the Hello World , 3.14", "狗 dog\n\n中国", "人工 智能 \u2582 很 好"] * 3
SENTENCES = [
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "Hello, world! It's 3.14 (about) the state-of-the-art model's output... don't you think?",
    "清华大学（Tsinghua University）成立于1911年，现有59个教学系。\n第二行 有空格  两个",
    "😀 混合 emoji 👩‍👩‍👧 与文字𠀀。naïve café",
]


def sentencepiece_model(path: Path, **options) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs pip install jieba sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=1000,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())
    return path


def bpe_tokenizer() -> BpeTokenizer:
    """Every byte, "<|endoftext|>", some merged syllables, and a merge inside a character."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab = model["vocab"] | {"<|endoftext|>": len(model["vocab"]), "[新词]": len(model["vocab"]) + 1}
    return BpeTokenizer(vocab, [tuple(pair) for pair in model["merges"]])


def shared(path: str) -> Path:
    if not (VOCABULARIES / path).is_file():
        pytest.skip(f"needs {path} in ../shared/data/vocab")
    return VOCABULARIES / path


SPECIAL = {"user_defined_symbols": ["\u2583", "<sep>", "<pad>", "<mask>", "<eod>", "\u2582"]}
OLD = {"control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"], "user_defined_symbols": ["\u2582"]}
EXACT = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
SPACES = ["[UNK]", " ", "\u2028", "##\u2028", "##", "a", "##b", "1", ".", "(", "'", "s", "好"]
MAKERS = {
    "embedded": lambda folder: Tokenizer(EMBEDDED, do_lower_case=True),
    "translated": lambda folder: Tokenizer(EMBEDDED, do_lower_case=True, token_translate={"##s": "[unused9]"}),
    "spaces": lambda folder: Tokenizer(
        {
            t: i
            for i, t in enumerate(["[UNK]", " ", "\u2028", "##\u2028", "##", "a", "##b", "1", ".", "(", "'", "s", "好"])
        },
        token_start=None,
        token_end=None,
    ),
    "bert_zh": lambda folder: Tokenizer(shared("bert_zh/vocab.txt"), do_lower_case=True),
    "sentencepiece": lambda folder: SpTokenizer(sentencepiece_model(folder / "spm")),
    "bytes": lambda folder: SpTokenizer(sentencepiece_model(folder / "spm", byte_fallback=True)),
    "bytes exact": lambda folder: SpTokenizer(sentencepiece_model(folder / "spm", byte_fallback=True, **EXACT)),
    "no prefix": lambda folder: SpTokenizer(
        sentencepiece_model(folder / "spm", byte_fallback=True, add_dummy_prefix=False, **EXACT)
    ),
    "cpm small": lambda folder: CpmTokenizer(sentencepiece_model(folder / "spm", **SPECIAL)),
    "cpm small old": lambda folder: CpmTokenizer(sentencepiece_model(folder / "spm", **OLD)),
    "cpm new": lambda folder: CpmTokenizer(shared("cpm/chinese_vocab_2020-11-22.model")),
    "cpm old": lambda folder: CpmTokenizer(shared("cpm/chinese_vocab_2020-11-17.model")),
    "bpe": lambda folder: bpe_tokenizer(),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request, tmp_path_factory):
    if "cpm" in request.param:
        pytest.importorskip("jieba", reason="needs pip install jieba sentencepiece")
    return MAKERS[request.param](tmp_path_factory.mktemp("vocabulary"))


def check_stream(tokenizer: TokenizerBase, ids: list[int]) -> list[str]:
    """Streams ids; at every point the shown text is the decoded one, but for what may still change."""
    detokenizer, shown, pieces = Detokenizer(tokenizer), "", []
    for count, token_id in enumerate(ids, 1):
        pieces.append(detokenizer.add(token_id))
        shown += pieces[-1]
        so_far = tokenizer.decode(ids[:count])
        assert so_far.startswith(shown)
        assert not so_far[len(shown) :].strip("\ufffd"), "held back more than half a character"
    pieces.append(detokenizer.finish())
    assert "".join(pieces) == tokenizer.decode(ids)
    return pieces


def test_random_ids(tokenizer):
    rng = random.Random(1)
    vocab = sorted(set(tokenizer.token_dict.values()))
    special = [i for i in vocab if not tokenizer.decode([i]).strip()]
    hash_or_short = [i for i in vocab if len(tokenizer.id_to_token(i)) <= 3 or tokenizer.id_to_token(i)[:2] == "##"]
    for _ in range(700):
        pool = rng.choice([vocab, vocab, hash_or_short, special + rng.sample(vocab, 5)])
        check_stream(tokenizer, rng.choices(pool, k=rng.randint(0, 12)))


def test_bytes_in_any_order(tokenizer):
    names = {f"<0x{byte:02X}>": byte for byte in range(256)}
    bytes_of = {i: names.get(token) for token, i in tokenizer.token_dict.items() if token in names}
    if isinstance(tokenizer, BpeTokenizer):
        bytes_of = {i: None for token, i in tokenizer.token_dict.items() if len(token) == 1}
    if not bytes_of:
        pytest.skip("this vocabulary has no byte tokens")
    rng = random.Random(2)
    others = rng.sample(sorted(set(tokenizer.token_dict.values())), 20)
    several = [i for i, byte in bytes_of.items() if byte is None or byte >= 0x80]
    for _ in range(2000):
        pool = rng.choice([several, [*several, *others], list(bytes_of)])
        check_stream(tokenizer, rng.choices(pool, k=rng.randint(1, 10)))


def test_real_text(tokenizer):
    for text in [*SENTENCES, *chinese_sentences(20, seed=7), *hostile_lines(40, seed=3)]:
        try:
            ids = tokenizer.encode(text)[0]
        except TokenizerError:
            continue
        pieces = check_stream(tokenizer, ids)
        if "\ufffd" not in tokenizer.decode(ids):
            assert not any("\ufffd" in piece for piece in pieces)


def test_as_long_as_you_like(tokenizer):
    """Decoding everything again for each of these tokens would take minutes."""
    ids = (tokenizer.encode("".join(SENTENCES))[0] * 500)[:15_000]
    for repeated in (ids, [ids[1]] * 15_000, [tokenizer.token_dict.get("[SEP]", ids[0])] * 15_000):
        detokenizer, start = Detokenizer(tokenizer), time.perf_counter()
        text = "".join([detokenizer.add(i) for i in repeated]) + detokenizer.finish()
        assert time.perf_counter() - start < 10
        assert text == tokenizer.decode(repeated)


def test_half_characters():
    tokenizer = bpe_tokenizer()
    ids = [tokenizer.token_dict[char] for char in ("ä", "½", "ł")]  # the bytes E4 BD A0 as vocab.json writes them
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.add(i) for i in ids] == ["", "", "你"]
    assert detokenizer.finish() == ""
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.add(i) for i in ids[:2]] == ["", ""] and detokenizer.finish() == "\ufffd"


def test_cpm_spaces_and_lines():
    pytest.importorskip("jieba", reason="needs pip install jieba sentencepiece")
    tokenizer = CpmTokenizer(shared("cpm/chinese_vocab_2020-11-22.model"))
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("狗 dog\n中国")[0]
    assert "".join(detokenizer.add(i) for i in [*ids, 7]) == "狗 dog\n中国"


def test_wordpiece_as_it_comes():
    tokenizer = Tokenizer(EMBEDDED, do_lower_case=True)
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.tokens_to_ids(["[CLS]", "the", "##s", "on", "我", "on", ",", "[SEP]"])
    assert [detokenizer.add(i) for i in ids] == ["", "the", "s", " on", "我", "on", ",", ""]


def test_refused(tmp_path):
    tokenizer = Tokenizer(EMBEDDED)
    with pytest.raises(GenerationError, match="TokenizerBase cannot be decoded"):
        Detokenizer(TokenizerBase())
    with pytest.raises(TokenizerError, match="no token has id 8000"):
        Detokenizer(tokenizer).add(8000)
    for stop in ("", ["。", ""], [3], [None]):
        with pytest.raises(GenerationError, match="no text to stop at"):
            Detokenizer(tokenizer, stop=stop)


# stop strings


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What comes before the stop string that is complete first, by trying every end."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end - len(stop)], stop
    return text, None


def test_stop_strings_against_every_cut():
    rng = random.Random(4)
    for _ in range(3000):
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 5))) for _ in range(rng.randint(0, 3))]
        text, place, watch, shown = "".join(rng.choices("aabc", k=rng.randint(0, 14))), 0, StopStrings(stops), ""
        expected, stop = first_stop(text, stops)
        while place < len(text):
            size = rng.randint(0, 4)
            shown += watch.add(text[place : place + size])
            place += size
            assert expected.startswith(shown), "showed what belongs to a stop string"
            if watch.stopped is None:
                assert any(s.startswith(text[len(shown) : place]) for s in [*stops, ""]) or shown == text[:place]
        shown += watch.finish()
        assert (shown, watch.stopped) == (expected, stop)
        assert watch.add("more") == "" or stop is None


def test_stop_strings_hold_back_no_more_than_needed():
    watch = StopStrings(["abcd", "bce"])
    assert [watch.add(char) for char in "xabcf"] == ["x", "", "", "", "abcf"]
    assert [watch.add(char) for char in "abce"] == ["", "", "", "a"] and watch.stopped == "bce"
    assert watch.add("zzz") == watch.finish() == ""


def test_stop_across_tokens(tokenizer):
    if tokenizer.vocab_size < 50:
        pytest.skip("no real text in this vocabulary")
    text = "今天天气，不错。"
    ids = tokenizer.encode(text * 2)[0]
    whole = tokenizer.decode(ids)
    for begin, size in [(0, 1), (1, 3), (3, 2), (4, 4)]:
        stop = whole[begin : begin + size]
        if not stop:
            continue
        detokenizer = Detokenizer(tokenizer, stop=[stop, "从未出现"])
        shown = ""
        for token_id in ids:
            shown += detokenizer.add(token_id)
            if detokenizer.stopped:
                break
        assert detokenizer.stopped == stop and detokenizer.finish() == ""
        assert shown == whole[: whole.index(stop)]
    detokenizer = Detokenizer(tokenizer, stop=whole[-3:] + "x")
    assert "".join(map(detokenizer.add, ids)) == whole[:-3] and detokenizer.finish() == whole[-3:]


# prompts


def test_prompts_of_bert():
    tokenizer = Tokenizer(EMBEDDED, do_lower_case=True)
    start, end, *body = tokenizer.tokens_to_ids(["[CLS]", "[SEP]", "床", "前"])
    assert encode_prompt(tokenizer, "unilm", False, "床前") == [start, *body, end]
    assert encode_prompt(tokenizer, "lm", False, "床前") == [start, *body]
    assert default_stop_ids(tokenizer) == (end,) == (stop_id(tokenizer, "[SEP]"),)
    for text in ("", "  \n"):
        for application in ("lm", "unilm"):
            with pytest.raises(GenerationError, match="has no token"):
                encode_prompt(tokenizer, application, False, text)
    with pytest.raises(GenerationError, match="application='encoder'"):
        encode_prompt(tokenizer, "encoder", False, "床前")
    with pytest.raises(GenerationError, match="no tokenizer"):
        encode_prompt(None, "lm", False, "床前")
    with pytest.raises(GenerationError, match="not list"):
        encode_prompt(tokenizer, "lm", False, ["床前"])


@pytest.mark.parametrize("name", ["chinese_vocab_2020-11-17.model", "chinese_vocab_2020-11-22.model"])
def test_prompts_of_cpm(name):
    pytest.importorskip("jieba", reason="needs pip install jieba sentencepiece")
    tokenizer = CpmTokenizer(shared(f"cpm/{name}"))
    prompt = "美国的首都是华盛顿\n狗 dog\n中国的首都是"
    ids = [356, 11, 6597, 15, 13176, 8, 3, 1377, 8, 10, 8, 28535, 8, 3, 98, 11, 6597, 15]
    assert encode_prompt(tokenizer, "lm", True, prompt) == ids
    assert encode_prompt(tokenizer, "lm", True, "\n") == [8, 3]
    assert default_stop_ids(tokenizer) == (7,) == (stop_id(tokenizer, "<eod>"),)
    assert choice_ids(tokenizer, "lm", prompt, "北京\n") == tokenizer.encode(prompt + "北京\n")[0][len(ids) :]
    with pytest.raises(GenerationError, match="has no token"):
        encode_prompt(tokenizer, "lm", True, "")


def test_prompts_of_bpe():
    tokenizer = bpe_tokenizer()
    plain = tokenizer.encode("the model")[0]
    ended = BpeTokenizer(tokenizer.token_dict, [], token_start="<|endoftext|>", token_end="<|endoftext|>")
    assert encode_prompt(tokenizer, "lm", True, "the model") == plain
    assert ended.start_id not in encode_prompt(ended, "lm", True, "the model")
    assert default_stop_ids(tokenizer) == (tokenizer.eos_id,) == default_stop_ids(ended)
    assert default_stop_ids(BpeTokenizer({"a": 0}, [])) == default_stop_ids(None) == ()
    assert choice_ids(tokenizer, "lm", "the", " model") == plain[1:]


def test_choices():
    """Together as the joint text is encoded; where that cuts across the boundary, the choice's own ids."""
    tokenizer = Tokenizer(EMBEDDED, do_lower_case=True)
    ids = tokenizer.tokens_to_ids
    assert choice_ids(tokenizer, "lm", "天气", "很好") == ids(["很", "好"])
    assert choice_ids(tokenizer, "unilm", "天气", "很好") == ids(["很", "好"])
    joint = tokenizer.encode("the end")[0][1:-1]
    assert choice_ids(tokenizer, "lm", "the", " end") == joint[1:]
    across = next(w for w in sorted(tokenizer.token_dict) if w.isascii() and w.isalpha() and len(w) > 3)
    assert choice_ids(tokenizer, "lm", across[:1], across[1:]) == tokenizer.encode(across[1:])[0][1:-1]
    for choice in ("", " "):
        with pytest.raises(GenerationError, match="has no token"):
            choice_ids(tokenizer, "lm", "天气", choice)
    with pytest.raises(GenerationError, match="not int"):
        choice_ids(tokenizer, "lm", "天气", 3)


def test_choices_of_sentencepiece(tmp_path):
    tokenizer = SpTokenizer(sentencepiece_model(tmp_path / "spm", byte_fallback=True))
    for prompt in ("Hello", "the mod", "中国", "狗"):
        for choice in ("中国", "el", "好", " 好", "\u2582", "dog"):
            both = [*encode_prompt(tokenizer, "lm", True, prompt), *choice_ids(tokenizer, "lm", prompt, choice)]
            assert tokenizer.decode(both) == tokenizer.decode(tokenizer.encode(prompt + choice)[0])
    assert default_stop_ids(tokenizer) == (tokenizer.token_dict["</s>"],)
    assert default_stop_ids(SpTokenizer(tmp_path / "spm", None, None)) == (tokenizer.token_dict["</s>"],)
    assert choice_ids(tokenizer, "unilm", "中国", "狗")[0] != tokenizer.token_dict["\u2581"]


def test_stop_tokens_by_name():
    tokenizer = Tokenizer(EMBEDDED, do_lower_case=True)
    assert stop_id(tokenizer, "。") == tokenizer.token_dict["。"]
    assert stop_id(tokenizer, 3) == 3
    with pytest.raises(GenerationError, match=r"did you mean .*'\[SEP\]'"):
        stop_id(tokenizer, "[SEP")
    with pytest.raises(GenerationError, match="8000"):
        stop_id(tokenizer, 8000)
    with pytest.raises(GenerationError, match="stop token None"):
        stop_id(tokenizer, None)
