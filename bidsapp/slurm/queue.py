"""What Slurm says about jobs: states, never messages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from hyperprep.exceptions import UsageError

#: States of a job that has not ended.
ACTIVE = frozenset(
    {
        "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
        "REQUEUE_FED", "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "RESV_DEL_HOLD",
    }
)  # fmt: skip
COMPLETED = "COMPLETED"
_TIMEOUT_S = 60
#: Most jobs named in one call, so that the command line stays short.
_AT_ONCE = 2000


def require_slurm(what: str) -> None:
    """Check that jobs can be submitted from here.

    Parameters
    ----------
    what
        What needs it, for the message.

    Raises
    ------
    UsageError
        If there is no ``sbatch``.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(
            f"{what}: there is no sbatch here. Run it on a machine from which jobs are submitted, outside of "
            "any container"
        )


def environment_of_jobs() -> dict[str, str]:
    """Environment for ``sbatch``, without what the job that we may be running in was granted."""
    kept = {"SLURM_CONF", "SLURM_CLUSTERS"}
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_") or key in kept}


def job_states(jobs: Sequence[str]) -> dict[str, str] | None:
    """Ask for the states of jobs, or of all tasks of array jobs.

    Slurm forgets a job some minutes after its end; then the accounting is asked, where there is one.

    Parameters
    ----------
    jobs
        Numbers of jobs.

    Returns
    -------
    dict or None
        State by number of the job (``"12"``) or of the task (``"12_3"``); jobs that are not known any
        more are absent. None where Slurm does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    found: dict[str, str] = {}
    for start in range(0, len(jobs), _AT_ONCE):
        part = jobs[start : start + _AT_ONCE]
        answer = _ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", ",".join(part))
        if answer is None:
            return None
        found.update(answer)
        known = {task.partition("_")[0] for task in answer}
        forgotten = [job for job in part if job not in known]
        if forgotten and shutil.which("sacct"):
            found.update(
                _ask("sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j", ",".join(forgotten)) or {}
            )
    return found


def _ask(*command: str) -> dict[str, str] | None:
    """Run a command that prints ``job|state``; None when it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return {} if "Invalid job id" in done.stderr else None
    return read_states(done.stdout)


def read_states(text: str) -> dict[str, str]:
    r"""Read lines of ``job|state``.

    Examples
    --------
    >>> read_states("7_0|RUNNING\n7_1|CANCELLED by 0\n")
    {'7_0': 'RUNNING', '7_1': 'CANCELLED'}
    """
    pairs = (line.strip().partition("|") for line in text.splitlines() if "|" in line)
    return {job: (state.split() or [""])[0] for job, _, state in pairs}


def largest_array() -> int | None:
    """Ask how many tasks an array may have (``MaxArraySize``); None where Slurm does not answer."""
    if shutil.which("scontrol") is None:
        return None
    try:
        done = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdigit():
            return int(value)
    return None


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; what has ended already is left alone."""
    for start in range(0, len(jobs), _AT_ONCE):
        subprocess.run(
            ["scancel", *jobs[start : start + _AT_ONCE]], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
