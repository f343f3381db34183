"""How config files say that rotary positions are scaled to texts longer than those in training."""

from typing import Any

from bert4x import layers as L
from bert4x.errors import ConfigError
from bert4x.json_files import shown

# What `rope_scaling` may be: the class in `bert4x.layers`, and our name of each of its numbers; a length is that in
# training, by default `max_position`.
SCALINGS = {
    "linear": ("LinearRotary", {"factor": "factor"}),
    "dynamic": ("DynamicRotary", {"factor": "factor", "original_max_position_embeddings": "trained_length"}),
    "yarn": (
        "YarnRotary",
        {name: name for name in ("factor", "beta_fast", "beta_slow", "attention_factor")}
        | {"original_max_position_embeddings": "trained_length"},
    ),
    "llama3": (
        "Llama3Rotary",
        {"factor": "factor", "original_max_position_embeddings": "trained_length"}
        | {"low_freq_factor": "low_turns", "high_freq_factor": "high_turns"},
    ),
}


def read_scaling(given: Any) -> dict[str, Any] | None:
    """`rope_scaling`, or the newer `rope_parameters` that have the base as well, without the base; None for none.

    Raises: ConfigError for what is not computed here.
    """
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"config says rope_scaling = {shown(given)}; expected an object")
    held = {key: value for key, value in given.items() if value is not None and key not in ("rope_theta", "type")}
    kind = held.setdefault("rope_type", given.get("type", "default"))
    if kind == "default" and len(held) == 1:
        return None
    if kind not in SCALINGS:
        raise ConfigError(f"config says rope_scaling = {shown(given)}; expected rope_type {', '.join(SCALINGS)}")
    known = SCALINGS[kind][1]
    for name, value in held.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31
        if name != "rope_type" and (name not in known or not number):
            raise ConfigError(
                f"config says {name} = {shown(value)} in rope_scaling; expected of {kind} positive numbers for "
                f"{', '.join(known)}, and nothing else"
            )
    if "factor" not in held:
        raise ConfigError(f"config says rope_scaling = {shown(given)}, without a factor")
    return held


def rotary(theta: float, scaling: dict[str, Any] | None, max_position: int) -> "L.Rotary":
    """The positions of a config with this `rope_scaling`, as `read_scaling` gives it."""
    scaling = dict(scaling or {})
    name, numbers = SCALINGS.get(scaling.pop("rope_type", None), ("Rotary", {}))
    given = {"trained_length": max_position} if "trained_length" in numbers.values() else {}
    given |= {numbers[key]: value for key, value in scaling.items()}
    return getattr(L, name)(theta=theta, **given)
