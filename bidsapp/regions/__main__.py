"""``python -m hyperprep.bidsapp.regions`` and the console script ``bidsapp-regions``."""

from __future__ import annotations

import sys

from hyperprep.bidsapp.regions.cli import main

if __name__ == "__main__":
    sys.exit(main())
