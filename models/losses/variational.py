"""The variational bound of a registration with a learnable prior, voxel by voxel (Czolbe et al. 2021).

The derivation of the exact sums and of the analytic prior is in ``docs/decisions/0009-topology-change.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def neighbour_count(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Give the number of face neighbours of every voxel of a grid, (*shape): the Laplacian's diagonal.

    Examples
    --------
    >>> neighbour_count((3, 2), torch.zeros(())).tolist()
    [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0]]
    """
    count = like.new_zeros(tuple(shape))
    for axis, size in enumerate(shape):
        if size > 1:
            count += 2
            count.select(axis, 0).sub_(1)
            count.select(axis, size - 1).sub_(1)
    return count


def neighbour_differences(field: torch.Tensor) -> torch.Tensor:
    """Give the sum over a voxel's face neighbours of squared differences to it, component by component.

    Each pair of neighbours counts at both of its voxels: the sum over the grid is twice the quadratic form
    of the graph Laplacian.

    Parameters
    ----------
    field
        (B, D, *spatial).

    Returns
    -------
    torch.Tensor
        (B, D, *spatial).

    Examples
    --------
    >>> neighbour_differences(torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 3)).flatten().tolist()
    [1.0, 5.0, 4.0]
    """
    total = torch.zeros_like(field)
    for axis in range(2, field.ndim):
        size = field.shape[axis]
        if size < 2:
            continue
        square = field.diff(dim=axis).square()
        pad = [0, 0] * (field.ndim - 1 - axis)
        total = total + torch.nn.functional.pad(square, [*pad, 1, 0])
        total = total + torch.nn.functional.pad(square, [*pad, 0, 1])
    return total


def log_pseudo_determinant(shape: Sequence[int]) -> float:
    """Give the log of the product of the non-zero eigenvalues of a grid graph's Laplacian.

    The grid is a product of paths, so its eigenvalues are sums of ``2 - 2 cos(pi i / n)``.

    Examples
    --------
    >>> round(math.exp(log_pseudo_determinant((2, 2))), 6)  # 2 * 2 * 4
    16.0
    """
    total = torch.zeros((1,) * len(shape), dtype=torch.float64)
    for axis, size in enumerate(shape):
        own = 2 - 2 * torch.cos(torch.pi * torch.arange(size, dtype=torch.float64) / size)
        total = total + own.view([-1 if a == axis else 1 for a in range(len(shape))])
    return float(total.flatten()[1:].log().sum())


def prior_moments(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Give the reciprocals of the analytic alpha and beta of a batch.

    The Kullback-Leibler divergence is least where ``alpha = (n - 1) D / A`` and ``beta = D / B``, with A the
    expected roughness and B the expected squared translation under the posterior.

    Parameters
    ----------
    mean, log_variance
        (B, D, *spatial), displacement in voxels.

    Returns
    -------
    torch.Tensor
        (2,): the batch's means of A / ((n - 1) D) and B / D.

    Examples
    --------
    >>> flat = torch.full((1, 2, 4, 5), 0.5)
    >>> [round(float(m), 3) for m in prior_moments(flat, torch.full((1, 2, 4, 5), -20.0))]
    [0.0, 0.25]
    """
    dims, n = mean.shape[1], mean[0, 0].numel()
    variance = log_variance.exp()
    count = neighbour_count(mean.shape[2:], mean)
    rough = (count * variance).flatten(1).sum(1) + neighbour_differences(mean).flatten(1).sum(1) / 2
    shift = (variance.flatten(2).mean(2) / n + mean.flatten(2).mean(2).square()).sum(1)
    return torch.stack([rough.mean() / ((n - 1) * dims), shift.mean() / dims])


def divergence_map(
    mean: torch.Tensor, log_variance: torch.Tensor, alpha: torch.Tensor | float, beta: torch.Tensor | float
) -> torch.Tensor:
    """Give each voxel's share of KL(q || p), without what no displacement changes (eq. 5, halved).

    The sum over voxels plus :func:`divergence_constant` is the divergence exactly. Every pair of neighbours
    is counted once in the sum, half of it at each of the two voxels; as printed, eq. 5 and 6 count it twice.

    Parameters
    ----------
    mean, log_variance
        (B, D, *spatial) of the posterior, voxels.
    alpha, beta
        The prior's precision: roughness and translation.

    Returns
    -------
    torch.Tensor
        (B, 1, *spatial), nats.

    Examples
    --------
    >>> divergence_map(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 1.0, 0.0)[0, 0, 1, 1].item()
    4.0
    """
    n = mean[0, 0].numel()
    count = neighbour_count(mean.shape[2:], mean)
    translation = mean.flatten(2).mean(2).view(*mean.shape[:2], *[1] * (mean.ndim - 2))
    terms = (
        -log_variance
        + (alpha * count + beta / n**2) * log_variance.exp()
        + alpha / 2 * neighbour_differences(mean)
        + beta / n * translation * mean
    )
    return terms.sum(dim=1, keepdim=True) / 2


def divergence_constant(shape: Sequence[int], alpha: float, beta: float) -> float:
    """Give what :func:`divergence_map` leaves out of KL(q || p): the prior's normalisation.

    Parameters
    ----------
    shape
        Grid; the displacement has as many components as it has axes.
    alpha, beta
        The prior's precision.

    Examples
    --------
    >>> round(divergence_constant((2, 2), 1.0, 1.0), 4)  # -4 - log 16 + log 4, for D = 2 halved twice
    -5.3863
    """
    n = math.prod(shape)
    normal = -(n - 1) * math.log(alpha) - math.log(beta) - log_pseudo_determinant(shape) + math.log(n) - n
    return len(shape) * normal / 2


def surprise_map(difference: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Give -log N(difference; 0, diag(variance)) of every voxel (eq. 3).

    Parameters
    ----------
    difference
        (B, F, *spatial), features of one image less the moved ones of the other.
    log_variance
        (F,) of the diagonal covariance.

    Returns
    -------
    torch.Tensor
        (B, 1, *spatial), nats.

    Examples
    --------
    >>> round(surprise_map(torch.zeros(1, 2, 3, 3), torch.zeros(2))[0, 0, 0, 0].item(), 4)  # log(2 pi)
    1.8379
    """
    log_variance = log_variance.view(1, -1, *[1] * (difference.ndim - 2))
    square = difference.square() * torch.exp(-log_variance)
    return (square + log_variance + math.log(2 * math.pi)).sum(dim=1, keepdim=True) / 2
