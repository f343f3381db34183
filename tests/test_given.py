"""What tasks are given from Python and cannot be used is named: rows, labels, sizes, models, texts."""

import keras
import numpy as np
import pytest

import bert4x
from bert4x.errors import Bert4xError, ConfigError, DataError, InputError
from bert4x.tasks.reading_comprehension import ReadingComprehension
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.token_classification import TokenClassification
from bert4x.tasks.triple_extraction import TripleExtraction

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气好坏店人，。"]
SIZES = {"vocab_size": len(VOCAB), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def backbone(model="bert", **options):
    keras.utils.set_random_seed(0)
    made = bert4x.build_transformer_model(SIZES | {"max_position": 32}, model=model, **options)
    made.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    return made


@pytest.fixture(scope="module")
def tasks():
    model = backbone()
    return {
        "classes": TextClassification(model, [0, 1], maxlen=16),
        "several": TextClassification(model, ["1", "2"], multi_label=True, maxlen=16),
        "tags": TokenClassification(model, ["人"], maxlen=16),
        "answers": ReadingComprehension(model, maxlen=16),
        "triples": TripleExtraction(model, ["在"], maxlen=16),
        "texts": Seq2Seq(backbone(application="unilm"), maxlen=16, max_target=8),
    }


TEXT = {"text": "今天好人", "entities": [], "spo_list": [], "question": "人", "passage": "今天好人", "answers": []}
ROWS = [
    ("classes", "好1", r"row 0: found '好1'; expected \(text, label\)"),  # not the text 好 of label 1
    ("classes", {"text": "好", "label": "1"}, "row 0: found {'text'"),
    ("classes", ("好",), "row 0: found"),
    ("classes", ("好", 2), "label 2"),
    ("several", ("好", {"1": 1, "2": 0}), "label {'1': 1, '2': 0}"),
    ("tags", ("好", []), "expected a dict with 'text', 'entities'"),
    ("tags", TEXT | {"entities": [{"label": "人", "start": 3, "end": 4}]}, "expected a list of .label, start, end"),
    ("tags", TEXT | {"entities": [("人", 3)]}, "entities has .'人', 3."),
    ("tags", TEXT | {"entities": None}, "entities has None"),
    ("answers", {"question": "人", "context": "人", "answers": []}, "expected a dict with 'question', 'passage'"),
    ("answers", TEXT | {"answers": {"text": ["人"], "answer_start": [3]}}, "expected a list of .text, start"),
    ("answers", TEXT | {"answers": ["人"]}, "answers has '人'"),
    ("answers", TEXT | {"answers": [("人", 0)]}, "'人' is not at 0 of its passage, where '今' stands"),
    (
        "triples",
        TEXT | {"spo_list": [{"subject": "人", "predicate": "在", "object": "店"}]},
        "expected a list of .subj",
    ),
    ("texts", ("今", "天", "气"), r"expected \(source, target\)"),
    ("texts", ("今", None), "row 0: found None"),
    ("tags", TEXT | {"text": 5}, "row 0: found 5"),
    ("triples", TEXT | {"text": None}, "row 0: found None"),
    ("answers", TEXT | {"passage": None, "answers": [("人", None)]}, "row 0: found None"),
]


@pytest.mark.parametrize(("name", "row", "message"), ROWS)
def test_rows(tasks, name, row, message):
    for act in (tasks[name].prepare, tasks[name].evaluate):
        with pytest.raises(DataError, match=message):
            act([row])


def test_rows_that_are_none(tasks):
    task = tasks["classes"]
    for rows in ("train.tsv", {"text": ["好"], "label": [1]}, 3):
        for act in (task.fit, task.evaluate):
            with pytest.raises(DataError, match="expected a list of them"):
                act(rows)
    rows = [("好", 1), ("坏", 0)]
    assert task.evaluate(row for row in rows) == task.evaluate(rows) == task.evaluate(np.array(rows))
    with pytest.raises(ConfigError, match="give valid"):
        task.fit(rows, patience=2)
    for size in (0, -1, 1.5):
        with pytest.raises(InputError, match="batch_size"):
            task.evaluate(rows, batch_size=size)


def test_texts(tasks):
    """A dict would be read as its keys, a set in any order."""
    for name, task in tasks.items():
        given = {"text": "好"}
        for texts in (given, {"好", "坏"}):
            with pytest.raises(InputError, match="found"):
                task(texts, "好") if name == "answers" else task(texts)


SETTINGS = [
    ({"labels": "01"}, "expected a list"),
    ({"labels": {0: "a", 1: "b"}}, "expected a list"),
    ({"labels": {"a", "b"}}, "expected a list"),
    ({"labels": 2}, "expected a list"),
    ({"maxlen": 16.5}, "maxlen = 16.5"),
    ({"maxlen": None}, "maxlen = None"),
    ({"dropout": 1.0}, "dropout = 1.0"),
    ({"dropout": "0.1"}, "dropout = '0.1'"),
    ({"hidden_act": "gelo"}, "no activation 'gelo'"),
    ({"backbone": "bert-base-chinese"}, "expected what bert4x.load gives"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings(tasks, settings, message):
    options = {"backbone": tasks["classes"].backbone, "labels": ["a", "b"], "maxlen": 16} | settings
    with pytest.raises(ConfigError, match=message):
        TextClassification(**options)


def test_settings_of_other_tasks(tasks):
    model = tasks["classes"].backbone
    idle = [("softmax", {"lr_multiplier": 10}), ("crf", {"head_size": 64}), ("global-pointer", {"lr_multiplier": 10})]
    idle = [{"labels": ["人"], "method": method} | options for method, options in idle]
    for options in ({"labels": ["B-人", "I-人", "O"]}, {"labels": ["人"], "lr_multiplier": -1}, *idle):
        with pytest.raises(ConfigError, match=r"are tags|lr_multiplier = -1|is for methods .*, not for"):
            TokenClassification(model, maxlen=16, **options)
    assert type(TokenClassification(model, ["人"], maxlen=np.int64(16)).maxlen) is int
    with pytest.raises(ConfigError, match="num_beams = 0"):
        Seq2Seq(tasks["texts"].backbone, maxlen=16, max_target=8, num_beams=0)
    with pytest.raises(ConfigError, match=r"stride = 1\.5"):
        ReadingComprehension(model, maxlen=16, stride=1.5)


def test_a_padding_id_that_is_not_read():
    """A config's counts only where a vocabulary says the same; an option counts."""
    with pytest.warns(UserWarning, match="the config says pad_token_id = 5, and no vocabulary"):
        bert4x.build_transformer_model(SIZES | {"pad_token_id": 5})
    assert bert4x.build_transformer_model(SIZES, pad_token_id=5).config.pad_token_id == 5


def test_models_that_give_no_states():
    """Not the probabilities of tokens, or of a next sentence, as if these were states."""
    for head in ("with_mlm", "with_nsp", "with_pool"):
        model = backbone(**{head: True})
        with pytest.raises(ConfigError, match=f"no hidden states .*{head}"):
            TokenClassification(model, ["人"], maxlen=16)
        if head == "with_pool":
            assert TextClassification(model, ["a", "b"], maxlen=16).pooler
        else:
            with pytest.raises(ConfigError, match=head):
                TextClassification(model, ["a", "b"], maxlen=16)
    model = backbone(application="lm")
    model.builder.with_mlm = False
    with pytest.raises(ConfigError, match="sees itself only"):
        TextClassification(model, ["a", "b"], maxlen=16)


NO_PATHS = (3, b"x", ["a"], object(), "")


@pytest.mark.parametrize("wrong", NO_PATHS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_path(tasks, wrong):
    """Named errors, and nothing is written: an empty target is not the current folder."""
    home, model = bert4x.default_model(), tasks["classes"].backbone
    calls = {
        "load": lambda: bert4x.load(wrong), "a tokenizer": lambda: bert4x.Tokenizer(wrong),
        "a vocabulary": lambda: bert4x.load_vocab(wrong), "a pipeline": lambda: bert4x.pipeline("ner", wrong),
        "a task": lambda: bert4x.pipeline(wrong, home), "vectors": lambda: bert4x.embedder(wrong),
        "convert": lambda: bert4x.convert(wrong, "x"), "a target": lambda: bert4x.convert(home, wrong),
        "a format": lambda: bert4x.convert(home, "x", wrong), "save": lambda: bert4x.save(model, wrong),
        "a config": lambda: bert4x.load(config=wrong), "verify": lambda: bert4x.verify(wrong, wrong),
    }  # fmt: skip
    for name, call in calls.items():
        with pytest.raises(Bert4xError):
            call()
            pytest.fail(name)  # which raises another error
    for call in (model.tokenizer.decode, model.tokenizer.encode_batch):
        if wrong not in (["a"], ""):
            with pytest.raises(Bert4xError, match=r"expected|must be|takes a list"):
                call(wrong)
