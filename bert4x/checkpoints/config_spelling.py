"""How a config file of transformers said what others say otherwise, so that it comes back as it was."""

from typing import Any

from bert4x.config import LABELS, ConfigStyle, TransformerConfig, from_json, to_json
from bert4x.errors import ConversionError

# The key of a config for them: {key of the file: [[what we write], [what it said]]}; an empty list: no such key.
SPELLING = "hf_spelling"
ROOTLESS = "hf_names_without_root"  # the key of a config whose tensors had names without the model's own word


def remembered(config: TransformerConfig, data: dict[str, Any], style: ConfigStyle) -> TransformerConfig:
    """A config that was read from `data`, with the keys that we would write otherwise."""
    # Our own files have fields of these names, so that what means nothing to us has no room there.
    extra = {key: value for key, value in config.extra.items() if key not in config.names()}
    try:
        ours = to_json(config.replace(extra=extra), style)
    except ConversionError:  # which is for whoever writes it
        return config
    keys = (data.keys() | ours.keys()) - {*LABELS, *style.labels, "dtype"}
    others = {key: [held(ours, key), held(data, key)] for key in sorted(keys) if held(ours, key) != held(data, key)}
    if not data.keys() & {"dtype", "torch_dtype"}:  # as in files of before 2020: float32 is meant
        others["torch_dtype"] = [["float32"], []]
    return config.replace(extra=config.extra | {SPELLING: others}) if others else config


def remembering(config: TransformerConfig, key: str, ours: Any, *theirs: Any) -> TransformerConfig:
    """A config that knows what a file said under a key, if anything, where we would write something else."""
    others = config.extra.get(SPELLING)
    others = (others if isinstance(others, dict) else {}) | {key: [[ours], [*theirs]]}
    return config.replace(extra=config.extra | {SPELLING: others})


def with_corrected_pad(config: TransformerConfig, pad: int) -> TransformerConfig:
    """A config that was read from a file, with another padding id than that file says, which comes back into files."""
    if pad == config.pad_token_id:
        return config
    others = config.extra.get(SPELLING)
    said = others.get("pad_token_id") if isinstance(others, dict) else None
    said = said[-1] if said else held(config.extra, "pad_token_id") or [config.pad_token_id]
    return remembering(config, "pad_token_id", pad, *said).replace(pad_token_id=pad)


def as_remembered(data: dict[str, Any], config: TransformerConfig, style: ConfigStyle) -> dict[str, Any]:
    """What we write of a config, with the keys that still say the same as the file said them that it came from."""
    others = data.get(SPELLING)
    data = {key: value for key, value in data.items() if key not in (SPELLING, ROOTLESS)}
    if not isinstance(others, dict) or not all(is_pair_of_lists(value) for value in others.values()):
        return data
    spelled = dict(data)
    for key, (ours, theirs) in others.items():
        if held(data, key) == ours:
            spelled.pop(key, None)
            spelled.update((key, value) for value in theirs)
    # The padding id of a file may be wrong: what counts is the vocabulary, which lies beside it.
    same = [from_json(one, config.model, style, type(config)) for one in (data, spelled)]
    same = [one.replace(extra={}, pad_token_id=config.pad_token_id) for one in same]
    return spelled if same[0] == same[1] else data


def is_pair_of_lists(value) -> bool:
    """Whether a value is a list of two lists."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, list) for part in value)


def held(data: dict[str, Any], key: str) -> list:
    """The value of a key, or nothing."""
    return [data[key]] if key in data else []
