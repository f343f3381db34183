"""`python -m bert4x`"""

import sys

from bert4x.cli import main

sys.exit(main())
