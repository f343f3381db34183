"""Sentence vectors: as sentence-transformers gives them, from its folders and to them; search, losses, scores."""

import contextlib
import copy
import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_tiny

import bert4x
from bert4x import testing
from bert4x.checkpoints.files import default_vectors
from bert4x.cli import main
from bert4x.errors import ConfigError, CorruptFileError, DataError, InputError, RunError, UnknownOptionError
from bert4x.families import family_of
from bert4x.layers import Pooling
from bert4x.metrics import retrieval, sts
from bert4x.metrics.regression import regression_scores
from bert4x.metrics.vectors import ranks_of_right
from bert4x.tasks import vectors as v
from bert4x.tasks.readers import read_compared
from bert4x.tasks.reranker import Reranker
from bert4x.tasks.sentence_embedding import SentenceEmbedding
from bert4x.tasks.text_classification import TextClassification
from bert4x.training import contrastive
from bert4x.training.trainer import Trainer

DATA = Path(__file__).parents[2] / "shared" / "data"
TEXTS = ["今天天气很好。", "床前明月光", "我们去公园散步吧，低头思故乡", "a"]
DENSE = {"kind": "dense", "units": 6, "bias": True, "activation": "tanh"}
NORMALIZE = {"kind": "normalize"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("vectors") / "encoder")


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    """What is trained here: there is less to compile."""
    return write_tiny(tmp_path_factory.mktemp("one") / "layer", num_hidden_layers=1)


@pytest.fixture
def uncompiled():
    """On TensorFlow, a block whose functions run as they are: a step is taken sooner than compiled."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext
    import tensorflow as tf

    @contextlib.contextmanager
    def block():
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)

    return block


@pytest.fixture(scope="module")
def encoder(folder):
    prompts = {"query": "我们", "passage": "a"}
    return bert4x.embedder(folder, pooling=["cls", "mean"], steps=[DENSE, NORMALIZE], prompts=prompts, maxlen=16)


def as_told(way, hidden, counts):
    """One way to pool, written from sentence-transformers' description. Shape: (B, T, D), (B, T) -> (B, D)"""
    rows = []
    for states, real in zip(hidden, counts.astype(bool), strict=True):
        places, states = 1 + np.flatnonzero(real), states[real]
        rows.append({
            "cls": states[0], "lasttoken": states[-1], "max": states.max(0), "mean": states.mean(0),
            "mean_sqrt_len_tokens": states.sum(0) / len(states) ** 0.5,
            "weightedmean": (places[:, None] * states).sum(0) / places.sum(),
        }[way])  # fmt: skip
    return np.array(rows)


def test_a_family_without_that_layout(tmp_path):
    """Its vectors are saved as a run of ours."""
    cls = family_of("gau")
    config = testing.tiny_config(cls)
    model = testing.build(cls, config, testing.random_weights(config))
    model.tokenizer = bert4x.Tokenizer(
        {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "我", "们"])}
    )
    encoder = SentenceEmbedding(model, maxlen=9)
    np.testing.assert_array_equal(bert4x.embedder(encoder.save(tmp_path))(["我们"]), encoder(["我们"]))


@pytest.mark.parametrize("way", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_ways_to_pool(way):
    hidden = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32") - 3
    counts = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], "int32")
    found = keras.ops.convert_to_numpy(Pooling([way, "mean"])([hidden, counts]))
    np.testing.assert_allclose(found[:, :4], as_told(way, hidden, counts), atol=1e-6)
    np.testing.assert_allclose(found[:, 4:], as_told("mean", hidden, counts), atol=1e-6)


