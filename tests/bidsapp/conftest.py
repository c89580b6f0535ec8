"""A tiny BIDS dataset, and a run whose graph is three small nodes per participant instead of networks."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.cli.main import main
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import WORKFLOW_NAME, send_crashes_to
from hyperprep.bidsapp.logs import participant_log_dir
from hyperprep.workflows.participant import participant_workflow_name


def write_scan(path: Path, *, seed: int = 0) -> Path:
    """Write a small image that is valid in every respect (7 x 8 x 9 voxels of 20 mm)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).uniform(0, 100, (7, 8, 9)).astype("f4")
    nb.Nifti1Image(data, np.diag([20.0, 20, 20, 1])).to_filename(path)
    return path


def write_dataset(root: Path) -> Path:
    """Write a data set: sub-01 with two sessions, sub-02 and sub-03 without sessions."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"})
    )
    (root / "README").write_text(
        "A tiny data set for tests, with images of random numbers and nothing else.\n"
    )
    write_scan(root / "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz", seed=1)
    write_scan(root / "sub-01/ses-post/anat/sub-01_ses-post_T1w.nii.gz", seed=2)
    write_scan(root / "sub-02/anat/sub-02_T1w.nii.gz", seed=3)
    write_scan(root / "sub-03/anat/sub-03_T1w.nii.gz", seed=4)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The tiny data set, in a folder with a space in its name."""
    return write_dataset(tmp_path / "my data")


@pytest.fixture
def settings(dataset: Path, tmp_path: Path) -> Settings:
    """Settings of a run over the tiny data set."""
    return Settings(
        bids_dir=dataset,
        output_dir=tmp_path / "out",
        analysis_level="participant",
        work_dir=tmp_path / "work dir",
        nprocs=1,
        run_uuid="test",
    )


def copy_in_three_steps(label: str, source: str, target: str, *, name: str, fail: str = "") -> object:
    """Build a workflow that reads a file, notes that it ran, and copies the file; it may fail on the way."""
    import nipype.interfaces.utility as niu
    from nipype.pipeline import engine as pe

    def first(source: str) -> str:
        return source

    def second(source: str, fail: str) -> str:
        if fail:
            from hyperprep.exceptions import ScanError

            raise ScanError(fail)
        return source

    def third(source: str, folder: str, file_name: str) -> str:
        import os
        import shutil

        target = os.path.join(folder, file_name)
        os.makedirs(folder, exist_ok=True)
        with open(target + ".count", "a") as stream:
            stream.write("x")
        return shutil.copyfile(source, target)

    workflow = pe.Workflow(name=name)
    one = pe.Node(niu.Function(function=first, output_names=["source"]), name="read")
    two = pe.Node(niu.Function(function=second, output_names=["source"]), name="check")
    three = pe.Node(niu.Function(function=third, output_names=["target"]), name="write")
    one.inputs.source = source
    two.inputs.fail = fail
    three.inputs.folder, three.inputs.file_name = target.rsplit("/", 1)
    workflow.connect([(one, two, [("source", "source")]), (two, three, [("source", "source")])])
    return workflow


def small_workflow(
    settings: Settings, inputs: Sequence[object], fail: dict[str, str] | None = None
) -> object:
    """Build the graph of a run from small nodes; participants in `fail` raise that message."""
    from niworkflows.engine.workflows import LiterateWorkflow

    workflow = LiterateWorkflow(name=WORKFLOW_NAME, base_dir=str(settings.work_dir))
    workflow.__desc__ = "A file was copied [@nipype1].\n"
    for participant in inputs:
        if participant.sessions:
            label = participant.label
            one = copy_in_three_steps(
                label,
                str(participant.sessions[0].scan.t1w),
                str(settings.output_dir / f"sub-{label}" / "anat" / f"sub-{label}_desc-preproc_T1w.nii.gz"),
                name=participant_workflow_name(label),
                fail=(fail or {}).get(label, ""),
            )
            workflow.add_nodes([one])
            send_crashes_to(one, participant_log_dir(settings, label))
    return workflow


@dataclass
class StubbedApp:
    """The program with small nodes for networks, and a list of what its reports were told."""

    fail: dict[str, str] = field(default_factory=dict)
    reports: list[dict[str, object]] = field(default_factory=list)
    broken_report: str = ""
    run: Callable[..., int] = main


@pytest.fixture
def clean_process() -> Iterator[None]:
    """Undo what the program changes in its process: environment and signal handler."""
    environ, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    os.environ.clear()
    os.environ.update(environ)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_process: None) -> StubbedApp:
    """The program whose graph, weights and reports are stubs; everything else is real."""
    stub = StubbedApp()
    monkeypatch.chdir(tmp_path)

    def write_participant_report(output_dir: Path, subject: str, **told: object) -> Path:
        stub.reports.append({"subject": subject, **told})
        if subject == stub.broken_report:
            raise RuntimeError("no figures")
        report = output_dir / f"sub-{subject}.html"
        report.write_text("report")
        return report

    module = types.ModuleType("hyperprep.bidsapp.reports.participant")
    module.write_participant_report = write_participant_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("hyperprep.bidsapp.preflight.check_weights", lambda folder: {})
    monkeypatch.setattr(
        "hyperprep.bidsapp.app.build_workflow",
        lambda settings, plan, inputs: small_workflow(settings, inputs, stub.fail),
    )
    return stub


@pytest.fixture
def make_workflow() -> Callable[..., object]:
    """Builder of a run's graph from small nodes."""
    return small_workflow


@pytest.fixture
def make_scan() -> Callable[..., Path]:
    """Writer of a small valid image."""
    return write_scan
