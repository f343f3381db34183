"""The commands about published checkpoints: models, download, cache."""

import dataclasses
import json
import sys


def add_commands(command) -> None:
    """Adds them to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("models", run_models, "the catalogue of published Chinese checkpoints")
    sub.add_argument("word", nargs="?", metavar="WORD", help="only those in whose name or notes it occurs")
    sub.add_argument("--family", metavar="F", help="only those of a family: bert, albert, gpt2 ...")
    sub.add_argument("--json", action="store_true", help="for machines")

    sub = command("download", run_download, "fetch a published checkpoint; a broken transfer goes on where it stopped")
    sub.add_argument(
        "name", metavar="NAME", help="of the catalogue, OWNER/NAME, modelscope://OWNER/NAME, or an address"
    )
    sub.add_argument("--to", metavar="DIR", help="a folder other than the cache")
    sub.add_argument("--source", metavar="S", help="hf, hf-mirror, modelscope, a mirror's or an archive's address")
    sub.add_argument("--revision", metavar="R", help="a branch, tag or commit")

    sub = command("cache", run_cache, "list, verify or remove what was fetched")
    sub.add_argument("action", choices=["list", "verify", "remove"])
    sub.add_argument("name", nargs="?", metavar="NAME", help="of one model (verify: all by default)")
    sub.add_argument("--json", action="store_true", help="for machines (list)")


def run_models(options) -> int:
    """Prints the catalogue; 1 if nothing of it fits."""
    from bert4x.hub import search

    found = search(options.word, options.family)
    if options.json:
        rows = [dataclasses.asdict(entry) | {"built": entry.built} for entry in found]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return not found
    from rich.table import Table

    table = Table("name", "family", "parameters", "vocabulary", "licence", "where", "oddities")
    for entry in found:
        where = [kind for kind in ("hf", "modelscope", "url") if getattr(entry, kind)] or [entry.where or ""]
        family = entry.family if entry.built else f"{entry.family} (planned)"
        vocabulary = str(entry.vocabulary or "")
        cells = (entry.name, family, entry.parameters or "", vocabulary, entry.license or "not stated")
        table.add_row(*cells, ", ".join(where), entry.notes or "")
    wide_console().print(table)
    print(f"{len(found)} of the catalogue. What is said of them was read where they are published, not tried")
    return not found


def run_download(options) -> int:
    """Fetches, and prints the folder."""
    from bert4x.hub import download
    from bert4x.hub.store import read_manifest

    try:
        folder = download(options.name, to=options.to, source=options.source, revision=options.revision)
    except KeyboardInterrupt:
        print("bert4x: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(f"from {read_manifest(folder).get('source') or 'the cache of huggingface_hub'}", file=sys.stderr)
    print(folder)
    return 0


def run_cache(options) -> int:
    """Lists, verifies or removes; 1 if something is damaged."""
    from bert4x import hub
    from bert4x.errors import HubError
    from bert4x.hub.store import names_of

    if options.action == "remove":
        if options.name is None:
            raise HubError("which model? `bert4x cache list` has their names")
        print(f"removed {options.name}: {hub.remove(options.name) / 1e6:,.1f} MB")
        return 0
    models = [model for model in hub.cached() if options.name is None or model.name in names_of(options.name)]
    if options.name is not None and not models:
        raise HubError(f"{options.name!r} does not lie here; `bert4x cache list` has what does")
    if options.action == "verify":
        return verify(models)
    if options.json:
        rows = [dataclasses.asdict(model) | {"path": str(model.path)} for model in models]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    from rich.table import Table

    table = Table("name", "MB", "from", "folder")
    for model in models:
        size = f"{model.bytes / 1e6:,.1f}" + ("" if model.whole else " (in part)")
        table.add_row(model.name, size, model.source, str(model.path))
    wide_console().print(table)
    return 0


def verify(models) -> int:
    """Prints what is damaged; 1 if anything is."""
    from bert4x import hub

    damaged = False
    for model in models:
        checked, wrong = hub.verify(model)
        damaged |= bool(wrong)
        print(f"{model.name}: {'; '.join(wrong) or f'{checked} files are what was fetched'}")
    return int(damaged)


def wide_console():
    """A console that does not cut tables where nobody sees its width, and in which brackets are brackets."""
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 240
    return console
