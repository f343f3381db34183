"""The command for scripts written for bert4keras: port."""

import sys


def add_commands(command) -> None:
    """Adds it to a parser; `command(name, run, summary)` makes the parser of one."""
    sub = command("port", run_port, "change a script written for bert4keras into one that runs here")
    sub.add_argument("script", metavar="SCRIPT", help="a Python file; it stays as it is")
    sub.add_argument("--write", action="store_true", help="write SCRIPT_bert4x.py beside it, instead of printing it")


def run_port(options) -> int:
    """Prints or writes the new script, and its report to standard error; 1 if lines need a hand."""
    from bert4x.porting import IMPORT, port_file, target_of

    ported = port_file(options.script, options.write)
    if not options.write:
        sys.stdout.write(ported.text)
    for note in ported.notes:
        if note.kind != IMPORT:
            print(f"{options.script}:{note.line}: {note.kind}: {note.text}", file=sys.stderr)
    rest = ported.lines - ported.imports - ported.rules
    print(
        f"{ported.lines} lines: imports changed on {ported.imports}, changed by rule {ported.rules}, "
        f"untouched {rest}; by hand: {len(ported.by_hand) or 'nothing'}",
        file=sys.stderr,
    )
    if options.write:
        print(f"wrote {target_of(options.script)}")
    return 1 if ported.by_hand else 0
