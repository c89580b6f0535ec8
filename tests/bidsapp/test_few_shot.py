"""Folders of examples: which files are taken, and what a user is told about those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.few_shot import check_few_shot_weights, find_task, tell_own_examples
from hyperprep.bidsapp.graph import build_workflow
from hyperprep.bidsapp.preflight import Plan, PreflightError, preflight
from hyperprep.bidsapp.query import ParticipantInput, find_inputs
from hyperprep.exceptions import HyperPrepError, NoInputError, ScanError, UsageError, WeightsError

AFFINE = np.diag([8.0, 8, 8, 1])


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writer of an image of a subject of the folder."""

    def write(name: str, *, mask: bool = True, affine: np.ndarray = AFFINE, value: float = 1) -> Path:
        entities = dict(part.split("-", 1) for part in name.split("_")[:-1])
        folder = tmp_path / "lab" / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder /= f"ses-{entities['ses']}"
        path = folder / "anat" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(len(name)).uniform(1, 9, (7, 8, 9)).astype("f4")
        if mask:
            data = np.zeros((7, 8, 9), "f4")
            data[2:5, 3:6, 4:7] = value
        nb.Nifti1Image(data, affine).to_filename(path)
        return path

    return write


@pytest.fixture
def lab(put: Callable[..., Path], tmp_path: Path) -> Path:
    """Three subjects, two of whom are annotated, one in a session."""
    put("sub-01_T1w", mask=False)
    put("sub-01_desc-preproc_T1w", mask=False)
    put("sub-01_desc-brain_mask")
    put("sub-01_desc-claustrum_mask")
    put("sub-02_ses-a_T1w", mask=False)
    put("sub-02_ses-a_desc-claustrum_mask")
    put("sub-03_T1w", mask=False)
    put("sub-01_space-MNI_T1w", mask=False)
    return tmp_path / "lab"


def test_pairs_are_found_by_name(lab: Path) -> None:
    task = find_task("claustrum", lab)
    assert (task.kind, task.suffix) == ("mask", "T1w")
    assert task.labels == ("sub-01", "sub-02_ses-a")
    assert [path.name for path in task.inputs] == [
        "sub-01_desc-preproc_T1w.nii.gz",
        "sub-02_ses-a_T1w.nii.gz",
    ]
    assert [path and path.name for path in task.masks] == ["sub-01_desc-brain_mask.nii.gz", None]


def test_a_folder_with_one_mask_each_needs_no_name(put: Callable[..., Path], tmp_path: Path) -> None:
    put("sub-01_T1w", mask=False)
    put("sub-01_desc-brain_mask")
    put("sub-01_desc-byhand_mask")
    assert find_task("other", tmp_path / "lab").outputs[0].name == "sub-01_desc-byhand_mask.nii.gz"
    put("sub-01_desc-second_mask")
    with pytest.raises(UsageError, match="several files that could be the output"):
        find_task("other", tmp_path / "lab")


def test_images_keep_their_suffix(put: Callable[..., Path], tmp_path: Path) -> None:
    put("sub-01_T1w", mask=False)
    put("sub-01_desc-synth_T2w", mask=False)
    task = find_task("synth", tmp_path / "lab")
    assert (task.kind, task.suffix) == ("image", "T2w")


def test_no_pair_no_folder_no_input(put: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError, match="no image in folders called sub-"):
        find_task("a", tmp_path / "empty")
    put("sub-01_T1w", mask=False)
    with pytest.raises(NoInputError, match=r"no pair of input and output was found.*T1w\.nii\.gz"):
        find_task("a", tmp_path / "lab")
    put("sub-02_desc-a_mask")
    with pytest.raises(NoInputError, match=r"sub-02_desc-a_mask\.nii\.gz has no input beside it"):
        find_task("a", tmp_path / "lab")


def test_bad_pairs_are_told_with_the_folder(lab: Path, put: Callable[..., Path]) -> None:
    put("sub-03_desc-claustrum_mask", value=0)
    with pytest.raises(ScanError, match=r"--few-shot claustrum=.*nothing is marked"):
        find_task("claustrum", lab)
    put("sub-03_desc-claustrum_mask", affine=np.diag([4.0, 4, 4, 1]))
    with pytest.raises(ScanError, match="same voxel grid"):
        find_task("claustrum", lab)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hyperprep.models.weights.resolver.package_dir", lambda: tmp_path / "none")


@pytest.mark.usefixtures("no_weights")
def test_missing_weights_are_explained() -> None:
    with pytest.raises(WeightsError, match=r"not found.*train run neuralizer.*export") as caught:
        check_few_shot_weights(None)
    assert caught.value.exit_code == 69


@pytest.mark.usefixtures("no_weights")
def test_preflight_stops_with_69_and_names_every_problem(settings: Settings, lab: Path) -> None:
    asked = replace(settings, few_shot=(("claustrum", lab), ("putamen", lab / "sub-03")))
    with pytest.raises(PreflightError) as caught:
        preflight(replace(asked, skip_bids_validation=True))
    assert caught.value.exit_code == 69
    assert "--few-shot needs the network" in str(caught.value)
    assert "--few-shot putamen=" in str(caught.value)
    assert all(isinstance(problem, HyperPrepError) for problem in caught.value.problems)


def test_a_participants_own_example_is_kept_from_it(lab: Path) -> None:
    task = find_task("claustrum", lab)
    (told,) = tell_own_examples([ParticipantInput("01")], [task])
    assert told.problems == ()
    assert "its own output was not shown" in told.remarks[0]
    alone = task.without("02")
    (stuck,) = tell_own_examples([ParticipantInput("01")], [alone])
    assert "the only one" in stuck.problems[0]
    (free,) = tell_own_examples([ParticipantInput("09")], [task])
    assert (free.problems, free.remarks) == ((), ())


def test_the_graph_has_a_step_for_each_task(settings: Settings, lab: Path) -> None:
    plan = Plan(
        participants=("01", "02"),
        few_shot=(find_task("claustrum", lab),),
        weights_sha256={"neuralizer": "4" * 64},
    )
    workflow = build_workflow(settings, plan, find_inputs(settings, plan.participants))
    nodes: dict[str, Any] = {n.fullname: n for n in workflow._create_flat_graph().nodes()}
    steps = {name: n for name, n in nodes.items() if name.endswith("few_shot_claustrum_wf.few_shot")}
    own = [n for name, n in steps.items() if ".sub_01" in name]
    assert own
    assert all(n.inputs.example_labels == ["sub-02_ses-a"] for n in own)
    assert {n.inputs.weights_sha256 for n in steps.values()} == {"4" * 64}
    names = [
        n.interface.names()[0]
        for name, n in nodes.items()
        if ".ds_few_shot_claustrum_wf.ds_" in name and ".sub_02" in name and not name.endswith("figure")
    ]
    assert {name.split("/")[-1] for name in names} == {
        "sub-02_desc-claustrum_mask.nii.gz",
        "sub-02_desc-claustrum_probseg.nii.gz",
        "sub-02_desc-claustrumSpread_probseg.nii.gz",
    }


def test_the_option_survives_a_configuration_file(settings: Settings, lab: Path) -> None:
    asked = replace(settings, few_shot=(("claustrum", lab),))
    assert json.dumps(asked.as_options()["few-shot"]) == json.dumps([f"claustrum={lab}"])
