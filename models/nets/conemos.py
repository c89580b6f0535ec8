"""The conditional segmentation network as published (CoNeMOS, Billot et al. 2023, sections 3.2 and 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.film import Conditioner, modulate


class ConditionalUNet(nn.Module):
    """3-D U-Net in which every convolution is modulated by the asked label.

    Four levels of two 3 x 3 x 3 convolutions; 16-32-64-128 channels by level give the 1.46 M parameters of
    the paper's table 2 without modulation. Each convolution is followed by modulation and ReLU.

    Parameters
    ----------
    n_labels
        Number of conditions (length of the one-hot vector).
    channels
        Channels of each level.
    """

    def __init__(self, n_labels: int, channels: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.n_labels = n_labels
        plan: list[tuple[int, int]] = []
        before = 1
        for c in channels:
            plan += [(before, c), (c, c)]
            before = c
        for c in reversed(channels[:-1]):
            plan += [(before + c, c), (c, c)]
            before = c
        self.levels = len(channels)
        self.convs = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in plan)
        self.last = nn.Conv3d(before, 1, 1)
        self.conditioner = Conditioner(n_labels, [2 * o for _, o in plan])

    def forward(self, image: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Segment one label per sample.

        Parameters
        ----------
        image
            (B, 1, *spatial), each side divisible by 2 ** (levels - 1).
        condition
            (B, n_labels) one-hot.

        Returns
        -------
        torch.Tensor
            Logits, (B, 1, *spatial).
        """
        films = self.conditioner(condition)
        features, skips, used = image, [], 0

        def twice(x: torch.Tensor) -> torch.Tensor:
            nonlocal used
            for _ in range(2):
                x = F.relu(modulate(self.convs[used](x), films[used]))
                used += 1
            return x

        for level in range(self.levels):
            features = twice(features if level == 0 else F.max_pool3d(features, 2))
            skips.append(features)
        for level in reversed(range(self.levels - 1)):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            features = twice(torch.cat([features, skips[level]], dim=1))
        return self.last(features)
