"""Labels of texts: what decays, what counts as padding, adapters that come and go, and odd input."""

import json
import warnings

import keras
import numpy as np
import pytest
from random_models import tiny_config

import bert4x
from bert4x import layers as L
from bert4x.errors import ConfigError, DataError, InputError
from bert4x.tasks.text_classification import TextClassification
from bert4x.tasks.windows import parts
from bert4x.training.lora import add_lora
from bert4x.training.losses import binary_divergence

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"好坏很不东西店家人菜服务差快慢"]


def backbone(**options):
    keras.utils.set_random_seed(3)
    model = bert4x.build_transformer_model(tiny_config("bert", vocab_size=len(VOCAB)), **options)
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(VOCAB)})
    return model


def make(labels=("好", "坏", "中"), **options):
    return TextClassification(backbone(), labels, maxlen=16, **options)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def test_biases_and_norms_do_not_decay():
    """Without gradients, what decays shrinks, and the rest stays."""
    task = make()
    for variable in task.model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    optimizer = task.optimizer(0.5, weight_decay=0.1)
    variables = task.model.trainable_variables
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    for variable in variables:
        stays = variable.path.endswith(("bias", "gamma", "beta"))
        assert np.all(numpy(variable.value) == 1) == stays, variable.path


@pytest.mark.parametrize("segments", [0, 2])
def test_layers_on_a_backbone_know_its_padding(segments):
    keras.utils.set_random_seed(0)
    bert = bert4x.build_transformer_model(tiny_config("bert", vocab_size=30, segment_vocab_size=segments))
    crf = L.ConditionalRandomField()
    tags = keras.Model(bert.inputs, crf(keras.layers.Dense(4)(bert.output)))
    mean = keras.Model(bert.inputs, keras.layers.GlobalAveragePooling1D()(bert.output))
    ids = np.array([[2, 7, 9, 3]], "int32")
    longer = np.pad(ids, ((0, 0), (0, 3)))

    def given(tokens):
        return [tokens, tokens * 0][: len(bert.inputs)]

    labels = crf.decode(tags(given(longer)))
    assert (numpy(labels)[:, 4:] == -1).all() and (numpy(labels)[:, :4] >= 0).all()
    np.testing.assert_allclose(numpy(mean(given(longer))), numpy(mean(given(ids))), atol=1e-5)


def test_answers_follow_adapters():
    task = make()
    before = task.predict(task.model, task.inputs(task.prepare([("菜很差", "坏")])))
    add_lora(task.backbone, 2)
    draw = np.random.default_rng(0)
    for variable in task.backbone.trainable_variables:
        variable.assign(draw.normal(0, 0.3, variable.shape))
    inputs = task.inputs(task.prepare([("菜很差", "坏")]))
    after = task.predict(task.model, inputs)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, numpy(task.model(inputs, training=False)), atol=2e-5)


