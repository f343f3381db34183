"""SentencePiece tokenizers and CPM-LM's: on small models trained here, and on the two published ones when present."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from text_samples import hostile_lines

from bert4x.errors import TokenizerError
from bert4x.tokenizers import CpmTokenizer, SpTokenizer, load_tokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="needs pip install jieba sentencepiece")
pytest.importorskip("jieba", reason="needs pip install jieba sentencepiece")

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "vocab" / "cpm"
SPACE, NEWLINE = "\u2582", "\u2583"
PROMPT = "美国的首都是华盛顿\n狗 dog\n中国的首都是"
PROMPT_IDS = [356, 11, 6597, 15, 13176, 8, 3, 1377, 8, 10, 8, 28535, 8, 3, 98, 11, 6597, 15]


def train(path: Path, **options) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["美国 的 首都 是 华盛顿", "狗 dog", "中国 的 首都 是 北京", f"一 {SPACE} 二"] * 20),
        model_writer=model,
        vocab_size=42,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    """Models laid out as the two published ones: id 3 is a control token `<cls>`, or the line break's piece."""
    folder = tmp_path_factory.mktemp("spm")
    rest, space = ["<sep>", "<pad>", "<mask>", "<eod>"], [SPACE]
    return {
        "old": train(folder / "old.model", control_symbols=["<cls>", *rest], user_defined_symbols=space),
        "new": train(folder / "new.model", user_defined_symbols=[NEWLINE, *rest, *space]),
        "plain": train(folder / "plain.model"),
    }


@pytest.mark.parametrize("age", ["old", "new"])
def test_both_kinds_of_model(small, age):
    tokenizer = CpmTokenizer(small[age])
    ids, segments = tokenizer.encode("狗 dog\n中国")
    assert segments == [0] * len(ids)
    assert ids.count(3) == 1 and tokenizer.unk_id not in ids
    assert ids.count(tokenizer.token_to_id(SPACE)) == 1
    assert tokenizer.eod_id == 7
    assert tokenizer.decode(ids) == tokenizer.decode([*ids, 7]) == "狗 dog\n中国"
    assert tokenizer.ids_to_tokens(ids)[ids.index(3)] == {"old": "<cls>", "new": NEWLINE}[age]
    assert tokenizer.encode_batch(["狗 dog\n中国"])[0] == [ids]
    assert tokenizer.tokenize("狗 dog\n中国", maxlen=3) == tokenizer.ids_to_tokens(ids)[:3]
    assert pickle.loads(pickle.dumps(tokenizer)).encode("狗 dog\n中国")[0] == ids


@pytest.mark.parametrize("name", ["chinese_vocab_2020-11-17.model", "chinese_vocab_2020-11-22.model"])
def test_published_models(name):
    if not (PUBLISHED / name).is_file():
        pytest.skip("needs CPM-LM's SentencePiece models in ../shared/data")
    tokenizer = CpmTokenizer(PUBLISHED / name)
    assert tokenizer.encode(PROMPT)[0] == PROMPT_IDS
    assert tokenizer.decode([*PROMPT_IDS, 7]) == PROMPT
    specials = tokenizer.vocab_size, tokenizer.unk_id, tokenizer.pad_id, tokenizer.eod_id, tokenizer.start_id
    assert specials == (30000, 0, 5, 7, None)
    token_ids, _ = tokenizer.encode_batch(["中国", PROMPT], padding=True)
    assert token_ids[0].tolist() == tokenizer.encode("中国")[0] + [5] * (len(PROMPT_IDS) - 1)


def test_published_models_agree():
    paths = sorted(PUBLISHED.glob("*.model"))
    if len(paths) < 2:
        pytest.skip("needs CPM-LM's SentencePiece models in ../shared/data")
    old, new = map(CpmTokenizer, paths)
    texts = [text for text in hostile_lines(300) if "<" not in text]
    assert old.encode_batch(texts) == new.encode_batch(texts)
    assert [old.decode(old.encode(text)[0]) for text in texts] == [new.decode(new.encode(text)[0]) for text in texts]


