"""One pair registered with many values of lambda: what a reader of the report moves through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from hyperprep.models.spatial.fields import DisplacementField
from hyperprep.models.spatial.files import replacing
from hyperprep.models.spatial.grids import Grid


@dataclass(frozen=True, eq=False)
class LambdaSweep:
    """Deformations of one pair, by lambda.

    Attributes
    ----------
    lam
        (N,) values of lambda, rising.
    displacement
        (N, X, Y, Z, 3) mm, RAS components, on ``grid``.
    grid
        Where the displacements lie, in the network's (template) frame.
    frame2fixed
        (4, 4) from that frame to the fixed image.
    frame2moving
        (4, 4) from that frame to the moving image: the prealignment.

    Examples
    --------
    >>> grid = Grid((4, 5, 6), np.eye(4))
    >>> steps = np.stack([np.full((4, 5, 6, 3), float(n)) for n in range(3)])
    >>> sweep = LambdaSweep(np.array([0, 0.5, 1]), steps, grid, np.eye(4), np.diag([2.0, 2, 2, 1]))
    >>> sweep.nearest(0.6)
    1
    >>> sweep.to_moving(np.array([[1.0, 1.0, 1.0]]), 1).tolist()
    [[4.0, 4.0, 4.0]]
    """

    lam: np.ndarray
    displacement: np.ndarray
    grid: Grid
    frame2fixed: np.ndarray
    frame2moving: np.ndarray

    def field(self, step: int) -> DisplacementField:
        """Give the deformation of one step, in the network's frame."""
        return DisplacementField(self.grid, np.asarray(self.displacement[step], np.float32))

    def nearest(self, lam: float) -> int:
        """Find the step whose lambda is nearest."""
        return int(np.abs(self.lam - lam).argmin())

    def deform(self, points: np.ndarray, step: int) -> np.ndarray:
        """Map points (..., 3) of the fixed image by the deformation alone, RAS mm of the fixed image."""
        moved = self._deform_in_frame(points, step)
        return np.asarray(apply_affine(self.frame2fixed, moved))

    def to_moving(self, points: np.ndarray, step: int) -> np.ndarray:
        """Map points (..., 3) of the fixed image to the moving one, RAS mm."""
        moved = self._deform_in_frame(points, step)
        return np.asarray(apply_affine(self.frame2moving, moved))

    def _deform_in_frame(self, points: np.ndarray, step: int) -> np.ndarray:
        frame = apply_affine(np.linalg.inv(self.frame2fixed), points)
        return self.field(step).map_points(frame.reshape(-1, 3)).reshape(points.shape)

    def save(self, path: str | Path) -> Path:
        """Write an NPZ file; displacements are kept to 16-bit precision (better than 0.02 mm)."""
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                lam=self.lam,
                displacement=self.displacement.astype(np.float16),
                affine=self.grid.affine,
                frame2fixed=self.frame2fixed,
                frame2moving=self.frame2moving,
            )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> LambdaSweep:
        """Read what :meth:`save` wrote."""
        with np.load(path) as stored:
            displacement = stored["displacement"].astype(np.float32)
            grid = Grid(displacement.shape[1:4], stored["affine"])
            return cls(stored["lam"], displacement, grid, stored["frame2fixed"], stored["frame2moving"])
