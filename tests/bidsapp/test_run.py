"""Runs of small nodes: who failed and why, resuming, killed workers, killed runs, locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.locks import clean_work_dir, participant_locks
from hyperprep.bidsapp.query import find_inputs
from hyperprep.bidsapp.run import execute, make_runner
from hyperprep.exceptions import OutputError, UsageError

LABELS = ("01", "02", "03")
#: Runs the nodes in this process, without the time it takes to start workers.
HERE = ("Linear", {})


def output(settings: Settings, label: str) -> Path:
    return settings.output_dir / f"sub-{label}" / "anat" / f"sub-{label}_desc-preproc_T1w.nii.gz"


def runs(settings: Settings, label: str) -> int:
    """How often a participant's last node was executed."""
    return len(output(settings, label).with_name(output(settings, label).name + ".count").read_text())


def test_all_participants_are_written(settings: Settings, make_workflow: Callable[..., object]) -> None:
    workflow = make_workflow(settings, find_inputs(settings, LABELS))
    assert execute(workflow, LABELS, settings, HERE) == {"01": (), "02": (), "03": ()}
    assert all(output(settings, label).is_file() for label in LABELS)


@pytest.mark.parametrize("plugin", [None, HERE], ids=["MultiProc", "Linear"])
def test_a_failure_is_told_in_words_and_the_others_finish(
    settings: Settings, make_workflow: Callable[..., object], plugin: tuple[str, dict[str, object]] | None
) -> None:
    workflow = make_workflow(settings, find_inputs(settings, LABELS), {"02": "the scan is upside down"})
    errors = execute(workflow, LABELS, settings, plugin)
    assert errors["01"] == errors["03"] == ()
    (reason,) = errors["02"]
    assert "step check" in reason
    assert "failed: the scan is upside down (details: " in reason
    (crash,) = (settings.output_dir / "sub-02" / "log" / "test").glob("crash-*.txt")
    assert str(crash) in reason
    assert output(settings, "03").is_file()
    assert not output(settings, "02").exists()


def test_participants_are_finished_one_after_the_other(
    settings: Settings, make_workflow: Callable[..., object]
) -> None:
    done: list[str] = []
    workflow = make_workflow(settings, find_inputs(settings, LABELS))
    execute(workflow, LABELS, settings, on_done=done.append)
    assert done == list(LABELS)
    times = {
        label: (
            (settings.work_dir / workflow.name / f"sub_{label}_wf/read/result_read.pklz").stat().st_mtime_ns,
            output(settings, label).stat().st_mtime_ns,
        )
        for label in LABELS
    }
    assert times["01"][1] <= times["02"][0]
    assert times["02"][1] <= times["03"][0]


def test_finished_nodes_are_not_run_again(settings: Settings, make_workflow: Callable[..., object]) -> None:
    inputs = find_inputs(settings, LABELS[1:])
    execute(make_workflow(settings, inputs, {"02": "first time"}), LABELS[1:], settings, HERE)
    second = replace(settings, run_uuid="second")
    assert execute(make_workflow(second, inputs), LABELS[1:], second, HERE) == {"02": (), "03": ()}
    assert (runs(settings, "02"), runs(settings, "03")) == (1, 1)


def test_clean_workdir_deletes_the_chosen_participants_only(
    settings: Settings, make_workflow: Callable[..., object]
) -> None:
    inputs = find_inputs(settings, LABELS[1:])
    execute(make_workflow(settings, inputs), LABELS[1:], settings, HERE)
    (settings.work_dir / "mine.txt").write_text("keep")
    clean_work_dir(settings.work_dir, ["02"])
    again = replace(settings, clean_workdir=False)
    execute(make_workflow(again, inputs), LABELS[1:], again, HERE)
    assert (runs(settings, "02"), runs(settings, "03")) == (2, 1)
    assert (settings.work_dir / "mine.txt").exists()


def test_stop_on_first_crash_leaves_the_rest(
    settings: Settings, make_workflow: Callable[..., object]
) -> None:
    stopping = replace(settings, stop_on_first_crash=True)
    failing = dict.fromkeys(LABELS, "broken")
    errors = execute(make_workflow(stopping, find_inputs(settings, LABELS), failing), LABELS, stopping, HERE)
    assert all(errors.values())
    assert sum("broken" in " ".join(found) for found in errors.values()) == 1
    assert sum("run was stopped" in " ".join(found) for found in errors.values()) == 2


