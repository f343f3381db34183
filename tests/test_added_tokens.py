"""Added and special tokens as the files beside a vocabulary describe them: ids are transformers'."""

import json
import pickle
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from added_tokens import FORMS, GOLDEN, TOKENS, VOCAB, lines, settings, write_folder
from text_samples import chinese_sentences, hostile_lines
from tokenizers import AddedToken

import bert4x
from bert4x.errors import TokenizerError
from bert4x.tokenizers import BpeTokenizer, Tokenizer, load_tokenizer, load_vocab


def dump(path: Path, data) -> Path:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


def folder_of(folder: Path, vocab=VOCAB, **files) -> Path:
    """A folder with a vocab.txt and JSON files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    if vocab is not None:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    for name, data in files.items():
        dump(folder / f"{name}.json", data)
    return folder


@pytest.mark.parametrize(("form", "lower"), settings())
def test_fifty_tokens_of_all_kinds(form, lower, tmp_path):
    golden = json.loads(GOLDEN.read_text())[f"{form}-{lower}"]
    tokenizer = load_tokenizer(write_folder(tmp_path, form, lower))
    texts = lines()
    assert tokenizer.encode_batch(texts)[0] == golden["ids"]
    for text, ids in zip(texts, golden["ids"], strict=True):
        assert tokenizer.encode(text)[0] == ids == tokenizer.encode_with_offsets(text)[0]
        tokens = tokenizer.tokenize(text)
        assert tokenizer.tokens_to_ids(tokens) == ids
    special = [tokenizer.token_dict[one.content] for one in tokenizer.added_tokens.values() if one.special]
    assert sorted(special) == golden["special"]


@pytest.mark.parametrize("form", FORMS)
def test_saved_and_loaded_again(form, tmp_path):
    """bert4x reads back the same; a plain reader of vocab.txt finds every token at its id."""
    tokenizer = load_tokenizer(write_folder(tmp_path / "a", form, True))
    (tmp_path / "b").mkdir()
    tokenizer.save(tmp_path / "b")
    again, copy = load_tokenizer(tmp_path / "b"), pickle.loads(pickle.dumps(tokenizer))
    ids = tokenizer.encode_batch(lines())[0]
    assert again.encode_batch(lines())[0] == ids == copy.encode_batch(lines())[0]
    assert again.token_dict == tokenizer.token_dict
    held = load_vocab(tmp_path / "b" / "vocab.txt")
    assert len(held) == tokenizer.vocab_size
    assert all(held[token] == i for token, i in tokenizer.token_dict.items() if not any(c.isspace() for c in token))


@pytest.mark.parametrize(("form", "lower"), settings())
def test_same_as_transformers(form, lower, tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers' BertTokenizer")
    folder = write_folder(tmp_path, form, lower)
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    rng = random.Random(1)
    texts = [text + rng.choice(TOKENS) + text[::-1] for text in hostile_lines(200, seed=8) + chinese_sentences(50)]
    found = theirs(texts, return_offsets_mapping=True)
    assert ours.encode_batch(texts)[0] == found["input_ids"]
    offsets = [[tuple(pair) for pair in row] for row in found["offset_mapping"]]
    assert [ours.encode_with_offsets(text)[1] for text in texts] == offsets


def test_decoding_leaves_out_special_tokens_only():
    added = {9: AddedToken("[E1]"), 10: AddedToken("<s>", special=True), 11: AddedToken("New York")}
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "我", "爱", "hello", "[unused1]"])
    tokenizer = Tokenizer({token: i for i, token in enumerate(vocab)}, True, added_tokens=added)
    ids = tokenizer.encode("hello [E1]我<s>new york[MASK]爱")[0]
    assert ids == [2, 7, 9, 5, 10, 11, 4, 6, 3]
    assert tokenizer.decode([*ids, 8]) == "hello [E1]我New York爱"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "[CLS] hello [E1]我<s> New York [MASK]爱[SEP]"
    assert tokenizer.rematch("hello new york", tokenizer.tokenize("hello new york"))[2] == list(range(6, 14))


def test_equal_when_normalised_or_nothing_left():
    """`tokenizers` takes any one of equal tokens, another one each time, and finds an empty one without end."""
    added = {5: AddedToken("ChatGPT"), 6: AddedToken("chatgpt"), 7: AddedToken("\u0301"), 8: AddedToken("\u200b")}
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    for _ in range(5):
        tokenizer = Tokenizer(vocab, True, added_tokens=added)
        assert tokenizer.encode("CHATGPT\u0301 chatgpt")[0] == [2, 5, 5, 3]
    assert tokenizer.ids_to_tokens([6, 7]) == ["chatgpt", "\u0301"]


def ids_of(*tokens: str) -> list[int]:
    return [VOCAB.index(token) for token in tokens]


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        (  # before 4.34: only named special tokens are special, the others match in any case
            {"added_tokens": {"[E1]": 133}, "special_tokens_map": {"additional_special_tokens": ["[E1]"]}},
            "[e1]一",
            [133, 6],
        ),
        ({"added_tokens": {"[E1]": 133}, "tokenizer_config": {"additional_special_tokens": ["[E1]"]}}, "[E1]", [133]),
        ({"special_tokens_map": {"mask_token": {"content": "[MASK]", "normalized": True}}}, "[mask]", [4]),
        ({"special_tokens_map": {"mask_token": "foo"}}, "foo[MASK]", ids_of("foo", "[", "m", "##a", "##s", "##k", "]")),
        ({"tokenizer_config": {"extra_special_tokens": ["[X]", "[Y]"]}}, "[Y][X]", [134, 133]),
        (  # where tokenizer_config.json lists the added tokens, the older files do not count
            {
                "tokenizer_config": {"added_tokens_decoder": {"133": {"content": "[A]"}}},
                "added_tokens": {"[B]": 133},
            },
            "[a]",
            [133],
        ),
        ({"tokenizer_config": {"added_tokens_decoder": {"140": {"content": "[A]"}}}}, "[A]", [140]),  # a gap
    ],
)
def test_files(files, text, expected, tmp_path):
    files["tokenizer_config"] = {"do_lower_case": True} | files.get("tokenizer_config", {})
    tokenizer = load_tokenizer(folder_of(tmp_path, **files))
    assert tokenizer.encode(text)[0][1:-1] == expected
    assert tokenizer.encode_batch([text])[0] == [tokenizer.encode(text)[0]]


def test_names_of_special_tokens(tmp_path):
    names = {"pad_token": "<p>", "unk_token": "<u>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<m>"}
    vocab = ["x", *names.values(), "我", "[MASK]", "[PAD]"]
    folder = folder_of(tmp_path, vocab, tokenizer_config={"do_lower_case": True} | names)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("我犇<m>")[0] == [3, 6, 2, 5, 4]
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.unk_id) == (1, 5, 2)
    assert tokenizer.encode_batch(["我", "我我"], padding=True)[0].tolist() == [[3, 6, 4, 1], [3, 6, 6, 4]]
    assert tokenizer.encode("[MASK]")[0] == [3, 2, 2, 2, 4]  # not the mask of this vocabulary
    assert tokenizer.decode([3, 6, 5, 4, 1]) == "我"
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).names == tokenizer.names
    dump(tmp_path / "tokenizer_config.json", names | {"pad_token": "absent"})
    with pytest.warns(UserWarning, match="name 'absent' as pad_token"):
        assert load_tokenizer(tmp_path).pad_id is None
    dump(tmp_path / "tokenizer_config.json", names | {"unk_token": "absent"})
    with pytest.raises(TokenizerError, match="lacks absent"), pytest.warns(UserWarning, match="unk_token"):
        load_tokenizer(tmp_path)


def test_which_normalisation_counts(tmp_path):
    """tokenizer_config.json's, with BertTokenizer's defaults; without it, and for a generic class, tokenizer.json's."""
    vocab = {token: i for i, token in enumerate([*VOCAB, "E", "Hello"])}
    made = Tokenizer(vocab, False, strip_accents=True, tokenize_chinese_chars=False)
    made._backend.save(str(tmp_path / "tokenizer.json"))
    for config, expected in (
        (None, [vocab["Hello"], vocab["cafe"], 1]),
        ({"do_lower_case": True, "strip_accents": False}, [vocab["hello"], vocab["café"], 5, 6]),
        ({"tokenizer_class": "BertTokenizer"}, [vocab["hello"], vocab["cafe"], 5, 6]),
        ({"do_lower_case": False}, [vocab["Hello"], vocab["café"], 5, 6]),
        ({"do_lower_case": True, "tokenizer_class": "PreTrainedTokenizerFast"}, [vocab["Hello"], vocab["cafe"], 1]),
    ):
        if config is not None:
            dump(tmp_path / "tokenizer_config.json", config)
        ids = load_tokenizer(tmp_path).encode("Hello café 的一")[0]
        generic = config is not None and config.get("tokenizer_class") == "PreTrainedTokenizerFast"
        assert (ids if generic else ids[1:-1]) == expected, config  # the file has no post_processor
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in reversed(vocab)), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"contradict each other .*tokenizer.json counts"):
        assert load_tokenizer(tmp_path).token_dict == vocab


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "a"}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"4": {}}}},
        {"tokenizer_config": {"added_tokens_decoder": [1]}},
        {"tokenizer_config": {"cls_token": ["[CLS]"]}},
        {"tokenizer_config": {"cls_token": {"content": "[CLS]", "lstrip": 1}}},
        {"tokenizer_config": {"extra_special_tokens": "abc"}},
        {"tokenizer_config": {"do_lower_case": "yes"}},
        {"special_tokens_map": {"mask_token": 4}},
        {"added_tokens": {"[E1]": "x"}},
        {"added_tokens": {"[E1]": -1}},
        {"added_tokens": {"[E1]": 1.5}},
        {"tokenizer": {"added_tokens": 3, "model": {"type": "WordPiece", "vocab": {}}}},
        {"tokenizer": {"added_tokens": [{"id": None, "content": "a"}], "model": {"type": "WordPiece", "vocab": {}}}},
    ],
)
def test_damaged_files(files, tmp_path):
    with pytest.raises(TokenizerError, match=f"{next(iter(files))}.json"):
        load_tokenizer(folder_of(tmp_path, **files))


