"""Interfaces without a network: conformation, bias field, masks, volumes, templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from hyperprep.exceptions import NoInputError, ScanError, TemplateError
from hyperprep.interfaces.conform import ConformScan, N4BiasCorrection
from hyperprep.interfaces.masks import BrainMask, MaskImage
from hyperprep.interfaces.template import CheckFrame, LoadTemplate, ReferenceGrid
from hyperprep.interfaces.volumes import MeasureVolumes


def test_conform_keeps_the_grid(scan: str, workdir: Path) -> None:
    outputs = ConformScan(in_file=scan).run().outputs
    made, raw = nb.load(outputs.out_file), nb.load(scan)
    assert np.allclose(made.affine, raw.affine, atol=1e-4)
    assert np.array_equal(made.get_fdata(), raw.get_fdata())
    assert (made.get_data_dtype(), int(made.header["qform_code"]), int(made.header["sform_code"])) == (
        "f4",
        1,
        1,
    )
    assert made.header.get_xyzt_units()[0] == "mm"
    metrics = json.loads(Path(outputs.out_metrics).read_text())
    assert metrics["shape"] == [7, 8, 9]
    assert metrics["seconds"] >= 0


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (np.ones((7, 8, 9), np.float32), ScanError),
        (np.zeros((7, 8), np.float32), ScanError),
        (np.random.default_rng(0).random((7, 8, 9, 2)).astype("f4"), ScanError),
        (np.full((7, 8, 9), np.nan, np.float32), ScanError),
    ],
    ids=["constant", "two-dimensional", "two volumes", "not finite"],
)
def test_conform_refuses(save: Callable[..., str], workdir: Path, data: np.ndarray, error: type) -> None:
    with pytest.raises(error, match=r"T1w\.nii"):
        ConformScan(in_file=save(data, "T1w.nii")).run()


def test_conform_refuses_what_vanished(scan: str, workdir: Path) -> None:
    interface = ConformScan(in_file=scan)
    Path(scan).unlink()
    with pytest.raises((NoInputError, FileNotFoundError)):
        interface.run()


def test_n4_flattens_a_known_field(save: Callable[..., str], workdir: Path) -> None:
    place = np.indices((20, 22, 24)).astype(float)
    ball = ((place - 11) ** 2).sum(0) < 64
    field = 1 + 0.05 * (place[0] - 10)
    path = save((100 * ball * field).astype("f4"), "T1w.nii.gz", np.diag([2.0, 3, 2.5, 1]))
    outputs = N4BiasCorrection(in_file=path, shrink=3).run().outputs
    before, after = nb.load(path).get_fdata()[ball], nb.load(outputs.out_file).get_fdata()[ball]
    assert after.std() / after.mean() < 0.4 * before.std() / before.mean()
    assert np.isclose(after.mean(), before.mean(), rtol=0.02)
    assert not nb.load(outputs.out_file).get_fdata()[~ball].any()
    assert json.loads(Path(outputs.out_metrics).read_text())["field_ratio"] > 1.3


def test_mask_of_a_stripped_scan_has_no_hole(
    save: Callable[..., str], scan_data: np.ndarray, workdir: Path
) -> None:
    scan_data[3, 4, 4] = 0
    scan_data[0, 0, 0] = 7  # a speck far from the brain
    made = nb.load(BrainMask(in_file=save(scan_data, "T1w.nii.gz")).run().outputs.out_mask)
    expected = np.zeros(scan_data.shape, np.uint8)
    expected[1:6, 1:7, 1:8] = 1
    assert np.array_equal(np.asanyarray(made.dataobj), expected)
    assert made.get_data_dtype() == np.uint8


def test_mask_of_a_whole_head_is_refused(save: Callable[..., str], workdir: Path) -> None:
    head = np.random.default_rng(0).uniform(1, 9, (7, 8, 9)).astype("f4")
    with pytest.raises(ScanError, match="said to be skull-stripped"):
        BrainMask(in_file=save(head, "T1w.nii.gz")).run()


def test_given_mask_comes_onto_the_scans_grid(scan: str, save: Callable[..., str], workdir: Path) -> None:
    fine = nb.Nifti1Image(np.zeros((1, 1, 1)), nb.load(scan).affine)
    affine = fine.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = fine.affine[:3, :3] @ [-0.25, -0.25, -0.25] + fine.affine[:3, 3]
    big = np.zeros((14, 16, 18), np.uint8)
    big[4:8, 6:10, 8:12] = 1
    made = BrainMask(in_file=scan, in_mask=save(big, "mask.nii.gz", affine)).run().outputs.out_mask
    expected = np.zeros((7, 8, 9))
    expected[2:4, 3:5, 4:6] = 1
    assert np.array_equal(nb.load(made).get_fdata(), expected)


def test_masking(scan: str, save: Callable[..., str], scan_data: np.ndarray, workdir: Path) -> None:
    inside = np.zeros(scan_data.shape, np.uint8)
    inside[2:4] = 1
    outputs = MaskImage(in_file=scan, in_mask=save(inside, "mask.nii.gz")).run().outputs
    assert np.array_equal(nb.load(outputs.out_file).get_fdata(dtype="f4"), scan_data * inside)


def test_volumes_of_a_segmentation(save: Callable[..., str], workdir: Path) -> None:
    dseg = np.zeros((7, 8, 9), np.int16)
    dseg[1:3, 1:3, 1:3], dseg[4, 4, 4:6] = 17, 53
    mask = (dseg > 0).astype(np.uint8)
    affine = np.diag([-2.0, 3, 4, 1])
    outputs = (
        MeasureVolumes(in_dseg=save(dseg, "dseg.nii.gz", affine), in_mask=save(mask, "mask.nii.gz", affine))
        .run()
        .outputs
    )
    table = pd.read_csv(outputs.out_volumes, sep="\t").set_index("name")["volume_mm3"]
    assert table.to_dict() == {"brain-mask": 240.0, "Left-Hippocampus": 192.0, "Right-Hippocampus": 48.0}
    assert outputs.remarks == []


def test_volumes_of_a_table_are_judged(tmp_path: Path, workdir: Path) -> None:
    table = tmp_path / "volumes.tsv"
    table.write_text(
        "index\tname\tvolume_mm3\n17\tLeft-Hippocampus\t4000\n53\tRight-Hippocampus\t900\n30001\tbrain\t3e6\n"
    )
    outputs = MeasureVolumes(in_volumes=str(table)).run().outputs
    assert outputs.remarks == [
        "brain is 3000 ml, expected 700 to 2100 ml",
        "Left-Hippocampus is 4 ml but Right-Hippocampus is 0.9 ml",
    ]


def test_bundled_template(workdir: Path) -> None:
    outputs = LoadTemplate().run().outputs
    template, mask = nb.load(outputs.out_file), nb.load(outputs.out_mask)
    assert template.shape == mask.shape == (197, 233, 189)
    assert np.allclose(template.header.get_zooms(), 1)
    assert int(template.header["sform_code"]) == 4
    assert 1.5e6 < mask.get_fdata().sum() < 2.2e6


def test_template_file_without_mask_has_none(scan: str, workdir: Path) -> None:
    outputs = LoadTemplate(in_file=scan).run().outputs
    assert not isinstance(outputs.out_mask, str)


def test_reference_grid_covers_the_template(save: Callable[..., str], workdir: Path) -> None:
    data = np.random.default_rng(0).random((7, 8, 9)).astype("f4")
    affine = np.diag([-1.0, 1, 1.5, 1])
    affine[:3, 3] = 3, -4, -5
    outputs = ReferenceGrid(in_file=save(data, "tpl.nii.gz", affine), spacing=2).run().outputs
    made = nb.load(outputs.out_file)
    assert made.shape == (4, 4, 7)
    assert np.allclose(made.affine[:3, :3], np.diag([-2, 2, 2]))
    assert np.allclose(made.affine[:3, 3], affine[:3, 3])


@pytest.mark.parametrize(("shift", "accepted"), [(5.0, True), (60.0, False)])
def test_template_in_another_frame_is_refused(
    scan: str, tmp_path: Path, workdir: Path, shift: float, accepted: bool
) -> None:
    for name, offset in (("found", shift), ("expected", 0.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"17": [offset, 1, 2], "53": [offset, 3, 4]}))
    check = CheckFrame(
        in_file=scan, centroids=str(tmp_path / "found.json"), model_centroids=str(tmp_path / "expected.json")
    )
    if accepted:
        assert check.run().outputs.distance == pytest.approx(shift)
    else:
        with pytest.raises(TemplateError, match="60 mm"):
            check.run()
