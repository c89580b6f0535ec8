import math

import numpy as np
import pytest

from hyperprep.models.spatial.measures import (
    dice,
    folding_percent,
    hausdorff95,
    jacobian_determinant,
    sd_log_jacobian,
)
from hyperprep.models.spatial.transforms import DisplacementField

from .grid_cases import GRIDS, make_grid


def test_dice_by_hand():
    a = np.zeros((7, 8, 9), int)
    b = a.copy()
    a[1:3], b[2:4] = 17, 17
    b[6] = 53
    scores = dice(a, b, [17, 53, 4])
    assert scores[17] == pytest.approx(0.5)
    assert scores[53] == 0
    assert math.isnan(scores[4])
    assert dice(a, b, []) == {}
    with pytest.raises(ValueError, match="shapes"):
        dice(a, b[:6], [17])


def test_dice_agrees_with_plain_counting():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 60, (7, 8, 9)), rng.integers(0, 60, (7, 8, 9))
    for number, score in dice(a, b, range(1, 60)).items():
        assert score == pytest.approx(
            2 * ((a == number) & (b == number)).sum() / ((a == number).sum() + (b == number).sum())
        )


def test_hausdorff_respects_spacing():
    a = np.zeros((20, 21, 22), bool)
    b = a.copy()
    a[5:10, 5:10, 5:10] = True
    b[5:10, 5:10, 8:13] = True
    assert hausdorff95(a, b, spacing=(1, 1, 2)) == pytest.approx(6.0)
    assert hausdorff95(a, a, spacing=(1, 1, 2)) == 0
    assert math.isnan(hausdorff95(a, np.zeros_like(a), spacing=(1, 1, 1)))


@pytest.mark.parametrize("name", GRIDS)
def test_jacobian_of_a_linear_map_is_its_determinant(name):
    grid = GRIDS[name]
    linear = np.array([[0.1, 0.05, 0.0], [0.02, -0.2, 0.1], [0.0, 0.0, 0.3]])
    points = grid.to_world(np.stack(np.indices(grid.shape), axis=-1))
    determinant = jacobian_determinant(DisplacementField(grid, points @ linear.T))
    assert determinant.shape == grid.shape
    assert np.allclose(determinant, np.linalg.det(np.eye(3) + linear), atol=1e-4)
    assert folding_percent(determinant) == 0


def test_folding_is_found():
    grid = make_grid("LPS")
    points = grid.to_world(np.stack(np.indices(grid.shape), axis=-1))
    data = np.zeros((*grid.shape, 3))
    data[8:, ..., 0] = (-1.5 * points)[8:, ..., 0]
    determinant = jacobian_determinant(DisplacementField(grid, data))
    assert determinant[12, 5, 5] == pytest.approx(-0.5, abs=1e-5)
    mask = np.zeros(grid.shape)
    mask[12:] = 1
    assert folding_percent(determinant, mask) == 100
    assert 0 < folding_percent(determinant) < 100


def test_spread_of_log_jacobian():
    determinant = np.array([np.e, 1 / np.e])
    assert sd_log_jacobian(determinant) == pytest.approx(1)
    assert sd_log_jacobian(np.array([1.0, -5.0])) == pytest.approx(-math.log(1e-3) / 2)
    assert sd_log_jacobian(determinant, np.array([1, 0])) == 0
    assert math.isnan(folding_percent(determinant, np.zeros(2)))
