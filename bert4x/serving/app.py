"""The application: all routes, and errors in one form."""

import contextlib
import logging
from collections.abc import Collection
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from bert4x.serving import inference, openai, tasks, tei
from bert4x.serving.answering import ClientGone, Context
from bert4x.serving.guard import Guard
from bert4x.serving.limits import Limits
from bert4x.serving.metrics import Metrics
from bert4x.serving.models import Models
from bert4x.serving.problems import CODES, Problem, as_problem
from bert4x.serving.schemas import Body
from bert4x.version import __version__

LOG = logging.getLogger("bert4x.serving")
PAGE, REFERENCE = (Path(__file__).parent / name for name in ("page.html", "reference.html"))


def create_app(models: Models, limits: Limits | None = None, keys: Collection[str] = ()) -> Guard:
    """The ASGI application that serves some models."""
    limits = limits or Limits()
    context = Context(models, limits, Metrics(models), {"version": __version__})

    @contextlib.asynccontextmanager
    async def running(app):
        models.start()
        yield
        models.stop()

    app = FastAPI(title="bert4x", version=__version__, docs_url=None, redoc_url=None, lifespan=running)
    for module in (openai, tasks, tei, inference):
        app.include_router(module.routes(context))
    for path, file in (("/", PAGE), ("/docs", REFERENCE)):
        if file.is_file():
            add_page(app, path, file.read_text(encoding="utf-8"))
    for kind, handle in HANDLERS.items():
        app.add_exception_handler(kind, handle)
    return Guard(app, limits, keys, context.metrics)


def add_page(app: FastAPI, path: str, text: str) -> None:
    """A page that is one file and names no other host."""

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def page():
        return HTMLResponse(text)


def answer(request: Request, problem: Problem) -> JSONResponse:
    """An error as an answer. A value that cannot be is 400 where OpenAI's clients ask, who look for that."""
    status = 400 if problem.status == 422 and request.url.path.startswith("/v1/") else problem.status
    return JSONResponse(problem.body, status, headers=problem.headers)


async def on_error(request: Request, error: Exception) -> Response:
    """Ours, and those of a model."""
    return answer(request, as_problem(error))


def no_json(request: Request, said: str) -> str:
    """What is said of a body that cannot be read. Clients of Triton put bytes behind the JSON, unless told not to."""
    binary = "inference-header-content-length" in request.headers
    return f"the body is no JSON{said}" + ("; tensors are taken as JSON only: binary_data=False" if binary else "")


async def on_http_error(request: Request, error: HTTPException) -> Response:
    """Those of the framework: no such route, no such method, a body that cannot be read."""
    message = str(error.detail)
    if error.status_code == 404:
        message = f"no route {request.url.path[:80]!r}; /docs lists all"
    if error.status_code == 400:
        message = no_json(request, " in UTF-8")
    return answer(request, Problem(error.status_code, message, CODES.get(error.status_code, "error")))


async def on_invalid(request: Request, error: RequestValidationError) -> Response:
    """A body that is no JSON, or says what it must not: the field is named."""
    first = max(error.errors(), key=lambda one: len(one["loc"]))  # of what may be of several types, the nearest
    parts = [str(part) for part in first["loc"][1:]]
    where = ".".join(part for number, part in enumerate(parts) if number == 0 or part.isdecimal() or part in FIELDS)
    if first["type"] == "json_invalid":
        return answer(request, Problem(400, no_json(request, f": {first.get('ctx', {}).get('error', '')}")))
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    said = "" if isinstance(found, dict | list) or first["type"] == "missing" else f"; found {found!r:.60}"
    hint = (
        " (is the header Content-Type: application/json there?)" if isinstance(found, bytes | str) and not where else ""
    )
    return answer(
        request, Problem(422, f"{where or 'the body'}: {message}{said}{hint}", param=parts[0] if parts else None)
    )


async def on_gone(request: Request, error: ClientGone) -> Response:
    """The client has gone; the status is for the metrics only."""
    return Response(status_code=499)


# In the place of an error there are also the types that a value could be; these are fields.
FIELDS = {field.alias or name for kind in Body.__subclasses__() for name, field in kind.model_fields.items()}
HANDLERS = {
    Problem: on_error,
    ValueError: on_error,  # of which all of ours about input are
    Exception: on_error,
    RequestValidationError: on_invalid,
    HTTPException: on_http_error,
    ClientGone: on_gone,
}
