"""Image similarity with box windows, whose sums are differences of cumulative sums."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def box_mean(volume: torch.Tensor, window: int) -> torch.Tensor:
    """Average over cubes of ``window`` voxels a side; outside counts as zero.

    Parameters
    ----------
    volume
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
    """Give local means and (co)variances: mean_f, mean_m, cross, var_f, var_m, each (B, 1, *spatial)."""
    stack = torch.cat([fixed, moved, fixed * fixed, moved * moved, fixed * moved], dim=1)
    mean_f, mean_m, ff, mm, fm = box_mean(stack, window).split(1, dim=1)
    return mean_f, mean_m, fm - mean_f * mean_m, (ff - mean_f**2).clamp_min(0), (mm - mean_m**2).clamp_min(0)


def local_ncc(
    fixed: torch.Tensor,
    moved: torch.Tensor,
    *,
    window: int = 9,
    eps: float = 1e-5,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Give the mean squared local correlation coefficient (HyperMorph section 3.1; Avants et al. 2008), in [0, 1].

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial) in [0, 1].
    window
        Side of the cube in voxels.
    eps
        Variance product below which a window says nothing.
    mask
        (B, 1, *spatial): where the mean is taken.
    """
    _, _, cross, var_f, var_m = local_statistics(fixed, moved, window)
    squared = cross * cross / (var_f * var_m + eps)
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / mask.sum().clamp_min(1)


def mean_squared_error(fixed: torch.Tensor, moved: torch.Tensor, *, sigma: float = 0.05) -> torch.Tensor:
    """Give the mean squared difference over sigma squared (HyperMorph eq. 3 with MSE, sigma 0.05)."""
    return (fixed - moved).square().mean() / sigma**2
