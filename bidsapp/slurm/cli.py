"""``bidsapp-slurm``: a Slurm array for all participants, the group level after it, and what failed again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from hyperprep import __version__
from hyperprep.bidsapp.cli import types
from hyperprep.bidsapp.cli.parser import parse_settings
from hyperprep.bidsapp.cli.raising import RaisingParser
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.database import check_database, open_database
from hyperprep.bidsapp.datasets import check_dataset
from hyperprep.bidsapp.description import write_atomically
from hyperprep.bidsapp.labels import check_lambda_regions
from hyperprep.bidsapp.participants import available_participants, choose_participants, count_sessions
from hyperprep.bidsapp.places import check_locations
from hyperprep.bidsapp.slurm import measured
from hyperprep.bidsapp.slurm.job import DEFAULT_ARRAY_SIZE, ArrayJob, read_job
from hyperprep.bidsapp.slurm.queue import largest_array, require_slurm
from hyperprep.bidsapp.slurm.scripts import TASK_SHARE, write_scripts, write_submission
from hyperprep.bidsapp.slurm.status import (
    FAILED,
    KILLED,
    MISSING,
    RUNNING,
    UNKNOWN,
    WAITING,
    cells,
    group_code,
    read_status,
    summary,
    table,
)  # fmt: skip
from hyperprep.exceptions import HyperPrepError, OutputError, UsageError
from hyperprep.workflows.memory import TEMPLATE_VOXELS, needed_gb

SUCCESS, SOME_FAILED, UNFINISHED = 0, 1, 75

#: Options of ``bidsapp`` that every task is given by its script.
_OWN_OPTIONS = """
--participant-label --participant_label --session-label --session_label --nprocs --nthreads --n-cpus --n_cpus
--mem --mem-mb --mem_mb -w --work-dir --work_dir --use-plugin --nipype-plugin-file
"""

_EPILOG = """\
write     only write the scripts; submit.sh hands them to Slurm
submit    write them, and hand them to Slurm
status    table of all participants, also written to status.tsv
resubmit  hand over again what failed, was killed or never ran, and the group level

Options after -- are those of bidsapp and go to every task:
  bidsapp-slurm /data/study /data/out submit --image hyperprep.sif -- --lambda auto --output-spaces T1w