def _with_killer(settings: Settings, times: int, neighbour_seconds: float = 0) -> object:
    """One participant whose node kills its own process a number of times, and one that is well."""
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe

    from hyperprep.bidsapp.graph import send_crashes_to
    from hyperprep.bidsapp.logs import participant_log_dir

    def kill(counter: str, times: int, seconds: float) -> int:
        import os
        import signal
        import time

        time.sleep(seconds)

        with open(counter, "a+") as stream:
            stream.write("x")
            stream.seek(0)
            count = len(stream.read())
        if count <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    workflow = pe.Workflow(name="hyperprep_wf", base_dir=str(settings.work_dir))
    for label, deaths in (("01", times), ("02", 0)):
        one = pe.Workflow(name=f"sub_{label}_wf")
        node = pe.Node(niu.Function(function=kill, output_names=["count"]), name="kill", mem_gb=0.3)
        node.inputs.counter = str(settings.work_dir / f"counter-{label}")
        node.inputs.times = deaths
        node.inputs.seconds = 0 if deaths else neighbour_seconds
        one.add_nodes([node])
        workflow.add_nodes([one])
        send_crashes_to(one, participant_log_dir(settings, label))
    return workflow


@pytest.mark.parametrize(("deaths", "fails"), [(1, False), (9, True)])
def test_a_killed_worker_neither_hangs_the_run_nor_harms_others(
    settings: Settings, deaths: int, fails: bool
) -> None:
    settings.work_dir.mkdir()
    errors = execute(_with_killer(settings, deaths), ("01", "02"), settings)
    assert errors["02"] == ()
    assert bool(errors["01"]) is fails
    if fails:
        assert "memory ran out (the step expects 0.3 GB)" in errors["01"][0]


def test_a_step_that_is_killed_twice_does_not_take_its_slow_neighbour_along(settings: Settings) -> None:
    settings.work_dir.mkdir()
    two = replace(settings, nprocs=2, omp_nthreads=1)
    errors = execute(_with_killer(two, 9, neighbour_seconds=3.0), ("01", "02"), two)
    assert errors["01"]
    assert errors["02"] == ()


