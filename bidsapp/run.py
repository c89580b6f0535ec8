"""Running the workflow: scheduler, locks against a second run, and who failed why."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.failures import read_failures
from hyperprep.bidsapp.graph import WORKFLOW_NAME
from hyperprep.bidsapp.locks import clean_work_dir, participant_locks, shared_lock, working_in
from hyperprep.bidsapp.logs import LOGGER, nipype_level, participant_log_dir, shared_log_dir
from hyperprep.bidsapp.memory import allowed_gb, check_memory
from hyperprep.bidsapp.resources import SLURM_PLUGINS, count_gpus
from hyperprep.workflows.participant import participant_workflow_name

#: Nodes that expect at least this much memory (GB) are told about when they end.
_HEAVY_GB = 1.0


@dataclass
class Progress:
    """Follows the nodes of a run; Nipype calls it at the start and end of each.

    Parameters
    ----------
    nodes
        Full names of the nodes of each part of the workflow.
    on_done
        Called with the name of a part when all its nodes have ended well.
    """

    nodes: Mapping[str, frozenset[str]]
    ended: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)
    on_done: Callable[[str], None] | None = None

    def __call__(self, node: Any, status: str) -> None:
        """Take note of a node that started, ended or failed."""
        if status == "start":
            return
        name = node.fullname
        (self.ended if status == "end" else self.crashed).add(name)
        failed = name in self.crashed
        for part, names in self.nodes.items():
            if name in names:
                done = len(names) - len(self.unfinished(part))
                worth_it = failed or done == len(names) or node.mem_gb >= _HEAVY_GB
                LOGGER.log(
                    logging.INFO if worth_it else logging.DEBUG,
                    "%s: %s %s (%d of %d steps)",
                    part,
                    node.name,
                    "failed" if failed else "done",
                    done,
                    len(names),
                )
                if done == len(names) and self.on_done is not None:
                    self.on_done(part)

    def unfinished(self, part: str) -> frozenset[str]:
        """Nodes of a part that did not end well."""
        return self.nodes[part] - (self.ended - self.crashed)


def execute(
    workflow: Any,
    participants: Sequence[str],
    settings: Settings,
    plugin: tuple[str, Mapping[str, Any]] | None = None,
    on_done: Callable[[str], None] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Run a workflow that holds one workflow per participant, and perhaps others that these share.

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
    on_done
        Called with the label of a participant as soon as it is finished without failure.

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
    from nipype.pipeline import engine as pe

    check_memory(workflow, settings, plugin)
    _configure_nipype(nipype_config, workflow.config, settings)
    own = {participant_workflow_name(label): label for label in participants}
    shared = shared_part(workflow, own)
    with ExitStack() as stack:
        stack.enter_context(participant_locks(settings.work_dir, participants))
        stack.enter_context(working_in(settings.work_dir / WORKFLOW_NAME / "scratch"))
        if settings.clean_workdir:
            clean_work_dir(settings.work_dir, participants)
        for name in sorted(node.name for node in shared._graph.nodes() if isinstance(node, pe.Workflow)):
            with shared_lock(settings.work_dir, name):
                part = {"template": _node_names(shared, name)}
                reasons = _run(shared, part, settings, plugin)["template"]
            if reasons:
                return dict.fromkeys(participants, reasons)
        parts = {f"sub-{label}": _node_names(workflow, name) for name, label in own.items()}
        done = None if on_done is None else lambda part: on_done(part.removeprefix("sub-"))
        found = _run(workflow, parts, settings, plugin, done)
    return {label: found[f"sub-{label}"] for label in participants}


def shared_part(workflow: Any, own: Container[str]) -> Any:
    """Copy a workflow without the participants' own parts.

    Parameters
    ----------
    workflow
        Nipype workflow of a run.
    own
        Names of the workflows that belong to one participant each.

    Returns
    -------
    nipype.pipeline.engine.Workflow
        Its nodes have the same folders as in the whole.
    """
    copy = deepcopy(workflow)
    copy.remove_nodes([node for node in copy._graph.nodes() if node.name in own])
    return copy


def _run(
    workflow: Any,
    parts: Mapping[str, frozenset[str]],
    settings: Settings,
    plugin: tuple[str, Mapping[str, Any]] | None,
    on_done: Callable[[str], None] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Run a workflow to its end and say why its parts failed, if they did."""
    progress = Progress(parts, on_done=on_done)
    runner = make_runner(workflow, settings, plugin)
    runner._status_callback = progress
    stopped = ""
    try:
        workflow.run(plugin=runner)
    except Exception as error:
        stopped = f"{type(error).__name__}: {error}"
        LOGGER.debug("the workflow ended with an error\n%s", traceback.format_exc())
    finally:
        if hasattr(runner, "close"):
            runner.close()
        if settings.resource_monitor:
            _write_resources(workflow, settings)
    return {part: _reasons(part, progress, settings, stopped) for part in parts}