def test_there_and_back(encoder, folder, tmp_path):
    """The folder that sentence-transformers opens, and our own: the same vectors, weights bit for bit."""
    expected = encoder(TEXTS, "query")
    assert expected.shape == (4, 6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    for format in ("hf", "bert4x"):
        saved = encoder.save(tmp_path / format, format)
        for again in (bert4x.embedder(saved), bert4x.pipeline("sentence-embedding", saved)):
            np.testing.assert_array_equal(again(TEXTS, "query"), expected)
            assert (again.maxlen, again.prompts) == (16, encoder.prompts)
    listed = json.loads((tmp_path / "hf" / "modules.json").read_text())
    assert [one["type"].rpartition(".")[2] for one in listed] == ["Transformer", "Pooling", "Dense", "Normalize"]
    alone = bert4x.load(tmp_path / "hf")
    assert np.array_equal(alone.get_weights()[0], bert4x.load(folder).get_weights()[0])


def test_the_library_itself(encoder, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
    theirs = library.SentenceTransformer(str(encoder.save(tmp_path / "saved")), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), encoder(TEXTS), atol=1e-5)
    np.testing.assert_allclose(theirs.encode(TEXTS, prompt_name="query"), encoder(TEXTS, "query"), atol=1e-5)


def test_spellings_of_settings(encoder, tmp_path):
    """Newer module paths and names; the encoder in a folder of its own."""
    saved = encoder.save(tmp_path / "saved")
    listed = json.loads((saved / "modules.json").read_text())
    for one in listed:
        one["type"] = one["type"].replace("models.", "sentence_transformer.modules.some.")
    (saved / "modules.json").write_text(json.dumps(listed))
    new = {"embedding_dimension": 8, "pooling_mode": ["cls", "mean"], "include_prompt": False}
    (saved / "1_Pooling" / "config.json").write_text(json.dumps(new))
    again = bert4x.embedder(saved)
    assert again.pooling == ["cls", "mean"] and not again.include_prompt
    np.testing.assert_array_equal(again(TEXTS), encoder(TEXTS))
    assert np.abs(again(TEXTS, "query") - encoder(TEXTS, "query")).max() > 1e-3  # the prompt's tokens are read only
    # Version 6 has the longest text in the tokenizer's file only, and how many numbers are given; older ones had other
    # names of files.
    (saved / "sentence_bert_config.json").unlink()
    (saved / "sentence_roberta_config.json").write_text('{"do_lower_case": true}')
    place = saved / "tokenizer_config.json"
    place.write_text(json.dumps((json.loads(place.read_text()) if place.exists() else {}) | {"model_max_length": 9}))
    (saved / "config_sentence_transformers.json").write_text('{"truncate_dim": 3, "prompts": {"query": null}}')
    cut = bert4x.embedder(saved)
    assert (cut.maxlen, cut.lower_case, cut.size, cut.prompts) == (9, True, 3, {"query": ""})
    np.testing.assert_allclose(cut(TEXTS[:2]), encoder(TEXTS[:2])[:, :3], atol=1e-6)
    assert bert4x.embedder(cut.save(tmp_path / "cut"))(TEXTS[0]).shape == (3,)


@pytest.mark.parametrize(
    ("file", "value", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "middle"}, "no pooling 'middle'"),
        ("1_Pooling/config.json", {"pooling_mode_odd": True}, "pooling_mode_odd"),
        ("2_Dense/config.json", {"out_features": 6, "activation_function": "os.system"}, "os.system"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}, {"type": "x.CNN", "path": ""}], "x.CNN"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "gone"}], "gone"),
        ("modules.json", [{"type": "x.Transformer", "path": "../other"}], "outside"),
        ("modules.json", {"a": 1}, "expected a list"),
        ("modules.json", [3], "no list"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}], "followed by nothing"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
        ("2_Dense/config.json", {"out_features": 6, "module_input_name": "token_embeddings"}, "module_input_name"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "query"),
    ],
)
def test_damaged_folders(encoder, file, value, words, tmp_path):
    saved = encoder.save(tmp_path / "saved")
    (saved / file).write_text(json.dumps(value))
    with pytest.raises(bert4x.Bert4xError, match=words):
        bert4x.embedder(saved)


def test_a_plain_encoder_is_averaged_and_says_so(folder):
    with pytest.warns(UserWarning, match="mean of its hidden states"):
        encoder = bert4x.embedder(folder)
    hidden = keras.ops.convert_to_numpy(encoder.backbone(encoder.tokenizer.encode_batch(TEXTS[:1], padding=True)))
    np.testing.assert_allclose(encoder(TEXTS[0]), hidden[0].mean(0), atol=1e-5)
    with pytest.raises(ConfigError, match="hidden states"):
        SentenceEmbedding(bert4x.load(folder, with_pool=True))


