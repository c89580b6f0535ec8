"""Sums over the voxels of a brain from which volumes and the certainty of labels follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hyperprep.models.predict.volumes import expected_dice
from hyperprep.models.spatial.labels import Region


class MeasuredLeaves:
    """Sums over voxels of the brain, added slab by slab.

    ``where`` holds, row by row, how much of each leaf's probability lies where each leaf is the likeliest.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers, count = numbers, len(numbers)
        self.where = torch.zeros(count, count, dtype=torch.float64)
        self.sizes = torch.zeros(count, dtype=torch.int64)
        self.bits = 0.0

    def add(self, leaves: torch.Tensor, likeliest: torch.Tensor, entropy: torch.Tensor) -> None:
        """Add voxels: (L, N) probabilities, (N,) the likeliest leaf of each, and their (N,) entropy."""
        self.where.index_add_(1, likeliest.cpu(), leaves.double().cpu())
        self.sizes += torch.bincount(likeliest.cpu(), minlength=len(self.sizes))
        self.bits += float(entropy.double().sum())

    @property
    def mean_entropy(self) -> float:
        """Mean entropy of the brain's voxels, bits."""
        return round(self.bits / max(1, int(self.sizes.sum())), 4)

    def voxels(self, region: Region) -> float:
        """Give how many voxels a region has by its probabilities."""
        return float(self.where[self._rows(region)].sum())

    def expected_dice(self, region: Region) -> float:
        """Give the Dice that a region's labels have on average if the probabilities are right."""
        rows = self._rows(region)
        hits = float(self.where[rows][:, rows].sum())
        return expected_dice(hits, self.voxels(region), int(self.sizes[rows].sum()))

    def _rows(self, region: Region) -> list[int]:
        return [self.numbers.index(n) for n in region.numbers]


class MeasuredOwn:
    """Sums of own regions over the voxels of a brain, added slab by slab."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self.rows = {region.index: row for row, region in enumerate(regions)}
        self.sums = torch.zeros(3, len(regions), dtype=torch.float64)

    def add(self, probability: torch.Tensor) -> None:
        """Add voxels: (R, N) probabilities."""
        inside = probability > 0.5
        values = probability.double()
        parts = (values.sum(1), (values * inside).sum(1), inside.double().sum(1))
        self.sums += torch.stack(parts).cpu()

    def voxels(self, region: Region) -> float:
        """Give how many voxels a region has by its probabilities."""
        return float(self.sums[0, self.rows[region.index]])

    def expected_dice(self, region: Region) -> float:
        """Give the Dice that the region's mask has on average if the probabilities are right."""
        probability, hits, count = self.sums[:, self.rows[region.index]].tolist()
        return expected_dice(hits, probability, int(count))
