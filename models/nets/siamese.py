"""A primary registration network that matches the features of one encoder by correlation and soft-argmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.warp import integrate, warp


def neighbour_offsets(radius: int) -> torch.Tensor:
    """Give every displacement of at most ``radius`` voxels along each axis, (N, 3).

    Examples
    --------
    >>> offsets = neighbour_offsets(1)
    >>> tuple(offsets.shape), offsets[13].tolist()
    ((27, 3), [0.0, 0.0, 0.0])
    """
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)


def local_correlation(fixed: torch.Tensor, moved: torch.Tensor, radius: int) -> torch.Tensor:
    """Correlate each voxel's features with those of the other image's voxels around it.

    Parameters
    ----------
    fixed, moved
        (B, C, *spatial) features of unit length along C.
    radius
        Half the side of the searched cube, voxels.

    Returns
    -------
    torch.Tensor
        (B, (2 radius + 1) ** 3, *spatial) in [-1, 1], in the order of :func:`neighbour_offsets`; beyond the
        border the edge counts.

    Examples
    --------
    >>> fixed = torch.ones(1, 1, 4, 5, 6)
    >>> tuple(local_correlation(fixed, fixed, 1).shape), local_correlation(fixed, fixed, 1).unique().tolist()
    ((1, 27, 4, 5, 6), [1.0])
    """
    padded = F.pad(moved, [radius] * 6, mode="replicate")
    x, y, z = fixed.shape[2:]
    found = []
    for i, j, k in (neighbour_offsets(radius) + radius).long().tolist():
        found.append((fixed * padded[:, :, i : i + x, j : j + y, k : k + z]).sum(dim=1))
    return torch.stack(found, dim=1)


def soft_argmax(correlation: torch.Tensor, radius: int, sharpness: torch.Tensor) -> torch.Tensor:
    """Give the mean displacement under the softmax of the correlations, and how sure it is.

    Parameters
    ----------
    correlation
        (B, (2 radius + 1) ** 3, *spatial) from :func:`local_correlation`.
    radius
        Half the side of the searched cube, voxels.
    sharpness
        Scalar: what the correlations are multiplied with.

    Returns
    -------
    torch.Tensor
        (B, 4, *spatial): displacement in voxels, and the largest probability.

    Examples
    --------
    >>> correlation = torch.zeros(1, 27, 2, 2, 2)
    >>> correlation[:, 22] = 1
    >>> soft_argmax(correlation, 1, torch.tensor(100.0))[0, :, 0, 0, 0].tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    share = (correlation * sharpness).softmax(dim=1)
    offsets = neighbour_offsets(radius).to(share)
    return torch.cat(
        [torch.einsum("bnxyz,nd->bdxyz", share, offsets), share.amax(dim=1, keepdim=True)], dim=1
    )


class SiameseMatching(nn.Module):
    """Velocity by matching the features of one shared encoder, coarse to fine.

    Both images pass through the same convolutions at each level of an image pyramid. From the coarsest level
    on, the moving image's features are warped by the velocity found so far and correlated with the fixed
    image's in a cube around each voxel; the soft-argmax of the correlations, its certainty, the fixed
    features and the velocity enter three convolutions whose output is added to the velocity. Matching is
    built in; what is learned is what to match and how to smooth.

    Parameters
    ----------
    channels
        Channels of the features and of the smoothing convolutions.
    levels
        Number of levels. Each is twice as coarse as the next; the finest is half the images' resolution.
    radius
        Half the side of the searched cube, voxels of each level.
    """

    def __init__(self, channels: int = 12, levels: int = 3, radius: int = 1) -> None:
        super().__init__()
        self.levels, self.radius = levels, radius
        self.encoder = nn.ModuleList(
            [nn.Conv3d(1, channels, 3, padding=1), nn.Conv3d(channels, channels, 3, padding=1)]
        )
        # one for all levels: what to match is learned from every level's error
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        self.smoothing = nn.ModuleList()
        for _ in range(levels):
            flow = nn.Conv3d(channels, 3, 3, padding=1)
            nn.init.normal_(flow.weight, std=1e-2)
            assert flow.bias is not None
            nn.init.zeros_(flow.bias)
            first = nn.Conv3d(channels + 7, channels, 3, padding=1)
            self.smoothing.append(nn.ModuleList([first, nn.Conv3d(channels, channels, 3, padding=1), flow]))

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        first, second = self.encoder
        x = second(F.leaky_relu(first(image), 0.2))
        x = F.instance_norm(x)
        return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-6)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Give the velocity.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial) in [0, 1], sides divisible by 2 ** levels.

        Returns
        -------
        torch.Tensor
            (B, 3, *spatial / 2), in voxels of that coarser grid.
        """
        velocity: torch.Tensor | None = None
        for level, layers in enumerate(self.smoothing):
            factor = 2 ** (self.levels - level)
            f, m = (self._features(F.avg_pool3d(image, factor)) for image in (fixed, moving))
            if velocity is None:
                velocity = f.new_zeros((f.shape[0], 3, *f.shape[2:]))
            else:
                velocity = 2 * F.interpolate(velocity, size=f.shape[2:], mode="trilinear")
                m = warp(m, integrate(velocity, steps=4))
            match = soft_argmax(local_correlation(f, m, self.radius), self.radius, self.sharpness)
            assert isinstance(layers, nn.ModuleList)
            first, second, flow = layers
            x = torch.cat([match, f, velocity], dim=1).contiguous(memory_format=torch.channels_last_3d)
            velocity = velocity + flow(F.leaky_relu(second(F.leaky_relu(first(x), 0.2)), 0.2))
        assert velocity is not None
        return velocity
