"""Regularity of velocity and displacement fields."""

from __future__ import annotations

import torch


def gradient_energy(velocity: torch.Tensor) -> torch.Tensor:
    """Give the mean squared spatial gradient of the velocity (HyperMorph eq. 4 without its factor 1/2).

    Parameters
    ----------
    velocity
        (B, 3, *spatial), voxels.

    Returns
    -------
    torch.Tensor
        Mean over voxels of the sum over components and axes of squared forward differences.

    Examples
    --------
    >>> gradient_energy(torch.zeros(1, 3, 4, 4, 4)).item()
    0.0
    """
    total = velocity.new_zeros(())
    for axis in range(2, velocity.ndim):
        total = total + velocity.diff(dim=axis).square().sum(dim=1).mean()
    return total


def jacobian_determinant(displacement: torch.Tensor, *, central: bool = False) -> torch.Tensor:
    """Give the determinant of the Jacobian of x + displacement(x).

    Parameters
    ----------
    displacement
        (B, 3, *spatial), voxels.
    central
        Central differences, one-sided at the border, as
        :func:`hyperprep.models.spatial.measures.jacobian_determinant` takes them; else forward differences.

    Returns
    -------
    torch.Tensor
        (B, *spatial - 1), with central differences (B, *spatial); zero or negative where the motion folds.

    Examples
    --------
    >>> jacobian_determinant(torch.zeros(1, 3, 2, 3, 4)).unique().tolist()
    [1.0]
    >>> jacobian_determinant(torch.zeros(1, 3, 2, 3, 4), central=True).shape
    torch.Size([1, 2, 3, 4])
    """
    if central:
        rows = list(torch.gradient(displacement, dim=(2, 3, 4)))
    else:
        x, y, z = (n - 1 for n in displacement.shape[2:])
        rows = [displacement.diff(dim=axis)[:, :, :x, :y, :z] for axis in (2, 3, 4)]
    j = torch.stack(rows, dim=2) + torch.eye(3, device=displacement.device).view(1, 3, 3, 1, 1, 1)
    return (
        j[:, 0, 0] * (j[:, 1, 1] * j[:, 2, 2] - j[:, 1, 2] * j[:, 2, 1])
        - j[:, 0, 1] * (j[:, 1, 0] * j[:, 2, 2] - j[:, 1, 2] * j[:, 2, 0])
        + j[:, 0, 2] * (j[:, 1, 0] * j[:, 2, 1] - j[:, 1, 1] * j[:, 2, 0])
    )
