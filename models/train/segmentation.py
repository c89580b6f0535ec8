"""Training task of the segmentation networks: whole-brain labels from synthetic heads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.losses.dice import exclusive_loss, region_loss, soft_dice
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.head_unet import HeadConditionedUNet, LabelConditioned, space_to_depth
from hyperprep.models.synth.apply import Lattice, render, sample_anatomy
from hyperprep.models.synth.draw import CONTRAST_MEANS, SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.synth.structures import INTENSITY_TISSUES, REGIONS, STRUCTURES, TISSUE_GROUPS
from hyperprep.models.train.begin import begin_from

LOOSE: dict[str, Any] = {
    "rotation_deg": 8.0,
    "shift_mm": 6.0,
    "log_scale": 0.08,
    "anisotropic_log_scale": 0.04,
    "shear": 0.03,
    "warp_mm": 5.0,
}
"""Ranges of what affine alignment leaves between heads."""

NEAR_BRAIN = -5.0
"""Log-odds of the atlas' brain below which a voxel teaches nothing."""


@dataclass
class SegmentationTask:
    """Whole-brain segmentation with the label as the network's condition.

    Attributes
    ----------
    maps
        Label maps in the template frame; the last ``held_out`` of them only validate.
    lattice
        The network's grid.
    spec
        Ranges of the synthetic images.
    cells_share
        Share of the cells (cubes of ``stem`` voxels) on which the loss of one step is measured.
    atlas
        Train the network that starts from a probabilistic atlas, made here of ``atlas_draws`` deformed heads;
        then ``stem`` is 1 and ``hidden`` the width of its last shared layer. ``maps`` are best normalised
        (:mod:`hyperprep.models.train.normalise`), and ``spec`` deforms as much as a registration leaves.
    loose_share
        Share of images for a network with an atlas that are deformed as affine alignment leaves them.
    begin_from
        Name of weights of the same network to begin from, but for its atlas; none when empty.
    """

    maps: LabelMaps
    lattice: Lattice
    spec: SynthSpec
    name: str = "segment"
    channels: tuple[int, ...] = (32, 48, 96, 128)
    stem: int = 2
    hidden: int = 48
    atlas: bool = False
    atlas_draws: int = 72
    loose_share: float = 0.25
    begin_from: str = ""
    cells_share: float = 0.35
    held_out: int = 2
    device: str = "cpu"
    conditions: tuple[str, ...] = field(
        default=tuple(str(n) for n in STRUCTURES) + tuple(REGIONS), init=False
    )

    _near: torch.Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = self.maps.lookup(STRUCTURES).to(self.device)
        self._members = torch.zeros(len(REGIONS), len(STRUCTURES) + 1, device=self.device)
        for row, numbers in enumerate(REGIONS.values()):
            self._members[row, [STRUCTURES.index(n) + 1 for n in numbers]] = 1
        self._groups = self.maps.groups().to(self.device)

    def build(self) -> nn.Module:
        """Make the network."""
        if not self.atlas:
            return HeadConditionedUNet(len(self.conditions), self.channels, self.stem)
        tissue = torch.zeros(len(self.conditions), len(INTENSITY_TISSUES) + 1)
        for column, numbers in enumerate(INTENSITY_TISSUES, start=1):
            tissue[[STRUCTURES.index(n) for n in numbers], column] = 1
        model = AtlasUNet(
            len(self.conditions), tissue.shape[1], self.lattice.shape, self.channels, self.hidden
        )
        begin_from(model, self.begin_from, keep="atlas.")
        model.atlas.fill(self.probability(), self._consist_of(), tissue, self._looks())
        return model

    def _consist_of(self) -> torch.Tensor:
        """Say of which of the atlas' classes each condition consists, (L, L + 2)."""
        n = len(STRUCTURES)
        out = torch.zeros(len(self.conditions), len(self.conditions) + 2)
        out[range(n), range(1, n + 1)] = 1
        out[n:, : n + 1] = self._members.cpu()
        out[n, [*range(1, n + 1), -1]] = 1
        return out

    def _looks(self) -> torch.Tensor:
        """Give the intensity of the atlas' classes in usual contrasts, (contrasts, L + 2)."""
        rows = torch.zeros(len(CONTRAST_MEANS), len(self.conditions) + 2)
        for row, means in zip(rows, CONTRAST_MEANS.values(), strict=True):
            for place, number in enumerate(STRUCTURES, start=1):
                row[place] = next(means[name] for name, held in TISSUE_GROUPS.items() if number in held)
            row[-1] = means["csf"]
        return rows

    @torch.no_grad()
    def probability(self) -> torch.Tensor:
        """Make the atlas: the share of every class in deformed heads, (L + 2, *shape).

        The first class is whatever is not brain, the last one brain without a structure.
        """
        rng = np.random.default_rng(0)
        usable = len(self.maps.maps) - self.held_out
        n = len(STRUCTURES)
        total = torch.zeros((len(self.conditions) + 2, *self.lattice.shape), device=self.device)
        for turn in range(self.atlas_draws):
            anatomy = draw_anatomy(rng, self.spec, usable, self.lattice.extent_mm, index=turn % usable)
            sampling = sample_anatomy(self.maps, anatomy, self.lattice, subsamples=1)
            structure = self._table[sampling.indices[0].long()]
            total[: n + 1] += F.one_hot(structure.long(), n + 1).movedim(-1, 0)
            bare = (structure == 0) & (sampling.brain > 0.5)
            total[-1] += bare
            total[0] -= bare.float()
        return total / self.atlas_draws

    def example(
        self, rng: np.random.Generator, *, index: int | None = None, loose: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Make one synthetic image with its labels.

        Parameters
        ----------
        rng
            Where all randomness comes from.
        index
            The label map to take; drawn from those that train when not given.
        loose
            Deform the head as affine alignment leaves it.

        Returns
        -------
        tuple of torch.Tensor
            Image in [0, 1], structure (1 + position in ``STRUCTURES``, 0: none) and brain 0/1, each (*shape).
        """
        usable = len(self.maps.maps) - self.held_out
        spec = replace(self.spec, **LOOSE) if loose else self.spec
        anatomy = draw_anatomy(rng, spec, usable, self.lattice.extent_mm, index=index)
        contrast = draw_contrast(rng, self.spec, int(self._groups.max()) + 1)
        sampling = sample_anatomy(
            self.maps, anatomy, self.lattice, subsamples=self.spec.subsamples, seed=contrast.seed
        )
        image = render(sampling, self._groups, contrast, spacing=self.lattice.spacing)
        return image, self._table[sampling.indices[0].long()], sampling.brain

    def targets(self, structure: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """Make the 0/1 target of every condition, (1, L, *shape)."""
        leaves = F.one_hot(structure.long(), len(STRUCTURES) + 1).movedim(-1, 0)[1:].float()
        regions = self._members[:, structure.long()]
        regions[0] = brain
        return torch.cat([leaves, regions])[None]

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw one synthetic image with its structures and brain mask, and how it lies on the atlas."""
        loose = self.atlas and bool(rng.random() < self.loose_share)
        return *self.example(rng, loose=loose), "affine" if loose else "nonlinear"

    def one_hot(self, asked: list[int], device: torch.device | str) -> torch.Tensor:
        """Make the condition rows (L, n conditions)."""
        return torch.eye(len(self.conditions), device=device)[asked]

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Softmax loss over background and structures plus region loss, on a random share of the cells."""
        image, structure, brain, alignment = batch
        assert isinstance(model, LabelConditioned)
        if isinstance(model, AtlasUNet):
            model.alignment = alignment
        trunk = model.trunk(image[None, None])[0].movedim(0, -1).reshape(-1, model.features)
        chosen = self._choose(model, len(trunk)).to(image.device)
        asked = self.one_hot(list(range(len(self.conditions))), image.device)
        logits = model.cell_logits(trunk[chosen], asked, chosen).flatten(0, 1)
        known, masks = (
            space_to_depth(v[None, None], model.stem)[0].flatten(1).T[chosen].flatten()
            for v in (structure, brain)
        )
        known = known.long()
        regions = self._members.T[known]
        regions[:, 0] = masks
        n = len(STRUCTURES)
        leaf = F.pad(logits[:, :n], (1, 0))
        with torch.no_grad():
            hard = leaf.argmax(1)
            right = torch.bincount(known[hard == known], minlength=n + 1)
            dice = (
                2
                * right
                / (torch.bincount(hard, minlength=n + 1) + torch.bincount(known, minlength=n + 1)).clamp_min(
                    1
                )
            )
            inside = logits[:, n] > 0
            overlap = 2 * (inside * masks).sum() / (inside.sum() + masks.sum()).clamp_min(1)
            figures = {"structures": float(dice[1:].mean()), "brain": float(overlap)}
        return exclusive_loss(leaf, known) + region_loss(logits[:, n:], regions), figures

    def _choose(self, model: nn.Module, cells: int) -> torch.Tensor:
        """Draw the cells of one step's loss; with an atlas, where a brain may be."""
        if not isinstance(model, AtlasUNet):
            return torch.randperm(cells)[: int(self.cells_share * cells)]
        if self._near is None:
            odds = model.atlas.at_voxels("affine")[0][:, len(STRUCTURES)]
            self._near = torch.nonzero(odds > NEAR_BRAIN)[:, 0].cpu()
        share = torch.randperm(len(self._near))[: int(self.cells_share * len(self._near))]
        return self._near[share]

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Hard Dice on four synthetic images of the held-out heads, deformed onto the atlas if any."""
        scores = []
        if isinstance(model, AtlasUNet):
            model.alignment = "nonlinear"
        asked = list(range(len(self.conditions)))
        for seed in range(4):
            rng = np.random.default_rng([12345, seed])
            index = len(self.maps.maps) - 1 - seed % max(1, self.held_out)
            image, structure, brain = self.example(rng, index=index)
            logits = model(image[None, None], self.one_hot(asked, image.device))
            leaf = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, : len(STRUCTURES)]], dim=1).argmax(
                1
            )[0]
            hard = self.targets(leaf, (logits[0, len(STRUCTURES)] > 0).float())
            scores.append(soft_dice(hard, self.targets(structure, brain))[0])
        mean = torch.stack(scores).mean(0)
        return {
            "mean": float(mean[: len(STRUCTURES)].mean()),
            **{c: float(v) for c, v in zip(self.conditions, mean, strict=True)},
        }
