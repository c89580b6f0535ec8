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
    width
        Channels of the first and of the last convolutions; all others have twice as many. The paper's is 16.
    """

    def __init__(self, *, normalise: bool = False, width: int = 16) -> None:
        super().__init__()
        self.normalise = normalise
        n, m = width, 2 * width
        self.down = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in ((2, n), (n, m), (m, m), (m, m)))
        self.up = nn.ModuleList(
            nn.Conv3d(i, o, 3, padding=1) for i, o in ((m, m), (2 * m, m), (2 * m, m), (2 * m, m))
        )
        self.tail = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in ((m, m), (m, n), (n, n)))
        self.flow = nn.Conv3d(n, 3, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        assert self.flow.bias is not None
        nn.init.zeros_(self.flow.bias)

    def convolve(self, convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Apply one convolution of the network; what varies the network may do so here."""
        out: torch.Tensor = convolution(features)
        return out

    def _step(self, convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
        out = self.convolve(convolution, features)
        return F.leaky_relu(F.instance_norm(out) if self.normalise else out, 0.2)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Give the coarsest features and those of each level, finest first, of the input (B, C, *spatial)."""
        skips = []
        for convolution in self.down:
            x = self._step(convolution, x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        return x, skips

    def decode(
        self,
        x: torch.Tensor,
        skips: list[torch.Tensor],
        before_last_upsampling: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Give the velocity of :meth:`encode`'s features.

        ``before_last_upsampling`` (B, C, *spatial / 4) joins the features at that place, for networks whose
        last convolution before full size was made for it.
        """
        for level, convolution in enumerate(self.up):
            x = self._step(convolution, x)
            if level == 2 and before_last_upsampling is not None:
                x = torch.cat([x, before_last_upsampling], dim=1)
            if level < 3:
                x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips[3 - level]], dim=1)
        for convolution in self.tail:
            x = self._step(convolution, x)
        return self.convolve(self.flow, x)

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
        return self.decode(*self.encode(torch.cat([moving, fixed], dim=1)))
