import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hyperprep.models.spatial.affines import fit_points, fit_points_robustly, restrict, similarities

from .grid_cases import some_affine

POINTS = np.random.default_rng(0).uniform(-60, 60, size=(12, 3))


def truth(dof):
    if dof == 12:
        return some_affine()
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (100, 20, -30), degrees=True).as_matrix() * (
        1.3 if dof == 7 else 1
    )
    matrix[:3, 3] = 10, 20, 30
    return matrix


def apply(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize("dof", [6, 7, 12])
def test_points_are_fitted_exactly(dof):
    target = apply(truth(dof), POINTS)
    assert np.allclose(fit_points(POINTS, target, dof=dof), truth(dof))
    assert np.allclose(fit_points_robustly(POINTS, target, dof=dof), truth(dof))


@pytest.mark.parametrize("dof", [6, 7])
def test_mirrored_points_do_not_give_a_mirror(dof):
    assert np.linalg.det(fit_points(POINTS, POINTS * (-1, 1, 1), dof=dof)[:3, :3]) > 0


def test_weights_decide():
    target = apply(truth(7), POINTS)
    target[0] += 500
    weights = np.ones(12)
    weights[0] = 0
    assert np.allclose(fit_points(POINTS, target, weights=weights, dof=7), truth(7))
    assert not np.allclose(fit_points(POINTS, target, dof=7), truth(7), atol=1)


@pytest.mark.parametrize("dof", [6, 7, 12])
def test_two_wrong_points_of_twelve_do_no_harm(dof):
    target = apply(truth(dof), POINTS) + np.random.default_rng(1).normal(scale=0.2, size=POINTS.shape)
    target[2] += 70
    target[7] -= 40
    fitted = fit_points_robustly(POINTS, target, dof=dof)
    assert np.linalg.norm(apply(fitted, POINTS) - apply(truth(dof), POINTS), axis=1).max() < 1


@pytest.mark.parametrize(
    ("points", "dof", "message"),
    [
        (POINTS[:3], 12, "3 points are too few"),
        (POINTS[:2], 6, "2 points are too few"),
        (POINTS * (1, 1, 0), 12, "one plane"),
        (POINTS * (1, 0, 0), 6, "one line"),
        (POINTS, 9, "cannot fit 9"),
    ],
)
def test_degenerate_points_are_refused(points, dof, message):
    with pytest.raises(ValueError, match=message):
        fit_points(points, points, dof=dof)


def test_restrict():
    center = np.array([5.0, -7.0, 11.0])
    for dof in (6, 7):
        limited = restrict(some_affine(), dof, center=center)
        assert np.allclose(apply(limited, center), apply(some_affine(), center))
        stretches = np.linalg.svd(limited[:3, :3], compute_uv=False)
        assert np.ptp(stretches) < 1e-9
        assert dof == 7 or abs(stretches[0] - 1) < 1e-9
    assert np.array_equal(restrict(some_affine(), 12), some_affine())
    with pytest.raises(ValueError, match="mirrors"):
        restrict(np.diag([-1.0, 1, 1, 1]), 12)
    with pytest.raises(ValueError, match="degrees of freedom"):
        restrict(np.eye(4), 9)


def test_similarities_bring_center_to_center():
    turns = np.deg2rad([[90.0, 0, 0], [0, 0, 30]])
    maps = similarities(
        turns,
        np.log([2.0, 1.0]),
        np.array([[0, 0, 0], [1.0, 2, 3]]),
        fixed_center=POINTS[0],
        moving_center=POINTS[1],
    )
    assert np.allclose(apply(maps[0], POINTS[0]), POINTS[1])
    assert np.allclose(apply(maps[1], POINTS[0]), POINTS[1] + (1, 2, 3))
    assert np.linalg.det(maps[0][:3, :3]) == pytest.approx(8)
