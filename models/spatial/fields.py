"""Dense displacement fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from hyperprep.models.spatial.grids import Grid


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """The point map ``x -> x + data(x)``: linear between nodes, no displacement outside the grid.

    Parameters
    ----------
    grid
        Where the nodes lie.
    data
        ``(X, Y, Z, 3)`` displacements in mm, RAS components.

    Raises
    ------
    ValueError
        If shapes do not fit or a displacement is not finite.
    """

    grid: Grid
    data: np.ndarray

    def __post_init__(self) -> None:
        if self.data.shape != (*self.grid.shape, 3):
            raise ValueError(f"field of shape {self.data.shape} on a grid of shape {self.grid.shape}")
        if not np.isfinite(self.data).all():
            raise ValueError("a displacement field holds values that are not finite")

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map ``(N, 3)`` RAS mm points.

        Like ITK, the field reaches half a voxel beyond its outermost nodes (their value is repeated there).

        Examples
        --------
        >>> field = DisplacementField(Grid((7, 8, 9), np.eye(4)), np.ones((7, 8, 9, 3)))
        >>> field.map_points(np.array([[3.0, 3.0, 3.0], [99.0, 3.0, 3.0]])).tolist()
        [[4.0, 4.0, 4.0], [99.0, 3.0, 3.0]]
        """
        voxels = self.grid.to_voxels(points)
        inside = ((voxels >= -0.5) & (voxels < np.asarray(self.grid.shape) - 0.5)).all(axis=1)
        moved = np.array(points, dtype=np.float64)
        for component in range(3):
            moved[inside, component] += map_coordinates(
                self.data[..., component], voxels[inside].T, order=1, mode="nearest", output=np.float64
            )
        return moved
