"""Heads are part of a checkpoint: read, answered with, written, compared, and never lost without a word."""

import itertools
import json
import math
import warnings

import keras
import numpy as np
import pytest
from make_checkpoints import assert_same_bits, config_of, draw, read_all, write_checkpoint
from random_models import tiny_config

import bert4x
from bert4x.checkpoints import tables
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.heads import bio_tags
from bert4x.checkpoints.inspection import inspect
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tensors import from_array
from bert4x.cli import main
from bert4x.errors import (
    CheckpointNotFoundError,
    ConfigError,
    ConversionError,
    CorruptFileError,
    DataError,
    NotFiniteError,
    TensorMismatchError,
)
from bert4x.families import register_family
from bert4x.families.bert import Bert
from bert4x.tasks.comparison import verify
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.tagging import Grouped
from bert4x.tasks.text import Piece
from bert4x.tasks.text_classification import Example, TextClassification
from bert4x.tasks.token_classification import TokenClassification

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"好坏很不东西店家人菜服务差快慢今天气",
    "play",
    "##ing",
    "，",
    "。",
]
TEXT, OTHER = "今天天气很好，服务差play playing。店家", "坏"
TAGS = ["I-店", "O", "B-人", "B-店", "I-人"]
PREFIXES = {"bert": "Bert", "albert": "Albert"}
OTHERS_PREFIXES = {"electra": "Electra", "roformer": "RoFormer", "ernie": "Ernie"}


def config(family, **changes):
    return tiny_config(family, vocab_size=len(VOCAB), max_position=40, **changes)


def backbone(family="bert", **options):
    """A random model with large weights, and a vocabulary."""
    keras.utils.set_random_seed(3)
    model = bert4x.build_transformer_model(config(family), model=family, **options)
    fill(model.variables)
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    return model


def fill(variables, seed=0):
    generator = np.random.default_rng(seed)
    for variable in variables:
        if "seed_generator" not in variable.path:
            variable.assign(generator.normal(0, 0.3, variable.shape) + variable.path.endswith("gamma"))


def make(cls, family="bert", *args, **options):
    task = cls(backbone(family), *args, maxlen=32, **options)
    fill(task.head.values(), 1)
    return task


def probabilities(task, *texts):
    return task.probabilities(task.scores([Example(*task.tokenizer.encode(text), ()) for text in texts]))


