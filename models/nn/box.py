"""Means and (co)variances over cubic windows, by sums of shifted copies: log2(window) additions per axis."""

from __future__ import annotations

from typing import Any

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
    mean: torch.Tensor = _BoxMean.apply(volume, window)
    return mean


class _BoxMean(torch.autograd.Function):
    """The average is symmetric in its two voxels, so it is its own derivative's transpose."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, window: int) -> torch.Tensor:
        ctx.window = window
        return _box_sum(volume, window).div_(window ** (volume.ndim - 2))

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return box_mean(gradient[0], ctx.window), None


def _box_sum(volume: torch.Tensor, window: int) -> torch.Tensor:
    """Sum along one axis after the other: sums over 2, 4, 8 ... voxels, joined as the window's bits say."""
    for axis in range(2, volume.ndim):
        size, half = volume.shape[axis], window // 2
        pad = [0] * (2 * (volume.ndim - 2))
        pad[2 * (volume.ndim - 1 - axis)] = pad[2 * (volume.ndim - 1 - axis) + 1] = half
        power, width, begin = F.pad(volume, pad), 1, 0
        total: torch.Tensor | None = None
        while width <= window:
            if window & width:
                part = power.narrow(axis, begin, size)
                total = part.clone() if total is None else total.add_(part)
                begin += width
            width *= 2
            if width <= window:
                left = power.shape[axis] - width // 2
                power = power.narrow(axis, 0, left) + power.narrow(axis, width // 2, left)
        assert total is not None
        volume = total
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