exit codes of status: 0 all done, 1 some failed and none is left to run, 75 not finished yet
"""


def build_parser() -> ArgumentParser:
    """Build the parser of ``bidsapp-slurm``."""
    parser = RaisingParser(
        prog="bidsapp-slurm", description=__doc__, epilog=_EPILOG, allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("bids_dir", type=types.any_path, metavar="BIDS_DIR")
    parser.add_argument("output_dir", type=types.any_path, metavar="OUTPUT_DIR")
    parser.add_argument("action", choices=("write", "submit", "status", "resubmit"))
    parser.add_argument("--participant-label", "--participant_label", type=types.participant, nargs="+",
                        metavar="LABEL", default=[], help="participants (default: all)")  # fmt: skip
    parser.add_argument("--session-label", "--session_label", type=types.session, nargs="+",
                        metavar="LABEL", default=[], help="sessions (default: all)")  # fmt: skip
    parser.add_argument("--job-dir", type=types.any_path, metavar="DIR",
                        help="scripts, exit codes and messages (default: OUTPUT_DIR/logs/slurm)")  # fmt: skip
    parser.add_argument("-w", "--work-dir", type=types.any_path, metavar="DIR",
                        help="intermediate results on a disk that all nodes see: what failed goes on there "
                        "(default: the node's own disk, emptied afterwards)")  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--image", type=types.existing_path, metavar="FILE",
                     help="Apptainer image to run (default: the one this runs in, if any)")  # fmt: skip
    how.add_argument("--command", metavar="WORDS",
                     help="what starts bidsapp on the nodes (default: this installation)")  # fmt: skip
    parser.add_argument("--nprocs", type=types.positive_int, metavar="N",
                        help=f"cores of each task (default: {measured.MEASURED_THREADS})")  # fmt: skip
    parser.add_argument("--mem", type=types.memory_gb, metavar="AMOUNT",
                        help=f"memory of each task (default: {measured.task_memory_gb():g}GB)")  # fmt: skip
    parser.add_argument("--time", type=minutes, metavar="MINUTES|H:MM:SS",
                        help="time limit of each task (default: by the number of sessions)")  # fmt: skip
    parser.add_argument("--max-running", type=types.positive_int, metavar="N",
                        help="most tasks at the same time")  # fmt: skip
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION",
                        help="option of sbatch, as in --sbatch=--partition=long; repeatable")  # fmt: skip
    parser.add_argument("--ended", action="store_true",
                        help="where Slurm cannot be asked: no task is left in its queue, so what "
                        "left no exit code was killed")  # fmt: skip
    parser.add_argument("--no-group", action="store_true", help="leave the group level out")
    parser.add_argument("--version", action="version", version=f"HyperPrep {__version__}")
    return parser


def minutes(text: str) -> int:
    """Read a time limit in minutes; seconds count as a minute begun.

    Examples
    --------
    >>> minutes("90"), minutes("1:30:00"), minutes("1-00:00:00")
    (90, 90, 1440)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    if match:
        days, hours, mins, seconds = (int(part or 0) for part in match.groups())
        total = 1440 * days + 60 * hours + mins + (seconds > 0)
    else:
        total = int(text) if text.isdecimal() else 0
    if total < 1:
        raise ArgumentTypeError(f"{text!r} is no time limit: write minutes, or H:MM:SS")
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bidsapp-slurm``.

    Parameters
    ----------
    argv
        Words after the program's name; ``None`` reads those of this process.

    Returns
    -------
    int
        Exit code, see ``--help``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    own, options = words, []
    if "--" in words:
        place = words.index("--")
        own, options = words[:place], words[place + 1 :]
    try:
        args = build_parser().parse_args(own)
        if args.action in ("write", "submit"):
            return _write(args, options)
        if options:
            raise UsageError(
                f"{args.action} takes no options of bidsapp; the tasks keep those they were written with"
            )
        job = read_job(_job_dir(args))
        return _status(job, args.ended) if args.action == "status" else _resubmit(job, args)
    except HyperPrepError as error:
        print(f"bidsapp-slurm: error: {error}", file=sys.stderr)
        return error.exit_code


def _job_dir(args: Namespace) -> Path:
    return Path(args.job_dir or args.output_dir / "logs" / "slurm")


def _write(args: Namespace, options: Sequence[str]) -> int:
    """Write the scripts, and submit them if that is asked for."""
    if args.action == "submit":
        require_slurm("submit")
    job = plan_job(args, options)
    try:
        files = write_scripts(job)
    except OSError as error:
        raise OutputError(f"the scripts cannot be written to {job.job_dir}: {error.strerror}") from error
    print(
        f"{len(job.participants)} participant(s), each {job.threads} core(s), {job.memory_gb:g} GB, "
        f"{job.minutes} minutes: {files['task']}"
    )
    if args.action == "write":
        print(f"To submit: bash {shlex.quote(str(files['submit']))}")
        return SUCCESS
    return _submit(files["submit"])


def _submit(script: Path) -> int:
    done = subprocess.run(["bash", str(script)], check=False)
    if done.returncode != 0:
        raise UsageError(
            f"Slurm refused the job (see above); mend the options and submit again, or run {script}"
        )
    return SUCCESS


