"""Linear point maps: closed-form fits and their decomposition."""

from __future__ import annotations

import numpy as np
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

DOFS = (6, 7, 12)
"""Degrees of freedom: rigid, similarity, affine."""


def restrict(matrix: np.ndarray, dof: int, *, center: np.ndarray | None = None) -> np.ndarray:
    """Nearest rigid (6) or similarity (7) map that agrees with a linear map at one point.

    Parameters
    ----------
    matrix
        ``(4, 4)`` point map with positive determinant.
    dof
        6, 7 or 12 (12: returned unchanged).
    center
        ``(3,)`` point in mm that keeps its image; the origin if left out.

    Returns
    -------
    numpy.ndarray
        ``(4, 4)`` point map.

    Raises
    ------
    ValueError
        If ``dof`` is unknown or the map mirrors.

    Examples
    --------
    >>> restrict(np.diag([1.1, 1.1, 1.1, 1.0]), 6).tolist() == np.eye(4).tolist()
    True
    """
    if dof not in DOFS:
        raise ValueError(f"degrees of freedom are one of {DOFS}, not {dof}")
    if np.linalg.det(matrix[:3, :3]) <= 0:
        raise ValueError("the map mirrors space: its determinant is not positive")
    if dof == 12:
        return np.array(matrix, dtype=np.float64)
    rotation, stretch = polar(matrix[:3, :3])
    scale = np.trace(stretch) / 3 if dof == 7 else 1.0
    point = np.zeros(3) if center is None else np.asarray(center, dtype=np.float64)
    result = np.eye(4)
    result[:3, :3] = scale * rotation
    result[:3, 3] = matrix[:3, :3] @ point + matrix[:3, 3] - result[:3, :3] @ point
    return result


def similarities(
    rotation_vectors: np.ndarray,
    log_scales: np.ndarray,
    shifts: np.ndarray,
    *,
    fixed_center: np.ndarray,
    moving_center: np.ndarray,
) -> np.ndarray:
    """Similarity maps that turn about one point and bring it near another.

    Parameters
    ----------
    rotation_vectors
        ``(N, 3)`` axis times angle in radians.
    log_scales
        ``(N,)`` natural logarithm of the scale.
    shifts
        ``(N, 3)`` mm, added to ``moving_center``.
    fixed_center, moving_center
        ``(3,)`` mm: the first is mapped onto the second plus the shift.

    Returns
    -------
    numpy.ndarray
        ``(N, 4, 4)`` point maps.

    Examples
    --------
    >>> zero = np.zeros((1, 3))
    >>> maps = similarities(zero, np.zeros(1), zero, fixed_center=np.zeros(3), moving_center=np.ones(3))
    >>> maps[0, :3, 3].tolist()
    [1.0, 1.0, 1.0]
    """
    linear = Rotation.from_rotvec(rotation_vectors).as_matrix() * np.exp(log_scales)[:, None, None]
    maps = np.tile(np.eye(4), (len(linear), 1, 1))
    maps[:, :3, :3] = linear
    maps[:, :3, 3] = moving_center + shifts - linear @ fixed_center
    return maps


def fit_points(
    source: np.ndarray, target: np.ndarray, *, weights: np.ndarray | None = None, dof: int = 12
) -> np.ndarray:
    """Map points onto points by weighted least squares, in closed form.

    Affine: normal equations. Rigid and similarity: S. Umeyama, IEEE PAMI 13(4), 1991, eqs. 34-43.

    Parameters
    ----------
    source, target
        ``(N, 3)`` corresponding points in mm.
    weights
        ``(N,)`` not negative; equal if left out.
    dof
        6, 7 or 12.

    Returns
    -------
    numpy.ndarray
        ``(4, 4)`` point map from source to target.

    Raises
    ------
    ValueError
        If the points are too few (3; 4 for affine) or degenerate, or shapes do not fit.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(8, 3))
    >>> bool(np.allclose(fit_points(points, 2 * points + 1)[0], [2.0, 0.0, 0.0, 1.0]))
    True
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    if dof not in DOFS or source.shape != target.shape or source.ndim != 2 or len(w) != len(source):
        raise ValueError(
            f"cannot fit {dof} degrees of freedom to shapes {source.shape}, {target.shape}, {w.shape}"
        )
    if np.count_nonzero(w > 0) < (4 if dof == 12 else 3):
        raise ValueError(f"{np.count_nonzero(w > 0)} points are too few for {dof} degrees of freedom")
    w = w / w.sum()
    from_center, to_center = w @ source, w @ target
    a, b = source - from_center, target - to_center
    scatter, cross = (a * w[:, None]).T @ a, (b * w[:, None]).T @ a
    spread = np.linalg.eigvalsh(scatter)
    if spread[0 if dof == 12 else 1] < 1e-9 * max(spread[-1], 1e-12):
        raise ValueError("the points lie in one plane or on one line")
    if dof == 12:
        linear = cross @ np.linalg.inv(scatter)
    else:
        u, singular, vt = np.linalg.svd(cross)
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
        scale = (singular * signs).sum() / np.trace(scatter) if dof == 7 else 1.0
        linear = scale * (u * signs) @ vt
    result = np.eye(4)
    result[:3, :3] = linear
    result[:3, 3] = to_center - linear @ from_center
    return result


def fit_points_robustly(
    source: np.ndarray, target: np.ndarray, *, weights: np.ndarray | None = None, dof: int = 12
) -> np.ndarray:
    """Like :func:`fit_points`, but points that fit badly lose weight.

    Iteratively reweighted least squares with Tukey's biweight, whose scale is the median residual (at least
    2 mm); the first fit is a similarity, so that single wrong points cannot shear it.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(scale=30, size=(20, 3))
    >>> moved = points + 5
    >>> moved[3] += 100
    >>> float(np.round(fit_points_robustly(points, moved)[0, 3], 3))
    5.0
    """
    base = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    current, matrix = base, np.eye(4)
    for iteration in range(10):
        matrix = fit_points(source, target, weights=current, dof=min(dof, 7) if iteration < 4 else dof)
        residual = np.linalg.norm(np.asarray(source) @ matrix[:3, :3].T + matrix[:3, 3] - target, axis=1)
        cut = 4.0 * max(float(np.median(residual[base > 0])), 2.0)
        current = base * np.clip(1 - (residual / cut) ** 2, 0, None) ** 2
    return matrix
