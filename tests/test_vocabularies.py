"""Vocabularies and models together: padding ids, rows without a token, what a converted folder has."""

import json
import warnings

import numpy as np
import pytest
from added_tokens import VOCAB, lines, write_folder
from make_checkpoints import config_of, write_checkpoint
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import bert4x
from bert4x.errors import ConversionError, TokenizerError
from bert4x.generation.detokenize import Detokenizer
from bert4x.tokenizers import BackendTokenizer, BpeTokenizer, load_tokenizer, load_vocab

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "你", "好", "hello", "▁hello", ",", "world"]


def xlm_roberta_json() -> dict:
    """A tokenizer.json of XLM-R's kind, with pad id 1."""
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0 - i) for i, piece in enumerate(PIECES)], 3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(PIECES[:4])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return json.loads(tokenizer.to_str())


def odd_byte_levels():
    """Byte-level BPEs that are not GPT2's: (what differs, the tokenizer)."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "bc", "abc", "Ġa", "a1"]
    merges = [("b", "c"), ("a", "b"), ("Ġ", "a"), ("a", "1")]
    for name, model, splitter, joins in (
        ("ignore_merges", {"ignore_merges": True}, {}, None),
        ("use_regex", {}, {"use_regex": False}, None),
        ("trim_offsets", {}, {}, processors.ByteLevel(trim_offsets=True)),
        ("nothing", {}, {}, processors.ByteLevel(trim_offsets=False)),
    ):
        backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, **model))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **splitter)
        backend.decoder = decoders.ByteLevel()
        if joins is not None:
            backend.post_processor = joins
        yield name, backend


@pytest.mark.parametrize(("name", "backend"), odd_byte_levels(), ids=lambda one: one if isinstance(one, str) else "")
def test_byte_level_vocabularies_that_are_not_gpt2s(name, backend, tmp_path):
    """What a tokenizer.json says of merges, of the pattern and of spaces counts."""
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, BpeTokenizer) == (name == "nothing")
    for text in ("abc", "a1b abc a  a1", "你 abc"):
        expected = backend.encode(text)
        assert tokenizer.encode_with_offsets(text) == (expected.ids, expected.offsets)


def dump(path, data):
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def edit_config(folder, **values):
    path = folder / "config.json"
    dump(path, json.loads(path.read_text()) | values)


def test_a_tokenizer_json_of_another_kind(tmp_path):
    """Its ids, its pairs (with two </s> between them and one segment), and its padding id in the model."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of(vocab_size=16))
    edit_config(folder, pad_token_id=1, tokenizer_class="XLMRobertaTokenizer")
    dump(folder / "tokenizer.json", xlm_roberta_json())
    model = bert4x.load(folder)
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, BackendTokenizer) and model.config.pad_token_id == 1 == tokenizer.pad_id
    assert tokenizer.encode("hello，你犇") == ([0, 8, 9, 5, 3, 2], [0] * 6)
    assert tokenizer.encode("hello", "你") == ([0, 8, 2, 2, 4, 5, 2], [0] * 7)
    assert tokenizer.encode("hello", "你好你好", maxlen=8)[0] == [0, 8, 2, 2, 4, 5, 6, 2]
    assert tokenizer.encode_with_offsets("hello你")[1] == [(0, 0), (0, 5), (5, 6), (0, 0)]
    assert tokenizer.rematch("hello你犇", tokenizer.tokenize("hello你犇")) == [[], [0, 1, 2, 3, 4], [5], [6], []]
    assert tokenizer.rematch("hello你", ["absent", "你"]) == [[], [5]]
    assert tokenizer.encode("hello <mask>")[0] == [0, 8, 11, 2] and tokenizer.mask_id == 11
    assert tokenizer.decode([0, 8, 5, 11, 2, 1]) == "hello你"
    writer = Detokenizer(tokenizer)
    assert "".join([writer.add(i) for i in (0, 8, 5, 8, 2)]) + writer.finish() == "hello你 hello"
    ids, segments = tokenizer.encode_batch(["hello你好", "你"], padding=True)
    together = np.asarray(model.predict([ids, segments], verbose=0))
    alone = np.asarray(model.predict([ids[1:, :4], segments[1:, :4]], verbose=0))
    np.testing.assert_allclose(together[1, :4], alone[0], atol=2e-5)


