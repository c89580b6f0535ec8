"""A probabilistic atlas of labels, sharp for images that are deformed onto it, blurred for others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.smooth import gaussian_smooth

Alignment = Literal["affine", "nonlinear"]
"""How an image was brought onto the atlas."""

KEPT = 4
"""Classes that are stored at each voxel, the most probable ones."""

FLOOR = 3e-4
"""Probability that every class has everywhere."""

LOOKS = 4
"""Usual contrasts in which the atlas can be painted."""

BLUR = 1.2
"""Blurring for images that are only affinely aligned: standard deviation, cells of two voxels a side. At 2 mm
this is 5 mm, what label borders of different heads lie apart then."""


class Atlas(nn.Module):
    """Probability of each class at each voxel of a fixed grid.

    Class 0 is whatever is not brain, class i + 1 the leaf label i, and the last one is brain that belongs to
    no leaf. The :data:`KEPT` most probable classes of each voxel are stored in whole 255ths, so that 37
    labels at 2 mm take 6 MB.

    Parameters
    ----------
    n_labels
        Number of labels, leaves and regions.
    n_tissues
        Number of tissues; 0 is whatever is not brain.
    shape
        Voxels of the grid, each side divisible by two.
    """

    def __init__(self, n_labels: int, n_tissues: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape, count = tuple(shape), math.prod(shape)
        self.register_buffer("classes", torch.zeros(KEPT, count, dtype=torch.uint8))
        self.register_buffer("shares", torch.zeros(KEPT, count, dtype=torch.uint8))
        self.register_buffer("members", torch.zeros(n_labels, n_labels + 2))
        self.register_buffer("tissue", torch.zeros(n_labels, n_tissues))
        self.register_buffer("looks", torch.zeros(LOOKS, n_labels + 2))
        self._made: dict[tuple[Alignment, torch.device], tuple[torch.Tensor, ...]] = {}

    def fill(
        self,
        probability: torch.Tensor,
        members: torch.Tensor,
        tissue: torch.Tensor,
        looks: torch.Tensor | None = None,
    ) -> None:
        """Store an atlas.

        Parameters
        ----------
        probability
            (n_labels + 2, *shape) of each class; sums to 1 at each voxel, 0 for regions.
        members
            (n_labels, n_labels + 2) 1 for the classes of which each label consists.
        tissue
            (n_labels, n_tissues) 1 for the tissue of each leaf; all 0 for regions.
        looks
            (up to :data:`LOOKS`, n_labels + 2) intensity of each class in usual contrasts, 0 outside.
        """
        known = torch.zeros_like(self.get_buffer("looks"))
        if looks is not None:
            known[: len(looks)] = looks
        most, which = probability.flatten(1).topk(KEPT, dim=0)
        for name, value in (
            ("shares", (most * 255).round()),
            ("classes", which),
            ("members", members),
            ("tissue", tissue),
            ("looks", known),
        ):
            self.get_buffer(name).copy_(value)
        self._made.clear()

    @torch.no_grad()
    def probability(self, alignment: Alignment) -> torch.Tensor:
        """Give the probability of each class, (n_labels + 2, *shape)."""
        volumes = self._stored().view(1, -1, *self.shape)
        if alignment == "affine":
            coarse = gaussian_smooth(F.avg_pool3d(volumes, 2), BLUR)
            volumes = F.interpolate(coarse, size=self.shape, mode="trilinear")
        known = volumes[0].clamp_min(0) + FLOOR
        return known / known.sum(0)

    def _stored(self) -> torch.Tensor:
        """Give the stored probability of each class, (classes, voxels)."""
        classes, shares = self.get_buffer("classes"), self.get_buffer("shares")
        dense = torch.zeros(self.get_buffer("members").shape[1], classes.shape[1], device=classes.device)
        return dense.scatter_add_(0, classes.long(), shares.float() / 255)

    @torch.no_grad()
    def sizes(self) -> torch.Tensor:
        """Give the average number of voxels of each label, (n_labels,).

        :data:`FLOOR` is not counted: over a whole grid it would add up to a small structure.
        """
        return self.get_buffer("members").float() @ self._stored().sum(1)

    @torch.no_grad()
    def painted(self, alignment: Alignment) -> torch.Tensor:
        """Paint the atlas in each usual contrast, (LOOKS, *shape)."""
        return torch.einsum("lc,c...->l...", self.get_buffer("looks").float(), self.probability(alignment))

    def at_voxels(self, alignment: Alignment) -> tuple[torch.Tensor, ...]:
        """Give what a network reads of the atlas.

        Returns
        -------
        tuple of torch.Tensor
            Log-odds of the labels (voxels, n_labels), leaves against no leaf, regions against not being in
            them; log-probability of the tissues (voxels, n_tissues); probability of the labels on the grid
            twice as coarse (1, n_labels, *shape / 2). Voxels in C order.
        """
        key = (alignment, self.get_buffer("classes").device)
        if key not in self._made:
            if not self.training:  # one alignment after the other: 150 MB at 2 mm each
                self._made.clear()
            self._made[key] = self._make(alignment)
        return self._made[key]

    @torch.no_grad()
    def _make(self, alignment: Alignment) -> tuple[torch.Tensor, ...]:
        classes = self.probability(alignment).flatten(1)
        members, tissue = self.get_buffer("members").float(), self.get_buffer("tissue").float()
        leaf = tissue.any(1)
        labels = members @ classes
        elsewhere = classes[0] + classes[-1]
        odds = torch.where(leaf[:, None], labels.log() - elsewhere.log(), torch.logit(labels, 1e-6))
        tissues = tissue.T @ classes[1:-1]
        tissues[0] += elsewhere
        coarse = F.avg_pool3d(labels.view(1, -1, *self.shape), 2)
        return odds.T.contiguous(), tissues.clamp_min(1e-6).log().T.contiguous(), coarse
