"""Rerankers: what they learn from, Qwen3-Reranker's yes and no; similar questions, two uses of one model; mteb."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import write_tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import bert4x
from bert4x.errors import ConfigError, DataError, TokenizerError
from bert4x.tasks import yes_no
from bert4x.tasks.mteb_encoder import MtebEncoder
from bert4x.tasks.ranking import Ranking
from bert4x.tasks.reranker import Reranker
from bert4x.tasks.similar_questions import SimilarQuestions, of_pairs
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.yes_no import YesNoReranker

TEXTS = ["今天天气很好。", "床前明月光", "我们去公园散步吧，低头思故乡", "a"]
LISTS = [("天气", "今天天气很好", "明月", "公园"), ("散步", "去公园", "霜", "光")]
PAIRS = [("今天天气很好", "天气很好"), ("我们去公园", "去公园散步"), ("今天天气很好", "今天很好")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("rerankers") / "encoder", num_hidden_layers=1)


@pytest.mark.parametrize("listwise", [False, True])
def test_lists_of_answers(folder, listwise, tmp_path):
    task = Ranking(bert4x.load(folder), listwise=listwise, maxlen=24)
    inputs, targets = task.batch(task.prepare(LISTS), 16)
    scores = np.array([[1.0, 0.5, -1.0], [-2.0, 0.0, 3.0]], "float32")
    found = float(task.loss(keras.ops.convert_to_tensor(scores.reshape(-1, 1)), targets))
    odds = np.exp(scores)
    right = odds / odds.sum(1, keepdims=True) if listwise else odds / (1 + odds)
    expected = -np.log(right[:, 0]).mean() if listwise else -np.log([[r, 1 - a, 1 - b] for r, a, b in right]).mean()
    assert found == pytest.approx(expected, rel=1e-6) and inputs[0].shape == (6, 16)
    judge = Reranker(task)
    given = [judge(row[0], row[1:]).scores for row in LISTS]
    ranks = np.array([(one >= one[0]).sum() for one in given])
    assert task.evaluate(LISTS) == pytest.approx({"mrr": (1 / ranks).mean(), "recall@1": (ranks == 1).mean()})
    for format in ("hf", "bert4x"):
        again = bert4x.reranker(task.save(tmp_path / format, format))
        np.testing.assert_allclose(again("天气", LISTS[0][1:]).scores, given[0], atol=1e-6)
    for rows, words in (([("a", "b")], "wrong ones are found by"), ([("a", "b", 3)], "row 0")):
        with pytest.raises(DataError, match=words):
            task.prepare(rows)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A tiny Qwen3 with a byte-level vocabulary in which "yes" and "no" are tokens."""
    folder = tmp_path_factory.mktemp("qwen3")
    letters, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), [("n", "o"), ("y", "e"), ("ye", "s")]
    tokens = [*letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    backend.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    model = bert4x.build_transformer_model(
        model="qwen3", vocab_size=264, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        attention_head_size=6, num_key_value_heads=2, intermediate_size=30, max_position=600, initializer_range=0.5,
    )  # fmt: skip
    return bert4x.save(model, folder, "hf")


def test_lengths_and_log_odds(folder, tmp_path):
    """Of a folder that sentence-transformers 6 wrote: as long as its tokenizer says; no sentence vectors."""
    task = TextClassification(bert4x.load(folder), ["score"], problem_type="multi_label_classification", maxlen=24)
    saved = task.save(tmp_path / "judge", "hf")
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    (saved / "modules.json").write_text(json.dumps(listed))
    (saved / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    (saved / "tokenizer_config.json").write_text('{"model_max_length": 12}')
    judge, texts = bert4x.reranker(saved), [TEXTS[0], "光" * 40]
    assert (judge.task.maxlen, judge.task.long) == (12, "first")
    with pytest.warns(UserWarning, match="more than 12 tokens"):
        raw, order = judge("天气", texts, raw_scores=True)
    scores = judge("天气", ["今天天气很好。"[:5], "光" * 7]).scores
    np.testing.assert_allclose(1 / (1 + np.exp(-raw[1])), scores[1], atol=1e-6)
    assert order == np.argsort(-raw).tolist()
    two = Reranker(TextClassification(bert4x.load(folder), ["0", "1"], maxlen=24, long="first"))
    sure = two.task(("天气", TEXTS[0])).probabilities
    raw = two("天气", TEXTS[:1], raw_scores=True).scores
    np.testing.assert_allclose(raw, np.log(sure["1"] / sure["0"]), atol=1e-5)


def test_yes_or_no(qwen):
    """As the card of Qwen3-Reranker computes it, by transformers; texts of several lengths, and one that is cut."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    judge = bert4x.reranker(qwen, maxlen=480)
    tokenizer = transformers.AutoTokenizer.from_pretrained(qwen, padding_side="left")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(qwen)
    texts = [*TEXTS, "光" * 200]
    before, after = (tokenizer.encode(text) for text in (yes_no.BEFORE, yes_no.AFTER))
    asked = [f"<Instruct>: {yes_no.INSTRUCTION}\n<Query>: 天气\n<Document>: {text}" for text in texts]
    rows = [before + tokenizer.encode(text)[: 480 - len(before) - len(after)] + after for text in asked]
    batch = tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**batch).logits[:, -1, [tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]]
    with pytest.warns(UserWarning, match="is cut at"):
        scores, order = judge("天气", texts, batch_size=3)
    np.testing.assert_allclose(scores, torch.softmax(logits, 1)[:, 1].numpy(), atol=2e-5)
    assert order[0] == scores.argmax() and np.ptp(scores) > 1e-3
    other = bert4x.reranker(qwen, maxlen=480, instruction="选出同义的句子")
    assert np.abs(other("天气", TEXTS).scores - scores[:4]).max() > 1e-4
    with pytest.raises(ConfigError, match="maxlen = 100"):
        bert4x.reranker(qwen, maxlen=100)


def test_a_vocabulary_without_yes(qwen):
    model = SimpleNamespace(tokenizer=bert4x.load(qwen, application="lm").tokenizer)
    model.tokenizer.encode = lambda text: ([1, 2, 3], [0, 0, 0])
    with pytest.raises(TokenizerError, match="no tokens"):
        YesNoReranker(model)


def test_similar_questions(folder, tmp_path):
    task = SimilarQuestions(bert4x.load(folder, "unilm"), max_target=8, num_beams=1, maxlen=16)
    inputs, targets = task.batch(task.prepare(PAIRS), 24)
    vectors, logits = map(keras.ops.convert_to_numpy, task.model(inputs))
    encode = task.encoder()
    sources = [first for first, _ in PAIRS] + [second for _, second in PAIRS]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(sources), unit, atol=1e-5)  # whatever the target
    expected = []
    for i in range(6):  # texts 0 and 2 are the same
        partner = (i + 3) % 6
        others = [k for k in range(6) if sources[k] not in (sources[i], sources[partner])]
        scores = np.array([30 * unit[i] @ unit[k] for k in (partner, *others)])
        expected.append(np.log(np.exp(scores).sum()) - scores[0])
    assert float(of_pairs(vectors, targets[1])) == pytest.approx(np.mean(expected), rel=1e-4)
    alone = bert4x.tasks.seq2seq.Seq2Seq.loss(task, logits, targets[:1])
    assert float(task.loss((vectors, logits), targets)) == pytest.approx(float(alone) + np.mean(expected), rel=1e-4)
    scores = task.fit(PAIRS, PAIRS[:2], epochs=1, batch_size=3, verbose=False).scores
    assert {"mrr", "recall@1", "bleu"} <= set(scores) and task.best == "mrr"
    saved = task.save(tmp_path / "run")
    again = bert4x.embedder(saved, pooling="cls", steps=[{"kind": "normalize"}])
    np.testing.assert_allclose(again(sources), task.encoder()(sources), atol=1e-6)
    found = task.similar("天气", 2, drawn=4, seed=0)
    assert len(found) <= 2 and [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    with pytest.raises(DataError, match="two questions"):
        task.prepare([("a", "b", "c")])


def test_the_protocol_of_mteb(folder):
    """What mteb calls: batches of a loader, a task with a name and a kind, prompts by name, similarities."""
    prompts = {"query": "我们", "STS": "a", "Ours-query": "霜"}
    encoder = bert4x.embedder(folder, pooling="mean", prompts=prompts, maxlen=16)
    model, batches = MtebEncoder(encoder), [{"text": TEXTS[:3]}, {"text": TEXTS[3:]}]
    for name, kind, prompt_type, prompt in (
        ("Ours", "Retrieval", SimpleNamespace(value="query"), "Ours-query"),
        ("Other", "Retrieval", SimpleNamespace(value="query"), "query"),
        ("Other", "Retrieval", SimpleNamespace(value="document"), None),
        ("Other", "STS", None, "STS"),
    ):
        metadata = SimpleNamespace(name=name, type=kind)
        found = model.encode(batches, task_metadata=metadata, hf_split="test", hf_subset="zh", prompt_type=prompt_type)
        np.testing.assert_allclose(found, encoder(TEXTS, prompt), atol=1e-6)
    near = model.similarity(found, found[:2])
    np.testing.assert_allclose(near, encoder.similarity(found, found[:2]))
    paired = model.similarity_pairwise(found[:3], found[[1, 0, 1]])
    np.testing.assert_allclose(paired, near[[0, 1, 2], [1, 0, 1]], rtol=1e-5)
