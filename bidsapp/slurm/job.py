"""An array job on disk: one folder with its description, its scripts and what its tasks left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.description import write_atomically
from hyperprep.exceptions import NoInputError, UsageError

_DESCRIPTION = "job.json"
#: Largest number of tasks in one array where Slurm does not say (its own default).
DEFAULT_ARRAY_SIZE = 1001


@dataclass(frozen=True, kw_only=True)
class ArrayJob:
    """Everything the scripts of an array job are written from.

    Parameters
    ----------
    bids_dir, output_dir
        As ``bidsapp`` takes them; absolute.
    job_dir
        Folder of scripts, states and messages.
    participants
        Labels without ``sub-``; the place in this list is the index of the task.
    command
        Words that start the program where no container image is given.
    image
        Container image that is run instead.
    binds
        Further files and folders that the container has to see, read-only.
    options
        Options of ``bidsapp`` for every task.
    threads, memory_gb, minutes
        What each task asks for.
    work_dir
        Folder of intermediate results that all nodes see; None is the node's own disk, emptied afterwards.
    sbatch
        Further options of ``sbatch``.
    max_running
        Most tasks at the same time; None for no limit.
    group
        Whether the group level follows.
    gpu
        Whether each task needs a GPU.
    array_size
        Most tasks in one array (Slurm's ``MaxArraySize``).
    """

    bids_dir: Path
    output_dir: Path
    job_dir: Path
    participants: tuple[str, ...]
    command: tuple[str, ...] = ()
    image: Path | None = None
    binds: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()
    threads: int = 2
    memory_gb: float = 6.0
    minutes: int = 15
    work_dir: Path | None = None
    sbatch: tuple[str, ...] = ()
    max_running: int | None = None
    group: bool = True
    gpu: bool = False
    array_size: int = DEFAULT_ARRAY_SIZE

    @property
    def state_dir(self) -> Path:
        """Folder with the exit code of every task."""
        return self.job_dir / "state"

    @property
    def log_dir(self) -> Path:
        """Folder with what the tasks say."""
        return self.job_dir / "log"

    @property
    def submissions(self) -> Path:
        """Table of what was handed to Slurm."""
        return self.job_dir / "submissions.tsv"

    def chunks(self, indices: Sequence[int]) -> list[tuple[int, str]]:
        """Divide tasks among arrays that Slurm accepts: (offset, list of indices beyond it).

        Examples
        --------
        >>> job = ArrayJob(bids_dir=Path("/in"), output_dir=Path("/out"), job_dir=Path("/job"),
        ...                participants=("01",), array_size=10)
        >>> job.chunks([0, 1, 2, 5, 12, 19])
        [(0, '0-2,5'), (10, '2,9')]
        """
        parts: dict[int, list[int]] = {}
        for index in sorted(indices):
            offset = index - index % self.array_size
            parts.setdefault(offset, []).append(index - offset)
        return [(offset, ranges(part)) for offset, part in parts.items()]


def ranges(numbers: Sequence[int]) -> str:
    """Write rising numbers as ``sbatch --array`` takes them.

    Examples
    --------
    >>> ranges([0, 1, 2, 4, 7, 8])
    '0-2,4,7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def write_job(job: ArrayJob) -> Path:
    """Write the description of a job.

    Raises
    ------
    UsageError
        If its folder holds a job for other participants that was submitted.
    """
    path = job.job_dir / _DESCRIPTION
    if (
        path.is_file()
        and job.submissions.is_file()
        and read_job(job.job_dir).participants != job.participants
    ):
        raise UsageError(
            f"{job.job_dir} holds an array that was submitted for other participants; give this one a "
            "folder of its own by --job-dir, or delete that one when none of its tasks is left"
        )
    for folder in (job.state_dir, job.log_dir):
        folder.mkdir(parents=True, exist_ok=True)
    plain = {key: _plain(value) for key, value in asdict(job).items()}
    write_atomically(path, json.dumps(plain, indent=2) + "\n")
    return path


def read_job(job_dir: Path) -> ArrayJob:
    """Read the description of a job.

    Raises
    ------
    NoInputError
        If there is none.
    """
    path = job_dir / _DESCRIPTION
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise NoInputError(
            f"there is no array job in {job_dir} ({error}); write it by bidsapp-slurm ... write, or name its "
            "folder by --job-dir"
        ) from error
    paths = {"bids_dir", "output_dir", "job_dir", "image", "work_dir"}
    values: dict[str, Any] = {}
    for field in fields(ArrayJob):
        value = content.get(field.name)
        if field.name in paths and value is not None:
            value = Path(value)
        elif field.name == "binds":
            value = tuple(map(Path, value or ()))
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    return ArrayJob(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