def test_order_batches_and_cuts(encoder, monkeypatch):
    many = [TEXTS[i % 3][: 1 + i % 7] for i in range(40)]
    alone, seen, predict = np.stack([encoder(text) for text in many]), [], encoder.predict
    monkeypatch.setattr(encoder, "predict", lambda model, arrays: seen.append(arrays[0].size) or predict(model, arrays))
    for tokens in (1, 64, 10**6):
        seen.clear()
        np.testing.assert_allclose(encoder(many, batch_tokens=tokens), alone, atol=1e-6)
        assert max(seen) <= max(tokens, 32) and (len(seen) == 40) == (tokens == 1)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 16 tokens"):
        long = encoder(["月" * 1_000_000, "光"])
    np.testing.assert_allclose(long[0], encoder("月" * 14), atol=1e-6)
    assert encoder([]).shape == (0, 6)


def test_bad_input(encoder, folder):
    for texts, words in (([" "], "text 0 of 1 is empty"), ([3], "expected a text"), (None, "expected a text")):
        with pytest.raises(InputError, match=words):
            encoder(texts)
    for bad, words in ((5, "found 5"), ([folder], "expected the path")):
        with pytest.raises(InputError, match=words):
            bert4x.embedder(bad)
    for given in ({"steps": 3}, {"prompts": {"query": 3}}, {"maxlen": "long"}, {"steps": [{"kind": "truncate"}]}):
        with pytest.raises(ConfigError, match=next(iter(given)) + "|no step"):
            bert4x.embedder(folder, pooling="mean", **given)
    with pytest.raises(UnknownOptionError, match="no prompt 'qury'"):
        encoder("光", "qury")
    with pytest.raises(ConfigError, match="can be 6 long"):
        encoder("光", dimensions=7)
    with pytest.warns(UserWarning, match="does not say that its vectors can be cut"):
        assert np.linalg.norm(encoder("光", dimensions=3)) == pytest.approx(1)
    trained = bert4x.embedder(folder, pooling="cls", dimensions=[2, 4])
    assert trained("光", dimensions=2).shape == (2,)
    with pytest.raises(ConfigError, match="can be 2, 4"):
        trained("光", dimensions=3)
    with pytest.raises(UnknownOptionError, match="no pooling 'meen'"):
        bert4x.embedder(folder, pooling="meen")
    with pytest.raises(UnknownOptionError, match="no similarity"):
        bert4x.embedder(folder, pooling="mean", similarity_name="cosin")
    for values in (encoder.model.get_weights(),):
        encoder.model.set_weights([np.full_like(x, np.nan) for x in values])
        with pytest.raises(InputError, match="row 0 holds NaN"):
            encoder("光")
        encoder.model.set_weights(values)


