"""How well label maps agree and how regular a deformation is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from hyperprep.models.spatial.transforms import DisplacementField


def dice(a: np.ndarray, b: np.ndarray, numbers: Iterable[int]) -> dict[int, float]:
    """Dice overlap of each label, ``2 |A and B| / (|A| + |B|)``.

    Parameters
    ----------
    a, b
        Label maps of the same shape.
    numbers
        Labels to compare.

    Returns
    -------
    dict
        Label number to overlap in [0, 1]; NaN where neither map has the label.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> dice(np.array([1, 1, 2]), np.array([1, 2, 2]), [1, 2])
    {1: 0.6666666666666666, 2: 0.6666666666666666}
    """
    if a.shape != b.shape:
        raise ValueError(f"label maps of shapes {a.shape} and {b.shape}")
    a, b = np.asarray(a, dtype=np.int64).ravel(), np.asarray(b, dtype=np.int64).ravel()
    wanted = sorted({int(number) for number in numbers})
    edges = np.array(wanted, dtype=np.int64)

    def count(labels: np.ndarray) -> np.ndarray:
        place = np.searchsorted(edges, labels).clip(max=len(edges) - 1)
        return np.bincount(place[edges[place] == labels], minlength=len(edges))

    if not wanted:
        return {}
    both, total = count(a[a == b]), count(a) + count(b)
    return {
        number: float(2 * both[k] / total[k]) if total[k] else float("nan") for k, number in enumerate(wanted)
    }


def hausdorff95(a: np.ndarray, b: np.ndarray, *, spacing: Iterable[float]) -> float:
    """95th percentile of the distances between the surfaces of two masks, the larger of both directions.

    Parameters
    ----------
    a, b
        Masks ``(X, Y, Z)``.
    spacing
        Voxel sizes in mm.

    Returns
    -------
    float
        Distance in mm; NaN if a mask is empty.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> a = np.zeros((7, 8, 9), bool); b = a.copy()
    >>> a[3, 3, 3] = b[3, 3, 5] = True
    >>> hausdorff95(a, b, spacing=(1, 1, 2))
    4.0
    """
    a, b = np.asarray(a) != 0, np.asarray(b) != 0
    if a.shape != b.shape:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape}")
    if not (a.any() and b.any()):
        return float("nan")
    sampling = [float(size) for size in spacing]
    surface_a, surface_b = a & ~binary_erosion(a), b & ~binary_erosion(b)
    to_b = distance_transform_edt(~surface_b, sampling=sampling)[surface_a]
    to_a = distance_transform_edt(~surface_a, sampling=sampling)[surface_b]
    return float(max(np.percentile(to_a, 95), np.percentile(to_b, 95)))


def jacobian_determinant(field: DisplacementField) -> np.ndarray:
    """Compute the determinant of the Jacobian of ``x -> x + u(x)`` at every node.

    Derivatives are central differences in world space (one-sided at the border), so flipped, oblique and
    anisotropic grids give the same values.

    Parameters
    ----------
    field
        Displacements in mm.

    Returns
    -------
    numpy.ndarray
        ``(X, Y, Z)`` float32: 1 where volume is kept, <= 0 where the map folds.

    Examples
    --------
    >>> from hyperprep.models.spatial.grids import Grid
    >>> grid = Grid((7, 8, 9), np.diag([2.0, 1.0, 3.0, 1.0]))
    >>> stretch = grid.to_world(np.stack(np.indices(grid.shape), axis=-1)) * 0.1
    >>> round(float(jacobian_determinant(DisplacementField(grid, stretch)).mean()), 4)
    1.331
    """
    to_voxels = np.linalg.inv(field.grid.affine[:3, :3])
    components = np.ascontiguousarray(np.moveaxis(field.data.astype(np.float32, copy=False), -1, 0))
    jacobian = np.zeros((3, 3, *field.grid.shape), dtype=np.float32)
    for axis in range(3):
        if field.grid.shape[axis] > 1:
            slope = np.gradient(components, axis=axis + 1)
            for column in np.flatnonzero(to_voxels[axis]):
                jacobian[:, column] += slope * np.float32(to_voxels[axis, column])
    for axis in range(3):
        jacobian[axis, axis] += 1
    return _determinant(jacobian)


def _determinant(matrices: np.ndarray) -> np.ndarray:
    """Compute determinants of ``(3, 3, *spatial)`` as triple products, far faster than LAPACK does."""
    (a, b, c), (d, e, f), (g, h, i) = matrices
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def folding_percent(determinant: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Share of voxels whose Jacobian determinant is not positive, in percent.

    Parameters
    ----------
    determinant
        From :func:`jacobian_determinant`.
    mask
        Where to count; everywhere if left out.

    Examples
    --------
    >>> folding_percent(np.array([1.0, 0.5, -0.1, 1.2]))
    25.0
    """
    values = determinant if mask is None else determinant[np.asarray(mask) != 0]
    return float(100 * np.count_nonzero(values <= 0) / values.size) if values.size else float("nan")


def sd_log_jacobian(determinant: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Compute the standard deviation of log |J|; folded voxels count as |J| = 0.001.

    Parameters
    ----------
    determinant
        From :func:`jacobian_determinant`.
    mask
        Where to count; everywhere if left out.

    Examples
    --------
    >>> sd_log_jacobian(np.array([1.0, 1.0]))
    0.0
    """
    values = determinant if mask is None else determinant[np.asarray(mask) != 0]
    return float(np.log(np.clip(values, 1e-3, None)).std()) if values.size else float("nan")
