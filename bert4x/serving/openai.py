"""OpenAI's endpoints: models, completions, chat, embeddings."""

import base64
import functools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from bert4x.serving.abilities import VECTORS, WRITING
from bert4x.serving.answering import Context, events
from bert4x.serving.generation import Stream, forms_of, sampling_of
from bert4x.serving.problems import Problem
from bert4x.serving.schemas import Chat, Completion, Embeddings
from bert4x.serving.transcript import ChatForm, CompletionForm, Text


def routes(context: Context) -> APIRouter:
    """The router of these endpoints."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.get("/models", summary="The models, and what each can do")
    async def models():
        return JSONResponse({"object": "list", "data": [described(one) for one in context.models.served.values()]})

    @router.get("/models/{name:path}", summary="One of the models")
    async def model(name: str):
        if name not in context.models.served:
            raise Problem(404, f"no model {name!r:.80}", "model_not_found", "model")
        return JSONResponse(described(context.models.served[name]))

    @router.post("/embeddings", summary="Vectors of texts")
    async def embeddings(body: Embeddings, request: Request):
        served, ability = context.models.find(body.model, VECTORS)
        texts = [body.input] if isinstance(body.input, str) else body.input
        size = ability.task.beginning(body.dimensions)
        found, lengths = await context.vectors(request, served, ability, texts, body.truncate, body.prompt_name)
        vectors = ability.finish(found, size)
        data = [
            {"object": "embedding", "index": i, "embedding": encoded(vector, body.encoding_format)}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    @router.post("/completions", summary="Texts that continue a prompt")
    async def completions(body: Completion, request: Request):
        served, ability = context.models.find(body.model, WRITING)
        given = sampling_of(body) | {"max_new_tokens": body.max_tokens}
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if body.echo and body.logprobs is not None:
            raise Problem(422, "log-probabilities of a prompt are not served; echo, or give logprobs", param="echo")
        form = CompletionForm(ability.tokenizer, body.logprobs, [p for p in prompts for _ in range(body.n * body.echo)])
        return await write(context, request, served, ability, prompts, given, body, form)

    @router.post("/chat/completions", summary="The answer in a dialogue")
    async def chat(body: Chat, request: Request):
        served, ability = context.models.find(body.model, WRITING)
        if body.top_logprobs and not body.logprobs:
            raise Problem(422, "top_logprobs are given with logprobs: true only", param="top_logprobs")
        variables = body.chat_template_kwargs.model_dump() if body.chat_template_kwargs else {}
        prompt, options = await context.read(ability.dialogue, [one.plain() for one in body.messages], variables)
        most = body.max_completion_tokens or body.max_tokens
        asked = sampling_of(body)
        given = ({} if forms_of(body) else options) | asked | {"max_new_tokens": most}
        form = ChatForm(ability.tokenizer, (body.top_logprobs or 0) if body.logprobs else None)
        return await write(context, request, served, ability, [prompt], given, body, form)

    return router


def described(served) -> dict[str, Any]:
    """A model in OpenAI's list, with what it can do."""
    base = {"id": served.name, "object": "model", "created": served.created, "owned_by": "bert4x"}
    return base | served.describe()


def encoded(vector: np.ndarray, encoding: str) -> list[float] | str:
    """A vector as numbers, or as base64 of its float32, lowest byte first. Shape: (D,)"""
    return vector.tolist() if encoding == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()


async def write(context: Context, request: Request, served, ability, prompts: Sequence, given: dict, body, form):
    """The texts that continue prompts, `body.n` of each: at the end, or as they come. Raises: Problem"""
    if body.stream_options is not None and not body.stream:
        raise Problem(422, "stream_options are those of a stream: true", param="stream_options")
    wanted = bool(form.candidates)
    requests = await context.read(ability.requests, prompts, given, body.n, wanted, context.limits)
    stream = Stream(ability, served.worker, requests)
    about = {"id": f"{form.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}
    texts = [Text() for _ in requests]
    count = sum(len(one.prompt.ids) for one in requests[:: body.n])
    pieces = context.streamed(request, stream)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        usage = functools.partial(used, context, served, count, texts)
        return events(chunks(pieces, texts, about | {"object": form.chunk}, form, usage, with_usage))
    async for number, piece in pieces:
        texts[number].add(piece)
    choices = [form.choice(number, text) for number, text in enumerate(texts)]
    usage = used(context, served, count, texts)
    return JSONResponse(about | {"object": form.object, "choices": choices, "usage": usage})


async def chunks(pieces, texts: Sequence[Text], about: dict, form, usage: Callable, with_usage: bool) -> AsyncIterator:
    """The chunks of a stream; at the end what was used, where it is asked for."""
    try:
        for number in range(len(texts)):
            for choice in form.beginning(number):
                yield about | {"choices": [choice]}
        async for number, piece in pieces:
            before = texts[number].length
            texts[number].add(piece)
            if piece.text or piece.finish_reason or form.candidates is not None:
                yield about | {"choices": [form.delta(number, piece, before)]}
    finally:
        total = usage()  # counted too when the client has gone
    if with_usage:
        yield about | {"choices": [], "usage": total}


def used(context: Context, served, prompt_tokens: int, texts: Sequence[Text]) -> dict[str, int]:
    """What was read and written, counted for the metrics."""
    new = sum(len(text.pieces) for text in texts)
    context.metrics.written.labels(served.name).inc(new)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": new, "total_tokens": prompt_tokens + new}
