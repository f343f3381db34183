"""The commands about checkpoints: inspect, convert, verify."""

import dataclasses
import json
from pathlib import Path


def add_commands(command) -> None:
    """Adds them to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("inspect", run_inspect, "what is in a checkpoint: format, family, config, tensors, what is missing")
    sub.add_argument("path", help="a folder, a file, the prefix of a TensorFlow checkpoint, or a name")
    sub.add_argument("--config", help="the config file, if it does not lie beside the weights")
    sub.add_argument("--model", metavar="FAMILY", help="for weights whose names are those of several families")
    sub.add_argument("--json", action="store_true", help="everything, for machines")

    sub = command("convert", run_convert, "write a checkpoint in another format, bit for bit")
    sub.add_argument("source", metavar="SRC")
    sub.add_argument("target", metavar="DST", help="the folder to write")
    sub.add_argument(
        "--to", required=True, choices=["hf", "tf1", "megatron", "uer", "gguf", "keras", "bert4x"], help="the format"
    )
    sub.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "q8_0"],
        help="cast the values; default: keep them; q8_0 is of gguf alone",
    )
    sub.add_argument("--shards", type=int, metavar="N", help="number of files (hf) or model-parallel ranks (megatron)")
    sub.add_argument("--keep-tokens", metavar="FILE", help="JSON list of the ids to keep, or a vocab.txt of the tokens")
    sub.add_argument("--config", help="the config file, if it does not lie beside the weights")
    sub.add_argument("--model", metavar="FAMILY", help="for weights whose names are those of several families")
    sub.add_argument("--drop-head", action="store_true", help="leave the head of a task behind, and write the model")

    sub = command("verify", run_verify, "run two checkpoints on the same inputs; or read one whole, checksums and all")
    sub.add_argument("first", metavar="A")
    sub.add_argument("second", metavar="B", nargs="?")
    sub.add_argument(
        "--tolerance", type=float, default=2e-5, help="the largest difference allowed (default: %(default)s)"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the random inputs (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="for machines")


def run_inspect(options) -> int:
    """Prints what is in a checkpoint; 1 if something is wrong with it."""
    from bert4x.checkpoints.inspection import inspect

    found = inspect(options.path, options.config, options.model)
    wrong = found.missing + found.unexpected + found.misshapen + found.duplicate
    wrong += [found.head["problem"]] if found.head and "problem" in found.head else []
    if options.json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=2))
        return bool(wrong)
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False)  # brackets are brackets
    tensors = Table()
    for name in ("tensor", "shape", "dtype"):
        tensors.add_column(name, overflow="fold")  # no name is ever shortened
    for tensor in found.tensors:
        if tensor["name"] not in found.ignored:
            tensors.add_row(tensor["name"], " x ".join(map(str, tensor["shape"])), tensor["dtype"])
    console.print(tensors)
    facts = {
        "path": found.path,
        "format": found.format,
        "family": found.family,
        "config": ", ".join(f"{key} {value}" for key, value in found.config.items() if key not in ("model", "extra")),
        "vocabulary": found.vocabulary or "none beside the weights",
        "task": about_task(found.head),
        "parameters": f"{found.parameters:,}",
        "size": f"{found.bytes / 1e6:,.1f} MB",
        "memory": ", ".join(f"{dtype}: {size / 1e6:,.1f} MB" for dtype, size in found.memory.items()),
    }
    notes = {
        "published without": found.absent_heads,
        "not of this model": found.stray,
        "no weights": found.ignored,
        "MISSING": found.missing,
        "UNEXPECTED": found.unexpected,
        "WRONG SHAPE": found.misshapen,
        "DUPLICATE": found.duplicate,
    }
    facts |= {label: shortened(names) for label, names in notes.items() if names}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in facts.items():
        grid.add_row(label, value)
    console.print(grid)
    return bool(wrong)


def about_task(head: dict | None) -> str:
    """A line about the head of a task."""
    if head is None:
        return "none: the model alone"
    notes = [head[key] for key in ("problem_type", "method") if key in head]
    labels = shortened(head["labels"], 12).replace("\n", ", ") or "no labels"
    problem = f"\nWRONG: {head['problem']}" if "problem" in head else ""
    return f"{head['task']}{f' ({chr(44).join(notes)})' if notes else ''}: {labels}{problem}"


def shortened(names: list[str], most: int = 6) -> str:
    """The first few of many names, and how many there are."""
    more = f"\n... {len(names)} in all" if len(names) > most else ""
    return "\n".join(names[:most]) + more


def run_convert(options) -> int:
    """Converts, with a progress bar when on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from bert4x.checkpoints.convert import convert

    keep = read_keep_tokens(options.keep_tokens, options.source) if options.keep_tokens else None
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("convert", total=None)
        folder = convert(
            options.source,
            options.target,
            options.to,
            dtype=options.dtype,
            shards=options.shards,
            keep_tokens=keep,
            config=options.config,
            model=options.model,
            drop_head=options.drop_head,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"wrote {folder} ({options.to})")
    return 0


def read_keep_tokens(path: str, source: str) -> list[int]:
    """The ids to keep: a JSON list of them, or the tokens of a vocab.txt looked up in the source's vocabulary.

    Raises: TokenizerError for a file that cannot be read, and for tokens the source lacks.
    """
    from bert4x.checkpoints.files import locate
    from bert4x.errors import TokenizerError
    from bert4x.hub.names import local
    from bert4x.tokenizers import load_tokenizer, load_vocab

    if path.endswith(".json"):
        try:
            return json.loads(Path(path).read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise TokenizerError(f"{path} is no JSON list of ids: {error}") from None
    tokenizer = load_tokenizer(locate(local(source)).folder)
    if tokenizer is None:
        raise TokenizerError(f"no vocabulary beside {source} to look the tokens of {path} up in")
    tokens = load_vocab(path)
    unknown = [token for token in tokens if token not in tokenizer.token_dict]
    if unknown:
        raise TokenizerError(f"{path} has {len(unknown)} tokens that {source} lacks, such as {unknown[:5]}")
    return [tokenizer.token_dict[token] for token in tokens]


def run_verify(options) -> int:
    """Prints the largest difference between two checkpoints; 1 if it is above the tolerance."""
    if options.second is None:
        from bert4x.checkpoints.inspection import check

        checked = check(options.first)
        print(json.dumps({"checksums": checked}) if options.json else f"all weights finite; {checked} checksums right")
        return 0
    from bert4x.tasks.comparison import verify

    differences = verify(options.first, options.second, seed=options.seed)
    same = max(differences.values()) <= options.tolerance
    if options.json:
        print(json.dumps({"differences": differences, "tolerance": options.tolerance, "same": same}))
    else:
        for name, difference in differences.items():
            print(f"{name:10} largest difference {difference:.3e}")
        print("same" if same else f"NOT the same: above {options.tolerance:g}")
    return 0 if same else 1
