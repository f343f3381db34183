"""`bert4x port`: scripts written for bert4keras, changed in the text and nowhere else."""

import importlib
import subprocess
import sys

import pytest

from bert4x import cli, porting
from bert4x.errors import DataError
from bert4x.porting.imports import MODULES, exported


def ported(source: str) -> str:
    return porting.port(source).text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "from bert4keras.snippets import sequence_padding, open  # keeps\n",
            "from bert4x.snippets import sequence_padding, open  # keeps\n",
        ),
        ("from bert4keras.snippets import uniout  # 打印中文\nx = 1\n", "x = 1\n"),
        ("from bert4keras.snippets import uniout, open\n", "from bert4x.snippets import open\n"),
        ("from bert4keras.snippets import (\n    open, uniout\n)\n", "from bert4x.snippets import (\n    open\n)\n"),
        ("if 1:\n    from bert4keras.snippets import uniout\n", "if 1:\n    pass\n"),
        ("import bert4keras.snippets as s\n", "import bert4x.snippets as s\n"),
        (
            "import bert4keras.snippets\nbert4keras.snippets.open('é')\n",
            "import bert4x.snippets\nbert4x.snippets.open('é')\n",
        ),
        ("from bert4keras import snippets as s\n", "from bert4x import snippets as s\n"),
        (
            "from bert4keras.snippets import open, K, keras\n",
            "from bert4x.snippets import open\nfrom bert4x.backend import K, keras\n",
        ),
        ("from bert4keras.snippets import K as k\n", "from bert4x.backend import K as k\n"),
        ("import bert4keras\nbert4keras.__version__ >= '0.9'\n", "import bert4x\n\"0.11.5\" >= '0.9'\n"),
        (
            "from keras.losses import kullback_leibler_divergence as kld, mse\n",
            "from keras.losses import kl_divergence as kld, mse\n",
        ),
        (
            "from bert4keras.layers import LayerNormalization\nfrom keras.layers import *\n",
            "from bert4x.layers import LayerNormalization\nfrom keras.layers import *\n"
            "from bert4x.layers import LayerNormalization\n",
        ),
        (
            "from bert4keras.layers import MultiHeadAttention\nx = MultiHeadAttention(2, 3)([q, k, v])\n",
            "from bert4x.layers import MultiHeadAttention\n"
            "from bert4x.backend.layers import QueryKeyValueAttention as MultiHeadAttention\n"
            "x = MultiHeadAttention(2, 3)([q, k, v])\n",
        ),
        (
            "from bert4keras.layers import Loss, SinusoidalPositionEmbedding as S\n",
            "from bert4x.layers import Loss\nfrom bert4x.backend.layers import SinusoidalPositionEmbedding as S\n",
        ),
        (
            "from bert4keras.bert import set_gelu, build_transformer_model\nfrom bert4keras.utils import load_vocab\n",
            "from bert4x.models import build_transformer_model\nfrom bert4x.backend import set_gelu\n"
            "from bert4x.tokenizers import load_vocab\n",
        ),
        (
            "from bert4keras.layers import sequence_masking, Dense, Dropout\n",
            "from bert4x.layers import Dense, Dropout\nfrom bert4x.backend import sequence_masking\n",
        ),
        ("import os\nos.environ['TF_KERAS'] = '1'  # 必须\nimport re\n", "import os\nimport re\n"),
        ("from keras.layers import Dense\nfrom keras.models import Model\n", None),
        ("from tensorflow.keras.layers import Dense\n", "from keras.layers import Dense\n"),
        ("from tensorflow import keras\n", "import keras\n"),
        ("import keras.backend as K\n", "from bert4x.backend import K\n"),
        ("x = 1\r\nfrom bert4keras.snippets import open\r\n", "x = 1\r\nfrom bert4x.snippets import open\r\n"),
    ],
)
def test_imports_change_and_nothing_else(source, expected):
    assert ported(source) == (source if expected is None else expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("m.save_weights('中/best.weights')", "m.save_weights('中/best.weights.h5')"),
        ('e = Evaluator("a.weights")', 'e = Evaluator("a.weights.h5")'),
        ("m.save_weights('a.h5')", "m.save_weights('a.weights.h5')"),
        ("m.save_weights('a.weights.h5', save_format='h5')", "m.save_weights('a.weights.h5')"),
        ("tokenizer.encode(x, max_length=3)", "tokenizer.encode(x, maxlen=3)"),
        ("x = tokenizer._token_sep_id", "x = tokenizer._token_end_id"),
        ("load_vocab(p, startwith=['[PAD]'])", "load_vocab(p, startswith=['[PAD]'])"),
        ("x = sequence_padding(x, padding=np.zeros(2))", "x = sequence_padding(x)"),
        ("m.save('test.model')", "m.save('test.keras')"),
        ("m.fit_generator(g, epochs=2)", "m.fit(g, epochs=2)"),
        ("m.predict_generator(g)", "m.predict(g)"),
        ("m.fit_generator(g, workers=2, epochs=3, use_multiprocessing=True)", "m.fit(g, epochs=3)"),
        ("m.compile(optimizer=Adam(lr=1e-5))", "m.compile(optimizer=Adam(learning_rate=1e-5))"),
    ],
)
def test_what_keras_3_calls_otherwise(line, expected):
    """The line is changed, and a comment above says why."""
    *above, changed = ported(f"def f():\n    {line}  # 注\n").splitlines()[1:]
    assert above and all(one.startswith("    # bert4x: ") for one in above)
    assert changed == f"    {expected}  # 注"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from bert4keras.snippets import nothing_such\nnothing_such()\n", "bert4x.snippets has no nothing_such"),
        ("import bert4keras.pipelines\n", "there is no module bert4x.pipelines"),
        ("from bert4keras.layers import *\ncustom_objects\n", "bert4x.layers has no custom_objects"),
        ("g = K.gradients(loss, [table])\n", "move it into a function"),
        ("def get_updates(self, loss, params): pass\n", "Keras 3's optimizers"),
        ("tf.keras.layers.Dense(3)\n", "write keras"),
        ("sess = tf.Session()\n", "no sessions"),
        ("model._make_train_function()\n", "Keras 3 has no _make_train_function"),
        ("m.save_weights(f'{x}.weights')\n", "must end in .weights.h5"),
        ("p = multi_gpu_model(m, 2)\n", "multi_gpu_model"),
    ],
)
def test_lines_that_need_a_hand_are_named(source, said):
    found = porting.port(f"x = 0\n{source}")
    assert any(said in note.text and note.line == 2 for note in found.by_hand)
    assert said in found.text


