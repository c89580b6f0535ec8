"""The worked example of docs/regions.md, at tiny size: masks in, weights out, the region found by name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.regions import cli
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import map_points, read_transform
from hyperprep.models.weights.resolver import read_manifest

CENTRE, RADII = np.array([-13.0, 12.0, 8.0]), np.array([8.0, 14.0, 12.0])
"""An ellipsoid around the head of the left caudate, mm in the template's space; its grey matter is drawn."""


def draw(demo: Path, masks: Path, sub: str) -> np.ndarray:
    """Draw the grey matter inside the ellipsoid, where the simulated deformation takes it."""
    scan = next(demo.glob(f"sub-{sub}/anat/*_T1w.nii.gz"))
    truth = demo / "derivatives" / "groundtruth" / f"sub-{sub}" / "anat"
    to_scan = read_transform(next(truth.glob("*from-T1w_to-*_xfm.h5")))
    to_template = read_transform(next(truth.glob("*_to-T1w_*_xfm.h5")))
    img = nb.load(scan)
    grid = Grid.of(img)
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in img.shape[:3]), indexing="ij"), -1).reshape(-1, 3)
    points = grid.to_world(voxels)
    near = np.linalg.norm(points - map_points(CENTRE[None], to_scan), axis=1) < 25
    inside = np.zeros(len(points), bool)
    inside[near] = (((map_points(points[near], to_template) - CENTRE) / RADII) ** 2).sum(1) < 1
    path = masks / f"sub-{sub}/anat/sub-{sub}_label-Nucleus_mask.nii.gz"
    path.parent.mkdir(parents=True)
    tissue = np.asanyarray(nb.load(truth / f"sub-{sub}_dseg.nii.gz").dataobj)
    mask = inside.reshape(img.shape[:3]) & (tissue == 1)
    nb.save(nb.Nifti1Image(mask.astype(np.uint8), img.affine), path)
    return mask


def test_the_worked_example(
    tmp_path: Path, demo_dataset: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository / "docs" / "regions.md").read_text()
    line = re.search(r"^bidsapp-regions .*--held-out.*$", page, re.M)
    block = re.search(r"```python\n(.*?)```", page, re.S)
    assert line
    assert block

    def here(text: str) -> str:
        text = text.replace("/data/study/derivatives/manual", str(tmp_path / "masks"))
        scan = next(demo_dataset.glob("sub-03/anat/*_T1w.nii.gz"))
        text = text.replace("/data/study/sub-03/anat/sub-03_T1w.nii.gz", str(scan))
        return text.replace("/data/study", str(demo_dataset)).replace(
            "/data/weights", str(tmp_path / "weights")
        )

    masks = {sub: draw(demo_dataset, tmp_path / "masks", sub) for sub in ("02", "03")}
    words = shlex.split(here(line[0]))[1:]
    assert cli.main([*words, "--steps", "60", "--variants", "0", "--nthreads", "1"]) == 0
    entry = read_manifest(tmp_path / "weights")["regions"]
    assert entry["annotated"] == {"Nucleus": 1}
    assert entry["scores"]["val_Nucleus"] > 0.55, "the prior alone, made of one blurred mask, has 0.32"
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(here(block[1]), names)
    result = names["segment"]._results
    found = np.asanyarray(nb.load(result["out_dseg"]).dataobj) == 31001
    assert "31001\tNucleus" in Path(result["out_legend"]).read_text()
    dice = 2 * (found & masks["03"]).sum() / (found.sum() + masks["03"].sum())
    assert dice > 0.55
    row = next(line for line in Path(result["out_volumes"]).read_text().splitlines() if "Nucleus" in line)
    drawn = masks["03"].sum() * np.prod(nb.load(result["out_dseg"]).header.get_zooms())
    assert 0.5 < float(row.split("\t")[2]) / drawn < 2
