"""What the program itself writes: description, group table, methods text; and what it makes of crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hyperprep.bidsapp.boilerplate import compose, render
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.description import describe_output
from hyperprep.bidsapp.failures import read_crash_file
from hyperprep.exceptions import NoInputError, OutputError


def test_the_description_is_that_of_a_derivative(settings: Settings, tmp_path: Path) -> None:
    describe_output(replace(settings, derivatives=(("masks", tmp_path),)))
    content = json.loads((settings.output_dir / "dataset_description.json").read_text())
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "HyperPrep"
    assert content["DatasetLinks"] == {
        "raw": settings.bids_dir.resolve().as_uri(),
        "masks": tmp_path.resolve().as_uri(),
        "templateflow": "https://github.com/templateflow/templateflow",
    }
    assert "%20" in content["DatasetLinks"]["raw"]
    ignored = (settings.output_dir / ".bidsignore").read_text().split()
    assert {"*.html", "logs", "log", "figures", "*_xfm.*"} <= set(ignored)


def test_links_of_earlier_runs_and_own_lines_are_kept(settings: Settings, tmp_path: Path) -> None:
    describe_output(replace(settings, derivatives=(("masks", tmp_path),)))
    ignore = settings.output_dir / ".bidsignore"
    ignore.write_text("mine\n" + ignore.read_text())
    describe_output(settings)
    content = json.loads((settings.output_dir / "dataset_description.json").read_text())
    assert set(content["DatasetLinks"]) == {"raw", "masks", "templateflow"}
    assert ignore.read_text().splitlines().count("mine") == 1
    assert len(set(ignore.read_text().splitlines())) == len(ignore.read_text().splitlines())


def test_a_raw_data_set_is_never_described_anew(settings: Settings, dataset: Path) -> None:
    before = (dataset / "dataset_description.json").read_text()
    with pytest.raises(OutputError, match=r"holds a raw BIDS data set \('tiny'\)"):
        describe_output(replace(settings, output_dir=dataset))
    assert (dataset / "dataset_description.json").read_text() == before


def test_the_container_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERPREP_CONTAINER_TYPE", "docker")
    monkeypatch.setenv("HYPERPREP_CONTAINER_TAG", "hyperprep:0.1")
    describe_output(settings)
    content = json.loads((settings.output_dir / "dataset_description.json").read_text())
    assert content["GeneratedBy"][0]["Container"] == {"Type": "docker", "Tag": "hyperprep:0.1"}


def test_the_output_is_valid_bids(settings: Settings) -> None:
    import subprocess

    from hyperprep.bidsapp.figures import write_table
    from hyperprep.bidsapp.logs import logging_to, shared_log_dir, write_run_record
    from hyperprep.bidsapp.validate import _find_program

    program = _find_program()
    if program is None:
        pytest.skip("the BIDS validator is not installed")
    describe_output(settings)
    (settings.output_dir / "README").write_text("A folder that only holds what the program itself writes.\n")
    with logging_to(shared_log_dir(settings) / "hyperprep.log", 0):
        write_run_record(settings, "01", {"problems": []})
    (settings.output_dir / "sub-01.html").write_text("report")
    write_table(
        [{"participant_id": "sub-01", "session_id": "n/a", "scan": "sub-01"}], settings.output_dir / "g.tsv"
    )
    (settings.output_dir / "g.tsv").rename(settings.output_dir / "group_quality.tsv")
    (settings.output_dir / "g.json").rename(settings.output_dir / "group_quality.json")
    done = subprocess.run(
        [program, "--format", "json", str(settings.output_dir)], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


@pytest.fixture
def results(settings: Settings) -> Callable[..., Path]:
    """Writer of a quality file."""

    def write(label: str, session: str = "", **figures: object) -> Path:
        folder = settings.output_dir / f"sub-{label}" / (f"ses-{session}" if session else "") / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"sub-{label}{f'_ses-{session}' if session else ''}_quality.json"
        path.write_text(json.dumps(figures))
        return path

    return write


def group(settings: Settings, *words: str) -> int:
    from hyperprep.bidsapp.cli.main import main

    return main([str(settings.bids_dir), str(settings.output_dir), "group", *words])


def test_the_group_level_gathers_all_sessions(
    settings: Settings, results: Callable[..., Path], clean_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "brain is 300 ml, expected 700 to 2100 ml"
    results("01", "pre", dice_mean=0.8, nested={"a": 1}, remarks=["x"], volumes_remarks=[small])
    results("01", "post", dice_mean=0.7)
    results("02", dice_mean=None, prealign_success=True)
    results("03", dice_mean=0.6)
    (settings.output_dir / "sub-01.html").write_text("report")
    assert group(settings) == 0
    table = pd.read_csv(settings.output_dir / "group_quality.tsv", sep="\t")
    assert list(table["participant_id"]) == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert list(table["session_id"].fillna("n/a")) == ["ses-post", "ses-pre", "n/a", "n/a"]
    assert list(table["dice_mean"].fillna(-1)) == [0.7, 0.8, -1, 0.6]
    assert table["nested_a"].notna().sum() == 1
    dictionary = json.loads((settings.output_dir / "group_quality.json").read_text())
    assert set(dictionary) == set(table.columns)
    page = (settings.output_dir / "group_quality.html").read_text()
    assert 'href="sub-01.html"' in page
    assert f"Implausible volume: {small}" in page
    assert "4 scan(s)" in capsys.readouterr().out


def test_participants_without_results_are_named(
    settings: Settings, results: Callable[..., Path], clean_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    results("02", dice_mean=0.6)
    assert group(settings) == 1
    assert "without results: 01, 03" in capsys.readouterr().out
    assert group(settings, "--participant-label", "02") == 0


def test_the_group_level_needs_results(
    settings: Settings, clean_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert group(settings) == NoInputError.exit_code
    assert "run the participant level first" in capsys.readouterr().err


def test_methods_text(tmp_path: Path) -> None:
    page = render(
        compose("Aligned\nby X [@a; see @b].\n\nThen *Y* by @a."),
        "@article{a, author={Doe, J and Roe, R}, title={One {T}}, year={2020}, doi={10.1/x}}\n"
        "@article{b, author={Poe, E and others}, title={Two}, year={2021}}\n"
        "@article{c, author={Moe, M}, title={Three}, year={2022}}\n",
    )
    assert "<p>Aligned by X (Doe and Roe 2020; see Poe et al. 2021).</p>" in page
    assert "<p>Then <em>Y</em> by Doe and Roe 2020.</p>" in page
    assert "https://doi.org/10.1/x" in page
    assert "Three" not in page


CRASHES = {
    "ours": (
        "Node: wf.sub_01_wf.segment\nWorking directory: /w\n\nNode inputs:\n\nin_file = a\n\n"
        "Traceback (most recent call last):\n  File 'm.py', line 66, in run_node\n    run()\n"
        "nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node segment.\n\n"
        "Traceback:\n\tTraceback (most recent call last):\n\n\t  File 'core.py', line 402, in run\n"
        "\t    runtime = self._run_interface(runtime)\n"
        "\thyperprep.exceptions.WeightsError: no weights here;\n\tfetch them\n\n",
        "no weights here; fetch them",
    ),
    "theirs": (
        "Node: wf.sub_01_wf.segment\nTraceback (most recent call last):\n  File 'x'\nValueError: not equal\n",
        "ValueError: not equal",
    ),
    "no message": (
        "Node: wf.sub_01_wf.segment\nTraceback (most recent call last):\nMemoryError\n",
        "MemoryError",
    ),
    "no result file": (
        "Node: wf.sub_01_wf.segment\nTraceback (most recent call last):\n  File 'x'\nOSError: disk full\n\n\n"
        "When creating this crashfile, the results file corresponding\nto the node could not be found.",
        "OSError: disk full",
    ),
    "cut off": ("Node: wf.sub_01_wf.segment\n", "no message was left"),
}


@pytest.mark.parametrize("kind", CRASHES)
def test_a_crash_file_is_read(kind: str, tmp_path: Path) -> None:
    text, reason = CRASHES[kind]
    path = tmp_path / "crash-1.txt"
    path.write_text(text)
    failure = read_crash_file(path)
    assert failure.node == "wf.sub_01_wf.segment"
    assert failure.reason == reason
    assert str(failure).startswith("step segment (wf.sub_01_wf.segment) failed: ")
