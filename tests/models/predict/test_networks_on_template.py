"""The shipped networks on the bundled template: each image floor alone, and what its results promise."""

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.predict.instance import refine_transform
from hyperprep.models.predict.place import place
from hyperprep.models.predict.register import register
from hyperprep.models.predict.segment import segment
from hyperprep.models.predict.volumes import INTRACRANIAL
from hyperprep.models.spatial.grids import Grid, model_grid
from hyperprep.models.spatial.transforms import DisplacementField, map_points, resample


@pytest.fixture(scope="module")
def template():
    """The MNI152 brain at 2 mm on the model grid."""
    from nilearn.datasets import load_mni152_template

    mni = load_mni152_template(resolution=1)
    image = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    return resample(image, model_grid(2.0), [np.eye(4)])


@pytest.fixture(scope="module")
def deformation(template):
    """A known smooth deformation of a few millimetres."""
    rng = np.random.default_rng(0)
    grid = Grid.of(template)
    noise = [ndimage.gaussian_filter(rng.standard_normal(grid.shape), 7) for _ in range(3)]
    field = np.stack([4 * n / n.std() for n in noise], -1).astype(np.float32) / 2
    return DisplacementField(grid, field)


@pytest.fixture(scope="module")
def warped(template, deformation):
    """The same brain under the deformation."""
    return resample(template, deformation.grid, [deformation])


def mask_of(image):
    return nb.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), image.affine)


@pytest.fixture(scope="module")
def found(template, warped):
    return register(template, warped, fixed2moving=np.eye(4), lam=0.3, refine="none")


def correlation(a, b):
    inside = a.get_fdata() > 0
    return np.corrcoef(a.get_fdata()[inside], b.get_fdata()[inside])[0, 1]


def test_network_alone_undoes_part_of_a_known_deformation(template, warped, found):
    assert correlation(template, found.moved) > correlation(template, warped) + 0.02
    assert found.metrics["folding_percent"] == 0
    assert found.moved.shape == template.shape
    assert [row["chosen"] for row in found.curve] == [1]


def test_inverse_inverts(template, found):
    grid = Grid.of(template)
    inside = np.argwhere(template.get_fdata() > 0)[::997]
    points = grid.to_world(inside)
    there = map_points(points, found.chain())
    assert np.linalg.norm(there - points, axis=1).mean() > 0.3
    back = map_points(there, found.inverse_chain())
    assert np.linalg.norm(back - points, axis=1).mean() < 0.1


def test_two_scans_that_lie_elsewhere_are_registered_where_they_lie(template, warped, found):
    turn = np.array([[0.96, 0.28, 0, 12], [-0.28, 0.96, 0, -7], [0, 0, 1, 30], [0, 0, 0, 1]])
    there, here = turn @ np.diag([1.1, 0.95, 1.05, 1]), np.linalg.inv(turn) @ np.diag([1.1, 0.95, 1.05, 1])
    first, second = (
        nb.Nifti1Image(image.get_fdata(dtype=np.float32), place @ image.affine)
        for image, place in ((template, there), (warped, here))
    )
    between = here @ np.linalg.inv(there)
    options = {"fixed2moving": between, "frame2fixed": there, "lam": 0.3, "refine": "none"}
    made = register(first, second, **options)
    grid = Grid.of(template)
    points = grid.to_world(np.argwhere(template.get_fdata() > 0)[::997])
    expected = map_points(points, [*found.chain(), here])
    moved = map_points(map_points(points, [there]), made.chain())
    assert np.linalg.norm(moved - expected, axis=1).mean() < 0.05
    assert np.linalg.norm(moved - map_points(points, [here]), axis=1).mean() > 0.3
    assert correlation(first, made.moved) > correlation(template, warped) + 0.02
    back = map_points(moved, made.inverse_chain())
    assert np.linalg.norm(back - map_points(points, [there]), axis=1).mean() < 0.15