@pytest.mark.parametrize("around", [("[CLS]", "[SEP]"), ("[CLS]", ""), ("[CLS]", "[SEP]", "[CLS]:1")])
@pytest.mark.parametrize("prefix", ["##", "@@"])
def test_a_generic_tokenizer_json_counts_as_it_stands(prefix, around, tmp_path):
    """What it puts around a text, and before the second of a pair, how it continues words, and its unknown token, where
    no class says otherwise.
    """
    words = ["[PAD]", "<unk>", "[CLS]", "[SEP]", "好", "play", f"{prefix}ing"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.model.continuing_subword_prefix = prefix
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    one = f"{around[0]} $A {around[1]}".strip()
    special = [(token, words.index(token)) for token in around[:2] if token]
    pair = " ".join([one, *around[2:], "$B:1", *(f"{token}:1" for token in around[1:2] if token)])
    tokenizer.post_processor = processors.TemplateProcessing(single=one, pair=pair, special_tokens=special)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    dump(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"})
    ours = load_tokenizer(tmp_path)
    for text in ("playing好", "犇 play"):
        assert ours.encode(text)[0] == tokenizer.encode(text).ids
        expected = tokenizer.encode(text, "好")
        assert ours.encode(text, "好") == (expected.ids, expected.type_ids)
    damaged = json.loads(tokenizer.to_str()) | {
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 999]}
    }
    dump(tmp_path / "tokenizer.json", damaged)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json puts a token around texts that is not in its vocab"):
        load_tokenizer(tmp_path)


