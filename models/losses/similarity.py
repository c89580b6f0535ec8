"""Image similarity."""

from __future__ import annotations

import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.nn.box import local_statistics

SIMILARITIES = ("ncc", "mse", "mi")
"""Names of the similarities that a registration can be trained with."""


def local_ncc(
    fixed: torch.Tensor,
    moved: torch.Tensor,
    *,
    window: int = 9,
    eps: float = 1e-5,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Give the mean squared local correlation, in [0, 1] (HyperMorph section 3.1; Avants et al. 2008).

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial) in [0, 1].
    window
        Side of the cube in voxels.
    eps
        Variance product below which a window says nothing.
    mask
        (B, 1, *spatial): where the mean is taken; everywhere when not given.

    Returns
    -------
    torch.Tensor
        Scalar, higher is better.

    Examples
    --------
    >>> image = torch.arange(7 * 8 * 9).view(1, 1, 7, 8, 9) % 5 / 5
    >>> inner = torch.nn.functional.pad(torch.ones(1, 1, 5, 6, 7), [1] * 6)
    >>> round(local_ncc(image, 1 - image, window=3, mask=inner).item(), 2)
    1.0
    """
    _, _, cross, var_f, var_m = local_statistics(fixed, moved, window)
    squared = cross * cross / (var_f * var_m + eps)
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / mask.sum().clamp_min(1)


def mean_squared_error(fixed: torch.Tensor, moved: torch.Tensor, *, sigma: float = 0.05) -> torch.Tensor:
    """Give the mean squared difference over sigma squared (HyperMorph eq. 3 with MSE, sigma 0.05).

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial) in [0, 1].
    sigma
        Standard deviation of the noise, in the images' unit.

    Returns
    -------
    torch.Tensor
        Scalar, lower is better.

    Examples
    --------
    >>> round(mean_squared_error(torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), 0.1)).item(), 4)
    4.0
    """
    return (fixed - moved).square().mean() / sigma**2


def mutual_information(
    fixed: torch.Tensor, moved: torch.Tensor, *, bins: int = 32, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Give the mutual information of two images in nats (HyperMorph section 3.1; Viola and Wells 1997).

    Each voxel enters the joint histogram through triangular Parzen windows one bin wide on either side, so it
    counts in two neighbouring bins per image and the histogram is differentiable in the intensities.

    Parameters
    ----------
    fixed, moved
        (B, 1, *spatial) in [0, 1]; values outside count as the nearest end.
    bins
        Number of bins per image; the first lies at 0 and the last at 1.
    mask
        (B, 1, *spatial) weight of each voxel; all count alike when not given.

    Returns
    -------
    torch.Tensor
        Scalar in [0, log(bins)], higher is better; the histogram is that of the whole batch.

    Examples
    --------
    >>> image = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 4, 1, 1)
    >>> round(mutual_information(image, 1 - image).item(), 4)
    0.6931
    """
    first = [_bin_shares(image.flatten(), bins) for image in (fixed, moved)]
    weight = torch.ones_like(fixed).flatten() if mask is None else mask.flatten().to(fixed.dtype)
    joint = fixed.new_zeros(bins * bins)
    for i, share_f in first[0]:
        for j, share_m in first[1]:
            joint = joint.index_add(0, i * bins + j, weight * share_f * share_m)
    joint = joint.view(bins, bins) / weight.sum().clamp_min(1e-6)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    tiny = torch.finfo(joint.dtype).tiny
    return (joint * (joint.clamp_min(tiny).log() - independent.clamp_min(tiny).log())).sum()


def _bin_shares(values: torch.Tensor, bins: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Give the two bins on either side of each value (N,) and its share in them."""
    place = values.clamp(0, 1) * (bins - 1)
    low = place.detach().floor().clamp(max=bins - 2)
    above = place - low
    index = low.long()
    return [(index, 1 - above), (index + 1, above)]


def similarity_loss(
    name: str,
    fixed: torch.Tensor,
    moved: torch.Tensor,
    *,
    window: int = 5,
    sigma: float = 0.05,
    bins: int = 32,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Give the similarity term L_sim of HyperMorph eq. 3 and 5 by name.

    Parameters
    ----------
    name
        ``"ncc"``: 1 - local correlation; ``"mse"``: mean squared difference over sigma squared, of the whole
        image; ``"mi"``: minus the mutual information.
    fixed, moved
        (B, 1, *spatial) in [0, 1].
    window, sigma, bins
        Window of the local correlation in voxels, noise of the squared difference, bins of the mutual
        information.
    mask
        (B, 1, *spatial): where correlation and mutual information are measured.

    Returns
    -------
    torch.Tensor
        Scalar, lower is better.

    Raises
    ------
    UsageError
        When the name is not known.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 2, 2, 2)
    >>> round(similarity_loss("mse", image, image + 0.05).item(), 4)
    1.0
    """
    if name == "ncc":
        return 1 - local_ncc(fixed, moved, window=window, mask=mask)
    if name == "mse":
        return mean_squared_error(fixed, moved, sigma=sigma)
    if name == "mi":
        return -mutual_information(fixed, moved, bins=bins, mask=mask)
    raise UsageError(f"Unknown similarity {name!r}; use one of {', '.join(SIMILARITIES)}.")
