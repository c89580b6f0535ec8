"""The working directory, shared by runs: who works on what, and what may be deleted."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hyperprep.bidsapp.graph import WORKFLOW_NAME
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.exceptions import OutputError
from hyperprep.workflows.participant import participant_workflow_name


def clean_work_dir(work_dir: Path, participants: Sequence[str]) -> None:
    """Delete the intermediate results of some participants, and nothing else."""
    for label in participants:
        shutil.rmtree(work_dir / WORKFLOW_NAME / participant_workflow_name(label), ignore_errors=True)


@contextmanager
def participant_locks(work_dir: Path, participants: Sequence[str]) -> Iterator[None]:
    """Keep other runs with the same working directory away from these participants.

    The system releases the locks when the process ends, however it ends.

    Raises
    ------
    OutputError
        If another run holds one of them.
    """
    with ExitStack() as stack:
        for label in participants:
            stream = stack.enter_context(_lock_file(work_dir, f"sub-{label}").open("a"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"another run is processing sub-{label} in the working folder {work_dir}; wait for it to "
                    "end, or give this run another one by -w"
                ) from error
            except OSError:
                LOGGER.debug("the file system of %s has no locks; two runs must not share it", work_dir)
        yield


@contextmanager
def shared_lock(work_dir: Path, name: str) -> Iterator[None]:
    """Wait until no other run computes this shared part of the workflow, and keep them off meanwhile."""
    with _lock_file(work_dir, name).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOGGER.info("waiting for another run that prepares the template")
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            LOGGER.debug("the file system of %s has no locks; two runs must not share it", work_dir)
        yield


def _lock_file(work_dir: Path, name: str) -> Path:
    folder = work_dir / WORKFLOW_NAME / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be made: {error.strerror}; remove what is in its way, or choose "
            "another working folder by -w"
        ) from error
    return folder / name


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder the current one while the block runs, so that stray files of libraries end there."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        yield