def test_a_padding_id_that_nothing_confirms(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    edit_config(folder, pad_token_id=1)
    with pytest.warns(UserWarning, match=r"says pad_token_id = 1, .* pad_token_id=1 or pad_token_id=0"):
        assert bert4x.load(folder).config.pad_token_id == 0
    with pytest.warns(UserWarning, match="says pad_token_id = 1"):
        bert4x.build_transformer_model(checkpoint_path=folder)
    with pytest.warns(UserWarning, match="says pad_token_id = 1"):
        bert4x.convert(folder, tmp_path / "b", "bert4x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for said in (0, 1):
            assert bert4x.load(folder, pad_token_id=said).config.pad_token_id == said
        (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\n", encoding="utf-8")
        assert bert4x.load(folder).config.pad_token_id == 3  # the vocabulary's, whatever the config says
        own = bert4x.convert(folder, tmp_path / "c", "bert4x", keep_tokens=[3, 2, 1, 0])
        assert json.loads((own / "config.json").read_text())["pad_token_id"] == 0


def test_rows_without_a_token(tmp_path):
    """They are never written and never shown, even where they are by far the likeliest."""
    config = config_of(vocab_size=97)
    folder = write_checkpoint(tmp_path / "a", "hf", config)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"的一是", "的", *(chr(0x5000 + i) for i in range(20))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    model = bert4x.load(folder, "lm")
    bias = next(variable for variable in model.variables if "MLM-Bias" in variable.path)
    values = np.zeros(97, "float32")
    values[len(tokens) :] = 1000
    values[5] = 2000  # the first 的: its row has no token
    bias.assign(values)
    known = set(load_vocab(folder / "vocab.txt").values())
    ids = model.generate_ids([[2, 6, 7]], max_new_tokens=4)
    assert set(ids.ravel().tolist()) <= known
    assert isinstance(model.generate("一是", max_new_tokens=4, stop_ids=()), str)
    assert len(list(model.stream("一", max_new_tokens=3, stop_ids=()))) == 3
    assert set(model.generate_ids([[2, 6]], max_new_tokens=3, num_beams=2).ravel().tolist()) <= known
    filler = bert4x.load(folder, with_mlm=True)
    next(variable for variable in filler.variables if "MLM-Bias" in variable.path).assign(values)
    from bert4x.tasks.fill_mask import FillMask

    found = FillMask(filler)("一[MASK]是", top_k=30)[0]
    assert len(found) == len(known) and {one.token for one in found} == set(tokens)


@pytest.mark.parametrize("format", ["hf", "tf1", "keras", "bert4x"])
@pytest.mark.parametrize("form", ["decoder", "legacy", "json"])
def test_a_converted_folder_has_the_same_tokens(form, format, tmp_path):
    source = write_checkpoint(tmp_path / "a", "hf", config_of(vocab_size=190))
    config = (source / "config.json").read_text()
    write_folder(source, form, True)
    (source / "config.json").write_text(config)
    target = bert4x.convert(source, tmp_path / "b", format)
    before, after = load_tokenizer(source), load_tokenizer(target)
    assert after.encode_batch(lines())[0] == before.encode_batch(lines())[0]
    assert after.token_dict == before.token_dict
    held = load_vocab(target / "vocab.txt")  # what bert4keras and Google's code read
    expected = before.token_dict if format == "tf1" else {token: i for i, token in enumerate(VOCAB)}
    assert all(held[token] == i for token, i in expected.items() if not any(c.isspace() for c in token))


def test_vocabularies_of_other_forms(tmp_path):
    """Other names, ids or frequencies after the tokens, a byte order mark: written as every reader knows them."""
    for number, text in enumerate(
        ("[PAD]\t0\n[UNK]\t1\n一\t2\n", "\ufeff[PAD]\n[UNK]\n一\n", "[PAD] 9\n[UNK] 8\n一 7\n", "[PAD]\n[UNK]\n一\n")
    ):
        source = write_checkpoint(tmp_path / f"a{number}", "tf1", config_of())
        (source / "vocab_chinese.txt").write_text(text, encoding="utf-8")
        target = bert4x.convert(source, tmp_path / f"b{number}", "hf")
        assert (target / "vocab.txt").read_bytes() == "[PAD]\n[UNK]\n一\n".encode()
        assert load_tokenizer(target).encode("一")[0] == [2]


def test_a_vocabulary_in_tokenizer_json_alone(tmp_path):
    source = write_checkpoint(tmp_path / "a", "hf", config_of(vocab_size=12))
    dump(source / "tokenizer.json", xlm_roberta_json())
    with pytest.warns(UserWarning, match=r"no vocab.txt can stand for"):
        target = bert4x.convert(source, tmp_path / "b", "tf1")
    assert load_tokenizer(target).encode("hello你")[0] == load_tokenizer(source).encode("hello你")[0]
    with pytest.raises(ConversionError, match=r"only a vocab.txt can be trimmed"):
        bert4x.convert(source, tmp_path / "c", "hf", keep_tokens=[0, 1, 2])

    gpt2 = write_checkpoint(tmp_path / "d", "hf", config_of("gpt2"))
    tokenizer = BpeTokenizer({"h": 0, "e": 1, "he": 2, "<|endoftext|>": 3}, [("h", "e")])
    tokenizer._backend.save(str(gpt2 / "tokenizer.json"))
    target = bert4x.convert(gpt2, tmp_path / "e", "tf1")
    (target / "tokenizer.json").unlink()
    assert load_tokenizer(target).encode("heh")[0] == [2, 0]


def test_trimming_keeps_added_tokens(tmp_path):
    """From a vocab.txt with settings beside it, and from a tokenizer.json alone."""
    for number, form in enumerate(("decoder", "json")):
        source = write_checkpoint(tmp_path / f"a{number}", "hf", config_of(vocab_size=190))
        config = (source / "config.json").read_text()
        write_folder(source, form, True)
        (source / "config.json").write_text(config)
        keep = [0, 1, 2, 3, 4, VOCAB.index("我"), len(VOCAB), VOCAB.index("的")]
        target = bert4x.convert(source, tmp_path / f"b{number}", "hf", keep_tokens=keep)
        tokenizer = load_tokenizer(target)
        assert tokenizer.encode("我[E1]的")[0] == [2, 5, 6, 7, 3], form
        assert load_vocab(target / "vocab.txt")["[E1]"] == 6
