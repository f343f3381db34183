"""Rotary positions, and how they are scaled to texts longer than those in training: the fields of a config that say it,
and how a family is built by them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from bert4x import layers as L
from bert4x.config import LARGEST, TransformerConfig
from bert4x.errors import ConfigError
from bert4x.json_files import shown

TRAINED = "original_max_position_embeddings"
# What `rope_scaling` may be: the class in `bert4x.layers`, and our name of each of its numbers; a length is that in
# training, by default `max_position`.
SCALINGS = {
    "linear": ("LinearRotary", {"factor": "factor"}),
    "dynamic": ("DynamicRotary", {"factor": "factor", TRAINED: "trained_length"}),
    "yarn": (
        "YarnRotary",
        {name: name for name in ("factor", "beta_fast", "beta_slow", "attention_factor")} | {TRAINED: "trained_length"},
    ),
    "llama3": (
        "Llama3Rotary",
        {"factor": "factor", TRAINED: "trained_length"}
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
        raise ConfigError(
            f"config says rope_scaling = {shown(given)}; expected an object (a name alone is for bert4x.load(..., "
            "max_position=...), where the weights say the length in training)"
        )
    held = {key: value for key, value in given.items() if value is not None and key not in ("rope_theta", "type")}
    kind = held.setdefault("rope_type", given.get("type", "default"))
    if kind == "default" and len(held) == 1:
        return None
    if not isinstance(kind, str) or kind not in SCALINGS:
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


def scaled_to(given: Any, trained: int, length: int) -> dict[str, Any] | None:
    """A `rope_scaling` for texts of this length, of a model that was trained with `trained` positions. A name alone is
    that scaling by the factor between the two.

    Raises: ConfigError for what is not computed here, or a name where there is nothing to scale to.
    """
    if isinstance(given, str):
        if length <= trained:
            raise ConfigError(
                f"rope_scaling = {given!r} for {length} positions of a model that was trained with {trained}; expected "
                "a larger max_position, or an object with a factor"
            )
        given = {"rope_type": given, "factor": length / trained}
    scaling = read_scaling(given)
    if scaling is None or length == trained or TRAINED not in SCALINGS[scaling["rope_type"]][1]:
        return scaling
    return scaling | {TRAINED: scaling.get(TRAINED, trained)}


def read_parameters(said: Any) -> dict[str, Any]:
    """The fields that transformers' `rope_parameters` say."""
    theta = {"rope_theta": said["rope_theta"]} if isinstance(said, dict) and "rope_theta" in said else {}
    return {"rope_scaling": said} | theta


# Read, not written: of styles whose files say the two fields by our names.
ROPE_PARAMETERS = {"rope_parameters": (read_parameters, lambda config: None)}


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(TransformerConfig):
    """`rope_scaling` is {"rope_type": one of SCALINGS, "factor": ...}. `log_n` is a length in training, by which scores
    grow with the logarithm of the length (`bert4x.layers.entropy`), with `log_n_beyond` for longer texts only.
    """

    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    log_n: int | None = None
    log_n_beyond: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("rope_theta")
        if self.log_n is None and self.log_n_beyond:
            raise ConfigError("config says log_n_beyond without log_n, the length in training")
        if self.log_n is not None and (type(self.log_n) is not int or not 2 <= self.log_n <= LARGEST):
            raise ConfigError(f"config says log_n = {shown(self.log_n)}; expected a whole number from 2: the length")
        object.__setattr__(self, "rope_scaling", read_scaling(self.rope_scaling))

    def replace(self, **changes):
        """A copy with some fields changed. With another `max_position`, the length in training stays what it was."""
        given = changes.get("rope_scaling", self.rope_scaling)
        if given is not None:
            trained = (self.rope_scaling or {}).get(TRAINED, self.max_position)
            changes["rope_scaling"] = scaled_to(given, trained, changes.get("max_position", self.max_position))
        return super().replace(**changes)


class Rotated:
    """Mix-in of families whose config is a `RotaryConfig`: their positions and attention are as it says."""

    config_class: ClassVar[type[TransformerConfig]] = RotaryConfig
    interleaved: ClassVar[bool] = False  # which features are a pair; see `bert4x.layers.Rotary`

    def positions(self):
        scaling = dict(self.config.rope_scaling or {})
        name, numbers = SCALINGS.get(scaling.pop("rope_type", None), ("Rotary", {}))
        given = {"trained_length": self.config.max_position} if TRAINED in numbers else {}
        given |= {numbers[key]: value for key, value in scaling.items()}
        return getattr(L, name)(theta=self.config.rope_theta, interleaved=self.interleaved, **given)

    def attention_options(self):
        own = {"log_n": self.config.log_n, "log_n_beyond": self.config.log_n_beyond}
        return super().attention_options() | own
