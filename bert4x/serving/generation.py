"""Writing on, and answering in a dialogue, as an ability of a model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import Any

from bert4x.errors import GenerationError
from bert4x.generation.batch import Prompt
from bert4x.generation.chat import prompt_of
from bert4x.generation.engine import engine_of
from bert4x.generation.grammar import Form, Guide, form_of
from bert4x.generation.options import GenerationOptions
from bert4x.generation.sampling import uniforms
from bert4x.generation.shared import Request
from bert4x.generation.text import check, encode, read_text_options, started
from bert4x.generation.window import positions_of
from bert4x.serving.abilities import WRITING
from bert4x.serving.batching import Job, Worker
from bert4x.serving.limits import Limits
from bert4x.serving.problems import Problem
from bert4x.serving.writing import Piece, Writing

ROOM = 512  # tokens of an answer in a dialogue, by default
ASKED, ANSWER = "问：", "答："  # turns for a model without a chat template


# The options of a form -> the fields of requests that ask for it.
FIELDS = {"json_schema": "response_format", "choices": "guided_choice", "regex": "guided_regex"}


class Generation:
    """Texts by a language model."""

    name, parameters = WRITING, {}

    def __init__(self, model):
        self.model, self.tokenizer, self.engine = model, model.tokenizer, engine_of(model)

    @property
    def has_template(self) -> bool:
        """Whether the model was trained for dialogue, as far as its files say."""
        return bool(getattr(self.tokenizer, "chat_templates", {}))

    def dialogue(self, messages: Sequence[dict], variables: dict[str, Any]) -> tuple[str | Prompt, dict[str, Any]]:
        """The prompt of messages, by the chat template or as turns of a text, and the options that go with it.

        Raises: TokenizerError for messages that the template refuses; Problem for variables where there is none.
        """
        if self.has_template:
            return prompt_of(self.model, messages, variables), {}
        if variables:
            raise Problem(422, "this model has no chat template, so chat_template_kwargs mean nothing; leave them out")
        before = {"system": "", "developer": "", "user": ASKED, "assistant": ANSWER}
        turns = [f"{before[one['role']]}{one['content']}\n" for one in messages]
        return "".join(turns) + ANSWER, {"stop": ["\n", ASKED]}

    def requests(
        self, prompts: Sequence[str | Prompt], given: dict[str, Any], copies: int, candidates: bool, limits: Limits
    ) -> list[Request]:
        """What is to be written: of each prompt so many texts, one after the other.

        Raises: Problem for too much of it; GenerationError.
        """
        if len(prompts) * copies > limits.texts:
            raise Problem(413, f"{len(prompts) * copies} texts in one request; at most {limits.texts} are taken")
        encoded = [encode(self.model, prompt) for prompt in prompts]
        longest = max((len(prompt.ids) for prompt in encoded), default=0)
        given = dict(given)
        if given["max_new_tokens"] is None:
            given["max_new_tokens"] = max(1, min(ROOM, self.room(longest)))
        self.check_room(longest, given["max_new_tokens"])
        options: GenerationOptions = read_text_options(self.model, given)
        form = self.form(options)
        encoded = started(self.engine, encoded, options.start_id)
        if not encoded:
            raise Problem(422, "there is no prompt; expected at least one text", param="prompt")
        check(self.engine, encoded, options)
        tokens = sum(len(prompt.ids) + options.max_new_tokens for prompt in encoded) * copies
        if tokens > limits.tokens:
            raise Problem(413, f"{tokens:,} tokens in one request; at most {limits.tokens:,} are taken")
        random = [None] * (len(encoded) * copies)
        if options.samples:
            random = uniforms(options.seed, [prompt.ids for prompt in encoded], copies, options.max_new_tokens)
        rows = [prompt for prompt in encoded for _ in range(copies)]
        guides = [form and Guide(form) for _ in rows]
        pairs = zip(rows, random, guides, strict=True)
        return [Request(row, options, own, candidates, guide) for row, own, guide in pairs]

    def form(self, options: GenerationOptions) -> Form | None:
        """What texts are to look like, where the options say. Raises: Problem for a form that is none."""
        if options.form and find_spec("llguidance") is None:
            raise Problem(501, "response_format needs llguidance, which this server has not", param="response_format")
        try:
            return form_of(self.model, options)
        except GenerationError as error:
            raise Problem(400, str(error), "invalid_form", FIELDS[options.form]) from error

    def room(self, length: int) -> int:
        """How many tokens can follow a prompt."""
        return positions_of(self.model.builder) - (1 if self.engine.encodes else length)

    def check_room(self, length: int, new: int) -> None:
        """Raises: Problem for more tokens than the model has positions."""
        if new > self.room(length):
            positions = positions_of(self.model.builder)
            raise Problem(
                422,
                f"{length} tokens of prompt and {new} new ones need more than the {positions} positions of this model",
                "context_length_exceeded",
                "max_tokens",
            )


class Stream:
    """The pieces of several texts, as the model's thread writes them.

    Raises: Problem where the queue is full.
    """

    def __init__(self, generation: Generation, worker: Worker, requests: Sequence[Request]):
        self.left, self.tokenizer = len(requests), generation.tokenizer
        self.job = Job(1, worker.limits.seconds)  # stands for all of them in the queue
        self.loop, self.pieces = asyncio.get_running_loop(), asyncio.Queue()
        worker.write(self.job, [self.writing(number, request) for number, request in enumerate(requests)])

    def writing(self, number: int, request: Request) -> Writing:
        """A text that tells this stream of its pieces."""

        def tell(piece: Piece | BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                self.loop.call_soon_threadsafe(self.pieces.put_nowait, (number, piece))

        return Writing(request, self.tokenizer, tell, lambda: self.job.over)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        """The number of a text and a piece of it, until all have ended. Raises: what one of them failed with."""
        try:
            while self.left:
                number, piece = await self.pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                self.left -= piece.finish_reason is not None
                yield number, piece
        finally:
            self.job.cancel()


def sampling_of(body) -> dict[str, Any]:
    """The options of decoding that a request of OpenAI's form asks for: the likeliest tokens, unless it says otherwise.

    Raises: GenerationError
    """
    names = ("top_p", "top_k", "min_p", "seed", "repetition_penalty", "no_repeat_ngram_size")
    given = {name: getattr(body, name) for name in names if getattr(body, name) is not None}
    if body.temperature == 0:
        others = [name for name in ("top_p", "top_k", "min_p") if given.pop(name, 1) != 1]
        if others:
            raise GenerationError(f"temperature 0 takes the likeliest token, {others[0]} draws; give one of them")
        given.pop("seed", None)
    elif body.temperature is not None:
        given["temperature"] = body.temperature
    if body.n > 1 and body.temperature != 0:
        given["do_sample"] = True
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return given | ({"stop": stop} if stop else {}) | forms_of(body)


def forms_of(body) -> dict[str, Any]:
    """The options of forms that it asks for. Raises: Problem for a format without its schema, or with one too many."""
    wanted = body.response_format
    found = {"choices": body.guided_choice, "regex": body.guided_regex}
    if wanted is not None:
        if (wanted.type == "json_schema") != (wanted.json_schema is not None):
            raise Problem(
                400,
                f"response_format is of type {wanted.type!r}, and json_schema is "
                f"{'missing' if wanted.json_schema is None else 'given'}; the type 'json_schema' has one, no other",
                param="response_format",
            )
        schemas = {"text": None, "json_object": {"type": "object"}}
        found["json_schema"] = wanted.json_schema.content if wanted.json_schema else schemas[wanted.type]
    return {name: value for name, value in found.items() if value is not None}
