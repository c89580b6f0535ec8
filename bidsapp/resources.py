"""What a run computes with: scheduler plugin, device, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hyperprep.exceptions import DeviceError, UsageError

#: Plugins that make a Slurm job of each step; ours take the place of Nipype's.
SLURM_PLUGINS = ("SLURM", "SLURMGraph")


def read_plugin(path: Path | None) -> tuple[str, Mapping[str, Any]] | None:
    """Read a file that names a Nipype plugin, as fMRIPrep takes it.

    Raises
    ------
    UsageError
        If it is no YAML or JSON mapping, or the plugin is unknown or does not wait for its jobs.
    """
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--use-plugin {path} is neither YAML nor JSON: {error}") from error
    example = "plugin: MultiProc\nplugin_args: {n_procs: 4}"
    if not isinstance(content, dict) or set(content) - {"plugin", "plugin_args"} or "plugin" not in content:
        raise UsageError(f"--use-plugin {path} must hold 'plugin' and 'plugin_args' only, as in:\n{example}")
    name, arguments = content["plugin"], content.get("plugin_args") or {}
    if not isinstance(arguments, dict):
        raise UsageError(f"--use-plugin {path}: 'plugin_args' must be a mapping, not {arguments!r}")
    import nipype.pipeline.plugins as plugins

    known = sorted(key.removesuffix("Plugin") for key in vars(plugins) if key.endswith("Plugin"))
    if name not in known:
        raise UsageError(f"--use-plugin {path}: unknown plugin {name!r}; Nipype has {', '.join(known)}")
    if name in SLURM_PLUGINS:
        from hyperprep.bidsapp.slurm.plugins import check_arguments
        from hyperprep.bidsapp.slurm.queue import require_slurm

        check_arguments(name, arguments)
        require_slurm(f"--use-plugin {path}")
        return name, arguments
    if name.endswith(("Graph", "DAGMan", "Debug", "SomaFlow")):
        raise UsageError(
            f"--use-plugin {path}: {name} does not wait for its jobs, so no report could be written; "
            "use SLURM, SLURMGraph, SGE, PBS or MultiProc"
        )
    return name, arguments


def resolve_device(name: str) -> str:
    """Decide on the device, asking the network library in a process of its own.

    Parameters
    ----------
    name
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    str
        ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` becomes ``cuda`` only where there is one.

    Raises
    ------
    DeviceError
        If a device is named that is not there.
    """
    if name == "cpu" or (name == "auto" and not _has_gpu_driver()):
        return "cpu"
    program = (
        "import sys\n"
        "from hyperprep.exceptions import DeviceError\n"
        "from hyperprep.models.predict.device import pick_device\n"
        "try:\n    print('device', pick_device(sys.argv[1]))\n"
        "except DeviceError as error:\n    print('error', error)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program, name], env=environ, capture_output=True, text=True, check=False
    )
    kind, _, text = (done.stdout.strip().splitlines() or ["error " + done.stderr.strip()[-500:]])[
        -1
    ].partition(" ")
    if kind != "device":
        raise DeviceError(text or f"the device {name!r} could not be checked")
    return text


def device_of_run(name: str, plugin: tuple[str, Mapping[str, Any]] | None) -> str:
    """Decide on the device of a run: where Slurm gives each step its GPU, none need be here.

    Parameters
    ----------
    name
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    plugin
        What :func:`read_plugin` found.

    Raises
    ------
    UsageError
        If a GPU is named by its number although Slurm chooses it.
    DeviceError
        If a device is named that is not there.

    Examples
    --------
    >>> device_of_run("cuda", ("SLURM", {}))
    'cuda'
    """
    if plugin is None or plugin[0] not in SLURM_PLUGINS:
        return resolve_device(name)
    if name.startswith("cuda:"):
        raise UsageError(f"--device {name}: Slurm chooses the GPU of each job; write --device cuda")
    return "cuda" if name == "cuda" else "cpu"


def count_gpus(environ: Mapping[str, str] = os.environ) -> int:
    """Count the GPUs that this process may use, at least one; asked only where a GPU is known to be.

    Parameters
    ----------
    environ
        Environment; ``CUDA_VISIBLE_DEVICES`` narrows the choice.

    Examples
    --------
    >>> count_gpus({"CUDA_VISIBLE_DEVICES": "0,2"})
    2
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([one for one in visible.split(",") if one.strip()]))
    from nipype.utils.gpu_count import gpu_count

    return max(1, int(gpu_count()))


def _has_gpu_driver() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version"))


def available_memory_gb(root: Path = Path("/")) -> float:
    """Memory (GB) of this machine, or of the control group this process is held in, the tightest of all.

    Parameters
    ----------
    root
        Root of the file system.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _limit_files(root):
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue  # no such group, or "max"
    return total / 1e9


def _limit_files(root: Path) -> list[Path]:
    """Files that may hold a memory limit: of the groups of this process, and of all above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for line in ("0::/", "0:memory:/", *lines):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        found += [top.joinpath(*parts[:depth], name) for depth in range(len(parts) + 1)]
    return found
