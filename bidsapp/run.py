"""Running the workflow: scheduler, locks against a second run, and who failed why."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.failures import read_failures
from hyperprep.bidsapp.graph import WORKFLOW_NAME, participant_workflow_name
from hyperprep.bidsapp.logs import LOGGER, nipype_level, participant_log_dir
from hyperprep.exceptions import OutputError, UsageError


@dataclass
class Progress:
    """Follows the nodes of a run; Nipype calls it at the start and end of each.

    Parameters
    ----------
    nodes
        Full names of the nodes of each participant.
    """

    nodes: Mapping[str, frozenset[str]]
    ended: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)

    def __call__(self, node: Any, status: str) -> None:
        """Take note of a node that started, ended or failed."""
        if status == "start":
            return
        name = node.fullname
        (self.ended if status == "end" else self.crashed).add(name)
        for label, names in self.nodes.items():
            if name in names:
                done = len(names & (self.ended - self.crashed))
                LOGGER.log(
                    logging.INFO if status != "end" or done == len(names) else logging.DEBUG,
                    "sub-%s: %s %s (%d of %d steps)",
                    label,
                    node.name,
                    "done" if status == "end" else "failed",
                    done,
                    len(names),
                )

    def unfinished(self, label: str) -> frozenset[str]:
        """Nodes of a participant that did not end well."""
        return self.nodes[label] - (self.ended - self.crashed)


def execute(
    workflow: Any,
    participants: Sequence[str],
    settings: Settings,
    plugin: tuple[str, Mapping[str, Any]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Run a workflow that holds one workflow per participant.

    What an earlier run with the same working directory finished is not run again.

    Parameters
    ----------
    workflow
        Nipype workflow, as :func:`~hyperprep.bidsapp.graph.build_workflow` makes it.
    participants
        Labels of the participants in it.
    settings
        Settings of this run.
    plugin
        Nipype plugin and its arguments instead of our own scheduler.

    Returns
    -------
    dict
        For each participant the reasons of its failure in words; empty where all went well.

    Raises
    ------
    OutputError
        If another run works on one of these participants in the same working directory.
    UsageError
        If the memory allowed is less than a step needs.
    """
    from nipype import config as nipype_config

    nodes = {label: _node_names(workflow, label) for label in participants}
    progress = Progress(nodes)
    _configure_nipype(nipype_config, settings)
    with participant_locks(settings.work_dir, participants):
        if settings.clean_workdir:
            clean_work_dir(settings.work_dir, participants)
        runner = make_runner(workflow, settings, plugin)
        runner._status_callback = progress
        stopped = ""
        try:
            workflow.run(plugin=runner)
        except Exception as error:
            stopped = f"{type(error).__name__}: {error}"
            LOGGER.debug("the workflow ended with an error\n%s", traceback.format_exc())
        finally:
            close = getattr(runner, "close", None)
            if close is not None:
                close()
            if settings.resource_monitor:
                _write_resources(workflow, settings)
    return {label: _reasons(label, progress, settings, stopped) for label in participants}


def _reasons(label: str, progress: Progress, settings: Settings, stopped: str) -> tuple[str, ...]:
    """Say why a participant failed, if it did."""
    unfinished = progress.unfinished(label)
    if not unfinished:
        return ()
    failures = read_failures(participant_log_dir(settings, label))
    if failures:
        return tuple(dict.fromkeys(map(str, failures)))
    if settings.stop_on_first_crash:
        left = f"{len(unfinished)} steps are left"
        return (f"not finished, because the run was stopped at a failure elsewhere ({left})",)
    return (f"{len(unfinished)} steps did not run; {stopped or 'the scheduler gave no reason'}",)


def _node_names(workflow: Any, label: str) -> frozenset[str]:
    """Names of a participant's nodes that will be executed."""
    from nipype.interfaces.utility import IdentityInterface

    prefix = f"{workflow.name}.{participant_workflow_name(label)}."
    return frozenset(
        node.fullname
        for node in workflow._create_flat_graph().nodes()
        if node.fullname.startswith(prefix) and not isinstance(node.interface, IdentityInterface)
    )


