"""``bidsapp-demo DIR``: write the demo dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hyperprep import __version__
from hyperprep.bidsapp.demo.dataset import write_demo
from hyperprep.exceptions import HyperPrepError


def build_parser() -> argparse.ArgumentParser:
    """Parser of ``bidsapp-demo``."""
    parser = argparse.ArgumentParser(
        prog="bidsapp-demo",
        description="Write a small, valid BIDS dataset of simulated T1w scans with known ground truth.",
    )
    parser.add_argument("folder", metavar="DIR", help="new or empty folder for the dataset")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="random seed (default: 1)")
    parser.add_argument("--participants", type=int, default=3, metavar="N", help="1 to 99 (default: 3)")
    parser.add_argument("--version", action="version", version=f"bidsapp-demo {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsapp-demo`` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        folder = write_demo(arguments.folder, seed=arguments.seed, participants=arguments.participants)
    except HyperPrepError as error:
        print(f"bidsapp-demo: {error}", file=sys.stderr)
        return error.exit_code
    print(f"The demo dataset is in {folder}. Next: bidsapp {folder} OUTPUT_DIR participant")
    return 0


if __name__ == "__main__":
    sys.exit(main())
