"""Registration as a conditional variational auto-encoder, whose bound says where no match exists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.norm import InstanceNorm
from hyperprep.models.nn.warp import compose, warp

STAGES = 3
"""Stages of the segmentation network whose features are compared (section 4.2)."""

LOG_VARIANCE_RANGE = (-15.0, 5.0)
"""Limits of the displacement's log variance (voxels squared)."""

PRIOR_MOMENTUM, VARIANCE_MOMENTUM = 0.01, 0.05
"""Shares by which a training step moves the running prior and the features' running variances."""

LEAST_VARIANCE = 1e-6
"""A feature that hardly varies among healthy heads has this variance (features lie in [0, 1] or about)."""

Features = list[torch.Tensor]
"""(B, F_s, *spatial / 2^s) of each stage s; the first has the image's resolution."""


class Describing(Protocol):
    """A network whose features are compared: it segments, or tells tissues apart; without pathology."""

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Features of each stage, finest first."""
        ...

    @property
    def divisor(self) -> int:
        """What each side of the image must be divisible by."""
        ...

    def stages(self, image: torch.Tensor, count: int | None = None) -> Features:
        """Give the features of an image."""
        ...


def _stage(dims: int, n_in: int, n_out: int, norm: str) -> nn.Sequential:
    """Make a stage: normalisation, convolution, LeakyReLU (section 4.2)."""
    convolution, batch = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
    first = {"batch": batch, "instance": InstanceNorm, "none": nn.Identity}[norm]
    return nn.Sequential(first(n_in), convolution(n_in, n_out, 3, padding=1), nn.LeakyReLU(0.2))


class DisplacementUNet(nn.Module):
    """U-Net from two images to mean and log variance of a displacement: q(Phi | I, J).

    Parameters
    ----------
    dims
        2 or 3 spatial axes.
    channels
        Channels of the encoder's stages, finest first, each half as fine as the one before; the decoder has
        the same.
    norm
        ``"batch"`` as the paper, ``"instance"`` for steps of one pair (not at full resolution, where half of
        a step's time would go into it), or ``"none"``.
    """

    def __init__(self, dims: int = 3, channels: Sequence[int] = (64, 128, 256), norm: str = "batch") -> None:
        super().__init__()
        self.dims = dims
        finest = "none" if norm == "instance" else norm
        self.down = nn.ModuleList([_stage(dims, 2, channels[0], finest)])
        for before, after in itertools.pairwise(channels):
            self.down.append(_stage(dims, before, after, norm))
        self.up = nn.ModuleList([_stage(dims, channels[-1], channels[-1], norm)])
        for level in range(len(channels) - 2, -1, -1):
            before, after = channels[level + 1], channels[level]
            self.up.append(_stage(dims, before + after, after, norm if level else finest))
        head = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.mean, self.log_variance = (head(channels[0], dims, 3, padding=1) for _ in range(2))
        for one in (self.mean, self.log_variance):
            nn.init.normal_(one.weight, std=1e-3)
            assert one.bias is not None
            nn.init.zeros_(one.bias)
        assert self.log_variance.bias is not None
        nn.init.constant_(self.log_variance.bias, -4.0)

    @property
    def divisor(self) -> int:
        """What each side of the images must be divisible by."""
        return int(2 ** (len(self.down) - 1))

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give mean and log variance, (B, D, *spatial) each, voxels, of the map from fixed to moving.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial) in [0, 1], sides divisible by :attr:`divisor`.
        """
        x, skips = torch.cat([fixed, moving], dim=1), []
        if self.dims == 3 and x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last_3d)
        for level, stage in enumerate(self.down):
            if level:
                x = F.max_pool3d(x, 2) if self.dims == 3 else F.max_pool2d(x, 2)
            x = stage(x)
            skips.append(x)
        x = self.up[0](x)
        for stage, skip in zip(list(self.up)[1:], skips[-2::-1], strict=True):
            x = stage(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1))
        return self.mean(x), self.log_variance(x).clamp(*LOG_VARIANCE_RANGE)


