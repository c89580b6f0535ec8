"""The primary registration network as published (HyperMorph section 3.3): 313,507 parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class RegistrationUNet(nn.Module):
    """U-Net from an image pair to a stationary velocity field at half resolution.

    Encoder 16-32-32-32, decoder 32-32-32-32-32-16-16, kernel 3, LeakyReLU 0.2. The decoder stops at half
    resolution: skips from the second to fourth encoder convolutions, none from the first.

    Parameters
    ----------
    normalise
        Put an instance normalisation without parameters after each convolution, which learns about three
        times faster per step.
    """

    def __init__(self, *, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.down = nn.ModuleList(
            nn.Conv3d(i, o, 3, padding=1) for i, o in ((2, 16), (16, 32), (32, 32), (32, 32))
        )
        self.up = nn.ModuleList(
            nn.Conv3d(i, o, 3, padding=1) for i, o in ((32, 32), (64, 32), (64, 32), (64, 32))
        )
        self.tail = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in ((32, 32), (32, 16), (16, 16)))
        self.flow = nn.Conv3d(16, 3, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        assert self.flow.bias is not None
        nn.init.zeros_(self.flow.bias)

    def _step(self, convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
        out = convolution(features)
        return F.leaky_relu(F.instance_norm(out) if self.normalise else out, 0.2)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Give the velocity.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial), sides divisible by 16.

        Returns
        -------
        torch.Tensor
            (B, 3, *spatial / 2), in voxels of that coarser grid.
        """
        x, skips = torch.cat([moving, fixed], dim=1), []
        for convolution in self.down:
            x = self._step(convolution, x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        for level, convolution in enumerate(self.up):
            x = self._step(convolution, x)
            if level < 3:
                x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[3 - level]], dim=1)
        for convolution in self.tail:
            x = self._step(convolution, x)
        return self.flow(x)
