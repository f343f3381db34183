"""WordPiece, byte-level BPE, vocabulary files; what needs transformers or real vocabularies skips without them."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers as huggingface
from text_samples import chinese_sentences, hostile_lines, made_vocab

from bert4x.errors import TokenizerError
from bert4x.tokenizers import BpeTokenizer, Tokenizer, load_tokenizer, load_vocab, save_vocab

SHARED = Path(__file__).parents[2] / "shared" / "data"


def words(text: str) -> list[str]:
    return text.split()


TINY = words("[PAD] [UNK] [CLS] [SEP] [MASK] 我 爱 北 京 hello wor ##ld ##s , ， 。 e ##e [ ] mask cafe i σ 1 ##2 ##京")


@pytest.fixture
def tiny() -> Tokenizer:
    return Tokenizer({token: i for i, token in enumerate(TINY)}, do_lower_case=True)


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def made(request) -> Tokenizer:
    return Tokenizer({token: i for i, token in enumerate(made_vocab())}, do_lower_case=request.param)


@pytest.fixture(scope="module")
def real_vocab() -> Path:
    path = SHARED / "vocab" / "bert_zh" / "vocab.txt"
    if not path.is_file():
        pytest.skip("needs Chinese BERT's vocab.txt in ../shared/data")
    return path


# ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("我爱北京。", "我 爱 北 京 。"),
        ("Hello, WORLDS我", "hello , wor ##ld ##s 我"),
        ("  \t我\u3000爱\n", "我 爱"),
        ("café ÉE", "cafe e ##e"),
        ("cafe\u0301", "cafe"),
        ("我[MASK]京[mask]", "我 [MASK] 京 [ mask ]"),
        ("[MASK][MASK]12[SEP]", "[MASK] [MASK] 1 ##2 [SEP]"),
        ("he\u200bllo he\x00llo\x7f", "hello hello"),
        ("ΣİI", "σ"),
        ("12京", "1 ##2 京"),
        ("hello\u2028e", "hello e"),
        ("我\ud800爱", "我 爱"),
    ],
)
def test_tiny_vocabulary(tiny, text, expected):
    expected = words(expected) if "Σ" not in text else ["σii"]  # cannot be spelled: the word itself, whose id is [UNK]
    assert tiny.tokenize(text) == ["[CLS]", *expected, "[SEP]"]
    ids = [2, *(TINY.index(token) if token in TINY else 1 for token in expected), 3]
    assert tiny.encode(text) == (ids, [0] * len(ids))
    assert tiny.encode_batch([text, text]) == ([ids] * 2, [[0] * len(ids)] * 2)


def test_word_maxlen(tiny):
    assert tiny.encode("e" * 100)[0] == [2, TINY.index("e"), *[TINY.index("##e")] * 99, 3]
    assert tiny.encode("e" * 101)[0] == [2, 1, 3]
    longer = Tokenizer(tiny.token_dict, do_lower_case=True, word_maxlen=200)
    assert len(longer.encode("e" * 200)[0]) == 202


def test_batch_equals_the_library_on_whole_texts(made):
    for lines in (hostile_lines(4000, seed=1), chinese_sentences(1000)):
        whole = [encoding.ids for encoding in made._backend.encode_batch(lines, add_special_tokens=False)]
        assert made._text_ids(lines) == whole
        assert sum(map(len, whole)) > len(lines)


def test_table_equals_the_library_on_every_character(made):
    """Each character up to U+FFFF, and some above, between two letters and after a Chinese character."""
    chars = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x30000, 61))]
    lines = [f"a{char}a我{char}" for char in chars]
    whole = [encoding.ids for encoding in made._backend.encode_batch(lines, add_special_tokens=False)]
    different = [
        hex(ord(c)) for c, ours, theirs in zip(chars, made._text_ids(lines), whole, strict=True) if ours != theirs
    ]
    assert not different
    assert (made._table >= 0).sum() > 27000


@pytest.mark.parametrize("lower", [True, False])
def test_same_ids_as_transformers(lower):
    transformers = pytest.importorskip("transformers", reason="compares with transformers' BertTokenizerFast")
    vocab = {token: i for i, token in enumerate(made_vocab())}
    ours, theirs = Tokenizer(vocab, lower), transformers.BertTokenizerFast(vocab=vocab, do_lower_case=lower)
    lines = hostile_lines(3000, seed=2) + chinese_sentences(500)
    assert ours.encode_batch(lines)[0] == theirs(lines)["input_ids"]
    seconds = lines[::-1]
    both = theirs(lines[:300], seconds[:300])
    assert ours.encode_batch(lines[:300], seconds[:300]) == (both["input_ids"], both["token_type_ids"])


def test_published_ids(real_vocab):
    tokenizer = Tokenizer(real_vocab, do_lower_case=True)
    assert tokenizer.encode("语言模型") == ([101, 6427, 6241, 3563, 1798, 102], [0] * 6)
    assert tokenizer.vocab_size == 21128 == len(tokenizer.token_dict)


def test_remembered_runs_stay_bounded(tiny, monkeypatch):
    monkeypatch.setattr("bert4x.tokenizers.wordpiece._CHUNK", 1000)
    for start in range(0, 20000, 500):
        texts = [f"x{number}" for number in range(start, start + 500)]
        assert tiny.encode_batch(texts)[0] == [[2, 1, 3]] * 500
        assert sum(map(len, tiny._runs)) < 2100


def test_options_reach_the_library():
    vocab = {token: i for i, token in enumerate(TINY)}
    assert Tokenizer(vocab, True, strip_accents=False).tokenize("café")[1:-1] == ["café"]
    assert Tokenizer(vocab, False, strip_accents=True).tokenize("café")[1:-1] == ["cafe"]
    whole = Tokenizer(vocab, True, tokenize_chinese_chars=False)
    assert whole.encode("北京")[0] == [2, TINY.index("北"), TINY.index("##京"), 3]
    assert whole.encode_batch(["北京"])[0] == [whole.encode("北京")[0]]


# pairs, truncation, padding


def test_pairs(tiny):
    assert tiny.encode("我爱", "京") == ([2, 5, 6, 3, 8, 3], [0, 0, 0, 0, 1, 1])
    assert tiny.encode("我爱", "京", pattern="S*ES*E") == ([2, 5, 6, 3, 2, 8, 3], [0, 0, 0, 0, 1, 1, 1])
    assert tiny.encode(["[CLS]", "我", "[SEP]"], ["[CLS]", "京", "??"]) == ([2, 5, 3, 8, 1], [0, 0, 0, 1, 1])
    assert tiny.encode_batch(["我", ["[CLS]", "爱"]], ["京", "京"]) == (
        [[2, 5, 3, 8, 3], [2, 6, 8, 3]],
        [[0, 0, 0, 1, 1], [0, 0, 1, 1]],
    )
    bare = Tokenizer(tiny.token_dict, token_start=None, token_end=None)
    assert bare.encode("我爱", "京") == ([5, 6, 8], [0, 0, 1])
    assert bare.tokenize("我") == ["我"]


def popped(maxlen, index, *sequences):
    """Truncation as bert4keras defines it: one token at a time from the longest sequence, the first of equals."""
    sequences = [list(sequence) for sequence in sequences]
    while sum(map(len, sequences)) > maxlen:
        lengths = [len(sequence) for sequence in sequences]
        sequences[lengths.index(max(lengths))].pop(index)
    return sequences


def test_truncation_of_pairs(tiny):
    rng = random.Random(0)
    for _ in range(300):
        first, second = ("".join(rng.choices("我爱北京", k=rng.randint(0, 9))) for _ in range(2))
        maxlen = rng.randint(4, 20)
        for pattern, extra in (("S*E*E", 1), ("S*ES*E", 0)):
            for truncate_from, index in (("right", -2), ("left", 1), (-2, -2)):
                if maxlen + extra < 5:
                    continue
                a, b = popped(maxlen + extra, index, tiny.tokenize(first), tiny.tokenize(second))
                b = b[extra:]
                expected = tiny.tokens_to_ids(a + b), [0] * len(a) + [1] * len(b)
                assert tiny.encode(first, second, maxlen, pattern, truncate_from) == expected


def test_truncation_of_one(tiny):
    assert tiny.tokenize("我爱北京", maxlen=4) == ["[CLS]", "我", "爱", "[SEP]"]
    assert tiny.encode("我爱北京", maxlen=4, truncate_from="left")[0] == [2, 7, 8, 3]
    assert tiny.encode("我爱北京", maxlen=5, truncate_from=2)[0] == [2, 5, 7, 8, 3]
    assert tiny.encode("我爱北京", maxlen=2)[0] == [2, 3]
    assert tiny.encode_batch(["我爱北京", "我"], maxlen=4)[0] == [[2, 5, 6, 3], [2, 5, 3]]
    with pytest.raises(TokenizerError, match="maxlen"):
        tiny.encode("我爱北京", maxlen=1)
    with pytest.raises(TokenizerError, match="maxlen"):
        tiny.encode("我爱北京", "我", maxlen=2)
    with pytest.raises(TokenizerError, match="truncate_from"):
        tiny.encode("我爱北京", maxlen=4, truncate_from="middle")


def test_padding(tiny):
    token_ids, segment_ids = tiny.encode_batch(["我爱", "京"], ["我", "京"], padding=True)
    assert token_ids.dtype == segment_ids.dtype == np.int32
    assert token_ids.tolist() == [[2, 5, 6, 3, 5, 3], [2, 8, 3, 8, 3, 0]]
    assert segment_ids.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert tiny.encode_batch([], padding=True)[0].shape == (0, 0)
    assert tiny.encode_batch([]) == ([], [])


def test_wrong_calls(tiny):
    with pytest.raises(TokenizerError, match="not NoneType"):
        tiny.encode(None)
    with pytest.raises(TokenizerError, match="list of texts"):
        tiny.encode_batch("我")
    with pytest.raises(TokenizerError, match="pairs"):
        tiny.encode_batch(["我"], ["我", "爱"])
    with pytest.raises(TokenizerError, match="pattern"):
        tiny.encode("我", pattern="E*S")
    with pytest.raises(TokenizerError, match=str(len(TINY))):
        tiny.decode([len(TINY)])


# offsets


def assert_spans_fit(tokenizer, text):
    tokens = tokenizer.tokenize(text)
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)[0]
    assert len(tokens) == len(ids)
    mapping = tokenizer.rematch(text, tokens)
    assert mapping[0] == mapping[-1] == []
    assert offsets[0] == offsets[-1] == (0, 0)
    end = 0
    for token, indices, (start, stop) in list(zip(tokens, mapping, offsets, strict=True))[1:-1]:
        assert indices, (text, token)
        assert indices == sorted(set(indices))
        # only the pieces of one character (Hangul, which NFD takes apart) may share it
        assert indices[0] >= end - 1
        assert indices[0] >= end or token.startswith("##")
        end = indices[-1] + 1
        assert start <= indices[0] and indices[-1] < stop
        written = "".join(text[index] for index in indices)
        normalized = "".join(map(tokenizer._normalize_char, written))
        piece = token[2:] if token.startswith("##") and token in tokenizer.token_dict else token
        expands = any(len(tokenizer._normalize_char(text[index])) > 1 for index in indices)
        assert piece in (normalized, written) or (expands and piece in normalized)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ΣİI e", [("σii", "ΣİI"), ("e", "e")]),
        ("e\u0301e 😀hello", [("e", "e"), ("##e", "e"), ("😀hello", "😀hello")]),
        ("ﬁ CAFÉ我[MASK]", [("ﬁ", "ﬁ"), ("cafe", "CAFÉ"), ("我", "我"), ("[MASK]", "[MASK]")]),
        ("[CLS]我[SEP]", [("[CLS]", "[CLS]"), ("我", "我"), ("[SEP]", "[SEP]")]),
        ("he\u200bllo wor\x00lds", [("hello", "hello"), ("wor", "wor"), ("##ld", "ld"), ("##s", "s")]),
        ("\ud83d我", [("我", "我")]),
    ],
)
def test_rematch(tiny, text, expected):
    tokens = tiny.tokenize(text)
    mapping = tiny.rematch(text, tokens)
    found = [(token, "".join(text[i] for i in indices)) for token, indices in zip(tokens, mapping, strict=True)]
    assert found == [("[CLS]", ""), *expected, ("[SEP]", "")]


def test_offsets_of_hostile_text(made):
    for text in hostile_lines(1500, seed=3):
        assert_spans_fit(made, text)


def test_rematch_of_parts_and_strangers(tiny):
    assert tiny.rematch("我爱 北京", ["爱", "京"]) == [[1], [4]]
    assert tiny.rematch("我爱", ["[CLS]", "京", "爱", "[SEP]"]) == [[], [], [1], []]
    assert tiny.offsets("我 爱") == [(0, 0), (0, 1), (2, 3), (0, 0)]


def test_pre_tokenize_and_translate():
    vocab = {token: i for i, token in enumerate([*TINY, "北京"])}
    tokenizer = Tokenizer(
        vocab, True, pre_tokenize=lambda text: [text[:1], text[1:3], text[3:]], token_translate={"我": "[SEP]"}
    )
    assert tokenizer.tokenize("我北京Wórlds") == ["[CLS]", "[SEP]", "北京", "wor", "##ld", "##s", "[SEP]"]
    assert tokenizer.encode("我北京Wórlds")[0] == [2, 3, len(TINY), 10, 11, 12, 3]
    assert tokenizer.encode_batch(["我北京Wórlds"])[0] == [tokenizer.encode("我北京Wórlds")[0]]
    assert tokenizer.offsets("我北京Wórlds")[1:-1] == [(0, 1), (1, 3), (3, 6), (6, 8), (8, 9)]
    assert tokenizer.decode([3, len(TINY)]) == "我北京"


# decoding


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("[CLS] 今 天 , 我 爱 北 京 ！ [SEP]", "今天,我爱北京！"),
        ("hello world", "hello world"),
        ("un ##aff ##able , it ' s 3 . 14 %", "unaffable, it's 3.14%"),
        ("我 用 python 3 . 11 写 code 。 ok ？", "我用python 3.11写code。ok？"),
        ("f ( x ) ， “ yes ” ～ no", "f(x)，“yes”～no"),
        ("[UNK] [unused1] [ a ]", "[a]"),
        ("", ""),
    ],
)
def test_decode(tiny, tokens, text):
    assert tiny.decode([], tokens=words(tokens)) == text


def test_decode_gives_chinese_back(made):
    for text in chinese_sentences(200):
        kept = [c for c in text if c in made.token_dict and not c.isascii() and c != "～"]
        assert made.decode(made.encode("".join(kept))[0]) == "".join(kept)


def test_tokenizer_survives_pickling(made):
    copy = pickle.loads(pickle.dumps(made))
    lines = hostile_lines(50, seed=4)
    assert copy.encode_batch(lines) == made.encode_batch(lines)


# vocabulary files


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_vocab_files(tmp_path):
    expected = {"[PAD]": 0, "的": 1, "\u2028": 2, "##a": 3}
    for content in (
        "[PAD]\n的\n\u2028\n##a\n",
        "\ufeff[PAD]\r\n的\r\n\u2028\r\n##a",
        "[PAD]\t0\n##a\t3\n的\t1\n\u2028\t2\n",
    ):
        assert load_vocab(write(tmp_path / "vocab.txt", content)) == expected
    assert load_vocab(write(tmp_path / "vocab.txt", "的 500\n##a 20\n")) == {"的": 0, "##a": 1}
    assert load_vocab(write(tmp_path / "vocab.txt", "的\n".encode("gb18030")), encoding="gb18030") == {"的": 0}
    save_vocab(tmp_path / "new" / "vocab.txt", expected)
    assert load_vocab(tmp_path / "new" / "vocab.txt") == expected
    assert (tmp_path / "new" / "vocab.txt").read_bytes() == "[PAD]\n的\n\u2028\n##a\n".encode()


def test_every_line_keeps_its_number(tmp_path):
    """ERNIE 3.0's vocabulary has "$" in two lines; taking one out would shift every id after it."""
    path = write(tmp_path / "vocab.txt", "[UNK]\n$\n\n的\n$\n\n了\n\n")
    assert load_vocab(path) == {"[UNK]": 0, "$": 4, "": 5, "的": 3, "了": 6}
    tokenizer = Tokenizer(path, token_start=None, token_end=None)
    assert tokenizer.encode("$的了")[0] == [4, 3, 6] and tokenizer.vocab_size == 7
    with pytest.raises(TokenizerError, match="no token has id 1"):
        tokenizer.decode([1])
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode("$的了")[0] == [4, 3, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("的".encode("gb18030"), "encoding="),
        (b"a\x00b\n", "binary"),
        ("a\t0\nb\t1\nc\t1\n", "lines 2 and 3 both have id 1"),
        ("a\t0\nb\n", "line 2: expected a token, a tab and its id"),
        ("a\t0\nb\t" + "9" * 5000, "line 2"),
    ],
)
def test_bad_vocab_files(tmp_path, content, message):
    with pytest.raises(TokenizerError, match=message):
        load_vocab(write(tmp_path / "vocab.txt", content))


