"""Nipype's Slurm plugins without a Slurm: options of jobs, and plugin files that cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nipype.pipeline.engine import Node

from hyperprep.bidsapp.resources import read_plugin
from hyperprep.bidsapp.slurm.jobs import node_options
from hyperprep.bidsapp.slurm.queue import job_states
from hyperprep.exceptions import UsageError
from hyperprep.interfaces.locate import Locate
from hyperprep.workflows.nodes import model_node


def plugin_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plugin.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{sbatch_arg: a}", "takes no sbatch_arg; it takes"),
        ("{sbatch_args: '--array=1-3'}", "each step is one job"),
        ("{sbatch_args: '\"open'}", "must be words as in a shell"),
    ],
)
@pytest.mark.parametrize("name", ["SLURM", "SLURMGraph"])
def test_what_cannot_work_is_refused(
    tmp_path: Path, programs: Callable[[str, str], Path], name: str, arguments: str, message: str
) -> None:
    programs("sbatch", "")
    with pytest.raises(UsageError, match=message):
        read_plugin(plugin_file(tmp_path, f"plugin: {name}\nplugin_args: {arguments}\n"))


def test_slurm_must_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no sbatch here"):
        read_plugin(plugin_file(tmp_path, "plugin: SLURM\n"))


def test_a_good_file_is_read(tmp_path: Path, programs: Callable[[str, str], Path]) -> None:
    programs("sbatch", "")
    text = "plugin: SLURMGraph\nplugin_args: {sbatch_args: '--partition=long', poll_seconds: 5}\n"
    assert read_plugin(plugin_file(tmp_path, text)) == (
        "SLURMGraph",
        {"sbatch_args": "--partition=long", "poll_seconds": 5},
    )


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("cuda", True)])
def test_a_network_gets_its_cores_memory_and_gpu(device: str, gpu: bool) -> None:
    node = model_node(Locate(), name="locate", device=device, omp_nthreads=4, mem_gb=2.0)
    options = node_options(node)
    assert options[:3] == ["--ntasks=1", "--cpus-per-task=4", "--mem=2700M"]
    assert ("--gres=gpu:1" in options) is gpu
    assert isinstance(node, Node)


def test_forgotten_jobs_and_a_silent_controller_are_told_apart(
    programs: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("sacct", "exit 1")
    programs("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert job_states(["5"]) == {}
    programs("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    assert job_states(["5"]) is None
    programs("squeue", "")
    programs("sacct", "echo '5|OUT_OF_MEMORY'")
    assert job_states(["5"]) == {"5": "OUT_OF_MEMORY"}
