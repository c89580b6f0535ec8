"""A primary registration network with matching built in: learned steps along the correlation's force."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.box import local_statistics
from hyperprep.models.nn.warp import integrate, warp


def correlation_force(
    fixed: torch.Tensor, moved: torch.Tensor, *, window: int, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the direction in which each voxel of the moved image must go for the local correlation to grow.

    The derivative of the squared local correlation with respect to the moved intensity, times the moved
    image's gradient (Avants et al. 2008, eq. 6), squashed to (-1, 1) per component.

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial) in [0, 1].
    window
        Side of the correlation window in voxels.
    eps
        Variance product below which a window says nothing.

    Returns
    -------
    tuple of torch.Tensor
        Force (B, 3, *spatial) and squared correlation (B, 1, *spatial).

    Examples
    --------
    >>> dark, bright = torch.zeros(1, 1, 4, 5, 6), torch.ones(1, 1, 4, 5, 6)
    >>> force, correlation = correlation_force(dark, bright, window=3)
    >>> tuple(force.shape), force.abs().max().item(), tuple(correlation.shape)
    ((1, 3, 4, 5, 6), 0.0, (1, 1, 4, 5, 6))
    """
    mean_f, mean_m, cross, var_f, var_m = local_statistics(fixed, moved, window)
    below = var_f * var_m + eps
    derivative = 2 * cross / below * ((fixed - mean_f) - cross / (var_m + eps**0.5) * (moved - mean_m))
    padded = F.pad(moved, (1, 1, 1, 1, 1, 1), mode="replicate")
    slopes = (
        torch.cat(
            [
                padded[:, :, 2:, 1:-1, 1:-1] - padded[:, :, :-2, 1:-1, 1:-1],
                padded[:, :, 1:-1, 2:, 1:-1] - padded[:, :, 1:-1, :-2, 1:-1],
                padded[:, :, 1:-1, 1:-1, 2:] - padded[:, :, 1:-1, 1:-1, :-2],
            ],
            dim=1,
        )
        / 2
    )
    force = derivative * slopes
    return force / (0.3 + force.abs()), cross * cross / below


class UnrolledMatching(nn.Module):
    """Velocity by learned steps, coarse to fine, each of which sees the force of the local correlation.

    At each level the moving image is warped by the velocity found so far; force and correlation at that
    alignment and both images enter three 3 x 3 x 3 convolutions (one set per level) whose output is added to
    the velocity.

    Parameters
    ----------
    channels
        Channels of the convolutions.
    steps
        Steps at each level, coarsest first. Levels are twice as coarse each; the finest is half the images'
        resolution.
    window
        Side of the correlation window in voxels of each level.
    """

    def __init__(self, channels: int = 16, steps: Sequence[int] = (3, 3), window: int = 5) -> None:
        super().__init__()
        self.steps, self.window = tuple(steps), window
        self.levels = nn.ModuleList()
        for _ in self.steps:
            flow = nn.Conv3d(channels, 3, 3, padding=1)
            nn.init.normal_(flow.weight, std=1e-2)
            assert flow.bias is not None
            nn.init.zeros_(flow.bias)
            self.levels.append(
                nn.ModuleList(
                    [nn.Conv3d(9, channels, 3, padding=1), nn.Conv3d(channels, channels, 3, padding=1), flow]
                )
            )

    def update(self, level: int, features: torch.Tensor) -> torch.Tensor:
        """Give what one step at a level (0: the coarsest) adds to the velocity.

        Parameters
        ----------
        level
            Position in :attr:`steps`.
        features
            (B, 9, *spatial): force, correlation, fixed and moved image, velocity.
        """
        layers = self.levels[level]
        assert isinstance(layers, nn.ModuleList)
        first, second, flow = layers
        out: torch.Tensor = flow(F.leaky_relu(second(F.leaky_relu(first(features), 0.2)), 0.2))
        return out

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Give the velocity.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial) in [0, 1], sides divisible by 2 ** number of levels.

        Returns
        -------
        torch.Tensor
            (B, 3, *spatial / 2), in voxels of that coarser grid.
        """
        velocity: torch.Tensor | None = None
        for level, count in enumerate(self.steps):
            factor = 2 ** (len(self.steps) - level)
            f, m = F.avg_pool3d(fixed, factor), F.avg_pool3d(moving, factor)
            if velocity is None:
                velocity = f.new_zeros((f.shape[0], 3, *f.shape[2:]))
            elif velocity.shape[2:] != f.shape[2:]:
                velocity = 2 * F.interpolate(velocity, size=f.shape[2:], mode="trilinear")
            for _ in range(count):
                moved = warp(m, integrate(velocity, steps=4))
                force, correlation = correlation_force(f, moved, window=self.window)
                x = torch.cat([force, correlation, f, moved, velocity], dim=1).contiguous(
                    memory_format=torch.channels_last_3d
                )
                velocity = velocity + self.update(level, x)
        assert velocity is not None
        return velocity