def test_bad_vocabularies(tmp_path):
    with pytest.raises(TokenizerError, match="no vocabulary file"):
        load_vocab(tmp_path / "absent.txt")
    with pytest.raises(TokenizerError, match="no vocabulary file"):
        Tokenizer(tmp_path)
    for token_dict, message in (
        ({}, r"lacks \[UNK\]"),
        ({"[UNK]": 0}, r"token_start='\[CLS\]'"),
        ({"[UNK]": 0, "a": 0}, "share an id"),
        ({"[UNK]": -1}, "ids from 0 on"),
        ({"[UNK]": "0"}, "ids from 0 on"),
    ):
        with pytest.raises(TokenizerError, match=message):
            Tokenizer(token_dict)
    with pytest.raises(TokenizerError, match=r"lacks \[UNK\]"):
        Tokenizer(write(tmp_path / "vocab.txt", "[CLS]\n[SEP]\n"))
    (tmp_path / "vocab.txt").unlink()
    for token_dict in ({"a": 1}, {"a": 0, "b": 0}, {"a b": 0}, {"\n": 0}):
        with pytest.raises(TokenizerError):
            save_vocab(tmp_path / "vocab.txt", token_dict)
    assert not list(tmp_path.iterdir())


def test_simplified(tmp_path):
    tokens = ["[PAD]", "[unused1]", "[UNK]", "的", "##的", "a", "##a", "##,", ",", "...", "[CLS]", "ok的", "##"]
    path = write(tmp_path / "vocab.txt", "\n".join(tokens))
    kept = ["[PAD]", "[UNK]", "[CLS]", "的", "a", "##a", ",", "##"]
    token_dict, keep_tokens = load_vocab(path, simplified=True)
    assert list(token_dict) == kept and list(token_dict.values()) == list(range(8))
    assert [tokens[old] for old in keep_tokens] == kept
    token_dict, keep_tokens = load_vocab(path, simplified=True, startswith=["[CLS]", "[unused1]"])
    assert keep_tokens == [10, 1, 3, 5, 6, 8, 12]
    with pytest.raises(TokenizerError, match=r"'\[SEP\]'"):
        load_vocab(path, simplified=True, startswith=["[SEP]"])


