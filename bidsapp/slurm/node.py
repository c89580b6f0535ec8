"""``python -m hyperprep.bidsapp.slurm.node SCRIPT``: runs one step of a workflow inside a job of its own."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

from hyperprep.bidsapp.environment import OFFLINE_VARIABLE, refuse_network


def main(argv: Sequence[str]) -> None:
    """Run the script that Nipype wrote for a node, cut off from the network where the run is."""
    if os.environ.get(OFFLINE_VARIABLE):
        refuse_network()
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
