"""From every layout to every other and back, bit for bit; and what other libraries say about what is written."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from make_checkpoints import (
    DTYPES,
    FAMILIES,
    LAYOUTS,
    assert_same_bits,
    config_of,
    draw,
    read_all,
    write_checkpoint,
)

import bert4x
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.opening import open_checkpoint
from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import from_array
from bert4x.checkpoints.weights import is_finite_half
from bert4x.errors import ConversionError, NotFiniteError, TensorMismatchError

PAIRS = [(family, a, b) for family in FAMILIES for a in LAYOUTS[family] for b in LAYOUTS[family]]
# Configs that not every published config file can spell by itself.
VARIANTS = {
    "gelu_tanh": {"hidden_act": "gelu_tanh"},
    "gelu_erf": {"hidden_act": "gelu_erf"},
    "relu": {"hidden_act": "relu"},
    "epsilon and dropout": {"layer_norm_eps": 3e-6, "dropout_rate": 0.0, "attention_dropout_rate": 0.3},
    "head and key size": {"attention_head_size": 4, "attention_key_size": 2},
    "key size": {"attention_key_size": 12},
    "factorised": {"embedding_size": 13},
    "hidden size": {"hidden_size": 30, "num_attention_heads": 6},
    "no segments": {"segment_vocab_size": 0},
    "four segments": {"segment_vocab_size": 4},
    "residual attention": {"residual_attention_scores": True, "hierarchical_position": 0.3},
    "initializer": {"initializer_range": 0.01, "max_position": 77},
}


def tensor_bytes(folder):
    """Name -> (dtype, shape, bytes) of the tensors as they lie in the files."""
    tensors = open_checkpoint(folder).tensors
    return {name: (t.dtype, t.shape, np.ascontiguousarray(t.read()).tobytes()) for name, t in tensors.items()}


@pytest.mark.parametrize("family, first, second", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_there_and_back(family, first, second, tmp_path):
    """The files of A -> B -> A hold the same bytes; each pair with one dtype, see the next test for all of them."""
    dtype = list(DTYPES)[PAIRS.index((family, first, second)) % 3]
    config = config_of(family)
    weights = draw(config, dtype, any_bits=True)
    write_checkpoint(tmp_path / "a", first, config, weights)
    bert4x.convert(tmp_path / "a", tmp_path / "b", second)
    bert4x.convert(tmp_path / "b", tmp_path / "c", first)
    assert tensor_bytes(tmp_path / "c") == tensor_bytes(tmp_path / "a")
    for name in "abc":
        assert open_checkpoint(tmp_path / name).config == config
        assert_same_bits(read_all(tmp_path / name), weights)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept(family, dtype, tmp_path):
    weights = draw(config_of(family), dtype, any_bits=True, seed=2)
    source = write_checkpoint(tmp_path / "0", LAYOUTS[family][0], config_of(family), weights)
    for i, format in enumerate([*LAYOUTS[family][1:], LAYOUTS[family][0]], start=1):
        source = bert4x.convert(source, tmp_path / str(i), format)
        assert_same_bits(read_all(source), weights)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_config_survives(family, variant, tmp_path):
    """Through every layout in a row; the config means the same at every step."""
    changes = VARIANTS[variant]
    if family in ("gpt2", "transformer") and variant in ("no segments", "four segments", "factorised"):
        changes = {"pad_token_id": 7}
    config = config_of(family, **changes)
    weights = draw(config)
    source = write_checkpoint(tmp_path / "0", LAYOUTS[family][0], config, weights)
    for i, format in enumerate([*LAYOUTS[family][1:], LAYOUTS[family][0]], start=1):
        target = bert4x.convert(source, tmp_path / str(i), format)
        assert open_checkpoint(target).config == config, format
        assert_same_bits(read_all(target), weights)
        source = target
    assert tensor_bytes(source) == tensor_bytes(tmp_path / "0")


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_without_heads(family, tmp_path):
    config = config_of(family)
    for heads in ((), ("pool",), ("mlm",), ("pool", "mlm")):
        weights = {
            path: values for path, values in draw(config).items() if variables(config)[path][1] in (None, *heads)
        }
        source = write_checkpoint(tmp_path / f"{heads}-tf1", "tf1", config, weights)
        for format in LAYOUTS[family][1:]:
            target = bert4x.convert(source, tmp_path / f"{heads}-{format}", format)
            assert_same_bits(read_all(target), weights)
            assert open_checkpoint(target).config == config


def test_extra_keys_of_a_config_are_kept(tmp_path):
    source = write_checkpoint(tmp_path / "a", "tf1", config_of())
    path = source / "bert_config.json"
    data = json.loads(path.read_text()) | {"directionality": "bidi", "pooler_type": "first_token_transform"}
    path.write_text(json.dumps(data))
    bert4x.convert(source, tmp_path / "b", "hf")
    bert4x.convert(tmp_path / "b", tmp_path / "c", "tf1")
    assert json.loads((tmp_path / "b/config.json").read_text())["directionality"] == "bidi"
    assert json.loads((tmp_path / "c/bert_config.json").read_text()) == data


CLASSES = [  # family, class in the config, heads that the file has, the word that its names lack
    ("bert", "BertLMHeadModel", {"mlm"}, ""),
    ("bert", "BertModel", {"pool"}, "bert."),
    ("bert", "BertForMaskedLM", set(), ""),  # said of files that came without it
    ("albert", "AlbertModel", {"pool"}, "albert."),
    ("roformer", "RoFormerForCausalLM", {"mlm"}, ""),
    ("gpt2", "GPT2Model", set(), "transformer."),
    ("gpt2", "GPT2LMHeadModel", set(), "transformer."),
    ("llama", "LlamaModel", set(), "model."),
    ("t5", "T5Model", set(), ""),
    ("bart", "BartModel", set(), "model."),
]


@pytest.mark.parametrize("family, name, heads, root", CLASSES, ids=[row[1] for row in CLASSES])
def test_the_class_and_the_names_of_the_source_come_back(family, name, heads, root, tmp_path):
    config = config_of(family, **{"bart": {"layer_norm_eps": 1e-5}, "t5": {"tied_output": True}}.get(family, {}))
    known = variables(config)
    weights = {path: values for path, values in draw(config).items() if known[path][1] in (None, *heads)}
    source = write_checkpoint(tmp_path / "a", "hf", config, weights)
    said = json.loads((source / "config.json").read_text()) | {"architectures": [name]}
    (source / "config.json").write_text(json.dumps(said))
    if root:
        tensors = open_checkpoint(source).tensors
        assert all(name.startswith(root) for name in tensors)
        renamed = [replace(t, name=name.removeprefix(root)) for name, t in tensors.items()]
        write_safetensors(source / "model.safetensors", renamed)
    for between in LAYOUTS.get(family, ("bert4x",)):
        bert4x.convert(source, tmp_path / f"{between}-1", between)
        target = bert4x.convert(tmp_path / f"{between}-1", tmp_path / f"{between}-2", "hf")
        assert json.loads((target / "config.json").read_text()) == said
        assert tensor_bytes(target) == tensor_bytes(source)


def test_the_class_changes_with_the_heads(tmp_path):
    """What a file said of other heads is said no more, nor are names without a root where a head has one."""
    source = write_checkpoint(tmp_path / "a", "hf", config_of(), draw(config_of(), heads=False))
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertForPreTraining"]}))
    config = open_checkpoint(source).config
    more = write_checkpoint(tmp_path / "b", "hf", config, draw(config_of()))
    assert json.loads((more / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertForMultipleChoice"]}))
    tensors = open_checkpoint(source).tensors
    head = from_array("classifier.weight", np.ones((1, 24), "f4"))
    renamed = [replace(t, name=name.removeprefix("bert.")) for name, t in tensors.items()]
    write_safetensors(source / "model.safetensors", [*renamed, head])
    bert4x.convert(source, tmp_path / "c", "hf", drop_head=True)
    assert json.loads((tmp_path / "c/config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_equal_after_conversion(family, tmp_path):
    config = config_of(family)
    source = write_checkpoint(tmp_path / "a", LAYOUTS[family][0], config)
    for format in LAYOUTS[family][1:3]:
        bert4x.convert(source, tmp_path / format, format)
        differences = bert4x.verify(source, tmp_path / format)
        heads = {"with_mlm"} if family in ("gpt2", "transformer") else {"with_mlm", "with_nsp", "with_pool"}
        assert set(differences) == {"hidden", *heads}
        assert max(differences.values()) == 0
    other = write_checkpoint(tmp_path / "other", LAYOUTS[family][0], config, draw(config, seed=1))
    assert min(bert4x.verify(source, other).values()) > 0.001


def test_model_parallel_ranks(tmp_path):
    """1 -> 2 -> 4 -> 3 -> 1 ranks: the weights stay, and the last file is the first."""
    config = config_of("gpt2", vocab_size=96, num_attention_heads=12, intermediate_size=60)
    weights = draw(config, "float16", any_bits=True)
    source = write_checkpoint(tmp_path / "0", "megatron", config, weights)
    for i, ranks in enumerate((2, 4, 3, 1), start=1):
        target = bert4x.convert(source, tmp_path / str(i), "megatron", shards=ranks)
        assert len(list(target.rglob("mp_rank_*_model_states.pt"))) == ranks == open_checkpoint(target).ranks
        assert_same_bits(read_all(target), weights)
        source = target
    file = "1/mp_rank_00_model_states.pt"
    assert (source / file).read_bytes() == (tmp_path / "0" / file).read_bytes()


def test_ranks_must_divide(tmp_path):
    """Sizes by name; and whole heads, which the sizes may hide: 6 heads of 4 are 24 columns, but 4 ranks share them."""
    config = config_of("gpt2", vocab_size=92, hidden_size=24, attention_head_size=4, intermediate_size=60)
    source = write_checkpoint(tmp_path / "a", "hf", config)
    for ranks, complaint in ((3, "word_embeddings.weight.*92.*3 ranks"), (4, "6 attention heads.*4 ranks")):
        with pytest.raises(ConversionError, match=complaint):
            bert4x.convert(source, tmp_path / "b", "megatron", shards=ranks)
        assert not (tmp_path / "b").exists()


def test_number_of_files(tmp_path):
    config = config_of()
    weights = draw(config)
    source = write_checkpoint(tmp_path / "a", "tf1", config, weights)
    bert4x.convert(source, tmp_path / "b", "hf", shards=3)
    files = sorted(path.name for path in (tmp_path / "b").iterdir())
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert files == ["config.json", *shards, "model.safetensors.index.json"]
    assert_same_bits(read_all(tmp_path / "b"), weights)
    for wrong in ({"shards": 0}, {"shards": 2, "format": "tf1"}, {"format": "onnx"}, {"dtype": "int8"}):
        with pytest.raises(ConversionError):
            bert4x.convert(source, tmp_path / "c", **wrong)
        assert not (tmp_path / "c").exists()


def test_dtype(tmp_path):
    config = config_of()
    weights = draw(config)
    source = write_checkpoint(tmp_path / "a", "tf1", config, weights)
    for dtype, kind in DTYPES.items():
        for format in ("hf", "bert4x", "tf1", "keras"):
            target = bert4x.convert(source, tmp_path / f"{format}-{dtype}", format, dtype=dtype)
            assert_same_bits(read_all(target), {path: values.astype(kind) for path, values in weights.items()})
        assert json.loads((tmp_path / f"hf-{dtype}/config.json").read_text())["torch_dtype"] == dtype
    # half precision is kept unless asked
    half = bert4x.convert(tmp_path / "hf-float16", tmp_path / "again", "tf1")
    assert {values.dtype for values in read_all(half).values()} == {np.dtype("f2")}


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_no_folder_can_have(name, tmp_path):
    source = write_checkpoint(tmp_path / "a", "hf", config_of())
    with pytest.raises(ConversionError, match=r"can be no folder: (File name too long|.*null)"):
        bert4x.convert(source, tmp_path / name)


def test_float16_overflow(tmp_path):
    config = config_of()
    weights = draw(config)
    weights["Transformer-1-FeedForward/output/kernel"][3, 4] = 70000.0
    source = write_checkpoint(tmp_path / "a", "tf1", config, weights)
    with pytest.raises(NotFiniteError, match=r"Transformer-1-FeedForward/output/kernel as float16.*7e"):
        bert4x.convert(source, tmp_path / "b", "hf", dtype="float16")
    assert not (tmp_path / "b").exists()
    bert4x.convert(source, tmp_path / "b", "hf", dtype="bfloat16")


def test_keep_tokens(tmp_path):
    config = config_of()
    weights = draw(config)
    source = write_checkpoint(tmp_path / "a", "tf1", config, weights)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + i) for i in range(92))]
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    keep = [0, 1, 2, 3, 4, 96, 17, 50]
    target = bert4x.convert(source, tmp_path / "b", "hf", keep_tokens=keep)
    expected = dict(weights)
    for path in ("Embedding-Token/embeddings", "MLM-Bias/bias"):
        expected[path] = weights[path][keep]
    assert_same_bits(read_all(target), expected)
    assert open_checkpoint(target).config == config.replace(vocab_size=8)
    assert (target / "vocab.txt").read_text(encoding="utf-8").split() == [tokens[i] for i in keep]
    model, whole = bert4x.load(target, with_mlm=True), bert4x.load(source, with_mlm=True)
    assert model.tokenizer.encode("丌")[0] == [2, keep.index(tokens.index("丌")), 3]
    ids, new = np.array([[2, 17, 50, 96, 3]]), np.array([[2, 6, 7, 5, 3]])
    np.testing.assert_allclose(
        np.asarray(model([new, 0 * new])), np.asarray(whole([ids, 0 * ids]))[..., keep], atol=2e-5
    )
    for wrong in ([], [97], [-1], [0.5], [[1, 2]], "abc", [1, 2, 1]):
        with pytest.raises(bert4x.Bert4xError, match="keep_tokens"):
            bert4x.convert(source, tmp_path / "c", "hf", keep_tokens=wrong)
        assert not (tmp_path / "c").exists()


def test_keep_tokens_of_odd_vocabularies(tmp_path):
    """Chinese BERT's vocabulary has U+2028, a line separator, as a token; others are shorter than the table."""
    source = write_checkpoint(tmp_path / "a", "hf", config_of(vocab_size=12))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "\u2028", "\x85", "b", "c"]
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")
    ids = {str(i): {"content": token} for i, token in enumerate(tokens[:5])}
    (source / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "added_tokens_decoder": ids}))
    keep = [9, 6, 4, 3, 2, 1, 0]
    target = bert4x.convert(source, tmp_path / "b", "hf", keep_tokens=keep)
    assert (target / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == [tokens[i] for i in keep]
    assert bert4x.load(target).tokenizer.encode("c[MASK]")[0] == [4, 0, 2, 3]
    with pytest.raises(ConversionError, match=r"ids \[11\], but .*vocab.txt has 10 tokens"):
        bert4x.convert(source, tmp_path / "c", "hf", keep_tokens=[0, 1, 11])
    assert not (tmp_path / "c").exists()


def test_unshared_albert(tmp_path):
    """Only our own layouts hold it; a shared one takes it while its layers are still equal."""
    config = config_of("albert_unshared")
    shared = draw(config_of("albert"))
    ours = {
        path: shared[path if path in shared else "Transformer-" + path.split("-", 2)[2]] for path in variables(config)
    }
    source = write_checkpoint(tmp_path / "a", "bert4x", config, ours)
    for format in ("hf", "tf1"):
        target = bert4x.convert(source, tmp_path / format, format)
        assert open_checkpoint(target).config == config.replace(model="albert")
        assert_same_bits(read_all(target), shared)
    path = "Transformer-2-FeedForward-Norm/beta"
    ours[path] = ours[path].copy()
    ours[path][0] = -0.0 if ours[path][0] == 0 else np.nextafter(ours[path][0], np.float32(9))
    trained = write_checkpoint(tmp_path / "b", "bert4x", config, ours)
    for format in ("hf", "tf1"):
        with pytest.raises(ConversionError, match="Transformer-2-FeedForward-Norm/beta differs"):
            bert4x.convert(trained, tmp_path / f"{format}-2", format)
        assert not (tmp_path / f"{format}-2").exists()
    assert_same_bits(read_all(bert4x.convert(trained, tmp_path / "keras", "keras")), ours)


def test_vocabulary_files(tmp_path):
    source = write_checkpoint(tmp_path / "a", "tf1", config_of())
    (source / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n", encoding="utf-8")
    target = bert4x.convert(source, tmp_path / "b", "hf")
    assert (target / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    assert json.loads((target / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
    }
    gpt2 = write_checkpoint(tmp_path / "c", "tf1", config_of("gpt2"))
    (gpt2 / "encoder.json").write_text("{}")
    (gpt2 / "vocab.bpe").write_text("#version: 0.2\n")
    hf = bert4x.convert(gpt2, tmp_path / "d", "hf")
    assert {"vocab.json", "merges.txt"} <= {path.name for path in hf.iterdir()}
    back = bert4x.convert(hf, tmp_path / "e", "tf1")
    assert {"encoder.json", "vocab.bpe"} <= {path.name for path in back.iterdir()}


@pytest.mark.parametrize("format", ["hf", "tf1", "megatron", "keras", "bert4x"])
def test_failure_leaves_nothing(format, tmp_path, monkeypatch):
    """However far it came: nothing is new, and what lay in the target still does."""
    import bert4x.checkpoints.convert as module

    source = write_checkpoint(tmp_path / "a", "hf", config_of("gpt2"))
    shards = 2 if format == "megatron" else None
    existing = tmp_path / "existing"
    existing.mkdir()
    (existing / "notes.txt").write_text("mine")
    (existing / "config.json").write_text("{}")
    reads = 0

    def failing_read(self, path, dtype):
        nonlocal reads
        reads += 1
        if reads > 10 or len(self.checkpoint.variables) < 10:
            raise OSError("disk full")
        return self.checkpoint.read(path)

    def failing(*args):
        raise OSError("disk full")

    for name, target in (
        (n, t) for n in ("read", "write_config", "copy_vocabulary") for t in (tmp_path / "new", existing)
    ):
        reads = 0
        with monkeypatch.context() as patch:
            if name == "read":
                patch.setattr(module.Variables, "read", failing_read)
            else:
                patch.setattr(module, name, failing)
            with pytest.raises(OSError, match="disk full"):
                bert4x.convert(source, target, format, shards=shards)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "existing"]
        assert {p.name: p.read_text() for p in existing.iterdir()} == {"notes.txt": "mine", "config.json": "{}"}


def test_targets_that_cannot_be(tmp_path):
    source = write_checkpoint(tmp_path / "a", "hf", config_of())
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    (tmp_path / "file").write_text("x")
    for target in (source, tmp_path / "file"):
        with pytest.raises(ConversionError):
            bert4x.convert(source, target, "bert4x")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_a_folder_that_holds_another_checkpoint(tmp_path):
    """Two checkpoints in one folder: whoever loads it would get the wrong one."""
    first = write_checkpoint(tmp_path / "a", "hf", config_of())
    for old in ("megatron", "tf1", "keras", "hf"):
        target = write_checkpoint(tmp_path / old, old, config_of("gpt2"), shards=3 if old == "megatron" else None)
        before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
        with pytest.raises(ConversionError, match="already holds"):
            bert4x.convert(first, target, "tf1" if old == "hf" else "hf")
        assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_again_into_the_same_folder(tmp_path):
    first, second = (
        write_checkpoint(tmp_path / name, "tf1", config_of(vocab_size=v)) for name, v in (("a", 9), ("b", 8))
    )
    for source in (first, second):
        assert_same_bits(read_all(bert4x.convert(source, tmp_path / "deep/er/c", "hf")), read_all(source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "deep"]
    assert oct((tmp_path / "deep/er/c").stat().st_mode) == oct(first.stat().st_mode)


def test_separate_output_layer_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="writes a PyTorch file")
    config = config_of()
    source = write_checkpoint(tmp_path / "a", "hf", config)
    tensors = {name: torch.tensor(np.array(t.read())) for name, t in open_checkpoint(source).tensors.items()}
    tied = tensors["bert.embeddings.word_embeddings.weight"]
    shutil.copytree(source, tmp_path / "b", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(tensors | {"cls.predictions.decoder.weight": tied.clone()}, tmp_path / "b/pytorch_model.bin")
    assert_same_bits(read_all(bert4x.convert(tmp_path / "b", tmp_path / "c", "bert4x")), read_all(source))
    torch.save(tensors | {"cls.predictions.decoder.weight": tied + 1}, tmp_path / "b/pytorch_model.bin")
    with pytest.raises(TensorMismatchError, match=r"cls\.predictions.decoder.weight differs from the embedding"):
        bert4x.convert(tmp_path / "b", tmp_path / "d", "bert4x")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_not_finite_is_found_wherever_it_stands(dtype):
    values = np.zeros((400, 700), DTYPES[dtype])  # more than are looked at at once
    assert is_finite_half(values) and is_finite_half(values[::3, ::2].T) and is_finite_half(values[:0])
    for bad in (np.inf, -np.inf, np.nan):
        values[-1, -1] = bad
        assert not is_finite_half(values) and not is_finite_half(values.T)
        assert is_finite_half(values[:-1])