def test_divergence_of_several_labels():
    """That all are given instead of none is far, though a softmax sees no difference."""
    task, several = make(), make(multi_label=True)
    none, all_ = np.full((1, 3), -3.0, "float32"), np.full((1, 3), 3.0, "float32")
    assert float(numpy(task.divergence(none, all_))) == pytest.approx(0, abs=1e-5)
    p, q = (1 / (1 + np.exp(-2 * x[0, 0])) for x in (none, all_))
    expected = 3 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert float(numpy(several.divergence(none, all_))) == pytest.approx(expected, rel=1e-4)
    assert float(numpy(binary_divergence(all_, all_))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("texts", [5, [5], ("好", "坏", "很"), [("好", None)], [["好", 1]], None])
def test_what_is_no_text(texts):
    with pytest.raises(InputError, match="expected a text"):
        make()(texts)


def test_rows_that_cannot_be():
    task = make()
    assert task([]) == []
    assert task(["", "  ", "😀"])[1].label in task.labels
    with pytest.raises(DataError, match="no rows"):
        task.evaluate([])
    for rows in ([("好", "坏", "好"), ("很", "好")], [("很", "好"), ("好", "坏", "好")]):
        with pytest.raises(DataError, match="some rows have one text, others two"):
            task.prepare(rows)


def test_one_of_several_labels_may_stand_alone():
    """A str is a label, not the letters that it has."""
    task = make(labels=("1", "2", "12"), multi_label=True)
    rows = [("好", "12"), ("好", ["1", "2"]), ("好", 2), ("好", {"12"}), ("好", ())]
    assert [example.labels for example in task.prepare(rows)] == [(2,), (0, 1), (1,), (2,), ()]
    with pytest.raises(DataError, match="'21'"):
        task.prepare([("好", "21")])


@pytest.mark.parametrize("row", [(None, "好"), (float("nan"), "好"), (3, "好"), ("很", None), ("很", float("nan"))])
def test_missing_values_say_the_row(row):
    with pytest.raises(DataError, match="row 1: "):
        make(labels=("好", "None", "nan")).prepare([("好", "好"), row])


class TestLongTexts:
    """Of more than 16 tokens: windows of 14 and two special ones."""

    first, second, third = "好坏很不东西店家人菜服务。", "差快慢差快慢差快慢差", "很好很好很好"

    def scores(self, task, *pairs):
        """The model's outputs for texts that fit."""
        return np.stack([task.predict(task.model, task.inputs(task.prepare([(*p, task.labels[0])])))[0] for p in pairs])

    @pytest.mark.parametrize("long", ["average", "maximum", "first"])
    @pytest.mark.filterwarnings("ignore:1 of 1 texts")
    def test_windows_are_pooled(self, long):
        task = make(long=long)
        text = self.first + self.second + self.third
        cut = text[:14]
        windows = self.scores(task, *([(self.first,), (text[13:27],), (text[27:],)] if long != "first" else [(cut,)]))
        expected = {"average": windows.mean(0), "maximum": windows.max(0), "first": windows[0]}[long]
        expected = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose(list(task(text).probabilities.values()), expected, rtol=1e-5)
        best = task.labels[int(expected.argmax())]
        assert task.evaluate([(text, best)]) == {"accuracy": 1.0}
        assert task.evaluate([(text, label) for label in task.labels]) == {"accuracy": pytest.approx(1 / 3)}

    def test_training_reads_all_of_a_text(self):
        task = make()
        text = self.first + self.second + self.third
        examples = task.prepare([("好", "好"), (text, "坏"), ("很", "中")])
        assert [(example.text, example.labels) for example in examples] == [(0, (0,)), *[(1, (1,))] * 3, (2, (2,))]
        inner = [i for example in examples[1:4] for i in example.token_ids[1:-1]]
        assert inner == task.tokenizer.encode(text)[0][1:-1]
        assert all(example.length <= 16 for example in examples)

    def test_short_texts_are_as_before(self):
        task = make()
        texts = ["好坏很不东西店家人菜服务差快", "很好"]
        encoded = task.tokenizer.encode_batch(texts, maxlen=16)
        assert [(e.token_ids, e.segment_ids) for e in task.prepare([(t, "好") for t in texts])] == list(
            zip(*encoded, strict=True)
        )

    def test_pairs(self):
        """The short one stays whole, in every window; of two long ones, all windows meet."""
        task = make()
        long, short = "好坏很不东西店家人菜服务差快慢", "很不"
        for pair in ((long, short), (short, long)):
            examples = task.prepare([(*pair, "坏")])
            assert len(examples) == 2
            for example in examples:
                parts = "".join(task.tokenizer.ids_to_tokens(example.token_ids)).split("[SEP]")
                assert parts[pair.index(short)].removeprefix("[CLS]") == short
                assert example.length <= 16
                assert sum(example.segment_ids) == example.length - example.token_ids.index(task.tokenizer.end_id) - 1
        examples = task.prepare([(long, long, "坏")])
        assert len(examples) == 9
        scores = task.scores(examples)
        answer = task((long, long)).probabilities
        expected = np.exp(scores.mean(0)) / np.exp(scores.mean(0)).sum()
        np.testing.assert_allclose(list(answer.values()), expected, rtol=1e-5)
        assert task([(long, short), "好"])[1].probability == pytest.approx(task("好").probability, rel=1e-5)

    def test_several_labels(self):
        task = make(multi_label=True)
        text = self.first + self.second
        windows = self.scores(task, (self.first,), (self.second,))
        found = {label.label: label.probability for label in task(text)}
        expected = 1 / (1 + np.exp(-2 * windows.mean(0).astype("float64")))
        assert found == pytest.approx({n: p for n, p in zip(task.labels, expected, strict=True) if p > 0.5})

    def test_cutting_is_said_once(self):
        task = make(long="first")
        rows = [(self.first + self.second, "好"), ("好", "坏")]
        with pytest.warns(UserWarning, match="1 of 2 texts have more than 16 tokens; what is beyond is not read"):
            examples = task.prepare(rows)
        assert [example.length for example in examples] == [16, 3]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            task.evaluate(rows)
            make().evaluate(rows)
        with pytest.raises(ConfigError, match="no way 'middle' to read long texts; valid: average, first, maximum"):
            make(long="middle")

    def test_is_kept_with_the_task(self, tmp_path):
        make(long="maximum").save(tmp_path / "run")
        assert TextClassification.load(tmp_path / "run").long == "maximum"
        file = tmp_path / "run" / "task.json"
        data = json.loads(file.read_text("utf-8"))
        del data["settings"]["long"]  # as versions wrote it that had no such setting
        file.write_text(json.dumps(data), "utf-8")
        assert TextClassification.load(tmp_path / "run").long == "average"

    def test_tokenizers_that_do_not_tell_places(self):
        class Plain:
            start_id, end_id = 2, 3

            def encode(self, text):
                return [2, *range(10, 10 + len(text)), 3], [0] * (len(text) + 2)

        assert parts(Plain(), "x" * 7, 5) == [[2, 10, 11, 12, 3], [2, 13, 14, 15, 3], [2, 16, 3]]