def test_saving_over_another_vocabulary(tmp_path):
    """What an older tokenizer left in the folder does not count any more."""
    write_folder(tmp_path, "json", True)
    dump(tmp_path / "added_tokens.json", {"x": 3})
    dump(tmp_path / "special_tokens_map.json", {"mask_token": "x"})
    vocab = {token: i for i, token in enumerate(["[UNK]", "x", "[MASK]", "[CLS]", "[SEP]"])}
    Tokenizer(vocab, True).save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.token_dict == vocab and tokenizer.encode("x[MASK]")[0] == [3, 1, 2, 4]


def test_a_model_saved_over_another_vocabulary(tmp_path, tiny):
    write_folder(tmp_path / "old", "json", True)
    model = bert4x.load(tiny())
    again = bert4x.load(bert4x.save(model, tmp_path / "old", "hf"))
    assert again.tokenizer.encode("今天天气")[0] == model.tokenizer.encode("今天天气")[0]
    assert again.tokenizer.vocab_size == model.tokenizer.vocab_size


def test_byte_level_vocabularies(tmp_path):
    added = {8: AddedToken("我们", special=True), 9: AddedToken(" x", lstrip=True)}
    vocab = {"h": 0, "e": 1, "he": 2, "<|endoftext|>": 3, "Ġ": 4, "x": 5, "<pad>": 6}
    tokenizer = BpeTokenizer(vocab, [("h", "e")], added_tokens=added, token_pad="<pad>")
    assert tokenizer.encode("he我们he x")[0] == [2, 8, 2, 9] and tokenizer.pad_id == 6
    assert tokenizer.decode([2, 8, 2, 9]) == "hehe x"
    assert tokenizer.decode([2, 8], skip_special_tokens=False) == "he我们"
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, BpeTokenizer) and again.encode("he我们he x")[0] == [2, 8, 2, 9]


def test_padding_by_name():
    tokenizer = Tokenizer({token: i for i, token in enumerate(VOCAB)})
    token_ids, segment_ids = tokenizer.encode_batch(["的", "的一是不了"], maxlen=6, padding="max_length")
    assert token_ids.tolist() == [[2, 5, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]] and segment_ids.shape == (2, 6)
    longest = tokenizer.encode_batch(["的", "的一"], maxlen=9, padding="longest")[0]
    assert np.array_equal(longest, tokenizer.encode_batch(["的", "的一"], padding=True)[0]) and longest.shape == (2, 4)
    for wrong in ("max", "do_not_pad", 3):
        with pytest.raises(TokenizerError, match="expected one of False, True, 'longest', 'max_length'"):
            tokenizer.encode_batch(["的"], padding=wrong)
    with pytest.raises(TokenizerError, match="give it"):
        tokenizer.encode_batch(["的"], padding="max_length")
    with pytest.raises(TokenizerError, match="; 2 given"):
        tokenizer.encode("的", "一", maxlen=2)