def test_larger_lambda_deforms_less(template, warped, found):
    stiff = register(template, warped, fixed2moving=np.eye(4), lam=1.0, refine="none")
    assert np.abs(stiff.forward.data).mean() < 0.5 * np.abs(found.forward.data).mean()


def test_refinement_improves_the_similarity(template, warped, found):
    refined = register(template, warped, fixed2moving=np.eye(4), lam=0.3, refine="ncc")
    assert refined.metrics["similarity"] > found.metrics["similarity"]
    assert refined.metrics["folding_percent"] <= 0.1


@pytest.mark.parametrize(("refine", "tolerance"), [("none", 0.02), ("ncc", 1.0)])
def test_symmetric_registration_does_not_care_which_image_is_fixed(template, warped, refine, tolerance):
    options = {"fixed2moving": np.eye(4), "lam": 0.5, "refine": refine, "symmetric": True}
    there, back = register(template, warped, **options), register(warped, template, **options)
    grid = Grid.of(template)
    points = grid.to_world(np.argwhere(template.get_fdata() > 0)[::997])
    apart = np.linalg.norm(
        map_points(points, there.chain()) - map_points(points, back.inverse_chain()), axis=1
    )
    assert apart.mean() < tolerance
    assert there.metrics["symmetric"]


def test_any_registration_can_be_refined_and_keeps_its_affine_part(template, warped):
    away = np.eye(4)
    away[:3, :3] *= 1.1
    away[:3, 3] = 12, -7, 30
    moved = nb.Nifti1Image(warped.get_fdata(dtype=np.float32), away @ warped.affine)
    refined = refine_transform(template, moved, [away], lam=0.3)
    assert refined.metrics["similarity"] > refined.metrics["similarity_before"] + 0.05
    assert refined.metrics["folding_percent"] <= 0.1
    assert correlation(template, refined.moved) > correlation(template, warped) + 0.02
    grid = Grid.of(template)
    points = grid.to_world(np.argwhere(template.get_fdata() > 0)[::997])
    there = map_points(points, refined.chain)
    assert np.linalg.norm(there - map_points(points, [away]), axis=1).max() < 20
    assert np.linalg.norm(map_points(there, refined.inverse_chain) - points, axis=1).mean() < 0.5
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        refine_transform(template, moved, [away], lam=-1)


def test_impossible_settings_are_refused_before_any_work(template, warped):
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        register(template, warped, fixed2moving=np.eye(4), lam=1.5)
    with pytest.raises(UsageError, match="ncc or none"):
        register(template, warped, fixed2moving=np.eye(4), refine="more")
    with pytest.raises(UsageError, match="bounded or gradient"):
        register(template, warped, fixed2moving=np.eye(4), search="random")
    away = np.eye(4)
    away[:3, 3] = 500
    with pytest.raises(ScanError, match="prealignment"):
        register(template, warped, fixed2moving=away, lam=0.3, refine="none")


