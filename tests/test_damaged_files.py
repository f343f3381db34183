"""Every small file beside the weights, damaged in every way: success, or a Bert4xError that names the file."""

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import VOCABULARY, write_tiny

from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.sentence_vectors import read_settings
from bert4x.checkpoints.vocabulary import copy_vocabulary
from bert4x.errors import Bert4xError, CorruptFileError
from bert4x.runtimes.exported import read_description
from bert4x.tokenizers import load_tokenizer

DEEP = b"[" * 100_000
VALUES = [
    None,
    True,
    0,
    -1,
    5,
    2**70,
    0.5,
    math.nan,
    math.inf,
    "",
    "x",
    "[CLS]",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"": None},
]
VALUES += [{"content": 5}, {"type": "x"}, [["a", "b", "c"]], "9" * 5000]  # fmt: skip
WHOLE = [b"", b"null", b"[]", b"5", b'"x"', b"{", b"{}", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0" * 100, b"NaN"]
WHOLE += [DEEP, b'{"a":' + DEEP, b'{"a":' + b"9" * 5000 + b"}", b'{"a": 1e999}', b"version https://git-lfs\n"]
ADDED = {"id": 5, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
ADDED |= {"special": True}
TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "strip_accents": None,
    "model_max_length": 512,
    "tokenize_chinese_chars": True,
    "cls_token": "[CLS]",
    "sep_token": {"content": "[SEP]", "lstrip": False},
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
    "additional_special_tokens": ["<a>"],
    "added_tokens_decoder": {"2": {key: ADDED[key] for key in ADDED if key != "id"} | {"content": "[CLS]"}},
}
SPECIALS = {"cls_token": "[CLS]", "mask_token": {"content": "[MASK]", "lstrip": True, "normalized": False}}
WORDPIECE = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [ADDED | {"id": 2, "content": "[CLS]"}],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None,
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4}},
}  # fmt: skip
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BPE = {
    "version": "1.0", "added_tokens": [ADDED], "normalizer": None, "pre_tokenizer": BYTE_LEVEL, "post_processor": None,
    "decoder": BYTE_LEVEL,
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "vocab": {"a": 0, "b": 1, "ab": 2},
              "merges": [["a", "b"]]},
}  # fmt: skip


def spoiled(value) -> Iterator:
    """Copies of a JSON value in which one part, at any depth, is another value, is absent, or is renamed."""
    places: list[tuple] = [()]
    for place in places:
        part = value
        for key in place:
            part = part[key]
        if isinstance(part, dict | list):
            places += [(*place, key) for key in (part if isinstance(part, dict) else range(len(part)))]
    for *above, last in places[1:]:
        for new in [*VALUES, "absent"]:
            result = copy.deepcopy(value)
            part = result
            for key in above:
                part = part[key]
            if new == "absent":
                del part[last]
            else:
                part[last] = new
            yield result


def damages(value) -> Iterator[bytes]:
    """A JSON file, damaged."""
    data = json.dumps(value).encode()
    yield from WHOLE
    yield from (data[: len(data) * part // 7] for part in range(1, 7))
    yield data.replace(b'"', b'"\xff', 1)
    yield from (json.dumps(result).encode() for result in spoiled(value))


def check(path, contents: Iterator[bytes], use: Callable) -> tuple[int, int]:
    """Uses each damaged form of a file; how many could be used, and how many could not."""
    used = refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use()
            used += 1
        except Bert4xError as error:
            refused += 1
            named = path.name in str(error) or path.stem in str(error)
            assert named and len(str(error)) < 3000, (content[:2000], str(error)[:3000])
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {content[:2000]!r}") from error
    return used, refused


def use_tokenizer(folder):
    tokenizer = load_tokenizer(folder)
    if tokenizer is not None:
        ids, _ = tokenizer.encode("[CLS] ab 我<new>")
        tokenizer.decode(ids)


def write_json(path, value):
    path.write_text(json.dumps(value), "utf-8")


TOKENIZER_FILES = {
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "special_tokens_map.json": SPECIALS,
    "added_tokens.json": {"<new>": len(VOCABULARY)},
    "config.json": {"model_type": "bert", "do_lower_case": True, "tokenizer_class": "BertTokenizer", "vocab_size": 99},
}


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_files_beside_a_vocabulary(tmp_path, name):
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), "utf-8")
    for other, value in TOKENIZER_FILES.items():
        write_json(tmp_path / other, value)
    if name in ("special_tokens_map.json", "added_tokens.json"):  # which count only where this does not tell all
        config = {key: value for key, value in TOKENIZER_CONFIG.items() if key != "added_tokens_decoder"}
        write_json(tmp_path / "tokenizer_config.json", config)
    use_tokenizer(tmp_path)
    used, refused = check(tmp_path / name, damages(TOKENIZER_FILES[name]), lambda: use_tokenizer(tmp_path))
    assert used and refused > 10


