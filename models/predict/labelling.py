"""From a network's probabilities to labels, masks, volumes and uncertainty on the scan's own grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nibabel as nb
import numpy as np
import torch

from hyperprep.models.predict.evidence import Evidence
from hyperprep.models.predict.sampling import sample_volumes, slabs
from hyperprep.models.predict.volumes import (
    INTRACRANIAL,
    INTRACRANIAL_NAME,
    TEMPLATE_INTRACRANIAL_MM3,
    expected_dice,
)
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import TISSUES, Region
from hyperprep.models.weights import WeightsEntry


@dataclass(frozen=True)
class Segmentation:
    """A segmented scan; every image lies on the scan's own grid.

    Attributes
    ----------
    dseg
        int16, FreeSurfer numbers of the leaf regions asked for, each voxel at most one.
    leaves
        int16, the same with all leaves, whatever was asked for: what tissues and registration need.
    mask
        uint8 brain mask.
    tissues
        "GM", "WM", "CSF": float32 probabilities.
    probsegs
        Probability of each region asked for, by name; filled on request.
    regions
        uint8 mask of each super-region asked for, by name.
    volumes
        One row per region asked for: index, name, volume_mm3 (from probabilities), relative_volume (divided
        by that of the average brain, scaled to this head) and expected_dice (the overlap with the truth if
        the probabilities are right); then the estimated total intracranial volume, which the
        affine alignment to the template tells.
    entropy
        float32, bits: entropy of the leaves' probabilities inside the brain, 0 outside; filled on request.
    metadata
        Digest of the weights, grid, number of voxels labelled.
    """

    dseg: nb.Nifti1Image
    leaves: nb.Nifti1Image
    mask: nb.Nifti1Image
    tissues: dict[str, nb.Nifti1Image]
    probsegs: dict[str, nb.Nifti1Image]
    regions: dict[str, nb.Nifti1Image]
    volumes: list[dict[str, Any]]
    entropy: nb.Nifti1Image | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def entropy_bits(probability: torch.Tensor) -> torch.Tensor:
    """Give the entropy of distributions over their first axis, in bits.

    Parameters
    ----------
    probability
        (L, ...) that sums to 1 over the first axis.

    Returns
    -------
    torch.Tensor
        (...): 0 where one class is certain, log2 L where all are alike.

    Examples
    --------
    >>> entropy_bits(torch.tensor([[1.0, 0.5], [0.0, 0.5]])).tolist()
    [0.0, 1.0]
    """
    return torch.special.entr(probability).sum(0) / math.log(2)


@dataclass
class Labelling:
    """Network results on their way to the scan's own grid.

    Parameters
    ----------
    target, grid
        Grids of the scan and of the network's results.
    template2scan
        (4, 4) point map, RAS mm.
    numbers
        FreeSurfer numbers of the leaves.
    brain
        (*grid) probability.
    logits
        (L, *grid) of the leaves; they are interpolated, which keeps borders sharper than to interpolate
        probabilities.
    brain_threshold
        Probability from which a voxel is brain.
    shift
        (3, *grid) mm, leads from the affinely aligned image to the network's grid; None where they are one.
    evidence
        Lets each voxel of the scan be judged by its own intensity; None where the network does not tell.
    temperature
        What logits are divided by.
    usual_mm3
        Volumes of the average brain in the template frame: of leaves by their numbers, and of the ``brain``;
        empty where the network does not know them.
    """

    target: Grid
    grid: Grid
    template2scan: np.ndarray
    numbers: tuple[int, ...]
    brain: torch.Tensor
    logits: torch.Tensor
    brain_threshold: float
    shift: torch.Tensor | None = None
    evidence: Evidence | None = None
    temperature: float = 1.0
    usual_mm3: Mapping[int | str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held = [self.logits] if self.evidence is None else [self.logits, self.evidence.ratios]
        self._held = torch.cat(held)

    def _places(self, points: np.ndarray) -> np.ndarray:
        """Say where on the network's grid points of the template frame lie."""
        if self.shift is None:
            return points
        return points + sample_volumes(self.shift, self.grid, points).T.numpy()

    def _leaves(self, points: np.ndarray, values: np.ndarray | None) -> torch.Tensor:
        """Give the leaves' probabilities (L, N) at points (N, 3) of the network's grid."""
        held = sample_volumes(self._held, self.grid, points)
        logits = held[: len(self.numbers)]
        if self.evidence is not None and values is not None:
            logits += self.evidence.difference(held[len(self.numbers) :], values)
        return torch.softmax(logits / self.temperature, dim=0)

    def finish(
        self,
        asked: tuple[Region, ...],
        entry: WeightsEntry,
        *,
        given: np.ndarray | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Segmentation:
        """Interpolate inside the brain, decide each voxel, measure.

        Parameters
        ----------
        asked
            Regions.
        entry
            Weights that made the probabilities.
        given
            (*target) bool brain mask; the probability of the brain decides without it.
        probabilities, uncertainty
            Also keep each region's probability, and the entropy.
        """
        shape = self.target.shape
        mask, every = np.zeros(shape, np.uint8), np.zeros(shape, np.int16)
        entropy = np.zeros(shape, np.float32) if uncertainty else None
        measured = _Measured(self.numbers)
        wanted = [region for region in asked if not region.is_leaf] if not probabilities else list(asked)
        soft = {region.name: np.zeros(shape, np.float32) for region in wanted}
        tissues = {name: np.zeros(shape, np.float32) for name in TISSUES}
        leaf_index = np.array([r.index for r in asked if r.is_leaf])
        table = torch.tensor(self.numbers, dtype=torch.int16, device=self.logits.device)
        members = {
            name: self._rows([n for n in numbers if n in self.numbers]) for name, numbers in TISSUES.items()
        }
        members |= {region.name: self._rows(region.numbers) for region in wanted}
        whole = {"brain"} & set(soft)
        for slab, aligned in slabs(self.target, self.template2scan):
            points = self._places(aligned)
            brain = sample_volumes(self.brain[None], self.grid, points)[0]
            inside = (
                brain > self.brain_threshold
                if given is None
                else torch.from_numpy(given[slab].ravel()).to(brain.device)
            )
            if not inside.any():
                continue
            chosen = inside.cpu().numpy()
            own = None if self.evidence is None else self.evidence.values[slab].reshape(-1)[chosen]
            leaves = self._leaves(points[chosen], own)
            mask[slab].reshape(-1)[chosen] = 1
            likeliest = leaves.argmax(dim=0)
            bits = entropy_bits(leaves)
            measured.add(leaves, likeliest, bits)
            every[slab].reshape(-1)[chosen] = table[likeliest].cpu().numpy()
            if entropy is not None:
                entropy[slab].reshape(-1)[chosen] = bits.cpu().numpy()
            for collection in (tissues, soft):
                for name, volume in collection.items():
                    value = (
                        torch.ones(int(inside.sum()))
                        if name in whole
                        else leaves[members[name]].sum(dim=0).cpu()
                    )
                    volume[slab].reshape(-1)[chosen] = value.numpy()
        voxel = float(abs(np.linalg.det(self.target.affine[:3, :3])))
        return Segmentation(
            dseg=self._image(np.where(np.isin(every, leaf_index), every, np.int16(0))),
            leaves=self._image(every),
            mask=self._image(mask),
            tissues={k: self._image(v) for k, v in tissues.items()},
            probsegs={k: self._image(v) for k, v in soft.items()} if probabilities else {},
            regions={
                r.name: self._image((soft[r.name] > 0.5).astype(np.uint8)) for r in asked if not r.is_leaf
            },
            volumes=self._volumes(asked, measured, voxel, float(mask.sum()) * voxel),
            entropy=None if entropy is None else self._image(entropy),
            metadata={
                "weights_sha256": entry.sha256,
                "weights": entry.name,
                "resolution_mm": float(self.grid.spacing[0]),
                "deformed_onto_atlas": self.shift is not None,
                "mean_entropy": measured.mean_entropy,
            },
        )

    def _rows(self, numbers: Sequence[int]) -> list[int]:
        return [self.numbers.index(n) for n in numbers]

    def _volumes(
        self, asked: tuple[Region, ...], measured: _Measured, voxel: float, mask_mm3: float
    ) -> list[dict[str, Any]]:
        """Volumes (mm^3) from the probabilities inside the brain mask, on the scan's grid."""
        size = float(abs(np.linalg.det(self.template2scan[:3, :3])))
        rows: list[dict[str, Any]] = []
        for region in asked:
            whole = region.name == "brain"
            value = mask_mm3 if whole else measured.voxels(region) * voxel
            parts = ("brain",) if whole else region.numbers
            usual = size * sum(self.usual_mm3.get(part, math.nan) for part in parts)
            row = {"index": region.index, "name": region.name, "volume_mm3": round(float(value), 1)}
            row["relative_volume"] = _rounded(float(value) / usual)
            row["expected_dice"] = _rounded(math.nan if whole else measured.expected_dice(region))
            rows.append(row)
        inside = round(size * TEMPLATE_INTRACRANIAL_MM3, 1)
        rows.append({"index": INTRACRANIAL, "name": INTRACRANIAL_NAME, "volume_mm3": inside})
        return rows

    def _image(self, data: np.ndarray) -> nb.Nifti1Image:
        return nb.Nifti1Image(data, self.target.affine)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


class _Measured:
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
