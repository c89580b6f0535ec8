"""Nodes on GPUs: who shares one with whom, seen by the true scheduler over nodes that only pretend to run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import build_workflow
from hyperprep.bidsapp.preflight import Plan
from hyperprep.bidsapp.query import find_inputs
from hyperprep.bidsapp.resources import count_gpus, device_of_run
from hyperprep.bidsapp.run import execute
from hyperprep.bidsapp.scheduler import MultiProcPlugin
from hyperprep.exceptions import UsageError

LABELS = ("01", "02", "03")


class Watched:
    """Takes the place of the workers and notes which nodes run at the same time on which device."""

    def __init__(self) -> None:
        self.running: dict[int, str] = {}
        self.polls: Counter[int] = Counter()
        self.most: Counter[str] = Counter()
        self.used: set[str] = set()

    def start(self, taskid: int, node: Any, *_: Any) -> None:
        if node.is_gpu_node():
            self.running[taskid] = node.inputs.device
            self.used.add(node.inputs.device)
            for device, count in Counter(self.running.values()).items():
                self.most[device] = max(self.most[device], count)

    def result(self, taskid: int) -> dict[str, Any] | None:
        self.polls[taskid] += 1
        if self.polls[taskid] < 3:
            return None
        self.running.pop(taskid, None)
        return {"result": None, "traceback": None}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    """Run the graph of three participants over pretended workers."""

    def run(device: str, gpus: int, plugin: Any = None) -> Watched:
        seen = Watched()
        monkeypatch.setattr(MultiProcPlugin, "_start", lambda self, *words, **_: seen.start(*words))
        monkeypatch.setattr(MultiProcPlugin, "_get_result", lambda self, taskid: seen.result(taskid))
        monkeypatch.setattr(MultiProcPlugin, "_clear_task", lambda self, taskid: self._gpus.pop(taskid, None))
        monkeypatch.setattr("hyperprep.bidsapp.run.count_gpus", lambda: gpus)
        wide = replace(settings, nprocs=8, omp_nthreads=1, mem_gb=100.0)
        wide.work_dir.mkdir(exist_ok=True)
        plan = Plan(participants=LABELS, device=device)
        workflow = build_workflow(wide, plan, find_inputs(wide, LABELS))
        for node in workflow._get_all_nodes():
            node.run_without_submitting = False
        assert execute(workflow, LABELS, wide, plugin) == dict.fromkeys(LABELS, ())
        return seen

    return run


def test_one_gpu_holds_one_node_at_a_time(watch: Any) -> None:
    seen = watch("cuda", 1)
    assert seen.used == {"cuda:0"}
    assert seen.most == {"cuda:0": 1}


def test_two_gpus_hold_one_node_each(watch: Any) -> None:
    seen = watch("cuda", 2)
    assert seen.used == {"cuda:0", "cuda:1"}
    assert set(seen.most.values()) == {1}


def test_a_gpu_named_by_its_number_is_the_only_one(watch: Any) -> None:
    seen = watch("cuda:1", 4)
    assert seen.most == {"cuda:1": 1}


def test_nodes_share_a_gpu_where_that_is_asked_for(watch: Any) -> None:
    seen = watch("cuda", 1, ("MultiProc", {"n_gpu_procs": 2}))
    assert seen.most == {"cuda:0": 2}


def test_cpu_nodes_are_no_gpu_nodes(watch: Any) -> None:
    assert watch("cpu", 1).used == set()


def test_slurm_gives_gpus_that_are_not_here() -> None:
    assert device_of_run("cuda", ("SLURMGraph", {})) == "cuda"
    assert device_of_run("auto", ("SLURM", {})) == "cpu"
    with pytest.raises(UsageError, match="Slurm chooses the GPU"):
        device_of_run("cuda:1", ("SLURM", {}))


@pytest.mark.parametrize(("visible", "count"), [("0", 1), ("2,3", 2), ("", 1)])
def test_visible_gpus_are_counted(visible: str, count: int) -> None:
    assert count_gpus({"CUDA_VISIBLE_DEVICES": visible}) == count
