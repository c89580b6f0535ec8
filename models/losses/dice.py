"""Soft overlap losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def soft_dice(prediction: torch.Tensor, target: torch.Tensor, *, eps: float = 1.0) -> torch.Tensor:
    """Give the soft Dice coefficient of each channel (HyperMorph eq. 6; CoNeMOS eq. 4).

    Parameters
    ----------
    prediction, target
        (B, C, *spatial) in [0, 1].
    eps
        Keeps channels that are empty in both at 1; in voxels.

    Returns
    -------
    torch.Tensor
        (B, C).

    Examples
    --------
    >>> soft_dice(torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)).item()
    1.0
    """
    p, q = prediction.flatten(2), target.flatten(2)
    overlap = torch.einsum("bcv,bcv->bc", p, q)
    sizes = torch.einsum("bcv,bcv->bc", p, p) + torch.einsum("bcv,bcv->bc", q, q)
    return (2 * overlap + eps) / (sizes + eps)


def exclusive_loss(
    logits: torch.Tensor, target: torch.Tensor, *, cross_entropy: float = 1.0, eps: float = 1.0
) -> torch.Tensor:
    """Give 1 - mean soft Dice of the softmax, plus cross-entropy: each voxel has exactly one label.

    Parameters
    ----------
    logits
        (N, C): channel 0 is the background, which the mean over channels leaves out.
    target
        (N,) int64, 0 <= target < C.
    cross_entropy
        Weight of the cross-entropy.
    eps
        Keeps channels that are empty in both at a Dice of 1; in voxels.

    Returns
    -------
    torch.Tensor
        Scalar, lower is better.

    Examples
    --------
    >>> exclusive_loss(torch.tensor([[20.0, -20.0], [-20.0, 20.0]]), torch.tensor([0, 1])).item() < 1e-6
    True
    """
    log_probability = F.log_softmax(logits, dim=1)
    at_target = log_probability.gather(1, target[:, None])[:, 0]
    counts = torch.bincount(target, minlength=logits.shape[1]).to(logits.dtype)
    overlap = torch.zeros_like(counts).index_add(0, target, at_target.exp())
    dice = (2 * overlap + eps) / (log_probability.exp().square().sum(dim=0) + counts + eps)
    return 1 - dice[1:].mean() - cross_entropy * at_target.mean()


def region_loss(logits: torch.Tensor, target: torch.Tensor, *, cross_entropy: float = 1.0) -> torch.Tensor:
    """Give 1 - mean soft Dice of the sigmoid, plus cross-entropy, for regions that may overlap or be nested.

    Parameters
    ----------
    logits, target
        (N, R), target 0/1.
    cross_entropy
        Weight of the cross-entropy.

    Returns
    -------
    torch.Tensor
        Scalar, lower is better.

    Examples
    --------
    >>> target = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    >>> region_loss(40 * target - 20, target).item() < 1e-6
    True
    """
    probability = torch.sigmoid(logits)
    sizes = probability.square().sum(0) + target.sum(0)
    dice = (2 * (probability * target).sum(0) + 1) / (sizes + 1)
    return 1 - dice.mean() + cross_entropy * F.binary_cross_entropy_with_logits(logits, target)
