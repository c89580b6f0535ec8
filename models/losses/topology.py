"""The bound of a topology network on a pair of images: training loss and map (Czolbe et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from hyperprep.models.losses.variational import divergence_map, prior_moments, surprise_map
from hyperprep.models.nets.topology import Features, Posterior, TopologyNetwork
from hyperprep.models.nn.warp import warp


def brain_union(fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Give where either brain is, (B, 1, *spatial) 0/1, the moving one at its registered place.

    Parameters
    ----------
    fixed, moving
        (B, 1, *spatial), zero outside the brain.
    displacement
        (B, D, *spatial), voxels, fixed to moving.
    """
    moved = warp((moving > 0).to(fixed.dtype), displacement.detach())
    return ((fixed > 0) | (moved > 0.5)).to(fixed.dtype)


def differences(fixed: Features, moving: Features, displacement: torch.Tensor) -> Features:
    """Give the features of the fixed image less the moved ones of the other, stage by stage.

    Each stage is compared at its own resolution, where it costs 8 or 64 times less.

    Parameters
    ----------
    fixed, moving
        (B, F_s, *spatial / 2^s) of each stage s.
    displacement
        (B, D, *spatial), voxels of the finest stage, fixed to moving.

    Examples
    --------
    >>> one = [torch.arange(8.0).view(1, 1, 2, 4)]
    >>> differences(one, one, torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 4))[0][0, 0, 0, :3]
    tensor([-1., -1., -1.])
    """
    pool: Callable[..., torch.Tensor] = F.avg_pool3d if displacement.ndim == 5 else F.avg_pool2d
    return [
        one - warp(other, pool(displacement, 2**level) / 2**level if level else displacement)
        for level, (one, other) in enumerate(zip(fixed, moving, strict=True))
    ]


def surprise(network: TopologyNetwork, found: Features) -> torch.Tensor:
    """Give -log p(J | I o Phi) of every voxel (eq. 3), (B, 1, *spatial) nats, from features' differences.

    What a stage gives holds for all voxels inside its own. ``found`` is what :func:`differences` gives.

    Examples
    --------
    >>> network = TopologyNetwork(2, (4, 4), "none")
    >>> round(float(surprise(network, [torch.ones(1, 1, 2, 2)]).mean()), 4)  # (1 + log(2 pi)) / 2
    1.4189
    """
    variances = network.feature_log_variance.split(list(network.widths))
    maps = [surprise_map(stage, variance) for stage, variance in zip(found, variances, strict=True)]
    total = torch.stack(
        [
            F.interpolate(m, scale_factor=2**level, mode="nearest") if level else m
            for level, m in enumerate(maps)
        ]
    ).sum(0)
    return total / sum(network.widths) if network.reduction == "mean" else total


@torch.no_grad()
def feature_variances(found: Features, mask: torch.Tensor) -> torch.Tensor:
    """Give the diagonal covariance at which a batch's likelihood is largest: mean squares inside a mask.

    Parameters
    ----------
    found
        (B, F_s, *spatial / 2^s) of each stage s from :func:`differences`.
    mask
        (B, 1, *spatial) 0/1.

    Returns
    -------
    torch.Tensor
        (F,), of all stages.

    Examples
    --------
    >>> feature_variances([torch.full((1, 2, 4, 4), 3.0)], torch.ones(1, 1, 4, 4)).tolist()
    [9.0, 9.0]
    """
    out = []
    for stage in found:
        inside = F.interpolate(mask, size=stage.shape[2:], mode="area")
        square = (stage.square() * inside).sum(dim=(0, *range(2, stage.ndim)))
        out.append(square / inside.sum().clamp_min(1))
    return torch.cat(out)


def score(
    network: TopologyNetwork, fixed: Features, moving: Features, found: Posterior, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give both parts of L(J | I) of every voxel (eq. 6) at the posterior's mean, J being fixed.

    Parameters
    ----------
    fixed, moving
        Features of the two images.
    found
        Posterior of the displacement from fixed to moving.
    mask
        (B, 1, *spatial) 0/1: where the likelihood counts.

    Returns
    -------
    tuple of torch.Tensor
        Misfit of the features and improbability of the displacement, (B, 1, *spatial), nats.
    """
    misfit = surprise(network, differences(fixed, moving, found.mean)) * mask
    return misfit, divergence_map(found.mean, found.log_variance, network.alpha, network.beta)


def bound(
    network: TopologyNetwork, fixed: Features, moving: Features, found: Posterior, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give the two parts of the training loss, nats per voxel of the mask, and what the batch says of both.

    The prior is the batch's own analytic one; the loss' gradient is the same whether or not it is held
    fixed, for it is stationary in it. The features' variances are the running ones.

    Returns
    -------
    tuple of torch.Tensor
        Misfit and divergence; the batch's prior moments (2,) and its features' variances (F,).
    """
    moments = prior_moments(found.mean, found.log_variance).detach().clamp_min(1e-12)
    counted = mask.sum().clamp_min(1)
    left = differences(fixed, moving, found.draw())
    misfit = (surprise(network, left) * mask).sum() / counted
    each = divergence_map(found.mean, found.log_variance, 1 / moments[0], 1 / moments[1])
    n, pairs = found.mean[0, 0].numel(), len(found.mean)
    normal = ((n - 1) * moments[0].log() + moments[1].log()) * pairs * network.dims / 2 / counted
    return misfit, each.sum() / counted + normal, moments, feature_variances(left, mask)


def symmetric_score(score: torch.Tensor, other: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Give L_sym(J | I) = L(J | I) + L(I | J) o Phi, on the grid of J (section 3).

    Parameters
    ----------
    score, other
        (B, 1, *spatial) L(J | I) on the grid of J, and L(I | J) on that of I.
    displacement
        (B, D, *spatial), voxels: Phi, from points of J to points of I.

    Examples
    --------
    >>> shift = torch.ones(1, 2, 3, 3)
    >>> symmetric_score(torch.ones(1, 1, 3, 3), torch.arange(9.0).view(1, 1, 3, 3), shift)[0, 0, 0, 0].item()
    5.0
    """
    return score + warp(other, displacement)
