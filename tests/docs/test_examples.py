"""The scripts in docs/examples do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel as nb
import numpy as np

from hyperprep.models.spatial.transforms import map_points, read_transform


def test_hypermorph_takes_the_place_of_ants(tmp_path: Path, demo_dataset: Path, repository: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "register_template", repository / "docs" / "examples" / "register_template.py"
    )
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    scan = next(demo_dataset.glob("sub-03/anat/*_T1w.nii.gz"))
    truth = demo_dataset / "derivatives" / "groundtruth" / "sub-03" / "anat"
    mask = next(truth.glob("*_mask.nii.gz"))
    example.main([str(scan), str(mask), str(tmp_path / "out")])
    forward, inverse = (
        read_transform(tmp_path / "out" / f"from-{way}.h5") for way in ("T1w_to-MNI152", "MNI152_to-T1w")
    )
    given = read_transform(next(truth.glob("*from-T1w_to-*_xfm.h5")))
    points = np.array([[0.0, -20, 10], [25, -15, 5], [-30, 20, 30], [10, -60, -20], [-20, -70, 10]])
    assert np.allclose(map_points(map_points(points, forward), inverse), points, atol=1.0)
    error = np.linalg.norm(map_points(points, forward) - map_points(points, given), axis=1)
    assert error.mean() < 4, f"the registration is {error.round(1)} mm from the simulated deformation"
    moved = nb.load(tmp_path / "out" / "space-MNI152_T1w.nii.gz")
    assert moved.shape == (197, 233, 189)
