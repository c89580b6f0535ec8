"""Instance normalisation written for the processor's channels-last layout."""

from __future__ import annotations

import torch
from torch import nn


class InstanceNorm(nn.Module):
    """Normalise each channel of each sample over space, then scale and shift it.

    Same result as ``torch.nn.InstanceNorm3d(affine=True)``; statistics and application stay in the
    layout of the convolutions.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, *spatial)."""
        axes = tuple(range(2, features.ndim))
        variance, mean = torch.var_mean(features, dim=axes, keepdim=True, unbiased=False)
        view = (1, -1, *([1] * len(axes)))
        scale = self.weight.view(view) * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(view) - mean * scale, features, scale)
