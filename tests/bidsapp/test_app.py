"""The whole program around small nodes: exit codes, messages and what is left on disk."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import nibabel as nb
import numpy as np
import pytest

HERE = "plugin: Linear\n"


class Stub(Protocol):
    fail: dict[str, str]
    reports: list[dict[str, object]]
    broken_report: str
    run: Callable[..., int]


class Run(Protocol):
    def __call__(self, *words: str, level: str = "participant") -> int: ...


@pytest.fixture
def run(app: Stub, dataset: Path, tmp_path: Path) -> Run:
    """Run the program over the tiny data set, nodes in this process."""
    plugin = tmp_path / "plugin.yml"
    plugin.write_text(HERE)

    def call(*words: str, level: str = "participant") -> int:
        base = [str(dataset), str(tmp_path / "out"), level]
        if level == "participant":
            base += ["--use-plugin", str(plugin), "--skip-bids-validation", "-w", str(tmp_path / "work")]
        return app.run([*base, *words])

    return call


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def written(out: Path, label: str) -> bool:
    return (out / f"sub-{label}/anat/sub-{label}_desc-preproc_T1w.nii.gz").is_file()


def test_all_is_well(run: Run, app: Stub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert all(written(out, label) for label in ("01", "02", "03"))
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"HyperPrep processed 3 of 3 participants. Reports: {out}/sub-*.html. Log: ")
    assert Path(last.rpartition("Log: ")[2]).read_text().count("sub-02: processing") == 1
    assert [report["subject"] for report in app.reports] == ["01", "02", "03"]
    assert all(report["errors"] == () for report in app.reports)
    settings = app.reports[0]["settings"]
    assert isinstance(settings, dict)
    assert settings["work_dir"] == str(out.parent / "work")


def test_one_participant_fails_in_a_step(
    run: Run, app: Stub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app.fail["02"] = "the alignment went astray"
    assert run() == 1
    assert (written(out, "01"), written(out, "02"), written(out, "03")) == (True, False, True)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "processed 2 of 3 participants; failed: sub-02. Reports: " in last
    (told,) = [report["errors"] for report in app.reports if report["subject"] == "02"]
    assert isinstance(told, tuple)
    assert "the alignment went astray" in told[0]


def test_a_report_that_fails_is_a_failure(run: Run, app: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    app.broken_report = "03"
    assert run() == 1
    captured = capsys.readouterr()
    assert "failed: sub-03" in captured.out
    assert "sub-03 failed: the report could not be written: RuntimeError: no figures" in captured.err


def test_a_report_is_written_once_when_its_participant_is_done(run: Run, app: Stub) -> None:
    app.fail["01"] = "broken"
    assert run() == 1
    assert [report["subject"] for report in app.reports] == ["02", "03", "01"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def rewritten(data: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        nb.Nifti1Image(data.astype("f4"), np.diag([20.0, 20, 20, 1])).to_filename(path)

    return write


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../.git/annex/objects/gone.nii.gz")


BAD = {
    "no T1w": (Path.unlink, "has no T1w image"),
    "truncated gzip": (truncated, "sub-02_T1w.nii.gz"),
    "no gzip": (lambda path: path.write_bytes(b"PK not an image"), "sub-02_T1w.nii.gz"),
    "NaN": (rewritten(np.full((7, 8, 9), np.nan)), "finite"),
    "4-D": (rewritten(np.random.default_rng(0).uniform(size=(7, 8, 9, 3))), "3"),
    "2-D": (rewritten(np.random.default_rng(0).uniform(size=(7, 8))), "a single slice or line"),
    "zero-size": (lambda path: path.write_bytes(b""), "has zero size"),
    "constant": (rewritten(np.ones((7, 8, 9))), "every voxel has the value 1"),
    "dangling link": (dangling, "is a link whose target is not there"),
    "empty gzip": (lambda path: path.write_bytes(gzip.compress(b"")), "sub-02_T1w.nii.gz"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_scans_fail_alone(
    kind: str, run: Run, app: Stub, dataset: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = BAD[kind]
    spoil(dataset / "sub-02/anat/sub-02_T1w.nii.gz")
    assert run("--participant-label", "02", "03") == 1
    captured = capsys.readouterr()
    assert "processed 1 of 2 participants; failed: sub-02" in captured.out
    (line,) = [line for line in captured.err.splitlines() if "sub-02 failed: " in line]
    assert message in line
    assert "Traceback" not in captured.err
    assert written(out, "03")
    (told,) = [report["errors"] for report in app.reports if report["subject"] == "02"]
    assert isinstance(told, tuple)
    assert message in told[0]
    (record,) = (out / "sub-02/log").glob("*/inputs.json")
    assert message in json.loads(record.read_text())["problems"][0]


def test_only_bad_scans_is_exit_1_and_still_a_report(run: Run, dataset: Path, out: Path) -> None:
    truncated(dataset / "sub-02/anat/sub-02_T1w.nii.gz")
    assert run("--participant-label", "02") == 1
    assert (out / "sub-02.html").is_file()


def test_a_bad_session_leaves_the_other(run: Run, app: Stub, dataset: Path, out: Path) -> None:
    truncated(dataset / "sub-01/ses-post/anat/sub-01_ses-post_T1w.nii.gz")
    assert run("--participant-label", "01") == 1
    assert written(out, "01")


def test_a_bad_derivative_mask_is_told(
    run: Run, tmp_path: Path, make_scan: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mask = make_scan(tmp_path / "der/sub-02/anat/sub-02_desc-brain_mask.nii.gz")
    mask.write_bytes(b"")
    assert run("--participant-label", "02", "-d", f"m={tmp_path / 'der'}") == 1
    assert "sub-02_desc-brain_mask.nii.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--lambda", "2"], 2, "number from 0 to 1"),
        (["--labels", "hipocampus"], 2, "hippocampus"),
        (["--output-spaces", "MNI152NLin6Asym"], 2, "space of the template (MNI152NLin2009aSym)"),
        (["--participant-label", "99"], 66, "unknown participant 99; "),
        (["--template", "NoSuchThing"], 69, "template 'NoSuchThing' is unknown"),
        (["--template", "/no/such.nii.gz"], 69, "there is no file /no/such.nii.gz"),
    ],
)
def test_what_stops_a_run_at_its_start(
    run: Run, out: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not list(out.glob("sub-*"))


def test_all_problems_are_told_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--participant-label", "99", "--template", "NoSuchThing", "--labels", "nolabel"]
    assert run(*words) == 66
    error = capsys.readouterr().err
    assert "3 problems were found before the run" in error
    assert "unknown participant 99" in error
    assert "'NoSuchThing' is unknown" in error
    assert "nolabel" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "dataset_description.json").unlink(), "has no dataset_description.json"),
        (lambda root: (root / "dataset_description.json").write_text("{"), "is not valid JSON"),
        (lambda root: (root / "dataset_description.json").write_text("{}"), "lacks Name and BIDSVersion"),
    ],
)
def test_what_is_no_bids_data_set_is_refused(
    app: Stub,
    dataset: Path,
    tmp_path: Path,
    change: Callable[[Path], object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(dataset)
    assert app.run([str(dataset), str(tmp_path / "out"), "participant"]) == 66
    assert message in capsys.readouterr().err


def test_an_input_that_is_not_there(app: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([str(tmp_path / "nowhere"), str(tmp_path / "out"), "participant"]) == 66
    assert "nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "work", "message"),
    [
        ("my data", "work", "the output folder is the input folder"),
        ("my data/out", "work", "lies inside the input"),
        ("out", "my data/work", "the working folder"),
        ("out", "out", "are both"),
    ],
)
def test_nothing_is_written_into_the_input(
    app: Stub,
    dataset: Path,
    tmp_path: Path,
    output: str,
    work: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(dataset.rglob("*"))
    words = [str(dataset), str(tmp_path / output), "participant", "-w", str(tmp_path / work)]
    assert app.run(words) == 73
    assert message in capsys.readouterr().err
    assert sorted(dataset.rglob("*")) == before


def test_an_output_in_the_inputs_derivatives_is_allowed(app: Stub, dataset: Path, tmp_path: Path) -> None:
    output = dataset / "derivatives" / "hyperprep"
    words = [str(dataset), str(output), "participant", "-w", str(tmp_path / "w"), "--participant-label", "02"]
    assert app.run([*words, "--boilerplate-only"]) == 0
    assert (output / "dataset_description.json").is_file()


def test_an_output_that_cannot_be_made(
    app: Stub, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("")
    assert app.run([str(dataset), str(tmp_path / "a file" / "out"), "participant"]) == 73
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_an_output_of_another_program_is_left_alone(
    run: Run, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    text = json.dumps({"Name": "x", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]})
    (out / "dataset_description.json").write_text(text)
    assert run() == 73
    assert "holds derivatives of fMRIPrep" in capsys.readouterr().err
    assert (out / "dataset_description.json").read_text() == text


def test_missing_weights_are_told(
    app: Stub,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hyperprep.bidsapp import preflight
    from hyperprep.exceptions import WeightsError

    def find_weights(name: str, weights_dir: Path | None) -> None:
        raise WeightsError(f"no weights for {name}")

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hyperprep.models.weights.find_weights", find_weights)
    assert app.run([str(dataset), str(tmp_path / "out"), "participant", "--skip-bids-validation"]) == 69
    error = capsys.readouterr().err
    for name in ("locate", "segment", "hypermorph"):
        assert f"no weights for {name}" in error
    assert preflight.check_weights is not None


def test_an_absent_gpu_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    assert run("--device", "cuda:0") == 69
    assert "finds no GPU here" in capsys.readouterr().err


def test_a_read_only_input_is_enough(run: Run, dataset: Path, out: Path) -> None:
    paths = [dataset, *dataset.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = {path: path.stat().st_mtime_ns for path in paths}
    try:
        assert run("--participant-label", "02") == 0
    finally:
        after = {path: path.stat().st_mtime_ns for path in [dataset, *dataset.rglob("*")]}
        for path in paths:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert after == before


def test_a_second_run_leaves_shared_files_alone(run: Run, out: Path) -> None:
    assert run("--participant-label", "02") == 0
    shared = [out / "dataset_description.json", out / ".bidsignore", out / "logs" / "CITATION.md"]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in shared]
    assert run("--participant-label", "03") == 0
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in shared] == before
    assert written(out, "02")
    assert written(out, "03")


def test_reports_only_computes_nothing(
    run: Run, app: Stub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "sub-02/figures").mkdir(parents=True)
    assert run("--reports-only", "--participant-label", "02") == 0
    assert not written(out, "02")
    assert (out / "sub-02.html").is_file()
    assert "wrote the reports of 1 of 1 participant. Report: " in capsys.readouterr().out


def test_reports_only_needs_results(run: Run, app: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--reports-only", "--participant-label", "02") == 1
    assert "there are no results of sub-02 in " in capsys.readouterr().err


def test_boilerplate_only_prints_the_methods(run: Run, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--boilerplate-only") == 0
    text = capsys.readouterr().out
    assert "A file was copied [@nipype1]." in text
    assert not written(out, "02")
    page = (out / "logs/CITATION.html").read_text()
    assert "A file was copied (Gorgolewski et al. 2011)." in page
    assert "10.3389/fninf.2011.00013" in page
    assert "@article{nipype1" in (out / "logs/CITATION.bib").read_text()


def test_write_graph(run: Run, out: Path) -> None:
    assert run("--boilerplate-only", "--write-graph") == 0
    (graph,) = out.glob("logs/*/graph*.dot")
    assert "sub_02_wf" in graph.read_text()


def test_the_validator_speaks(
    app: Stub, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hyperprep.bidsapp.validate import _find_program

    if _find_program() is None:
        pytest.skip("the BIDS validator is not installed")
    (dataset / "sub-02/anat/notes of mine.txt").write_text("x")
    (dataset / "sub-03/anat/also mine.txt").write_text("x")
    words = [
        str(dataset),
        str(tmp_path / "out"),
        "participant",
        "--participant-label",
        "02",
        "--boilerplate-only",
    ]
    assert app.run(words) == 0
    error = capsys.readouterr().err
    assert "the BIDS validator says: /sub-02/anat/notes of mine.txt: NOT_INCLUDED" in error
    assert "also mine" not in error
    (dataset / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": 3}')
    assert app.run(words) == 65
    assert "the BIDS validator rejects" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugin: [", "is neither YAML nor JSON"),
        ("4", "must hold 'plugin'"),
        ("plugin: Slurm", "unknown plugin 'Slurm'; Nipype has"),
        ("plugin: PBSGraph", "does not wait for its jobs"),
        ("plugin: MultiProc\nplugin_args: 3", "must be a mapping"),
        ("plugin: MultiProc\nn_procs: 3", "must hold 'plugin'"),
    ],
)
def test_a_wrong_plugin_file(
    run: Run, tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yml"
    path.write_text(text)
    assert run("--use-plugin", str(path)) == 2
    assert message in capsys.readouterr().err


def test_a_fault_of_the_program_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("hyperprep.bidsapp.app.find_inputs", broken)
    assert run() == 70
    error = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in error
    assert "this is a fault of the program" in error


def test_nothing_is_left_in_the_current_folder(run: Run, tmp_path: Path) -> None:
    assert run("--participant-label", "02", "--resource-monitor") == 0
    from nipype import config

    config.disable_resource_monitor()
    assert {path.name for path in tmp_path.iterdir()} == {"my data", "out", "work", "plugin.yml"}
    assert os.getcwd() == str(tmp_path)
