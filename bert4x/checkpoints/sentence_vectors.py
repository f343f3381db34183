"""What makes one vector of an encoder's hidden states, as a folder of sentence-transformers says it (versions 2 to 6).

modules.json lists the steps, each with the folder of its settings; both spellings of these are read, the older one,
which all versions read, is written.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bert4x.checkpoints.files import locate
from bert4x.checkpoints.formats.safetensors_file import write_safetensors
from bert4x.checkpoints.task_file import MAX_SETTING
from bert4x.checkpoints.tensors import LazyTensor
from bert4x.checkpoints.write import write_json
from bert4x.errors import CheckpointNotFoundError, ConversionError, CorruptFileError, UnknownOptionError, nearest
from bert4x.json_files import check_kinds, read_json, shown

MODULES, CONFIG = "modules.json", "config_sentence_transformers.json"
# The settings of the encoder, as versions have called their file.
ENCODER = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
POOLING = {  # ways to pool -> their older keys; several are joined in this order
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
ACTIVATIONS = {"torch.nn.modules.activation.Tanh": "tanh", "torch.nn.modules.linear.Identity": "linear"}
ACTIVATIONS |= {"torch.nn.modules.activation.GELU": "gelu", "torch.nn.modules.activation.ReLU": "relu"}
ACTIVATIONS |= {"torch.nn.modules.activation.SiLU": "silu", "torch.nn.modules.activation.Sigmoid": "sigmoid"}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
TYPES = "sentence_transformers.models."
MAX_PART = 255  # characters of a name in a path
LONGEST = 512  # tokens of a text, where the model takes more; the default
FLOW_OUT = "module_output_name"
FLOW = {"module_input_name": "sentence_embedding", FLOW_OUT: "sentence_embedding"}  # of what follows pooling


def are_sentence_vectors(folder: Path) -> bool:
    """Whether a folder is one of sentence-transformers, and no reranker, which newer versions write alike."""
    folder = Path(folder)
    return (folder / MODULES).is_file() and first([folder], [CONFIG], {}).get("model_type") != "CrossEncoder"


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of `bert4x.tasks.sentence_embedding.SentenceEmbedding` that a folder of sentence-transformers says.

    Raises: CorruptFileError for files that say no settings, or other steps than an encoder, pooling, dense layers
        and normalisation; CheckpointNotFoundError for a step whose folder is not there.
    """
    steps = modules(folder)
    settings: dict[str, Any] = {"steps": []}
    for kind, place in steps[1:]:
        if kind == "Pooling":
            settings |= pooling(place)
        elif kind == "Dense":
            settings["steps"].append(dense(place))
        elif kind == "Normalize":
            check_kind(place / "config.json", first([place], ["config.json"], {}), FLOW)
            settings["steps"].append({"kind": "normalize"})
    settings |= encoder(steps[0][1], folder)
    kinds = {"prompts": (dict,), "default_prompt_name": (str,), "similarity_fn_name": (str,), "truncate_dim": (int,)}
    said = first([folder], [CONFIG], kinds)
    if said.get("truncate_dim") is not None:
        settings["steps"].append({"kind": "truncate", "units": counted(said, "truncate_dim", folder / CONFIG)})
    settings["prompts"] = {str(name): text or "" for name, text in (said.get("prompts") or {}).items()}
    check_kinds(settings["prompts"], dict.fromkeys(settings["prompts"], (str,)), f"{folder / CONFIG}: prompts")
    settings["default_prompt"] = said.get("default_prompt_name") or ""
    settings["similarity_name"] = said.get("similarity_fn_name") or "cosine"
    for key, known in (("similarity_name", SIMILARITIES), ("default_prompt", ("", *settings["prompts"]))):
        if settings[key] not in known:
            raise CorruptFileError(
                f"{folder / CONFIG}: {key} is {shown(settings[key])}; expected one of {shown(list(known))}"
            )
    return settings


def counted(said: dict[str, Any], key: str, where: str | Path) -> int:
    """A number of tokens or of a layer's outputs. Raises: CorruptFileError"""
    if not 0 < said[key] <= MAX_SETTING:
        raise CorruptFileError(f"{where}: {key!r} is {shown(said[key])}; expected 1 to {MAX_SETTING}")
    return said[key]


def encoder(place: Path, folder: Path) -> dict[str, Any]:
    """What is said of texts: the longest, and the case of letters. Raises: CorruptFileError"""
    said = first([place, folder], ENCODER, {"do_lower_case": (bool,)})
    check_kind(place / ENCODER[0], said, {"transformer_task": "feature-extraction"} | {FLOW_OUT: "token_embeddings"})
    most = longest(place, folder)
    return ({"maxlen": most} if most else {}) | ({"lower_case": True} if said.get("do_lower_case") else {})


