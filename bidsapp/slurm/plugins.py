"""Nipype's Slurm plugins, told what each step needs and safe against jobs that are killed.

Left to itself, Nipype 1.11 asks Slurm for nothing that a node declares, needs ``LOGNAME``, asks for the state
of each job by itself, takes an old result for a new one if a job dies, ends in a TypeError if a job leaves no
result, and its graph plugin does not wait for its jobs.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.base import DistributedPluginBase, PluginBase
from nipype.pipeline.plugins.tools import create_pyscript, report_crash

from hyperprep.bidsapp.slurm.jobs import Jobs
from hyperprep.bidsapp.slurm.queue import ACTIVE, COMPLETED
from hyperprep.exceptions import UsageError

#: Arguments that a plugin file may give; ``max_jobs`` is for ``SLURM`` alone.
KNOWN_ARGUMENTS = frozenset(
    {"sbatch_args", "template", "max_jobs", "poll_seconds", "result_timeout", "max_tries", "retry_timeout",
     "status_callback"}
)  # fmt: skip


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a plugin file.

    Raises
    ------
    UsageError
        If one is unknown or cannot work.
    """
    unknown = sorted(set(arguments) - KNOWN_ARGUMENTS)
    if unknown:
        raise UsageError(
            f"--use-plugin: {name} takes no {', '.join(unknown)}; "
            f"it takes {', '.join(sorted(KNOWN_ARGUMENTS))}"
        )
    try:
        words = shlex.split(arguments.get("sbatch_args") or "")
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"--use-plugin: sbatch_args must be words as in a shell ({error})") from error
    refused = [
        word for word in words if word.startswith(("--array", "-a", "--wait", "-W", "--dependency", "-d"))
    ]
    if refused:
        raise UsageError(f"--use-plugin: sbatch_args {' '.join(refused)} cannot work: each step is one job")


class SLURMPlugin(DistributedPluginBase):
    """One Slurm job per step, submitted when its inputs are there.

    Parameters
    ----------
    plugin_args
        ``sbatch_args`` (words for every job; they win over what a step declares), ``template`` (head of
        the job scripts, or a file with it), ``max_jobs``, ``poll_seconds``, ``result_timeout`` (how
        long a result may take to be seen on a shared disk), ``max_tries``, ``retry_timeout``.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.jobs = Jobs(plugin_args or {})

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        return self.jobs.submit(node, create_pyscript(node, updatehash=updatehash))

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        from nipype.pipeline.engine.utils import load_resultfile

        state = self.jobs.state(taskid)
        if state in ACTIVE:
            return None
        if state in (COMPLETED, ""):
            found = self._result_file(taskid)
            known = state == COMPLETED or (
                found and found.stat().st_mtime >= self.jobs.submitted_at[taskid] - 1
            )
            if found is not None and known:
                result = load_resultfile(str(found))
                if not isinstance(result, dict):
                    return {"result": result, "traceback": None}
                found.rename(found.with_name("crashstore.pklz"))
                return dict(result)
        return self.jobs.killed(taskid, state)

    def _result_file(self, taskid: int) -> Path | None:
        """Find the result that this very job wrote; a shared disk may show it late."""
        node = self.jobs.nodes[taskid]
        path = Path(node.output_dir()) / f"result_{node.name}.pklz"
        until = time.monotonic() + self.jobs.result_timeout
        while True:
            if path.is_file():
                return path
            if time.monotonic() > until:
                return None
            time.sleep(0.5)

    def _clear_task(self, taskid: int) -> None:
        self.jobs.forget(taskid)

    def close(self) -> None:
        """Cancel the jobs that are left, however the run ended."""
        self.jobs.cancel()


class SLURMGraphPlugin(PluginBase):
    """The whole graph submitted at once, each step dependent on those before it; then it is waited for.

    Parameters
    ----------
    plugin_args
        As for :class:`SLURMPlugin`, without ``max_jobs``.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.jobs = Jobs(plugin_args or {})
        self.errors: list[str] = []

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Submit what is not done, and return when all jobs have ended.

        Raises
        ------
        RuntimeError
            If a step failed.
        """
        from nipype.pipeline.engine.utils import topological_sort

        job_of: dict[Any, int] = {}
        for node in topological_sort(graph)[0]:
            after = [job_of[earlier] for earlier in graph.predecessors(node) if earlier in job_of]
            if not after and _is_done(node):
                self._tell(node, "end")
                continue
            script = create_pyscript(node, updatehash=updatehash, store_exception=False)
            job_of[node] = self.jobs.submit(node, script, after)
            self._tell(node, "start")
        stop = str(config["execution"]["stop_on_first_crash"]).lower() == "true"
        failed: set[Any] = set()
        while self.jobs.nodes:
            for job, node in list(self.jobs.nodes.items()):
                state = self.jobs.state(job)
                if state not in ACTIVE:
                    self._ended(job, node, state, graph, failed)
            if failed and stop:
                self.jobs.cancel()
            time.sleep(min(0.5, self.jobs.poll_seconds))
        if failed:
            raise RuntimeError(f"{len(failed)} step(s) failed; the first: {self.errors[0]}")

    def _ended(self, job: int, node: Any, state: str, graph: Any, failed: set[Any]) -> None:
        """Take note of a job that has ended; the reason is in its crash file, written here if need be."""
        if state == COMPLETED or (state == "" and _is_done(node)):
            self._tell(node, "end")
        else:
            result = self.jobs.killed(job, state)
            blamed = failed & set(graph.predecessors(node))
            if not blamed:
                self.errors.append(result["traceback"][-1].strip())
                if not _crash_files(node, self.jobs.submitted_at[job]):
                    node._traceback = result["traceback"]
                    report_crash(node, traceback=result["traceback"], hostname="unknown")
            failed.add(node)
            self._tell(node, "exception")
        self.jobs.forget(job)

    def _tell(self, node: Any, status: str) -> None:
        if self._status_callback:
            self._status_callback(node, status)

    def close(self) -> None:
        """Cancel the jobs that are left, however the run ended."""
        self.jobs.cancel()


def _is_done(node: Any) -> bool:
    """Whether a node's result is there and belongs to its inputs."""
    try:
        cached, updated = node.is_cached()
    except Exception:
        return False
    again = node.overwrite or (node.overwrite is None and node.interface.always_run)
    return bool(cached and updated and not again)


def _crash_files(node: Any, since: float) -> list[Path]:
    """Find the crash files of a node that were written since a time."""
    folder = Path(node.config["execution"]["crashdump_dir"])
    return [
        path for path in folder.glob(f"crash-*-{node.name}-*") if path.stat().st_mtime >= math.floor(since)
    ]
