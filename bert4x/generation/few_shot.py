"""Tasks by example: a language model continues a text of solved cases with the answer of an unsolved one."""

import string
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bert4x.errors import GenerationError, nearest
from bert4x.generation.prompt import plain_ids
from bert4x.generation.text import encode
from bert4x.generation.window import positions_of

Fields = Mapping[str, str | int | float]
Query = str | Fields  # the values of a case, or the one text of a template that has one field besides the answer


class FewShot:
    """Answers by continuing examples (Brown et al. 2020, arXiv 2005.14165).

    `template` shows one case, its last `{field}` being the answer: "{text} ->{label}". A prompt is the examples, each
    filled in, and the query up to its answer, joined by `separator`. An answer ends at `stop` (None: where the model
    ends). `{{` and `}}` stand for braces. `examples` may be empty.

    A prompt that leaves the model too few positions for an answer is an error; with `drop_examples=True` the oldest
    examples go instead.

    Raises: GenerationError, when it is made, for a template without a field, and for an example that lacks a field of
    the template or has another.
    """

    def __init__(
        self,
        lm,
        template: str = "{text} ->{label}",
        examples: Iterable[Fields] = (),
        separator: str = "\n",
        stop: str | Sequence[str] | None = "\n",
        drop_examples: bool = False,
    ):
        self.lm, self.template, self.separator, self.stop = lm, template, separator, stop
        self.drop_examples = drop_examples
        self._parts = parse_template(template)
        names = [name for _, name in self._parts if name is not None]
        self.answer_field = names[-1]
        if self.answer_field in names[:-1]:
            raise GenerationError(
                f"template {template!r} shows its answer {{{self.answer_field}}} before its end; "
                "the last field is what the model is to find, so it must stand there only"
            )
        self.query_fields = tuple(dict.fromkeys(names[:-1]))
        self.examples = [dict(example) if isinstance(example, Mapping) else example for example in examples]
        for number, example in enumerate(self.examples, 1):
            self._check(example, (*self.query_fields, self.answer_field), f"example {number}")
        self._shown = [_fill(self._parts, example) for example in self.examples]

    def prompt(self, query: Query | None = None, /, **fields) -> str:
        """The text that the model continues: with all the examples. The values of the query may be named or a dict."""
        return self._join(self._query(query, fields), self._shown)

    def generate(self, query: Query | Sequence[Query] | None = None, /, max_new_tokens: int = 32, **options):
        """The model's answer, stripped; of a list of queries, a list. Options are those of `model.generate`.

        With `num_return_sequences` above 1, each answer is a list.

        Raises: GenerationError
        """
        prompts, single = self._prompts(query)
        if not options.get("sliding_window"):
            prompts = [self._fitting(parts, max_new_tokens, f"max_new_tokens={max_new_tokens}") for parts in prompts]
        else:
            prompts = [self._join(*parts) for parts in prompts]
        options = {"stop": self.stop or ()} | options
        answers = self.lm.generate(prompts, max_new_tokens=max_new_tokens, **options)
        answers = [_stripped(answer) for answer in answers]
        return answers[0] if single else answers

    def scores(self, query: Query | Sequence[Query] | None, choices: Sequence[str], normalize: bool = False):
        """Log-probability of each choice as the answer; with `normalize`, its mean over the choice's tokens.

        Shape: (C,), or (P, C) for a list of P queries; float32
        Raises: GenerationError
        """
        if isinstance(choices, str) or not choices:
            raise GenerationError(f"choices={choices!r}; expected a list of texts, such as ['积极', '消极']")
        prompts, single = self._prompts(query)
        room = max(len(plain_ids(self.lm.tokenizer, choice)) for choice in choices)
        prompts = [self._fitting(parts, room, f"a choice of {room} tokens") for parts in prompts]
        scores = np.asarray(self.lm.score(prompts, choices=list(choices), normalize=normalize))
        return scores[0] if single else scores

    def choose(self, query: Query | Sequence[Query] | None, choices: Sequence[str], normalize: bool = False):
        """The choice that is the likeliest answer; of a list of queries, a list. See `scores`."""
        scores = self.scores(query, choices, normalize)
        best = [choices[index] for index in np.atleast_2d(scores).argmax(axis=1)]
        return best[0] if scores.ndim == 1 else best

    # prompts

    def _prompts(self, query) -> tuple[list[tuple[str, list[str]]], bool]:
        """For each query its text and the examples before it; and whether there is but one, not in a list."""
        single = query is None or isinstance(query, str | Mapping)
        return [(self._query(one, {}), self._shown) for one in ([query] if single else query)], single

    def _query(self, query: Query | None, fields: Fields) -> str:
        """The template filled in up to the answer."""
        if isinstance(query, str):
            open_fields = [name for name in self.query_fields if name not in fields]
            if len(open_fields) != 1:
                raise GenerationError(
                    f"one text for the fields {list(self.query_fields)} of {self.template!r}; give each by its name"
                )
            query = {open_fields[0]: query}
        values = {} if query is None else query
        if not isinstance(values, Mapping):
            raise GenerationError(f"a query is a text or a dict of fields, not {type(values).__name__}")
        values = {**values, **fields}
        self._check(values, self.query_fields, "the query")
        end = max(index for index, (_, name) in enumerate(self._parts) if name is not None)
        return _fill([*self._parts[:end], (self._parts[end][0], None)], values)

    def _check(self, values: Fields, names: Sequence[str], what: str) -> None:
        """Raises GenerationError unless exactly these fields are given, as texts or numbers."""
        if not isinstance(values, Mapping):
            raise GenerationError(f"{what} is a {type(values).__name__}; expected a dict with {', '.join(names)}")
        for name in names:
            if name not in values:
                raise GenerationError(
                    f"{what} lacks {name!r}, a field of the template {self.template!r}; it has {sorted(values)}"
                )
        for name, value in values.items():
            if name not in names:
                raise GenerationError(f"{what} has {name!r}; {nearest(str(name), names)}")
            if not isinstance(value, str | int | float):
                raise GenerationError(f"{what}: {name!r} is a {type(value).__name__}; expected a text or a number")

    def _join(self, query: str, shown: list[str]) -> str:
        return self.separator.join([*shown, query])

    def _fitting(self, parts: tuple[str, list[str]], room: int, what: str) -> str:
        """The prompt, with as many of the examples as leave `room` positions, if some may go."""
        query, shown = parts
        positions = positions_of(self.lm.builder)
        for first in range(len(shown) + 1 if self.drop_examples else 1):
            prompt = self._join(query, shown[first:])
            length = len(encode(self.lm, prompt).ids)
            if length + room <= positions:
                return prompt
        advice = "shorten the query" if self.drop_examples else "give fewer examples, or drop_examples=True"
        raise GenerationError(
            f"a prompt of {length} tokens and {what} need {length + room} positions, "
            f"but the model has {positions}; {advice}"
        )


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """The literal texts of a template, each with the field after it (None after the last).

    Raises: GenerationError for unbalanced braces, no field, and fields that are no plain names.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except (ValueError, TypeError) as error:
        raise GenerationError(f"template {template!r}: {error}; braces themselves are written {{{{ and }}}}") from error
    for _, name, format_spec, conversion in parts:
        if name is not None and (not name.isidentifier() or format_spec or conversion):
            raise GenerationError(f"template {template!r} has the field {{{name}}}; a field is a plain name: {{text}}")
    if all(name is None for _, name, _, _ in parts):
        raise GenerationError(f"template {template!r} has no field; it needs one for the answer at least: {{label}}")
    return [(literal, name) for literal, name, _, _ in parts]


def _fill(parts: list[tuple[str, str | None]], values: Fields) -> str:
    return "".join(literal + ("" if name is None else str(values[name])) for literal, name in parts)


def _stripped(answer):
    return answer.strip() if isinstance(answer, str) else [one.strip() for one in answer]
