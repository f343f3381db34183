"""The tokenizer inside a GGUF: alone, it gives the ids of the tokenizer that it was made of."""

import json

import numpy as np
import pytest
from make_checkpoints import config_of, write_checkpoint
from test_tokenizers import hostile_lines
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import bert4x
from bert4x.checkpoints.formats.gguf_file import write_gguf
from bert4x.checkpoints.tensors import from_array
from bert4x.generation.prompt import default_stop_ids
from bert4x.tokenizers import load_tokenizer
from bert4x.tokenizers.gguf import CUTS, MARK
from bert4x.tokenizers.gguf_saving import vocabulary_metadata

LINES = [*hostile_lines(60, seed=3), "Hell 12345 we'RE  two  spaces\n\n <|im_start|>你好<|im_end|> ÀÉ", " hell", ""]
BERT = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[unused1]",
    "[",
    "]",
    *"你好天hel12345",
    "##l",
    "##1",
    "hell",
    "##ell",
]
ENDS = ["<|im_start|>", "<|im_end|>", "<s>"]


def byte_level(name: str) -> Tokenizer:
    """One that cuts texts as `name` says, with a few merges, and with tokens that are no words."""
    pattern, composed = CUTS.get(name, (r"\p{N}+|[^\p{N}]", False))
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "hell"), ("1", "2"), ("12", "3"), ("2", "3")]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    ids = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(ids, merges, ignore_merges=name == "llama-bpe"))
    backend.normalizer = normalizers.NFC() if composed else None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ENDS])
    if name == "llama-bpe":
        backend.post_processor = with_start(backend)
    return backend


def llama() -> Tokenizer:
    """SentencePiece's BPE as transformers writes it: a mark for a space, bytes for what has no piece."""
    merges = [(MARK, "h"), ("e", "l"), ("el", "l"), (MARK, "hell"), (MARK + "h", "ell"), ("h", "ell"), ("1", "2")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [*dict.fromkeys("".join(pair) for pair in merges), MARK, *"hel12你"]
    model = models.BPE(
        {t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    parts = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(parts)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens[:3]])
    backend.post_processor = with_start(backend)
    return backend


def with_start(backend: Tokenizer):
    return processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )


