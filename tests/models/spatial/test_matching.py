import nibabel as nb
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from hyperprep.exceptions import ScanError
from hyperprep.models.spatial.alignment import Pair, contrast_of, mean_distance, optimise, overlap_of
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.matching import BINS, Matcher, interpolate_with_gradient
from hyperprep.models.spatial.pyramid import Pyramid

from .grid_cases import GRIDS, make_grid, smooth_volume, some_affine

GRID = make_grid("LAS", spacing=(2.0, 2.5, 3.0), shape=(37, 38, 39))


def matcher():
    data = smooth_volume(GRID).get_fdata(dtype=np.float32) / 100
    voxels = np.argwhere(np.ones(GRID.shape, bool))[::11]
    classes = np.minimum((data[tuple(voxels.T)] * BINS).astype(int), BINS - 1)
    return Matcher(GRID.to_world(voxels), classes, data, GRID)


def small_affine():
    matrix = np.eye(4)
    matrix[:3] += 0.03 * np.random.default_rng(2).normal(size=(3, 4))
    matrix[:3, 3] += 1.0
    return matrix


def test_interpolation_agrees_with_scipy_and_its_slope_with_differences():
    volume = np.random.default_rng(0).normal(size=(7, 8, 9))
    voxels = np.random.default_rng(1).uniform(0.1, 5.9, size=(3, 40))
    values, slopes = interpolate_with_gradient(volume, voxels)
    assert np.allclose(values, map_coordinates(volume, voxels, order=1))
    for axis in range(3):
        step = np.zeros((3, 1))
        step[axis] = 1e-6
        ahead, behind = (interpolate_with_gradient(volume, voxels + sign * step)[0] for sign in (1, -1))
        assert np.allclose(slopes[axis], (ahead - behind) / 2e-6, atol=1e-4)


def test_nothing_beyond_the_border():
    values, slopes = interpolate_with_gradient(np.ones((7, 8, 9)), np.array([[-0.5, 7.0], [3, 3], [3, 3]]))
    assert not values.any()
    assert not slopes.any()


def test_gradient_agrees_with_differences():
    pair, matrix = matcher(), small_affine()
    _, gradient = pair.information_and_gradient(matrix)
    for row in range(3):
        for column in range(4):
            step = np.zeros((4, 4))
            step[row, column] = 1e-4 if column == 3 else 1e-6
            ahead, behind = (pair.information_and_gradient(matrix + sign * step)[0] for sign in (1, -1))
            numeric = (ahead - behind) / (2 * step[row, column])
            assert gradient[row, column] == pytest.approx(numeric, rel=0.02, abs=2e-4)


def test_information_is_highest_where_images_agree():
    pair = matcher()
    aligned, off, far = pair.information(np.stack([np.eye(4), small_affine(), some_affine()]))
    assert aligned > off > far
    assert pair.information_and_gradient(np.eye(4))[0] > pair.information_and_gradient(small_affine())[0]


def test_optimiser_finds_the_way_back():
    pair = matcher()
    found, information = optimise(pair, small_affine(), 12)
    assert mean_distance(found, np.eye(4), pair.points) < 0.2
    assert information > pair.information_and_gradient(small_affine())[0]


def head(grid, seed=0):
    """Ball with texture."""
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    inside = np.linalg.norm(points - grid.center, axis=-1) < 0.4 * grid.extent.min()
    texture = smooth_volume(grid, seed).get_fdata(dtype=np.float32)
    return nb.Nifti1Image(np.where(inside, 50 + texture, 0).astype(np.float32), grid.affine)


@pytest.mark.parametrize("name", ["RAS", "oblique anisotropic", "sheared"])
def test_pyramid_levels_show_the_same_place(name):
    case = GRIDS[name]
    grid = Grid(tuple(int(np.ceil(120 / size)) for size in case.spacing), case.affine)
    img = head(grid)
    pyramid = Pyramid.of(img)
    values = img.get_fdata()
    center = grid.to_world(np.argwhere(values > 0).mean(axis=0))
    for size, level in pyramid.levels.items():
        there = pyramid.residual[:3, :3] @ level.center + pyramid.residual[:3, 3]
        assert np.linalg.norm(there - center) < 0.3 * size
        assert 0 <= level.data.min() <= level.data.max() <= 1
        assert 0.5 * size <= level.grid.spacing.max() <= 1.5 * max(size, grid.spacing.max())
    assert np.array_equal(pyramid.residual, np.eye(4)) == (name != "sheared")


def test_pyramid_is_zero_outside_a_mask_and_refuses_nonsense():
    grid = make_grid(spacing=(2, 2, 2), shape=(60, 61, 62))
    img, half = head(grid), np.zeros(grid.shape, np.uint8)
    half[:30] = 1
    masked = Pyramid.of(img, nb.Nifti1Image(half, grid.affine))
    assert not masked.levels[2].data[31:].any()
    assert masked.levels[2].foreground.sum() == half.sum()
    with pytest.raises(ScanError, match="mask is empty"):
        Pyramid.of(img, nb.Nifti1Image(0 * half, grid.affine))
    with pytest.raises(ScanError, match="hardly varies"):
        Pyramid.of(nb.Nifti1Image(np.ones(grid.shape, np.float32), grid.affine))
    dot = 0 * half
    dot[28:32, 28:32, 28:32] = 1
    with pytest.raises(ScanError, match="almost nothing"):
        Pyramid.of(img, nb.Nifti1Image(dot, grid.affine))


def test_contrast_and_overlap_tell_right_from_wrong():
    grid = make_grid(spacing=(2, 2, 2), shape=(60, 61, 62))
    pair = Pair(Pyramid.of(head(grid)), Pyramid.of(head(grid)))
    other = Pair(Pyramid.of(head(grid)), Pyramid.of(head(grid, seed=5)))
    away = np.eye(4)
    away[0, 3] = 200
    assert contrast_of(pair, np.eye(4)) > 10 > 7 > contrast_of(other, np.eye(4))
    assert overlap_of(pair, np.eye(4)) == 1
    assert overlap_of(pair, away) == 0
