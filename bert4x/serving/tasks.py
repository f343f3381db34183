"""Tasks under their own names, with the places of what they find, in characters."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from bert4x.errors import nearest
from bert4x.serving.abilities import ATTENTION, SCORES, TASKS, VECTORS
from bert4x.serving.answering import Context
from bert4x.serving.problems import Problem
from bert4x.serving.schemas import Pair, TaskInputs

OTHER_NAMES = {name: ours for ours, names in TASKS.items() for name in names}


def routes(context: Context) -> APIRouter:
    """The router of these endpoints."""
    router = APIRouter(prefix="/tasks", tags=["Tasks"])

    @router.post("/{name}", summary="The answers of a task: " + ", ".join([*TASKS, ATTENTION]))
    async def task(name: str, body: TaskInputs, request: Request):
        name = OTHER_NAMES.get(name, name)
        known = {*TASKS, *(a for one in context.models.served.values() for a in one.abilities if runs(one, a))}
        if name not in known:
            raise Problem(404, f"no task {name!r:.80}; {nearest(name[:80], known)}", "task_not_found")
        served, ability = context.models.find(body.model, name)
        several = isinstance(body.inputs, list)
        inputs = [plain(one, ability) for one in (body.inputs if several else [body.inputs])]
        found = await context.compute(request, served, ability, inputs, body.truncate, body.parameters)
        answers = [ability.record(given, answer) for given, answer in zip(inputs, found, strict=True)]
        return JSONResponse({"model": served.name, "task": name, "answers": answers if several else answers[0]})

    return router


def runs(served, ability: str) -> bool:
    """Whether an ability answers texts here; those with endpoints of their own do not."""
    return ability not in (SCORES, VECTORS) and hasattr(served.abilities[ability], "record")


def plain(one, ability) -> str | tuple[str, str]:
    """An input as a task takes it. Raises: Problem for a pair where there is none, and the other way round."""
    if ability.pairs and not isinstance(one, Pair):
        example = dict.fromkeys(ability.pairs, "...")
        raise Problem(422, f"{ability.name} takes inputs such as {example}", param="inputs")
    if isinstance(one, Pair):
        if not ability.pairs:
            raise Problem(422, f"{ability.name} takes texts; found a question with a passage", param="inputs")
        return one.question, one.passage
    if isinstance(one, list) and ability.name != "classes":
        raise Problem(422, f"{ability.name} takes single texts; found a pair", param="inputs")
    return tuple(one) if isinstance(one, list) else one