def source(folder, kind: str):
    """A folder with a tokenizer of a kind, and what bert4x reads there."""
    folder.mkdir()
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0].content }}"}
    if kind.startswith("bert"):
        tokens = [*BERT, "Hell"] if kind == "bert cased, folded" else BERT
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        said = {"tokenizer_class": "BertTokenizer", "do_lower_case": kind != "bert cased"}
    else:
        backend = llama() if kind == "llama" else byte_level(kind)
        said["eos_token"] = "</s>" if kind == "llama" else "<|im_end|>"
        ends = json.dumps({"eos_token_id": backend.token_to_id(said["eos_token"])})
        (folder / "generation_config.json").write_text(ends)
        (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return load_tokenizer(folder)


def gguf_of(path, metadata):
    path.parent.mkdir(exist_ok=True)
    write_gguf(path, [from_array("x", np.zeros((2, 32), "f4"))], {"general.architecture": "llama"} | metadata)
    return path


def same(a, b):
    for line in LINES:
        ids = a.encode(line)[0]
        assert b.encode(line)[0] == ids
        assert b.decode(ids) == a.decode(ids)
    roles = ("start_id", "end_id", "pad_id", "unk_id", "mask_id", "stop_ids", "chat_templates")
    assert [getattr(a, role) for role in roles] == [getattr(b, role) for role in roles]


@pytest.mark.parametrize("kind", ["bert", "bert cased", "bert cased, folded", *CUTS, "another", "llama"])
@pytest.mark.filterwarnings("ignore:this tokenizer cuts texts")
def test_the_ids_of_the_source(kind, tmp_path):
    ours = source(tmp_path / "source", kind)
    metadata = vocabulary_metadata(ours, ours.vocab_size + 3, "qwen2")
    found = load_tokenizer(gguf_of(tmp_path / "gguf" / "any.gguf", metadata))
    same(ours, found)
    (tmp_path / "saved").mkdir()
    found.save(tmp_path / "saved")
    same(ours, load_tokenizer(tmp_path / "saved"))
    if kind in ("bert", "bert cased, folded"):  # what llama.cpp reads tells no case: a capital letter does
        metadata.pop("tokenizer.huggingface.json")
        plain = load_tokenizer(gguf_of(tmp_path / "plain" / "any.gguf", metadata))
        assert plain.do_lower_case == (kind == "bert") and plain.token_dict == ours.token_dict


def test_sentencepiece_itself(tmp_path):
    """The pieces and scores of a trained model give its ids."""
    sentencepiece = pytest.importorskip("sentencepiece")
    text = ["今天天气很好，我们去公园散步吧。hello world it's 2024", "the quick brown fox jumps over 12 dogs"] * 9
    (tmp_path / "text").write_text("\n".join(text), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=360, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode(text[0])[0] == [1, *theirs.encode(text[0]), 2]
    for said, (start, end) in {"{}": ([], []), '{"add_bos_token": true}': ([1], [])}.items():  # as in transformers
        (tmp_path / "tokenizer_config.json").write_text(said, "utf-8")
        llama = load_tokenizer(tmp_path, {"model_type": "llama"})
        assert llama.encode(text[0])[0] == [*start, *theirs.encode(text[0]), *end]
        assert default_stop_ids(llama) == (2,)
        (tmp_path / "saved").mkdir(exist_ok=True)
        llama.save(tmp_path / "saved")
        assert load_tokenizer(tmp_path / "saved", {"model": "llama", "model_type": "llama"}).start_id == llama.start_id
    (tmp_path / "tokenizer_config.json").unlink()
    found = load_tokenizer(gguf_of(tmp_path / "gguf" / "any.gguf", vocabulary_metadata(ours, ours.vocab_size, None)))
    assert [found._text_ids([line])[0] for line in LINES] == theirs.encode(LINES)


def test_a_file_alone_is_a_checkpoint(tmp_path):
    """Converted, opened and converted back without any other file; of two files each has its own."""
    config = config_of("qwen3", vocab_size=300)
    ours = source(tmp_path / "source", "qwen2")
    write_checkpoint(tmp_path / "source", "hf", config)
    bert4x.convert(tmp_path / "source", tmp_path / "gguf", "gguf")
    (tmp_path / "alone").mkdir()
    alone = (tmp_path / "gguf" / "model.gguf").rename(tmp_path / "alone" / "a.gguf")
    (tmp_path / "alone" / "b.gguf").write_bytes(alone.read_bytes().replace(b"gpt2", b"none"))
    model = bert4x.load(alone)
    same(ours, model.tokenizer)
    assert bert4x.load(tmp_path / "alone" / "b.gguf").tokenizer is None
    same(ours, load_tokenizer(bert4x.convert(alone, tmp_path / "back", "hf")))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model": "t5"}, "of kind 't5'; expected bert, gpt2, llama"),
        ({"pre": "chatglm-bpe"}, "expected gpt-2, qwen2, llama-bpe"),
        ({"merges": ["h e l"]}, "expected two pieces"),
        ({"merges": ["h 我"]}, "damaged"),
        ({"tokens": []}, "no tokens"),
        ({"tokens": ["a"] * 300}, "have the same token 'a'"),
        ({"token_type": [1]}, "a number for each token"),
        ({"eos_token_id": 10**6}, "an id below"),
        ({"add_bos_token": 1}, "true or false"),
    ],
)
def test_damaged(said, message, tmp_path):
    metadata = vocabulary_metadata(source(tmp_path / "source", "qwen2"), 300, "qwen2")
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    with pytest.raises(bert4x.errors.TokenizerError, match=rf"any\.gguf: .*{message}|any\.gguf is {message}"):
        load_tokenizer(gguf_of(tmp_path / "gguf" / "any.gguf", metadata))
