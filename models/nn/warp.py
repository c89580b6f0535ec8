"""Warping by dense displacements and integration of stationary velocities. All displacements are in voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def identity_grid(shape: tuple[int, ...] | torch.Size, like: torch.Tensor) -> torch.Tensor:
    """Give voxel coordinates, (1, 3, *shape), on the device and in the type of ``like``."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(
    image: torch.Tensor, displacement: torch.Tensor, *, mode: str = "bilinear", padding: str = "border"
) -> torch.Tensor:
    """Sample ``image`` at x + displacement(x).

    Parameters
    ----------
    image
        (B, C, *spatial).
    displacement
        (B, 3, *spatial), voxels, axis order of the array.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).
    """
    shape = displacement.shape[2:]
    sizes = torch.tensor(image.shape[2:], device=image.device, dtype=image.dtype).view(1, 3, 1, 1, 1)
    where = identity_grid(shape, image) + displacement
    unit = 2 * where / (sizes - 1).clamp_min(1) - 1
    return F.grid_sample(
        image, unit.flip(1).permute(0, 2, 3, 4, 1), mode=mode, padding_mode=padding, align_corners=True
    )


def compose(first: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """Give the displacement of x -> then(first(x)): ``first`` + ``then`` sampled where ``first`` leads."""
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
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resize(field: torch.Tensor, shape: tuple[int, ...] | torch.Size, *, factor: float) -> torch.Tensor:
    """Resample a displacement to another grid of the same field of view and scale its voxels by ``factor``."""
    return F.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=False) * factor