def longest(place: Path, folder: Path) -> int | None:
    """Tokens of a text, as the file of the encoder says, or, in newer versions, that of the tokenizer; None where
    nobody does. Raises: CorruptFileError
    """
    said = first([place, folder], ENCODER, {"max_seq_length": (int,)})
    if said.get("max_seq_length"):
        return counted(said, "max_seq_length", place / ENCODER[0])
    found = first([place], ["tokenizer_config.json"], {}).get("model_max_length")
    known = type(found) is int and 0 < found <= MAX_SETTING  # transformers writes 10^30 where there is no limit
    return found if known else None


def check_kind(path: Path, said: dict[str, Any], expected: dict[str, str]) -> None:
    """Raises: CorruptFileError for a step that reads or writes something else than is expected, where it says so."""
    for key, value in expected.items():
        if said.get(key) not in (None, value):
            raise CorruptFileError(f"{path}: {key} is {shown(said[key])}; only {value!r} is known here")


def modules(folder: Path) -> list[tuple[str, Path]]:
    """The steps, in order: the last word of each one's type, and its folder. Raises: see `read_settings`."""
    path = folder / MODULES
    listed = read_json(path, kind=list)
    if not all(isinstance(one, dict) for one in listed):
        raise CorruptFileError(f"{path} holds no list of modules")
    found = []
    for one in listed:
        check_kinds(one, {"type": (str,), "path": (str,)}, str(path))
        kind, name = str(one.get("type")).rpartition(".")[2], one.get("path") or ""
        if not name.isprintable() or any(len(part) > MAX_PART for part in name.split("/")):
            raise CorruptFileError(f"{path}: the folder {shown(name)} is not a folder name")
        place = folder / name
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout") or (kind == "Transformer") == bool(
            found
        ):
            raise CorruptFileError(
                f"{path}: the step {shown(one.get('type'))} is not known here; expected a Transformer, then Pooling, "
                "Dense or Normalize"
            )
        if not place.resolve().is_relative_to(folder.resolve()):
            raise CorruptFileError(f"{path}: the folder {shown(one.get('path'))} lies outside")
        if kind in ("Pooling", "Dense") and not (place / "config.json").is_file():
            raise CheckpointNotFoundError(f"{path} names the folder {shown(name)}, in which there is no config.json")
        found.append((kind, place))
    if not found:
        raise CorruptFileError(f"{path} lists no modules")
    after = [kind for kind, _ in found[1:] if kind != "Dropout"]
    if after[:1] != ["Pooling"] or "Pooling" in after[1:]:
        raise CorruptFileError(
            f"{path}: the Transformer is followed by {', '.join(after) or 'nothing'}; expected Pooling, then Dense or "
            "Normalize"
        )
    return found


def first(places: Sequence[Path], names: Sequence[str], kinds: dict) -> dict[str, Any]:
    """The first JSON file of some folders and names that is there, or nothing. Raises: CorruptFileError"""
    for path in (place / name for place in places for name in names):
        if path.is_file():
            said = read_json(path)
            check_kinds(said, kinds, str(path))
            return said
    return {}


def pooling(place: Path) -> dict[str, Any]:
    """How hidden states are pooled, by a step's config.json. Raises: CorruptFileError"""
    path = place / "config.json"
    said = read_json(path)
    given = said.get("pooling_mode")
    ways = [given] if isinstance(given, str) else given
    if ways is None:
        unknown = [key for key in said if key.startswith("pooling_mode") and key not in POOLING.values() and said[key]]
        if unknown:
            raise CorruptFileError(f"{path} says {unknown[0][:80]}, a way to pool that is not known here")
        ways = [way for way, key in POOLING.items() if said.get(key)] or ["mean"]
    try:
        return {"pooling": checked_pooling(ways)} | (
            {"include_prompt": False} if said.get("include_prompt") is False else {}
        )
    except UnknownOptionError as error:
        raise CorruptFileError(f"{path}: {error}") from None


def checked_pooling(ways: str | Sequence[str]) -> list[str]:
    """Ways to pool, as a list. Raises: UnknownOptionError for one that is not known."""
    ways = list(ways) if isinstance(ways, list | tuple) else [ways]
    for way in ways:
        if not isinstance(way, str) or way not in POOLING:
            raise UnknownOptionError(f"no pooling {shown(way)}; {nearest(str(way)[:80], POOLING)}")
    if not ways:
        raise UnknownOptionError(f"pooling names no way; expected some of {', '.join(POOLING)}")
    return ways


