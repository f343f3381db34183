"""The commands about published checkpoints: models, download, cache."""

import dataclasses
import itertools
import json
import shutil
import sys

YES = {True: "yes", False: "no"}
DETAILS = "family", "size", "tokens", "where", "licence"


def add_commands(command) -> None:
    """Adds them to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("models", run_models, "the catalogue of published Chinese checkpoints")
    sub.add_argument(
        "word",
        nargs="?",
        metavar="WORD",
        help="only those in whose name or notes it occurs, with all that is known of them",
    )
    sub.add_argument("--family", metavar="F", help="only those of a family: bert, albert, gpt2 ...")
    sub.add_argument("--built", action="store_true", help="what can be done with each family, in each layout")
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
    if options.built:
        return run_built(options)
    from bert4x.hub import search

    found = search(options.word, options.family)
    if options.json:
        rows = [dataclasses.asdict(entry) | {"built": entry.built} for entry in found]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return not found
    for entry in found if options.word else ():
        print("\n".join(described(entry)))
    if not options.word:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(
            "\n".join(columns(("name", *DETAILS), [(entry.name, *details(entry).values()) for entry in found], width))
        )
    print(f"{len(found)} of the catalogue; as read where they are published, not tried")
    if not options.word:
        print("notes, other names and addresses: bert4x models WORD, or --json")
    return not found


def run_built(options) -> int:
    """Prints the families by layout; 1 if there is none of the name asked for."""
    from bert4x.checkpoints.abilities import abilities

    found = [one for one in abilities() if options.family in (None, one.family)]
    found = [one for one in found if not options.word or options.word.lower() in one.family]
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return not found
    rows = [
        (one.family, one.layout, YES[one.reads], YES[one.writes], ", ".join(one.decodes), ", ".join(one.heads))
        for one in found
    ]
    print("\n".join(columns(("family", "layout", "reads", "writes", "decodes", "heads"), rows)))
    print("bert4x and keras, our own formats, hold every family and every head")
    return not found


def details(entry) -> dict[str, str]:
    """What is known of a checkpoint, in a few words each."""
    places = [kind for kind in ("hf", "modelscope", "url") if getattr(entry, kind)]
    known = family_of(entry), entry.parameters or "", str(entry.vocabulary or ""), ", ".join(places) or "elsewhere"
    return dict(zip(DETAILS, (*known, entry.license or "not stated"), strict=True))


def family_of(entry) -> str:
    """Its family, and whether this version cannot load it yet."""
    return entry.family if entry.built else f"{entry.family} (planned)"


def described(entry) -> list[str]:
    """All that is known of a checkpoint, a line each; long ones are left to the terminal."""
    facts = [family_of(entry), f"{entry.parameters} parameters" if entry.parameters else ""]
    facts += [f"{entry.vocabulary} tokens" if entry.vocabulary else "", f"licence {entry.license or 'not stated'}"]
    places = [
        f"{kind}: {getattr(entry, kind)}" for kind in ("hf", "modelscope", "url", "where") if getattr(entry, kind)
    ]
    aliases = f"also {', '.join(entry.aliases)}" if entry.aliases else ""
    lines = ["; ".join(filter(None, facts)), aliases, *places, entry.notes or ""]
    return [entry.name, *(f"    {line}" for line in lines if line)]


def columns(header, rows, width: int | None = None) -> list[str]:
    """The lines of a table. No cell is shortened: what of the last columns does not fit into the width is left out, but
    never the first column.
    """
    table = [header, *rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(header))]
    ends = itertools.accumulate(wide + 2 for wide in widths)
    shown = max(1, sum(width is None or end - 2 <= width for end in ends))
    return ["  ".join(cell.ljust(widths[n]) for n, cell in enumerate(row[:shown])).rstrip() for row in table]


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
    """Lists, verifies or removes; 1 if something is damaged. Raises: HubError"""
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
    rows = [
        (model.name, f"{model.bytes / 1e6:,.1f}" + ("" if model.whole else " (in part)"), model.source, str(model.path))
        for model in models
    ]
    print("\n".join(columns(("name", "MB", "from", "folder"), rows)))
    return 0


def verify(models) -> int:
    """Prints what is damaged; 1 if anything is."""
    from bert4x import hub

    damaged = False
    for model in models:
        checked, wrong = hub.check(model)
        damaged |= bool(wrong)
        print(f"{model.name}: {'; '.join(wrong) or f'{checked} files are what was fetched'}")
    return int(damaged)
