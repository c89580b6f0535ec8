"""Scans on paper, a tiny data set, and functions in the networks' place."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.sweep import LambdaSweep
from hyperprep.models.spatial.transforms import DisplacementField, resample
from hyperprep.workflows.outputs import BIDSIGNORE
from hyperprep.workflows.settings import AnatSettings, Scan

DIGEST = "0" * 64
DESCRIPTION = {
    "Name": "tiny",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "HyperPrep"}],
}


@pytest.fixture
def settings(tmp_path: Path) -> AnatSettings:
    """Settings of a run from ``in`` to ``out``."""
    return AnatSettings(bids_dir=tmp_path / "in", output_dir=tmp_path / "out")


@pytest.fixture
def make_scan(settings: AnatSettings) -> Callable[..., Scan]:
    """Maker of a scan whose file exists and is empty."""

    def make(name: str, **known: Any) -> Scan:
        entities = dict(part.split("-", 1) for part in name.split("_")[:-1])
        folder = settings.bids_dir / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder /= f"ses-{entities['ses']}"
        path = folder / "anat" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return Scan(path, **known)

    return make


def head(seed: int, affine: np.ndarray) -> nb.Nifti1Image:
    """A ball with two halves and a bright core, ``(16, 18, 20)``."""
    shape = (16, 18, 20)
    place = np.indices(shape) - np.array([7.5, 8.5, 9.5])[:, None, None, None]
    radius = np.sqrt((place**2).sum(0))
    data = np.where(radius < 6, 60.0, 0) + np.where(radius < 3, 40.0, 0)
    data += np.random.default_rng(seed).uniform(0, 5, shape) * (radius < 6)
    return nb.Nifti1Image(data.astype("f4"), affine)


@pytest.fixture
def dataset(settings: AnatSettings) -> list[Scan]:
    """Two scans of one participant: one skull-stripped, one oblique with a mask from a derivative."""
    oblique = np.array([[-7.73, 0, 2.07, 40], [0, 8, 0, -70], [2.07, 0, 7.73, -90], [0, 0, 0, 1]])
    straight = np.diag([8.0, 8, 8, 1])
    straight[:3, 3] = -60, -70, -75
    root = settings.bids_dir
    scans = []
    for session, affine in (("1", straight), ("2", oblique)):
        path = root / f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        head(int(session), affine).to_filename(path)
        scans.append(path)
    (root / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.10.0"}')
    mask = nb.load(scans[1])
    given = root / "mask.nii.gz"
    nb.Nifti1Image((mask.get_fdata() > 30).astype("u1"), mask.affine).to_filename(given)
    return [Scan(scans[0], skull_stripped=True), Scan(scans[1], mask=given)]


@pytest.fixture
def template_file(tmp_path: Path) -> Path:
    """A skull-stripped template of 8 mm."""
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = -60, -68, -76
    path = tmp_path / "tpl-tiny_T1w.nii.gz"
    head(9, affine).to_filename(path)
    return path


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locate by threshold, align by centre of mass, segment by intensity and side, register by a shift."""

    def centre(img: nb.Nifti1Image) -> np.ndarray:
        voxels = np.argwhere(img.get_fdata() > 30).mean(axis=0)
        return np.asarray(img.affine[:3, :3] @ voxels + img.affine[:3, 3])

    def locate(scan: nb.Nifti1Image, **_: Any) -> SimpleNamespace:
        mask = nb.Nifti1Image((scan.get_fdata() > 30).astype("u1"), scan.affine)
        return SimpleNamespace(
            mask=mask, centroids={17: centre(scan)}, template_centroids={17: np.zeros(3)}, volumes_ml={}
        )

    def prealign(
        fixed: nb.Nifti1Image,
        moving: nb.Nifti1Image,
        *,
        fixed_centroids: dict[int, np.ndarray],
        moving_centroids: dict[int, np.ndarray],
        **_: Any,
    ) -> SimpleNamespace:
        matrix = np.eye(4)
        matrix[:3, 3] = moving_centroids[17] - fixed_centroids[17]
        return SimpleNamespace(
            fixed2moving=matrix,
            cost=-1.0,
            overlap=0.9,
            contrast=5.0,
            start="centroids",
            success=True,
            reason="",
        )

    def segment(scan: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
        data = scan.get_fdata()
        dseg = np.where(data > 80, 41, np.where(data > 30, 17, 0)).astype("i2")

        def image(values: np.ndarray) -> nb.Nifti1Image:
            return nb.Nifti1Image(values, scan.affine)

        return SimpleNamespace(
            dseg=image(dseg),
            leaves=image(dseg),
            mask=options["mask"] if options["trust_mask"] else image((dseg > 0).astype("u1")),
            tissues={
                "GM": image((dseg == 17).astype("f4")),
                "WM": image((dseg == 41).astype("f4")),
                "CSF": image(np.zeros(dseg.shape, "f4")),
            },
            probsegs={},
            regions={},
            volumes=[{"index": 17, "name": "Left-Hippocampus", "volume_mm3": 1000.0}],
            entropy=image((dseg / 41).astype("f4")) if options["uncertainty"] else None,
            metadata={"mean_entropy": 0.1},
        )

    def register(fixed: nb.Nifti1Image, moving: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
        grid = Grid.of(fixed)
        field = np.zeros((*grid.shape, 3), np.float32)
        field[..., 1] = 2
        forward, inverse = DisplacementField(grid, field), DisplacementField(grid, -field)
        fixed2moving = options["fixed2moving"]
        return SimpleNamespace(
            forward=forward,
            chain=lambda: [forward, fixed2moving],
            inverse_chain=lambda: [np.linalg.inv(fixed2moving), inverse],
            lam=0.4,
            curve=[
                {
                    "lam": lam,
                    "dice_all": 0.7,
                    "similarity": 0.8,
                    "sd_log_jacobian": 0.1,
                    "folding_percent": 0.0,
                    "chosen": lam == 0.4,
                }
                for lam in (0.0, 0.4, 1.0)
            ],
            metrics={"similarity": 0.8, "sd_log_jacobian": 0.1, "folding_percent": 0.0},
            moved=resample(moving, grid, [fixed2moving]),
            sweep=LambdaSweep(np.array([0.0, 1]), np.stack([field, field]), grid, np.eye(4), fixed2moving)
            if options["sweep_steps"]
            else None,
        )

    for function in (locate, prealign, segment, register):
        module = types.ModuleType(f"hyperprep.models.predict.{function.__name__}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        "hyperprep.models.weights.find_weights",
        lambda name, **_: SimpleNamespace(name=name, path=Path(name), sha256=DIGEST, metadata={}),
    )


@pytest.fixture
def read_json() -> Callable[[Path], dict[str, Any]]:
    """Reader of a JSON object."""
    return lambda path: dict(json.loads(path.read_text()))


@pytest.fixture
def check_validator() -> Callable[[Path], None]:
    """Let the BIDS validator look at a folder of derivatives; it may find no error."""

    def check(root: Path) -> None:
        program = str(Path(sys.executable).with_name("bids-validator-deno"))
        (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
        (root / ".bidsignore").write_text("\n".join(BIDSIGNORE) + "\n")
        command = [program, "--format", "json", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue.get("severity") == "error"] == []
        assert done.returncode == 0

    return check
