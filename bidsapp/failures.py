"""What went wrong in a node, in words, from the crash file Nipype leaves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: The last line of a traceback: the error's class, with its package or without, and the message.
_ERROR = re.compile(
    r"^\s*((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning))(?::\s?(.*))?$"
)


@dataclass(frozen=True)
class Failure:
    """A node that failed.

    Parameters
    ----------
    node
        Full name of the node.
    reason
        The error's message, on one line.
    crash_file
        Where the traceback and the node's inputs are.
    """

    node: str
    reason: str
    crash_file: Path

    def __str__(self) -> str:
        step = self.node.rpartition(".")[2]
        return f"step {step} ({self.node}) failed: {self.reason} (details: {self.crash_file})"


def read_failures(log_dir: Path) -> tuple[Failure, ...]:
    """Read all crash files of a folder, oldest first."""
    files = sorted(log_dir.glob("crash-*.txt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return tuple(read_crash_file(path) for path in files)


def read_crash_file(path: Path) -> Failure:
    """Read one text crash file.

    Parameters
    ----------
    path
        Written by Nipype with ``crashfile_format = txt``.

    Returns
    -------
    Failure
        With the message of the error that was raised first.
    """
    text = path.read_text(errors="replace")
    first, _, rest = text.partition("\n")
    node = first.removeprefix("Node:").strip() if first.startswith("Node:") else path.stem
    return Failure(node=node, reason=reason_of(rest or text), crash_file=path)


def reason_of(traceback: str) -> str:
    r"""Find the message of the error that a traceback ends with.

    Nipype wraps the traceback of the interface, indented, into one of its own; the inner one counts.

    Examples
    --------
    >>> reason_of("Traceback (most recent call last):\n  File 'a'\nhyperprep.exceptions.ScanError: no data")
    'no data'
    >>> reason_of("Traceback (most recent call last):\nKeyError: 'x'")
    "KeyError: 'x'"
    """
    start = traceback.rfind("Traceback (most recent call last):")
    lines = traceback[max(start, 0) :].splitlines()
    found: list[str] = []
    for line in lines:
        match = _ERROR.match(line)
        if match:
            found = [_named(match[1], match[2] or "")]
        elif found and line.strip() and not line.lstrip().startswith(("File ", "Traceback", "When creating")):
            found.append(line.strip())
        elif found and line.lstrip().startswith("When creating"):
            break
    return " ".join(found).strip() or "no message was left"


def _named(error: str, message: str) -> str:
    """Name the class of an error unless its message was written for users."""
    ours = error.startswith("hyperprep.") or error.rpartition(".")[2] == "WorkerKilledError"
    return (
        message.strip() if ours and message.strip() else f"{error.rpartition('.')[2]}: {message}".strip(": ")
    )
