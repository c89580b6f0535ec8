from functools import cache

import nibabel as nb
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.predict.prealign import Prealignment, prealign
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import map_points, resample


@cache
def template():
    img = load_mni152_template(resolution=3)
    return nb.Nifti1Image(img.get_fdata(dtype=np.float32), img.affine)


@cache
def mask():
    return nb.Nifti1Image((template().get_fdata() > 0.1).astype(np.uint8), template().affine)


def brain():
    return Grid.of(template()).to_world(np.argwhere(np.asarray(mask().dataobj)))


def far_map(scale=1.25, angles=(25.0, -20.0, 15.0), stretch=(1.0, 1.0, 1.0)):
    """Point map from the template to a world where the head lies elsewhere."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * stretch
    matrix[:3, 3] = 35.0, -25.0, 30.0
    return matrix


def moved(fixed2moving, data=None):
    """Template (or other data on its grid) in a world reached by the map, by changing the header only."""
    values = template().get_fdata(dtype=np.float32) if data is None else data
    return nb.Nifti1Image(values, fixed2moving @ template().affine)


@cache
def inverted_head():
    """Template with inverted contrast, in a bright shell of scalp over a dark shell of skull, with noise."""
    data, inside = template().get_fdata(dtype=np.float32), np.asarray(mask().dataobj) > 0
    depth = distance_transform_edt(~inside, sampling=3.0)
    head = np.where(inside, 1.3 - data, 0.05).astype(np.float32)
    head[(depth > 9) & (depth < 18)] = 0.9
    return head + np.random.default_rng(0).normal(scale=0.03, size=head.shape).astype(np.float32)


def error(result, truth):
    difference = map_points(brain(), [result.fixed2moving]) - map_points(brain(), [truth])
    return np.linalg.norm(difference, axis=1).mean()


def test_affine_is_found_from_far_away_in_other_contrast_with_skull():
    truth = far_map(stretch=(1.08, 0.95, 1.0))
    result = prealign(template(), moved(truth, inverted_head()), num_threads=2)
    assert error(result, truth) < 2
    assert result.success
    assert result.reason == ""
    assert result.start == "search"
    assert result.overlap > 0.9
    assert np.allclose(result.moving2fixed @ result.fixed2moving, np.eye(4))


@pytest.mark.parametrize("dof", [6, 7])
def test_rigid_and_similarity(dof):
    truth = far_map(scale=1.0 if dof == 6 else 0.75)
    result = prealign(template(), moved(truth), dof=dof)
    assert error(result, truth) < 1
    stretches = np.linalg.svd(result.fixed2moving[:3, :3], compute_uv=False)
    assert np.ptp(stretches) < 1e-6
    assert dof == 7 or abs(stretches[0] - 1) < 1e-6


def centroids():
    points = np.random.default_rng(0).choice(brain(), 20)
    return {number: point for number, point in enumerate(points, start=1)}


def test_centroids_reach_beyond_the_search():
    truth = far_map(angles=(150.0, 10.0, 20.0), scale=1.2)
    fixed = centroids()
    moving = {number: map_points(point[None], [truth])[0] for number, point in fixed.items()}
    moving[3] = moving[3] + 80.0  # a wrong one
    moving[4] = np.full(3, np.nan)
    result = prealign(
        template(),
        moved(truth),
        fixed_mask=mask(),
        moving_mask=moved(truth, np.asarray(mask().dataobj)),
        fixed_centroids=fixed,
        moving_centroids=moving,
    )
    assert result.start == "centroids"
    assert error(result, truth) < 1
    assert result.success


def test_misleading_centroids_are_overruled_by_the_search():
    truth = far_map(scale=1.0)
    fixed = centroids()
    moving = {number: map_points(point[None], [truth])[0] * (1, 1, -1) for number, point in fixed.items()}
    result = prealign(template(), moved(truth), fixed_centroids=fixed, moving_centroids=moving)
    assert result.start == "search"
    assert error(result, truth) < 1
    assert result.success


def sphere():
    grid = Grid.of(template())
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    noise = np.random.default_rng(1).normal(scale=0.05, size=grid.shape)
    return ((np.linalg.norm(points - grid.center, axis=-1) < 75) + noise).astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "sphere", "upside down", "top of the head only"])
def test_failure_is_admitted(kind):
    data = template().get_fdata(dtype=np.float32)
    if kind == "noise":
        img = moved(np.eye(4), np.random.default_rng(0).normal(size=data.shape).astype(np.float32))
    elif kind == "sphere":
        img = moved(np.eye(4), sphere())
    elif kind == "upside down":
        img = moved(far_map(angles=(180.0, 0.0, 0.0)))
    else:
        top = data.copy()
        top[:, :, : int(0.75 * data.shape[2])] = 0
        img = moved(np.eye(4), top)
    result = prealign(template(), img)
    assert not result.success
    assert len(result.reason) > 30


def test_equal_input_gives_equal_bytes():
    img = moved(far_map(), inverted_head())
    first, second = (prealign(template(), img, dof=7, num_threads=1) for _ in range(2))
    assert first.fixed2moving.tobytes() == second.fixed2moving.tobytes()
    assert first.cost == second.cost


def test_flipped_sheared_and_anisotropic_grids():
    truth = far_map(scale=1.0, angles=(10.0, -12.0, 8.0))
    affine = (
        truth @ template().affine @ np.array([[-1, 0.1, 0, 60], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    )
    grid = Grid((template().shape[0], template().shape[1], template().shape[2] // 2), affine)
    img = resample(template(), grid, [np.linalg.inv(truth)])
    assert error(prealign(template(), img), truth) < 1.5


def test_roles_can_be_swapped():
    truth = far_map(scale=1.0)
    result = prealign(moved(truth, inverted_head()), template())
    swapped = Prealignment(result.moving2fixed, 0.0, 0.0, 0.0, True, "", "search")
    assert error(swapped, truth) < 2


def test_any_orientation_is_found_on_request():
    truth = far_map(angles=(170.0, 15.0, -20.0), scale=0.9)
    result = prealign(template(), moved(truth), any_orientation=True)
    assert error(result, truth) < 1
    assert result.success


def test_messages():
    with pytest.raises(UsageError, match="6, 7, 12 degrees of freedom, not 9"):
        prealign(template(), template(), dof=9)
    with pytest.raises(UsageError, match="at least 1"):
        prealign(template(), template(), num_threads=0)
    empty = nb.Nifti1Image(np.zeros(template().shape, np.uint8), template().affine)
    with pytest.raises(ScanError, match="mask is empty"):
        prealign(template(), template(), fixed_mask=empty)
    with pytest.raises(ScanError, match="hardly varies"):
        prealign(template(), moved(np.eye(4), np.ones(template().shape, np.float32)))
    other = nb.Nifti1Image(np.ones((7, 8, 9), np.uint8), np.eye(4))
    with pytest.raises(ScanError, match="different grids"):
        prealign(template(), template(), moving_mask=other)
