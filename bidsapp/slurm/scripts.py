"""The shell scripts of an array job: its tasks, the group level, and handing both to Slurm."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2

from hyperprep.bidsapp.description import write_atomically
from hyperprep.bidsapp.slurm.job import ArrayJob, write_job
from hyperprep.bidsapp.slurm.measured import GROUP_MEMORY_GB, GROUP_MINUTES

#: Seconds before the time limit at which a task is asked to end, so that it leaves its exit code.
GRACE_S = 60

#: Share of a task's memory that its steps may fill; the rest is for the program itself.
TASK_SHARE = 0.9

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(str(Path(__file__).parent)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # shell, not HTML; every value is quoted for the shell below
)


def write_scripts(job: ArrayJob) -> dict[str, Path]:
    """Write the folder of a job: description, list of participants, scripts.

    Returns
    -------
    dict
        The files by what they are: ``task``, ``group``, ``submit``.
    """
    write_job(job)
    write_atomically(job.job_dir / "participants.txt", "".join(f"{label}\n" for label in job.participants))
    files = {"task": job.job_dir / "task.sh", "group": job.job_dir / "group.sh"}
    write_atomically(files["task"], task_script(job))
    write_atomically(files["group"], group_script(job))
    files["submit"] = write_submission(job, range(len(job.participants)))
    return files


def write_submission(job: ArrayJob, indices: Sequence[int], sbatch: Sequence[str] = ()) -> Path:
    """Write the script that submits some tasks and, after them, the group level.

    Parameters
    ----------
    job
        The array job.
    indices
        Places of the participants in its list.
    sbatch
        Options of ``sbatch`` that take the place of the script's own, for the tasks only.
    """
    limit = f"%{job.max_running}" if job.max_running else ""
    lines = []
    for offset, part in job.chunks(indices):
        words = [f"--array={part}{limit}", *sbatch, str(job.job_dir / "task.sh"), str(offset)]
        lines.append(f"submit array {offset} {shlex.quote(part)} {shlex.join(words)}")
    if job.group:
        lines.append(f'submit group 0 - --dependency="afterany$jobs" {_quoted(job.job_dir / "group.sh")}')
    path = job.job_dir / "submit.sh"
    text = _TEMPLATES.get_template("submit.sh.tpl").render(submissions=_quoted(job.submissions), lines=lines)
    write_atomically(path, text)
    return path


def task_script(job: ArrayJob) -> str:
    """Write the script of one task of the array."""
    head = [
        "--job-name=hyperprep",
        f"--cpus-per-task={job.threads}",
        f"--mem={_megabytes(job.memory_gb)}M",
        f"--time={job.minutes}",
        f"--signal=B:TERM@{GRACE_S}",
        _output(job.log_dir, "task-%A_%a.txt"),
        *(["--gres=gpu:1"] if job.gpu else []),
        *job.sbatch,
    ]
    if job.work_dir is None:
        work = "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/hyperprep-${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    else:
        work = f"{_quoted(job.work_dir)}/sub-$label"
    return _TEMPLATES.get_template("task.sh.tpl").render(
        head=_head(head),
        participants=_quoted(job.job_dir / "participants.txt"),
        state=_quoted(job.state_dir),
        work=work,
        keep=job.work_dir is not None,
        threads=job.threads,
        memory=_megabytes(job.memory_gb),
        percent=round(100 * TASK_SHARE),
        run=_run(job),
        bids=_quoted(job.bids_dir),
        out=_quoted(job.output_dir),
        options="".join(f" {shlex.quote(word)}" for word in job.options),
    )


def group_script(job: ArrayJob) -> str:
    """Write the script of the group level."""
    head = [
        "--job-name=hyperprep-group",
        "--cpus-per-task=1",
        f"--mem={_megabytes(GROUP_MEMORY_GB)}M",
        f"--time={GROUP_MINUTES}",
        _output(job.log_dir, "group-%j.txt"),
        *job.sbatch,
    ]
    return _TEMPLATES.get_template("group.sh.tpl").render(
        head=_head(head),
        state=_quoted(job.state_dir),
        run=_run(job),
        bids=_quoted(job.bids_dir),
        out=_quoted(job.output_dir),
    )


def _run(job: ArrayJob) -> str:
    """Lines that put the command into the shell array ``run``."""
    if job.image is None:
        return f"run=({shlex.join(job.command)})"
    read = [job.bids_dir, *job.binds]
    binds = [f"--bind {shlex.quote(f'{path}:{path}:ro')}" for path in read]
    binds += [f"--bind {_quoted(job.output_dir)}", '--bind "$work"']
    gpu = " --nv" if job.gpu else ""
    return (
        "engine=$(command -v apptainer || command -v singularity) "
        "|| { echo 'neither apptainer nor singularity is here' >&2; exit 69; }\n"
        'cd "$work" || exit 73\n'
        f'run=("$engine" run --cleanenv --no-home{gpu} {" ".join(binds)} {_quoted(job.image)})'
    )


def _head(options: Sequence[str]) -> str:
    return "\n".join(f"#SBATCH {option}" for option in options)


def _megabytes(gigabytes: float) -> int:
    return round(1000 * gigabytes)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _output(folder: Path, pattern: str) -> str:
    """Name the file of a job's messages as sbatch takes it in a script: quoted, signs of patterns doubled.

    Examples
    --------
    >>> print(_output(Path("/a b/50%"), "%j.txt"))
    --output="/a b/50%%/%j.txt"
    """
    return f'--output="{str(folder).replace("%", "%%")}/{pattern}"'
