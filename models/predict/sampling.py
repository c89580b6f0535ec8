"""Scans brought onto the lattice of a network, and network results brought back to scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import WeightsError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import Chain, resample

#: The world axis (RAS) and direction that each letter of an orientation stands for.
_LEADS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def lattice_grid(description: Mapping[str, Any]) -> Grid:
    """Make the grid that a manifest entry describes.

    Parameters
    ----------
    description
        ``orientation`` (where the axes lead, such as ``"RAS"``), ``shape``, ``spacing_mm`` (isotropic) and
        ``origin_mm`` (centre of the first voxel, RAS mm).

    Raises
    ------
    WeightsError
        When the orientation is none.

    Examples
    --------
    >>> described = {"shape": [7, 8, 9], "spacing_mm": 2.0, "origin_mm": [-6.0, -7.0, -8.0]}
    >>> grid = lattice_grid({"orientation": "RAS", **described})
    >>> grid.shape, grid.affine[:3, 3].tolist()
    ((7, 8, 9), [-6.0, -7.0, -8.0])
    >>> lattice_grid({"orientation": "ALS", **described}).affine[:3, :3].tolist()
    [[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    """
    code = str(description.get("orientation"))
    if sorted(_LEADS.get(letter, (-1, 0))[0] for letter in code) != [0, 1, 2]:
        raise WeightsError(
            f"The orientation of a network's grid must be three letters such as 'RAS', not {code!r}: "
            "correct the manifest of the weights."
        )
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, letter in enumerate(code):
        row, sign = _LEADS[letter]
        affine[row, axis] = sign * description["spacing_mm"]
    affine[:3, 3] = description["origin_mm"]
    x, y, z = description["shape"]
    return Grid((x, y, z), affine)


def sample_averaged(
    img: nb.Nifti1Image, grid: Grid, point_map: np.ndarray | Chain, *, factor: int = 2
) -> np.ndarray:
    """Sample an image on a grid, each voxel the mean of ``factor`` ** 3 linear samples inside it.

    Parameters
    ----------
    img
        Image to sample.
    grid
        Target grid.
    point_map
        (4, 4) or chain, from the target's space to the image's, RAS mm.
    factor
        Samples along each side of a voxel.

    Returns
    -------
    numpy.ndarray
        (*grid.shape) float32.

    Examples
    --------
    >>> img = nb.Nifti1Image(np.full((7, 8, 9), 5, np.float32), np.eye(4))
    >>> inner = Grid((2, 3, 4), np.diag([1.0, 1.0, 1.0, 1.0]))
    >>> float(sample_averaged(img, inner, np.eye(4))[1, 1, 1])
    5.0
    """
    chain = [point_map] if isinstance(point_map, np.ndarray) else point_map
    fine = resample(img, halved(grid, factor=factor), chain).get_fdata(dtype=np.float32)
    return block_means(fine, factor=factor)


def halved(grid: Grid, *, factor: int = 2) -> Grid:
    """Make the grid over the same field of view whose voxels are ``factor`` times smaller.

    Examples
    --------
    >>> halved(Grid((2, 3, 4), np.diag([2.0, 2.0, 2.0, 1.0]))).affine[:3, 3].tolist()
    [-0.5, -0.5, -0.5]
    """
    fine = np.array(grid.affine, float)
    fine[:3, :3] /= factor
    fine[:3, 3] -= fine[:3, :3] @ np.full(3, (factor - 1) / 2)
    x, y, z = grid.shape
    return Grid((x * factor, y * factor, z * factor), fine)


def block_means(data: np.ndarray, *, factor: int = 2) -> np.ndarray:
    """Average blocks of ``factor`` ** 3 voxels; sides must be divisible by it.

    Examples
    --------
    >>> block_means(np.arange(8.0).reshape(2, 2, 2)).tolist()
    [[[3.5]]]
    """
    swapped = data.flags.f_contiguous
    volume = torch.from_numpy(np.ascontiguousarray(data.T if swapped else data, dtype=np.float32))
    means = F.avg_pool3d(volume[None, None], factor)[0, 0].numpy()
    return means.T if swapped else means


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

    Examples
    --------
    >>> volume = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 3, 2)
    >>> sample_volumes(volume, Grid((4, 3, 2), np.eye(4)), np.array([[1.5, 1, 0], [9, 1, 0]])).tolist()
    [[1.5, 3.0]]
    """
    voxels = torch.from_numpy(np.ascontiguousarray(grid.to_voxels(points), dtype=np.float32)).to(
        volumes.device
    )
    sizes = torch.tensor(grid.shape, dtype=torch.float32, device=volumes.device)
    unit = (2 * voxels / (sizes - 1) - 1).flip(-1)[None, None, None]
    return F.grid_sample(volumes[None], unit, padding_mode="border", align_corners=True)[0, :, 0, 0]


def volumes_on_grid(volumes: torch.Tensor, grid: Grid, grid2target: np.ndarray, target: Grid) -> np.ndarray:
    """Interpolate volumes on another grid, linearly; zero beyond their field of view.

    Parameters
    ----------
    volumes
        (C, *grid.shape).
    grid
        Grid of the volumes.
    grid2target
        (4, 4) point map from the grid's space to the target's, RAS mm.
    target
        The other grid.

    Returns
    -------
    numpy.ndarray
        (C, *target.shape) float32.

    Examples
    --------
    >>> grid = Grid((2, 3, 4), np.eye(4))
    >>> found = volumes_on_grid(torch.ones(1, 2, 3, 4), grid, np.eye(4), Grid((4, 3, 4), np.eye(4)))
    >>> found[0, :, 1, 1].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    out = np.zeros((len(volumes), *target.shape), np.float32)
    for slab, points in slabs(target, grid2target):
        place = grid.to_voxels(points)
        inside = ((place >= -0.5) & (place <= np.array(grid.shape) - 0.5)).all(1)
        values = sample_volumes(volumes, grid, points).cpu().numpy() * inside
        out[:, slab] = values.reshape(len(volumes), -1, *target.shape[1:])
    return out


def slabs(target: Grid, grid2target: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Cut a grid into slabs of its first axis, so that not all of its points are in memory at once.

    Parameters
    ----------
    target
        The grid.
    grid2target
        (4, 4) point map from another space to the grid's, RAS mm.

    Yields
    ------
    tuple of slice and numpy.ndarray
        Part of the first axis, and the other space's coordinates (N, 3) of its voxels in C order.

    Examples
    --------
    >>> [(part, points.shape) for part, points in slabs(Grid((2, 3, 4), np.eye(4)), np.eye(4))]
    [(slice(0, 2, None), (24, 3))]
    """
    back = np.linalg.inv(grid2target)
    planes = max(1, 400_000 // int(np.prod(target.shape[1:])))
    for start in range(0, target.shape[0], planes):
        slab = slice(start, min(start + planes, target.shape[0]))
        axes = [np.arange(slab.start, slab.stop), *(np.arange(n) for n in target.shape[1:])]
        voxels = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        yield slab, target.to_world(voxels) @ back[:3, :3].T + back[:3, 3]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of a mask and fill its holes (face neighbours).

    Parameters
    ----------
    mask
        (X, Y, Z) bool.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) bool; empty where the mask is empty.

    Examples
    --------
    >>> mask = np.zeros((7, 8, 9), bool)
    >>> mask[1:4, 1:4, 1:4], mask[2, 2, 2], mask[6, 7, 8] = True, False, True
    >>> int(largest_component(mask).sum())
    27
    """
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(mask))


def main_body(mask: np.ndarray, *, neck: int = 1) -> np.ndarray:
    """Keep the largest part of a mask without what hangs on it by narrow bridges only.

    The mask is eroded, its largest part kept and grown back inside the mask: marrow of the skull, which
    touches a brain mask here and there, goes; the brain's own outline stays.

    Parameters
    ----------
    mask
        (X, Y, Z) bool.
    neck
        Bridges of up to twice this many voxels are cut.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) bool; the largest part as it is where nothing is left after erosion.

    Examples
    --------
    >>> mask = np.zeros((16, 9, 9), bool)
    >>> mask[1:8, 1:8, 1:8], mask[8:10, 4, 4], mask[10:14, 3:7, 3:7] = True, True, True
    >>> body = main_body(mask)
    >>> bool(body[1:8, 1:8, 1:8].all()), bool(body[10:].any())
    (True, False)
    """
    from scipy import ndimage

    whole = largest_component(mask)
    core = ndimage.binary_erosion(whole, iterations=neck, border_value=1)
    if not core.any():
        return whole
    cube = np.ones((3, 3, 3), bool)
    return np.asarray(ndimage.binary_dilation(largest_component(core), cube, iterations=neck + 1, mask=whole))
