"""SentencePiece models as transformers reads them for ALBERT and XLM-R."""

import json
import struct

import pytest

from bert4x.errors import TokenizerError
from bert4x.tokenizers import BackendTokenizer, load_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
WORDS = [
    "▁",
    "hello",
    "▁hello",
    "Hello",
    "▁cafe",
    "▁café",
    '"',
    "a",
    "▁a",
    "9",
    ",",
    "9,",
    "▁9,",
    "fi",
    "▁x",
    "你",
    "é",
]


def field(number: int, value: int | bytes | float) -> bytes:
    """One field of a protocol buffer, of small numbers."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        key = number << 3
        return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + bytes([value])
    size = len(value)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value


def sp_model(*pieces: tuple[str, int], kind: int = 1) -> bytes:
    """A SentencePiece model without a map of characters."""
    pieces = [*pieces, *((word, NORMAL) for word in WORDS)]
    found = b""
    for number, (piece, type_) in enumerate(pieces):
        found += field(1, field(1, piece.encode()) + field(2, -float(number) / 8) + field(3, type_))
    return found + field(2, field(3, kind) + field(40, 1 if pieces[1][1] == UNKNOWN else 0)) + field(3, b"")


ALBERT = (
    *(("<pad>", CONTROL), ("<unk>", UNKNOWN)),
    *((token, USER_DEFINED) for token in ("[CLS]", "[SEP]", "[MASK]")),
)


def folder_of(folder, name: str, model: bytes, **config):
    (folder / name).write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({}, "Hello  hello", ["▁hello", "▁hello"]),
        ({}, "CAFÉ cafe\u0301", ["▁cafe", "▁cafe"]),
        ({"keep_accents": True}, "CAFÉ", ["▁café"]),
        ({"do_lower_case": False}, "aHello", ["▁a", "Hello"]),
        ({}, "``a''", ["▁", '"', "a", '"']),
        ({}, "aﬁ９", ["▁a", "fi", "9"]),  # a ligature and a full-width digit
        ({}, "a9,", ["▁a", "9", ","]),  # "9," is never one piece: Google's code takes it apart
        ({}, "a[MASK]你", ["▁a", "[MASK]", "▁", "你"]),
        (
            {"added_tokens_decoder": {"22": {"content": "[E1]"}, "23": {"content": "[E2]", "rstrip": True}}},
            "a[e1]a[E2] a",
            ["▁a", "[E1]", "▁a", "[E2]", "▁a"],
        ),
    ],
)
def test_albert(config, text, expected, tmp_path):
    """The ids of transformers' AlbertTokenizer, which these were checked against."""
    folder = folder_of(tmp_path, "spiece.model", sp_model(*ALBERT), tokenizer_class="AlbertTokenizer", **config)
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, BackendTokenizer)
    assert tokenizer.tokenize(text) == ["[CLS]", *expected, "[SEP]"]
    ids = tokenizer.encode(text)[0]
    assert ids == tokenizer.tokens_to_ids(tokenizer.tokenize(text)) == tokenizer.encode_batch([text])[0][0]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 4)
    assert tokenizer.encode("a", "你") == ([2, 13, 3, 5, 20, 3], [0, 0, 0, 1, 1, 1])
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(text)[0] == ids
    again = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert again["post_processor"]["type"] == "TemplateProcessing"


def test_albert_by_the_family(tmp_path):
    """Without a tokenizer_config.json: the model's config says that it is an ALBERT."""
    (tmp_path / "30k-clean.model").write_bytes(sp_model(*ALBERT))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}), encoding="utf-8")
    assert load_tokenizer(tmp_path).tokenize("CAFÉ") == ["[CLS]", "▁cafe", "[SEP]"]


def test_albert_tokenizer_json_obeys_its_config(tmp_path):
    folder = folder_of(tmp_path, "spiece.model", sp_model(*ALBERT), tokenizer_class="AlbertTokenizer")
    load_tokenizer(folder).save(tmp_path)
    (tmp_path / "spiece.model").unlink()
    for config, expected in (({"keep_accents": True}, "▁café"), ({}, "▁cafe")):
        text = json.dumps({"tokenizer_class": "AlbertTokenizer"} | config)
        (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
        assert load_tokenizer(tmp_path).tokenize("CAFÉ") == ["[CLS]", expected, "[SEP]"]


def test_xlm_roberta(tmp_path):
    """fairseq's ids: those of SentencePiece, plus one; <pad> is 1, and <mask> follows the pieces."""
    pieces = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sp_model(*pieces))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_id == 1 and tokenizer.unk_id == 3 and tokenizer.mask_id == 4 + len(WORDS)
    hello, you = 4 + WORDS.index("▁hello"), 4 + WORDS.index("你")
    assert tokenizer.encode("hello犇", "你")[0] == [0, hello, 3, 2, 2, 4, you, 2]


@pytest.mark.parametrize(
    "data",
    [b"", b"vers", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\x0a\x05", b"\xff" * 20, sp_model(kind=2), field(1, b"")],
)
def test_damaged_models(data, tmp_path):
    folder = folder_of(tmp_path, "spiece.model", data, tokenizer_class="AlbertTokenizer")
    with pytest.raises(TokenizerError, match=r"spiece\.model"):
        load_tokenizer(folder)
