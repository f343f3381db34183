"""Texts from texts: what is fed and predicted, learning a few pairs by heart, and what is written then."""

import keras
import numpy as np
import pytest
from conftest import VOCABULARY, write_tiny

import bert4x
from bert4x.errors import ConfigError
from bert4x.tasks.seq2seq import Seq2Seq
from bert4x.training.batches import padded_length
from bert4x.training.losses import unilm_crossentropy
from bert4x.training.trainer import Trainer

PAIRS = [("床前明月光", "疑霜"), ("举头望明月", "低头思故乡"), ("今天天气很好", "去公园散步"), ("语言模型", "好吧")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "bert", max_position=64, num_hidden_layers=1)


def make(folder, **settings):
    keras.utils.set_random_seed(0)
    model = bert4x.load(folder, application="unilm", dropout_rate=0.0, attention_dropout_rate=0.0)
    return Seq2Seq(model, **{"maxlen": 16, "max_target": 10} | settings)


def learn(task, pairs, steps=80):
    """The losses of so many updates on all pairs at once."""
    trainer = Trainer(task.model, task.loss, task.optimizer(0.01))
    batch = task.batch(task.prepare(pairs), 32)
    return [float(keras.ops.convert_to_numpy(trainer.learn([batch], 0.01))) for _ in range(steps)]


def ids(text):
    return [VOCABULARY.index(token) for token in text.split()]


def test_what_is_fed_and_predicted(folder):
    task = make(folder, maxlen=8, max_target=4)
    with pytest.warns(UserWarning, match="tokens and are cut") as told:
        examples = task.prepare([("床前", "疑霜"), ("举头望明月举头望", "低头思故乡"), ("", "疑"), ("床", " ")])
    assert [str(warning.message)[:26] for warning in told] == [
        "1 of 4 sources have more t",
        "1 of 4 targets have more t",
    ]
    assert task.sources(["举头望明月举头望"]) == [examples[1].source]  # said once
    assert task.skipped == {"empty source": 1, "empty target": 1}
    assert [example.length for example in examples] == [7, 12]
    (tokens, segments, places), (targets,) = task.batch(examples, 16)
    first = ids("[CLS] 床 前 [SEP] 疑 霜 [SEP]")
    second = ids("[CLS] 举 头 望 明 月 举 [SEP] 低 头 思 [SEP]")  # both are cut
    assert tokens.tolist() == [first + [0] * 9, second + [0] * 4]
    assert segments.tolist() == [[0] * 4 + [1] * 3 + [0] * 9, [0] * 8 + [1] * 4 + [0] * 4]
    few = padded_length(4)  # the vocabulary is met at few places
    assert places.tolist() == [[3, 4, 5] + [-1] * (few - 3), [7, 8, 9, 10] + [-1] * (few - 4)]
    assert targets.tolist() == [ids("疑 霜 [SEP]") + [-1] * (few - 3), ids("低 头 思 [SEP]") + [-1] * (few - 4)]
    assert task.batch(examples, 32)[0][2].shape == (2, few)


def test_states_are_taken():
    h = np.arange(24, dtype="float32").reshape(2, 4, 3)
    taken = keras.ops.convert_to_numpy(bert4x.layers.TakePlaces()(h, np.array([[3, 0], [1, -1]], "int32")))
    assert taken.tolist() == [[[9, 10, 11], [0, 1, 2]], [[15, 16, 17], [0, 0, 0]]]


@pytest.mark.parametrize("length", [16, 32])
def test_loss(folder, length):
    """That of the whole UniLM, whose every place has logits; padding changes nothing."""
    task = make(folder)
    inputs, targets = task.batch(task.prepare(PAIRS), length)
    logits = task.backbone(inputs[:2])
    expected = np.mean(keras.ops.convert_to_numpy(unilm_crossentropy(inputs[0], inputs[1], logits)))
    assert float(task.loss(task.model(inputs), targets)) == pytest.approx(float(expected), rel=1e-4)


def test_learns_saves_and_writes(folder, tmp_path):
    task = make(folder)
    sources, wanted = zip(*PAIRS, strict=True)
    before = task(list(sources))  # compiled, and on JAX the table transposed: with other weights than below
    losses = learn(task, PAIRS)
    assert losses[-1] < 0.05 * losses[0]
    assert before != list(wanted) == task(list(sources))
    assert task("举头望明月", num_beams=1) == "低头思故乡"
    scores = task.evaluate(PAIRS, batch_size=3)
    assert scores == pytest.approx({"rouge-1": 1, "rouge-2": 1, "rouge-l": 1, "bleu": 1})
    half = [(source, target[:1]) for source, target in PAIRS]
    assert task.evaluate(half)["rouge-1"] == pytest.approx(np.mean([2 / (len(target) + 1) for target in wanted]))

    again = Seq2Seq.load(task.save(tmp_path / "saved"))
    assert (again.maxlen, again.max_target, again.num_beams) == (16, 10, 3)
    several = again(list(sources), num_return_sequences=2, batch_size=3)
    assert [first for first, _ in several] == list(wanted) and all(first != second for first, second in several)
    assert again([]) == []

    task.restore(tmp_path / "saved")
    learn(task, [(source, "望故乡") for source in sources], steps=40)
    assert task(list(sources)) == ["望故乡"] * 4
    task.restore(tmp_path / "saved")  # the weights change back: so does what is written
    assert task(list(sources)) == list(wanted)


def test_what_it_does_not_take(folder):
    with pytest.raises(ConfigError, match="application 'encoder'; expected a model like BERT"):
        Seq2Seq(bert4x.load(folder), maxlen=16)
    with pytest.raises(ConfigError, match="no more than 64 in all"):
        make(folder, maxlen=60)


def test_a_task_without_layers_of_its_own_has_no_rate_for_them(folder):
    with pytest.raises(ConfigError, match="adds no layers"):
        make(folder).optimizer(1e-4, head_learning_rate=1e-3)
