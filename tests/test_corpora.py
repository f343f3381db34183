"""Corpora for pretraining under bert4keras' names: the rows and the bytes that bert4keras 0.11.5 gives."""

import hashlib

import numpy as np
import pytest

from bert4x import Tokenizer
from bert4x.errors import InputError
from bert4x.training.corpora import TrainingDatasetGPT, TrainingDatasetRoBERTa, TrainingDatasetUniLM
from bert4x.training.records import example

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天地玄黄宇宙洪荒日月盈昃。"]
TEXTS = ["天地玄黄。", "宇宙洪荒。", "日月盈昃。天地", "玄黄宇宙洪荒日月盈昃。", "天"]
TOKEN_IDS = [
    [2, 5, 6, 7, 8, 17, 9, 10, 11, 12, 17, 3],
    [2, 13, 14, 15, 16, 17, 5, 6, 3, 0, 0, 0],
    [2, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3],
    [2, 5, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
]
MASK_IDS = [  # np.random.seed(0), mask_rate 0.5
    [0, 0, 0, 0, 0, 0, 0, 0, 5, 13, 0, 0],
    [0, 0, 0, 5, 14, 0, 0, 0, 0, 0, 0, 0],
    [0, 5, 9, 0, 0, 5, 5, 0, 0, 5, 5, 0],
    [0] * 12,
]
# sha256 of the files that bert4keras wrote; TensorFlow puts the two names of a record in any order, here in this one.
FILES = {
    TrainingDatasetRoBERTa: "e423690c1875ab9cbadca977780cb0705b87996b2c469ebac5ae6ee09182c203",
    TrainingDatasetGPT: "3ff7a83589b32f66a576a2d937687e51561544aa182c6e131ca02ead22e17054",
    TrainingDatasetUniLM: "3ff7a83589b32f66a576a2d937687e51561544aa182c6e131ca02ead22e17054",
}


def pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def corpus_of(kind):
    tokenizer = Tokenizer({token: i for i, token in enumerate(TOKENS)})
    words = (pairs, 0.5) if kind is TrainingDatasetRoBERTa else ()
    return kind(tokenizer, *words, sequence_length=12)


@pytest.fixture
def files(tmp_path):
    """The records of each kind in a file."""
    paths = {}
    for kind in FILES:
        np.random.seed(0)
        corpus, paths[kind] = corpus_of(kind), str(tmp_path / kind.__name__)
        rows = corpus.paragraph_process(TEXTS)
        assert [row[0] for row in rows] == TOKEN_IDS
        assert kind is not TrainingDatasetRoBERTa or [row[1] for row in rows] == MASK_IDS
        corpus.paragraph_process = lambda texts, rows=rows: rows  # workers draw from seeds of their own
        corpus.process([TEXTS], paths[kind], workers=1)
    return paths


def test_files_are_those_of_bert4keras(files, capsys):
    for kind, path in files.items():
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == FILES[kind]


def test_records_are_tensorflows():
    tf = pytest.importorskip("tensorflow")
    values = [0, 1, 127, 128, 300, 2**31, -1, 2**63 - 1]
    found = tf.train.Example.FromString(example({"token_ids": values, "none": []}))
    assert list(found.features.feature["token_ids"].int64_list.value) == values
    assert list(found.features.feature["none"].int64_list.value) == []


def test_batches(files):
    pytest.importorskip("tensorflow")

    def rows(kind, **options):
        inputs, targets = next(iter(kind.load_tfrecord(files[kind], 12, 4, **options)))
        inputs = {name: values.numpy() for name, values in inputs.items()}
        assert {name: values.shape for name, values in targets.items()} == dict.fromkeys(targets, (4, 1))
        assert {values.shape for values in inputs.values()} == {(4, 12)}
        return inputs, set(targets)

    inputs, targets = rows(TrainingDatasetRoBERTa)
    assert targets == {"mlm_loss", "mlm_acc"}
    places = [TOKEN_IDS.index(list(row)) for row in inputs["token_ids"]]
    masks = np.array(MASK_IDS)[places]
    assert np.array_equal(inputs["is_masked"], masks > 0)
    assert np.array_equal(inputs["Input-Token"], np.where(masks > 0, masks - 1, inputs["token_ids"]))
    inputs, targets = rows(TrainingDatasetGPT)
    assert targets == {"lm_loss", "lm_acc"}
    assert all(list(row) in TOKEN_IDS for row in inputs["Input-Token"])
    assert not inputs["Input-Segment"].any()
    inputs, targets = rows(TrainingDatasetUniLM, token_sep_id=3)
    assert targets == {"unilm_loss", "unilm_acc"}
    for ids, segments in zip(inputs["Input-Token"], inputs["Input-Segment"], strict=True):
        length = 11 - segments.sum()  # of the source; [SEP] follows
        assert ids[length] == 3
        assert [*ids[:length], *ids[length + 1 :]] in [row[:-1] for row in TOKEN_IDS]


def test_bad_corpora(tmp_path):
    with pytest.raises(InputError, match="3 or more"):
        TrainingDatasetGPT(Tokenizer({token: i for i, token in enumerate(TOKENS)}), 2)
    pytest.importorskip("tensorflow")
    with pytest.raises(InputError, match="no files of records"):
        TrainingDatasetGPT.load_tfrecord(str(tmp_path / "none"), 12, 4)
