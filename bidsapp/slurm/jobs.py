"""Jobs that each hold one node of a workflow: what they ask for, and how they ended."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import format_exception
from typing import Any

from hyperprep.bidsapp.slurm.measured import INTERPRETER_GB
from hyperprep.bidsapp.slurm.queue import cancel, environment_of_jobs, job_states


class JobKilledError(RuntimeError):
    """The job of a step ended without a result."""


class SubmissionError(RuntimeError):
    """Slurm did not take the job of a step."""


def node_options(node: Any) -> list[str]:
    """Turn what a node declares into options of ``sbatch``.

    Parameters
    ----------
    node
        Nipype node.

    Returns
    -------
    list of str
        Cores from ``n_procs``, memory from ``mem_gb`` and what an interpreter takes, a GPU from ``use_gpu``.

    Examples
    --------
    >>> from nipype.interfaces.utility import IdentityInterface
    >>> from nipype.pipeline.engine import Node
    >>> node_options(Node(IdentityInterface(fields=["a"]), name="n", n_procs=2, mem_gb=1.5))
    ['--ntasks=1', '--cpus-per-task=2', '--mem=2200M']
    """
    memory = math.ceil(1000 * round(node.mem_gb + INTERPRETER_GB, 3))
    options = ["--ntasks=1", f"--cpus-per-task={node.n_procs or 1}", f"--mem={memory}M"]
    return [*options, "--gres=gpu:1"] if node.is_gpu_node() else options


class Jobs:
    """Submits nodes and knows the states of their jobs."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.sbatch_args = shlex.split(arguments.get("sbatch_args") or "")
        template = arguments.get("template") or "#!/bin/bash"
        self.template = Path(template).read_text() if _is_file(template) else template
        self.poll_seconds = float(arguments.get("poll_seconds", 2.0))
        self.result_timeout = float(arguments.get("result_timeout", 15.0))
        self.tries = 1 + int(arguments.get("max_tries", 2))
        self.pause = float(arguments.get("retry_timeout", 2.0))
        self.nodes: dict[int, Any] = {}
        self.submitted_at: dict[int, float] = {}
        self._states: dict[str, str] = {}
        self._asked = -math.inf

    def submit(self, node: Any, script: str, after: Sequence[int] = ()) -> int:
        """Submit the script that Nipype wrote for a node; returns the job's number.

        Raises
        ------
        SubmissionError
            If Slurm does not take it.
        """
        batch = Path(script).with_suffix(".sh")
        command = shlex.join([sys.executable, "-m", "hyperprep.bidsapp.slurm.node", script])
        batch.write_text(f"{self.template.rstrip()}\n{command}\n")
        words = [
            "sbatch",
            "--parsable",
            f"--job-name={node.fullname}",
            f"--output={batch.with_suffix('.txt')}",
        ]
        words += [
            *node_options(node),
            *self.sbatch_args,
            *shlex.split(node.plugin_args.get("sbatch_args", "")),
        ]
        if after:
            words += [f"--dependency=afterok:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"]
        for attempt in range(self.tries):
            if attempt:
                time.sleep(self.pause)
            done = subprocess.run(
                [*words, str(batch)], env=environment_of_jobs(), capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
        else:
            raise SubmissionError(
                f"Slurm did not take the step {node.fullname}: {done.stderr.strip()}. It was asked for "
                f"{' '.join(words[4:])}; mend sbatch_args in the plugin file"
            )
        job = int(done.stdout.strip().split(";")[0])
        self.nodes[job], self.submitted_at[job] = node, time.time()
        return job

    def state(self, job: int) -> str:
        """State of a job; all jobs are asked for together, once in ``poll_seconds``. Empty when forgotten."""
        if time.monotonic() - self._asked > self.poll_seconds or self._asked < 0:
            answer = job_states([str(known) for known in self.nodes])
            if answer is None:
                return "PENDING"  # the controller is busy; asked again later
            self._states, self._asked = answer, time.monotonic()
        if str(job) not in self._states and time.time() - self.submitted_at[job] < 2 * self.poll_seconds:
            return "PENDING"
        return self._states.get(str(job), "")

    def forget(self, job: int) -> None:
        """Leave a job out of what is asked for."""
        self.nodes.pop(job, None)

    def cancel(self) -> None:
        """Cancel all jobs that are left."""
        if self.nodes:
            cancel([str(job) for job in self.nodes])
            self.nodes.clear()

    def killed(self, job: int, state: str) -> dict[str, Any]:
        """Make the result of a job that left none, as Nipype takes it."""
        node = self.nodes[job]
        asked = " ".join(node_options(node)[1:])
        advice = {
            "OUT_OF_MEMORY": "give more by --mem in sbatch_args",
            "TIMEOUT": "give more by --time in sbatch_args",
            "CANCELLED": "somebody or a limit of memory cancelled it; more memory: --mem in sbatch_args",
        }.get(state, "look at the messages of the job, and at the limits of the partition")
        error = JobKilledError(
            f"Slurm job {job} of this step ended as {state or 'unknown'} and left no result "
            f"(asked for {asked}); {advice}"
        )
        return {"result": None, "traceback": format_exception(error), "hostname": "unknown"}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