def test_notes_stand_above_whole_statements():
    source = "x = [1,\n     tf.Session()]\nif x: tf.Session()\n@f\ndef g(a=tf.Session()): pass\n"
    compile(ported(source), "s", "exec")
    assert ported(source).splitlines()[1:3] == source.splitlines()[:2]


def test_a_function_that_replaces_the_training_of_keras_2_is_imported():
    source = (
        "def adversarial_training(model, name, epsilon=1):\n    model.train_function = model.train_function"
        "\n\n\nadversarial_training(model, 'Embedding-Token', 0.5)\n"
    )
    text = ported(source)
    home = next(line for line in text.splitlines() if line.startswith("from "))
    assert "train_function" not in text.replace("Keras 2's train_function", "")
    assert text.endswith("\n\nadversarial_training(model, 'Embedding-Token', 0.5)\n")
    assert "adversarial_training(m, 'E', epsilon=1)\n" in ported(f"{source}adversarial_training(m, 'E')\n")
    scope = {}
    exec(home, scope)
    assert callable(scope["adversarial_training"])


def test_star_brings_names_of_other_modules():
    text = ported("from bert4keras.snippets import *\nx = Dense(3, activations.get(tf))\nto_array([1])\nlen(x)\n")
    expected = "import tensorflow as tf\nfrom keras import activations\nfrom keras.layers import Dense\nx"
    assert f"from bert4x.snippets import *\n{expected}" in text
    text = ported("from bert4keras.layers import *\nx = SinusoidalPositionEmbedding(4)\ny = search_layer(x, 'a')\n")
    assert "from bert4x.backend import search_layer\nfrom bert4x.backend.layers import Sinusoidal" in text


def test_losses_look_for_layers_in_their_model():
    source = "def f(y_true, y_pred):\n    return search_layer(y_pred, 'E')\nm.compile(loss=f)\n"
    assert "    return m.get_layer('E')\n" in ported(source)
    assert ported("search_layer(m.output, 'E')\n") == "search_layer(m.output, 'E')\n"


def test_losses_that_are_layers_have_an_axis():
    source = (
        "import keras.backend as K\ndef f(x):\n    return K.sum(x)\ny = Lambda(f, name='l')(x)\nloss = {'l': same}\n"
    )
    assert "    return K.reshape(K.sum(x), (1,))\n" in ported(source)


@pytest.mark.parametrize("module", MODULES)
def test_exported_names_are_there(module):
    """They are read from the source, and not imported; here they are."""
    names = exported(f"bert4x.{module}")
    home = importlib.import_module(f"bert4x.{module}")
    assert names
    assert not [name for name in names if not hasattr(home, name)]


