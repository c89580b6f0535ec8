"""The integrative networks of HyperMorph section 3.4: hyperparameters as inputs of a registration U-Net.

They exist to be compared with the hypernetwork and are never shipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nets.registration_unet import RegistrationUNet

START = 8
"""Side of the volume that the hyperparameters are repeated into."""


class HyperVolume(nn.Module):
    """Auxiliary network of the pre- and post-integrative models.

    Each hyperparameter is one channel of a constant 8 x 8 x 8 volume; six convolutions of 32 channels follow,
    each of whose outputs is upsampled until the target resolution is reached.

    Parameters
    ----------
    n_hyper
        Number of hyperparameters.
    channels
        Channels of each convolution.
    """

    def __init__(self, n_hyper: int = 1, channels: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv3d(n_hyper if i == 0 else channels, channels, 3, padding=1) for i in range(6)
        )

    def forward(self, hyper: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Give features (1, channels, *shape) of hyperparameters (n_hyper,)."""
        x = hyper.view(1, -1, 1, 1, 1).expand(-1, -1, START, START, START)
        for turn, layer in enumerate(self.layers, start=1):
            x = F.leaky_relu(layer(x), 0.2)
            last = turn == len(self.layers)
            size = [n if last else min(n, START * 2**turn) for n in shape]
            if list(x.shape[2:]) != size:
                x = F.interpolate(x, size=size, mode="nearest")
        return x


class PreIntegrative(RegistrationUNet):
    """The auxiliary network's output is a further input of the U-Net's first convolution."""

    def __init__(self, n_hyper: int = 1, *, width: int = 16, extra: int = 32) -> None:
        super().__init__(width=width)
        self.auxiliary = HyperVolume(n_hyper, extra)
        self.down[0] = nn.Conv3d(2 + extra, width, 3, padding=1)

    def forward(  # type: ignore[override]
        self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor
    ) -> torch.Tensor:
        """Give the velocity, (B, 3, *spatial / 2), voxels, as :class:`RegistrationUNet` does."""
        seen = self.auxiliary(hyper, fixed.shape[2:]).expand(fixed.shape[0], -1, -1, -1, -1)
        return self.decode(*self.encode(torch.cat([moving, fixed, seen], dim=1)))


class PostIntegrative(RegistrationUNet):
    """The auxiliary network's output joins the input of the U-Net's last upsampling."""

    def __init__(self, n_hyper: int = 1, *, width: int = 16, extra: int = 32) -> None:
        super().__init__(width=width)
        self.auxiliary = HyperVolume(n_hyper, extra)
        self.up[3] = nn.Conv3d(4 * width + extra, 2 * width, 3, padding=1)

    def forward(  # type: ignore[override]
        self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor
    ) -> torch.Tensor:
        """Give the velocity, (B, 3, *spatial / 2), voxels, as :class:`RegistrationUNet` does."""
        quarter = [n // 4 for n in fixed.shape[2:]]
        seen = self.auxiliary(hyper, quarter).expand(fixed.shape[0], -1, -1, -1, -1)
        return self.decode(*self.encode(torch.cat([moving, fixed], dim=1)), before_last_upsampling=seen)


class FullIntegrative(RegistrationUNet):
    """A fully connected network adds one value to each output channel of each convolution.

    Five layers of 256 units with ReLU, then a linear one with as many outputs as the U-Net has channels.
    """

    def __init__(self, n_hyper: int = 1, *, width: int = 16, units: int = 256) -> None:
        super().__init__(width=width)
        self.convolutions = [m for m in self.modules() if isinstance(m, nn.Conv3d)]
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [nn.Linear(n_hyper if i == 0 else units, units), nn.ReLU()]
        self.auxiliary = nn.Sequential(
            *layers, nn.Linear(units, sum(c.out_channels for c in self.convolutions))
        )
        self._shift: dict[int, torch.Tensor] = {}

    def convolve(self, convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Convolve, and add the hyperparameters' value to each channel."""
        return super().convolve(convolution, features) + self._shift[id(convolution)].view(1, -1, 1, 1, 1)

    def forward(  # type: ignore[override]
        self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor
    ) -> torch.Tensor:
        """Give the velocity, (B, 3, *spatial / 2), voxels, as :class:`RegistrationUNet` does."""
        sizes = [c.out_channels for c in self.convolutions]
        parts = self.auxiliary(hyper).split(sizes)
        self._shift = {id(c): part for c, part in zip(self.convolutions, parts, strict=True)}
        return super().forward(fixed, moving)


STRATEGIES: dict[str, type[RegistrationUNet]] = {
    "pre-integrative": PreIntegrative,
    "post-integrative": PostIntegrative,
    "full-integrative": FullIntegrative,
}
