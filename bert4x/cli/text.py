"""The commands on single texts: fill-mask and generate."""

import dataclasses
import json

from bert4x.cli.decoding import add_decoding, add_model, given_decoding, load_model, read_stdin, show


def add_commands(command) -> None:
    """Adds them to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("fill-mask", run_fill_mask, "guess the [MASK] tokens of a text")
    sub.add_argument("text", help='such as "床前明[MASK]光，疑是地上霜。"')
    sub.add_argument("--model", help="a checkpoint (default: the model inside the package)")
    sub.add_argument("--top-k", type=int, default=5, metavar="N", help="guesses for each mask (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="for machines")

    sub = command("generate", run_generate, "continue texts")
    sub.add_argument("texts", nargs="+", metavar="PROMPT", help='such as "白日依山尽，"; "-" is standard input')
    add_model(sub)
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--stream", action="store_true", help="show the text while it is written")
    form.add_argument("--json", action="store_true", help="one object a prompt: texts, ids, finish reasons, scores")
    add_decoding(sub)


def run_fill_mask(options) -> int:
    """Prints the likeliest fillings."""
    from bert4x.tasks.fill_mask import fill_mask

    results = fill_mask(options.text, options.model, options.top_k)
    if options.json:
        print(json.dumps([[dataclasses.asdict(f) for f in mask] for mask in results], ensure_ascii=False, indent=2))
        return 0
    for number, fillings in enumerate(results, start=1):
        if len(results) > 1:
            print(f"[MASK] {number}")
        for filling in fillings:
            print(f"{filling.probability:7.2%}  {filling.token}  {filling.text}")
    return 0


def run_generate(options) -> int:
    """Prints continuations: of every prompt, one after the other."""
    from bert4x.generation import continuations

    given = given_decoding(options)
    prompts = ["\n".join(read_stdin()) if prompt == "-" else prompt for prompt in options.texts]
    model = load_model(options)
    if options.stream:
        streams = [model.stream(prompt, **given) for prompt in prompts]  # all are checked before the first is written
        for pieces in streams:
            show(pieces)
        return 0
    for prompt, found in zip(prompts, continuations(model, prompts, **given), strict=True):
        if options.json:
            print(json.dumps({"prompt": prompt, "continuations": [f._asdict() for f in found]}, ensure_ascii=False))
            continue
        for continuation in found:
            print(continuation.text)
    return 0
