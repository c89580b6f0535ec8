"""A whole run over a tiny data set, with small functions in the networks' place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from hyperprep.models.spatial.transforms import map_points, read_transform
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template

GOLDEN = Path(__file__).with_name("golden")


def run(
    settings: AnatSettings, scans: list[Scan], template_file: Path, base_dir: Path, **config: Any
) -> Path:
    """Run over one participant in this process; returns the derivatives' root."""
    workflow = init_run_wf(
        participants={"01": scans},
        template=Template("tiny", template_file),
        settings=dataclasses.replace(settings, reportlets=False),
        output_spaces=(OutputSpace(), OutputSpace("12")),
        base_dir=base_dir,
    )
    workflow.config["execution"].update(
        {"crashdump_dir": str(base_dir / "crash"), "poll_sleep_duration": 0.01, **config}
    )
    workflow.run(plugin="Linear")
    return settings.output_dir


@pytest.fixture
def derivatives(
    settings: AnatSettings, dataset: list[Scan], template_file: Path, networks: None, tmp_path: Path
) -> Path:
    """Derivatives of two scans."""
    return run(settings, dataset, template_file, tmp_path / "work")


def test_a_run(
    derivatives: Path,
    dataset: list[Scan],
    read_json: Callable[..., dict[str, Any]],
    check_validator: Callable[[Path], None],
) -> None:
    _check_names(derivatives)
    for session, scan in zip(("1", "2"), dataset, strict=True):
        stem = derivatives / f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
        _check_native(stem, nb.load(scan.t1w))
        _check_standard(stem)
        quality = read_json(Path(f"{stem}_quality.json"))
        assert quality["lambda"] == 0.4
        assert quality["prealign_success"] is True
        assert 0.5 < quality["dice_mean"] <= 1
        assert quality["register_weights_sha256"] == "0" * 64
        assert quality["seconds"] > 0
        assert all(not isinstance(value, dict) for value in quality.values())
    sidecars = [
        read_json(derivatives / f"sub-01/ses-{ses}/anat/sub-01_ses-{ses}_desc-preproc_T1w.json")
        for ses in ("1", "2")
    ]
    assert [sidecar["SkullStripped"] for sidecar in sidecars] == [True, False]
    check_validator(derivatives)


def _check_names(root: Path) -> None:
    """Exactly the files expected, sidecars among them, and nothing left over from writing."""
    written = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert written == (GOLDEN / "tiny_run.txt").read_text().split()


def _check_native(stem: Path, raw: nb.Nifti1Image) -> None:
    kinds = {"desc-preproc_T1w": "f4", "desc-brain_mask": "u1", "dseg": "u1", "seg-hyperprep_dseg": "i2"}
    for name, kind in {**kinds, "label-GM_probseg": "f4"}.items():
        img = nb.load(f"{stem}_{name}.nii.gz")
        assert img.shape == raw.shape, name
        assert np.allclose(img.affine, raw.affine, atol=1e-4), name
        assert img.get_data_dtype() == np.dtype(kind), name
    volumes = pd.read_csv(f"{stem}_seg-hyperprep_desc-volumes_dseg.tsv", sep="\t")
    assert volumes["name"].tolist() == ["brain-mask", "Left-Hippocampus"]


def _check_standard(stem: Path) -> None:
    image = nb.load(f"{stem}_space-tiny_desc-preproc_T1w.nii.gz")
    coarse = nb.load(f"{stem}_space-tiny_res-12_desc-preproc_T1w.nii.gz")
    assert np.allclose(coarse.header.get_zooms(), 12)
    sidecar = json.loads(Path(f"{stem}_space-tiny_res-12_desc-preproc_T1w.json").read_text())
    assert sidecar["RegularizationWeight"] == 0.4
    assert sidecar["WeightsSHA256"] == "0" * 64
    assert "12 mm" in sidecar["Resolution"]
    assert image.shape == (16, 18, 20)
    forward, inverse = (
        read_transform(f"{stem}_from-{way}_mode-image_xfm.h5") for way in ("T1w_to-tiny", "tiny_to-T1w")
    )
    points = np.array([[0.0, 3, -2], [10, -20, 15]])
    assert np.allclose(map_points(map_points(points, forward), inverse), points, atol=1e-3)
    # the head is where the transform says: the bright core of the scan comes to the template's centre
    native = nb.load(f"{stem}_desc-preproc_T1w.nii.gz")
    core = nb.affines.apply_affine(native.affine, np.argwhere(native.get_fdata() > 80).mean(axis=0))
    moved = nb.affines.apply_affine(image.affine, np.argwhere(image.get_fdata() > 80).mean(axis=0))
    assert np.allclose(map_points(moved[None], forward)[0], core, atol=2)


def test_second_run_computes_nothing_and_touches_nothing(
    derivatives: Path, settings: AnatSettings, dataset: list[Scan], template_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import hyperprep.models.predict.register as stand_in

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("registered again")

    monkeypatch.setattr(stand_in, "register", refuse)
    before = {path: path.stat().st_mtime_ns for path in derivatives.rglob("*.*") if path.is_file()}
    lost = derivatives / "sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz"
    lost.unlink()
    run(settings, dataset, template_file, tmp_path / "work")
    assert lost.is_file()
    after = {path: path.stat().st_mtime_ns for path in before if path != lost}
    assert after == {path: time for path, time in before.items() if path != lost}


def test_one_bad_scan_does_not_stop_the_other(
    settings: AnatSettings, dataset: list[Scan], template_file: Path, networks: None, tmp_path: Path
) -> None:
    nb.Nifti1Image(np.ones((7, 8, 9), np.float32), np.eye(4) * [8, 8, 8, 1]).to_filename(dataset[0].t1w)
    with pytest.raises(Exception, match="every voxel has the value"):
        run(settings, dataset, template_file, tmp_path / "work")
    assert not list(settings.output_dir.glob("sub-01/ses-1/anat/*"))
    assert (settings.output_dir / "sub-01/ses-2/anat/sub-01_ses-2_quality.json").is_file()