def _reasons(part: str, progress: Progress, settings: Settings, stopped: str) -> tuple[str, ...]:
    """Say why a part of the workflow failed, if it did."""
    unfinished = progress.unfinished(part)
    if not unfinished:
        return ()
    own = participant_log_dir(settings, part.removeprefix("sub-"))
    failures = read_failures(own if part.startswith("sub-") else shared_log_dir(settings))
    if failures:
        return tuple(dict.fromkeys(map(str, failures)))
    if settings.stop_on_first_crash:
        left = f"{len(unfinished)} steps are left"
        return (f"not finished, because the run was stopped at a failure elsewhere ({left})",)
    return (f"{len(unfinished)} steps did not run; {stopped or 'the scheduler gave no reason'}",)


def _node_names(workflow: Any, name: str) -> frozenset[str]:
    """Names of the nodes of one part of a workflow that will be executed."""
    from nipype.interfaces.utility import IdentityInterface

    return frozenset(
        node.fullname
        for node in workflow._create_flat_graph().nodes()
        if node.fullname.startswith(f"{workflow.name}.{name}.")
        and not isinstance(node.interface, IdentityInterface)
    )


def _configure_nipype(
    nipype_config: Any, workflow_config: MutableMapping[str, Any], settings: Settings
) -> None:
    """Set Nipype's options, also in the workflow, which holds a copy from the time it was built."""
    execution = {
        "crashdump_dir": str(shared_log_dir(settings)),
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
    nipype_config.update_config({"execution": execution})
    workflow_config.setdefault("execution", {}).update(execution)
    if settings.resource_monitor:
        nipype_config.enable_resource_monitor()


def make_runner(workflow: Any, settings: Settings, plugin: tuple[str, Mapping[str, Any]] | None) -> Any:
    """Make the Nipype plugin that runs the nodes.

    Parameters
    ----------
    workflow
        Workflow that will be run.
    settings
        Settings of this run.
    plugin
        Name and arguments from ``--use-plugin``; ``None`` is our own MultiProc.
    """
    import nipype.pipeline.plugins as plugins

    from hyperprep.bidsapp.scheduler import MultiProcPlugin
    from hyperprep.bidsapp.slurm import plugins as slurm

    name, given = plugin or ("MultiProc", {})
    if name in SLURM_PLUGINS:
        return getattr(slurm, f"{name}Plugin")(plugin_args=dict(given))
    if name != "MultiProc":
        return getattr(plugins, f"{name}Plugin")(plugin_args=dict(given))
    uses_gpu = any(node.is_gpu_node() for node in workflow._create_flat_graph().nodes())
    gpus = usable_gpus(workflow) if uses_gpu else 0
    arguments = {
        "n_procs": settings.nprocs,
        "memory_gb": allowed_gb(settings),
        "n_gpu_procs": settings.threads_per_node * gpus if uses_gpu else 0,
        "n_gpus": gpus,
        "raise_insufficient": False,
        "log_level": nipype_level(settings.verbose),
        "monitor": settings.resource_monitor,
    }
    return MultiProcPlugin(plugin_args={**arguments, **given})


def usable_gpus(workflow: Any) -> int:
    """Count the GPUs among which nodes are spread; one where a GPU is named by its number."""
    wanted = {getattr(node.inputs, "device", "") for node in workflow._create_flat_graph().nodes()}
    return count_gpus() if "cuda" in wanted else 1


def _write_resources(workflow: Any, settings: Settings) -> None:
    """Gather what the monitor recorded per node into one table in ``logs/``."""
    import pandas as pd

    rows = []
    for node in workflow._create_flat_graph().nodes():
        node.base_dir = workflow.base_dir
        node.config = workflow.config
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
    if rows:
        path = shared_log_dir(settings) / "resources.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.3f")
        LOGGER.info("memory and load of each step: %s", path)
