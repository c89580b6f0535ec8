"""Connected regions of a map: how large, where, how strong, and which structures they touch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import LEAVES

MIN_SHARE = 0.02
"""Share of a region's voxels from which on a structure counts as touched."""

_NAMES: Mapping[int, str] = {region.index: region.name for region in LEAVES}


def label_regions(mask: np.ndarray, grid: Grid, *, min_volume_mm3: float) -> tuple[np.ndarray, int]:
    """Give each connected part of a mask a number, the largest first; a shared corner connects.

    Parameters
    ----------
    mask
        (X, Y, Z) bool.
    grid
        Its grid.
    min_volume_mm3
        Parts smaller than this are left out.

    Returns
    -------
    tuple of numpy.ndarray and int
        (X, Y, Z) int32 numbers from 1, and how many there are.

    Examples
    --------
    >>> mask = np.zeros((7, 8, 9), bool)
    >>> mask[0, 0, 0], mask[3:5, 3:5, 3:5] = True, True
    >>> numbers, count = label_regions(mask, Grid((7, 8, 9), np.eye(4)), min_volume_mm3=2)
    >>> count, int((numbers == 1).sum()), int(numbers[0, 0, 0])
    (1, 8, 0)
    """
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = sizes * voxel_mm3(grid) >= min_volume_mm3
    large[0] = False
    order = np.argsort(-sizes, kind="stable")[: int(large.sum())]
    table = np.zeros(len(sizes), np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[parts], len(order)


def voxel_mm3(grid: Grid) -> float:
    """Volume of a grid's voxel.

    Examples
    --------
    >>> voxel_mm3(Grid((7, 8, 9), np.diag([2.0, 1.0, 3.0, 1.0])))
    6.0
    """
    return float(round(abs(np.linalg.det(grid.affine[:3, :3])), 9))


def describe_regions(
    numbers: np.ndarray, values: np.ndarray, grid: Grid, dseg: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Describe numbered regions, one row each.

    Parameters
    ----------
    numbers
        (X, Y, Z), from :func:`label_regions`.
    values
        (X, Y, Z) what the regions were cut from.
    grid
        The grid of all.
    dseg
        (X, Y, Z) FreeSurfer numbers.

    Returns
    -------
    list of dict
        ``index``, ``volume_mm3``, ``x_mm``, ``y_mm``, ``z_mm`` (centroid, RAS), ``peak``, ``peak_x_mm``,
        ``peak_y_mm``, ``peak_z_mm``, ``mean`` and ``structures``: names with their shares in percent, the
        largest first.

    Examples
    --------
    >>> numbers = np.zeros((7, 8, 9), np.int32)
    >>> numbers[2:4, 3, 3] = 1
    >>> values = np.full((7, 8, 9), 4.0)
    >>> values[3, 3, 3] = 6
    >>> row = describe_regions(numbers, values, Grid((7, 8, 9), np.eye(4)), np.full((7, 8, 9), 17))[0]
    >>> row["volume_mm3"], row["x_mm"], row["peak"], row["peak_x_mm"], row["structures"]
    (2.0, 2.5, 6.0, 3.0, 'Left-Hippocampus 100 %')
    """
    rows = []
    for index, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        inside = numbers[box] == index
        voxels = np.argwhere(inside) + [part.start for part in box]
        held = values[box][inside]
        centre, peak = grid.to_world(voxels.mean(0)), grid.to_world(voxels[int(held.argmax())])
        rows.append(
            {
                "index": index,
                "volume_mm3": round(len(voxels) * voxel_mm3(grid), 1),
                **{f"{axis}_mm": round(float(v), 1) for axis, v in zip("xyz", centre, strict=True)},
                "peak": round(float(held.max()), 2),
                **{f"peak_{axis}_mm": round(float(v), 1) for axis, v in zip("xyz", peak, strict=True)},
                "mean": round(float(held.mean()), 2),
                "structures": "" if dseg is None else _structures(dseg[box][inside]),
            }
        )
    return rows


def _structures(numbers: np.ndarray) -> str:
    found, counts = np.unique(numbers[numbers > 0], return_counts=True)
    shares = counts / max(len(numbers), 1)
    order = [i for i in np.argsort(-counts, kind="stable") if shares[i] >= MIN_SHARE]
    names = [_NAMES.get(int(found[i]), f"label-{int(found[i])}") for i in order]
    return "; ".join(f"{name} {100 * shares[i]:.0f} %" for name, i in zip(names, order, strict=True))
