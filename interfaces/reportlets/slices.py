"""Planes cut through an image at stated world positions, whatever the image's own grid.

Planes follow the world axes (RAS, mm), so oblique, flipped and anisotropic images are all shown the same
way round: the subject's left is on the left, anterior is up (axial) or right (sagittal), superior is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

IN_PLANE_AXES = ((1, 2), (0, 2), (0, 1))
"""World axes that run right and up in a sagittal, coronal and axial plane."""


@dataclass(frozen=True)
class Box:
    """A box in world space.

    Attributes
    ----------
    low, high
        Corners, RAS mm.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def extent(self, axis: int) -> float:
        """Length along a world axis, mm.

        Examples
        --------
        >>> Box((-10.0, 0.0, 0.0), (15.0, 1.0, 1.0)).extent(0)
        25.0
        """
        return self.high[axis] - self.low[axis]


@dataclass(frozen=True)
class Plane:
    """A plane across one world axis.

    Attributes
    ----------
    axis
        0 sagittal, 1 coronal, 2 axial.
    position
        Where it cuts that axis, RAS mm.
    """

    axis: int
    position: float

    @property
    def label(self) -> str:
        """Axis and position in words.

        Examples
        --------
        >>> Plane(2, -12.0).label
        'z = -12 mm'
        """
        return f"{'xyz'[self.axis]} = {self.position:.0f} mm"


def bounding_box(img: nib.Nifti1Image, *, margin: float = 8.0) -> Box:
    """Box around the voxels above zero; the whole grid when there are none.

    A report has to be drawn most of all when something went wrong, so an empty mask is no error here.

    Parameters
    ----------
    img
        A mask or an image with an empty background.
    margin
        Width of the rim added on every side, mm.

    Examples
    --------
    >>> data = np.zeros((7, 8, 9), np.uint8)
    >>> data[2:4, 3:6, 4:8] = 1
    >>> bounding_box(nib.Nifti1Image(data, np.eye(4)), margin=1.0)
    Box(low=(1.0, 2.0, 3.0), high=(4.0, 6.0, 8.0))
    """
    inside = np.asanyarray(img.dataobj) > 0
    if not inside.any():
        inside = np.ones_like(inside)
    index = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    corners = np.stack(np.meshgrid(*index, indexing="ij"), axis=-1).reshape(-1, 3)
    world = apply_affine(img.affine, corners)
    low, high = world.min(axis=0) - margin, world.max(axis=0) + margin
    return Box(tuple(map(float, low)), tuple(map(float, high)))  # type: ignore[arg-type]


def spread_planes(box: Box, axis: int, count: int, *, rim: float = 0.2) -> tuple[Plane, ...]:
    """Equally spaced planes through the inner part of a box, at whole millimetres.

    Parameters
    ----------
    box
        Where to cut.
    axis
        The axis across which the planes lie.
    count
        How many.
    rim
        Share of the box left out at either end.

    Examples
    --------
    >>> [plane.position for plane in spread_planes(Box((0.0,) * 3, (100.0,) * 3), 2, 3, rim=0.2)]
    [20.0, 50.0, 80.0]
    """
    skip = rim * box.extent(axis)
    positions = np.linspace(box.low[axis] + skip, box.high[axis] - skip, count)
    return tuple(Plane(axis, float(np.round(position))) for position in positions)


def plane_points(plane: Plane, box: Box, spacing: float) -> np.ndarray:
    """World points of the pixels of a plane, first row on top.

    Parameters
    ----------
    plane
        The plane.
    box
        Its edges.
    spacing
        Distance between pixels, mm.

    Returns
    -------
    (rows, columns, 3) RAS mm.

    Examples
    --------
    >>> points = plane_points(Plane(2, 5.0), Box((0.0, 0.0, 0.0), (4.0, 2.0, 9.0)), 1.0)
    >>> points.shape, points[0, 0].tolist(), points[-1, -1].tolist()
    ((2, 4, 3), [0.5, 1.5, 5.0], [3.5, 0.5, 5.0])
    """
    right, up = IN_PLANE_AXES[plane.axis]
    columns = max(1, round(box.extent(right) / spacing))
    rows = max(1, round(box.extent(up) / spacing))
    points = np.empty((rows, columns, 3))
    points[..., plane.axis] = plane.position
    points[..., right] = box.low[right] + (np.arange(columns) + 0.5) * box.extent(right) / columns
    points[..., up] = (box.high[up] - (np.arange(rows) + 0.5) * box.extent(up) / rows)[:, None]
    return points


def sample(
    data: np.ndarray, affine: np.ndarray, points: np.ndarray, *, order: int = 1, outside: float = 0.0
) -> np.ndarray:
    """Values of a volume at world points.

    Parameters
    ----------
    data
        (X, Y, Z).
    affine
        (4, 4) voxel to RAS mm.
    points
        (..., 3) RAS mm.
    order
        0 nearest, 1 linear.
    outside
        Value beyond the grid.

    Returns
    -------
    (...) float32.

    Examples
    --------
    >>> volume = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    >>> sample(volume, np.eye(4), np.array([[1.0, 0.0, 0.5], [9.0, 9.0, 9.0]])).tolist()
    [4.5, 0.0]
    """
    index = apply_affine(np.linalg.inv(affine), points)
    values = ndimage.map_coordinates(
        data, np.moveaxis(index, -1, 0), order=order, mode="constant", cval=outside, output=np.float32
    )
    return np.asarray(values)


def window(
    data: np.ndarray, inside: np.ndarray | None = None, *, low: float = 1.0, high: float = 99.5
) -> tuple[float, float]:
    """Grey-level window from percentiles of the voxels above zero.

    Parameters
    ----------
    data
        Image, any shape.
    inside
        Mask of the voxels that count, same shape.
    low, high
        Percentiles.

    Examples
    --------
    >>> window(np.arange(101.0), low=0.0, high=50.0)
    (1.0, 50.5)
    """
    values = data[np.isfinite(data) & (data > 0)] if inside is None else data[np.isfinite(data) & inside]
    if values.size == 0:
        return 0.0, 1.0
    bottom, top = np.percentile(values, (low, high))
    return float(bottom), float(top) if top > bottom else float(bottom) + 1.0


def to_grey(values: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Grey levels 0-255 of values in a window; beyond it they are cut off.

    Examples
    --------
    >>> to_grey(np.array([-1.0, 0.0, 1.0, 2.0, 9.0]), (0.0, 2.0)).tolist()
    [0, 0, 128, 255, 255]
    """
    low, high = limits
    return np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255).astype(np.uint8)
