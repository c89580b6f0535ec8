"""Training task of HyperMorph: pairs of synthetic brains, the regularisation weight drawn at each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.losses.regularity import gradient_energy, jacobian_determinant
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.synth.apply import Lattice, Sampling, render, sample_anatomy
from hyperprep.models.synth.draw import SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.train.segmentation import STRUCTURES


def draw_hyperparameter(rng: np.random.Generator, *, end_share: float = 0.2) -> float:
    """Draw lambda: uniform, but a share of the draws from the ends 0 and 1 (HyperMorph section 3.3).

    Examples
    --------
    >>> draw_hyperparameter(np.random.default_rng(0), end_share=1.0) in (0.0, 1.0)
    True
    """
    return float(rng.integers(2)) if rng.random() < end_share else float(rng.random())


def brain_pair(
    maps: LabelMaps,
    lattice: Lattice,
    spec: SynthSpec,
    rng: np.random.Generator,
    chosen: tuple[int, ...],
    *,
    same_contrast: float,
) -> Iterator[tuple[torch.Tensor, Sampling]]:
    """Make images of skull-stripped heads that look alike or not.

    Parameters
    ----------
    maps
        Label maps.
    lattice, spec
        Where the voxels lie, and the ranges of the images.
    rng
        Where all randomness comes from.
    chosen
        Numbers of the label maps.
    same_contrast
        Chance that an image after the first has the first's contrast.

    Yields
    ------
    tuple of torch.Tensor and Sampling
        Image, (1, 1, *shape) in [0, 1], zero outside the brain, and what it was painted from.
    """
    groups = maps.groups().to(maps.maps.device)
    first = draw_contrast(rng, spec, int(groups.max()) + 1)
    for place, index in enumerate(chosen):
        anatomy = draw_anatomy(rng, spec, len(maps.maps), lattice.extent_mm, index=index)
        contrast = first if place == 0 else draw_contrast(rng, spec, len(first.means))
        if place and rng.random() < same_contrast:
            jitter = rng.normal(1, 0.03, first.means.shape).astype(np.float32)
            contrast = replace(
                contrast, name=first.name, means=first.means * jitter, sds=first.sds, gamma=first.gamma
            )
        sampling = sample_anatomy(maps, anatomy, lattice, subsamples=spec.subsamples, seed=contrast.seed)
        image = render(sampling, groups, contrast, spacing=lattice.spacing) * sampling.brain
        yield image[None, None], sampling


@dataclass
class RegistrationTask:
    """Registration of two affinely aligned synthetic brains.

    The loss is (1 - lambda) L_sim + lambda L_reg with L_sim = 1 - local NCC + seg_weight (1 - Dice) and L_reg
    the gradient energy of the velocity (HyperMorph eq. 3 and 4; the overlap term is the semi-supervised one
    of eq. 5 at a fixed share).

    Attributes
    ----------
    primary, options
        Primary network and its arguments.
    window
        Window of the local NCC of the loss, voxels.
    seg_weight
        Weight of the label overlap within the similarity.
    same_contrast
        Share of pairs whose images are drawn with the same contrast.
    """

    maps: LabelMaps
    lattice: Lattice
    spec: SynthSpec
    name: str = "hypermorph"
    primary: str = "unrolled"
    options: dict[str, Any] | None = None
    n_hyper: int = 1
    window: int = 5
    seg_weight: float = 0.5
    same_contrast: float = 0.8
    held_out: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._table = self.maps.lookup(STRUCTURES).to(self.device)

    def build(self) -> nn.Module:
        """Make the network."""
        return HyperMorph(primary_network(self.primary, **(self.options or {})), self.n_hyper)

    def pair(
        self, rng: np.random.Generator, indices: tuple[int, int] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Make fixed and moving images (1, 1, *shape) and their labels (1, L, *shape / 2)."""
        usable = len(self.maps.maps) - self.held_out
        chosen = indices or tuple(rng.choice(usable, 2, replace=False).tolist())
        out: list[torch.Tensor] = []
        for image, sampling in brain_pair(
            self.maps, self.lattice, self.spec, rng, chosen, same_contrast=self.same_contrast
        ):
            labels = F.one_hot(self._table[sampling.indices[0].long()].long(), len(STRUCTURES) + 1).movedim(
                -1, 0
            )[1:]
            out += [image, F.avg_pool3d((labels * sampling.brain)[None].float(), 2)]
        return tuple(out)

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw a pair and lambda."""
        return (*self.pair(rng), torch.tensor([draw_hyperparameter(rng)] * self.n_hyper, device=self.device))

    def _terms(
        self, model: nn.Module, batch: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        fixed, fixed_labels, moving, moving_labels, hyper = batch
        velocity = model(fixed, moving, hyper)
        displacement = integrate(velocity, steps=5)
        fine = 2 * F.interpolate(displacement, size=fixed.shape[2:], mode="trilinear")
        similarity = local_ncc(fixed, warp(moving, fine), window=self.window, mask=(fixed > 0).float())
        overlap = soft_dice(warp(moving_labels, displacement), fixed_labels).mean()
        return similarity, overlap, gradient_energy(velocity), displacement

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the loss at this step's lambda."""
        lam = batch[-1][0]
        similarity, overlap, energy, _ = self._terms(model, batch)
        loss = (1 - lam) * (1 - similarity + self.seg_weight * (1 - overlap)) + lam * energy
        return loss, {
            "ncc": float(similarity.detach()),
            "dice": float(overlap.detach()),
            "energy": float(energy.detach()),
        }

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure three pairs of the held-out heads, before registration and at four values of lambda.

        Returns
        -------
        dict
            ``dice_affine`` and, per lambda, ``dice_`` (soft), ``energy_`` and ``folding_`` (percent).
        """
        out: dict[str, float] = {}
        last = len(self.maps.maps)
        for seed in range(3):
            rng = np.random.default_rng([54321, seed])
            pair = self.pair(rng, indices=(last - 1, last - 2) if seed % 2 else (last - 2, last - 1))
            before = float(soft_dice(pair[3], pair[1]).mean())
            out["dice_affine"] = out.get("dice_affine", 0) + before / 3
            for lam in (0.0, 0.3, 0.6, 0.9):
                hyper = torch.full((self.n_hyper,), lam, device=self.device)
                _, overlap, energy, displacement = self._terms(model, (*pair, hyper))
                folding = 100 * float((jacobian_determinant(displacement) <= 0).float().mean())
                for key, value in (("dice", float(overlap)), ("energy", float(energy)), ("folding", folding)):
                    out[f"{key}_{lam}"] = out.get(f"{key}_{lam}", 0) + value / 3
        return out