@pytest.mark.parametrize("content", [WORDPIECE, BPE], ids=["WordPiece", "BPE"])
def test_tokenizer_json(tmp_path, content):
    write_json(tmp_path / "tokenizer.json", content)
    use_tokenizer(tmp_path)
    used, refused = check(tmp_path / "tokenizer.json", damages(content), lambda: use_tokenizer(tmp_path))
    assert used and refused > 100


def test_a_panic_of_the_tokenizers_library(tmp_path):
    """Which is no `Exception`."""
    content = copy.deepcopy(BPE)
    content["model"]["continuing_subword_prefix"] = "ab"
    used, refused = check(tmp_path / "tokenizer.json", [json.dumps(content).encode()], lambda: use_tokenizer(tmp_path))
    assert (used, refused) == (0, 1)


def test_byte_level_files(tmp_path):
    vocab, merges = {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, b"#version: 0.2\na b\n"
    for damaged in ("vocab.json", "merges.txt"):
        write_json(tmp_path / "vocab.json", vocab)
        (tmp_path / "merges.txt").write_bytes(merges)
        contents = damages(vocab) if damaged == "vocab.json" else [*WHOLE, b"a", b"a b c\n", b"x y\n", b"\xff \xff\n"]
        assert check(tmp_path / damaged, contents, lambda: use_tokenizer(tmp_path))[1] > 3


def test_vocab_txt(tmp_path):
    contents = [
        b"",
        b"\n",
        b"\xff",
        b"\0",
        b"a\nb\n",
        b"[UNK]\n" * 3,
        b"[UNK]\t0\nx\t2\n",
        b"[UNK]\t0\nx\ty\n",
        b"[UNK]\n" + b"x" * 10_000,
    ]
    check(tmp_path / "vocab.txt", [*contents, *WHOLE], lambda: use_tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("format", "name"), [("hf", "config.json"), ("tf1", "bert_config.json"), ("bert4x", "config.json")]
)
def test_configs(tmp_path, format, name):
    folder = write_tiny(tmp_path / "a", "bert", format)
    config = json.loads((folder / name).read_text())

    def use():
        checkpoint = open_checkpoint(folder)
        checkpoint.report.raise_for_problems(f"{name} beside {checkpoint.files.path}")

    used, refused = check(folder / name, damages(config), use)
    assert used and refused > 100


def test_an_index_of_shards(tmp_path):
    folder = write_tiny(tmp_path / "a", shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    names = list(index["weight_map"])[::12]
    index["weight_map"] = {name: index["weight_map"][name] for name in names}
    assert check(path, damages(index), lambda: open_checkpoint(folder))[1] > 50


SENTENCE_VECTORS = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ],
    "1_Pooling/config.json": {"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True, "include_prompt": True},
    "2_Dense/config.json": {"in_features": 8, "out_features": 4, "bias": True, "activation_function": None},
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"q": "ab"},
        "default_prompt_name": "q",
        "similarity_fn_name": "dot",
    },
}