def test_sentencepiece(small):
    tokenizer = SpTokenizer(small["plain"])
    ids, segments = tokenizer.encode("首都 是", "北京")
    assert (ids[0], ids[-1]) == (tokenizer.start_id, tokenizer.end_id) == (1, 2)
    assert segments == [0] * (ids.index(2) + 1) + [1] * (len(ids) - ids.index(2) - 1)
    assert tokenizer.decode(ids[: ids.index(2) + 1]) == "首都 是"
    assert tokenizer.decode([], tokens=tokenizer.tokenize("首都")) == "首都"
    assert tokenizer.token_to_id("absent") == tokenizer.unk_id == 0
    assert tokenizer.pad_id is None and tokenizer.mask_id is None
    assert tokenizer.vocab_size == len(tokenizer.token_dict)
    with pytest.raises(TokenizerError, match="no token has id"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(TokenizerError, match="use SpTokenizer"):
        CpmTokenizer(small["plain"])
    with pytest.raises(TokenizerError, match=r"token_start='\[CLS\]'"):
        SpTokenizer(small["plain"], token_start="[CLS]")


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(100), None])
def test_bad_models(tmp_path, small, content):
    content = small["plain"].read_bytes()[:-37] if content is None else content
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(TokenizerError, match="spiece"):
        load_tokenizer(tmp_path)


def test_folders(tmp_path, small):
    (tmp_path / "spiece.model").write_bytes(small["plain"].read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    assert type(tokenizer) is SpTokenizer and (tokenizer.start_id, tokenizer.end_id) == (1, 2)
    (tmp_path / "spiece.model").write_bytes(small["old"].read_bytes())
    (tmp_path / "vocab.json").write_text("{}")  # the original download has one, of no use
    config = {"model_type": "gpt2", "tokenizer_class": "CpmTokenizer"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert isinstance(load_tokenizer(tmp_path), CpmTokenizer)
    assert isinstance(load_tokenizer(tmp_path, config), CpmTokenizer)


def test_folder_of_the_original_download(tmp_path, small):
    (tmp_path / "80000").mkdir()
    (tmp_path / "bpe_3w_new").mkdir()
    (tmp_path / "bpe_3w_new" / "chinese_vocab.model").write_bytes(small["new"].read_bytes())
    assert isinstance(load_tokenizer(tmp_path), CpmTokenizer)
    assert isinstance(load_tokenizer(tmp_path / "80000"), CpmTokenizer)
    assert isinstance(load_tokenizer(tmp_path / "80000" / "mp_rank_00_model_states.pt"), CpmTokenizer)


def test_without_the_packages(tmp_path, small, monkeypatch):
    (tmp_path / "chinese_vocab.model").write_bytes(small["new"].read_bytes())
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(TokenizerError, match="jieba: pip install jieba sentencepiece"):
        CpmTokenizer(small["new"])
    with pytest.warns(UserWarning, match="needs jieba: pip install"):
        assert load_tokenizer(tmp_path) is None
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(TokenizerError, match="sentencepiece"):
        SpTokenizer(small["plain"])


def test_nothing_is_printed(small):
    code = (
        "import sys, bert4x.tokenizers as t; assert not {'jieba', 'sentencepiece'} & sys.modules.keys(); "
        f"t.CpmTokenizer({str(small['new'])!r}).encode('中国的首都')"
    )
    root = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_save_and_load_again(tmp_path, small):
    for age in ("old", "new"):
        tokenizer = CpmTokenizer(small[age])
        (tmp_path / age).mkdir()
        tokenizer.save(tmp_path / age)
        again = load_tokenizer(tmp_path / age)
        assert type(again) is CpmTokenizer
        assert again.encode("清华 大学\n") == tokenizer.encode("清华 大学\n")
