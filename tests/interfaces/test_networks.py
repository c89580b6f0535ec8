"""Interfaces of the networks, with small functions in the networks' place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from hyperprep.exceptions import AlignmentError, ScanError, UsageError, WeightsError
from hyperprep.interfaces.locate import Locate
from hyperprep.interfaces.prealign import AffinePrealign
from hyperprep.interfaces.refine import InstanceRefine
from hyperprep.interfaces.register import HyperMorph, TuneLambda
from hyperprep.interfaces.segment import ConditionalSegmentation
from hyperprep.interfaces.transform import ApplyTransform
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import affine_from_itk
from hyperprep.models.spatial.transforms import DisplacementField, map_points, read_transform, write_transform

DIGEST = "0" * 64
SHIFT = np.eye(4)
SHIFT[:3, 3] = 12, -7, 5


def _image(like: nb.Nifti1Image, value: int, dtype: type) -> nb.Nifti1Image:
    return nb.Nifti1Image(np.full(like.shape, value, dtype), like.affine)


def test_locate(scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]) -> None:
    def locate(img: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(
            mask=_image(img, 1, np.uint8),
            centroids={17: np.array([1.5, 2, 3])},
            template_centroids={17: np.array([0.0, 0, 0])},
        )

    seen = fake_module("locate", locate)
    outputs = Locate(in_file=scan, num_threads=2, weights_sha256=DIGEST).run().outputs
    assert json.loads(Path(outputs.out_centroids).read_text()) == {"17": [1.5, 2.0, 3.0]}
    assert json.loads(Path(outputs.out_metrics).read_text())["weights_sha256"] == DIGEST
    assert nb.load(outputs.out_mask).get_data_dtype() == np.uint8
    assert {key: seen[key] for key in ("device", "num_threads", "weights_dir")} == {
        "device": "cpu",
        "num_threads": 2,
        "weights_dir": None,
    }


def test_other_weights_than_planned_are_refused(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    fake_module("locate", lambda img, **options: None)
    with pytest.raises(WeightsError, match="planned with 1111"):
        Locate(in_file=scan, weights_sha256="1" * 64).run()


@pytest.mark.parametrize(
    ("inputs", "device"), [({"use_gpu": True}, "cuda"), ({"device": "cuda:1"}, "cuda:1")]
)
def test_device(
    scan: str,
    workdir: Path,
    weights: dict[str, Any],
    fake_module: Callable[..., Any],
    inputs: dict[str, Any],
    device: str,
) -> None:
    class _Stop(Exception):
        pass

    def locate(img: nb.Nifti1Image, **options: Any) -> None:
        raise _Stop(options["device"])

    fake_module("locate", locate)
    with pytest.raises(_Stop, match=device):
        Locate(in_file=scan, **inputs).run()


def test_digest_and_not_resources_decide_on_running_again(scan: str) -> None:
    digest = Locate(in_file=scan, weights_sha256="a").inputs.get_hashval()[1]
    assert Locate(in_file=scan, weights_sha256="b").inputs.get_hashval()[1] != digest
    same = Locate(in_file=scan, weights_sha256="a", num_threads=8, use_gpu=True, device="cuda:1")
    assert same.inputs.get_hashval()[1] == digest


def _prealigned(success: bool) -> Callable[..., SimpleNamespace]:
    def prealign(fixed: nb.Nifti1Image, moving: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(
            fixed2moving=SHIFT,
            cost=-0.5,
            overlap=0.9,
            contrast=7.0,
            start="centroids",
            success=success,
            reason="" if success else "the masks overlap by 0.1",
        )

    return prealign


def test_prealign_writes_both_directions(
    scan: str, tmp_path: Path, workdir: Path, fake_module: Callable[..., Any]
) -> None:
    seen = fake_module("prealign", _prealigned(True))
    centroids = tmp_path / "centroids.json"
    centroids.write_text('{"17": [1, 2, 3]}')
    outputs = (
        AffinePrealign(fixed_image=scan, moving_image=scan, fixed_centroids=str(centroids), dof=6)
        .run()
        .outputs
    )
    points = np.array([[1.0, 2, 3], [-4, 5, 6]])
    assert np.allclose(map_points(points, read_transform(outputs.out_xfm)), points + SHIFT[:3, 3])
    assert np.allclose(map_points(points, read_transform(outputs.out_inverse_xfm)), points - SHIFT[:3, 3])
    assert outputs.success is True
    assert seen["dof"] == 6
    assert seen["fixed_centroids"][17].tolist() == [1, 2, 3]
    assert seen["moving_centroids"] is None
    assert json.loads(Path(outputs.out_metrics).read_text())["overlap"] == 0.9


def test_failed_alignment_names_the_scan(scan: str, workdir: Path, fake_module: Callable[..., Any]) -> None:
    fake_module("prealign", _prealigned(False))
    with pytest.raises(AlignmentError, match=r"sub-01_T1w\.nii\.gz could not be aligned.*overlap by 0\.1"):
        AffinePrealign(fixed_image=scan, moving_image=scan).run()
    outputs = AffinePrealign(fixed_image=scan, moving_image=scan, on_failure="warn").run().outputs
    assert outputs.success is False


def _segmented(img: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
    dseg = np.zeros(img.shape, np.int16)
    dseg[2:4], dseg[4:5] = 17, 41
    return SimpleNamespace(
        dseg=nb.Nifti1Image(np.where(dseg == 17, dseg, 0), img.affine),  # the label asked for
        leaves=nb.Nifti1Image(dseg, img.affine),
        mask=nb.Nifti1Image((dseg > 0).astype(np.uint8), img.affine),
        tissues={name: _image(img, 0.5, np.float32) for name in ("CSF", "WM", "GM")},
        probsegs={"Left-Hippocampus": _image(img, 0.25, np.float32)} if options["probabilities"] else {},
        regions={},
        volumes=[{"index": 17, "name": "Left-Hippocampus", "volume_mm3": 4000.0}],
        entropy=_image(img, 0.7, np.float32) if options["uncertainty"] else None,
        metadata={"mean_entropy": 0.7},
    )


def test_segmentation(
    scan: str, tmp_path: Path, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    seen = fake_module("segment", _segmented)
    xfm = str(write_transform([SHIFT], tmp_path / "a.txt"))
    interface = ConditionalSegmentation(
        in_file=scan,
        template2scan_xfm=xfm,
        labels=["hippocampus", "41"],
        save_probsegs=True,
        save_uncertainty=True,
    )
    outputs = interface.run().outputs
    assert nb.load(outputs.out_entropy).get_fdata().max() == pytest.approx(0.7)
    assert json.loads(Path(outputs.out_metrics).read_text())["mean_entropy"] == 0.7
    assert set(np.unique(nb.load(outputs.out_dseg).dataobj)) == {0, 17}
    assert set(np.unique(nb.load(outputs.out_all_dseg).dataobj)) == {0, 17, 41}
    assert np.allclose(seen["template2scan"], SHIFT)
    assert seen["labels"] == ("hippocampus", "41")
    tissues = np.asanyarray(nb.load(outputs.out_tissue_dseg).dataobj)
    assert (tissues[2, 0, 0], tissues[4, 0, 0], tissues[0, 0, 0]) == (1, 2, 0)
    assert [Path(path).name.split("_")[0] for path in outputs.out_tissues] == [
        "label-GM",
        "label-WM",
        "label-CSF",
    ]
    legend = pd.read_csv(outputs.out_legend, sep="\t")
    assert legend["name"].tolist() == ["Left-Hippocampus", "Right-Hippocampus", "Right-Cerebral-White-Matter"]
    assert pd.read_csv(outputs.out_tissue_legend, sep="\t")["abbreviation"].tolist() == ["GM", "WM", "CSF"]
    assert Path(outputs.out_probsegs).name == "label-Left-Hippocampus_probseg.nii.gz"
    assert nb.load(outputs.out_dseg).get_data_dtype() == np.int16


def test_a_scan_in_an_unknown_position_is_located_first(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    seen = fake_module("segment", _segmented)
    rough = _image(nb.load(scan), 1, np.uint8)
    fake_module("place", lambda img, **_: SimpleNamespace(mask=rough, template2scan=SHIFT))
    ConditionalSegmentation(in_file=scan, labels=["hippocampus"]).run()
    assert np.allclose(seen["template2scan"], SHIFT)
    assert seen["mask"] is rough
    ConditionalSegmentation(in_file=scan, labels=["hippocampus"], in_template_frame=True).run()
    assert np.allclose(seen["template2scan"], np.eye(4))
    assert seen["mask"] is None


def test_a_label_nobody_knows_is_refused_before_anything_is_read(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    fake_module("segment", _segmented)
    with pytest.raises(UsageError, match="hippocampus"):
        ConditionalSegmentation(in_file=scan, labels=["hippocmpus"]).run()
    assert weights == {}


def _registered(fixed: nb.Nifti1Image, moving: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
    """Shift by (10, 0, 0) mm before the affine."""
    grid = Grid((9, 10, 11), np.array([[20.0, 0, 0, -150], [0, 20, 0, -150], [0, 0, 20, -60], [0, 0, 0, 1]]))
    data = np.zeros((9, 10, 11, 3), np.float32)
    data[..., 0] = 10
    forward, inverse = DisplacementField(grid, data), DisplacementField(grid, -data)
    fixed2moving = options["fixed2moving"]
    return SimpleNamespace(
        forward=forward,
        chain=lambda: [forward, fixed2moving],
        inverse_chain=lambda: [np.linalg.inv(fixed2moving), inverse],
        lam=0.25,
        curve=[{"lam": 0.25, "dice_all": 0.8, "similarity": 0.9, "folding_percent": 0.0, "chosen": True}],
        metrics={"folding_percent": 0.0, "similarity": 0.9},
        moved=fixed,
        sweep=None,
    )


def test_registration_composes_deformation_then_affine(
    scan: str, tmp_path: Path, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    seen = fake_module("register", _registered)
    stretch = np.diag([2.0, 2, 2, 1])
    stretch[:3, 3] = 1, 0, 0
    xfm = str(write_transform([stretch], tmp_path / "a.txt"))
    outputs = HyperMorph(fixed_image=scan, moving_image=scan, fixed2moving_xfm=xfm, lam=0.25).run().outputs
    points = np.array([[-30.0, 2, 3], [-60, -5, 30]])
    expected = (points + np.array([10, 0, 0])) @ stretch[:3, :3].T + stretch[:3, 3]
    there = map_points(points, read_transform(outputs.out_xfm))
    assert np.allclose(there, expected, atol=1e-5)
    assert np.allclose(map_points(there, read_transform(outputs.out_inverse_xfm)), points, atol=1e-5)
    assert np.allclose(seen["fixed2moving"], stretch)
    assert np.array_equal(seen["frame2fixed"], np.eye(4))
    assert (seen["lam"], seen["refine"], seen["fixed_mask"], seen["moving_dseg"]) == (0.25, "ncc", None, None)
    assert pd.read_csv(outputs.lambda_curve, sep="\t").loc[0, "chosen"]
    assert np.allclose(nb.load(outputs.out_jacobian).get_fdata()[1:-1, 1:-1, 1:-1], 1)
    metrics = json.loads(Path(outputs.out_metrics).read_text())
    assert (metrics["lambda"], metrics["weights_sha256"], outputs.lam) == (0.25, DIGEST, 0.25)


def test_the_files_resample_as_they_say(
    save: Callable[..., str],
    tmp_path: Path,
    workdir: Path,
    weights: dict[str, Any],
    fake_module: Callable[..., Any],
) -> None:
    """A bright point at the place that the chain computes comes to the point it was computed from."""
    fake_module("register", _registered)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -30, -30, 0
    data = np.random.default_rng(0).uniform(0, 1, (30, 31, 32)).astype("f4")
    at = np.array([12, 20, 9])  # voxel of the moving image; (-6, 10, 18) mm
    data[tuple(at)] = 100
    image = save(data, "T1w.nii.gz", affine)
    shift = np.eye(4)
    shift[:3, 3] = 0, 4, 0
    xfm = str(write_transform([shift], tmp_path / "a.txt"))
    outputs = HyperMorph(fixed_image=image, moving_image=image, fixed2moving_xfm=xfm).run().outputs
    moved = (
        ApplyTransform(input_image=image, reference_image=image, transforms=[outputs.out_xfm]).run().outputs
    )
    peak = np.unravel_index(np.argmax(nb.load(moved.output_image).get_fdata()), data.shape)
    assert list(peak) == [7, 18, 9]  # 10 mm less along x, 4 mm less along y
    back = ApplyTransform(
        input_image=moved.output_image, reference_image=image, transforms=[outputs.out_inverse_xfm]
    ).run()
    again = np.unravel_index(np.argmax(nb.load(back.outputs.output_image).get_fdata()), data.shape)
    assert list(again) == at.tolist()


def test_companions_come_onto_their_images_grids(
    scan: str,
    save: Callable[..., str],
    workdir: Path,
    weights: dict[str, Any],
    fake_module: Callable[..., Any],
) -> None:
    seen = fake_module("register", _registered)
    img = nb.load(scan)
    dseg = np.zeros((14, 16, 18), np.int16)
    dseg[4:8, 4:8, 4:8] = 17
    fine = img.affine @ np.diag([0.5, 0.5, 0.5, 1])
    HyperMorph(
        fixed_image=scan,
        moving_image=scan,
        moving_dseg=save(dseg, "dseg.nii.gz", fine),
        fixed_mask=save((dseg > 0).astype("u1"), "mask.nii.gz", fine),
    ).run()
    assert seen["moving_dseg"].shape == seen["fixed_mask"].shape == (7, 8, 9)
    assert set(np.unique(np.asanyarray(seen["moving_dseg"].dataobj))) == {0, 17}


def test_composite_is_one_that_itk_lists(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    fake_module("register", _registered)
    outputs = HyperMorph(fixed_image=scan, moving_image=scan).run().outputs
    kinds = [part.GetName() for part in _parts(sitk.ReadTransform(outputs.out_xfm))]
    assert kinds == ["AffineTransform", "DisplacementFieldTransform"]  # ITK applies the last one first


def _parts(transform: sitk.Transform) -> list[sitk.Transform]:
    composite = sitk.CompositeTransform(transform)
    return [composite.GetNthTransform(i) for i in range(composite.GetNumberOfTransforms())]


def test_a_deformation_is_no_prealignment(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    fake_module("register", _registered)
    warp = HyperMorph(fixed_image=scan, moving_image=scan).run().outputs.out_xfm
    with pytest.raises(ScanError, match="no linear transform"):
        HyperMorph(fixed_image=scan, moving_image=scan, fixed2moving_xfm=warp).run()


@pytest.mark.parametrize("lam", [-0.1, 1.5, "best"])
def test_impossible_lambda_is_refused(scan: str, lam: Any) -> None:
    from traits.api import TraitError

    with pytest.raises(TraitError):
        HyperMorph(fixed_image=scan, moving_image=scan, lam=lam)


def test_tuning_gives_lambda_and_the_curve(
    scan: str, workdir: Path, weights: dict[str, Any], fake_module: Callable[..., Any]
) -> None:
    def tuned(*images: nb.Nifti1Image, **options: Any) -> SimpleNamespace:
        made = _registered(*images, **options)
        made.metrics.update(lambda_search="gradient", lambda_evaluations=4, lambda_gradients=4)
        return made

    seen = fake_module("register", tuned)
    tune = TuneLambda(
        fixed_image=scan, moving_image=scan, lambda_regions=["hippocampus"], lambda_search="gradient"
    )
    outputs = tune.run().outputs
    assert outputs.lam == 0.25
    assert pd.read_csv(outputs.lambda_curve, sep="\t")["dice_all"].tolist() == [0.8]
    assert (seen["lam"], seen["refine"], seen["regions"]) == ("auto", "none", ("hippocampus",))
    assert seen["search"] == "gradient"
    metrics = json.loads(Path(outputs.out_metrics).read_text())
    assert (metrics["lambda_evaluations"], metrics["lambda_gradients"]) == (4, 4)


def test_a_registration_from_elsewhere_is_refined(
    scan: str, tmp_path: Path, workdir: Path, fake_module: Callable[..., Any]
) -> None:
    def refine_transform(
        fixed: nb.Nifti1Image, moving: nb.Nifti1Image, transform: Any, **options: Any
    ) -> SimpleNamespace:
        grid = Grid.of(fixed)
        field = DisplacementField(grid, np.zeros((*grid.shape, 3), np.float32))
        matrix = affine_from_itk(transform)
        return SimpleNamespace(
            chain=[field, matrix],
            inverse_chain=[np.linalg.inv(matrix)],
            forward=field,
            moved=fixed,
            metrics=options,
        )

    seen = fake_module("refine_transform", refine_transform, module="instance")
    xfm = str(write_transform([SHIFT], tmp_path / "a.txt"))
    outputs = InstanceRefine(fixed_image=scan, moving_image=scan, in_xfm=xfm, lam=0.6).run().outputs
    points = np.array([[0.0, 2, 3]])
    expected = points + SHIFT[:3, 3]
    assert np.allclose(map_points(points, read_transform(outputs.out_xfm)), expected, atol=1e-4)
    assert np.allclose(map_points(expected, read_transform(outputs.out_inverse_xfm)), points, atol=1e-4)
    assert (seen["lam"], seen["fixed_mask"]) == (0.6, None)
    assert np.allclose(nb.load(outputs.out_jacobian).get_fdata(), 1)
