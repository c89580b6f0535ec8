"""Wrong invocations: each is told what was found, where and what to do, with the exit code for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import WORKFLOW_NAME
from hyperprep.bidsapp.memory import check_plugin
from hyperprep.bidsapp.preflight import PreflightError, check_weights
from hyperprep.bidsapp.query import find_inputs
from hyperprep.exceptions import UsageError, WeightsError

NOT_UTF8 = os.fsdecode(b"\xff")


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def image(path: Path, shape: tuple[int, ...]) -> Path:
    data = np.random.default_rng(0).uniform(1, 9, shape).astype("f4")
    nb.Nifti1Image(data, np.diag([20.0, 20, 20, 1])).to_filename(path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-300])
    return path


def link(path: Path, target: str = "/nowhere/at/all") -> Path:
    path.symlink_to(target)
    return path


def t1w(content: dict[str, object]) -> str:
    return json.dumps({"t1w": content})


#: Options beside a good data set; ``{here}`` is a folder of this test. Exit code, part of the message.
OPTIONS: dict[str, tuple[Callable[[Path], list[object]], int, str]] = {
    "filter of objects": (
        lambda here: ["--bids-filter-file", write(here / "f.json", t1w({"acquisition": {"a": 1}}))],
        2,
        "'acquisition' must be text, a number, null or a list of these",
    ),
    "filter of lists of objects": (
        lambda here: ["--bids-filter-file", write(here / "f.json", t1w({"run": [1, {"a": 1}]}))],
        2,
        "'run' must be text",
    ),
    "filter for another datatype": (
        lambda here: ["--bids-filter-file", write(here / "f.json", t1w({"datatype": "func"}))],
        2,
        "T1w images have the datatype anat",
    ),
    "filter that is binary": (
        lambda here: ["--bids-filter-file", write(here / "f.json", b"\xff\xfe")],
        2,
        "f.json is not valid JSON",
    ),
    "filter that is a folder": (lambda here: ["--bids-filter-file", here], 2, "is not a file"),
    "filter that is a dangling link": (
        lambda here: ["--bids-filter-file", link(here / "f.json")],
        2,
        "f.json is a link whose target is not there",
    ),
    "configuration that is not UTF-8": (
        lambda here: ["--config-file", write(here / "c.toml", b"labels = '\xff'")],
        2,
        "c.toml is not valid TOML",
    ),
    "empty folder as derivative": (lambda here: ["-d", f"x={here}"], 2, "it has neither dataset_description"),
    "raw data set as derivative": (
        lambda here: [
            "-d",
            f"x={write(here / 'dataset_description.json', json.dumps({'DatasetType': 'raw'})).parent}",
        ],
        2,
        "its DatasetType is 'raw'",
    ),
    "broken derivative": (
        lambda here: ["-d", f"x={write(here / 'dataset_description.json', '{').parent}"],
        2,
        "is not valid JSON",
    ),
    "file as derivative": (
        lambda here: ["-d", f"x={write(here / 'a', 'b')}"],
        2,
        "is not a folder; give NAME",
    ),
    "4-D template": (
        lambda here: ["--template", image(here / "t.nii.gz", (7, 8, 9, 3))],
        65,
        "template t: ",
    ),
    "text as template": (
        lambda here: ["--template", write(here / "t.nii.gz", "no image")],
        65,
        "t.nii.gz is not a readable image",
    ),
    "truncated template": (
        lambda here: ["--template", cut(image(here / "t.nii.gz", (7, 8, 9)))],
        65,
        "t.nii.gz is truncated or damaged",
    ),
    "bad mask beside the template": (
        lambda here: [
            "--template",
            write(here / "tpl-A_desc-brain_mask.nii.gz", "x") and image(here / "tpl-A_T1w.nii.gz", (7, 8, 9)),
        ],
        65,
        "tpl-A_desc-brain_mask.nii.gz is not a readable image",
    ),
    "no template": (lambda here: ["--template", ""], 2, "the name is empty"),
    "file as weights folder": (lambda here: ["--weights-dir", write(here / "w", "x")], 2, "is not a folder"),
    "plugin arguments as list": (
        lambda here: ["--use-plugin", write(here / "p.yml", "plugin: MultiProc\nplugin_args: [1]")],
        2,
        "'plugin_args' must be a mapping",
    ),
    "memory of another scheduler": (
        lambda here: ["--mem", "8GB", "--use-plugin", write(here / "p.yml", "plugin: SLURM")],
        2,
        "--mem 8GB has no effect with --use-plugin",
    ),
    "memory in strange units": (lambda here: ["--mem", "10XB"], 2, "'10XB' is no amount of memory"),
    "no processor": (lambda here: ["--nprocs", "0"], 2, "not a whole number above 0"),
    "no region": (lambda here: ["--labels", ","], 2, "names nothing"),
    "no participant": (lambda here: ["--participant-label", "sub-"], 2, "'sub-' is no participant label"),
    "database that is none": (
        lambda here: ["--bids-database-dir", write(here / "x", "y").parent],
        2,
        "holds x and no layout_index.sqlite",
    ),
    "database that is a file": (
        lambda here: ["--bids-database-dir", write(here / "x", "y")],
        2,
        "is a file; give the folder",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option(
    case: str, app: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, message = OPTIONS[case]
    here = tmp_path / "here it is"
    here.mkdir()
    out = tmp_path / "out"
    words = [dataset, out, "participant", "-w", tmp_path / "w", "--skip-bids-validation", *make(here)]
    assert app.run([str(word) for word in words]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not list(out.glob("sub-*"))


#: Places: what is made beforehand (data set, folder), and input, output and working folder.
PLACES: dict[str, tuple[Callable[[Path, Path], tuple[object, object, object]], int, str]] = {
    "input is a dangling link": (
        lambda data, here: (link(here / "in"), here / "o", here / "w"),
        66,
        "in is a link whose target is not there",
    ),
    "input is not UTF-8": (
        lambda data, here: (here / NOT_UTF8, here / "o", here / "w"),
        2,
        r"\xff is not UTF-8",
    ),
    "output is not UTF-8": (lambda data, here: (data, here / NOT_UTF8, here / "w"), 2, r"\xff is not UTF-8"),
    "work is not UTF-8": (lambda data, here: (data, here / "o", here / NOT_UTF8), 2, r"\xff is not UTF-8"),
    "output in a participant": (
        lambda data, here: (data, data / "sub-01/out", here / "w"),
        73,
        "lies inside the input",
    ),
    "output is a file": (
        lambda data, here: (data, write(here / "o", "x"), here / "w"),
        73,
        "cannot be written: File exists",
    ),
    "output has a file called logs": (
        lambda data, here: (data, write(here / "o/logs", "x").parent, here / "w"),
        73,
        "the log file",
    ),
    "output is somebody's": (
        lambda data, here: (
            data,
            write(
                here / "o/dataset_description.json", '{"DatasetType": "derivative", "GeneratedBy": null}'
            ).parent,
            here / "w",
        ),
        73,
        "holds derivatives of another program",
    ),
    "work is the input": (lambda data, here: (data, here / "o", data), 73, "the working folder"),
    "work is a file": (
        lambda data, here: (data, here / "o", write(here / "w", "x")),
        73,
        "the working folder",
    ),
    "work has a file in the way": (
        lambda data, here: (data, here / "o", write(here / "w" / WORKFLOW_NAME, "x").parent),
        73,
        "remove what is in its way",
    ),
    "description is a list": (
        lambda data, here: (write(data / "dataset_description.json", "[1]").parent, here / "o", here / "w"),
        66,
        "holds no JSON object",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_wrong_place(
    case: str, app: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, message = PLACES[case]
    here = tmp_path / "here it is"
    here.mkdir()
    source, out, work = map(str, make(dataset, here))
    assert app.run([source, out, "participant", "-w", work, "--skip-bids-validation"]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_the_input_as_derivative_is_refused(
    app: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([str(dataset), str(tmp_path / "o"), "participant", "-d", f"x={dataset}"]) == 2
    assert "is the input itself" in capsys.readouterr().err


def test_a_participant_that_is_a_dangling_link(
    app: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link(dataset / "sub-09")
    assert app.run([str(dataset), str(tmp_path / "o"), "participant", "--participant-label", "09"]) == 66
    assert "unknown participant 09 (sub-09: a link whose target is not there)" in capsys.readouterr().err


def test_folders_that_are_no_participants_are_left_out_and_said(
    app: Any, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sub-01_old", f"sub-{NOT_UTF8}"):
        (dataset / name).mkdir()
    words = [str(dataset), str(tmp_path / "o"), "participant", "--skip-bids-validation"]
    assert app.run([*words, "--boilerplate-only"]) == 0
    said = capsys.readouterr().err
    assert "3 participant(s)" in said
    assert "the folder sub-01_old is left out" in said
    assert r"the folder sub-\xff is left out" in said


def test_a_scan_whose_name_is_not_utf8_is_told(settings: Settings, make_scan: Callable[..., Path]) -> None:
    make_scan(settings.bids_dir / f"sub-02/anat/sub-02_acq-{NOT_UTF8}_T1w.nii.gz")
    (two,) = find_inputs(settings, ("02",))
    assert [session.scan.t1w.name for session in two.sessions] == ["sub-02_T1w.nii.gz"]
    (problem,) = two.problems
    assert r"sub-02_acq-\xff_T1w.nii.gz has a name that is not UTF-8" in problem


def test_a_folder_that_cannot_be_read_is_its_participants_problem(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(subject: Path) -> list[str]:
        if subject.name == "sub-02":
            raise PermissionError(13, "Permission denied", str(subject))
        return []

    monkeypatch.setattr("hyperprep.bidsapp.query._session_folders", refuse)
    two, three = find_inputs(settings, ("02", "03"))
    assert two.sessions == ()
    assert two.problems[0].endswith("sub-02 cannot be read: Permission denied; check its permissions")
    assert len(three.sessions) == 1


def test_a_weights_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no manifest.json, so nothing in it would be used"):
        check_weights(tmp_path)


@pytest.mark.parametrize("entry", [3, {"file": "a"}, {"sha256": "b"}, {"file": 1, "sha256": "b"}])
def test_a_manifest_whose_entries_are_none_is_refused(tmp_path: Path, entry: object) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"segment": entry}))
    with pytest.raises(PreflightError, match="the entry 'segment' lacks") as caught:
        check_weights(tmp_path)
    assert str(caught.value).count("lacks") == 1
    assert caught.value.exit_code == 69


def test_memory_is_said_once(settings: Settings, tmp_path: Path) -> None:
    wanted = replace(settings, mem_gb=4.0, use_plugin=tmp_path / "p.yml")
    check_plugin(wanted, ("MultiProc", {"n_procs": 2}))
    check_plugin(replace(wanted, mem_gb=None), ("SLURM", {}))
    with pytest.raises(UsageError, match="has no effect"):
        check_plugin(wanted, ("MultiProc", {"memory_gb": 2}))
