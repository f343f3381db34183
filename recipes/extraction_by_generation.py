"""Triples of a schema without training: a language model is shown some solved texts, and writes the answer to the next
one, held to JSON by a grammar.

    python recipes/extraction_by_generation.py
    python recipes/extraction_by_generation.py --model CPM-1-Generate --dtype bfloat16 --shots 6
    python recipes/extraction_by_generation.py --data ske_dev.jsonl --schema all_50_schemas --limit 100

A language model that was shown a few cases may know what is wanted (Brown et al. 2020, arXiv 2005.14165), and still
writes what no program can read: half a bracket, a predicate of its own invention. A grammar forbids, at every step, all
tokens that cannot lead to an answer of the form, so that every answer is a list of [subject, predicate, object] with a
predicate of the schema; which of them is left to the model. `--free` leaves the grammar out, to see what it is worth.

A line of --data is `{"text": ..., "spo_list": [{"subject": ..., "predicate": ..., "object": ...}]}`, as of SKE; some of
the rows are shown, others are asked for. Predicates are those of --schema (`{"predicate": ...}` in each line), or else
those in the rows. Without --data these are toy data, and without --model it is the small model inside the package,
which can NOT do this: it was trained to continue texts, not to read them (docs/results.md has its figure).
`recipes/triple_extraction.py` trains a model of the same size for it.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import bert4x
from bert4x import recipe
from bert4x.errors import DataError
from bert4x.metrics import count_triples
from bert4x.tasks.readers import read_triples
from bert4x.tasks.triples import read_schema

TOY = Path(__file__).parent / "data/toy_triples.jsonl"


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"limit": 2, "shots": 1, "most": 1, "longest": 6}

    model: str | None = recipe.option(None, "a language model; default: the one inside the package")
    dtype: str | None = recipe.option(None, "of its weights, such as bfloat16")
    quantize: Literal["int8"] | None = recipe.option(None, "a quarter of float32's memory")
    data: Path | None = recipe.option(None, "texts with their triples; default: toy data")
    schema: Path | None = recipe.option(None, "file of predicates; default: those of the rows")
    shots: int = recipe.option(4, "solved texts that are shown", least=0)
    limit: int = recipe.option(20, "texts that are asked for", least=1)
    most: int = recipe.option(3, "triples of an answer, at most", least=1)
    longest: int = recipe.option(12, "characters of a subject or object, at most", least=1)
    max_chars: int = recipe.option(100, "of a text that is shown or asked for; longer ones are left out", least=1)
    max_new_tokens: int | None = recipe.option(None, "of an answer; default: enough for a token a character", least=1)
    batch_size: int = recipe.option(8, "answers that are written at a time", least=1)
    free: bool = recipe.option(False, "without the grammar")
    seed: int = recipe.option(0, "of the rows that are drawn", least=0)
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    smoke: bool = recipe.option(False, "two short answers: does it run?")


def drawn(rows: list[dict], args) -> tuple[list[dict], list[dict]]:
    """The rows to show, which have triples, and those to ask for. Raises: DataError for too few."""
    rows = [row for row in rows if len(row["text"]) <= args.max_chars]
    random.Random(args.seed).shuffle(rows)
    shown = [row for row in rows if 0 < len(row["spo_list"]) <= args.most][: args.shots]
    asked = [row for row in rows if row not in shown][: args.limit]
    if len(shown) < args.shots or not asked:
        raise DataError(f"{len(rows)} rows have at most {args.max_chars} characters, too few: {args.shots} are shown")
    return shown, asked


def form(predicates: list[str], args) -> dict:
    """A JSON schema: some triples, each a list of three texts, the second one of the predicates."""
    text = {"type": "string", "pattern": rf'^[^"\\\x00-\x1f]{{1,{args.longest}}}$'}  # nothing that JSON has to escape
    triple = {"type": "array", "prefixItems": [text, {"enum": predicates}, text], "items": False, "minItems": 3}
    return {"type": "array", "items": triple, "maxItems": args.most}


def as_json(triples) -> str:
    """An answer as the form spells it: no spaces, Chinese as it is."""
    return json.dumps([list(triple) for triple in triples], ensure_ascii=False, separators=(",", ":"))


def read(answer: str) -> list[tuple[str, str, str]] | None:
    """The triples of an answer; None for one that is not of the form, as a free one may be."""
    try:
        found = [tuple(triple) for triple in json.loads(answer)]
    except (ValueError, TypeError):
        return None
    return found if all(len(one) == 3 and all(isinstance(part, str) for part in one) for one in found) else None


def main(args):
    # 1. Rows to show and to ask for, and the predicates there are.
    rows = read_triples(args.data or TOY)
    if args.schema:
        predicates = list(dict.fromkeys(entry["predicate"] for entry in read_schema(args.schema)))
    else:
        predicates = sorted({predicate for row in rows for _, predicate, _ in row["spo_list"]})
    if not predicates:
        raise DataError(f"{args.schema or args.data} holds no predicate to look for; give --schema a file of them")
    shown, asked = drawn(rows, args)

    # 2. A language model, and the prompt: solved texts, one a line, then one that is not. Where positions are too few
    # for all of them, the first go.
    lm = bert4x.load(args.model, application="lm", dtype=args.dtype, quantize=args.quantize)
    cases = [{"text": row["text"], "triples": as_json(row["spo_list"])} for row in shown]
    few = bert4x.FewShot(lm, "{text} -> {triples}", cases, stop=None, drop_examples=True)

    # 3. Answers. A grammar needs room for its longest text: an answer that is cut is no JSON.
    room = args.max_new_tokens or args.most * (2 * args.longest + max(map(len, predicates)) + 12) + 2
    options = {} if args.free else {"json_schema": form(predicates, args)}
    answers = []
    for begin in range(0, len(asked), args.batch_size):
        texts = [row["text"] for row in asked[begin : begin + args.batch_size]]
        answers += few.generate(texts, max_new_tokens=room, **options)

    # 4. What was found, against what is there.
    found = [read(answer) for answer in answers]
    for row, answer in list(zip(asked, answers, strict=True))[:5]:
        print(f"{row['text']}\n    {answer}\n    right: {as_json(row['spo_list'])}")
    scores = count_triples([one or [] for one in found], [row["spo_list"] for row in asked], lm.tokenizer.tokenize)
    written = sum(one is not None for one in found)
    print(f"{len(asked)} texts, {len(predicates)} predicates, {len(shown)} shown: {written} answers have the form")
    print(f"precision {scores.precision:.4f}, recall {scores.recall:.4f}, F1 {scores.f1:.4f}")


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