def test_search(encoder, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    queries, corpus = draw.standard_normal((3, 4)).astype("f4"), draw.standard_normal((50, 4)).astype("f4")
    monkeypatch.setattr(v, "BLOCK", 4 * 7)  # of seven rows
    for kind, score in {
        "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "dot": lambda a, b: a @ b,
        "euclidean": lambda a, b: -np.linalg.norm(a - b),
        "manhattan": lambda a, b: -np.abs(a - b).sum(),
    }.items():
        expected = np.array([[score(a, b) for b in corpus] for a in queries])
        np.testing.assert_allclose(v.similarity(queries, corpus, kind), expected, atol=1e-5)
        for row, found in zip(expected, v.search(queries, corpus, 5, kind), strict=True):
            assert [one.index for one in found] == np.argsort(-row)[:5].tolist()
    assert [one.index for one in v.search(corpus[:1], np.repeat(corpus[:1], 9, 0), 3)[0]] == [0, 1, 2]
    assert encoder.search("床前明月光", TEXTS, 1)[0].index in range(4)
    asked = encoder("床前明月光", "query")  # by the prompt of queries
    assert encoder.search("床前明月光", TEXTS, 4) == v.search(asked, encoder(TEXTS), 4)[0]
    assert encoder.search(["床前明月光", "a"], encoder(TEXTS), 9, query_prompt="")[1][0].index == 3
    for bad, words in (
        (lambda: v.search(queries, corpus[:, :3]), "another model"),
        (lambda: v.search(queries, corpus, 0), "top_k"),
        (lambda: v.similarity(queries, np.full((1, 4), np.nan)), "second vectors: row 0"),
        (lambda: v.similarity(queries, "ab"), "expected .N, D. numbers"),
    ):
        with pytest.raises(InputError, match=words):
            bad()


def test_forms_that_take_less_room():
    vectors = np.random.default_rng(0).standard_normal((9, 16)).astype("f4")
    packed = v.packed(vectors, "int8")
    assert packed.dtype == np.int8 and packed.min() == -128 and packed.max() == 127
    steps = np.ptp(vectors, axis=0) / 255
    assert (np.abs((packed + 128.5) * steps + vectors.min(0) - vectors) <= steps).all()
    assert np.array_equal(np.unpackbits(v.packed(vectors, "binary"), axis=1), vectors > 0)
    with pytest.raises(UnknownOptionError, match="no precision"):
        v.packed(vectors, "int4")


def test_whitening(encoder, tmp_path):
    many = [TEXTS[2][i % 9 : i % 9 + 3 + i % 4] for i in range(60)]
    white = encoder.whitened(many, 3)
    found = white(many)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_array_equal(bert4x.embedder(white.save(tmp_path / "white"))(many), found)
    for vectors, size, words in ((np.ones((4, 4)), 4, "4 vectors"), (np.ones((9, 4)), 5, "expected 1 to 4")):
        with pytest.raises(InputError, match=words):
            v.whitening(vectors, size)


def test_vectors_of_tokens(folder, tmp_path):
    encoder = bert4x.embedder(folder, pooling="mean", maxlen=16)
    many = [TEXTS[2][i % 9 : i % 9 + 3 + i % 4] for i in range(60)]
    words, tokenizer = encoder.static(many, 3), encoder.tokenizer
    table = np.array(keras.ops.convert_to_numpy(encoder.backbone.get_layer("Embedding-Token").embeddings), "f8")
    rows = [tokenizer.encode(text)[0][1:-1] for text in [*many, "天a气"]]
    known = [i for row in rows[:-1] for i in row]
    share = np.array([known.count(i) / len(known) for i in range(len(table))])
    weights = 1e-3 / (1e-3 + share)
    weights[tokenizer.unk_id] = min(weights)
    means = np.array([weights[row] @ table[row] / weights[row].sum() for row in rows])
    kernel, bias = v.whitening(means[:-1], 3)
    expected = means @ kernel + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(words([*many, "天a气"]), expected, atol=2e-5)
    np.testing.assert_allclose(words("天气a"), words("a天气"), atol=2e-6)
    np.testing.assert_allclose(bert4x.embedder(words.save(tmp_path / "words"))(many), words(many), atol=1e-6)
    with pytest.raises(InputError, match="2 vectors"):
        encoder.static(many[:2], 3)


def test_the_small_model_of_sentence_vectors():
    """By 10 points and more above the mean of the small BERT, 57.2, on STS-B dev."""
    encoder = bert4x.embedder()
    assert sum(file.stat().st_size for file in default_vectors().iterdir() if file.is_file()) < 12e6
    near, far = encoder.similarity("怎么申请退款", ["如何申请退钱", "明天几点开会"])[0]
    assert near > far + 0.3
    path = DATA / "pairs/stsb_dev.tsv.xz"
    if path.exists():
        assert encoder.evaluate(read_compared(path))["spearman"] > 0.69


def test_wrong_answers(encoder):
    rows = [("今天", "今天天气"), ("今天", "天气"), ("明月", "明月光"), ("公园", "去公园散步")]
    found = bert4x.mine_negatives(encoder, rows, 2, corpus=["语言", "模型"], margin=10)
    assert [row[:2] for row in found] == rows
    assert all(not {"今天天气", "天气"} & set(row[2:]) for row in found[:2]) and all(
        len(set(row)) == 4 for row in found
    )
    assert found == bert4x.mine_negatives(encoder, rows, 2, corpus=["语言", "模型"], margin=10)
    assert bert4x.mine_negatives(encoder, rows, 1, margin=-1) == []
    far = copy.copy(encoder)
    far.similarity_name = "euclidean"  # what is taken is farther than the right answer by a share
    corpus = [TEXTS[0][:n] for n in range(1, 7)] + TEXTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for question, answer, wrong in bert4x.mine_negatives(far, rows, 1, corpus=corpus, margin=0.9):
            near, distant = far.similarity(far([question], "query"), [answer, wrong])[0]
            assert distant < 1.1 * near < 0
    with pytest.raises(InputError, match="count = 0"):
        bert4x.mine_negatives(encoder, rows, 0)
    with pytest.raises(InputError, match="for an encoder"):
        bert4x.mine_negatives("x", rows)
    with pytest.raises(DataError, match="found 5"):
        bert4x.mine_negatives(encoder, 5)


def test_a_reranker(folder, tmp_path):
    backbone = bert4x.load(folder)
    task = TextClassification(backbone, ["score"], problem_type="multi_label_classification", maxlen=24)
    judge = bert4x.reranker(task.save(tmp_path / "run"))
    scores, order = judge("天气", TEXTS, top_k=2)
    expected = [task(("天气", text)).probability for text in TEXTS]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert order == np.argsort(-np.array(expected))[:2].tolist()
    two = Reranker(TextClassification(backbone, ["0", "1"], maxlen=24, long="first"))
    np.testing.assert_allclose(
        two("天气", TEXTS[:1]).scores, two.task(("天气", TEXTS[0])).probabilities["1"], atol=1e-6
    )
    for query, texts in (("", TEXTS), ("天气", []), ("天气", [3])):
        with pytest.raises(InputError):
            judge(query, texts)
    with pytest.raises(ConfigError, match="3 labels"):
        Reranker(TextClassification(backbone, ["a", "b", "c"], maxlen=24))


def drawn():
    draw = np.random.default_rng(0)
    return [draw.standard_normal((6, 8)) for _ in range(3)]


def test_losses():
    """The numbers of sentence-transformers 6.2 (CoSENTLoss, MultipleNegativesRankingLoss) in float64."""
    first, second, third = (x.astype("float32") for x in drawn())
    grades = np.array([5, 3, 3, 0, 1, 4], "float32")
    assert float(contrastive.cosent(first, second, grades)) == pytest.approx(17.214003038005284, rel=1e-6)
    assert float(contrastive.infonce(first, second)) == pytest.approx(7.583975650892803, rel=1e-6)
    both = np.concatenate([second, third])
    assert float(contrastive.infonce(first, both)) == pytest.approx(10.67955384188699, rel=1e-6)
    names = np.arange(18)
    assert float(contrastive.infonce(first, both, names)) == pytest.approx(10.67955384188699, rel=1e-6)
    names[12:] = names[6:12]  # what is right once more, elsewhere: it is not wrong there
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in drawn()[:2])
    scores = np.exp(20 * a @ b.T)
    expected = np.mean(np.log(2 * scores.sum(1) - np.diag(scores)) - np.log(np.diag(scores)))
    twice = np.concatenate([second, second])
    assert float(contrastive.infonce(first, twice, names)) == pytest.approx(expected, rel=1e-6)
    # Anchor 3 is anchor 0 again, with another right answer; wrong answer 8 of the 12 is the text of anchor 1.
    names, c = np.arange(18), drawn()[2]
    names[3], names[6 + 8] = names[0], names[1]
    scores = 20 * a @ np.concatenate([b, c / np.linalg.norm(c, axis=1, keepdims=True)]).T
    right = np.diag(scores).copy()
    scores[0, 3] = scores[3, 0] = scores[1, 8] = -np.inf
    expected = np.mean(np.log(np.exp(scores).sum(1)) - right)
    assert float(contrastive.infonce(first, both, names)) == pytest.approx(expected, rel=1e-6)
    sizes = contrastive.matryoshka(lambda x: contrastive.distance(x, np.zeros_like(x)), [2, 8])(first)
    assert float(sizes) == pytest.approx((first[:, :2] ** 2).mean() + (first**2).mean(), rel=1e-6)