def test_simplified_chinese_bert(real_vocab):
    token_dict, keep_tokens = load_vocab(real_vocab, simplified=True, startswith=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    assert len(token_dict) == len(keep_tokens) == 13584  # bert4keras' own count
    assert keep_tokens[:4] == [0, 100, 101, 102]
    small, full = Tokenizer(token_dict, True), Tokenizer(real_vocab, True)
    text = "今天天气不错，unaffable 2024！"
    assert [keep_tokens[i] for i in small.encode(text)[0]] == full.encode(text)[0]


# byte-level BPE


@pytest.fixture
def bpe_files(tmp_path) -> tuple[Path, Path]:
    alphabet = sorted(huggingface.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["!", *(c for c in alphabet if c != "!"), "he", "ll", "hell", "Ġhell", "<|endoftext|>"]
    vocab = write(tmp_path / "vocab.json", json.dumps({token: i for i, token in enumerate(tokens)}))
    return vocab, write(tmp_path / "merges.txt", "#version: 0.2\nh e\nl l\nhe ll\nĠ hell\n")


def test_bpe(bpe_files):
    tokenizer = BpeTokenizer(*bpe_files)
    ids, segments = tokenizer.encode("hello hello!<|endoftext|>")
    assert (
        tokenizer.ids_to_tokens(ids)
        == ["hell", "o", "Ġhell", "o", "!", "<|endoftext|>"]
        == tokenizer.tokenize("hello hello!<|endoftext|>")
    )
    assert segments == [0] * 6 and ids[4] == 0 and ids[5] == tokenizer.eos_id
    assert tokenizer.decode(ids) == "hello hello!"
    assert tokenizer.decode([], tokens=["Ġhell", "o"]) == " hello"
    assert tokenizer.vocab_size == 256 + 5
    for text in hostile_lines(300, seed=5):
        ids, offsets = tokenizer.encode_with_offsets(text)
        assert tokenizer.encode(text)[0] == ids
        assert tokenizer.decode(ids) == text
        assert all(0 <= start < end <= len(text) for start, end in offsets)
    with pytest.raises(TokenizerError, match="padding"):
        tokenizer.encode_batch(["a"], padding=True)
    with pytest.raises(TokenizerError):
        tokenizer.tokens_to_ids(["absent"])


@pytest.mark.parametrize("vocab", [b"", b"[]", b"{", b"{}", b'{"a": "x"}', b'{"a": -1}', b"[" * 100000, b'{"h": 0}'])
def test_bad_bpe(bpe_files, vocab):
    with pytest.raises(TokenizerError):
        BpeTokenizer(write(bpe_files[0], vocab), bpe_files[1])


# folders


def test_load_tokenizer_wordpiece(tmp_path):
    assert load_tokenizer(tmp_path) is None
    write(tmp_path / "my_vocab.txt", "\n".join(TINY))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.do_lower_case and tokenizer.encode("HELLO")[0] == [2, 9, 3]
    assert load_tokenizer(tmp_path / "model.safetensors").vocab_size == len(TINY)
    write(tmp_path / "vocab.txt", "\n".join([*TINY, "Hello"]))
    assert not load_tokenizer(tmp_path).do_lower_case
    settings = {
        "do_lower_case": True,
        "cls_token": {"content": "[MASK]"},
        "sep_token": "absent",
        "strip_accents": False,
    }
    write(tmp_path / "tokenizer_config.json", json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.do_lower_case and tokenizer.start_id == 4 and tokenizer.end_id is None
    assert tokenizer.encode("CAFÉ")[0] == [4, 1]
    write(tmp_path / "tokenizer_config.json", "{")
    with pytest.raises(TokenizerError, match="not readable JSON"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_several(tmp_path):
    for name in ("a_vocab.txt", "b_vocab.txt"):
        write(tmp_path / name, "\n".join(TINY))
    with pytest.raises(TokenizerError, match=r"a_vocab\.txt, b_vocab\.txt"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_json(tmp_path, tiny):
    tiny._backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    lines = hostile_lines(100, seed=6)
    assert tokenizer.token_dict == tiny.token_dict
    assert tokenizer.encode_batch(lines) == tiny.encode_batch(lines)
    huggingface.Tokenizer(huggingface.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.warns(UserWarning, match="WordLevel"):
        assert load_tokenizer(tmp_path) is None
    write(tmp_path / "tokenizer.json", b'{"model": {"type": "WordPiece"}, "normalizer": {"type": "BertNormalizer"}}')
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path)


def test_load_tokenizer_json_bpe(bpe_files, tmp_path):
    tokenizer = BpeTokenizer(*bpe_files)
    tokenizer._backend.save(str(tmp_path / "tokenizer.json"))
    bpe_files[0].unlink()
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, BpeTokenizer) and loaded.eos_id == tokenizer.eos_id
    lines = hostile_lines(100, seed=7)
    assert loaded.encode_batch(lines) == tokenizer.encode_batch(lines)


def test_tokens_added_in_a_folder(tmp_path):
    """As Hugging Face writes them: in tokenizer_config.json beside vocab.txt, or within tokenizer.json."""
    write(tmp_path / "vocab.txt", "\n".join(TINY))
    added = {str(len(TINY)): {"content": "<E1>", "special": True}}
    write(tmp_path / "tokenizer_config.json", json.dumps({"added_tokens_decoder": added}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode_batch(["我<E1>e<e1>"])[0] == [[2, 5, len(TINY), 16, 1, 1, 1, 3]]
    tokenizer._backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").unlink()
    assert load_tokenizer(tmp_path).encode("我<E1>")[0] == [2, 5, len(TINY), 3]


def test_load_tokenizer_bpe(bpe_files):
    vocab, merges = bpe_files
    folder = vocab.parent
    assert isinstance(load_tokenizer(folder), BpeTokenizer)
    vocab.rename(folder / "encoder.json")
    assert load_tokenizer(folder) is None
    merges.rename(folder / "vocab.bpe")
    assert (
        load_tokenizer(folder).encode("hello")[0]
        == BpeTokenizer(folder / "encoder.json", folder / "vocab.bpe").encode("hello")[0]
    )
    assert load_tokenizer(folder).eos_id == 260
    said = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "he", "add_prefix_space": True}
    write(folder / "tokenizer_config.json", json.dumps(said))
    loaded = load_tokenizer(folder)  # a special token that is named has its id in a text, too
    assert [loaded.id_to_token(i) for i in loaded.encode("oheo")[0]] == ["Ġ", "o", "he", "Ġ", "o"]
    (folder / "saved").mkdir()
    loaded.save(folder / "saved")
    assert load_tokenizer(folder / "saved").encode("oheo") == loaded.encode("oheo")
    write(folder / "tokenizer_config.json", json.dumps(said | {"split_special_tokens": True}))
    with pytest.raises(TokenizerError, match="split_special_tokens"):
        load_tokenizer(folder)


def test_chinese_bert_folder_is_lower_cased(real_vocab):
    tokenizer = load_tokenizer(real_vocab.parent)
    assert tokenizer.do_lower_case and tokenizer.encode("语言模型")[0] == [101, 6427, 6241, 3563, 1798, 102]


def test_save_and_load_again(made, tmp_path):
    made.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.token_dict == made.token_dict
    text = "Ünïcode [MASK] 床前明月光，ABC"
    assert again.encode(text) == made.encode(text)


def test_what_a_tokenizer_says_it_is():
    tokens = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "床"])}
    assert repr(Tokenizer(tokens, do_lower_case=True)) == (
        "<Tokenizer: WordPiece, 6 tokens, lower-cased; start '[CLS]' 2, end '[SEP]' 3, padding '[PAD]' 0, "
        "unknown '[UNK]' 1, mask '[MASK]' 4>"
    )
    assert "6 tokens, cased; padding" in repr(Tokenizer(tokens, token_start=None, token_end=None))
    assert repr(BpeTokenizer({"a": 0}, [])) == (
        "<BpeTokenizer: byte-level BPE, 1 tokens; no start, end, padding, unknown, mask token>"
    )


@pytest.mark.parametrize("maxlen", [0, 1, 2])
def test_too_short_for_two_texts_says_what_was_given(maxlen):
    tokens = {token: i for i, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "床"])}
    with pytest.raises(TokenizerError, match=f"; {maxlen} given"):
        Tokenizer(tokens).encode("床床", "床床", maxlen=maxlen)