def test_command(tmp_path, capsys):
    script = tmp_path / "s.py"
    script.write_text("from bert4keras.snippets import open\nx = 1\n", encoding="utf-8")
    assert cli.main(["port", str(script)]) == 0
    out, report = capsys.readouterr()
    assert out == "from bert4x.snippets import open\nx = 1\n"
    assert "2 lines: imports changed on 1, changed by rule 0, untouched 1; by hand: nothing" in report
    assert cli.main(["port", str(script), "--write"]) == 0
    written = tmp_path / "s_bert4x.py"
    assert written.read_text(encoding="utf-8") == out
    assert script.read_text(encoding="utf-8").startswith("from bert4keras")
    assert str(written) in capsys.readouterr().out
    assert cli.main(["port", str(script), "--write"]) == 2
    assert "exists already" in capsys.readouterr().err
    script.write_text("sess = tf.Session()\n", encoding="utf-8")
    assert cli.main(["port", str(script)]) == 1


def test_models_train_what_was_trainable_when_they_were_compiled():
    source = "import keras\nm.compile()\nn.layers[0].trainable = False\nn.compile()\n"
    lines = [line for line in ported(source).splitlines() if not line.startswith("#")]
    assert lines == [
        "import keras",
        "from bert4x.training.freezing import as_compiled",
        "as_compiled(m).compile()",
        "n.layers[0].trainable = False",
        "as_compiled(n).compile()",
    ]
    once = "import keras\nn.trainable = False\nn.compile()\n"
    assert ported(once) == once


def test_layers_within_layers_are_made_before_training():
    layer = (
        "class A(Layer):\n    def build(self, s):\n        self.d = {}\n\n    def call(self, x):\n        return x\n"
    )
    shape = "\n    def compute_output_shape(self, s):\n        return s\n\n    x = 1\n"
    assert "compute_output_shape" not in ported(layer.format("Dense(3)") + shape)
    assert ported(layer.format("self.add_weight(3)") + shape) == layer.format("self.add_weight(3)") + shape


def test_layers_with_masks_of_their_own_give_new_tensors():
    layer = "class A(Layer):\n    def {}(self, x, mask=None):\n        return K.abs(x)\n\n"
    call = "    def call(self, x, mask=None):\n        return x[0]\n"
    assert ported(layer.format("compute_mask") + call).endswith("        return K.identity(x[0])\n")
    assert ported(layer.format("other") + call) == layer.format("other") + call


def test_losses_of_finished_models():
    text = ported("import keras\nm.add_loss(a + b)\n")
    assert "\nfrom bert4x.layers import with_loss\n" in text and text.endswith("\nm = with_loss(m, a + b)\n")


def test_tf_keras_is_imported_where_it_is_not():
    text = ported("import tensorflow as tf\ntf.keras.layers.Dense(3)\n")
    assert text.startswith("import tensorflow as tf\nimport keras\n") and text.endswith("\nkeras.layers.Dense(3)\n")


def test_numbers_of_numpy_and_tensorflow_among_tensors():
    """P-tuning's embeddings and SimCSE's loss: PyTorch computes with neither."""
    source = (
        "from bert4keras.backend import K\nimport numpy as np\nimport tensorflow as tf\n\nclass P(Embedding):\n"
        "    def call(self, inputs):\n        mask = np.zeros((9, 1))\n        mask[1:9] += 1\n"
        "        return self.embeddings * mask + inputs * (1 - mask) - tf.eye(9) + tf.eye(9, 3)\n\n"
        "def other(x):\n    mask = np.zeros(3)\n    return x * mask\n"
    )
    text = ported(source)
    assert (
        "return self.embeddings * K.constant(mask) + inputs * (1 - K.constant(mask)) - keras.ops.eye(9) + tf.eye(9, 3)"
        in text
    )
    assert "        mask[1:9] += 1\n" in text and "    return x * mask\n" in text and "import keras\n" in text


def test_a_name_that_nothing_reads_goes():
    text = ported("from bert4keras.snippets import nothing_such, open\n")
    assert text.splitlines()[-1] == "from bert4x.snippets import open" and "has no nothing_such" in text


def test_scripts_beside_and_encodings(tmp_path):
    (tmp_path / "base.py").write_text("import bert4keras\n", encoding="utf-8")
    (tmp_path / "s.py").write_bytes("# coding: gbk\nfrom base import *\nx = '中'\n".encode("gbk"))
    porting.port_file(tmp_path / "s.py", write=True)
    text = (tmp_path / "s_bert4x.py").read_bytes().decode("gbk")
    assert "from base_bert4x import *\nx = '中'\n" in text


@pytest.mark.parametrize(
    ("data", "said"), [(b"print 'x'\n", "no Python 3"), (b"x = '\xff'\n", "no text"), (None, "cannot be read")]
)
def test_bad_scripts(tmp_path, data, said):
    path = tmp_path / "s.py"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        porting.port_file(path)


def test_porting_loads_no_backend():
    code = "import sys; from bert4x import porting; porting.port('import bert4keras'); print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
