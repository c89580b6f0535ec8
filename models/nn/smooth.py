"""Gaussian smoothing of volumes, separable, by sums of shifted copies: fast for the small widths needed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def gaussian_smooth(volume: torch.Tensor, sigma: float) -> torch.Tensor:
    """Convolve with a Gaussian; beyond the border the edge value holds.

    Parameters
    ----------
    volume
        (B, C, *spatial), three spatial axes.
    sigma
        Standard deviation in voxels; 0 gives the volume back.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> peak = torch.zeros(1, 1, 9, 9, 9)
    >>> peak[0, 0, 4, 4, 4] = 1
    >>> smooth = gaussian_smooth(peak, 1.0)
    >>> round(float(smooth.sum()), 4), bool(smooth[0, 0, 4, 4, 4] > smooth[0, 0, 4, 4, 5])
    (1.0, True)
    """
    if sigma <= 0:
        return volume
    radius = max(1, math.ceil(2.5 * sigma))
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    for axis in (2, 3, 4):
        pad = [0] * 6
        pad[2 * (4 - axis)] = pad[2 * (4 - axis) + 1] = radius
        padded, size = F.pad(volume, pad, mode="replicate"), volume.shape[axis]
        volume = padded.narrow(axis, radius, size) * (weights[0] / total)
        for offset in range(1, radius + 1):
            pair = padded.narrow(axis, radius - offset, size) + padded.narrow(axis, radius + offset, size)
            volume = volume.add_(pair, alpha=weights[offset] / total)
    return volume