def _configure_nipype(nipype_config: Any, settings: Settings) -> None:
    nipype_config.update_config(
        {
            "execution": {
                "crashdump_dir": str(settings.output_dir / "logs"),
                "crashfile_format": "txt",
                "create_report": "false",
                "hash_method": "content",
                "keep_inputs": "true",
                "parameterize_dirs": "false",
                "poll_sleep_duration": "0.1",
                "remove_unnecessary_outputs": "false",
                "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
                "check_version": "false",
            }
        }
    )
    if settings.resource_monitor:
        nipype_config.enable_resource_monitor()


def make_runner(workflow: Any, settings: Settings, plugin: tuple[str, Mapping[str, Any]] | None) -> Any:
    """Make the Nipype plugin that runs the nodes.

    Parameters
    ----------
    workflow
        Workflow that will be run; its nodes' needs are compared with what is allowed.
    settings
        Settings of this run.
    plugin
        Name and arguments from ``--use-plugin``; ``None`` is our own MultiProc.

    Raises
    ------
    UsageError
        If ``--mem`` allows less than one of the nodes needs.
    """
    import nipype.pipeline.plugins as plugins

    from hyperprep.bidsapp.scheduler import MultiProcPlugin

    name, given = plugin or ("MultiProc", {})
    if name != "MultiProc":
        return getattr(plugins, f"{name}Plugin")(plugin_args=dict(given))
    memory_gb = settings.mem_gb if settings.mem_gb is not None else 0.9 * available_memory_gb()
    _check_memory(workflow, memory_gb, explicit=settings.mem_gb is not None)
    arguments = {
        "n_procs": settings.nprocs,
        "memory_gb": memory_gb,
        "n_gpu_procs": settings.threads_per_node,
        "raise_insufficient": False,
        "log_level": nipype_level(settings.verbose),
        "monitor": settings.resource_monitor,
    }
    return MultiProcPlugin(plugin_args={**arguments, **given})


def _check_memory(workflow: Any, memory_gb: float, *, explicit: bool) -> None:
    nodes = [node for node in workflow._create_flat_graph().nodes() if node.mem_gb > memory_gb]
    if not nodes:
        return
    largest = max(nodes, key=lambda node: node.mem_gb)
    message = f"step {largest.fullname} needs about {largest.mem_gb:g} GB of memory"
    if explicit:
        raise UsageError(f"--mem: {message}, and {memory_gb:g} GB are allowed; allow more")
    LOGGER.warning("%s, and only %.1f GB are there: it may be ended by the system", message, memory_gb)


def available_memory_gb() -> float:
    """Memory (GB) of this machine, or of the control group this process is held in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(path).read_text())
        except (OSError, ValueError):
            continue
        total = min(total, limit)
    return total / 1e9


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
    folder = work_dir / WORKFLOW_NAME / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for label in participants:
            stream = stack.enter_context((folder / f"sub-{label}").open("a"))
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


def _write_resources(workflow: Any, settings: Settings) -> None:
    """Gather what the monitor recorded per node into one table in ``logs/``."""
    import pandas as pd

    rows = []
    for node in workflow._create_flat_graph().nodes():
        node.base_dir = workflow.base_dir
        try:
            runtime = node.result.runtime
        except Exception:
            continue
        for one in runtime if isinstance(runtime, list) else [runtime]:
            rows.append(
                {
                    "node": node.fullname,
                    "seconds": getattr(one, "duration", None),
                    "peak_memory_gb": getattr(one, "mem_peak_gb", None),
                    "expected_memory_gb": node.mem_gb,
                    "cpu_percent": getattr(one, "cpu_percent", None),
                    "threads": node.n_procs,
                }
            )
    path = settings.output_dir / "logs" / f"resources_{settings.run_uuid}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    if rows:
        pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.3f")
        LOGGER.info("memory and load of each step: %s", path)