@pytest.mark.parametrize("name", SENTENCE_VECTORS)
def test_the_steps_of_sentence_vectors(tmp_path, name):
    for other, content in SENTENCE_VECTORS.items():
        (tmp_path / other).parent.mkdir(exist_ok=True)
        write_json(tmp_path / other, content)
    whole = read_settings(tmp_path)
    assert (whole["maxlen"], whole["default_prompt"], whole["steps"][0]["units"]) == (128, "q", 4)
    used, refused = check(tmp_path / name, damages(SENTENCE_VECTORS[name]), lambda: read_settings(tmp_path))
    assert used and refused > 10
    content = b"\xef\xbb\xbf" + json.dumps(SENTENCE_VECTORS[name]).encode()  # a byte order mark damages nothing
    check(tmp_path / name, [content], lambda: read_settings(tmp_path))
    assert read_settings(tmp_path) == whole
    for number in (-1, 0, 2**70):
        (tmp_path / "2_Dense/config.json").write_bytes(b'{"out_features": %d}' % number)
        with pytest.raises(CorruptFileError, match="out_features"):
            read_settings(tmp_path)


def test_the_description_of_an_export(tmp_path):
    graphs = {"model": {"inputs": ["token_ids"], "outputs": {"hidden": [None, None, 8]}}}
    content = {"to": "onnx", "quantize": None, "application": "encoder", "graphs": graphs}
    write_json(tmp_path / "export.json", content)
    read_description(tmp_path)
    used, refused = check(tmp_path / "export.json", damages(content), lambda: read_description(tmp_path))
    assert used and refused > 50


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"\0", b"../1", b"/etc", b"1" * 100_000, b"9", b"1\n2", "\u00b2".encode()]
)
def test_names_of_the_latest_checkpoint(tmp_path, content):
    megatron = write_tiny(tmp_path / "m", "gpt2", "megatron")
    tf1 = write_tiny(tmp_path / "t", "bert", "tf1")
    check(megatron / "latest_checkpointed_iteration.txt", [content], lambda: open_checkpoint(megatron))
    (tf1 / "checkpoint").write_bytes(b'model_checkpoint_path: "' + content + b'"\n')
    open_checkpoint(tf1)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"])
def test_conversion_with_damaged_vocabulary_files(tmp_path, name):
    folder = write_tiny(tmp_path / "a")
    checkpoint = open_checkpoint(folder)
    (tmp_path / "out").mkdir()

    def use():
        for keep in (None, np.arange(8)):
            copy_vocabulary(checkpoint, tmp_path / "out", "tf1", keep)

    check(folder / name, [*WHOLE, *(json.dumps(value).encode() for value in spoiled({"cls_token": "[CLS]"}))], use)


def test_task_json(tmp_path, monkeypatch):
    """What it says is checked before the weights are read, and by the task's class when it is made."""
    pytest.importorskip("keras")
    import bert4x
    from bert4x.models import build
    from bert4x.tasks.text_classification import TextClassification

    model = bert4x.load(write_tiny(tmp_path / "a", heads=False))
    folder = TextClassification(model, labels=["好", "坏"], maxlen=16).save(tmp_path / "run")
    content = json.loads((folder / "task.json").read_text("utf-8"))
    monkeypatch.setattr(build, "load", lambda *args, **options: model)  # of each damaged form the weights are the same
    monkeypatch.setattr("bert4x.tasks.task.assign_head", lambda *args: None)
    bert4x.pipeline("text-classification", folder)
    used, refused = check(
        folder / "task.json", damages(content), lambda: bert4x.pipeline("text-classification", folder)
    )
    assert used and refused > 50
    for changes in ({"maxlen": None}, {"extra": 1}, {"labels": True}, {"dropout": [1]}, {"dropout": math.nan}):
        spoilt = json.dumps(content | {"settings": content["settings"] | changes}).encode()
        use = lambda: bert4x.pipeline("text-classification", folder)  # noqa: E731
        assert check(folder / "task.json", [spoilt], use) == (0, 1), changes
