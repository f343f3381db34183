"""The endpoints of Text Embeddings Inference."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from bert4x.serving.abilities import SCORES, VECTORS
from bert4x.serving.answering import Context
from bert4x.serving.problems import Problem
from bert4x.serving.schemas import Body, Embed, Predict, Question, Rerank, Similarity, TextsFor, Tokenize

MASK = "[MASK]"


def routes(context: Context) -> APIRouter:
    """The router of these endpoints."""
    router = APIRouter(tags=["Text Embeddings Inference"])

    @router.post("/embed", summary="Vectors of texts")
    async def embed(body: Embed, request: Request):
        return JSONResponse(await vectors(context, body, request))

    @router.post("/similarity", summary="How similar sentences are to one")
    async def similarity(body: Similarity, request: Request):
        return JSONResponse(await similarities(context, body, request))

    @router.post("/rerank", summary="Texts by how well they answer a query, the best first")
    async def rerank(body: Rerank, request: Request):
        return JSONResponse(await ranking(context, body, request))

    @router.post("/predict", summary="Classes of texts")
    async def predict(body: Predict, request: Request):
        answers = await classes(context, body, request)
        return JSONResponse(answers if are_several(body.inputs) else answers[0])

    @router.post("/", summary="What the models can do with the request, in the form that Hugging Face's client reads")
    async def any_of_them(body: dict[str, Any], request: Request):
        answer, kind = which(context, body)
        return JSONResponse(await answer(context, as_body(kind, body), request))

    @router.post("/tokenize", summary="Tokens of texts, and where they stand")
    async def tokenize(body: Tokenize):
        return JSONResponse(await tokens(context, body))

    @router.get("/info", summary="What is served: models, abilities, limits")
    async def info():
        models = [one.describe() for one in context.models.served.values()]
        return JSONResponse({"models": models, "limits": vars(context.limits), "version": context.pages["version"]})

    @router.head("/health", include_in_schema=False)
    @router.get("/health", summary="200 while the server runs")
    async def health():
        return Response(status_code=200 if context.models.alive() else 503)

    @router.get("/metrics", summary="Counters, for Prometheus")
    async def metrics():
        return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def vectors(context: Context, body: Embed, request: Request) -> list[list[float]]:
    """Vectors of texts."""
    served, ability = context.models.find(body.model, VECTORS)
    size = ability.task.beginning(body.dimensions)
    texts = as_list(body.inputs)
    found, _ = await context.vectors(request, served, ability, texts, body.truncate, body.prompt_name)
    return ability.finish(found, size, body.normalize).tolist()


async def similarities(context: Context, body: Similarity, request: Request) -> list[float]:
    """How similar each sentence is to the first. Raises: Problem"""
    from bert4x.tasks.vectors import similarity

    if not body.inputs.sentences:
        raise Problem(422, "there are no sentences to compare", param="sentences")
    served, ability = context.models.find(body.model, VECTORS)
    texts, options = [body.inputs.source_sentence, *body.inputs.sentences], body.parameters
    found, _ = await context.vectors(request, served, ability, texts, options.truncate, options.prompt_name)
    found = ability.finish(found, None)
    return similarity(found[:1], found[1:], ability.task.similarity_name)[0].tolist()


async def ranking(context: Context, body: Rerank, request: Request) -> list[dict[str, Any]]:
    """The numbers of texts with their scores, the best first. Raises: Problem"""
    served, ability = context.models.find(body.model, SCORES)
    if not body.query.strip():
        raise Problem(422, "the query is empty", param="query")
    pairs = [(body.query, text) for text in body.texts]
    group = ability.raw if body.raw_scores else ability.group()
    items, lengths = await context.read(ability.read, pairs, context.limits, body.truncate)
    scores = await context.answers(request, served.worker.submit(group, items, lengths))
    found = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        text = {"text": body.texts[index]} if body.return_text else {}
        found.append({"index": index, "score": scores[index]} | text)
    return found


async def classes(context: Context, body: Predict, request: Request) -> list:
    """The labels of each input with their probabilities, the likeliest first. Raises: Problem"""
    served, ability = context.models.find(body.model, "classes")
    if body.raw_scores:
        raise Problem(422, "raw_scores are not served: scores are probabilities", param="raw_scores")
    inputs = [as_input(one) for one in (body.inputs if are_several(body.inputs) else [body.inputs])]
    return [by_score(one) for one in await context.compute(request, served, ability, inputs, body.truncate)]


def are_several(inputs) -> bool:
    """Whether these are several inputs, each a list of a text or two."""
    return isinstance(inputs, list) and (not inputs or isinstance(inputs[0], list))


async def entities(context: Context, body: TextsFor, request: Request) -> list:
    """The entities of each text; of a single text, without a list."""
    served, ability = context.models.find(body.model, "entities")
    found = await context.compute(request, served, ability, as_list(body.inputs), body.truncate, body.parameters)
    answers = [[entity_group(one) for one in answer] for answer in found]
    return answers[0] if isinstance(body.inputs, str) else answers


async def fillings(context: Context, body: TextsFor, request: Request) -> list[dict[str, Any]]:
    """The likeliest tokens for the mask of a text. Raises: Problem unless there is one text with one mask."""
    served, ability = context.models.find(body.model, "fill-mask")
    if not isinstance(body.inputs, str) or body.inputs.count(MASK) != 1:
        raise Problem(422, f"expected one text with {MASK} once; /tasks/fill-mask takes more", param="inputs")
    ((found,),) = await context.compute(request, served, ability, [body.inputs], body.truncate, body.parameters)
    return [filled(one, served.tokenizer) for one in found]


async def reading(context: Context, body: Question, request: Request) -> dict[str, Any]:
    """The answer to a question in a passage; an empty one where there is none."""
    served, ability = context.models.find(body.model, "reading")
    asked = body.inputs.question, body.inputs.context
    (found,) = await context.compute(request, served, ability, [asked], body.truncate)
    if found is None:
        return {"answer": "", "score": 0.0, "start": 0, "end": 0}
    return {"answer": found.text, "score": found.score, "start": found.start, "end": found.end}


async def tokens(context: Context, body: Tokenize) -> list[list[dict[str, Any]]]:
    """The tokens of each text. Raises: Problem"""
    served, _ = context.models.find(body.model, [a for one in context.models.served.values() for a in one.abilities])
    texts = as_list(body.inputs)
    if len(texts) > context.limits.texts:
        raise Problem(413, f"{len(texts)} texts in one request; at most {context.limits.texts} are taken")
    return await context.read(lambda: [tokens_of(served.tokenizer, text, body.add_special_tokens) for text in texts])


def which(context: Context, body: dict[str, Any]) -> tuple[Callable, type[Body]]:
    """What answers a request that names no endpoint, and the form of its body."""
    inputs, able = body.get("inputs"), {a for one in context.models.served.values() for a in one.abilities}
    if "query" in body:
        return ranking, Rerank
    if isinstance(inputs, dict):
        return (reading, Question) if "context" in inputs else (similarities, Similarity)
    if VECTORS in able and "parameters" not in body:  # that client sends them, if empty, for all but vectors
        return vectors, Embed
    if "fill-mask" in able and MASK in str(inputs):
        return fillings, TextsFor
    if "entities" in able and "classes" not in able:
        return entities, TextsFor
    return classes, Predict


def as_list(texts: str | list[str]) -> list[str]:
    """Texts, of which one may be given alone."""
    return [texts] if isinstance(texts, str) else texts


def as_body(kind: type[Body], given: dict[str, Any]) -> Body:
    """A request of some kind. Raises: RequestValidationError, as the framework does."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from None


