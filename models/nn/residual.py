"""Residual unit on slices, and the joining of a decoder with its skip: Neuralizer and its baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions, GELU after each, and a shortcut around them (Neuralizer section 3.3).

    Parameters
    ----------
    channels
        Channels in and out; they are equal, so the shortcut is the identity and has no parameter.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.gelu(features + self.second(F.gelu(self.first(features))))


def halve(features: torch.Tensor) -> torch.Tensor:
    """Give the maximum of each 2 x 2 block, (B, C, H, W) -> (B, C, H/2, W/2).

    >>> halve(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
    [5.0, 7.0, 13.0, 15.0]
    """
    return F.max_pool2d(features, 2)


def joined(features: torch.Tensor, skip: torch.Tensor, mix: nn.Conv2d) -> torch.Tensor:
    """Double the size of ``features``, put ``skip`` beside them and mix both with a 1 x 1 convolution.

    Parameters
    ----------
    features
        (B, C, H/2, W/2).
    skip
        (B, C, H, W).
    mix
        1 x 1 convolution from 2 C to C channels.

    Returns
    -------
    torch.Tensor
        (B, C, H, W).
    """
    finer = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
    return mix(torch.cat([finer, skip], dim=1))
