"""Nipype's Slurm plugins on a real Slurm: steps as jobs, jobs that die, and a whole participant."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import send_crashes_to
from hyperprep.bidsapp.logs import participant_log_dir
from hyperprep.bidsapp.run import execute

pytestmark = pytest.mark.hpc
PLUGINS = ("SLURM", "SLURMGraph")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bids_dir=tmp_path,
        output_dir=tmp_path / "out",
        analysis_level="participant",
        work_dir=tmp_path / "work",
        run_uuid="test",
    )


def steps(settings: Settings, *, eat_gb: float = 0.0, fail: str = "") -> Any:
    """Two participants; the steps of the first need memory or fail, those of the second are well."""
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe

    def first(gigabytes: float, fail: str) -> str:
        import os
        import time

        if fail:
            raise ValueError(fail)
        held = bytearray(int(gigabytes * 1e9))
        for place in range(0, len(held), 4096):
            held[place] = 1
        time.sleep(8 if gigabytes else 0)
        return ",".join([os.environ["SLURM_CPUS_PER_TASK"], os.environ["SLURM_MEM_PER_NODE"]])

    def second(word: str) -> str:
        return word + "!"

    workflow = pe.Workflow(name="whole_wf", base_dir=str(settings.work_dir))
    for label, gigabytes, message in (("01", eat_gb, fail), ("02", 0.0, "")):
        one = pe.Workflow(name=f"sub_{label}_wf")
        a = pe.Node(niu.Function(function=first, output_names=["word"]), name="first", n_procs=2, mem_gb=0.3)
        a.inputs.gigabytes, a.inputs.fail = gigabytes, message
        b = pe.Node(niu.Function(function=second, output_names=["word"]), name="second", mem_gb=0.1)
        one.connect([(a, b, [("word", "word")])])
        workflow.add_nodes([one])
        send_crashes_to(one, participant_log_dir(settings, label))
    return workflow


def result(settings: Settings, label: str) -> str:
    from nipype.utils.filemanip import loadpkl

    path = settings.work_dir / "whole_wf" / f"sub_{label}_wf" / "second" / "result_second.pklz"
    return str(loadpkl(str(path)).outputs.word)


@pytest.mark.parametrize("name", PLUGINS)
def test_steps_get_what_they_declare(slurm: Any, settings: Settings, name: str) -> None:
    settings.work_dir.mkdir()
    done: list[str] = []
    errors = execute(steps(settings), ("01", "02"), settings, (name, {}), on_done=done.append)
    assert errors == {"01": (), "02": ()}
    assert result(settings, "01") == "2,1000!"
    assert sorted(done) == ["01", "02"]
    again = execute(steps(settings), ("01", "02"), settings, (name, {}))
    assert again == {"01": (), "02": ()}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_failure_is_told_and_the_others_finish(slurm: Any, settings: Settings, name: str) -> None:
    settings.work_dir.mkdir()
    errors = execute(steps(settings, fail="upside down"), ("01", "02"), settings, (name, {}))
    assert errors["02"] == ()
    assert len(errors["01"]) == 1
    assert "step first" in errors["01"][0]
    assert "ValueError: upside down" in errors["01"][0]


@pytest.mark.parametrize("name", PLUGINS)
def test_a_job_that_is_killed_is_a_failure_in_words(slurm: Any, settings: Settings, name: str) -> None:
    settings.work_dir.mkdir()
    arguments = {"poll_seconds": 0.5, "result_timeout": 3}
    errors = execute(steps(settings, eat_gb=2.0), ("01", "02"), settings, (name, arguments))
    assert errors["02"] == ()
    assert len(errors["01"]) == 1
    assert "of this step ended as" in errors["01"][0]
    assert "--mem" in errors["01"][0]
    assert slurm.ask("squeue", "-h") == ""  # nothing waits for a step that will never be done


@pytest.mark.parametrize("name", PLUGINS)
def test_what_slurm_refuses_is_told(slurm: Any, settings: Settings, name: str) -> None:
    settings.work_dir.mkdir()
    arguments = {"sbatch_args": "--partition=nowhere", "max_tries": 0}
    errors = execute(steps(settings), ("01", "02"), settings, (name, arguments))
    assert "Slurm did not take the step" in errors["01"][0]
    assert "mend sbatch_args" in errors["01"][0]


@pytest.mark.parametrize("name", PLUGINS)
def test_a_participant(slurm: Any, demo_dataset: Path, repository: Path, tmp_path: Path, name: str) -> None:
    plugin = tmp_path / "plugin.yml"
    plugin.write_text(f"plugin: {name}\nplugin_args: {{poll_seconds: 1}}\n")
    out = tmp_path / "out"
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    environ.pop("LOGNAME", None)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hyperprep.bidsapp", str(demo_dataset), str(out), "participant",
         "--participant-label", "02", "-w", str(tmp_path / "work"), "--use-plugin", str(plugin),
         "--lambda", "0.5", "--refine", "none", "--nprocs", "2", "--skip-bids-validation"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(f"{name}: {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "sub-02.html").is_file()
    assert (out / "sub-02" / "anat" / "sub-02_seg-hyperprep_dseg.nii.gz").is_file()
