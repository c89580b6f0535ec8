"""Training task of HyperMorph: pairs of synthetic brains, hyperparameters drawn at each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.exceptions import UsageError
from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.losses.registration import weighted_loss
from hyperprep.models.losses.regularity import gradient_energy, jacobian_determinant
from hyperprep.models.losses.similarity import SIMILARITIES, local_ncc, similarity_loss
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.nets.hyperparameters import hyperparameters_of
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.synth.apply import Lattice, Sampling, render, sample_anatomy
from hyperprep.models.synth.draw import Contrast, SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.synth.structures import STRUCTURES


def other_contrast(
    rng: np.random.Generator, spec: SynthSpec, first: Contrast, *, same_contrast: float
) -> Contrast:
    """Draw the look of a further image: nearly the first's with a chance of ``same_contrast``."""
    contrast = draw_contrast(rng, spec, len(first.means))
    if rng.random() >= same_contrast:
        return contrast
    jitter = rng.normal(1, 0.03, first.means.shape).astype(np.float32)
    return replace(contrast, name=first.name, means=first.means * jitter, sds=first.sds, gamma=first.gamma)


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
        contrast = other_contrast(rng, spec, first, same_contrast=same_contrast) if place else first
        sampling = sample_anatomy(maps, anatomy, lattice, subsamples=spec.subsamples, seed=contrast.seed)
        image = render(sampling, groups, contrast, spacing=lattice.spacing) * sampling.brain
        yield image[None, None], sampling


@dataclass
class RegistrationTask:
    """Registration of two affinely aligned synthetic brains.

    The loss is (1 - lambda)(1 - gamma) L_sim + lambda L_reg + gamma L_seg (HyperMorph eq. 5; eq. 3 where
    gamma is no hyperparameter), with L_reg the gradient energy of the velocity and L_seg = 1 - soft Dice.
    Beyond the paper, ``seg_weight`` adds L_seg to L_sim: labels then guide training without being one more
    input of the network.

    Attributes
    ----------
    primary, options
        Primary network and its arguments.
    hyperparameters
        Inputs of the hypernetwork: ``lambda``, then any of ``gamma`` and ``w``.
    windows
        Windows of the local correlation that ``w`` is drawn from, voxels.
    defaults
        Values of the hyperparameters beside lambda that serve when a user gives none.
    end_share
        Share of the draws of lambda and gamma that are 0 or 1.
    similarity
        ``ncc``, ``mse`` or ``mi``.
    window
        Window of the local correlation where ``w`` is no hyperparameter, voxels.
    sigma
        Noise of the squared difference, in the images' unit.
    bins
        Bins of the mutual information.
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
    hyperparameters: Sequence[str] = ("lambda",)
    windows: Sequence[int] = (3, 5, 7, 9)
    defaults: dict[str, float] | None = None
    end_share: float = 0.2
    similarity: str = "ncc"
    window: int = 5
    sigma: float = 0.05
    bins: int = 32
    seg_weight: float = 0.5
    same_contrast: float = 0.8
    held_out: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.hyper = hyperparameters_of(self.hyperparameters, windows=self.windows, defaults=self.defaults)
        if self.similarity not in SIMILARITIES:
            raise UsageError(
                f"similarity = {self.similarity!r} is not known; use one of {', '.join(SIMILARITIES)}."
            )
        names = [one.name for one in self.hyper]
        if "w" in names and self.similarity != "ncc":
            raise UsageError(
                f"w is the window of the local correlation, but similarity = {self.similarity!r}: "
                "train it with similarity = 'ncc' or leave w out."
            )
        if "gamma" in names and self.seg_weight:
            raise UsageError(
                f"gamma weighs the label overlap, so seg_weight = {self.seg_weight:g} would count it twice: "
                "set seg_weight = 0."
            )
        self._table = self.maps.lookup(STRUCTURES).to(self.device)

    def build(self) -> nn.Module:
        """Make the network."""
        return HyperMorph(primary_network(self.primary, **(self.options or {})), len(self.hyper))

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
        """Draw a pair and the hyperparameters, scaled to [0, 1] (n_hyper,)."""
        pair = self.pair(rng)
        drawn = [one.draw(rng, end_share=self.end_share) for one in self.hyper]
        return (*pair, torch.tensor(drawn, dtype=torch.float32, device=self.device))

    def values(self, hyper: torch.Tensor) -> dict[str, float]:
        """Name the hyperparameters (n_hyper,) of a step, in their own units."""
        return {one.name: one.unscaled(float(v)) for one, v in zip(self.hyper, hyper, strict=True)}

    def moved(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, ...]:
        """Register: moved image, overlap (scalar), velocity and displacement (coarse voxels)."""
        fixed, fixed_labels, moving, moving_labels, hyper = batch
        velocity = model(fixed, moving, hyper)
        displacement = integrate(velocity, steps=5)
        fine = 2 * F.interpolate(displacement, size=fixed.shape[2:], mode="trilinear")
        overlap = soft_dice(warp(moving_labels, displacement), fixed_labels).mean()
        return warp(moving, fine), overlap, velocity, displacement

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the loss at this step's hyperparameters."""
        fixed, values = batch[0], self.values(batch[-1])
        moved, overlap, velocity, _ = self.moved(model, batch)
        similarity = similarity_loss(
            self.similarity,
            fixed,
            moved,
            window=int(values.get("w", self.window)),
            sigma=self.sigma,
            bins=self.bins,
            mask=(fixed > 0).float(),
        )
        energy, apart = gradient_energy(velocity), 1 - overlap
        fit = similarity + self.seg_weight * apart
        loss = weighted_loss(fit, energy, apart, lam=values["lambda"], gamma=values.get("gamma", 0.0))
        return loss, {
            "similarity": float(similarity.detach()),
            "dice": float(overlap.detach()),
            "energy": float(energy.detach()),
        }

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure three pairs of the held-out heads, before registration and at four values of lambda.

        The other hyperparameters are at their defaults.

        Returns
        -------
        dict
            ``dice_affine`` and, per lambda, ``dice_`` (soft), ``ncc_`` (at :attr:`window`), ``energy_`` and
            ``folding_`` (percent).
        """
        out: dict[str, float] = {}
        last = len(self.maps.maps)
        rest = [one.scaled(one.default) for one in self.hyper[1:]]
        for seed in range(3):
            rng = np.random.default_rng([54321, seed])
            pair = self.pair(rng, indices=(last - 1, last - 2) if seed % 2 else (last - 2, last - 1))
            before = float(soft_dice(pair[3], pair[1]).mean())
            out["dice_affine"] = out.get("dice_affine", 0) + before / 3
            for lam in (0.0, 0.3, 0.6, 0.9):
                hyper = torch.tensor([lam, *rest], dtype=torch.float32, device=self.device)
                moved, overlap, velocity, displacement = self.moved(model, (*pair, hyper))
                figures = {
                    "dice": float(overlap),
                    "ncc": float(local_ncc(pair[0], moved, window=self.window, mask=(pair[0] > 0).float())),
                    "energy": float(gradient_energy(velocity)),
                    "folding": 100 * float((jacobian_determinant(displacement) <= 0).float().mean()),
                }
                for key, value in figures.items():
                    out[f"{key}_{lam}"] = out.get(f"{key}_{lam}", 0) + value / 3
        return out