def test_scores():
    draw = np.random.default_rng(0)
    for _ in range(3):
        draw.standard_normal((6, 8))
    x = draw.integers(0, 4, 30)
    y = x + draw.standard_normal(30)
    scores = sts(x, y)  # as scipy has them
    assert scores == pytest.approx({"spearman": 0.755370661543942, "pearson": 0.7523506886302587})
    found = retrieval([[3, 1, 2], [5, 6, 7]], [[1], {6: 2, 9: 1}], k=2)
    ideal = 3 + 1 / np.log2(3)
    assert found == pytest.approx({
        "recall@2": 0.75, "mrr@2": 0.5, "ndcg@2": (1 / np.log2(3) + 3 / np.log2(3) / ideal) / 2
    })  # fmt: skip
    same, values = np.full(3, 0.1), np.arange(3.0)  # whose deviation is 1e-17, by rounding
    assert sts(same, values) == {"spearman": 0, "pearson": 0} == sts(values, same)
    assert regression_scores(same, values)["pearson"] == regression_scores(values, same)["pearson"] == 0
    for bad in (([1], [1]), ([1, 2], [1, 2, 3]), ([1, np.nan], [1, 2])):
        with pytest.raises(InputError):
            sts(*bad)
    with pytest.raises(InputError, match="query 0 has no right answer"):
        retrieval([[1]], [[]])
    with pytest.raises(InputError, match="k = 0"):
        retrieval([[1]], [[1]], 0)


