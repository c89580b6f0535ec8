"""Entry point: reads the command line, runs, and turns errors into messages and exit codes."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from hyperprep.bidsapp.cli.parser import build_parser, parse_settings
from hyperprep.bidsapp.cli.raising import BUG, INTERRUPTED, TERMINATED
from hyperprep.exceptions import HyperPrepError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv
        Words after the program's name; ``None`` reads those of this process.

    Returns
    -------
    int
        Exit code, see ``--help``.
    """
    try:
        settings = parse_settings(argv)
    except UsageError as error:
        print(f"{build_parser().format_usage()}bidsapp: error: {error}", file=sys.stderr)
        return error.exit_code

    signal.signal(signal.SIGTERM, _terminate)
    try:
        from hyperprep.bidsapp.environment import prepare_environment

        prepare_environment(settings)
        from hyperprep.bidsapp.app import run_app

        return run_app(settings)
    except HyperPrepError as error:
        print(f"bidsapp: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bidsapp: interrupted; the same command continues where it stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print(
            "bidsapp: error: this is a fault of the program; please report the lines above "
            "together with the command",
            file=sys.stderr,
        )
        return BUG


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    """End on SIGTERM as if the run had been left, so that workers are stopped."""
    print("bidsapp: terminated; the same command continues where it stopped", file=sys.stderr)
    raise SystemExit(TERMINATED)
