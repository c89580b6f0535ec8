"""How the command lines of this package end."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from hyperprep.exceptions import UsageError

INTERRUPTED, TERMINATED, BUG = 130, 143, 70
"""What a shell reports for a program ended by SIGINT and by SIGTERM; sysexits' EX_SOFTWARE."""


class RaisingParser(ArgumentParser):
    """Parser that raises instead of exiting, so that one place decides how a run ends."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(message)
