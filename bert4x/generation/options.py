"""What a user can ask of decoding, checked before anything is computed."""

import dataclasses
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bert4x.errors import GenerationError, nearest


@dataclass(frozen=True)
class GenerationOptions:
    """How to decode. Sampling is on with `do_sample=True`, or when any of `temperature`, `top_k`, `top_p`, `min_p` and
    `seed` is given, or several sequences are wanted without beams; otherwise the likeliest token is taken.

    The order of the rules is that of transformers: repetition penalty, n-grams, suppressed, minimum length and forced
    tokens, then temperature, top-k, top-p, min-p.

    Raises: GenerationError
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0  # no stop token before
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None  # only the k likeliest tokens
    top_p: float | None = None  # the fewest tokens that together have this probability (Holtzman et al. 2019)
    min_p: float | None = None  # tokens at least this likely, relative to the likeliest (Nguyen et al. 2024)
    repetition_penalty: float = 1.0  # what was seen becomes less likely (Keskar et al. 2019, section 4.1)
    no_repeat_ngram_size: int = 0  # no n-gram of the prompt or the output comes twice (Paulus et al. 2017)
    suppress_ids: Sequence[int] = ()  # never
    forced_ids: dict[int, int] = field(default_factory=dict)  # new token number (from 0; -1 is the last) -> its id
    stop_ids: Sequence[int] | int | None = None
    stop: Sequence[str] | str = ()  # strings that end the text, themselves left out
    # Drafts, see `bert4x.generation.lookup`: so many tokens copied from the text before; or by a smaller model ...
    prompt_lookup: int = 0
    drafter: Any = None
    draft_tokens: int | None = None  # ... which writes so many, by default 4
    # The text keeps to a form (`bert4x.generation.grammar`): one of these, ...
    choices: Sequence[str] = ()
    regex: str | None = None  # ... what such a regular expression matches, ...
    json_schema: dict | str | bool | None = None  # ... or JSON of a schema, without spaces
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0  # beams are compared by log p / length ** penalty
    early_stopping: bool | str = False  # as in transformers: True, False, or "never"
    seed: int | None = None
    start_id: int | None = None  # the first token of an encoder-decoder's target, or of a GPT2's text; not returned
    pad_id: int | None = None  # of short prompts, on either side, and after the end of short outputs
    sliding_window: bool = False  # forget the oldest tokens when the model has no more positions

    def __post_init__(self):
        for name, (kind, valid, expected) in CHECKS.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not valid(value):
                whole = "a whole number, " if kind is INTEGER and "id" not in expected else ""
                raise GenerationError(f"{name} is {value!r}; expected {whole}{expected}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise GenerationError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(map(repr, choices))}")
        if self.min_new_tokens > self.max_new_tokens:
            raise GenerationError(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise GenerationError(
                f"num_return_sequences {self.num_return_sequences} is above num_beams {self.num_beams}: "
                "a beam is returned at most once"
            )
        asked = [name for name in SAMPLING if getattr(self, name) is not None]
        if self.num_beams > 1 and (self.do_sample or asked):
            raise GenerationError(f"{asked[0] if asked else 'do_sample'} samples, num_beams searches; give one of them")
        if self.do_sample is False and asked:
            raise GenerationError(f"{asked[0]} samples, but do_sample is False")
        if self.num_beams > 1 and self.sliding_window:
            raise GenerationError("a sliding window forgets what beams are compared by; sample, or take one beam")
        forced, last = self.forced_ids, self.max_new_tokens - 1
        places = forced if isinstance(forced, dict) else [None]
        if not all(isinstance(at, numbers.Integral) and -1 <= at <= last for at in places):
            raise GenerationError(
                f"forced_ids is {forced!r}; expected the numbers of new tokens, from 0 to max_new_tokens - 1 = {last} "
                "or -1 for the last, each with its id, such as {0: 101}"
            )
        stop = as_tuple("stop", self.stop, str)
        if not all(isinstance(string, str) and string for string in stop):
            raise GenerationError(f"stop is {self.stop!r}; expected strings that are not empty")
        object.__setattr__(self, "stop", stop)
        if self.stop_ids is not None:
            object.__setattr__(self, "stop_ids", as_tuple("stop_ids", self.stop_ids, numbers.Integral))
        object.__setattr__(self, "suppress_ids", as_tuple("suppress_ids", self.suppress_ids, numbers.Integral))
        if -1 in forced and forced.get(last, forced[-1]) != forced[-1]:
            raise GenerationError(
                f"forced_ids is {forced!r}; the last new token, -1, is also number {last}: give one id"
            )
        object.__setattr__(self, "forced_ids", {last if at == -1 else at: token for at, token in forced.items()})
        if self.drafter is not None and self.prompt_lookup:
            raise GenerationError("drafter and prompt_lookup are two ways to make drafts; give one of them")
        if self.draft_tokens is not None and self.drafter is None:
            raise GenerationError("draft_tokens are those of a drafter, and there is none; give drafter=another model")
        self.check_rules(last)
        self.check_form()

    @property
    def form(self) -> str | None:
        """The name of the option that says which form a text keeps to."""
        given = {"choices": bool(self.choices), "regex": self.regex is not None}
        given["json_schema"] = self.json_schema is not None
        return next((name for name, is_given in given.items() if is_given), None)

    @property
    def drafts(self) -> str | None:
        """The name of the option that says where drafts come from."""
        return "drafter" if self.drafter is not None else "prompt_lookup" if self.prompt_lookup else None

    def check_form(self) -> None:
        """Raises: GenerationError for a form that is none, for two, and for what does not go with one."""
        if isinstance(self.choices, list) and not self.choices:
            raise GenerationError("choices has no text; expected those of which one is to be written")
        object.__setattr__(self, "choices", as_tuple("choices", self.choices, str))
        if not all(isinstance(one, str) and one for one in self.choices):
            raise GenerationError(f"choices is {self.choices!r:.80}; expected texts that are not empty")
        if self.regex is not None and not isinstance(self.regex, str):
            raise GenerationError(f"regex is {self.regex!r:.80}; expected a regular expression as a str")
        if sum((bool(self.choices), self.regex is not None, self.json_schema is not None)) > 1:
            raise GenerationError("choices, regex and json_schema are three ways to say a form; give one of them")
        others = {"num_beams": self.num_beams > 1, "sliding_window": self.sliding_window, "stop": bool(self.stop)}
        others |= {"forced_ids": bool(self.forced_ids), "min_new_tokens": self.min_new_tokens > 0}
        others |= {f"{self.drafts}": bool(self.drafts)}
        if self.form and (wrong := [name for name, given in others.items() if given]):
            raise GenerationError(f"{wrong[0]} does not go with {self.form}, which says itself what comes, and its end")

    def check_rules(self, last: int) -> None:
        """Raises: GenerationError for rules that contradict each other."""
        for at, token_id in self.forced_ids.items():
            if token_id in self.suppress_ids:
                raise GenerationError(f"forced_ids wants token {token_id} at {at}, suppress_ids forbids it; drop one")
            if token_id in (self.stop_ids or ()) and at < min(self.min_new_tokens, last):
                raise GenerationError(
                    f"forced_ids ends the text by the stop token {token_id} at {at}, but it is to go on up to "
                    f"{self.min_new_tokens} (min_new_tokens, or a later place of forced_ids)"
                )

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        if self.do_sample is not None:
            return self.do_sample
        given = any(getattr(self, name) is not None for name in SAMPLING)
        return self.num_beams == 1 and (given or self.num_return_sequences > 1)

    def check_ids(self, vocab_size: int) -> None:
        """Raises: GenerationError for a token id outside the vocabulary."""
        named = {
            "stop_ids": self.stop_ids or (),
            "suppress_ids": self.suppress_ids,
            "forced_ids": self.forced_ids.values(),
            "start_id": () if self.start_id is None else (self.start_id,),
        }
        for name, ids in named.items():
            for token_id in ids:
                inside = isinstance(token_id, numbers.Integral) and 0 <= token_id < vocab_size
                if not inside:
                    raise GenerationError(f"{name} has {token_id!r}; expected ids from 0 to {vocab_size - 1}")
        if len(set(self.suppress_ids)) >= vocab_size:
            raise GenerationError("suppress_ids leaves no token to choose from")


SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
MAX_BEAMS, MAX_SEQUENCES = 4096, 10_000  # of a prompt: each takes a row of scores as long as the vocabulary
INTEGER, NUMBER = numbers.Integral, numbers.Real
CHECKS = {
    "max_new_tokens": (INTEGER, lambda v: v >= 1, "at least 1"),
    "min_new_tokens": (INTEGER, lambda v: v >= 0, "at least 0"),
    "temperature": (NUMBER, lambda v: 0 < v < float("inf"), "a number above 0; for the likeliest token, leave it out"),
    "top_k": (INTEGER, lambda v: 1 <= v < 2**31, "at least 1, below 2^31"),
    "top_p": (NUMBER, lambda v: 0 < v <= 1, "a number above 0 and at most 1"),
    "min_p": (NUMBER, lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "repetition_penalty": (NUMBER, lambda v: 0 < v < float("inf"), "a number above 0; 1 is none"),
    "prompt_lookup": (INTEGER, lambda v: 0 <= v <= 64, "from 0 to 64; 0 is none"),
    "draft_tokens": (INTEGER, lambda v: 1 <= v <= 64, "from 1 to 64"),
    "no_repeat_ngram_size": (INTEGER, lambda v: 0 <= v < 2**31, "at least 0, below 2^31; 0 is none"),
    "num_beams": (INTEGER, lambda v: 1 <= v <= MAX_BEAMS, f"at least 1, at most {MAX_BEAMS}"),
    "num_return_sequences": (INTEGER, lambda v: 1 <= v <= MAX_SEQUENCES, f"at least 1, at most {MAX_SEQUENCES}"),
    "length_penalty": (NUMBER, lambda v: abs(v) < float("inf"), "a finite number"),
    "seed": (INTEGER, lambda v: v >= 0, "at least 0"),
    "start_id": (INTEGER, lambda v: v >= 0, "an id"),
    "pad_id": (INTEGER, lambda v: v >= 0, "an id"),
}
OPTIONAL = ("draft_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "start_id", "pad_id")
CHOICES = {
    "do_sample": (True, False, None),
    "early_stopping": (True, False, "never"),
    "sliding_window": (True, False),
}
DEFAULTS = {f.name: f.default for f in dataclasses.fields(GenerationOptions)}
NAMES = tuple(DEFAULTS)


def as_tuple(name: str, value, one: type) -> tuple:
    """What may be given alone or as a list. Raises: GenerationError."""
    if isinstance(value, one):
        return (value,)
    try:
        return tuple(value)
    except TypeError as error:
        raise GenerationError(f"{name} is {value!r}; expected a list") from error


def read_options(given: dict) -> GenerationOptions:
    """The options of a call. A text with forced tokens does not end before them, but for the last, given as -1.

    Raises: GenerationError for a name that is none, for values that cannot be, and for options that would do nothing.
    """
    for name in given:
        if name not in NAMES:
            raise GenerationError(f"no option {name!r}; {nearest(name, NAMES)}")
    options = GenerationOptions(**given)
    if options.num_return_sequences > 1 and options.num_beams == 1 and not options.samples:
        raise GenerationError(
            f"do_sample=False writes one text, not num_return_sequences = {options.num_return_sequences}; sample, "
            "or give num_beams"
        )
    of_beams = [name for name in ("length_penalty", "early_stopping") if given.get(name) not in (None, DEFAULTS[name])]
    if of_beams and options.num_beams == 1:
        raise GenerationError(f"{of_beams[0]} compares beams, and there is one; give num_beams, or leave it out")
    least = max(given.get("forced_ids") or {}, default=0)
    return dataclasses.replace(options, min_new_tokens=least) if least > options.min_new_tokens else options