def test_a_dict_without_unknown():
    """As a script makes one of the characters of a game."""
    tokenizer = Tokenizer({token: i for i, token in enumerate(["[PAD]", *"0123ab"])})
    assert "no start, end, unknown, mask token" in repr(tokenizer)
    for refused in (tokenizer.encode, tokenizer.tokenize, tokenizer.token_to_id, lambda x: tokenizer.rematch(x, [])):
        with pytest.raises(TokenizerError, match="_token_unk_id = 0"):
            refused("a")
    tokenizer._token_unk_id = 0
    assert tokenizer.encode("a 1 x b 京 2") == ([0, 5, 2, 0, 6, 0, 3, 0], [0] * 8)
    assert tokenizer.encode("a 1 x b", maxlen=4)[0] == [0, 5, 2, 0]
    assert tokenizer.tokenize("a x [PAD]") == ["[CLS]", "a", "x", "[PAD]", "[SEP]"]
    assert tokenizer.decode([5, 2, 0]) == "a 1"
    assert tokenizer._token_start_id == tokenizer.unk_id == 0
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a ?") == ([0, 5, 0, 0], [0] * 4)


def test_another_unknown(tiny):
    tiny._token_unk_id = 25
    assert tiny.encode("我 zzz 。")[0] == [2, 5, 25, TINY.index("。"), 3]
    assert tiny.encode("[UNK] 猫")[0] == [2, 1, 25, 3]


