"""Intensity distributions of tissues, estimated from one image and the prior of each tissue."""

from __future__ import annotations

import torch
import torch.nn.functional as F

BINS = 64
"""Bins of the tissues' intensity distributions in every network."""

_FLOOR = 0.02
"""Share of each distribution that is spread over all intensities."""


def intensity_bins(values: torch.Tensor, bins: int) -> torch.Tensor:
    """Give the bin of each value in [0, 1]; other values fall into the first or last.

    Examples
    --------
    >>> intensity_bins(torch.tensor([0.0, 0.49, 0.51, 1.0]), 2).tolist()
    [0, 0, 1, 1]
    """
    return (values * bins).long().clamp_(0, bins - 1)


@torch.no_grad()
def log_likelihoods(
    values: torch.Tensor, prior: torch.Tensor, *, bins: int = BINS, width: float = 1.5, iterations: int = 5
) -> torch.Tensor:
    """Estimate how likely each intensity is in each class, by expectation maximisation.

    Distributions are smoothed histograms, so a class may have any shape of distribution and the image any
    contrast; only the classes' places are assumed (Ashburner and Friston 2005, Unified segmentation, with
    histograms in place of Gaussian mixtures).

    Parameters
    ----------
    values
        (N,) intensities in [0, 1].
    prior
        (N, G) probability of each class at each value's place; rows sum to 1.
    bins, width
        Number of histogram bins, and standard deviation of their smoothing in bins.
    iterations
        Steps of expectation maximisation.

    Returns
    -------
    torch.Tensor
        (bins, G) log-probability of each bin in each class.

    Examples
    --------
    >>> values = torch.tensor([0.1] * 50 + [0.9] * 50)
    >>> prior = torch.tensor([[0.6, 0.4]] * 50 + [[0.4, 0.6]] * 50)
    >>> table = log_likelihoods(values, prior, bins=8)
    >>> bool(table[0, 0] > table[0, 1] + 1), bool(table[7, 1] > table[7, 0] + 1)
    (True, True)
    """
    place = intensity_bins(values, bins)
    reach = int(3 * width) + 1
    steps = torch.arange(-reach, reach + 1, device=values.device, dtype=prior.dtype)
    kernel = torch.exp(-0.5 * (steps / width) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    posterior = prior
    table = torch.zeros(bins, prior.shape[1], device=values.device, dtype=prior.dtype)
    for _ in range(iterations):
        counts = torch.zeros_like(table).index_add_(0, place, posterior)
        smooth = F.conv1d(F.pad(counts.T[:, None], (reach, reach), mode="replicate"), kernel)[:, 0].T
        share = smooth / smooth.sum(0).clamp_min(1e-6)
        table = ((1 - _FLOOR) * share + _FLOOR / bins).log()
        joint = prior * table[place].exp()
        posterior = joint / joint.sum(1, keepdim=True).clamp_min(1e-12)
    return table