def test_segmentation_gives_what_was_asked_on_the_scans_own_grid(template):
    flipped = nb.Nifti1Image(
        template.get_fdata(dtype=np.float32)[::-1], template.affine @ np.diag([-1, 1, 1, 1])
    )
    flipped.affine[:3, 3] = (template.affine @ [template.shape[0] - 1, 0, 0, 1])[:3]
    whole = segment(flipped, template2scan=np.eye(4), mask=mask_of(flipped))
    assert whole.dseg.shape == flipped.shape
    brain, truth = np.asanyarray(whole.mask.dataobj) > 0, flipped.get_fdata() > 0
    assert 2 * (brain & truth).sum() / (brain.sum() + truth.sum()) > 0.88
    labels = np.asanyarray(whole.dseg.dataobj)
    x = Grid.of(flipped).to_world(np.argwhere(labels == 2))[:, 0].mean()
    assert x < -10, "left white matter must lie on the left whatever the header's order"
    total = sum(t.get_fdata() for t in whole.tissues.values())
    assert np.allclose(total[brain], 1, atol=1e-3)
    assert whole.entropy is None
    one = segment(
        flipped, template2scan=np.eye(4), mask=mask_of(flipped), labels=["left thalamus"], uncertainty=True,
        samples=4,
    )  # fmt: skip
    assert set(np.unique(np.asanyarray(one.dseg.dataobj))) == {0, 10}
    thalamus, intracranial = one.volumes
    assert (thalamus["index"], intracranial["index"]) == (10, INTRACRANIAL)
    assert 0.6 < thalamus["relative_volume"] < 1.5, "an average brain"
    assert 0.6 < thalamus["expected_dice"] <= 1
    assert intracranial["volume_mm3"] == pytest.approx(1.948e6), "the template's own"
    bits = one.entropy.get_fdata()
    assert bits[~brain].max() == 0
    assert 0 < bits[brain].mean() < bits.max() <= np.log2(30)
    assert bits[brain].mean() == pytest.approx(one.metadata["mean_entropy"], rel=0.05)
    same = np.asanyarray(one.leaves.dataobj) == np.asanyarray(whole.leaves.dataobj)
    assert 0.9 < same[brain].mean() < 1, "units left out change little, but something"


def test_segmentation_where_no_brain_is_says_so(template):
    away = np.eye(4)
    away[:3, 3] = 400
    with pytest.raises(ScanError):
        segment(template, template2scan=away, mask=mask_of(template))


def test_segmentation_follows_a_deformation_of_the_brain(template, warped, deformation):
    here, there = (
        segment(image, template2scan=np.eye(4), mask=mask_of(image)) for image in (template, warped)
    )
    assert there.metadata["deformed_onto_atlas"]
    moved = resample(here.leaves, deformation.grid, [deformation], interpolation="nearest")
    a, still, expected = (np.asanyarray(i.dataobj) for i in (there.leaves, here.leaves, moved))
    numbers = (10, 11, 12, 13, 17, 49, 50, 51, 52, 53, 4, 43, 16)
    scores = [
        np.mean([2 * ((a == n) & (b == n)).sum() / ((a == n).sum() + (b == n).sum()) for n in numbers])
        for b in (expected, still)
    ]
    assert scores[0] > 0.85
    assert scores[0] > scores[1] + 0.05


def test_a_refinement_that_loses_overlap_is_not_used(template, warped, deformation, monkeypatch):
    dseg = segment(template, template2scan=np.eye(4), mask=mask_of(template)).leaves
    moved = resample(dseg, deformation.grid, [deformation], interpolation="nearest")
    monkeypatch.setattr(
        "hyperprep.models.predict.register.refine_displacement",
        lambda start, fixed, *_, **__: torch.full((1, 3, *(n // 2 for n in fixed.shape[2:])), 3.0),
    )
    options = {"fixed2moving": np.eye(4), "fixed_dseg": dseg, "moving_dseg": moved}
    found = register(template, warped, lam="auto", **options)
    assert found.metrics["refinement_refused"]
    assert found.metrics["refinement"] == "none"
    assert found.metrics["dice_all"] == found.metrics["dice_all_network"]
    assert not register(template, warped, lam=0.3, **options).metrics["refinement_refused"]


def test_a_turned_head_is_placed_by_itself(template):
    """The structures' centres alone leave a head that lies askew badly aligned."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.deg2rad([20.0, -8, 12])).as_matrix()
    turn[:3, 3] = [12, -20, 30]
    found = place(nb.Nifti1Image(np.asanyarray(template.dataobj), turn @ template.affine))
    points = np.array(
        [[0.0, -20, 10, 1], [40, -15, 5, 1], [-40, 20, 30, 1], [10, -70, -20, 1], [0, 40, 10, 1]]
    ).T
    error = np.linalg.norm((found.template2scan @ points - turn @ points)[:3], axis=0)
    assert found.aligned
    assert error.max() < 5, f"{error.round(1)} mm from where the head lies"
