"""`python -m bert4x.porting script.py`: the command `bert4x port`."""

import sys

from bert4x.cli import main

sys.exit(main(["port", *sys.argv[1:]]))
