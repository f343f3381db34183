"""A family and a task of a user's have all that those of the package have."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import own_family
import pytest
from own_family import Hashed

import bert4x
from bert4x import testing
from bert4x.errors import ConfigError, UnknownArchitectureError, UnknownOptionError
from bert4x.families import _CLASSES
from bert4x.tasks import pipelines
from bert4x.tasks.text_classification import TextClassification


@pytest.fixture(autouse=True)
def registered():
    """Other tests of this process do not know it."""
    bert4x.register_family(Hashed)
    yield
    del _CLASSES["hashed"]


def test_a_family_of_a_users():
    written = ("lm", "unilm") if keras.backend.backend() == "torch" else ("lm",)  # each is compiled elsewhere
    testing.check_family("hashed", applications=written, hidden_act="relu", buckets=7)


def test_its_config_files(tmp_path):
    config = testing.tiny_config(Hashed, hidden_act="relu", buckets=7).replace(extra={"hashing": {"seed": 1}})
    bert4x.save(testing.build(Hashed, config, testing.random_weights(config)), tmp_path, "hf")
    data = json.loads((tmp_path / "config.json").read_text())
    assert data["hashing"] == {"seed": 1, "buckets": 7}
    assert data["activation"] == "plain-relu"
    assert not {"hidden_act", "buckets", "hash_buckets"} & data.keys()
    again = bert4x.load(tmp_path).config
    assert again.extra["hashing"] == {"seed": 1}
    assert (again.buckets, again.hidden_act) == (7, "relu")
    model = bert4x.build_transformer_model(tmp_path / "config.json", model="hashed", buckets=3)
    assert model.get_layer(own_family.HASHED).embeddings.shape[0] == 3
    with pytest.raises(UnknownOptionError, match="no option 'buckets'"):
        bert4x.build_transformer_model(tmp_path / "config.json", model="bert", buckets=3)


def test_what_is_wrong_with_a_family(monkeypatch):
    with pytest.raises(ConfigError, match="needs a name of its own"):
        bert4x.register_family(type("Nameless", (Hashed,), {}))
    with pytest.raises(ConfigError, match="has the name 'bert' already"):
        bert4x.register_family(type("Other", (Hashed,), {"model_name": "bert"}))
    with pytest.raises(ConfigError, match="a table of 'hashed'; expected tables of 'other'"):
        bert4x.register_family(type("Other", (Hashed,), {"model_name": "other", "variables": Hashed.variables}))
    with pytest.raises(UnknownArchitectureError, match="did you mean 'hashed'"):
        bert4x.load(model="hashd")
    lacking = tuple(row for row in Hashed.variables if own_family.HASHED not in row[0])
    monkeypatch.setattr(Hashed, "variables", lacking)
    with pytest.raises(AssertionError, match="Embedding-Hashed/embeddings: `forward` makes"):
        testing.check_family("hashed")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow exports")
def test_it_is_exported(tmp_path):
    config = testing.tiny_config(Hashed)
    bert4x.save(testing.build(Hashed, config, testing.random_weights(config)), tmp_path / "a", "bert4x")
    assert bert4x.export(tmp_path / "a", tmp_path / "b", "savedmodel").differences  # which it has compared


def test_families_of_packages(tmp_path):
    """An entry point is all that an installed package needs; one that fails costs no more than a warning."""
    metadata = tmp_path / "mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[bert4x.families]\nhashed = own_family:Hashed\nbroken = no_such_module:Family\n"
        "[bert4x.tasks]\nmood = own_task:Mood\n"
    )
    (tmp_path / "own_task.py").write_text(
        "from bert4x.tasks.text_classification import TextClassification\n\nclass Mood(TextClassification):\n    pass\n"
    )
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "from bert4x.families import families; print('hashed' in families());"
        "from bert4x.tasks.pipelines import task_class; print(task_class('mood').name)"
    )
    paths = f"{tmp_path}:{Path(__file__).parent}:{Path(__file__).parents[1]}"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths.split(':')}; {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout.split() == ["True", "mood"], run.stderr


def test_a_task_of_a_users(tmp_path, capsys):
    with pytest.raises(ConfigError, match="is the name of a task of bert4x"):
        bert4x.task("ner")

    @bert4x.task("mood")
    class Mood(TextClassification):
        """A classifier of its own name."""

    try:
        task = Mood(bert4x.load(), labels=["good", "bad"], maxlen=16)
        task.save(tmp_path / "run")
        again = bert4x.pipeline("mood", tmp_path / "run")
        assert type(again) is Mood
        assert np.isclose(again("你好").probability, task("你好").probability, atol=1e-6)
        (tmp_path / "texts.txt").write_text("你好\n", encoding="utf-8")
        from bert4x.cli import main

        assert main(["predict", str(tmp_path / "run"), str(tmp_path / "texts.txt"), "-"]) in (0, None)
        assert json.loads(capsys.readouterr().out)["text"] == "你好"
    finally:
        del pipelines._REGISTERED["mood"]
    with pytest.raises(UnknownOptionError, match="no task 'mood'"):
        bert4x.pipeline("mood", tmp_path / "run")
