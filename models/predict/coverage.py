"""What of a head an image shows: its field of view on a network's grid."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import torch
from scipy import ndimage

from hyperprep.models.nn.warp import warp
from hyperprep.models.spatial.grids import Grid

RIM_VOXELS = 2
"""Voxels of the network's grid at the edge of an image's field of view that are not compared."""


def field_of_view(image: nb.Nifti1Image, grid: Grid, frame2image: np.ndarray) -> np.ndarray:
    """Say where an image was acquired, (*grid.shape) bool, less :data:`RIM_VOXELS` along its own edge.

    What one image does not show is no change, and features average over a neighbourhood.

    Examples
    --------
    >>> grid = Grid((8, 8, 8), np.eye(4))
    >>> image = nb.Nifti1Image(np.zeros((5, 20, 20), np.float32), np.eye(4))
    >>> field_of_view(image, grid, np.eye(4))[:, 4, 4].astype(int).tolist()
    [1, 1, 1, 0, 0, 0, 0, 0]
    """
    points = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)
    voxels = nb.affines.apply_affine(np.linalg.inv(image.affine) @ frame2image @ grid.affine, points)
    inside = np.all((voxels > -0.5) & (voxels < np.array(image.shape[:3]) - 0.5), axis=1).reshape(grid.shape)
    return np.asarray(ndimage.binary_erosion(inside, iterations=RIM_VOXELS, border_value=1))


def carried(covered: np.ndarray, displacement: torch.Tensor) -> np.ndarray:
    """Bring a field of view (*grid) to the other image's side by a displacement (1, 3, *grid), voxels."""
    values = torch.from_numpy(covered.astype(np.float32))[None, None].to(displacement.device)
    return np.asarray(warp(values, displacement)[0, 0].cpu().numpy() > 0.5)
