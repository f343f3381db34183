"""The checkpoints that are measured: random weights, written once, read by every library."""

import fcntl
import json
import shutil
from pathlib import Path

import numpy as np

from bert4x.checkpoints.tables import variables
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.checkpoints.write import write, write_config
from bert4x.config import TransformerConfig

BERT_BASE = TransformerConfig(
    model="bert", vocab_size=21128, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
    intermediate_size=3072, max_position=512, pad_token_id=0,
)  # fmt: skip
# keras-hub's BERT has the tanh form of gelu built in, so all compute that one where it takes part.
TANH = {"hidden_act": "gelu_tanh"}
SIZES = {
    "full": {},
    "small": {"num_hidden_layers": 4},
    "toy": {
        "vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "attention_head_size": 16, "attention_key_size": 16, "embedding_size": 64, "intermediate_size": 128,
    },
}  # fmt: skip
SPECIAL = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
COMPLETE = "complete"


def bert(size: str, **changes) -> TransformerConfig:
    """BERT-base, or fewer layers of it, or a toy."""
    return BERT_BASE.replace(**TANH | SIZES[size] | changes)


def write_bert(folder: Path, config: TransformerConfig = BERT_BASE, spread: float = 0.02) -> Path:
    """Random weights and a vocabulary as published on Hugging Face, pooler and MLM head included."""
    random = np.random.default_rng(0)

    def tensor(path: str, shape: tuple[int, ...]) -> LazyTensor:
        base = 1.0 if path.endswith("gamma") else 0.0
        return LazyTensor(
            path, shape, np.dtype("f4"), lambda: base + spread * random.standard_normal(shape, dtype="float32")
        )

    folder.mkdir(parents=True, exist_ok=True)
    ours = {path: tensor(path, shape) for path, (shape, _) in variables(config).items()}
    write(folder, "hf", config, ours)
    write_config(folder, "hf", config, ours)
    words = SPECIAL + [chr(0x4E00 + i) for i in range(config.vocab_size - len(SPECIAL))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    path = folder / "config.json"
    found = json.loads(path.read_text())
    if found["hidden_act"] == "gelu_new":  # the same function, which PyTorch has in one piece
        path.write_text(json.dumps(found | {"hidden_act": "gelu_pytorch_tanh"}, indent=2) + "\n")
    return folder


def prepared(folder: Path, name: str, config: TransformerConfig, tf1: bool = False) -> Path:
    """A checkpoint in the scratch folder, written if it is not there yet; `tf1` adds Google's layout in `tf1/`."""
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
            write_bert(path, config)
            (path / COMPLETE).touch()
        if tf1 and not (path / "tf1").exists():
            from bert4x import convert

            convert(path, path / "tf1", "tf1")
    return path


def flops(config: TransformerConfig, batch: int, length: int) -> float:
    """Floating-point operations of the matrix products of a forward pass of the encoder, 2 for each multiply-add."""
    hidden, inner = config.hidden_size, config.intermediate_size
    token = 8 * hidden**2 + 4 * hidden * inner + 4 * length * hidden
    return float(config.num_hidden_layers * batch * length * token)


def ids_of(config_vocabulary: int, batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Random tokens that are no special ones. Shape: (batch, length) int32"""
    return np.random.default_rng(seed).integers(len(SPECIAL), config_vocabulary, (batch, length)).astype("int32")
