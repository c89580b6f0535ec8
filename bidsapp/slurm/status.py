"""How far an array job is: from the exit codes its tasks left, and from Slurm's states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperprep.bidsapp.slurm.job import ArrayJob
from hyperprep.bidsapp.slurm.queue import ACTIVE, job_states

DONE, FAILED, KILLED, RUNNING, WAITING, UNKNOWN, MISSING = (
    "done", "failed", "killed", "running", "waiting", "unknown", "not submitted",
)  # fmt: skip

_MEANING = {
    1: "the participant failed: read its report",
    2: "wrong command line",
    64: "wrong command line",
    65: "the input cannot be used",
    66: "the input is not there",
    69: "weights, template, device or container engine missing",
    70: "a fault of the program: please report it",
    73: "the output cannot be written",
    127: "the program was not found",
    130: "interrupted; it goes on where it stopped",
    137: "killed, most likely for lack of memory: give more by --mem",
    143: "ended at the time limit or cancelled: give more by --time",
}


@dataclass(frozen=True)
class TaskStatus:
    """How one participant stands.

    Parameters
    ----------
    index
        Place in the list of participants.
    label
        Participant, without ``sub-``.
    status
        done, failed, killed, running, waiting, unknown or not submitted.
    code
        Exit code; None where there is none.
    seconds
        How long the task ran, where it has ended by itself.
    job
        Slurm's number of the task that ran last.
    reason
        What the exit code or Slurm's state means.
    """

    index: int
    label: str
    status: str
    code: int | None = None
    seconds: int | None = None
    job: str = ""
    reason: str = ""

    @property
    def again(self) -> bool:
        """Whether it has to be submitted again."""
        return self.status in (FAILED, KILLED, MISSING)


def read_status(job: ArrayJob, *, ended: bool = False) -> tuple[TaskStatus, ...]:
    """Find out how every participant of a job stands.

    Parameters
    ----------
    job
        The array job.
    ended
        Whether it is known that no task is left in Slurm's queue; then it is not asked.
    """
    submitted = submitted_tasks(job.submissions)
    states = (
        {}
        if ended
        else job_states(sorted({task.partition("_")[0] for tasks in submitted.values() for task in tasks}))
    )
    if states is None and not submitted:
        states = {}
    return tuple(
        _status(job.state_dir, index, label, submitted.get(index, ()), states)
        for index, label in enumerate(job.participants)
    )


def submitted_tasks(table: Path) -> dict[int, list[str]]:
    """Read which tasks Slurm was given for each participant, oldest first.

    Returns
    -------
    dict
        Numbers of tasks (``"12_3"``) by place in the list of participants.
    """
    tasks: dict[int, list[str]] = {}
    lines = table.read_text().splitlines() if table.is_file() else []
    for line in lines:
        job, kind, offset, indices, _ = line.split("\t")
        if kind == "array":
            for index in expand(indices):
                tasks.setdefault(index + int(offset), []).append(f"{job}_{index}")
    return tasks


def expand(indices: str) -> list[int]:
    """Read numbers as ``sbatch --array`` takes them.

    Examples
    --------
    >>> expand("0-2,5")
    [0, 1, 2, 5]
    """
    numbers: list[int] = []
    for part in indices.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _status(
    folder: Path, index: int, label: str, tasks: Sequence[str], states: Mapping[str, str] | None
) -> TaskStatus:
    started, ended = _fields(folder / f"sub-{label}.run"), _fields(folder / f"sub-{label}.exit")
    last = tasks[-1] if tasks else (started[0] if started else "")
    state = None if states is None else states.get(last, "")
    if started and started[0] == last and ended:
        code, seconds = int(ended[0]), int(ended[1]) - int(started[1])
        if code == 0:
            return TaskStatus(index, label, DONE, code, seconds, last)
        return TaskStatus(index, label, FAILED, code, seconds, last, _MEANING.get(code, ""))
    if state in ACTIVE:
        return TaskStatus(index, label, WAITING if state == "PENDING" else RUNNING, job=last)
    if not last:
        return TaskStatus(index, label, MISSING)
    if state is None:
        return TaskStatus(index, label, UNKNOWN, job=last, reason="Slurm does not answer here; see --ended")
    reason = {
        "OUT_OF_MEMORY": "Slurm: OUT_OF_MEMORY; give more by --mem",
        "TIMEOUT": "Slurm: TIMEOUT; give more by --time",
        "": "it left no exit code, and is not in Slurm's queue",
    }.get(state, f"Slurm: {state}; it left no exit code")
    return TaskStatus(index, label, KILLED, job=last, reason=reason)


def _fields(path: Path) -> list[str] | None:
    try:
        return path.read_text().strip().split("\t")
    except OSError:
        return None


def group_code(job: ArrayJob) -> int | None:
    """Exit code of the group level; None while there is none."""
    ended = _fields(job.state_dir / "group.exit")
    return int(ended[0]) if ended else None


def table(tasks: Sequence[TaskStatus], *, everybody: bool = True) -> str:
    """Write the table of all tasks.

    Parameters
    ----------
    tasks
        How the participants stand.
    everybody
        Whether those that are done are listed too.

    Examples
    --------
    >>> print(table([TaskStatus(0, "01", DONE, 0, 95, "7_0"), TaskStatus(1, "02", MISSING)]))
    participant  status         code  seconds  job  reason
    sub-01       done           0     95       7_0
    sub-02       not submitted
    """
    rows: list[tuple[str, ...]] = [("participant", "status", "code", "seconds", "job", "reason")]
    rows += [cells(task) for task in tasks if everybody or task.status != DONE]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def cells(task: TaskStatus) -> tuple[str, ...]:
    """Write the cells of a task's row."""
    code, seconds = (("" if value is None else str(value)) for value in (task.code, task.seconds))
    return f"sub-{task.label}", task.status, code, seconds, task.job, task.reason


def summary(tasks: Sequence[TaskStatus]) -> str:
    """Count the tasks by how they stand.

    Examples
    --------
    >>> summary([TaskStatus(0, "01", DONE), TaskStatus(1, "02", DONE), TaskStatus(2, "03", FAILED)])
    '3 participants: 2 done, 1 failed'
    """
    counts = Counter(task.status for task in tasks)
    order = (DONE, FAILED, KILLED, RUNNING, WAITING, UNKNOWN, MISSING)
    parts = [f"{counts[status]} {status}" for status in order if counts[status]]
    return f"{len(tasks)} participant{'s' if len(tasks) != 1 else ''}: {', '.join(parts)}"