def published(folder, family="bert", kind="ForSequenceClassification", count=3, layer="classifier", **said):
    """A folder as transformers writes one, without transformers."""
    c = config_of(family, vocab_size=len(VOCAB), max_position=40)
    weights = {p: v + p.endswith("gamma") for p, v in draw(c).items() if not p.startswith(("MLM", "NSP"))}
    write_checkpoint(folder, "hf", c, {p: v.astype("f4") for p, v in weights.items()})
    generator = np.random.default_rng(5)
    head = {f"{layer}.weight": (count, c.hidden_size), f"{layer}.bias": (count,)}
    head = {name: generator.normal(0, 0.4, shape).astype("f4") for name, shape in head.items()}
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    write_safetensors(folder / "model.safetensors", [from_array(name, x) for name, x in (tensors | head).items()])
    data = json.loads((folder / "config.json").read_text("utf-8"))
    data |= {"architectures": [(PREFIXES | OTHERS_PREFIXES)[family] + kind]} | said
    (folder / "config.json").write_text(json.dumps(data), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
    return folder, head


def named(*labels):
    return {"id2label": {str(i): x for i, x in enumerate(labels)}, "label2id": {x: i for i, x in enumerate(labels)}}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pooled(folder, *texts):
    model = bert4x.load(folder, with_pool=True)
    rows = [model.tokenizer.encode(text) for text in texts]
    outputs = [model([np.array([ids]), np.array([segments])]) for ids, segments in rows]
    return np.concatenate([keras.ops.convert_to_numpy(x) for x in outputs])


OTHERS = {"finetuning_task": "x", "dtype": "float32", "transformers_version": "5.24.0"}
PROBLEMS = {
    "unsaid": (2, {}, softmax),
    "single": (3, named("好", "坏", "中") | {"problem_type": "single_label_classification"}, softmax),
    "multi": (3, named("a", "b", "c") | {"problem_type": "multi_label_classification"}, sigmoid),
    "regression": (1, {"problem_type": "regression"} | named("value"), lambda x: x),
    "one": (1, named("LABEL_0"), sigmoid),
}


@pytest.mark.parametrize("family", PREFIXES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_published_classifier_answers(family, problem, tmp_path):
    """The scores are those of the pooler and the file's own matrix, by NumPy."""
    count, said, link = PROBLEMS[problem]
    folder, head = published(tmp_path / "a", family, count=count, **said)
    expected = link(pooled(folder, TEXT, OTHER) @ head["classifier.weight"].T + head["classifier.bias"])
    task = bert4x.pipeline("text-classification", folder)
    assert task.labels == list(said.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"}).values())
    np.testing.assert_allclose(probabilities(task, TEXT, OTHER), expected, atol=2e-5)
    answer = task(TEXT)
    if problem == "multi":
        assert [a.label for a in answer] == [task.labels[i] for i in np.argsort(-expected[0]) if expected[0, i] > 0.5]
    else:
        best = int(expected[0].argmax())
        assert answer.label == task.labels[best] and answer.probability == pytest.approx(expected[0, best], abs=2e-5)
    found = inspect(folder)
    assert found.head["task"] == "text-classification" and found.head["labels"] == task.labels
    assert found.head.get("problem_type") == task.problem_type


@pytest.mark.parametrize("family", PREFIXES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_there_and_back_bit_for_bit(family, problem, tmp_path):
    """The config, too: what it says of labels, problem and dropout, and what means nothing to us."""
    count, said, _ = PROBLEMS[problem]
    folder, _ = published(tmp_path / "a", family, count=count, classifier_dropout=0.25, **OTHERS, **said)
    data = json.loads((folder / "config.json").read_text("utf-8"))
    data.pop("torch_dtype")  # as transformers 5 says it: "dtype"; and old files, nothing
    if problem == "one":
        data.pop("dtype")
    (folder / "config.json").write_text(json.dumps(data), "utf-8")
    for through in ("bert4x", "tf1"):
        between = bert4x.convert(folder, tmp_path / through, through)
        assert open_checkpoint(between).head.task == "text-classification"
        back = bert4x.convert(between, tmp_path / f"{through}-hf", "hf")
        assert_same_tensors(folder, back)
        before, after = (json.loads((x / "config.json").read_text("utf-8")) for x in (folder, back))
        assert before == after and after.keys() >= OTHERS.keys() - {"dtype"} | {"layer_norm_eps", "pad_token_id"}


def test_tags_of_a_published_tagger(tmp_path):
    folder, head = published(tmp_path / "a", kind="ForTokenClassification", count=5, **named(*TAGS))
    task = bert4x.pipeline("token-classification", folder)
    model = bert4x.load(folder)
    ids, segments = model.tokenizer.encode(TEXT)
    hidden = keras.ops.convert_to_numpy(model([np.array([ids]), np.array([segments])]))[0]
    probs = softmax(hidden @ head["classifier.weight"].T + head["classifier.bias"])[1:-1]
    _, offsets = model.tokenizer.encode_with_offsets(TEXT)
    expected, before = [], "O"
    for p, (start, end) in zip(probs, offsets[1:-1], strict=True):
        tag = TAGS[p.argmax()]
        if expected and tag != "O" and before != "O" and tag[2:] == before[2:] and tag[0] == "I":
            expected[-1] = (*expected[-1][:2], end, [*expected[-1][3], p.max()])
        elif tag != "O":
            expected.append((tag[2:], start, end, [p.max()]))
        before = tag
    found = task(TEXT)
    assert [(e.label, e.start, e.end) for e in found] == [row[:3] for row in expected] and len(found) > 3
    np.testing.assert_allclose([e.score for e in found], [np.mean(row[3]) for row in expected], atol=2e-5)
    assert task.labels == ["店", "人"]
    assert_same_bits(read_all(bert4x.convert(folder, tmp_path / "own", "bert4x")), read_all(folder))
    assert bert4x.pipeline("token-classification", tmp_path / "own")(TEXT) == found
    assert verify(folder, tmp_path / "own")["token-classification"] < 2e-5


def test_tags_of_tokens_without_characters(tmp_path):
    """A space of byte-level tokens may have none (2, 2): it is tagged as others are, as transformers' pipeline does."""
    folder, _ = published(tmp_path / "a", kind="ForTokenClassification", count=5, **named("x", "O", "y", "z", "w"))
    task = bert4x.pipeline("ner", folder)
    piece = Piece(0, 3, [2, 5, 6, 7, 3], [(0, 0), (0, 1), (2, 2), (2, 3), (3, 3)])
    logits = np.log(np.full((5, 5), 0.1) + 0.5 * np.eye(5)[[2, 0, 0, 1, 2]])
    ((span, score),) = task.find([piece], [logits])[0]
    assert span == ("x", 1, 2) and piece.characters(1, 2) == (0, 2) and score == pytest.approx(0.6)
    assert task.tagged(piece).tolist() == [False, True, True, True, False]


# Of a decoder: its classes, the layer of tags, and how the names of the model begin where it answers questions.
DECODERS = {
    "llama": ("Llama", "score", "transformer."),
    "mistral": ("Mistral", "score", "model."),
    "qwen2": ("Qwen2", "score", "transformer."),
    "qwen3": ("Qwen3", "score", "transformer."),
    "gpt2": ("GPT2", "classifier", "transformer."),
}


@pytest.mark.parametrize("family", DECODERS)
def test_heads_of_decoders(family, tmp_path):
    """Tags and answers, as transformers' classes hold and name them; scores by NumPy, and back bit for bit."""
    prefix, of_tags, root = DECODERS[family]
    c = config_of(family, max_position=40, vocab_size=90, hidden_size=48, num_attention_heads=6)
    weights = {path: (v + path.endswith("gamma")).astype("f4") for path, v in draw(c, heads=False).items()}
    plain = write_checkpoint(tmp_path / "plain", "hf", c, weights)
    (plain / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
    model, usual = bert4x.load(plain, "encoder"), {"gpt2": "transformer."}.get(family, "model.")
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(plain).tensors.values()}
    for kind, layer, count in (("TokenClassification", of_tags, 5), ("QuestionAnswering", "qa_outputs", 2)):
        head = {f"{layer}.weight": draw(c)["Embedding-Token/embeddings"][:count], f"{layer}.bias": np.arange(count)}
        named_so = {root + n.removeprefix(usual) if count == 2 else n: x for n, x in tensors.items()}
        folder = tmp_path / kind
        folder.mkdir()
        all_of = [from_array(name, x.astype("f4")) for name, x in (named_so | head).items()]
        write_safetensors(folder / "model.safetensors", all_of)
        data = json.loads((plain / "config.json").read_text("utf-8")) | {"architectures": [f"{prefix}For{kind}"]}
        data |= (named(*TAGS) if count == 5 else {}) | {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        (folder / "config.json").write_text(json.dumps(data), "utf-8")
        (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
        task = bert4x.pipeline({5: "ner", 2: "question-answering"}[count], folder)
        ids = model.tokenizer.encode(TEXT)[0] if count == 5 else next(task.windows(OTHER, TEXT)).token_ids
        hidden = keras.ops.convert_to_numpy(model(np.array([ids])))[0]
        expected = hidden @ head[f"{layer}.weight"].T + head[f"{layer}.bias"]
        found = task.predict(task.model, [np.array([ids])])[0]
        np.testing.assert_allclose(found if count == 5 else found.T, expected, atol=2e-5)
        back = bert4x.convert(bert4x.convert(folder, tmp_path / f"{kind}-own", "bert4x"), tmp_path / f"{kind}-hf", "hf")
        assert_same_tensors(folder, back)
        assert json.loads((back / "config.json").read_text("utf-8")) == data
        assert_same_tensors(folder, bert4x.save(task, tmp_path / f"{kind}-saved", "hf"))


def test_schemes_of_tags():
    """Places other than B and I end entities too; labels without places are entities by themselves."""
    logs = np.log(np.full((6, 5), 0.1) + 0.5 * np.eye(5)[[0, 1, 2, 3, 4, 0]])
    bioes = Grouped(["O", "B-人", "M-人", "E-人", "S-人"])
    assert [span for span, _ in bioes.decode(logs, None)] == [("人", 1, 3), ("人", 4, 4)]
    tags, left_out = bioes.encode([("人", 0, 2), ("人", 4, 4), ("人", 2, 3)], 6)
    assert tags.tolist() == [1, 2, 3, 0, 4, 0] and left_out == 1
    alone = Grouped(["人", "地", "O", "机", "书"])
    assert [span for span, _ in alone.decode(logs, None)] == [
        ("人", 0, 0),
        ("地", 1, 1),
        *[("机", 3, 3), ("书", 4, 4), ("人", 5, 5)],
    ]
    assert alone.encode([("地", 1, 2)], 4)[0].tolist() == [2, 1, 1, 2]
    assert Grouped(bio_tags(["a-b"])).entity_labels == ["a-b"]
    logs = np.log(np.full((7, 7), 0.1) + 0.5 * np.eye(7)[[1, 2, 3, 4, 0, 5, 5]])
    for single in "SUW":  # BIOES, BILOU, BMEWO; and tags that are labels alone beside them
        mixed = Grouped(["O", "B-人", "M-人", "E-人", f"{single}-人", "X", "[SEP]"])
        assert [span for span, _ in mixed.decode(logs, None)] == [("人", 0, 2), ("人", 3, 3), ("X", 5, 6)]
        assert mixed.encode([("人", 0, 2), ("人", 3, 3), ("X", 5, 6)], 7)[0].tolist() == [1, 2, 3, 4, 0, 5, 5]
    with pytest.raises(ConfigError, match="no O"):
        Grouped(["B-人", "I-人"]).encode([], 3)
    with pytest.raises(ConfigError, match="each of them once"):
        TokenClassification(backbone(), method="softmax", tags=["O", "B-人", "B-人"], maxlen=32)


def test_a_published_reader(tmp_path):
    folder, head = published(tmp_path / "a", "albert", "ForQuestionAnswering", 2, "qa_outputs")
    task = bert4x.pipeline("reading-comprehension", folder)
    (window,) = task.windows("好不好", TEXT)
    outputs = task.predict(task.model, task.inputs([window]))[0][:, : window.length]
    model = bert4x.load(folder)
    hidden = model(task.inputs([window]))
    scores = keras.ops.convert_to_numpy(hidden)[0] @ head["qa_outputs.weight"].T + head["qa_outputs.bias"]
    np.testing.assert_allclose(outputs, scores[: window.length].T, atol=2e-5)
    back = bert4x.convert(bert4x.convert(folder, tmp_path / "tf1", "tf1"), tmp_path / "hf", "hf")
    assert (back / "config.json").read_bytes() != b"" and verify(folder, back)["reading-comprehension"] == 0


def test_heads_of_google(tmp_path):
    """run_classifier's output_weights and output_bias; labels by number, as nobody names them."""
    folder, _ = published(tmp_path / "a", count=4, **named("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"))
    tf1 = bert4x.convert(folder, tmp_path / "tf1", "tf1")
    assert {"output_weights", "output_bias"} < set(open_checkpoint(tf1).tensors)
    data = json.loads((tf1 / "bert_config.json").read_text("utf-8"))
    (tf1 / "bert_config.json").write_text(json.dumps({k: v for k, v in data.items() if "label" not in k}), "utf-8")
    again = TextClassification.load(tf1)
    assert again.labels == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    np.testing.assert_array_equal(
        probabilities(again, TEXT), probabilities(bert4x.pipeline("text-classification", folder), TEXT)
    )


CLASSIFIERS = {
    "single": {"labels": ["好", "坏", "中"]},
    "multi": {"labels": ["a", "b"], "multi_label": True},
    "sigmoid": {"labels": ["a", "b"], "problem_type": "multi_label_classification"},
    "regression": {"labels": ["value"], "problem_type": "regression"},
}


@pytest.mark.parametrize("family", PREFIXES)
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_our_classifier_in_other_layouts(family, kind, tmp_path):
    """It has no pooler; the layouts have one, which the identity replaces, and the answers are the same."""
    task = make(TextClassification, family, **CLASSIFIERS[kind])
    own = task.save(tmp_path / "own")
    for format in ("hf", "tf1"):
        folder = bert4x.save(task, tmp_path / format, format)
        assert_same_tensors(folder, bert4x.convert(own, tmp_path / f"from-own-{format}", format))
        if family == "albert" and format == "hf":
            continue
        again = bert4x.pipeline("text-classification", folder)
        assert again.labels == task.labels and not again.pooler
        np.testing.assert_allclose(probabilities(again, TEXT), probabilities(task, TEXT), atol=1e-7)
        assert again.multi_label == task.multi_label
    if kind == "multi":
        assert verify(own, folder)["text-classification"] < 1e-6
    kernel = np.asarray(task.head["Label-Scores/kernel"])
    twice = 2 if kind == "multi" else 1  # the sigmoid of our loss is steeper
    np.testing.assert_array_equal(np.asarray(again.head["Label-Scores/kernel"]), twice * kernel)


def assert_same_tensors(first, second):
    a, b = ({t.name: t.read().tobytes() for t in open_checkpoint(x).tensors.values()} for x in (first, second))
    assert a == b


def test_what_has_no_room(tmp_path, capsys):
    """An error that names what would stay behind, and nothing is written; told so, the model alone is."""
    crf = make(TokenClassification, "bert", ["人", "店"], method="crf")
    run = crf.save(tmp_path / "run")
    for format in ("hf", "tf1", "keras"):
        with pytest.raises(ConversionError, match=r"no room for the head.*Entity-Transitions/trans.*--drop-head"):
            bert4x.convert(run, tmp_path / "new", format)
        with pytest.raises(ConversionError, match="no room for the head"):
            crf.save(tmp_path / "new", format)
        assert not (tmp_path / "new").exists()
    assert main(["convert", str(run), str(tmp_path / "new"), "--to", "hf"]) != 0
    assert "Entity-Transitions/trans" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main(["convert", str(run), str(tmp_path / "new"), "--to", "hf", "--drop-head"]) == 0
    assert_same_bits(read_all(tmp_path / "new"), read_all(run))
    with pytest.raises(ConfigError, match=r"only .*run.* has the head for token-classification"):
        verify(run, tmp_path / "new")
    assert open_checkpoint(crf.save(tmp_path / "alone", "hf", drop_head=True)).head is None
    tagger = make(TokenClassification, "bert", ["人", "店"], method="softmax")
    softmax_run = tagger.save(tmp_path / "softmax")
    with pytest.warns(
        UserWarning, match=r"hf has no place for these settings of the token-classification task: .*maxlen"
    ):
        hf = bert4x.convert(softmax_run, tmp_path / "softmax-hf", "hf")
    said = json.loads((hf / "config.json").read_text("utf-8"))
    assert said["architectures"] == ["BertForTokenClassification"]
    assert list(said["id2label"].values()) == bio_tags(["人", "店"])
    assert verify(softmax_run, hf)["token-classification"] == 0
    # Its tags spell entities, as in the run: other scores than those of transformers' pipeline.
    again = bert4x.pipeline("token-classification", hf)
    assert tagger(TEXT) == again(TEXT) != [] and again.tags is None and again.labels == ["人", "店"]
    back = bert4x.convert(bert4x.convert(hf, tmp_path / "softmax-own", "bert4x"), tmp_path / "softmax-back", "hf")
    assert json.loads((back / "config.json").read_text("utf-8")) == said


@pytest.mark.parametrize(("family", "act"), [("electra", "gelu_erf"), ("roformer", "relu")])
def test_a_classifier_on_a_layer_of_its_own(family, act, tmp_path):
    """Those of transformers' ElectraForSequenceClassification and RoFormerForSequenceClassification, by NumPy."""
    c = config_of(family, vocab_size=len(VOCAB), max_position=40, hidden_act="relu")
    weights = {p: v + p.endswith("gamma") for p, v in draw(c, heads=False).items()}
    folder = write_checkpoint(tmp_path / "a", "hf", c, {p: v.astype("f4") for p, v in weights.items()})
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
    hidden = bert4x.load(folder)
    inputs = [np.array([x]) for x in hidden.tokenizer.encode(TEXT)]
    h = keras.ops.convert_to_numpy(hidden(inputs))[:, 0]
    generator, size = np.random.default_rng(5), c.hidden_size
    shapes = {"dense.weight": (size, size), "dense.bias": size, "out_proj.weight": (3, size), "out_proj.bias": 3}
    head = {f"classifier.{name}": generator.normal(0, 0.3, shape).astype("f4") for name, shape in shapes.items()}
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    write_safetensors(folder / "model.safetensors", [from_array(name, x) for name, x in (tensors | head).items()])
    data = json.loads((folder / "config.json").read_text("utf-8")) | named("好", "坏", "中")
    data["architectures"] = [f"{OTHERS_PREFIXES[family]}ForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(data), "utf-8")
    d = h @ head["classifier.dense.weight"].T + head["classifier.dense.bias"]
    d = d * (d > 0) if act == "relu" else d * (1 + np.vectorize(math.erf)(d / math.sqrt(2))) / 2
    expected = softmax(d @ head["classifier.out_proj.weight"].T + head["classifier.out_proj.bias"])
    task = bert4x.pipeline("text-classification", folder)
    np.testing.assert_allclose(probabilities(task, TEXT), expected, atol=2e-5)
    back = bert4x.convert(task.save(tmp_path / "own"), tmp_path / "back", "hf")
    assert_same_tensors(folder, back)
    assert json.loads((back / "config.json").read_text("utf-8")) == data


@pytest.mark.parametrize("family", ["electra", "deberta_v2"])
def test_our_classifier_on_the_identity(family, tmp_path):
    """A layer that the layout has and the run lacks, with gelu: the same answers, and the run again."""
    task = make(TextClassification, family, ["a", "b", "c"])
    again = bert4x.pipeline("text-classification", task.save(tmp_path / "hf", "hf"))
    assert not again.pooler and again.hidden_act is None
    np.testing.assert_array_equal(*(np.asarray(t.head["Label-Scores/kernel"]) for t in (task, again)))
    data = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    kept = {key: value for key, value in data.items() if key != "pooler_is_identity"}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(kept), "utf-8")
    through = bert4x.pipeline("text-classification", tmp_path / "hf")
    assert through.pooler or through.hidden_act == "gelu_erf"
    np.testing.assert_allclose(probabilities(through, TEXT), probabilities(task, TEXT), atol=1e-6)


SPELLED = {
    "deberta_v2": {"pos_att_type": ["c2p", "p2c"], "max_relative_positions": -1, "legacy": True, "conv_act": None},
    "ernie": {"use_task_id": False, "task_type_vocab_size": 3},
    "modernbert": {"rope_theta": None, "local_rope_theta": None},
}


def test_a_padding_id_that_the_vocabulary_corrects_comes_back(tmp_path):
    """hfl's RoBERTa-wwm says 1: that is not obeyed, and the file is as it was all the same."""
    folder, _ = published(tmp_path / "a", pad_token_id=1, bos_token_id=2, eos_token_id=[3, 4], **named("a", "b", "c"))
    said = {"bos_token_id": 2, "eos_token_id": [3, 4], "max_length": 20, "transformers_version": "5.24.0"}
    (folder / "generation_config.json").write_text(json.dumps(said), "utf-8")
    own = bert4x.convert(folder, tmp_path / "b", "bert4x")
    assert bert4x.load(own).config.pad_token_id == 0
    back = bert4x.convert(own, tmp_path / "c", "hf")
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads((x / name).read_text("utf-8")) for x in (folder, back))
        assert before == after
    bert4x.save(bert4x.load(own), tmp_path / "d", "hf")
    assert json.loads((tmp_path / "d" / "generation_config.json").read_text("utf-8")) == said


@pytest.mark.parametrize("pad", [0, 7, None])
@pytest.mark.parametrize("family", ["bert", "modernbert", "bart"])
def test_a_padding_id_that_a_vocabulary_with_another_corrects_comes_back(family, pad, tmp_path):
    """Of families that read it from the config, and where the vocabulary has [PAD] elsewhere than at 0."""
    c = config_of(family, vocab_size=len(VOCAB), **({"layer_norm_eps": 1e-5} if family == "bart" else {}))
    folder = write_checkpoint(tmp_path / "a", "hf", c)
    (folder / "vocab.txt").write_text("\n".join([*VOCAB[1:3], "[PAD]", *VOCAB[3:]]) + "\n", "utf-8")
    said = json.loads((folder / "config.json").read_text("utf-8")) | {"pad_token_id": pad}
    (folder / "config.json").write_text(json.dumps(said), "utf-8")
    own = bert4x.convert(folder, tmp_path / "b", "bert4x")
    model = bert4x.load(own, "encoder")
    assert model.config.pad_token_id == bert4x.load(folder, "encoder").config.pad_token_id == 2
    for back in (bert4x.convert(own, tmp_path / "c", "hf"), bert4x.save(model, tmp_path / "d", "hf")):
        found = json.loads((back / "config.json").read_text("utf-8"))
        assert found | {"architectures": said["architectures"]} == said  # the model without its heads is saved
        assert bert4x.load(back, "encoder").config.pad_token_id == 2


@pytest.mark.parametrize("family", SPELLED)
def test_config_files_say_what_they_said(family, tmp_path):
    """Keys that we would write otherwise, or not at all."""
    changes = {"ernie": {"use_task_id": False}, "deberta_v2": {"max_relative_positions": 29}}.get(family, {})
    folder = write_checkpoint(tmp_path / "a", "hf", config_of(family, **changes))
    said = json.loads((folder / "config.json").read_text("utf-8")) | SPELLED[family]
    (folder / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}), "utf-8")
    own = bert4x.convert(folder, tmp_path / "b", "bert4x")
    back = bert4x.convert(own, tmp_path / "c", "hf")
    before, after = (json.loads((x / "config.json").read_text("utf-8")) for x in (folder, back))
    assert before == after
    data = json.loads((own / "config.json").read_text("utf-8"))
    (own / "config.json").write_text(json.dumps(data | {"layer_norm_eps": 1e-3}), "utf-8")
    changed = json.loads((bert4x.convert(own, tmp_path / "d", "hf") / "config.json").read_text("utf-8"))
    assert [key for key in before.keys() | changed.keys() if before.get(key) != changed.get(key)] in (
        ["layer_norm_eps"],
        ["norm_eps"],
    )


@pytest.mark.parametrize("family", ["bert", "roformer"])  # a RoFormer has one kind of `classifier` only that is known
def test_a_head_that_is_not_known(family, tmp_path):
    folder, _ = published(tmp_path / "a", family, kind="ForMultipleChoice", count=1)
    with pytest.raises(ConversionError, match=r"not known here.*classifier\.weight"):
        bert4x.convert(folder, tmp_path / "b", "tf1")
    dropped = bert4x.convert(folder, tmp_path / "b", "tf1", drop_head=True)
    with pytest.raises(ConfigError, match=r"only .* has classifier\.\w+, of a head that is not known"):
        verify(folder, dropped)
    with pytest.warns(UserWarning, match=r"head that is not known here: classifier\.\w+"):
        TextClassification(bert4x.load(folder), ["a", "b"], maxlen=32)


def test_a_head_on_a_decoder(tmp_path):
    """`is_decoder` hides from tokens those after them, in transformers with any head; tasks read texts as a whole."""
    folder, _ = published(tmp_path / "a", kind="ForTokenClassification", is_decoder=True)
    for act in (lambda: bert4x.pipeline("ner", folder), lambda: bert4x.convert(folder, tmp_path / "b", "bert4x")):
        with pytest.raises(TensorMismatchError, match="config says is_decoder = true"):
            act()
    task = TextClassification(bert4x.load(folder, "encoder"), ["a", "b"], maxlen=32)
    fill(task.head.values(), 1)
    again = TextClassification.load(task.save(tmp_path / "c", "hf"))
    np.testing.assert_allclose(probabilities(again, TEXT), probabilities(task, TEXT), atol=1e-5)
    assert json.loads((tmp_path / "c" / "config.json").read_text("utf-8"))["is_decoder"] is False


def test_an_unused_head_is_named_once(tmp_path):
    folder, _ = published(tmp_path / "a", **named("好", "坏", "中"))
    model = bert4x.load(folder)
    assert model.load_report.head.labels == ["好", "坏", "中"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = TextClassification(model, ["a", "b"], maxlen=32)
        TextClassification(model, ["a", "b"], maxlen=32)
        bert4x.pipeline("text-classification", folder)
        own = task.save(tmp_path / "own")
        TextClassification.load(own)
    (named_once,) = [str(warning.message) for warning in caught if "head for" in str(warning.message)]
    assert "head for text-classification (好, 坏, 中): classifier.weight" in named_once
    assert open_checkpoint(task.save(tmp_path / "hf", "hf")).head.labels == ["a", "b"]
    with pytest.warns(UserWarning, match="not written with it: the head for text-classification"):
        alone = bert4x.save(bert4x.load(folder), tmp_path / "alone", "hf")
    assert "id2label" not in json.loads((alone / "config.json").read_text("utf-8"))


def test_heads_that_contradict_the_config(tmp_path):
    folder, _ = published(tmp_path / "a", count=4, **named("好", "坏"))
    assert bert4x.load(folder) is not None
    assert "names 2 labels, but there are scores of 4" in inspect(folder).head["problem"]
    for act in (
        lambda: bert4x.pipeline("text-classification", folder),
        lambda: bert4x.convert(folder, tmp_path / "b", "tf1"),
    ):
        with pytest.raises(TensorMismatchError, match="names 2 labels, but there are scores of 4"):
            act()
    edit = json.loads((folder / "config.json").read_text("utf-8"))
    for wrong, labels in ((["a", "b", "c", "d"], 4), ("abcd", 0)):  # a list can be read, other things are named
        (folder / "config.json").write_text(json.dumps(edit | {"id2label": wrong}), "utf-8")
        assert len(open_checkpoint(folder).head.labels) == labels
    alone = {"id2label": None, "label2id": {"b": 1, "a": 0, "d": 3, "c": 2}}
    (folder / "config.json").write_text(json.dumps(edit | alone), "utf-8")
    assert open_checkpoint(folder).head.labels == ["a", "b", "c", "d"]
    (folder / "config.json").write_text(json.dumps(edit | {"architectures": ["MyClassifier"]}), "utf-8")
    with pytest.raises(CheckpointNotFoundError, match=r"classifier\.bias.*MyClassifier.*BertForSequenceClassification"):
        bert4x.pipeline("text-classification", folder)
    with pytest.raises(ConfigError, match="'text-classification', not for 'token-classification'"):
        bert4x.pipeline("token-classification", published(tmp_path / "c")[0])


def test_damaged_heads(tmp_path):
    run = make(TextClassification, "bert", ["a", "b"]).save(tmp_path / "run")
    whole = (run / "task.json").read_text("utf-8")
    for wrong in (
        '{"task": "text-classification", "settings": {"labels": 5}}',
        '{"task": "text-classification", "settings": {"labels": ["a", "b"], "colour": 1}}',
        '{"task": "text-classification", "settings": {"labels": ["a", "b"], "maxlen": "x"}}',
        '{"task": 5, "settings": {}}',
        "[]",
    ):
        (run / "task.json").write_text(wrong, "utf-8")
        with pytest.raises(CorruptFileError, match=r"task\.json"):
            bert4x.pipeline("text-classification", run)
    (run / "task.json").write_text(whole.replace('"b"', '"b", "c"'), "utf-8")
    with pytest.raises(TensorMismatchError, match=r"Label-Scores/\w+ has shape"):
        bert4x.pipeline("text-classification", run)
    folder, _ = published(tmp_path / "a", classifier_dropout="much", **named("好", "坏", "中"))
    with pytest.raises(ConfigError, match="classifier_dropout = 'much'"):
        bert4x.load(folder)
    folder, _ = published(tmp_path / "b", **named("好", "坏", "中"))
    tensors = {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}
    tensors["classifier.weight"][1, 2] = np.inf
    write_safetensors(folder / "model.safetensors", [from_array(name, x) for name, x in tensors.items()])
    for act in (lambda: bert4x.pipeline("text-classification", folder), lambda: bert4x.convert(folder, tmp_path / "c")):
        with pytest.raises(NotFiniteError, match="Label-Scores/kernel"):
            act()


def test_which_head_where_the_config_names_none(tmp_path):
    """With a pooler, classifier is on it; without, on every token."""
    folder, _ = published(tmp_path / "a", architectures=None)
    assert open_checkpoint(folder).head.task == "text-classification"
    kept = [t for t in open_checkpoint(folder).tensors.values() if "pooler" not in t.name]
    kept = [from_array(t.name, np.array(t.read())) for t in kept]
    write_safetensors(folder / "model.safetensors", kept)
    assert open_checkpoint(folder).head.task == "token-classification"


@pytest.mark.parametrize("prefix", ["module.", "net.", "model.bert_model.", "_orig_mod."])
def test_heads_under_the_prefix_of_a_wrapper(prefix, tmp_path):
    folder, head = published(tmp_path / "a", **named("好", "坏", "中"))
    wrapped = [from_array(prefix + t.name, np.array(t.read())) for t in open_checkpoint(folder).tensors.values()]
    write_safetensors(folder / "model.safetensors", wrapped)
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.report.problems + checkpoint.report.unknown
    kernel = checkpoint.head.tensors["Label-Scores/kernel"].read()
    np.testing.assert_array_equal(kernel, head["classifier.weight"].T)


@pytest.mark.parametrize("family", PREFIXES)
def test_the_class_of_a_model_without_a_head_of_a_task(family, tmp_path):
    """By the heads of its own that it has."""
    c = config_of(family)
    for absent, name in ((), "ForPreTraining"), (("NSP", "Pooler"), "ForMaskedLM"), (("NSP", "MLM"), "Model"):
        weights = {path: values for path, values in draw(c).items() if not path.startswith(tuple(absent))}
        source = write_checkpoint(tmp_path / f"a{name}", "tf1", c, weights)
        said = json.loads((bert4x.convert(source, tmp_path / name, "hf") / "config.json").read_text("utf-8"))
        assert said["architectures"] == [PREFIXES[family] + name]


def test_losses_of_problem_types():
    scores, targets = np.array([[0.5, -2.0], [3.0, 0.1]], "f4"), np.array([[1.0, 0.0], [0.0, 1.0]], "f4")
    task = make(TextClassification, "bert", ["a", "b"], problem_type="multi_label_classification")
    p = sigmoid(scores)
    expected = -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    assert float(keras.ops.convert_to_numpy(task.loss(scores, (targets,)))) == pytest.approx(expected, rel=1e-5)
    assert task.best == "f1" and task.evaluate([(TEXT, ["a"]), (OTHER, [])]).keys() >= {"f1"}
    task = make(TextClassification, "bert", ["v"], problem_type="regression")
    (target,) = task.batch(task.prepare([(TEXT, 0.5), (OTHER, -1)]), 32)[1]
    assert target.tolist() == [[0.5], [-1.0]]
    loss = task.loss(np.array([[1.0], [1.0]], "f4"), (target,))
    assert float(keras.ops.convert_to_numpy(loss)) == pytest.approx((0.25 + 4) / 2)
    values = probabilities(task, TEXT, OTHER)[:, 0]
    found = task.evaluate([(TEXT, values[0] + 1), (OTHER, values[1] + 1)])
    assert found == {"pearson": pytest.approx(1.0), "mse": pytest.approx(1.0, abs=1e-5)}
    for bad in ("好", None, float("nan"), [1, 2]):
        with pytest.raises(DataError, match="expected 1 finite number"):
            task.prepare([(TEXT, bad)])
    for options in ({"problem_type": "other"}, {"problem_type": "regression", "multi_label": True}, {"pooler": True}):
        with pytest.raises(ConfigError):
            TextClassification(backbone(), ["a", "b"], maxlen=32, **options)


def test_float16_holds_a_head_or_says_not(tmp_path):
    own = make(TextClassification, "bert", ["a", "b"]).save(tmp_path / "own")
    half = bert4x.convert(own, tmp_path / "half", "bert4x", dtype="bfloat16")
    assert {str(t.dtype) for t in open_checkpoint(half).head.tensors.values()} == {"bfloat16"}
    expected = probabilities(bert4x.pipeline("text-classification", own, dtype="float32"), TEXT)
    hf = bert4x.convert(own, tmp_path / "hf", "hf", dtype="bfloat16")
    for folder in (half, hf):
        found = probabilities(bert4x.pipeline("text-classification", folder, dtype="float32"), TEXT)
        np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_row_that_a_table_lost(tmp_path):
    """A variable that no table lists does not start at random without a word."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    whole, lost = Bert.variables, "Transformer-{i}-FeedForward-Norm/beta"
    Bert.variables = tuple(row for row in whole if row[0] != lost)
    try:
        with pytest.raises(TensorMismatchError, match=r"LayerNorm\.bias: unexpected"):
            bert4x.load(folder)
        tensors = {t.name: t for t in open_checkpoint(folder).tensors.values()}
        kept = [
            from_array(n, np.array(t.read())) for n, t in tensors.items() if not n.endswith("output.LayerNorm.bias")
        ]
        kept += [
            from_array(n, np.array(t.read())) for n, t in tensors.items() if "attention.output.LayerNorm.bias" in n
        ]
        write_safetensors(folder / "model.safetensors", kept)
        with pytest.raises(
            TensorMismatchError, match="FeedForward-Norm/beta: no variable that the table of bert lists"
        ):
            bert4x.load(folder)
        with pytest.warns(UserWarning, match="start at random"):
            model = bert4x.load(folder, strict=False)
        assert len(model.load_report.unfilled) == model.config.num_hidden_layers
        with pytest.raises(ConversionError, match="are of no bert, and would stay behind"):
            bert4x.save(model, tmp_path / "b")
    finally:
        Bert.variables = whole


def test_a_rule_that_a_table_lost(tmp_path):
    config = config_of()
    table = tables.table_for("hf", config)
    rules = table.rules
    object.__setattr__(table, "rules", tuple(rule for rule in rules if "Pooler-Dense/bias" not in rule.ours))
    try:
        with pytest.raises(ConversionError, match="hf has no room for Pooler-Dense/bias of this bert"):
            write_checkpoint(tmp_path / "a", "hf", config)
    finally:
        object.__setattr__(table, "rules", rules)


@register_family
class Extra(Bert):
    """A layer that no checkpoint holds, declared as new or not."""

    model_name = "bert_with_an_extra_layer"
    declared = True

    def heads(self, h, last=False):
        from bert4x import layers as L

        return self.layer(L.Dense, "Extra-Dense", new=self.declared, units=3)(super().heads(h, last))


def test_what_a_builder_declares_as_new(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    monkeypatch.setattr(Extra, "model_name", "bert")
    model = bert4x.build_transformer_model(None, folder, model=Extra)
    assert model.output.shape[-1] == 3
    with pytest.raises(ConversionError, match="Extra-Dense/kernel"):
        bert4x.save(model, tmp_path / "b")
    assert_same_bits(
        read_all(bert4x.save(model, tmp_path / "b", drop_head=True)),
        {p: v for p, v in read_all(folder).items() if not p.startswith(("MLM", "NSP", "Pooler"))},
    )
    monkeypatch.setattr(Extra, "declared", False)
    with pytest.raises(TensorMismatchError, match="Extra-Dense/kernel: no variable that the table of bert lists"):
        bert4x.build_transformer_model(None, folder, model=Extra)
    condition = keras.Input((3,))
    assert bert4x.load(folder, layer_norm_cond=condition, layer_norm_cond_hidden_size=4) is not None


def test_export_opens_a_published_head(tmp_path):
    from bert4x.exporting.forward import open_source

    folder, _ = published(tmp_path / "a", **named("好", "坏", "中"))
    assert open_source(folder).task.labels == ["好", "坏", "中"]
    assert open_source(folder, "pooled").task is None


TRANSFORMERS = {
    "single": {"id2label": {0: "好", 1: "坏", 2: "中"}, "label2id": {"好": 0, "坏": 1, "中": 2}},
    "multi": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "one": {"num_labels": 1},
}


def theirs(family, kind, **options):
    """A random model of transformers, and its tokenizer."""
    torch = pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(VOCAB), "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 50, "max_position_embeddings": 40,
    }  # fmt: skip
    sizes |= {"embedding_size": 20, "inner_group_num": 1, "num_hidden_groups": 1} if family == "albert" else {}
    prefix = (PREFIXES | OTHERS_PREFIXES)[family]
    model = getattr(transformers, prefix + kind)(getattr(transformers, f"{prefix}Config")(**sizes, **options)).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" in name:  # of a RoFormer: sines and cosines
            continue
        parameter.data.normal_(0, 0.3)
        parameter.data += name.lower().replace("_", "").endswith("layernorm.weight")
    return model, transformers.BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCAB)})


def written_by_transformers(model, folder):
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
    return folder


@pytest.mark.parametrize(
    ("family", "kind"),
    [*itertools.product(PREFIXES, TRANSFORMERS), *((family, "single") for family in OTHERS_PREFIXES)],
)
def test_classifiers_of_transformers(family, kind, tmp_path):
    """Padding, and pairs of texts: the answers of its pipeline, and back in it."""
    model, tokenizer = theirs(family, "ForSequenceClassification", **TRANSFORMERS[kind])
    import transformers

    ask = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    folder = written_by_transformers(model, tmp_path / "a")
    task = bert4x.pipeline("text-classification", folder)
    expected = [{row["label"]: row["score"] for row in rows} for rows in ask([TEXT, OTHER], top_k=None)]
    found = [dict(zip(task.labels, row, strict=True)) for row in probabilities(task, TEXT, OTHER)]
    for rows, others in zip(expected, found, strict=True):
        assert rows.keys() == others.keys()
        np.testing.assert_allclose([others[label] for label in rows], list(rows.values()), atol=2e-5)
    if kind != "multi":
        pair = ask({"text": TEXT, "text_pair": OTHER})
        answer = task((TEXT, OTHER))
        assert answer.label == pair["label"] and answer.probability == pytest.approx(pair["score"], abs=2e-5)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(
        bert4x.convert(bert4x.convert(folder, tmp_path / "b", "bert4x"), tmp_path / "c", "hf")
    )
    for name, tensor in model.state_dict().items():
        assert np.array_equal(tensor.numpy(), again.state_dict()[name].numpy()), name
    same = ("id2label", "label2id", "problem_type", "architectures")
    assert [getattr(again.config, key) for key in same] == [getattr(model.config, key) for key in same]


@pytest.mark.parametrize("family", PREFIXES)
def test_taggers_of_transformers(family, tmp_path):
    model, tokenizer = theirs(family, "ForTokenClassification", id2label=dict(enumerate(TAGS)))
    import transformers

    ask = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    found = bert4x.pipeline("token-classification", written_by_transformers(model, tmp_path / "a"))(TEXT)
    expected = ask(TEXT)
    assert [(e.label, e.start, e.end) for e in found] == [(e["entity_group"], e["start"], e["end"]) for e in expected]
    np.testing.assert_allclose([e.score for e in found], [e["score"] for e in expected], atol=2e-5)


@pytest.mark.parametrize("family", PREFIXES)
def test_readers_of_transformers(family, tmp_path):
    model, _ = theirs(family, "ForQuestionAnswering")
    import torch

    task = bert4x.pipeline("reading-comprehension", written_by_transformers(model, tmp_path / "a"))
    windows = [*task.windows("好不好", TEXT), *task.windows("坏", "不好")]
    found = task.predict(task.model, task.inputs(windows))
    with torch.no_grad():
        for window, scores in zip(windows, found, strict=True):
            segments = [[0] * window.first + [1] * (window.length - window.first)]
            whole = model(torch.tensor([window.token_ids]), token_type_ids=torch.tensor(segments))
            expected = np.stack([whole.start_logits[0].numpy(), whole.end_logits[0].numpy()])
            np.testing.assert_allclose(scores[:, : window.length], expected, atol=2e-5)


@pytest.mark.parametrize("family", PREFIXES)
def test_transformers_opens_our_runs(family, tmp_path):
    pytest.importorskip("torch", reason="compares with transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    import torch

    tokenizer = transformers.BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCAB)})
    inputs = tokenizer(TEXT, return_tensors="pt")
    for kind, options in CLASSIFIERS.items():
        task = make(TextClassification, family, **options)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(task.save(tmp_path / kind, "hf")).eval()
        ask = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
        answer = ask([TEXT])[0]
        expected = dict(zip(task.labels, probabilities(task, TEXT)[0], strict=True))
        assert {row["label"] for row in answer} == set(expected)
        for row in answer:
            assert row["score"] == pytest.approx(expected[row["label"]], abs=2e-5)
    tagger = make(TokenClassification, family, ["人", "店"], method="softmax")
    reader = make(ReadingComprehension, family)
    with torch.no_grad():
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            tagger.save(tmp_path / "tags", "hf")
        ).eval()
        found = tagger.predict(tagger.model, [inputs["input_ids"].numpy(), inputs["token_type_ids"].numpy()])
        np.testing.assert_allclose(found, model(**inputs).logits.numpy(), atol=2e-5)
        assert [model.config.id2label[i] for i in range(5)] == tagger.bio.tags
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(reader.save(tmp_path / "qa", "hf")).eval()
        (window,) = reader.windows("好不好", TEXT)
        segments = [[0] * window.first + [1] * (window.length - window.first)]
        whole = model(torch.tensor([window.token_ids]), token_type_ids=torch.tensor(segments))
        found = reader.predict(reader.model, reader.inputs([window]))[0][:, : window.length]
        np.testing.assert_allclose(found[0], whole.start_logits[0].numpy(), atol=2e-5)
        np.testing.assert_allclose(found[1], whole.end_logits[0].numpy(), atol=2e-5)
