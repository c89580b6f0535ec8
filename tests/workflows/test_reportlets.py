"""The workflow that draws a scan's figures: its graph, and one real run on a small brain."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.sweep import LambdaSweep
from hyperprep.models.spatial.transforms import write_transform
from hyperprep.workflows.reportlets import INPUTS, init_anat_reportlets_wf

KINDS = ("alignment", "curve", "grid", "jacobian", "segmentation", "slider", "summary")


def test_every_figure_has_a_sink_and_every_input_a_use(tmp_path):
    workflow = init_anat_reportlets_wf(output_dir=tmp_path, template_name="MNI152X", name="figures_wf")
    names = workflow.list_node_names()
    assert workflow.name == "figures_wf"
    assert {name.removeprefix("ds_") for name in names if name.startswith("ds_")} == set(KINDS)
    used = {source for _, _, data in workflow._graph.edges(data=True) for source, _ in data["connect"]}
    assert used >= set(INPUTS)
    assert workflow.get_node("alignment").inputs.reference_label == "Template MNI152X"
    for name in names:
        if name.startswith("ds_"):
            sink = workflow.get_node(name)
            assert sink.run_without_submitting
            assert sink.inputs.base_directory == str(tmp_path)


@pytest.fixture
def small_scan(tmp_path: Path) -> dict[str, str]:
    """Everything the workflow takes, for a ball of a brain at 8 mm."""
    shape, affine = (20, 24, 20), np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-76, -92, -70)
    world = nib.affines.apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    distance = np.linalg.norm(world / (60, 75, 60), axis=-1)
    images = {
        "scan": np.where(distance < 1, 500 - 200 * distance, 0).astype(np.float32),
        "mask": (distance < 1).astype(np.uint8),
        "dseg": np.where(distance < 0.3, 10, np.where(distance < 1, 3, 0)).astype(np.int16),
        "jacobian": np.ones(shape, np.float32),
    }
    paths = {}
    for name, data in images.items():
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(data, affine), paths[name])
    paths["xfm"] = str(write_transform([np.eye(4)], tmp_path / "xfm.h5"))
    sweep = LambdaSweep(
        np.array([0.2, 0.4]), np.zeros((2, *shape, 3)), Grid(shape, affine), np.eye(4), np.eye(4)
    )
    paths["sweep"] = str(sweep.save(tmp_path / "sweep.npz"))
    curve = {"lam": [0.2, 0.4], "dice_Left-Thalamus": [0.7, 0.8], "sd_log_jacobian": [0.5, 0.3]}
    pd.DataFrame({**curve, "folding_percent": [0.1, 0.0], "chosen": [False, True]}).to_csv(
        tmp_path / "curve.tsv", sep="\t", index=False
    )
    volumes = {"index": [10], "name": ["Left-Thalamus"], "voxels": [9], "volume_mm3": [7000.0]}
    pd.DataFrame(volumes).to_csv(tmp_path / "volumes.tsv", sep="\t", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps({"dice_mean": 0.2, "lambda": 0.4}))
    return paths


def test_a_run_writes_all_figures_under_the_scans_name(tmp_path, small_scan):
    out = tmp_path / "out"
    workflow = init_anat_reportlets_wf(output_dir=out, template_name="MNI152X")
    workflow.base_dir = str(tmp_path / "work")
    workflow.config["execution"]["crashdump_dir"] = str(tmp_path)
    scan, mask, dseg = small_scan["scan"], small_scan["mask"], small_scan["dseg"]
    given = {
        "source_file": "/data/sub-07/ses-b/anat/sub-07_ses-b_acq-x_run-02_T1w.nii.gz",
        "t1w_preproc": scan, "brain_mask": mask, "dseg": dseg,
        "template": scan, "template_mask": mask, "template_dseg": dseg,
        "t1w_affine": scan, "t1w_std": scan, "dseg_std": dseg,
        "jacobian": small_scan["jacobian"], "forward_xfm": small_scan["xfm"],
        "lambda_curve": str(tmp_path / "curve.tsv"), "lambda_sweep": small_scan["sweep"],
        "metrics": str(tmp_path / "metrics.json"),
        "volumes": str(tmp_path / "volumes.tsv"), "warnings": ["Two T1w images were found"],
    }  # fmt: skip
    for name, value in given.items():
        setattr(workflow.inputs.inputnode, name, value)
    workflow.run(plugin="Linear")
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    stem = "sub-07/figures/sub-07_ses-b_acq-x_run-02_desc"
    assert made == [f"{stem}-{kind}_T1w.{'html' if kind == 'summary' else 'svg'}" for kind in KINDS]
    page = (out / f"{stem}-summary_T1w.html").read_text()
    assert "Two T1w images were found" in page
    assert "Dice after deformation is 0.200" in page
