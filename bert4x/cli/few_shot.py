"""The command few-shot: answers by example."""

import json

from bert4x.cli.decoding import FORMS, add_decoding, add_model, given_decoding, load_model, read_stdin, unescaped
from bert4x.errors import GenerationError


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("few-shot", run_few_shot, "answer by the examples of a file")
    sub.add_argument(
        "examples", metavar="EXAMPLES", help="JSON, JSON lines, or tab-separated with the fields' names first"
    )
    sub.add_argument(
        "texts", nargs="*", metavar="TEXT", help="what to answer; default: the lines of standard input. With several "
        "fields, a JSON object each",
    )  # fmt: skip
    add_model(sub)
    sub.add_argument(
        "--template", type=unescaped, default="{text} ->{label}",
        help=r"one case; its last field is the answer; \n is a line break (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--separator", type=unescaped, default="\n", help="between cases, and end of an answer (default: a line break)"
    )
    sub.add_argument(
        "--choices", dest="among", metavar="A,B", help="choose the likeliest of these, instead of writing freely"
    )
    sub.add_argument("--normalize", action="store_true", help="compare choices by the mean of their tokens")
    sub.add_argument("--drop-examples", action="store_true", help="leave out the first examples where not all fit")
    sub.add_argument("--json", action="store_true", help="one object a text")
    add_decoding(sub, leave_out=("num_return_sequences", "sliding_window", *FORMS), max_new_tokens=32)


def run_few_shot(options) -> int:
    """Prints an answer for each text. Raises: GenerationError"""
    from bert4x.generation.examples import read_examples
    from bert4x.generation.few_shot import FewShot, parse_template

    given = given_decoding(options)
    choices = options.among.split(",") if options.among is not None else None
    if choices and len(given) > 1:
        raise GenerationError(f"choices are scored, nothing is drawn or searched; leave out {sorted(given)}")
    fields = [name for _, name in parse_template(options.template) if name is not None]
    examples = read_examples(options.examples, fields)
    few = FewShot(
        load_model(options), options.template, examples, options.separator, options.separator, options.drop_examples
    )
    texts = options.texts or [line for line in read_stdin() if line.strip()]
    queries = [read_query(text, few.query_fields) for text in texts]
    if choices:
        scores = few.scores(queries, choices, options.normalize) if queries else []
        answers = [choices[row.argmax()] for row in scores]
    else:
        answers, scores = few.generate(queries, **given), [None] * len(queries)
    for text, answer, row in zip(texts, answers, scores, strict=True):
        found = {"text": text, "answer": answer}
        found |= {} if row is None else {"scores": dict(zip(choices, row.tolist(), strict=True))}
        print(json.dumps(found, ensure_ascii=False) if options.json else answer)
    return 0


def read_query(text: str, fields: tuple[str, ...]) -> str | dict:
    """A text as it is, or, of several fields, a JSON object. Raises: GenerationError."""
    if len(fields) == 1:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        names = ", ".join(fields)
        raise GenerationError(
            f"the template has the fields {names}; give a JSON object with them, not {text!r}"
        ) from error