def test_names_of_scripts(tiny):
    assert (tiny._vocab_size, tiny._do_lower_case, tiny._word_maxlen) == (len(TINY), True, 100)
    assert tiny._token_dict_inv[5] == "我"
    assert tiny._token_dict["我"] == 5
    assert (tiny._token_pad, tiny._token_unk, tiny._token_mask) == ("[PAD]", "[UNK]", "[MASK]")
    assert [Tokenizer.stem(token) for token in ("##ld", "#", "wor")] == ["ld", "#", "wor"]
    kinds = [Tokenizer._is_punctuation, Tokenizer._is_cjk_character, Tokenizer._is_control, Tokenizer._is_space]
    found = {char: [kind(char) for kind in kinds].index(True) for char in "，$^京\x07\u3000"}
    assert found == {"，": 0, "$": 0, "^": 0, "京": 1, "\x07": 2, "\u3000": 3}
    assert [Tokenizer._is_special(token) for token in ("[MASK]", "[x", "")] == [True, False, False]
    assert [Tokenizer._is_redundant(token) for token in ("##京", "京", "[unused1]", "ab")] == [True, False, True, False]
    assert len(set(Tokenizer._cjk_punctuation())) == 81
    tiny._token_pad_id = 7
    assert tiny.pad_id == 7


def test_own_cutting_is_not_passed_over():
    class Characters(Tokenizer):
        def _tokenize(self, text):
            return list(text)

    assert Characters({"[UNK]": 0, "a": 1, "b": 2}, token_start=None, token_end=None).encode("abx")[0] == [1, 2, 0]