ROWS = {
    "grades": [("今天天气很好", "天气", 5), ("明月", "散步", 0), ("公园", "去公园", 4), ("霜", "光", 1)] * 2,
    "answers": [("今天天气很好", "天气", "霜"), ("明月", "月", "光"), ("公园", "去公园", "语言")] * 2,
    "single texts": [("今天天气很好",), ("明月",), ("公园",), ("霜",)],
}


def loss_of(task, rows):
    """Of all rows in one batch, without dropout."""
    inputs, targets = task.batch(task.prepare(rows), 16, np.random.default_rng(0))
    return float(keras.ops.convert_to_numpy(task.loss(task.model(inputs), targets)))


@pytest.mark.parametrize("kind", ROWS)
def test_it_learns(one_layer, kind):
    still = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0} if kind == "grades" else {}
    task = bert4x.embedder(one_layer, pooling="mean", maxlen=16, dimensions=[4] if kind == "answers" else [], **still)
    before = loss_of(task, ROWS[kind])
    size, rate = (8, 1e-3) if kind == "grades" else (4, 3e-3)
    task.fit(ROWS[kind], epochs=15, batch_size=size, learning_rate=rate, verbose=False)
    assert loss_of(task, ROWS[kind]) < 0.8 * before
    assert task.best_of(ROWS["grades"]) == "spearman" and set(task.evaluate(ROWS["grades"])) == {"spearman", "pearson"}
    if kind == "answers":  # the run keeps what puts right answers first
        report = task.fit(ROWS[kind], ROWS[kind], epochs=1, learning_rate=1e-9, verbose=False)
        assert task.best == "mrr" and set(report.scores) == {"mrr", "recall@1", "ndcg@10"}


