"""Voxel grids in world space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MODEL_EXTENT = (192.0, 224.0, 192.0)
"""Field of view of every network in mm (template frame, RAS)."""

MODEL_START = (-96.0, -132.0, -78.0)
"""Lower corner of that field of view in mm (template frame, RAS)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid: its shape and its voxel-to-world map.

    Parameters
    ----------
    shape
        Number of voxels along each of the three axes.
    affine
        ``(4, 4)``, voxel indices to RAS+ millimetres. Kept as a read-only float64 copy.

    Raises
    ------
    ValueError
        If the shape does not hold three positive numbers, or the affine is not an invertible, finite
        ``(4, 4)`` matrix with last row ``0 0 0 1``.

    Examples
    --------
    >>> grid = Grid((7, 8, 9), np.diag([1.0, 2.0, 3.0, 1.0]))
    >>> grid.spacing.tolist()
    [1.0, 2.0, 3.0]
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a grid has three positive sizes, not {self.shape}")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"a grid's affine is a finite 4 x 4 matrix, not {self.affine!r}")
        if not np.allclose(affine[3], (0, 0, 0, 1)) or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError(f"a grid's affine must be invertible with last row 0 0 0 1: {affine.tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of(cls, img: Any) -> Grid:
        """Grid of a nibabel image (the first three axes).

        Examples
        --------
        >>> import nibabel as nb
        >>> Grid.of(nb.Nifti1Image(np.zeros((7, 8, 9), np.uint8), np.eye(4))).shape
        (7, 8, 9)
        """
        return cls(img.shape[:3], img.affine)

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel sizes in mm."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @property
    def extent(self) -> np.ndarray:
        """``(3,)`` field of view in mm along the voxel axes."""
        return self.spacing * np.asarray(self.shape)

    @property
    def center(self) -> np.ndarray:
        """``(3,)`` RAS mm of the middle of the field of view."""
        return self.to_world((np.asarray(self.shape, dtype=np.float64) - 1) / 2)

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """World coordinates of voxel indices.

        Parameters
        ----------
        voxels
            ``(..., 3)`` continuous voxel indices.

        Returns
        -------
        numpy.ndarray
            ``(..., 3)`` RAS mm.

        Examples
        --------
        >>> Grid((7, 8, 9), np.diag([2.0, 2.0, 2.0, 1.0])).to_world(np.array([1.0, 2.0, 3.0])).tolist()
        [2.0, 4.0, 6.0]
        """
        return np.asarray(voxels) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxels(self, points: np.ndarray) -> np.ndarray:
        """Continuous voxel indices ``(..., 3)`` of RAS mm points ``(..., 3)``.

        Examples
        --------
        >>> Grid((7, 8, 9), np.diag([2.0, 2.0, 2.0, 1.0])).to_voxels(np.array([2.0, 4.0, 6.0])).tolist()
        [1.0, 2.0, 3.0]
        """
        return (np.asarray(points) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def same_as(self, other: Grid, *, tolerance: float = 1e-3) -> bool:
        """Whether two grids hold the same voxels at the same places.

        Parameters
        ----------
        other
            The grid to compare with.
        tolerance
            Largest accepted distance in mm between corresponding corner voxels.

        Examples
        --------
        >>> shifted = np.eye(4)
        >>> shifted[0, 3] = 0.5
        >>> Grid((7, 8, 9), np.eye(4)).same_as(Grid((7, 8, 9), shifted))
        False
        """
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, size - 1) for size in self.shape]), axis=-1).reshape(-1, 3)
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance)


def model_grid(spacing: float = 2.0) -> Grid:
    """Grid that the networks see: RAS, isotropic, in the template's frame.

    The field of view is 192 x 224 x 192 mm; the first voxel's centre lies at (-96, -132, -78) mm.

    Parameters
    ----------
    spacing
        Voxel size in mm; must divide the field of view.

    Raises
    ------
    ValueError
        If the voxel size does not divide the field of view.

    Examples
    --------
    >>> model_grid(2.0).shape
    (96, 112, 96)
    >>> model_grid(1.0).shape
    (192, 224, 192)
    """
    sizes = np.asarray(MODEL_EXTENT) / spacing
    if spacing <= 0 or not np.allclose(sizes, np.round(sizes)):
        raise ValueError(f"a model grid of {spacing} mm does not fill {MODEL_EXTENT} mm exactly")
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = MODEL_START
    return Grid((round(sizes[0]), round(sizes[1]), round(sizes[2])), affine)
