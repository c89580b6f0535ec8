"""Instance refinement: a few optimiser steps on one pair, starting from a velocity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.losses.regularity import gradient_energy
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nn.warp import integrate, warp


@dataclass(frozen=True)
class RefineSettings:
    """How a pair is refined.

    Attributes
    ----------
    steps
        Optimiser steps with images at 4 mm, then at 2 mm; the velocity stays at 4 mm.
    rates
        Step sizes of Adam at each of them, voxels.
    window
        Window of the local correlation, voxels.
    label_weight
        Weight of the label overlap beside the correlation, where labels of both images are given.
    squarings
        Squarings of the integration.
    """

    steps: tuple[int, int] = (30, 20)
    rates: tuple[float, float] = (0.1, 0.05)
    window: int = 5
    label_weight: float = 0.0
    squarings: int = 5


def refine(
    velocity: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    *,
    lam: float,
    mask: torch.Tensor | None = None,
    fixed_labels: torch.Tensor | None = None,
    moving_labels: torch.Tensor | None = None,
    settings: RefineSettings | None = None,
) -> torch.Tensor:
    """Descend (1 - lambda) (1 - NCC) + lambda |grad v|^2 on this pair.

    Parameters
    ----------
    velocity
        (1, 3, *coarse), voxels of the coarse grid (half the images').
    fixed, moving
        (1, 1, *spatial) in [0, 1], zero outside the brain.
    lam
        Regularisation weight in [0, 1].
    mask
        (1, 1, *spatial) where the correlation is averaged; the fixed image's non-zero voxels when not given.
    fixed_labels, moving_labels
        (1, L, *coarse) label shares; used when ``settings.label_weight`` > 0.
    settings
        Steps, rates and weights; the defaults when not given.

    Returns
    -------
    torch.Tensor
        Refined velocity, same shape.
    """
    chosen = settings or RefineSettings()
    velocity = velocity.detach().clone().requires_grad_(True)
    inside = (fixed > 0).float() if mask is None else mask
    use_labels = chosen.label_weight > 0 and fixed_labels is not None and moving_labels is not None
    levels: Sequence[tuple[int, int, float]] = [
        (2, chosen.steps[0], chosen.rates[0]),
        (1, chosen.steps[1], chosen.rates[1]),
    ]
    for factor, steps, rate in levels:
        f, m, w = ((F.avg_pool3d(t, factor) if factor > 1 else t) for t in (fixed, moving, inside))
        optimiser = torch.optim.Adam([velocity], lr=rate)
        for _ in range(steps):
            displacement = integrate(velocity, steps=chosen.squarings)
            fine = (
                displacement
                if factor == 2
                else 2 * F.interpolate(displacement, size=f.shape[2:], mode="trilinear")
            )
            loss = (1 - lam) * (1 - local_ncc(f, warp(m, fine), window=chosen.window, mask=w))
            if use_labels:
                assert moving_labels is not None
                assert fixed_labels is not None
                overlap = soft_dice(warp(moving_labels, displacement), fixed_labels).mean()
                loss = loss + (1 - lam) * chosen.label_weight * (1 - overlap)
            loss = loss + lam * gradient_energy(velocity)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return velocity.detach()