@dataclass(frozen=True)
class Posterior:
    """Belief about a displacement: mean and log variance, (B, D, *spatial), voxels, fixed to moving."""

    mean: torch.Tensor
    log_variance: torch.Tensor

    def draw(self) -> torch.Tensor:
        """Draw a displacement (reparametrised)."""
        return self.mean + torch.randn_like(self.mean) * (self.log_variance / 2).exp()


class TopologyNetwork(nn.Module):
    """Posterior, learnable prior and likelihood in feature space: all that a voxel's bound needs.

    The bound itself is in :mod:`hyperprep.models.losses.topology`.

    Parameters
    ----------
    dims, channels, norm
        Of the :class:`DisplacementUNet`.
    features
        A module that is :class:`Describing`, of which the first :data:`STAGES` stages are compared; its
        weights stay as they are. Without it, the images themselves are compared (the paper's MSE variant).
    reduction
        ``"sum"``: the features' log-densities are added, as eq. 3 has it; ``"mean"``: averaged, for
        neighbouring features say much the same and are no independent evidence.
    """

    running: torch.Tensor
    feature_log_variance: torch.Tensor

    def __init__(
        self,
        dims: int = 3,
        channels: Sequence[int] = (64, 128, 256),
        norm: str = "batch",
        features: nn.Module | None = None,
        reduction: str = "sum",
    ) -> None:
        super().__init__()
        self.dims, self.reduction = dims, reduction
        self.posterior_network = DisplacementUNet(dims, channels, norm)
        self.features = None if features is None else features.requires_grad_(False)
        widths = (1,) if features is None else self._describing.stage_channels[:STAGES]
        self.widths = tuple(widths)
        self.register_buffer("feature_log_variance", torch.zeros(sum(self.widths)))
        self.register_buffer("running", torch.zeros(2))

    @property
    def divisor(self) -> int:
        """What each side of the images must be divisible by."""
        own = self.posterior_network.divisor
        return own if self.features is None else max(own, int(self._describing.divisor))

    @property
    def _describing(self) -> Describing:
        return cast(Describing, self.features)

    @property
    def alpha(self) -> torch.Tensor:
        """Precision of neighbouring displacements' differences, from the running mean, per voxel squared."""
        return torch.exp(-self.running[0])

    @property
    def beta(self) -> torch.Tensor:
        """Precision of the mean displacement, from the running mean, per voxel squared."""
        return torch.exp(-self.running[1])

    @torch.no_grad()
    def follow(self, moments: torch.Tensor, variances: torch.Tensor, *, first: bool = False) -> None:
        """Move the running prior and variances towards a batch's, where its bound is best.

        What is averaged are the moments themselves: 1 / alpha, 1 / beta and the variances. A batch whose
        moments are not finite is left out.

        Parameters
        ----------
        moments
            (2,) from :func:`hyperprep.models.losses.variational.prior_moments`.
        variances
            (F,) from :func:`hyperprep.models.losses.topology.feature_variances`.
        first
            Take the prior's moments as they are.
        """
        if not (moments.isfinite().all() and variances.isfinite().all()):
            return
        prior = torch.lerp(self.running.exp(), moments, 1.0 if first else PRIOR_MOMENTUM)
        self.running.copy_(prior.clamp_min(1e-12).log())
        spread = torch.lerp(self.feature_log_variance.exp(), variances, VARIANCE_MOMENTUM)
        self.feature_log_variance.copy_(spread.clamp_min(LEAST_VARIANCE).log())

    @torch.no_grad()
    def describe(self, image: torch.Tensor) -> Features:
        """Give the features of volumes (B, 1, *spatial): stages of the segmentation network, or the image.

        A 2-D network compares slices of volumes, whose features are made of the whole volume too.
        """
        if self.features is None:
            return [image]
        self.features.eval()
        return self._describing.stages(image, STAGES)

    def posterior(
        self, fixed: torch.Tensor, moving: torch.Tensor, start: torch.Tensor | None = None
    ) -> Posterior:
        """Give the posterior of the displacement.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial) in [0, 1].
        start
            (B, D, *spatial), voxels: a registration to start from; the network adds what it leaves open.
        """
        if start is None:
            return Posterior(*self.posterior_network(fixed, moving))
        mean, log_variance = self.posterior_network(fixed, warp(moving, start))
        return Posterior(compose(mean, start), log_variance)
