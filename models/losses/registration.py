"""How the terms of a registration's loss are weighed by its hyperparameters."""

from __future__ import annotations

import torch


def weighted_loss(
    similarity: torch.Tensor,
    regularity: torch.Tensor,
    overlap: torch.Tensor,
    *,
    lam: torch.Tensor | float,
    gamma: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Give (1 - lambda)(1 - gamma) L_sim + lambda L_reg + gamma L_seg (HyperMorph eq. 5; eq. 3 at gamma 0).

    Parameters
    ----------
    similarity, regularity, overlap
        L_sim, L_reg and L_seg: scalars, lower is better.
    lam, gamma
        Weights of regularity and of label overlap in [0, 1].

    Returns
    -------
    torch.Tensor
        Scalar.

    Examples
    --------
    >>> terms = [torch.tensor(value) for value in (8.0, 4.0, 2.0)]
    >>> weighted_loss(*terms, lam=0.5).item(), weighted_loss(*terms, lam=0.5, gamma=0.25).item()
    (6.0, 5.5)
    """
    return (1 - lam) * (1 - gamma) * similarity + lam * regularity + gamma * overlap