def as_input(one) -> str | tuple[str, str]:
    """A text, or a pair of texts. Raises: Problem"""
    if isinstance(one, str):
        return one
    if not 1 <= len(one) <= 2:
        raise Problem(422, f"an input has {len(one)} texts; expected one, or two", param="inputs")
    return one[0] if len(one) == 1 else tuple(one)


def by_score(answer) -> list[dict[str, Any]]:
    """All labels of an answer, the likeliest first; of several labels, those that are given."""
    if isinstance(answer, list):
        return [{"label": one.label, "score": one.probability} for one in answer]
    named = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    return [{"label": label, "score": score} for label, score in named]


def entity_group(one) -> dict[str, Any]:
    """An entity as Hugging Face's client reads it."""
    return {"entity_group": one.label, "score": one.score, "word": one.text, "start": one.start, "end": one.end}


def filled(one, tokenizer) -> dict[str, Any]:
    """A token for a mask as Hugging Face's client reads it."""
    token = tokenizer.tokens_to_ids([one.token])[0]
    return {"score": one.probability, "token": token, "token_str": one.token, "sequence": one.text}


def tokens_of(tokenizer, text: str, specials: bool) -> list[dict[str, Any]]:
    """The tokens of a text; where they stand, if the tokenizer tells."""
    if hasattr(tokenizer, "encode_with_offsets"):
        ids, offsets = tokenizer.encode_with_offsets(text)
    else:
        ids, offsets = tokenizer.encode(text)[0], None
    first, last = int(tokenizer.start_id is not None), len(ids) - int(tokenizer.end_id is not None)
    found = []
    for number, token_id in enumerate(ids):
        special = not first <= number < last
        start, stop = (None, None) if offsets is None or special else offsets[number]
        said = {"id": token_id, "text": tokenizer.id_to_token(token_id), "special": special}
        if specials or not special:
            found.append(said | {"start": start, "stop": stop})
    return found
