"""The embedded model: small enough, whole, and sensible on everyday Chinese and on verse."""

import warnings
from pathlib import Path

import numpy as np
import pytest

import bert4x
from bert4x.checkpoints.formats.safetensors_file import read_safetensors
from bert4x.tasks.fill_mask import FillMask
from bert4x.training.corpus import CorpusFile
from bert4x.training.evaluation import held_out_rows, masked_accuracy, perplexity

DATA = Path(__file__).parents[2] / "shared" / "data"
CARD = bert4x.default_model() / "README.md"
GENRES = ("dialogue", "sentence", "prose", "novel", "transcript", "tang", "ci")


@pytest.fixture(scope="module")
def mlm():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as a vocabulary that does not fit
        return bert4x.load(with_mlm=True)


@pytest.fixture(scope="module")
def lm():
    return bert4x.load(application="lm")


def test_size_and_precision():
    files = [path for path in bert4x.default_model().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    tensors = read_safetensors(bert4x.default_model() / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float16"}
    assert all(np.isfinite(tensor.read()).all() for tensor in tensors.values())


def test_vocabulary(mlm):
    tokenizer = mlm.tokenizer
    assert tokenizer.vocab_size == mlm.config.vocab_size and 7000 <= tokenizer.vocab_size <= 9000
    assert tokenizer.ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for text in (
        "床前明月光，疑是地上霜。",
        "她说：“好吧……”",
        "Xylophone_42 (v1.0) <b@c.de> 100%",
        "《红楼梦》第三回——葬花",
    ):
        assert tokenizer.unk_id not in tokenizer.encode(text)[0], text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("床前明[MASK]光，疑是地上霜。", "月"),
        ("举头望明[MASK]，低头思故乡。", "月"),
        ("这部电[MASK]很好看。", "影"),
        ("我昨天去了图书[MASK]。", "馆"),
        ("我们应该保护环[MASK]。", "境"),
        ("你叫什么名[MASK]？", "字"),
        ("今天天气很[MASK]", "好"),
    ],
)
def test_fill_mask(mlm, text, answer):
    best, second = FillMask(mlm)(text, top_k=2)[0]
    assert best.token == answer and best.probability > 0.1 and best.probability > second.probability


def test_text_is_likelier_in_its_order_than_in_another(mlm, lm):
    """The same weights read from left to right: a language model that knows word order."""
    rng = np.random.default_rng(0)
    texts = ["今天天气很好，我们去公园散步吧。", "请问从这里到火车站怎么走？", "春风又绿江南岸，明月何时照我还。"]
    texts += ["他站起来，走到窗前，看了看外面的雨。", "把鸡蛋打散，加入少许盐，搅拌均匀。"]
    rows = [np.array(mlm.tokenizer.encode(text)[0][1:-1]) for text in texts]
    straight = perplexity(lm, mlm.tokenizer, rows)
    assert straight < 300
    assert straight < 0.5 * perplexity(lm, mlm.tokenizer, [rng.permutation(row) for row in rows])


def test_unilm_reads_its_source(mlm):
    """A target is likelier after its own source than after another's."""
    unilm = bert4x.load(application="unilm")
    pairs = [
        ("今天天气怎么样？", "今天天气很好。"),
        ("你喜欢看电影吗？", "我很喜欢看电影。"),
        ("火车站在哪里？", "火车站在前面。"),
    ]

    def likelihood(source, target):
        ids, segments = mlm.tokenizer.encode(source, target)
        logits = np.asarray(unilm.predict_on_batch([np.array([ids]), np.array([segments])]), "float64")[0]
        scores = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        return sum(scores[i - 1, ids[i]] for i in range(len(ids)) if segments[i])

    table = np.array([[likelihood(source, target) for source, _ in pairs] for _, target in pairs])
    assert (table.argmax(axis=1) == np.arange(len(pairs))).all(), table


def test_the_card_says_what_the_model_is():
    card = CARD.read_text(encoding="utf-8")
    assert all(f"| {genre} |" in card for genre in GENRES)
    assert "masked accuracy" in card and "perplexity" in card and "THIRD_PARTY.md" in card


def figures() -> dict[str, tuple[float, float]]:
    """Masked accuracy and perplexity of each genre, as the card states them."""
    rows = [line.split("|") for line in CARD.read_text(encoding="utf-8").splitlines() if line.count("|") == 7]
    table = {}
    for _, genre, _, accuracy, _, confusion, _, _ in rows:
        if accuracy.strip().endswith("%"):
            table[genre.strip()] = float(accuracy.strip().rstrip("%")) / 100, float(confusion)
    return table


@pytest.mark.parametrize("genre", ["dialogue", "tang"])
def test_the_figures_of_the_card(mlm, lm, genre):
    if not DATA.exists():
        pytest.skip("needs the corpora in ../shared/data, which are no part of the project")
    folder, ending = ("poems", "tsv") if genre == "tang" else ("corpus_clean", "txt")
    rows = held_out_rows(CorpusFile(DATA / folder / f"{genre}.{ending}.xz"), mlm.tokenizer)
    accuracy, confusion = figures()[genre]
    assert masked_accuracy(mlm, mlm.tokenizer, rows) == pytest.approx(accuracy, abs=0.01)
    assert perplexity(lm, mlm.tokenizer, rows) == pytest.approx(confusion, rel=0.03)


def test_its_tokenizer_without_a_folder():
    tokens = (bert4x.default_model() / "vocab.txt").read_text("utf-8").split("\n")
    ids = bert4x.load_tokenizer().encode("春天")[0]
    assert [tokens[i] for i in ids] == ["[CLS]", "春", "天", "[SEP]"]
