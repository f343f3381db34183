"""The Keras model that users hold: models over it, copies of it, and what its files keep."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
from battery import array, close
from random_models import random_inputs, random_model, tiny_config

import bert4x
from bert4x.errors import ConfigError, InputError, UnknownArchitectureError, UnknownOptionError
from bert4x.families import _CLASSES
from bert4x.families.bert import Bert

PROMPT = "白日依山尽，"
COPIES = {
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "keras": lambda model, folder: (model.save(folder / "x.keras"), bert4x.load(folder / "x.keras"))[1],
}


@pytest.fixture(scope="module")
def lm():
    return bert4x.load(application="lm")


@pytest.mark.parametrize("way", COPIES)
def test_copies_keep_the_tokenizer(way, lm, tmp_path):
    """The folder of the `.keras` file has no vocabulary beside it."""
    expected = lm.generate(PROMPT, max_new_tokens=3)
    again = COPIES[way](lm, tmp_path)
    assert lm.tokenizer is not None and again.tokenizer is not lm.tokenizer
    assert again.tokenizer.token_dict == lm.tokenizer.token_dict
    assert again.generate(PROMPT, max_new_tokens=3) == expected


def test_a_tokenizer_that_a_file_cannot_hold(tmp_path):
    """Pickled it stays as it is; a `.keras` file says what it lacks."""
    model, _ = random_model("bert", {"vocab_size": 9})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "床", "前", "明", "月"]
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(tokens)}, token_translate={"床": "月"})
    expected = model.tokenizer.encode("床前")
    assert pickle.loads(pickle.dumps(model)).tokenizer.encode("床前") == expected
    with pytest.warns(UserWarning, match="not all else of <Tokenizer: WordPiece, 9 tokens"):
        model.save(tmp_path / "x.keras")
    model.tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(tokens)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save(tmp_path / "x.keras")


def test_options_that_a_whole_model_cannot_take(lm, tmp_path):
    lm.save(tmp_path / "x.keras")
    for options in ({"strict": False}, {"verify": True}, {"dtype": "bfloat16"}):
        with pytest.raises(UnknownOptionError, match="whole model"):
            bert4x.load(tmp_path / "x.keras", **options)


@pytest.fixture(scope="module")
def on_top():
    """A model, a classifier over it, and inputs with padding."""
    model, _ = random_model("bert")
    scores = keras.layers.Dense(2, name="Scores")(model.output)
    return model, keras.Model(model.inputs, scores), random_inputs(tiny_config("bert"))


def test_dicts_on_top(on_top):
    """A model over ours takes the dict that ours takes: called, in predict, in fit, and nested in another."""
    _, above, inputs = on_top
    names = "token_ids", "segment_ids"
    given = {name: inputs[name] for name in names}
    expected = array(above([given[name] for name in names]))
    close(above(given), expected, 0)
    close(above({"Input-Token": given["token_ids"], "Input-Segment": given["segment_ids"]}), expected, 0)
    close(above.predict(given, verbose=0), expected, 1e-5)
    close(above({"token_ids": given["token_ids"]}), array(above([given["token_ids"], given["segment_ids"] * 0])), 0)
    symbolic = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    close(keras.Model(symbolic, above(symbolic))(given), expected, 0)
    above.compile("sgd", "mse")
    above.fit(given, np.zeros((*given["token_ids"].shape, 2), "float32"), verbose=0)
    with pytest.raises(InputError, match="'token_ids'"):
        above({"token_id": given["token_ids"]})
    with pytest.raises(InputError, match="no token_ids"):
        above({"segment_ids": given["segment_ids"]})


def test_the_padding_mask_on_top(on_top):
    """It is obeyed, as by the model itself: without padding ids, too."""
    model, above, inputs = on_top
    inputs = inputs | {"token_ids": np.where(inputs["padding_mask"], inputs["token_ids"], 5)}
    kernel, bias = (array(v) for v in above.get_layer("Scores").variables)
    expected = array(model(inputs)) @ kernel + bias
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        close(above(inputs), expected, 1e-4)
    ids_only = {name: inputs[name] for name in ("token_ids", "segment_ids")}
    assert np.abs(array(above(ids_only)) - array(above(inputs))).max() > 1e-3


def test_more_inputs_on_top(on_top):
    """Others stand beside ours, also before them."""
    model, _, inputs = on_top
    extra = keras.Input((35,), name="Topic")
    added = keras.layers.Add()([model.output, keras.layers.Reshape((1, 35))(extra)])
    above = keras.Model([extra, *model.inputs], added)
    topic = np.ones((3, 35), "float32")
    close(above(inputs | {"Topic": topic}), array(model(inputs)) + 1, 1e-5)
    with pytest.raises(InputError, match="'Topic' is missing"):
        above(inputs)


class Nameless(Bert):
    """Without a table of positions."""

    def position_embedding(self, x, inputs, index=0, cached=False):
        return x


def test_a_subclass_without_a_name_is_not_saved(tmp_path):
    """It would be opened as a BERT, whose table of positions it lacks: at random."""
    options = {"application": "lm", **tiny_config("bert")}
    options.pop("model")
    model = bert4x.build_transformer_model(model=Nameless, **options)
    assert array(model(np.array([[5, 6]]))).shape == (1, 2, 97)
    saves = {
        "save": lambda: bert4x.save(model, tmp_path / "saved"),
        "keras": lambda: model.save(tmp_path / "x.keras"),
        "pickle": lambda: pickle.dumps(model),
    }
    for save in saves.values():
        with pytest.raises(ConfigError, match="Nameless has no name of its own"):
            save()
    assert not list(tmp_path.glob("saved/*"))


def test_a_subclass_with_a_name_is_opened_as_itself(tmp_path):
    @bert4x.register_family
    class Named(Bert):
        model_name = "named"

        def heads(self, h, last=False):
            return super().heads(-h, last)

    try:
        plain, inputs = random_model("bert", with_mlm=True, application="lm")
        bert4x.save(plain, tmp_path / "plain")
        model = bert4x.load(tmp_path / "plain", "lm", model="named")
        expected = array(model(inputs))
        assert np.abs(expected - array(bert4x.load(tmp_path / "plain", "lm")(inputs))).max() > 0.1
        bert4x.save(model, tmp_path / "named", "hf")
        model.save(tmp_path / "x.keras")
        for again in (bert4x.load(tmp_path / "named", "lm"), bert4x.load(tmp_path / "x.keras")):
            assert type(again.builder) is Named
            close(again(inputs), expected, 1e-6)
        new = again.generate_ids([[5, 6, 7]], max_new_tokens=4)
        assert np.array_equal(new, model.generate_ids([[5, 6, 7]], max_new_tokens=4))
    finally:
        del _CLASSES["named"]
    with pytest.raises(UnknownArchitectureError, match="'named'"):
        bert4x.load(tmp_path / "named", "lm")
