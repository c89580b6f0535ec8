import numpy as np
import pytest

from hyperprep.models.spatial.grids import Grid, model_grid
from hyperprep.models.spatial.itk import (
    affine_from_itk,
    affine_to_itk,
    image_to_itk,
    itk_to_array,
    split_shear,
)

from .grid_cases import GRIDS, make_grid, some_affine


@pytest.mark.parametrize("name", GRIDS)
def test_world_and_voxels_are_inverse(name):
    grid = GRIDS[name]
    voxels = np.random.default_rng(0).uniform(0, 10, size=(5, 3))
    assert np.allclose(grid.to_voxels(grid.to_world(voxels)), voxels)
    assert np.allclose(grid.to_world(voxels[0]), (grid.affine @ [*voxels[0], 1])[:3])


@pytest.mark.parametrize("name", GRIDS)
def test_itk_places_voxels_where_the_affine_does(name):
    grid = GRIDS[name]
    data = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    image, residual = image_to_itk(data, grid)
    for index in ((0, 0, 0), (3, 4, 5), (16, 17, 18)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose((residual @ [*lps, 1])[:3], grid.to_world(np.array(index)), atol=1e-6)
        assert image[index] == data[index]
    assert np.array_equal(itk_to_array(image), data)
    assert np.array_equal(residual, np.eye(4)) == (name != "sheared")


def test_split_shear_is_exact():
    straight, residual = split_shear(GRIDS["sheared"])
    columns = straight.affine[:3, :3] / straight.spacing
    assert np.allclose(columns.T @ columns, np.eye(3))
    assert np.allclose(residual @ straight.affine, GRIDS["sheared"].affine)


def test_affine_goes_to_itk_and_back():
    assert np.allclose(affine_from_itk(affine_to_itk(some_affine())), some_affine())


def test_same_as():
    grid = make_grid("LAS", shape=(7, 8, 9))
    near, far = grid.affine.copy(), grid.affine.copy()
    near[0, 3] += 5e-4
    far[0, 3] += 5e-3
    assert grid.same_as(Grid(grid.shape, near))
    assert not grid.same_as(Grid(grid.shape, far))
    assert not grid.same_as(Grid((7, 8, 8), grid.affine))
    assert not make_grid("RAS").same_as(make_grid("LAS"))


def test_model_grid_spans_the_field_of_view():
    grid = model_grid(2.0)
    assert grid.shape == (96, 112, 96)
    assert grid.to_world(np.zeros(3)).tolist() == [-96, -132, -78]
    assert grid.extent.tolist() == [192, 224, 192]
    assert grid.center.tolist() == [-1, -21, 17]
    with pytest.raises(ValueError, match="does not fill"):
        model_grid(5.0)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((7, 8), np.eye(4)),
        ((7, 8, 0), np.eye(4)),
        ((7, 8, 9), np.eye(3)),
        ((7, 8, 9), np.diag([1.0, 0.0, 1.0, 1.0])),
        ((7, 8, 9), np.full((4, 4), np.nan)),
    ],
)
def test_impossible_grids_are_refused(shape, affine):
    with pytest.raises(ValueError, match="grid"):
        Grid(shape, affine)


def test_affine_cannot_be_changed_from_outside():
    affine = np.eye(4)
    grid = Grid((7, 8, 9), affine)
    affine[0, 3] = 5
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 5
