"""Checkpoints of training frameworks: whatever wraps the model, its tensors are found by their own names."""

import json
import re
import shutil

import numpy as np
import pytest
from make_checkpoints import assert_same_bits, config_of, draw, open_checkpoint, read_all, write_checkpoint

import bert4x
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.formats.tf1_bundle import write_tf1
from bert4x.checkpoints.formats.torch_write import write_torch
from bert4x.checkpoints.tensors import from_array
from bert4x.errors import CheckpointNotFoundError, ConfigError, TensorMismatchError, UnknownFormatError


def contents(folder) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by the names in its file."""
    return {t.name: np.array(t.read()) for t in open_checkpoint(folder).tensors.values()}


def named(arrays: dict) -> list:
    return [from_array(name, array) for name, array in arrays.items()]


@pytest.fixture(params=["bert", "albert", "gpt2"])
def hf(request, tmp_path):
    """A Hugging Face folder, and its arrays."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of(request.param))
    return folder, contents(folder), request.param


VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n"
ROOTS = {"bert": "bert.", "albert": "albert.", "gpt2": "transformer."}


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module._orig_mod.", "model.", "net.", "encoder.", "student.model.", "0.auto_model.", "state_dict."],
)
def test_a_prefix_of_all_names(hf, prefix):
    folder, arrays, family = hf
    for root in (ROOTS[family], ""):
        changed = {prefix + name.removeprefix("" if root else ROOTS[family]): array for name, array in arrays.items()}
        write_safetensors(folder / "model.safetensors", named(changed))
        report = open_checkpoint(folder).report
        assert not report.problems + report.stray + report.absent_heads
        assert_same_bits(read_all(folder), draw(config_of(family)))


def test_the_output_layer_for_the_embedding_table(hf):
    """What `save_model` of safetensors leaves of two tensors that are one: the first name in the alphabet."""
    folder, arrays, family = hf
    names = {
        "bert": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        "albert": ("albert.embeddings.word_embeddings.weight", "predictions.decoder.weight"),
        "gpt2": ("transformer.wte.weight", "lm_head.weight"),
    }
    table, copy = names[family]
    for prefix in ("", "module."):
        changed = {prefix + (copy if name == table else name): array for name, array in arrays.items()}
        write_safetensors(folder / "model.safetensors", named(changed))
        assert not open_checkpoint(folder).report.problems
        assert_same_bits(read_all(folder), draw(config_of(family)))
    said = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    assert [line.partition(":")[0] for line in open_checkpoint(folder, said).report.missing] == [table]


@pytest.mark.parametrize("said", [True, False, None])  # a Llama's are two unless its config says that they are one
def test_a_llama_without_its_embedding_table(said, tmp_path):
    config = config_of("llama", tie_word_embeddings=True)
    folder = write_checkpoint(tmp_path, "hf", config)
    arrays = {n.replace("model.embed_tokens.", "lm_head."): array for n, array in contents(folder).items()}
    write_safetensors(folder / "model.safetensors", named(arrays))
    data = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": said}
    missing = open_checkpoint(folder, {k: v for k, v in data.items() if v is not None}).report.missing
    assert [line.partition(":")[0] for line in missing] == ([] if said else ["model.embed_tokens.weight"])


@pytest.mark.parametrize("prefix", ["roberta.", ""])  # without: bge-m3's pytorch_model.bin
def test_a_roberta_of_pytorch(prefix, tmp_path):
    """`.bin` files may be UER's too, whose names have no word of a family; the config's word counts."""
    config = config_of("xlm_roberta")
    folder = write_checkpoint(tmp_path / "a", "hf", config)
    arrays = {re.sub(r"^roberta\.", prefix, name): array for name, array in contents(folder).items()}
    (folder / "model.safetensors").unlink()
    write_torch(folder / "pytorch_model.bin", named(arrays))
    assert open_checkpoint(folder).config.model == "xlm_roberta"
    assert_same_bits(read_all(folder), draw(config))


def test_an_attribute_in_place_of_the_root(hf):
    """`self.bert_model = BertModel(...)` in a module with heads of its own, which stay where they are."""
    folder, arrays, family = hf
    root = ROOTS[family]
    for prefix in ("", "module.", "model.model."):
        inner = {prefix + "bert_model." + n.removeprefix(root): a for n, a in arrays.items() if n.startswith(root)}
        heads = {prefix + n: a for n, a in arrays.items() if not n.startswith(root)}
        task = {f"{prefix}output.weight": np.zeros((2, 35), "f4")}
        write_safetensors(folder / "model.safetensors", named(inner | heads | task))
        report = open_checkpoint(folder).report
        assert report.stray == list(task) and not report.problems + report.absent_heads
        assert_same_bits(read_all(folder), draw(config_of(family)))


