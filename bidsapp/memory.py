"""The memory a run may fill, compared with what its largest step needs before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.bidsapp.resources import available_memory_gb
from hyperprep.exceptions import UsageError

Plugin = tuple[str, Mapping[str, Any]] | None


def allowed_gb(settings: Settings) -> float:
    """Memory that the scheduler may fill, GB: what was asked for, or 90 % of what there is."""
    return settings.mem_gb if settings.mem_gb is not None else 0.9 * available_memory_gb()


def check_plugin(settings: Settings, plugin: Plugin) -> None:
    """Check that ``--mem`` will be obeyed.

    Raises
    ------
    UsageError
        If the plugin asked for takes its memory from elsewhere.
    """
    if plugin is None or settings.mem_gb is None:
        return
    name, arguments = plugin
    if name != "MultiProc" or "memory_gb" in arguments:
        raise UsageError(
            f"--mem {settings.mem_gb:g}GB has no effect with --use-plugin {settings.use_plugin} ({name}): "
            "leave --mem out, and set the memory in the file's 'plugin_args'"
        )


def check_memory(workflow: Any, settings: Settings, plugin: Plugin = None) -> None:
    """Compare what each step needs with what is allowed.

    Parameters
    ----------
    workflow
        Nipype workflow of the whole run.
    settings
        Settings of this run.
    plugin
        Plugin asked for; only our own scheduler and MultiProc look at the memory of steps.

    Raises
    ------
    UsageError
        If ``--mem`` allows less than a step needs. Too small a machine is only warned of.
    """
    name, arguments = plugin or ("MultiProc", {})
    if name != "MultiProc":
        return
    allowed = float(arguments.get("memory_gb", allowed_gb(settings)))
    nodes = [node for node in workflow._create_flat_graph().nodes() if node.mem_gb > allowed]
    if not nodes:
        return
    largest = max(nodes, key=lambda node: node.mem_gb)
    message = (
        f"the step {largest.name} ({largest.fullname}) needs about {largest.mem_gb:g} GB of memory for "
        "images of this size"
    )
    if settings.mem_gb is not None:
        raise UsageError(
            f"--mem: {message}, and {allowed:g} GB are allowed; give --mem {math.ceil(largest.mem_gb)}GB or "
            f"more{_machine(largest.mem_gb)}"
        )
    LOGGER.warning("%s, and only %.1f GB are there: it may be ended by the system", message, allowed)


def _machine(needed_gb: float) -> str:
    there = available_memory_gb()
    if there >= needed_gb:
        return f" (this machine has {there:.1f} GB)"
    return f", on another machine: this one has {there:.1f} GB"