def plan_job(args: Namespace, options: Sequence[str]) -> ArrayJob:
    """Turn the command line into an array job, after checking all that can be checked here.

    Raises
    ------
    HyperPrepError
        If the data set, a participant or an option of ``bidsapp`` is not right.
    """
    reserved = set(_OWN_OPTIONS.split())
    misplaced = sorted(reserved & {word.partition("=")[0] for word in options})
    if misplaced:
        raise UsageError(
            f"{', '.join(misplaced)}: give it before --, or leave it out; every task has its own"
        )
    chosen = list(options)
    if args.session_label:
        chosen = ["--session-label", *args.session_label, *chosen]
    try:
        settings = parse_settings([str(args.bids_dir), str(args.output_dir), "participant", *chosen])
    except UsageError as error:
        raise UsageError(f"after --: {error}") from error
    check_dataset(settings)
    check_locations(settings)
    check_lambda_regions(settings)
    check_task_memory(args.mem)
    if settings.bids_database_dir is not None:
        check_database(settings)
        open_database(settings.bids_dir, settings.bids_database_dir)  # once, not by every task
    participants = choose_participants(
        available_participants(args.bids_dir), args.participant_label, args.bids_dir
    )
    threads = args.nprocs or measured.MEASURED_THREADS
    most = max(count_sessions(args.bids_dir, label, args.session_label) for label in participants)
    inside = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    image = args.image or (Path(inside) if inside and not args.command else None)
    command = shlex.split(args.command) if args.command else [sys.executable, "-m", "hyperprep.bidsapp"]
    return ArrayJob(
        bids_dir=args.bids_dir,
        output_dir=args.output_dir,
        job_dir=_job_dir(args),
        participants=participants,
        command=() if image else tuple(command),
        image=image,
        binds=paths_of(settings),
        options=tuple(chosen),
        threads=threads,
        memory_gb=args.mem or measured.task_memory_gb(),
        minutes=args.time or measured.task_minutes(most, threads),
        work_dir=args.work_dir,
        sbatch=tuple(args.sbatch),
        max_running=args.max_running,
        group=not args.no_group,
        gpu=settings.device.startswith("cuda"),
        array_size=largest_array() or DEFAULT_ARRAY_SIZE,
    )


def check_task_memory(memory_gb: float | None) -> None:
    """Check that a task is given what its largest step needs at least, whatever its scan.

    Raises
    ------
    UsageError
        If every task would end at its start.
    """
    least = needed_gb("register", TEMPLATE_VOXELS) / TASK_SHARE
    if memory_gb is not None and memory_gb < least:
        raise UsageError(
            f"--mem {memory_gb:g}GB: the registration alone needs {least:.1f} GB, and large scans need "
            f"more; leave the option out for {measured.task_memory_gb():g} GB"
        )


def paths_of(settings: Settings) -> tuple[Path, ...]:
    """Files and folders that the options name, beside input and output."""
    template = Path(settings.template)
    named = [
        settings.weights_dir,
        settings.bids_filter_file,
        settings.config_file,
        settings.bids_database_dir,
    ]
    named += [path for _, path in (*settings.derivatives, *settings.few_shot)]
    named += [template.absolute().parent] if template.is_file() else []
    return tuple(dict.fromkeys(path for path in named if path is not None))


def _status(job: ArrayJob, ended: bool) -> int:
    """Print who is not done, write the table of all, and sum up."""
    tasks = read_status(job, ended=ended)
    header = ("participant_id", "status", "code", "seconds", "job", "reason")
    lines = ["\t".join(cell or "n/a" for cell in row) for row in (header, *map(cells, tasks))]
    try:
        write_atomically(job.job_dir / "status.tsv", "\n".join(lines) + "\n")
    except OSError as error:
        print(f"status.tsv is not written: {error.strerror}", file=sys.stderr)
    if any(task.code != 0 for task in tasks):
        print(table(tasks, everybody=len(tasks) <= 20))
    print(summary(tasks))
    group = group_code(job)
    if job.group and group is not None:
        print(f"group level: exit code {group}")
    states = {task.status for task in tasks}
    if states & {RUNNING, WAITING, UNKNOWN}:
        return UNFINISHED
    return SOME_FAILED if states & {FAILED, KILLED, MISSING} else SUCCESS


def _resubmit(job: ArrayJob, args: Namespace) -> int:
    """Submit what has to run again; options of this call take the place of the scripts' own."""
    again = [task for task in read_status(job, ended=args.ended) if task.again]
    if not again:
        print("There is nothing to submit again.")
        return SUCCESS
    words = list(args.sbatch)
    words += [f"--cpus-per-task={args.nprocs}"] if args.nprocs else []
    words += [f"--mem={round(1000 * args.mem)}M"] if args.mem else []
    words += [f"--time={args.time}"] if args.time else []
    print(table(again))
    script = write_submission(job, [task.index for task in again], words)
    if shutil.which("sbatch") is None:
        print(f"There is no sbatch here. To submit: bash {shlex.quote(str(script))}")
        return SUCCESS
    return _submit(script)
