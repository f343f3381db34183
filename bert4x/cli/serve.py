"""The command serve: models behind HTTP."""

import importlib.util

from bert4x.errors import InputError

NEEDED = ("fastapi", "uvicorn", "prometheus_client")
# Options -> the limit, and what it says.
LIMITS = {
    "--max-body": ("body", int, "bytes of a request"),
    "--max-texts": ("texts", int, "texts of a request"),
    "--max-tokens": ("tokens", int, "tokens of a request, those to be written included"),
    "--max-queue": ("queue", int, "requests that wait for a model; more are told to come later"),
    "--max-seconds": ("seconds", float, "seconds that a request may take"),
    "--batch-tokens": ("batch_tokens", int, "computed at once"),
    "--batch-wait": ("wait", float, "seconds that a batch waits for more texts, while many come"),
    "--rows": ("rows", int, "texts that are written at the same time"),
}


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("serve", run_serve, "answer requests of HTTP: OpenAI's protocol, embeddings, tasks")
    sub.add_argument(
        "models", nargs="*", metavar="MODEL", help="a folder or a name, or NAME=FOLDER (default: the small model)"
    )
    sub.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    sub.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes any free one (default: %(default)s)")
    sub.add_argument("--api-key-file", metavar="FILE", help="keys, one a line, of which requests must have one")
    sub.add_argument("--open", action="store_true", help="let everybody in who can reach --host, without a key")
    sub.add_argument(
        "--application", choices=["lm", "unilm"], help="of language models: continue, or read and write (default: lm)"
    )
    sub.add_argument(
        "--runtime", choices=["keras", "onnx", "openvino", "savedmodel"],
        help="what runs the models; all but keras take folders that bert4x export wrote (default: as each folder is)",
    )  # fmt: skip
    sub.add_argument("--dtype", help="of the weights: float32, bfloat16 ... (default: Keras' own)")
    sub.add_argument("--quantize", choices=["int8"], help="the matrices: a quarter of float32's memory")
    group = sub.add_argument_group("limits")
    for option, (name, kind, about) in LIMITS.items():
        group.add_argument(option, dest=name, type=kind, metavar="N", help=about)


def run_serve(options) -> int:
    """Serves until SIGTERM or Ctrl-C. Raises: InputError where a package is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"bert4x serve needs {', '.join(missing)}: pip install {' '.join(missing)}")
    from bert4x.serving import server
    from bert4x.serving.app import create_app
    from bert4x.serving.limits import Limits
    from bert4x.serving.models import open_models

    given = {name: getattr(options, name) for name, *_ in LIMITS.values() if getattr(options, name) is not None}
    limits, keys = Limits(**given), server.read_keys(options.api_key_file)
    server.check_open(options.host, keys, options.open)
    with server.listening(options.host, options.port) as sock:  # first: loading takes long
        loading = {name: getattr(options, name) for name in ("dtype", "quantize") if getattr(options, name)}
        models = open_models(options.models, limits, options.application, options.runtime, **loading)
        for one in models.served.values():
            server.say(f"{one.name}: {', '.join(one.abilities)}")
        host = f"[{options.host}]" if ":" in options.host else options.host
        server.say(f"bert4x serves at http://{host}:{sock.getsockname()[1]}")
        return server.run(create_app(models, limits, keys), sock, limits)
