"""Messages of a run: short on the screen, complete in a file."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from hyperprep import __version__
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.description import write_atomically
from hyperprep.exceptions import OutputError

LOGGER = logging.getLogger("hyperprep.bidsapp")
_NIPYPE_LOGGERS = ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils")


def nipype_level(verbose: int) -> int:
    """Level of Nipype's messages for a number of ``-v``.

    Examples
    --------
    >>> [nipype_level(n) for n in (0, 1, 2)] == [logging.CRITICAL, logging.INFO, logging.DEBUG]
    True
    """
    return (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)]


@contextmanager
def logging_to(path: Path, verbose: int) -> Iterator[None]:
    """Send messages to the screen and, in full, to a file while the block runs.

    Parameters
    ----------
    path
        Log file; its folder is made.
    verbose
        Number of ``-v``: 0 for progress, 1 for Nipype's messages too, 2 for everything.

    Raises
    ------
    OutputError
        If the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the log file {path} cannot be made: {error.strerror}; remove what is in its way, or choose "
            "another output folder"
        ) from error
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    screen.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    record.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours, warned, nipype = (logging.getLogger(name) for name in ("hyperprep", "py.warnings", "nipype"))
    ours.setLevel(logging.DEBUG)
    handlers, propagate = nipype.handlers[:], ours.propagate
    nipype.handlers = []
    for name in _NIPYPE_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    logging.captureWarnings(True)
    attached: list[tuple[logging.Logger, logging.Handler]] = [
        (ours, screen),
        (ours, record),
        (nipype, record),
        (warned, record),
    ]
    if verbose:
        attached.append((nipype, screen))
    if verbose > 1:
        attached.append((warned, screen))
    for logger, handler in attached:
        logger.addHandler(handler)
    ours.propagate = nipype.propagate = warned.propagate = False
    try:
        yield
    finally:
        for logger, handler in attached:
            logger.removeHandler(handler)
        nipype.handlers, ours.propagate = handlers, propagate
        nipype.propagate = warned.propagate = True
        logging.captureWarnings(False)
        record.close()


def participant_log_dir(settings: Settings, label: str) -> Path:
    """Folder of one participant's crash files and settings in this run."""
    return settings.output_dir / f"sub-{label}" / "log" / settings.run_uuid


def shared_log_dir(settings: Settings) -> Path:
    """Folder of what a run says about all its participants together."""
    return settings.output_dir / "logs" / settings.run_uuid


def write_run_record(settings: Settings, label: str, remarks: Mapping[str, object]) -> None:
    """Write what this run was told and what it noticed into a participant's log folder.

    Parameters
    ----------
    settings
        Settings of this run.
    label
        Participant, without ``sub-``.
    remarks
        JSON-friendly content of ``inputs.json``.
    """
    folder = participant_log_dir(settings, label)
    command = shlex.join(["bidsapp", str(settings.bids_dir), str(settings.output_dir), "participant"])
    head = (
        f"# HyperPrep {__version__}, options of one run; to repeat it:\n# {command} --config-file THIS_FILE\n"
    )
    write_atomically(folder / "settings.toml", head + tomli_w.dumps(settings.as_options()))
    write_atomically(folder / "inputs.json", json.dumps(remarks, indent=2) + "\n")
