"""Tokenizers that XLM-R, RoBERTa and ModernBERT are published with: the ids and offsets of transformers."""

import itertools
import json

import pytest
from test_tokenizers import hostile_lines
from test_vocabularies import xlm_roberta_json
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bert4x.errors import TokenizerError
from bert4x.tokenizers import load_tokenizer

transformers = pytest.importorskip("transformers", reason="compares with transformers")
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_level_json() -> dict:
    """A tokenizer.json of RoBERTa's kind, with a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIALS[:4], *alphabet, "he", "ll", "hell", "Ġhell", SPECIALS[4]]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "hell")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, lstrip=token == "<mask>", special=True) for token in SPECIALS])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return json.loads(tokenizer.to_str())


def modern_json() -> dict:
    """One of ModernBERT's kind: it is normalised, and pairs have one token between them."""
    content = byte_level_json()
    tokenizer = Tokenizer.from_str(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    assert isinstance(tokenizer.normalizer, normalizers.NFC)
    return json.loads(tokenizer.to_str())


NAMES = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
NAMES |= {"pad_token": "<pad>", "mask_token": "<mask>"}


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("XLMRobertaTokenizer", xlm_roberta_json, {}),
        ("XLMRobertaTokenizer", xlm_roberta_json, {"add_prefix_space": False}),
        ("RobertaTokenizer", byte_level_json, {}),
        ("PreTrainedTokenizerFast", modern_json, {}),
        ("vocab.json", byte_level_json, {}),
        ("vocab.json", byte_level_json, {"add_prefix_space": True}),
    ],
)
def test_ids_and_offsets(kind, content, said, tmp_path):
    content = content()
    if kind == "vocab.json":
        (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), encoding="utf-8")
        merges = "\n".join(" ".join(pair) for pair in content["model"]["merges"])
        (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    else:
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    name = "RobertaTokenizer" if kind == "vocab.json" else kind
    said = {"tokenizer_class": name} | NAMES | said
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert (ours.start_id, ours.end_id, ours.pad_id, ours.unk_id) == (0, 2, 1, 3)
    assert ours.mask_id == theirs.mask_token_id
    lines = [line for line in hostile_lines(300, seed=7) if line] + ["hell <mask> hello", "你好<s>，hello"]
    expected = theirs(lines, return_offsets_mapping=True)
    assert ours.encode_batch(lines)[0] == expected["input_ids"]
    for i, line in enumerate(lines):
        ids, offsets = ours.encode_with_offsets(line)
        assert (ids, offsets) == (expected["input_ids"][i], expected["offset_mapping"][i])
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    for first, second in itertools.pairwise(lines[:20]):
        assert ours.encode(first, second)[0] == theirs(first, second)["input_ids"]


def test_pairs_of_another_form(tmp_path):
    """A file that says what stands around one text alone, as those of many decoders: pairs would have nothing there."""
    tokenizer = Tokenizer.from_str(json.dumps(modern_json()))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert ours.encode("hello")[0] == theirs("hello")["input_ids"]
    assert ours.encode("hello")[0][0] == 0
    with pytest.raises(TokenizerError, match="two texts otherwise"):
        ours.encode("hello", "hell")
