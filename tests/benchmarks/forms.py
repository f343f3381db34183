"""What it costs to keep to a form, and what drafts spare, in turn in one process; seconds for each token.

    python -m tests.benchmarks.forms [--model FOLDER] [--tokens 64] [--batch 1] [--repeats 5]
    python -m tests.benchmarks.forms --titles RUN --data titles.tsv [--drafter RUN] [--texts 20]

The model (default: the small one inside bert4x) writes in a form, and as many tokens freely. RUN is one of
recipes/unilm_seq2seq.py, which writes titles of the last texts of --data greedily: plainly, with drafts copied from the
text, with drafts of another run; and texts in which nothing of their source stands. All have to write the same.
The backend is that of KERAS_BACKEND.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bert4x
from bert4x.tasks.readers import read_pairs

PROMPT = "今天天气很好，我们去公园"
NAMES = ("歌手", "作者", "导演", "出生地", "毕业院校", "所属专辑", "主演", "董事长")


def forms(tokens: int) -> dict[str, dict]:
    """The forms by name; that of characters allows so many tokens and no others."""
    properties = {"subject": {"type": "string", "maxLength": 6}, "predicate": {"enum": NAMES}}
    properties["object"] = properties["subject"]
    triple = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {
        "regex: characters": {"regex": f"[一-龥，。]{{{tokens}}}"},
        "regex: a date": {"regex": "[12][0-9]{3}年(1[0-2]|[1-9])月([12][0-9]|3[01]|[1-9])日"},
        f"one of {len(NAMES)} choices": {"choices": NAMES},
        "JSON schema: two triples": {"json_schema": {"type": "array", "items": triple, "minItems": 2, "maxItems": 2}},
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="of the application unilm")
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--titles", type=Path, help="a run that writes titles")
    p.add_argument("--drafter", type=Path, help="another run, of the same vocabulary")
    p.add_argument("--data", type=Path, help="source and title in every line")
    p.add_argument("--texts", type=int, default=20)
    p.add_argument("--drafts", type=int, nargs="+", default=[2, 4, 8], help="tokens of a draft")
    args = p.parse_args()
    print("| | tokens | ms a token | times as long |\n|---|---|---|---|")
    for ways in titles(args) if args.titles else in_forms(args):
        print(rows(ways, args.repeats), flush=True)


def in_forms(args) -> list[dict[str, Callable[[], int]]]:
    """What writes in each form, and says how many tokens; beside it, as many tokens that are free."""
    model = bert4x.load(args.model, application="unilm")
    t = model.tokenizer
    never = [i for i in (t.pad_id, t.unk_id, t.start_id, t.mask_id) if i is not None]

    def write(tokens: int, form: dict) -> int:
        options = {"suppress_ids": never, "stop_ids": t.end_id} if form else {"suppress_ids": [*never, t.end_id]}
        found = model.generate([PROMPT] * args.batch, max_new_tokens=tokens, **options, **form)
        return sum(len(ids) - 2 for ids in t.encode_batch(found)[0])

    found = []
    for name, form in forms(args.tokens).items():
        tokens = write(4 * args.tokens, form) // args.batch
        found.append({"free": partial(write, tokens, {}), name: partial(write, 4 * args.tokens, form)})
    return found


def titles(args) -> list[dict[str, Callable[[], int]]]:
    """What writes titles with each kind of drafts; and as long texts in which no token of their sources may stand."""
    task = bert4x.pipeline("seq2seq", args.titles)
    sources = task.sources([source for source, _ in read_pairs(args.data)[-args.texts :]])
    ways = {"plainly": {}} | {f"copies of {n}": {"prompt_lookup": n} for n in args.drafts}
    if args.drafter:
        drafter = bert4x.pipeline("seq2seq", args.drafter).backbone
        ways |= {f"a drafter's {n}": {"drafter": drafter, "draft_tokens": n} for n in args.drafts}
    right: dict[str, list] = {}

    def write(kind: str, drafts: dict) -> int:
        """Raises: RuntimeError where other texts come out than before."""
        found = []
        for ids in sources:  # drafts are made for one text at a time
            never = {"titles": task.never, "other texts": [*task.never, *ids]}[kind]
            stop_ids = task.tokenizer.end_id if kind == "titles" else ()
            never = [i for i in dict.fromkeys(never) if i != stop_ids]
            options = {"max_new_tokens": task.max_target, "stop_ids": stop_ids, "suppress_ids": never}
            found.append(task.backbone.generate_ids([ids], **options, **drafts)[0].tolist())
        if right.setdefault(kind, found) != found:
            raise RuntimeError(f"{kind}, {drafts}: other texts")
        return sum(i >= 0 for row in found for i in row)

    kinds = ("titles", "other texts")
    return [{f"{kind}, {way}": partial(write, kind, drafts) for way, drafts in ways.items()} for kind in kinds]


def rows(ways: dict[str, Callable[[], int]], repeats: int) -> str:
    """Medians of what takes turns, after a first round that compiles."""
    seconds, tokens = {name: [] for name in ways}, {}
    for repeat in range(repeats + 1):
        for name, write in ways.items():
            began = time.perf_counter()
            tokens[name] = write()
            if repeat:
                seconds[name].append((time.perf_counter() - began) / tokens[name])
    each = {name: 1000 * statistics.median(found) for name, found in seconds.items()}
    first = next(iter(each.values()))
    return "\n".join(f"| {name} | {tokens[name]} | {ms:.2f} | {ms / first:.2f} |" for name, ms in each.items())


if __name__ == "__main__":
    main()