DRIVER = """
    import sys, time
    from pathlib import Path
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe
    from hyperprep.bidsapp.config import Settings
    from hyperprep.bidsapp.run import execute

    def step(folder, name, wait, previous=""):
        import os, time
        path = os.path.join(folder, name)
        with open(path, "a") as stream:
            stream.write(f"{os.getpid()}\\n")
        time.sleep(wait)
        with open(path + ".done", "a") as stream:
            stream.write("x")
        return name

    def main():
        root = Path(sys.argv[1])
        settings = Settings(bids_dir=root, output_dir=root / "out", analysis_level="participant",
                            work_dir=root / "work", nprocs=1, run_uuid="r")
        inner = pe.Workflow(name="sub_01_wf")
        fast = pe.Node(niu.Function(function=step, output_names=["name"]), name="fast")
        slow = pe.Node(niu.Function(function=step, output_names=["name"]), name="slow")
        fast.inputs.folder, fast.inputs.name, fast.inputs.wait = str(root), "fast", 0
        slow.inputs.folder, slow.inputs.name = str(root), "slow"
        slow.inputs.wait = 3 if (root / "slow").exists() else 600
        if sys.argv[2:] == ["keep-inputs"]:
            slow.inputs.wait = 600
        inner.connect([(fast, slow, [("name", "previous")])])
        outer = pe.Workflow(name="hyperprep_wf", base_dir=str(settings.work_dir))
        outer.add_nodes([inner])
        errors = execute(outer, ["01"], settings)
        sys.exit(bool(errors["01"]))

    if __name__ == "__main__":
        main()
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_a_killed_run_leaves_no_worker_and_continues(tmp_path: Path, repository: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    command = [sys.executable, str(script), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    first = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    slow = tmp_path / "slow"
    assert _wait_until(lambda: slow.exists() and slow.read_text().endswith("\n"), 240)
    worker = int(slow.read_text())
    busy = subprocess.run([*command, "keep-inputs"], env=environ, capture_output=True, text=True, timeout=240)
    assert "another run is processing sub-01" in busy.stderr
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert _wait_until(lambda: not _alive(worker), 30), "the worker outlived the run that was killed"
    assert not (tmp_path / "slow.done").exists()
    second = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "fast.done").read_text() == "x", "a finished node was run again"
    assert (tmp_path / "slow.done").read_text() == "x"


def test_two_runs_cannot_process_one_participant_in_one_folder(tmp_path: Path) -> None:
    with ExitStack() as runs:
        runs.enter_context(participant_locks(tmp_path, ["01"]))
        runs.enter_context(participant_locks(tmp_path, ["02"]))
        with pytest.raises(OutputError, match="another run is processing sub-02"):
            runs.enter_context(participant_locks(tmp_path, ["02"]))
    with participant_locks(tmp_path, ["01", "02"]):
        pass


def with_template(
    settings: Settings, labels: tuple[str, ...], *, fail: str = "", name: str = "tpl_wf"
) -> object:
    """Participants that read what a shared workflow made from a file given at the top."""
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe

    def prepare(word: str, folder: str, fail: str) -> str:
        import os

        if fail:
            raise ValueError(fail)
        with open(os.path.join(folder, "prepared"), "a") as stream:
            stream.write(word)
        return word

    def use(word: str) -> str:
        return word

    workflow = pe.Workflow(name="whole_wf", base_dir=str(settings.work_dir))
    top = pe.Node(niu.IdentityInterface(fields=["word"]), name="inputnode")
    top.inputs.word = "w"
    shared = pe.Workflow(name=name)
    node = pe.Node(niu.Function(function=prepare, output_names=["word"]), name="prepare")
    node.inputs.folder, node.inputs.fail = str(settings.work_dir), fail
    shared.add_nodes([node])
    workflow.connect([(top, shared, [("word", "prepare.word")])])
    for label in labels:
        one = pe.Workflow(name=f"sub_{label}_wf")
        one.add_nodes([pe.Node(niu.Function(function=use, output_names=["word"]), name="use")])
        workflow.connect([(shared, one, [("prepare.word", "use.word")])])
    return workflow


def test_the_shared_part_is_run_once_for_all(settings: Settings) -> None:
    settings.work_dir.mkdir()
    assert execute(with_template(settings, LABELS[:2]), LABELS[:2], settings, HERE) == {"01": (), "02": ()}
    later = replace(settings, run_uuid="later")
    assert execute(with_template(later, LABELS[2:]), LABELS[2:], later, HERE) == {"03": ()}
    assert (settings.work_dir / "prepared").read_text() == "w"


def test_a_failure_of_the_shared_part_is_everybodys(settings: Settings) -> None:
    settings.work_dir.mkdir()
    errors = execute(with_template(settings, LABELS, fail="no brain in it"), LABELS, settings, HERE)
    assert set(errors) == set(LABELS)
    for reasons in errors.values():
        assert "step prepare (whole_wf.tpl_wf.prepare) failed: ValueError: no brain in it" in reasons[0]


def test_too_little_memory_is_refused_when_asked_for(settings: Settings) -> None:
    settings.work_dir.mkdir()
    workflow = _with_killer(settings, 0)
    wanted = r"step kill \(.*kill\) needs about 0\.3 GB of memory .*, and 0\.2 GB are allowed; give --mem 1GB"
    with pytest.raises(UsageError, match=wanted):
        execute(workflow, LABELS, replace(settings, mem_gb=0.2))
    assert list(settings.work_dir.iterdir()) == []


def test_settings_reach_the_scheduler(settings: Settings) -> None:
    settings.work_dir.mkdir()
    runner = make_runner(_with_killer(settings, 0), replace(settings, nprocs=3, mem_gb=7.0), None)
    assert (runner.processors, runner.memory_gb) == (3, 7.0)
    given = make_runner(_with_killer(settings, 0), settings, ("MultiProc", {"n_procs": 2}))
    assert given.processors == 2
    for one in (runner, given):
        one.close()


def test_resource_monitor_writes_what_each_step_took(
    settings: Settings, make_workflow: Callable[..., object]
) -> None:
    import pandas as pd
    from nipype import config

    try:
        watched = replace(settings, resource_monitor=True)
        execute(make_workflow(watched, find_inputs(watched, ["02"])), ["02"], watched, HERE)
    finally:
        config.disable_resource_monitor()
    table = pd.read_csv(settings.output_dir / "logs" / "test" / "resources.tsv", sep="\t")
    assert list(table["node"].str.rpartition(".")[2]) == ["read", "check", "write"]
    assert (table["peak_memory_gb"] > 0.01).all()