def test_wrappers_of_single_layers(hf):
    """torch.compile and FSDP rename what they wrap, amid the names."""
    folder, arrays, family = hf
    block = {"bert": ".layer.1.", "albert": ".albert_layers.0.", "gpt2": ".h.1."}[family]
    for inserted in ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
        changed = {
            f"_fsdp_wrapped_module.{name.replace(block, block + inserted)}": array for name, array in arrays.items()
        }
        write_safetensors(folder / "model.safetensors", named(changed))
        assert_same_bits(read_all(folder), draw(config_of(family)))


def test_two_models_in_one_file(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    arrays = contents(folder)
    teacher = {f"teacher.{name}": array for name, array in arrays.items()}
    shallower = {name: array for name, array in arrays.items() if ".layer.2." not in name}
    for other in ({name: array + 1 for name, array in arrays.items()}, shallower):
        student = {f"student.{name}": -array for name, array in other.items()}
        write_safetensors(folder / "model.safetensors", named(teacher | student))
        with pytest.raises(TensorMismatchError, match=r"two models.*'student\.bert\.'.*'teacher\.bert\.'"):
            open_checkpoint(folder)
    same = {f"student.{name}": array for name, array in arrays.items()}  # one module under two attributes
    write_safetensors(folder / "model.safetensors", named(teacher | same))
    assert not open_checkpoint(folder).report.problems
    assert_same_bits(read_all(folder), draw(config_of()))


def test_scopes_of_tensorflow(tmp_path):
    for family in ("bert", "albert", "gpt2"):
        folder = write_checkpoint(tmp_path / family, "tf1", config_of(family))
        arrays = contents(folder)
        root = "model/" if family == "gpt2" else "bert/"
        prefix = next(folder.glob("*.index")).with_suffix("")
        for scope in (f"module/{root}", "bert_1/", "tower/encoder_1/", ""):
            changed = {scope + n.removeprefix(root) if n.startswith(root) else n: a for n, a in arrays.items()}
            write_tf1(prefix, named(changed))
            assert not open_checkpoint(folder).report.problems
            assert_same_bits(read_all(folder), draw(config_of(family)))


def test_moving_averages_alone(tmp_path):
    """Where a file has both, the variable itself counts; see test_slots_of_any_optimizer."""
    folder = write_checkpoint(tmp_path / "a", "tf1", config_of())
    arrays = contents(folder)
    averages = {f"{name}/ExponentialMovingAverage": array for name, array in arrays.items()}
    slots = {f"{name}/Momentum": array for name, array in arrays.items()}
    write_tf1(folder / "bert_model.ckpt", named(averages | slots | {"global_step": np.zeros((), "i8")}))
    report = open_checkpoint(folder).report
    assert not report.problems + report.stray and len(report.ignored) == len(slots) + 1
    assert_same_bits(read_all(folder), draw(config_of()))


def test_folder_of_lightning(hf, tmp_path):
    folder, arrays, family = hf
    (folder / "model.safetensors").unlink()
    state = {f"model.{name}": array for name, array in arrays.items()}
    write_torch(folder / "epoch=3-step=10.ckpt", named(state), root="state_dict", extra={"epoch": 3})
    assert_same_bits(read_all(folder), draw(config_of(family)))
    target = bert4x.convert(folder, tmp_path / "b", "hf")
    assert_same_bits(read_all(target), draw(config_of(family)))
    shutil.copy(folder / "epoch=3-step=10.ckpt", folder / "last.ckpt")
    with pytest.raises(CheckpointNotFoundError, match=r"several files.*epoch=3-step=10\.ckpt, last\.ckpt; pass one"):
        open_checkpoint(folder)
    assert_same_bits(read_all(folder / "last.ckpt"), draw(config_of(family)))


def deepspeed(folder, arrays, step="global_step500", latest="global_step500\n"):
    """What DeepSpeed leaves with ZeRO 1 and 2: the weights of rank 0, and the parts of the optimizer."""
    write_torch(folder / step / "mp_rank_00_model_states.pt", named(arrays), root="module", extra={"global_steps": 500})
    optimizer = [from_array("exp_avg", np.zeros(3, "f4"))]
    for rank in range(2):
        write_torch(folder / step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", optimizer)
    (folder / "latest").write_text(latest)
    (folder / "training_args.bin").write_bytes(b"\x80\x02.")
    (folder / "vocab.txt").write_text(VOCABULARY)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("prefix", ["", "module.", "_forward_module.model."])
def test_folder_of_deepspeed(hf, dtype, prefix, tmp_path):
    folder, _, family = hf
    weights = draw(config_of(family), dtype)
    arrays = contents(write_checkpoint(tmp_path / "half", "hf", config_of(family), weights))
    (folder / "model.safetensors").unlink()
    deepspeed(folder, {prefix + name: array for name, array in arrays.items()})
    step = folder / "global_step500"
    for path in (folder, folder / "latest", step, step / "mp_rank_00_model_states.pt"):
        checkpoint = open_checkpoint(path)
        assert (checkpoint.format, checkpoint.config.model) == ("hf", family)
        assert_same_bits(read_all(path), weights)
        assert bert4x.load_tokenizer(path).vocab_size == 6
    target = bert4x.convert(folder, tmp_path / "b", "hf")
    assert (target / "vocab.txt").is_file()
    assert_same_bits(read_all(target), weights)


def test_deepspeed_under_lightning(tmp_path):
    """The .ckpt is a folder, of which `latest` names one inside; the config lies beside it."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    arrays = {f"_forward_module.model.{name}": array for name, array in contents(folder).items()}
    (folder / "model.safetensors").unlink()
    saved = folder / "epoch=0-step=10.ckpt"
    saved.mkdir()
    deepspeed(saved, arrays, step="checkpoint", latest="checkpoint")
    for path in (folder, saved):
        assert_same_bits(read_all(path), draw(config_of()))


def test_named_weights_come_before_deepspeeds(tmp_path):
    """transformers' trainer saves both; `latest` may then name what was not copied along."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    (folder / "latest").write_text("global_step500")
    assert_same_bits(read_all(folder), draw(config_of()))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"names 'global_step500', but .* is no folder"):
        open_checkpoint(folder)


def test_zero_3(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    (folder / "model.safetensors").unlink()
    (folder / "global_step5").mkdir()
    part = folder / "global_step5" / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    write_torch(part, [from_array("w", np.zeros(0, "f4"))], root="module")
    (folder / "latest").write_text("global_step5")
    for path in (folder, part.parent, part):
        with pytest.raises(UnknownFormatError, match=r"ZeRO 3.*zero_to_fp32\.py"):
            open_checkpoint(path)


def test_checkpoints_of_a_run(tmp_path):
    """One inside is meant; of several one must be named."""
    run = tmp_path / "run"
    write_checkpoint(run / "checkpoint-500", "hf", config_of())
    assert_same_bits(read_all(run), draw(config_of()))
    write_checkpoint(run / "checkpoint-1000", "hf", config_of())
    with pytest.raises(CheckpointNotFoundError, match="weights: checkpoint-1000, checkpoint-500; pass one of them"):
        open_checkpoint(run)


def test_sentence_transformers_of_old(tmp_path):
    """Modules in numbered folders, one of which may be a dense layer with weights of its own."""
    root = tmp_path / "st"
    inner = write_checkpoint(root / "0_Transformer", "hf", config_of())
    (inner / "vocab.txt").write_text(VOCABULARY)
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    (root / "config.json").write_text('{"__version__": "0.2.5"}')
    (root / "modules.json").write_text("[]")
    write_torch(root / "2_Dense" / "pytorch_model.bin", [from_array("linear.weight", np.zeros((2, 2), "f4"))])
    assert_same_bits(read_all(root), draw(config_of()))
    assert bert4x.load_tokenizer(root).vocab_size == 6
    assert bert4x.inspect(root).vocabulary == "Tokenizer, 6 tokens"


def test_saved_model_of_tensorflow_hub(tmp_path):
    root = write_checkpoint(tmp_path / "hub", "tf1", config_of())
    arrays = contents(root)
    for path in [*root.glob("bert_model.ckpt*"), root / "checkpoint"]:
        path.unlink()
    (root / "saved_model.pb").write_bytes(b"\x08\x01")
    (root / "assets").mkdir()
    (root / "assets/vocab.txt").write_text(VOCABULARY)
    write_tf1(root / "variables/variables", named({f"module/{n}": a for n, a in arrays.items()}), checkpoint_file=False)
    for path in (root, root / "saved_model.pb", root / "variables", root / "variables/variables"):
        assert_same_bits(read_all(path), draw(config_of()))
        assert bert4x.load_tokenizer(path).vocab_size == 6
    target = bert4x.convert(root, tmp_path / "b", "hf")
    assert (target / "vocab.txt").is_file()
    assert_same_bits(read_all(target), draw(config_of()))


@pytest.mark.parametrize(
    "path",
    ["D:\\\\bert\\\\model.ckpt-500", "D:\\bert\\model.ckpt-500", "/root/out/model.ckpt-500", "model.ckpt-500"],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_step_that_the_checkpoint_file_names(tmp_path, path, mark):
    folder = write_checkpoint(tmp_path / "a", "tf1", config_of())
    arrays = contents(folder)
    for file in folder.glob("bert_model.ckpt*"):
        file.unlink()
    for step, sign in ((343, -1), (500, 1)):
        write_tf1(folder / f"model.ckpt-{step}", named({name: sign * array for name, array in arrays.items()}))
    lines = f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "model.ckpt-343"\n'
    (folder / "checkpoint").write_text(mark + lines, encoding="utf-8")
    for source in (folder, folder / "checkpoint"):
        assert_same_bits(read_all(source), draw(config_of()))
    (folder / "checkpoint").write_text(lines.replace("500", "900"))
    with pytest.raises(CheckpointNotFoundError, match=r"several .*: model\.ckpt-343, model\.ckpt-500; pass one"):
        open_checkpoint(folder)


def test_escapes_in_the_checkpoint_file(tmp_path):
    """TensorFlow writes what is not ASCII in octal."""
    folder = write_checkpoint(tmp_path / "a", "tf1", config_of())
    for file in sorted(folder.glob("bert_model.ckpt*")):
        file.rename(folder / file.name.replace("bert_model", "模型"))
    shutil.copy(folder / "模型.ckpt.index", folder / "other.index")
    escaped = "".join(f"\\{byte:03o}" for byte in "模型".encode())
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "out/{escaped}.ckpt"\n')
    assert_same_bits(read_all(folder), draw(config_of()))


def test_a_config_of_something_else(tmp_path):
    """It lies beside the right one, under the better name."""
    for format, name in (("tf1", "bert_config.json"), ("hf", "config.json")):
        folder = write_checkpoint(tmp_path / format, format, config_of())
        right = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / "bert_config.json").write_bytes(right)
        for unrelated in ('{"lr": 1e-5, "epochs": 3}', '{"__version__": "2.0"}', "[1]", "{"):
            (folder / "config.json").write_text(unrelated)
            assert open_checkpoint(folder).config.hidden_size == 35
    other = json.loads(right) | {"hidden_size": 70, "num_attention_heads": 7}  # a TensorFlow checkpoint has its own
    (tmp_path / "tf1" / "config.json").write_text(json.dumps(other))
    assert open_checkpoint(tmp_path / "tf1").config.hidden_size == 35


def test_a_byte_order_mark(tmp_path):
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    text = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + text)
    assert_same_bits(read_all(folder), draw(config_of()))
    (folder / "config.json").write_bytes(text.decode().encode("utf-16"))
    with pytest.raises(bert4x.Bert4xError, match=r"config\.json is in UTF-16; save it as UTF-8"):
        open_checkpoint(folder)


def test_a_bert_that_is_called_roberta(tmp_path):
    """CLUE's and others' configs name the recipe of the training; the names of the tensors tell what it is."""
    folder = write_checkpoint(tmp_path / "a", "hf", config_of())
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"model_type": "roberta"}))
    assert_same_bits(read_all(folder), draw(config_of()))
    converted = json.loads((bert4x.convert(folder, tmp_path / "b", "hf") / "config.json").read_text())
    assert converted["model_type"] == "bert"
    arrays = contents(folder)
    bare = {name.removeprefix("bert."): array for name, array in arrays.items()}  # as a real RoBERTa's may be, too
    write_safetensors(folder / "model.safetensors", named(bare))
    with pytest.raises(ConfigError, match="pad_token_id = 0; only 1"):  # whose positions begin behind the padding id
        open_checkpoint(folder)
    data |= {"pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(data | {"model_type": "roberta"}))
    assert open_checkpoint(folder).config.model == "fairseq_roberta"
    (folder / "config.json").write_text(json.dumps(data | {"model_type": "squeezebert"}))
    with pytest.raises(ConfigError, match="model_type = 'squeezebert'"):
        open_checkpoint(folder)
