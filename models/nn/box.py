"""Means and (co)variances over cubic windows, by differences of cumulative sums."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def box_mean(volume: torch.Tensor, window: int) -> torch.Tensor:
    """Average over cubes of ``window`` voxels a side; outside counts as zero.

    Parameters
    ----------
    volume
        (B, C, *spatial).
    window
        Side of the cube in voxels, odd.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> box_mean(torch.ones(1, 1, 5, 5, 5), 3)[0, 0, 2, 2, 2].item()
    1.0
    """
    half = window // 2
    for axis in range(2, volume.ndim):
        pad = [0] * (2 * (volume.ndim - 2))
        pad[2 * (volume.ndim - 1 - axis)], pad[2 * (volume.ndim - 1 - axis) + 1] = half + 1, half
        total = F.pad(volume, pad).cumsum(axis)
        n = volume.shape[axis]
        volume = (total.narrow(axis, window, n) - total.narrow(axis, 0, n)) / window
    return volume


def local_statistics(fixed: torch.Tensor, moved: torch.Tensor, window: int) -> tuple[torch.Tensor, ...]:
    """Give the means and (co)variances of two images in cubes of ``window`` voxels a side.

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial).
    window
        Side of the cube in voxels, odd.

    Returns
    -------
    tuple of torch.Tensor
        Mean of fixed, mean of moved, covariance, variance of fixed, variance of moved, each (B, 1, *spatial).

    Examples
    --------
    >>> image = torch.ones(1, 1, 5, 5, 5)
    >>> mean, _, _, variance, _ = local_statistics(image, image, 3)
    >>> mean[0, 0, 2, 2, 2].item(), variance[0, 0, 2, 2, 2].item()
    (1.0, 0.0)
    """
    stack = torch.cat([fixed, moved, fixed * fixed, moved * moved, fixed * moved], dim=1)
    mean_f, mean_m, ff, mm, fm = box_mean(stack, window).split(1, dim=1)
    return mean_f, mean_m, fm - mean_f * mean_m, (ff - mean_f**2).clamp_min(0), (mm - mean_m**2).clamp_min(0)
