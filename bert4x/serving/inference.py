"""The Open Inference Protocol, version 2, for tasks and vectors: texts go in as BYTES, answers come out as tensors."""

import json
import math
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from bert4x.serving.abilities import VECTORS, WRITING
from bert4x.serving.answering import Context
from bert4x.serving.models import Served
from bert4x.serving.problems import Problem
from bert4x.serving.schemas import Body, Nothing, Text
from bert4x.version import __version__


class Tensor(Body):
    """An input of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Text]
    parameters: Nothing | None = None


class OutputOptions(Body):
    """Of an output. Clients of Triton ask for bytes in the place of JSON, and read both."""

    binary_data: bool = False


class Output(Body):
    """An output that is wanted."""

    name: str
    parameters: OutputOptions | None = None


class Infer(Body):
    """A request of the Open Inference Protocol, version 2."""

    inputs: list[Tensor]
    outputs: list[Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


OURS = ("task", "truncate", "binary_data_output")  # parameters that are none of a task; the last as `binary_data`


def routes(context: Context) -> APIRouter:
    """The router of these endpoints."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", summary="The server")
    async def server():
        return JSONResponse({"name": "bert4x", "version": __version__, "extensions": []})

    @router.head("/health/live", include_in_schema=False)
    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/live", summary="200 while the server runs")
    @router.get("/health/ready", summary="200 while all models are ready")
    async def ready():
        return Response(status_code=200 if context.models.alive() else 503)

    @router.get("/models/{name:path}/ready", summary="200 while a model is ready")
    @router.get("/models/{name:path}/versions/1/ready", include_in_schema=False)
    async def model_ready(name: str):
        return Response(status_code=200 if found(context, name).worker.is_alive() else 503)

    @router.get("/models/{name:path}", summary="Inputs and outputs of a model")
    @router.get("/models/{name:path}/versions/1", include_in_schema=False)
    async def model(name: str):
        return JSONResponse(described(found(context, name)))

    @router.post("/models/{name:path}/infer", summary="Answers to texts")
    @router.post("/models/{name:path}/versions/1/infer", include_in_schema=False)
    async def infer(name: str, body: Infer, request: Request):
        outputs = await answered(context, found(context, name), body, request)
        if body.outputs is not None:
            outputs = chosen(outputs, [one.name for one in body.outputs])
        named = {"model_name": name, "model_version": "1", "outputs": outputs}
        return JSONResponse(named | ({"id": body.id} if body.id is not None else {}))

    return router


def found(context: Context, name: str) -> Served:
    """The model of a name. Raises: Problem"""
    if name not in context.models.served:
        raise Problem(404, f"no model {name!r:.80}", "model_not_found", "model")
    return context.models.served[name]


def described(served: Served) -> dict[str, Any]:
    """A model's inputs and outputs. Raises: Problem for one that only writes texts."""
    tasks = tasks_of(served)
    if not tasks:
        raise Problem(404, f"{served.name!r} only writes texts, for which this protocol has no form", param="model")
    inputs = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names_of(served.abilities[tasks[0]])]
    about = {"name": served.name, "versions": ["1"], "platform": "bert4x"}
    return about | {"inputs": inputs, "outputs": outputs_of(tasks[0]), "parameters": {"task": tasks[0], "tasks": tasks}}


async def answered(context: Context, served: Served, body: Infer, request: Request) -> list[dict[str, Any]]:
    """The outputs for the inputs of a request. Raises: Problem"""
    task = task_of(served, body.parameters)
    ability = served.abilities[task]
    inputs = texts_of(body.inputs, names_of(ability), ability.name == "classes")
    given = {key: value for key, value in body.parameters.items() if key not in OURS}
    truncate = parameter(body.parameters, "truncate", bool) or False
    if task != VECTORS:
        answers = await context.compute(request, served, ability, inputs, truncate, given)
        return outputs_for(ability, inputs, answers)
    given.pop("prompt_name", None)
    ability.group(given)  # raises for parameters that it does not take
    prompt = parameter(body.parameters, "prompt_name", str)
    vectors, _ = await context.vectors(request, served, ability, inputs, truncate, prompt)
    return [tensor("embedding", "FP32", ability.finish(vectors, None))]


