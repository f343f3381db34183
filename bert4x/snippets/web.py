"""Functions as addresses of a small web server, for trying them out."""

import contextlib
import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bert4x.errors import InputError

LARGEST = 1 << 20  # bytes of a POST
SECONDS = 30  # that a client may take to say what it wants
METHODS = ("GET", "POST")
Arguments = Mapping[str, tuple[Callable[[str], Any] | None, bool]]


class WebServing:
    """Functions of text behind addresses, over Python's `http.server`, with bert4keras' calls and answers.

        web = WebServing(port=8864)
        web.route("/gen_synonyms", gen_synonyms, {"text": (None, True), "n": (int, False)})
        web.start()  # http://127.0.0.1:8864/gen_synonyms?text=苹果多少钱一斤

    An answer is JSON: `{"code": 0, "desc": "succeeded", "data": what the function returned}`; code 1 for arguments that
    lack or do not convert, 2 for what the function raised. One call at a time reaches the functions. There is no
    encryption and no password: it is for this machine and a trusted network, where `host="0.0.0.0"` is asked for.

    Args:
        host: who may connect: this machine, unless told.
        port: 0 for any that is free; `web.port` is that of a server that was started.
        server: taken for the sake of bert4keras' scripts.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8000, server: str | None = None):
        self.host, self.port = host, port
        self.routes: dict[tuple[str, str], tuple[Callable, Arguments]] = {}
        self.lock = Lock()
        self.listening: ThreadingHTTPServer | None = None

    def route(self, path: str, func: Callable, arguments: Arguments, method: str = "GET") -> None:
        """Answers calls of a path by a function, whose result JSON can hold.

        Args:
            arguments: for each name what makes its value of a text, or None for the text, and whether it must be there.
            method: "GET", arguments behind a question mark, or "POST", a form or a JSON object.
        Raises: InputError for a path without a slash, or another method.
        """
        method = method.upper()
        if not path.startswith("/") or method not in METHODS:
            raise InputError(f"{method} {path!r}; expected GET or POST, and a path that begins with a slash")
        self.routes[method, path] = func, dict(arguments)

    def start(self) -> None:
        """Serves until it is interrupted, or `stop` is called in another thread."""
        with self.listen() as listening:
            print(f"http://{self.host}:{self.port}: {', '.join(sorted({path for _, path in self.routes}))}")
            with contextlib.suppress(KeyboardInterrupt):
                listening.serve_forever()

    def listen(self) -> ThreadingHTTPServer:
        """The server, which holds the port; it answers when it is told to serve."""
        serving = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS

            def do_GET(self):
                serving.reply(self, "GET", urlsplit(self.path).query)

            def do_POST(self):
                serving.reply(self, "POST", None)

            def log_message(self, format, *args):
                """Says nothing: texts of users are not for a log."""

        self.listening = ThreadingHTTPServer((self.host, self.port), Handler)
        self.port = self.listening.server_address[1]
        return self.listening

    def stop(self) -> None:
        """Ends `start`."""
        if self.listening is not None:
            self.listening.shutdown()

    def reply(self, request: BaseHTTPRequestHandler, method: str, query: str | None) -> None:
        """Reads what a request gives, and sends the answer."""
        try:
            given = from_form(query) if query is not None else from_body(request)
        except (InputError, ValueError) as error:
            status, answer = 400, {"code": 1, "desc": str(error), "data": {}}
        else:
            status, answer = self.answer(method, urlsplit(request.path).path, given)
        try:
            text = json.dumps(answer, ensure_ascii=False, allow_nan=False, default=plain)
        except (TypeError, ValueError) as error:
            text = json.dumps({"code": 2, "desc": f"the result is nothing that JSON holds: {error}", "data": {}})
            status = 500
        body = text.encode("utf-8", "replace")
        request.send_response(status)
        request.send_header("Content-Type", "application/json; charset=utf-8")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer(self, method: str, path: str, given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the answer for a call."""
        if (method, path) not in self.routes:
            return 404, {"code": 1, "desc": f"no {method} {path}; there is {sorted(self.routes)}", "data": {}}
        func, arguments = self.routes[method, path]
        values = {}
        for name, (convert, needed) in arguments.items():
            if name not in given:
                if needed:
                    return 200, {"code": 1, "desc": f'lack of "{name}" argument', "data": {}}
                continue
            try:
                values[name] = given[name] if convert is None else convert(given[name])
            except Exception as error:
                return 200, {"code": 1, "desc": f'argument "{name}": {error}', "data": {}}
        try:
            with self.lock:
                return 200, {"code": 0, "desc": "succeeded", "data": func(**values)}
        except Exception as error:
            return 200, {"code": 2, "desc": f"{type(error).__name__}: {error}", "data": {}}


def from_form(text: str) -> dict[str, str]:
    """The arguments of an address or a form; of several of one name the last."""
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True, max_num_fields=100).items()}


def from_body(request: BaseHTTPRequestHandler) -> dict[str, Any]:
    """The arguments that a POST holds.

    Raises: InputError for one that is too long, or no object.
    """
    length = request.headers.get("Content-Length", "")
    if not length.isdecimal() or int(length) > LARGEST:
        raise InputError(f"Content-Length is {length!r}; expected a number up to {LARGEST}")
    text = request.rfile.read(int(length)).decode("utf-8")
    if "json" not in request.headers.get("Content-Type", ""):
        return from_form(text)
    found = json.loads(text)
    if not isinstance(found, dict):
        raise InputError(f"the body is a {type(found).__name__}; expected an object of arguments")
    return found


def plain(value: Any) -> Any:
    """Numbers and arrays of NumPy as JSON holds them. Raises: TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")
