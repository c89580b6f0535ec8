"""Mutual information of two images under linear point maps: many maps at once, or one with its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from hyperprep.models.spatial.grids import Grid

BINS = 24
"""Intensity classes of each image."""

_FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class Matcher:
    """Two images made ready for comparison under any linear point map.

    The joint distribution is a Parzen estimate as in D. Mattes et al., IEEE TMI 22(1), 2003: hard classes for
    the fixed image, cubic B-spline windows for the moving one.

    Parameters
    ----------
    points
        ``(N, 3)`` RAS mm: where the fixed image is compared.
    classes
        ``(N,)`` intensity class of the fixed image at these points, 0 to ``BINS - 1``.
    moving
        ``(X, Y, Z)`` float32, intensities of the moving image in [0, 1]; 0 beyond its border.
    moving_grid
        Grid of ``moving``.
    """

    points: np.ndarray
    classes: np.ndarray
    moving: np.ndarray
    moving_grid: Grid

    def information(self, maps: np.ndarray) -> np.ndarray:
        """Mutual information under each map.

        Parameters
        ----------
        maps
            ``(T, 4, 4)`` point maps, fixed to moving.

        Returns
        -------
        numpy.ndarray
            ``(T,)`` in nats; higher is better.
        """
        results = np.empty(len(maps))
        block = max(1, 200_000 // len(self.points))
        to_voxels = np.linalg.inv(self.moving_grid.affine)
        for start in range(0, len(maps), block):
            chain = to_voxels @ maps[start : start + block]
            voxels = np.einsum("tij,nj->itn", chain[:, :3, :3], self.points) + chain[:, :3, 3].T[:, :, None]
            values = map_coordinates(self.moving, voxels, order=1, mode="constant", output=np.float32)
            results[start : start + block] = _many_informations(self.classes, values)
        return results

    def information_and_gradient(self, matrix: np.ndarray) -> tuple[float, np.ndarray]:
        """Mutual information under one map, and its derivatives by the map's entries.

        Parameters
        ----------
        matrix
            ``(4, 4)`` point map, fixed to moving.

        Returns
        -------
        information
            In nats.
        gradient
            ``(3, 4)`` derivative by each entry of the map's upper rows.
        """
        chain = np.linalg.inv(self.moving_grid.affine) @ matrix
        voxels = chain[:3, :3] @ self.points.T + chain[:3, 3:]
        values, slopes = interpolate_with_gradient(self.moving, voxels)
        place = values * (BINS - 4) + 1.5  # window centres stay inside the table
        first = place.astype(np.int64) - 1
        offset = place - first
        weights, derivatives = _cubic_windows(offset)
        index = self.classes * BINS + first
        joint = np.zeros(BINS * BINS)
        for tap in range(4):
            joint += np.bincount(index + tap, weights=weights[tap], minlength=BINS * BINS)
        joint = joint.reshape(BINS, BINS) / len(index)
        columns = joint.sum(axis=0)
        log_ratio = np.log(np.maximum(joint, _FLOOR)) - np.log(np.maximum(columns, _FLOOR))
        rows = joint.sum(axis=1)
        information = (joint * log_ratio).sum() - (rows * np.log(np.maximum(rows, _FLOOR))).sum()
        flat = log_ratio.ravel()
        by_value = sum(derivatives[tap] * flat[index + tap] for tap in range(4))
        by_voxel = slopes * (by_value * ((BINS - 4) / len(index)))
        to_voxels = np.linalg.inv(self.moving_grid.affine)[:3, :3]
        by_point = to_voxels.T @ by_voxel
        gradient = np.concatenate([by_point @ self.points, by_point.sum(axis=1, keepdims=True)], axis=1)
        return float(information), gradient


def _cubic_windows(offset: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and their derivatives by the value, of the four bins around values ``1 <= offset < 2``."""
    t = offset - 1
    s = 1 - t
    weights = [s**3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * s**2 + 3 * s**3) / 6, t**3 / 6]
    derivatives = [-(s**2) / 2, -2 * t + 1.5 * t**2, 2 * s - 1.5 * s**2, t**2 / 2]
    return weights, derivatives


def interpolate_with_gradient(volume: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trilinear values and their derivatives; zero beyond the border.

    Parameters
    ----------
    volume
        ``(X, Y, Z)``.
    voxels
        ``(3, N)`` continuous voxel indices.

    Returns
    -------
    values
        ``(N,)``.
    slopes
        ``(3, N)`` derivatives by the voxel indices.

    Examples
    --------
    >>> ramp = np.arange(504.0).reshape(7, 8, 9)
    >>> value, slope = interpolate_with_gradient(ramp, np.array([[1.5], [2.0], [3.0]]))
    >>> value.tolist(), slope.ravel().tolist()
    ([129.0], [72.0, 9.0, 1.0])
    """
    sizes = np.array(volume.shape)[:, None]
    lower = np.floor(voxels).astype(np.int64)
    inside = ((lower >= 0) & (lower < sizes - 1)).all(axis=0)
    lower = np.clip(lower, 0, sizes - 2)
    x, y, z = (voxels - lower) * inside
    strides = np.array([sizes[1, 0] * sizes[2, 0], sizes[2, 0], 1])
    flat, base = volume.ravel(), strides @ lower
    corner = [[[flat[base + strides @ (i, j, k)] for k in (0, 1)] for j in (0, 1)] for i in (0, 1)]
    along_z = [[(corner[i][j][0], corner[i][j][1] - corner[i][j][0]) for j in (0, 1)] for i in (0, 1)]
    value_z = [[start + z * step for start, step in row] for row in along_z]
    value_y = [row[0] + y * (row[1] - row[0]) for row in value_z]
    by_x = value_y[1] - value_y[0]
    by_y = (1 - x) * (value_z[0][1] - value_z[0][0]) + x * (value_z[1][1] - value_z[1][0])
    slope_z = [row[0][1] + y * (row[1][1] - row[0][1]) for row in along_z]
    by_z = slope_z[0] + x * (slope_z[1] - slope_z[0])
    values = (value_y[0] + x * by_x) * inside
    return values, np.stack([by_x, by_y, by_z]) * inside


def _many_informations(classes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compare classes ``(N,)`` with intensities ``(T, N)`` in [0, 1], each shared between two bins."""
    count, size = len(values), len(values) * BINS * BINS
    place = np.clip(values, 0, 1) * (BINS - 1)
    lower = np.minimum(place.astype(np.int64), BINS - 2)
    share = place - lower
    index = (np.arange(count)[:, None] * BINS + classes) * BINS + lower
    joint = np.bincount(index.ravel(), weights=(1 - share).ravel(), minlength=size)
    joint += np.bincount((index + 1).ravel(), weights=share.ravel(), minlength=size)
    joint = joint.reshape(count, BINS, BINS) / values.shape[1]
    return _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=2)) - _entropy(joint.reshape(count, -1))


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.maximum(probabilities, _FLOOR))).sum(axis=-1)
