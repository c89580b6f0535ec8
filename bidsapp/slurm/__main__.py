"""``python -m hyperprep.bidsapp.slurm`` and the console script ``bidsapp-slurm``."""

from __future__ import annotations

import sys

from hyperprep.bidsapp.slurm.cli import main

if __name__ == "__main__":
    sys.exit(main())
