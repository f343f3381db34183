"""What goes wrong with a request, in the form in which OpenAI tells errors."""

import math
from typing import Any

from bert4x.errors import Bert4xError

CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "not_json",
    422: "invalid_value",
    429: "queue_full",
    500: "model_failed",
    501: "not_supported",
    503: "shutting_down",
    504: "timeout",
}


class Problem(Bert4xError):
    """An answer that is an error: its status, and what OpenAI calls its code and param."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code or CODES[status], param, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Beside those of every answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def as_problem(error: BaseException) -> Problem:
    """What a client is told of an error: of ours, which are about what it sent, all; of others their kind only."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Bert4xError) and not isinstance(error, OSError):
        return Problem(422, str(error), param=None)
    return Problem(500, f"the model failed on this request ({type(error).__name__}); the server's log says more")
