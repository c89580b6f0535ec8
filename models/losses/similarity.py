"""Image similarity."""

from __future__ import annotations

import torch

from hyperprep.models.nn.box import local_statistics


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
