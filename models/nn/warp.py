"""Warping by dense displacements and integration of stationary velocities, all in voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def identity_grid(shape: tuple[int, ...] | torch.Size, like: torch.Tensor) -> torch.Tensor:
    """Give voxel coordinates, (1, D, *shape), on the device and in the type of ``like``.

    Examples
    --------
    >>> identity_grid((2, 3, 4), torch.zeros(()))[0, :, 1, 2, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(
    image: torch.Tensor, displacement: torch.Tensor, *, mode: str = "bilinear", padding: str = "border"
) -> torch.Tensor:
    """Sample ``image`` at x + displacement(x).

    Parameters
    ----------
    image
        (B, C, *spatial), two or three spatial axes.
    displacement
        (B, D, *spatial), voxels, axis order of the array.
    mode
        ``"bilinear"`` (linear along each axis) or ``"nearest"``.
    padding
        ``"border"``: outside, the edge value holds; ``"zeros"``: outside is zero.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> image = torch.tensor([0.0, 10.0, 20.0]).view(1, 1, 3, 1, 1)
    >>> shift = torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    >>> warp(image, shift).flatten().tolist()
    [5.0, 15.0, 20.0]
    """
    shape = displacement.shape[2:]
    coordinates = []
    for axis in reversed(range(len(shape))):
        scale = 2 / max(image.shape[axis + 2] - 1, 1)
        ramp = torch.arange(shape[axis], device=image.device, dtype=image.dtype) * scale - 1
        view = [1] * (len(shape) + 1)
        view[axis + 1] = shape[axis]
        coordinates.append(torch.add(ramp.view(view), displacement[:, axis], alpha=scale))
    where = torch.stack(coordinates, dim=-1)
    slabs = _slabs(image, shape[0])
    if slabs > 1:
        where = where.view(slabs, shape[0] // slabs, *shape[1:], len(shape))
    sampled = F.grid_sample(
        image.expand(slabs * len(image), *image.shape[1:]),
        where,
        mode=mode,
        padding_mode=padding,
        align_corners=True,
    )
    return sampled if slabs == 1 else sampled.movedim(0, 1).reshape(1, image.shape[1], *shape)


def _slabs(image: torch.Tensor, length: int) -> int:
    """Into how many slabs to cut the output: torch samples each element of a batch on one core only."""
    if len(image) > 1 or image.device.type != "cpu" or torch.is_grad_enabled():
        return 1
    return next(n for n in range(min(torch.get_num_threads(), length), 0, -1) if length % n == 0)


def compose(first: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """Give the displacement of x -> then(first(x)): ``first`` + ``then`` sampled where ``first`` leads.

    Parameters
    ----------
    first, then
        (B, 3, *spatial), voxels.

    Returns
    -------
    torch.Tensor
        (B, 3, *spatial), voxels.

    Examples
    --------
    >>> compose(torch.full((1, 3, 4, 4, 4), 0.5), torch.full((1, 3, 4, 4, 4), 0.25)).unique().tolist()
    [0.75]
    """
    return first + warp(then, first)


def integrate(velocity: torch.Tensor, *, steps: int = 5) -> torch.Tensor:
    """Integrate a stationary velocity by scaling and squaring (Arsigny et al. 2006; HyperMorph section 3.1).

    Parameters
    ----------
    velocity
        (B, 3, *spatial), voxels.
    steps
        Number of squarings.

    Returns
    -------
    torch.Tensor
        Displacement, (B, 3, *spatial), voxels. The inverse is ``integrate(-velocity)``.

    Examples
    --------
    >>> integrate(torch.full((1, 3, 4, 4, 4), 0.5)).unique().tolist()
    [0.5]
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resize(field: torch.Tensor, shape: tuple[int, ...] | torch.Size, *, factor: float) -> torch.Tensor:
    """Resample a displacement to another grid of the same field of view and scale it by ``factor``.

    Parameters
    ----------
    field
        (B, 3, *spatial), voxels.
    shape
        Sides of the other grid in voxels.
    factor
        How many voxels of the other grid make one of the field's.

    Returns
    -------
    torch.Tensor
        (B, 3, *shape), voxels of the other grid.

    Examples
    --------
    >>> resize(torch.ones(1, 3, 2, 3, 4), (4, 6, 8), factor=2.0).unique().tolist()
    [2.0]
    """
    return F.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=False) * factor
