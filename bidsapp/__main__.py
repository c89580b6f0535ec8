"""``python -m hyperprep.bidsapp`` and the console script ``bidsapp``."""

from __future__ import annotations

import sys

from hyperprep.bidsapp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
