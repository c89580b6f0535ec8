"""The integrative networks of HyperMorph section 3.4: hyperparameters as inputs of a registration network.

Of the paper's U-Net and, by analogy, of the unrolled network, which learns in minutes. They exist to be
compared with the hypernetwork and are never shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nets.registration_unet import RegistrationUNet
from hyperprep.models.nets.unrolled import UnrolledMatching

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


class ChannelValues(nn.Module):
    """Auxiliary network of the full-integrative model: one value for each output channel of each convolution.

    Five layers of 256 units with ReLU, then a linear one.

    Parameters
    ----------
    n_hyper
        Number of hyperparameters.
    channels
        Output channels of each convolution.
    units
        Units of each dense layer.
    """

    def __init__(self, n_hyper: int, channels: Sequence[int], units: int = 256) -> None:
        super().__init__()
        self.channels = list(channels)
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [nn.Linear(n_hyper if i == 0 else units, units), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(units, sum(channels)))

    def forward(self, hyper: torch.Tensor) -> list[torch.Tensor]:
        """Give one (1, C, 1, 1, 1) tensor per convolution for hyperparameters (n_hyper,)."""
        return [part.view(1, -1, 1, 1, 1) for part in self.layers(hyper).split(self.channels)]


class FullIntegrative(RegistrationUNet):
    """A fully connected network adds one value to each output channel of each convolution of the U-Net."""

    def __init__(self, n_hyper: int = 1, *, width: int = 16) -> None:
        super().__init__(width=width)
        self.convolutions = [m for m in self.modules() if isinstance(m, nn.Conv3d)]
        self.auxiliary = ChannelValues(n_hyper, [c.out_channels for c in self.convolutions])
        self._shift: dict[int, torch.Tensor] = {}

    def convolve(self, convolution: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Convolve, and add the hyperparameters' value to each channel."""
        return super().convolve(convolution, features) + self._shift[id(convolution)]

    def forward(  # type: ignore[override]
        self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor
    ) -> torch.Tensor:
        """Give the velocity, (B, 3, *spatial / 2), voxels, as :class:`RegistrationUNet` does."""
        shifts = self.auxiliary(hyper)
        self._shift = {id(c): shift for c, shift in zip(self.convolutions, shifts, strict=True)}
        return super().forward(fixed, moving)


class IntegrativeUnrolled(UnrolledMatching):
    """The unrolled network with the hyperparameters as inputs, at the places of the paper's three strategies.

    Pre: the auxiliary features join the input of every step. Post: they join the input of the finest level's
    last convolution. Full: a value is added to each output channel of each convolution.

    Parameters
    ----------
    strategy
        ``"pre-integrative"``, ``"post-integrative"`` or ``"full-integrative"``.
    n_hyper
        Number of hyperparameters.
    extra
        Channels of the auxiliary features.
    options
        As of :class:`UnrolledMatching`.
    """

    def __init__(self, strategy: str, n_hyper: int = 1, *, extra: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.strategy = strategy
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv3d)]
        channels = convolutions[0].out_channels
        self.auxiliary: nn.Module = HyperVolume(n_hyper, extra)
        if strategy == "full-integrative":
            self.auxiliary = ChannelValues(n_hyper, [c.out_channels for c in convolutions])
        elif strategy == "pre-integrative":
            for level in self.levels:
                level[0] = nn.Conv3d(9 + extra, channels, 3, padding=1)  # type: ignore[operator]
        else:
            flow = nn.Conv3d(channels + extra, 3, 3, padding=1)
            nn.init.normal_(flow.weight, std=1e-2)
            nn.init.zeros_(flow.bias)
            self.levels[-1][2] = flow  # type: ignore[operator]
        self._hyper = torch.empty(0)
        self._seen: dict[int, Any] = {}

    def _auxiliary(self, level: int, shape: Sequence[int]) -> Any:
        """Run the auxiliary network once for each level of a forward pass."""
        if level not in self._seen:
            full = self.strategy == "full-integrative"
            self._seen[level] = self.auxiliary(self._hyper) if full else self.auxiliary(self._hyper, shape)
        return self._seen[level]

    def update(self, level: int, features: torch.Tensor) -> torch.Tensor:
        """Give what one step at a level adds to the velocity."""
        last = level == len(self.steps) - 1
        shifts: Sequence[torch.Tensor | float] = (0.0, 0.0, 0.0)
        if self.strategy == "full-integrative":
            shifts = self._auxiliary(0, ())[3 * level : 3 * level + 3]
        elif self.strategy == "pre-integrative":
            features = torch.cat([features, self._auxiliary(level, features.shape[2:])], dim=1)
        first, second, flow = self.levels[level]  # type: ignore[misc]
        x = F.leaky_relu(second(F.leaky_relu(first(features) + shifts[0], 0.2)) + shifts[1], 0.2)
        if self.strategy == "post-integrative" and last:
            x = torch.cat([x, self._auxiliary(level, x.shape[2:])], dim=1)
        out: torch.Tensor = flow(x) + shifts[2]
        return out

    def forward(  # type: ignore[override]
        self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor
    ) -> torch.Tensor:
        """Give the velocity of one pair, (1, 3, *spatial / 2), voxels, as :class:`UnrolledMatching` does."""
        self._hyper, self._seen = hyper, {}
        return super().forward(fixed, moving)


STRATEGIES = ("pre-integrative", "post-integrative", "full-integrative")

_UNETS: dict[str, type[RegistrationUNet]] = dict(
    zip(STRATEGIES, (PreIntegrative, PostIntegrative, FullIntegrative), strict=True)
)


def integrative_network(strategy: str, primary: str, **options: Any) -> nn.Module:
    """Make the network of a strategy, one of :data:`STRATEGIES`, upon ``unet`` or ``unrolled``."""
    if primary == "unrolled":
        return IntegrativeUnrolled(strategy, **options)
    return _UNETS[strategy](**options)
