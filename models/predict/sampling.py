"""Scans brought onto the lattice of a network, and network results brought back to scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import resample


def lattice_grid(description: Mapping[str, Any]) -> Grid:
    """Make the grid that a manifest entry describes (shape, spacing_mm, origin_mm; RAS)."""
    affine = np.diag([description["spacing_mm"]] * 3 + [1.0])
    affine[:3, 3] = description["origin_mm"]
    x, y, z = description["shape"]
    return Grid((x, y, z), affine)


def sample_averaged(img: nb.Nifti1Image, grid: Grid, point_map: np.ndarray, *, factor: int = 2) -> np.ndarray:
    """Sample an image on a grid, each voxel the mean of ``factor`` ** 3 linear samples inside it.

    Parameters
    ----------
    img
        Image to sample.
    grid
        Target grid.
    point_map
        (4, 4), from the target's space to the image's.

    Returns
    -------
    numpy.ndarray
        (*grid.shape) float32.
    """
    fine = np.array(grid.affine, float)
    fine[:3, :3] /= factor
    fine[:3, 3] -= fine[:3, :3] @ np.full(3, (factor - 1) / 2)
    x, y, z = grid.shape
    data = resample(img, Grid((x * factor, y * factor, z * factor), fine), [point_map]).get_fdata(
        dtype=np.float32
    )
    return data.reshape(x, factor, y, factor, z, factor).mean(axis=(1, 3, 5), dtype=np.float32)


def sample_volumes(volumes: torch.Tensor, grid: Grid, points: np.ndarray) -> torch.Tensor:
    """Interpolate several volumes at points, linearly; outside the grid the edge value holds.

    Parameters
    ----------
    volumes
        (C, *grid.shape).
    points
        (N, 3) RAS mm in the grid's space.

    Returns
    -------
    torch.Tensor
        (C, N).
    """
    voxels = torch.from_numpy(np.ascontiguousarray(grid.to_voxels(points), dtype=np.float32)).to(
        volumes.device
    )
    sizes = torch.tensor(grid.shape, dtype=torch.float32, device=volumes.device)
    unit = (2 * voxels / (sizes - 1) - 1).flip(-1)[None, None, None]
    return F.grid_sample(volumes[None], unit, padding_mode="border", align_corners=True)[0, :, 0, 0]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of a mask and fill its holes (face neighbours)."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(mask))