@pytest.mark.parametrize(("kind", "rate"), [*((kind, 0.0) for kind in ROWS), ("single texts", 0.5)])
def test_batches_of_one_update_are_one_batch(one_layer, uncompiled, kind, rate):
    """The loss compares all rows, so that gradients of parts do not add up: they are taken by way of the vectors. What
    dropout drops in one batch is the same both times that it is computed.
    """
    trained, rows = [], (ROWS[kind] * 2)[:6]
    for parts, gathers in ((1, False), (1, True) if rate else (3, True)):
        task = bert4x.embedder(one_layer, pooling="mean", maxlen=16, dropout_rate=rate, attention_dropout_rate=rate)
        seeds = [variable for variable in task.model.variables if "seed_generator" in variable.path]
        for i, seed in enumerate(seeds):
            seed.assign(np.array([7, i], "uint32"))
        examples = task.prepare(rows)
        batches = [task.batch(examples[i::parts], 16, None) for i in range(parts)]
        trainer = Trainer(task.model, task.loss, keras.optimizers.SGD(1.0), gathers=gathers, join=task.join)
        with contextlib.nullcontext() if rate else uncompiled():
            loss = float(keras.ops.convert_to_numpy(trainer.learn(batches, 1e-2)))
        trained.append((loss, [np.array(keras.ops.convert_to_numpy(x.value)) for x in trainer.variables]))
    (expected, theirs), (loss, ours) = trained
    assert loss == pytest.approx(expected, rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_a_teacher(one_layer):
    task = bert4x.embedder(one_layer, pooling="mean", maxlen=16)
    rows = [(text, [0.0] * task.size) for text in TEXTS]
    before = loss_of(task, rows)
    task.fit(rows, epochs=5, batch_size=4, learning_rate=3e-3, verbose=False)
    assert loss_of(task, rows) < 0.8 * before


def test_rows_of_no_kind(encoder):
    for rows, words in (
        ([("a", 3)], "row 0: found"),
        ([("a", "b", 1), ("a", "b")], "several kinds"),
        ([("a", "b"), ("a", "b", "c")], "2 .row 0., 3 .row 1."),
        ([("a", "b", float("nan"))], "row 0"),
    ):
        with pytest.raises(DataError, match=words):
            encoder.prepare(rows)


def test_several_right_answers(encoder, monkeypatch):
    """All of a question's are right, each text is one candidate, and a question's own text is none."""
    texts = {"甲": (1, 0), "乙": (0, 1), "a": (1, 0.1), "b": (1, 0.3), "c": (1, 0.25), "d": (0.1, 1)}
    monkeypatch.setattr(
        SentenceEmbedding, "__call__", lambda self, given, prompt: np.array([texts[one] for one in given])
    )
    rows = [("甲", "b"), ("甲", "a"), ("乙", "d"), ("乙", "c"), ("b", "c"), ("a", "甲"), ("甲", "a")]
    ranks = encoder.ranks(rows)  # of 甲: a, c, b, d; of 乙: d, b, c, a, 甲; of b: c, a, 甲, d; of a: 甲, c, b, d
    assert [one.tolist() for one in ranks] == [[1, 3], [1, 3], [1], [1]]
    monkeypatch.setattr(v, "BLOCK", 1)
    assert [one.tolist() for one in encoder.ranks(rows)] == [[1, 3], [1, 3], [1], [1]]
    ideal = 1 + 1 / np.log2(3)
    ndcg = (2 * (1 + 1 / 2) / ideal + 2) / 4
    assert encoder.evaluate(rows) == pytest.approx({"mrr": 1, "recall@1": 0.75, "ndcg@10": ndcg})
    scores, right = np.array([[0.5, 0.5, 0.1]]), np.array([[True, False, True]])
    assert [one.tolist() for one in ranks_of_right(scores, right)] == [[2, 3]]  # of equal scores the last


def test_files_of_rows(tmp_path):
    def put(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    assert read_compared(put("a.tsv", "甲\t乙\t3\n丙\t丁\t0.5\n")) == [("甲", "乙", 3.0), ("丙", "丁", 0.5)]
    assert read_compared(put("b.txt", "甲\n乙\n"), "texts") == [("甲",), ("乙",)]
    assert read_compared(put("c.tsv", "甲\t乙\n丙\t丁\n"), "answers") == [("甲", "乙"), ("丙", "丁")]
    lines = [{"query": "甲", "pos": ["乙", "丙"], "neg": ["丁"]}, {"query": "戊", "pos": "己"}]
    path, said = put("d.jsonl", "\n".join(map(json.dumps, lines))), []
    assert read_compared(path, "answers") == [("甲", "乙"), ("甲", "丙"), ("戊", "己")]
    assert read_compared(path, "answers", wrong=1, say=said.append) == [("甲", "乙", "丁"), ("甲", "丙", "丁")]
    assert "1 of 3 rows have less than 1 wrong answers" in said[0]
    path = put("e.tsv", "甲\t乙\tcontradiction\n甲\t丙\tentailment\n甲\t丁\tneutral\n")
    assert read_compared(path, "answers", wrong=1) == [("甲", "丙", "乙")]
    named = put("h.jsonl", '{"q": "甲", "a": "乙", "n": "3"}\n')
    columns = {"text_column": "q", "pair_column": "a"}
    assert read_compared(named, "answers", **columns) == [("甲", "乙")]
    assert read_compared(named, label_column="n", **columns) == [("甲", "乙", 3.0)]
    found = [len(read_compared(tmp_path / name, None)[0]) for name in ("a.tsv", "c.tsv", "d.jsonl", "e.tsv")]
    assert found == [3, 2, 2, 2]  # grades, or answers, as the file has it
    assert read_compared(put("i.tsv", "question\tanswer\n甲\t乙\n"), None) == [("甲", "乙")]
    for name, text, words in (("f.tsv", "甲\t乙\t好\n", "grade '好'"), ("g.jsonl", '{"query": "甲"}', "line 1")):
        with pytest.raises(DataError, match=words):
            read_compared(put(name, text), "answers" if name == "g.jsonl" else "grades")


def test_commands(encoder, tmp_path, capsys, monkeypatch):
    """A file is gone on with where it was left, and ends as it would have at once."""
    from bert4x.cli import embed

    model, texts, out = encoder.save(tmp_path / "m"), tmp_path / "in.txt", tmp_path / "out.npy"
    texts.write_text("".join(f"{TEXTS[i % 3]}\n" for i in range(10)), encoding="utf-8")
    monkeypatch.setattr(embed, "PART", 3)
    monkeypatch.setattr(SentenceEmbedding, "__call__", failing(SentenceEmbedding.__call__, after=2))
    with pytest.raises(KeyError):
        main(["embed", str(texts), str(out), "--model", str(model)])
    monkeypatch.undo()
    monkeypatch.setattr(embed, "PART", 3)
    assert main(["embed", str(texts), str(out), "--model", str(model)]) == 0
    assert "after 6 of 10 vectors" in capsys.readouterr().err
    np.testing.assert_allclose(np.load(out), encoder([TEXTS[i % 3] for i in range(10)]), atol=1e-6)
    assert main(["embed", str(texts), str(out), "--model", str(model), "--prompt", "query"]) == 2
    assert "another options" in capsys.readouterr().err
    place = model / "1_Pooling" / "config.json"
    held = place.read_text()
    place.write_text(json.dumps(json.loads(held) | {"include_prompt": False}))
    assert main(["embed", str(texts), str(out), "--model", str(model)]) == 2
    assert "another model" in capsys.readouterr().err
    place.write_text(held)
    assert main(["similar", TEXTS[1], str(texts), "--model", str(model), "--vectors", str(out), "--top-k", "10"]) == 0
    assert TEXTS[1] in capsys.readouterr().out
    table = tmp_path / "table.tsv"  # whose first line would be names
    table.write_text("id\ttext\n1\t床前\n2\t明月\n", encoding="utf-8")
    asked = ["embed", str(table), str(tmp_path / "table.npy"), "--model", str(model), "--text-column", "2"]
    assert main([*asked, "--no-header"]) == 0 and len(np.load(tmp_path / "table.npy")) == 3
    capsys.readouterr()
    np.save(tmp_path / "others.npy", np.load(out)[:, :3])
    (tmp_path / "text.npy").write_text("none", encoding="utf-8")
    for name, words in (
        ("others.npy", "has 6 numbers"),
        ("text.npy", "cannot be read"),
        ("gone.npy", "cannot be read"),
    ):
        command = ["similar", TEXTS[1], str(texts), "--model", str(model), "--vectors", str(tmp_path / name)]
        assert main(command) == 2 and words in capsys.readouterr().err
    out.write_bytes(out.read_bytes()[:200])
    assert main(["embed", str(texts), str(out), "--model", str(model)]) == 2
    assert "has lost its end" in capsys.readouterr().err
    with pytest.raises(RunError, match="is there already"):
        (tmp_path / "other.npy").write_bytes(b"x")
        from bert4x.tasks.vector_files import VectorFile

        VectorFile(tmp_path / "other.npy", {}, 3, 4)
    for done in ("x", -1, 4, 1.5):
        (tmp_path / "other.npy.meta.json").write_text(json.dumps({"done": done, "shape": [3, 4]}))
        with pytest.raises(RunError, match="'done' is"):
            VectorFile(tmp_path / "other.npy", {}, 3, 4)


def failing(call, after: int):
    """The function, which fails after so many calls."""
    count = [0]

    def run(*args, **kwargs):
        count[0] += 1
        if count[0] > after:
            raise KeyError("killed")
        return call(*args, **kwargs)

    return run


def test_damaged_task_file(encoder, tmp_path):
    saved = encoder.save(tmp_path / "saved", "bert4x")
    said = json.loads((saved / "task.json").read_text())
    said["settings"]["pooling"] = ["middle"]
    (saved / "task.json").write_text(json.dumps(said))
    with pytest.raises((CorruptFileError, UnknownOptionError), match="middle"):
        bert4x.embedder(saved)