def parameter(given: dict[str, Any], name: str, kind: type):
    """A parameter that may be missing. Raises: Problem for one of another type."""
    value = given.get(name)
    if value is not None and type(value) is not kind:
        raise Problem(422, f"{name} is {value!r:.40}; expected {kind.__name__}", param=f"parameters.{name}")
    return value


def tasks_of(served) -> list[str]:
    """The abilities that this protocol has a form for."""
    return [name for name in served.abilities if name != WRITING]


def task_of(served, parameters: dict[str, Any]) -> str:
    """Which ability is asked for, by default the first. Raises: Problem"""
    able = tasks_of(served)
    task = parameters.get("task", able[0] if able else None)
    if task not in able:
        raise Problem(422, f"{served.name} has no task {task!r:.80}; expected one of {able}", param="parameters.task")
    return task


def names_of(ability) -> tuple[str, ...]:
    """The names of its inputs."""
    return ability.pairs or (("query", "text") if ability.name == "rerank" else ("text",))


def outputs_of(task: str) -> list[dict[str, Any]]:
    """What a task gives."""
    numbers = {"name": "score", "datatype": "FP32", "shape": [-1]}
    return {
        VECTORS: [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}],
        "rerank": [numbers],
        "classes": [{"name": "label", "datatype": "BYTES", "shape": [-1]}, numbers | {"name": "probability"}],
    }.get(task, [{"name": "answer", "datatype": "BYTES", "shape": [-1]}])


def texts_of(tensors: list[Tensor], names: tuple[str, ...], maybe_pairs: bool) -> list:
    """The inputs of a task: texts, or pairs of them, one from each tensor. Raises: Problem"""
    given = {one.name: one for one in tensors}
    names = ("text", "pair") if maybe_pairs and "pair" in given else names
    if sorted(given) != sorted(names) or len(tensors) != len(names):
        raise Problem(422, f"inputs {[one.name for one in tensors]}; expected {list(names)}", param="inputs")
    columns = []
    for name in names:
        one = given[name]
        if one.datatype != "BYTES" or not all(isinstance(text, str) for text in one.data):
            raise Problem(422, f"input {name!r} is {one.datatype}; expected texts, of datatype BYTES", param="inputs")
        if len(one.shape) not in (1, 2) or math.prod(one.shape) != len(one.data) or one.shape[1:] not in ([], [1]):
            raise Problem(
                422, f"input {name!r}: shape {one.shape}, {len(one.data)} texts; expected [N]", param="inputs"
            )
        columns.append(one.data)
    if len({len(column) for column in columns}) > 1:
        raise Problem(422, f"inputs of {[len(column) for column in columns]} texts; expected as many", param="inputs")
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def outputs_for(ability, inputs, answers) -> list[dict[str, Any]]:
    """The outputs for the answers of a task."""
    if ability.name == "rerank":
        return [tensor("score", "FP32", np.asarray(answers, "float32"))]
    if ability.name == "classes" and not isinstance(answers[0], list):
        labels, sure = [one.label for one in answers], np.array([one.probability for one in answers])
        return [tensor("label", "BYTES", labels), tensor("probability", "FP32", sure)]
    said = [ability.record(given, answer) for given, answer in zip(inputs, answers, strict=True)]
    return [tensor("answer", "BYTES", [json.dumps(one, ensure_ascii=False) for one in said])]


def chosen(outputs: list[dict], names: list[str]) -> list[dict]:
    """Those of some names. Raises: Problem"""
    known = {one["name"]: one for one in outputs}
    if unknown := [name for name in names if name not in known]:
        raise Problem(422, f"no output {unknown[0]!r:.80}; expected one of {list(known)}", param="outputs")
    return [known[name] for name in names]


def tensor(name: str, datatype: str, values) -> dict[str, Any]:
    """An output."""
    shape = list(np.shape(values))
    data = values if datatype == "BYTES" else np.asarray(values).ravel().tolist()
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