def dense(place: Path) -> dict[str, Any]:
    """A dense layer after pooling, by its config.json. Raises: CorruptFileError"""
    path = place / "config.json"
    said = read_json(path)
    kinds = {"in_features": (int,), "out_features": (int,), "bias": (bool,), "activation_function": (str,)}
    check_kinds(said, kinds, str(path))
    check_kind(path, said, FLOW)
    activation = said.get("activation_function") or "torch.nn.modules.activation.Tanh"
    if activation not in ACTIVATIONS or said.get("use_residual") or type(said.get("out_features")) is not int:
        raise CorruptFileError(
            f"{path}: a layer of activation {shown(activation)}, out_features {shown(said.get('out_features'))}, "
            f"use_residual {shown(said.get('use_residual'))}; expected one of {', '.join(ACTIVATIONS.values())}, "
            "without residual"
        )
    bias = said.get("bias", True)
    return {
        "kind": "dense",
        "units": counted(said, "out_features", path),
        "bias": bias,
        "activation": ACTIVATIONS[activation],
    }


def read_tensors(folder: Path) -> dict[str, LazyTensor]:
    """The weights of the dense layers, by our paths: `Vector-Dense-0/kernel` ... Raises: the errors of reading."""
    ours = {}
    places = [place for kind, place in modules(folder) if kind == "Dense"]
    for number, place in enumerate(places):
        for name, tensor in locate(place).read().items():
            path = f"Vector-Dense-{number}/{'kernel' if name == 'linear.weight' else name.removeprefix('linear.')}"
            ours[path] = turned(tensor, path) if name == "linear.weight" else replace(tensor, name=path)
    return ours


def turned(tensor: LazyTensor, name: str) -> LazyTensor:
    """A matrix with its axes exchanged. Shape: (N, K) -> (K, N)"""
    return LazyTensor(name, tensor.shape[::-1], tensor.dtype, lambda: np.ascontiguousarray(tensor.read().T))


def write_settings(folder: Path, settings: dict[str, Any], tensors: dict[str, LazyTensor], size: int) -> None:
    """Writes what `read_settings` and `read_tensors` read, beside an encoder of hidden states of `size` numbers.

    Raises: ConversionError for an activation that sentence-transformers has no name for.
    """
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    ways = settings["pooling"]
    said = {"word_embedding_dimension": size, **{key: way in ways for way, key in POOLING.items()}}
    if ways != [way for way in POOLING if way in ways]:  # in another order than the older spelling joins them in
        said = {"embedding_dimension": size, "pooling_mode": ways}
    put(folder / "1_Pooling" / "config.json", said | {"include_prompt": settings.get("include_prompt", True)})
    size, dense_layers, steps = size * len(ways), 0, list(settings["steps"])
    cut = steps.pop() if steps and steps[-1]["kind"] == "truncate" else None
    for step in steps:
        place = f"{len(listed)}_{step['kind'].capitalize()}"
        listed.append((step["kind"].capitalize(), place))
        if step["kind"] == "normalize":
            put(folder / place / "config.json", {})
            continue
        if step["kind"] == "truncate":
            raise ConversionError("sentence-transformers cuts vectors at the end only; use format 'bert4x'")
        if step["activation"] not in names:
            raise ConversionError(
                f"sentence-transformers has no activation {step['activation']!r}; use format 'bert4x'"
            )
        said = {"in_features": size, "out_features": step["units"], "bias": step["bias"]}
        put(folder / place / "config.json", said | {"activation_function": names[step["activation"]]})
        prefix = f"Vector-Dense-{dense_layers}/"
        held = {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}
        theirs = [turned(held["kernel"], "linear.weight")]
        theirs += [replace(held["bias"], name="linear.bias")] if "bias" in held else []
        write_safetensors(folder / place / "model.safetensors", theirs)
        size, dense_layers = step["units"], dense_layers + 1
    put(folder / "sentence_bert_config.json", {
        "max_seq_length": settings["maxlen"], "do_lower_case": bool(settings.get("lower_case")),
    })  # fmt: skip
    put(folder / CONFIG, ({"truncate_dim": cut["units"]} if cut else {}) | {
        "prompts": settings["prompts"],
        "default_prompt_name": settings["default_prompt"] or None,
        "similarity_fn_name": settings["similarity_name"],
    })  # fmt: skip
    put(folder / MODULES, [
        {"idx": i, "name": str(i), "path": place, "type": TYPES + kind} for i, (kind, place) in enumerate(listed)
    ])  # fmt: skip


def put(path: Path, value) -> None:
    """Writes JSON into a file whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
