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
from hyperprep.models.predict.measured import MeasuredLeaves, MeasuredOwn
from hyperprep.models.predict.own_regions import OwnLogits
from hyperprep.models.predict.sampling import sample_volumes, slabs
from hyperprep.models.predict.volumes import INTRACRANIAL, INTRACRANIAL_NAME, TEMPLATE_INTRACRANIAL_MM3
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
        uint8 mask of each super-region and own region asked for, by name.
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
    own
        Own regions asked for, on the network's grid.
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
    own: OwnLogits | None = None

    def __post_init__(self) -> None:
        held = [self.logits]
        if self.own is not None:
            held.append(self.own.logits)
        if self.evidence is not None:
            held.append(self.evidence.ratios)
        self._held = torch.cat(held)

    def _places(self, points: np.ndarray) -> np.ndarray:
        """Say where on the network's grid points of the template frame lie."""
        if self.shift is None:
            return points
        return points + sample_volumes(self.shift, self.grid, points).T.numpy()

    def _probabilities(
        self, points: np.ndarray, values: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give probabilities of leaves (L, N) and own regions (R, N) at points (N, 3), RAS mm on the grid."""
        held = sample_volumes(self._held, self.grid, points)
        leaves, rest = held[: len(self.numbers)], held[len(self.numbers) :]
        count = 0 if self.own is None else len(self.own.regions)
        own_part = rest[:count]
        if self.evidence is not None and values is not None:
            change = self.evidence.change(rest[count:], values)
            leaves += self.evidence.weights @ change
            if self.own is not None:
                own_part += self.own.weights @ change
        return torch.softmax(leaves / self.temperature, dim=0), torch.sigmoid(own_part)

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
        measured = MeasuredLeaves(self.numbers)
        regions = () if self.own is None else self.own.regions
        measured_own = MeasuredOwn(regions)
        soft = {region.name: np.zeros(shape, np.float32) for region in asked if probabilities}
        masks = {region.name: np.zeros(shape, np.uint8) for region in asked if not region.is_leaf}
        wanted = [region for region in asked if region.name in soft or region.name in masks]
        tissues = {name: np.zeros(shape, np.float32) for name in TISSUES}
        leaf_index = np.array([r.index for r in asked if r.is_leaf])
        table = torch.tensor(self.numbers, dtype=torch.int16, device=self.logits.device)
        of_tissues = {
            name: self._rows([n for n in numbers if n in self.numbers]) for name, numbers in TISSUES.items()
        }
        own_rows = {region.index: row for row, region in enumerate(regions)}
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
            values = None if self.evidence is None else self.evidence.values[slab].reshape(-1)[chosen]
            leaves, of_own = self._probabilities(points[chosen], values)
            mask[slab].reshape(-1)[chosen] = 1
            likeliest = leaves.argmax(dim=0)
            bits = entropy_bits(leaves)
            measured.add(leaves, likeliest, bits)
            measured_own.add(of_own)
            every[slab].reshape(-1)[chosen] = table[likeliest].cpu().numpy()
            if entropy is not None:
                entropy[slab].reshape(-1)[chosen] = bits.cpu().numpy()
            for name, rows in of_tissues.items():
                tissues[name][slab].reshape(-1)[chosen] = leaves[rows].sum(dim=0).cpu().numpy()
            for region in wanted:
                if region.name == "brain":
                    value = np.ones(len(likeliest), np.float32)
                elif region.is_own:
                    value = of_own[own_rows[region.index]].cpu().numpy()
                else:
                    value = leaves[self._rows(region.numbers)].sum(dim=0).cpu().numpy()
                if region.name in soft:
                    soft[region.name][slab].reshape(-1)[chosen] = value
                if region.name in masks:
                    masks[region.name][slab].reshape(-1)[chosen] = value > 0.5
        voxel = float(abs(np.linalg.det(self.target.affine[:3, :3])))
        return Segmentation(
            dseg=self._image(np.where(np.isin(every, leaf_index), every, np.int16(0))),
            leaves=self._image(every),
            mask=self._image(mask),
            tissues={k: self._image(v) for k, v in tissues.items()},
            probsegs={k: self._image(v) for k, v in soft.items()},
            regions={k: self._image(v) for k, v in masks.items()},
            volumes=self._volumes(asked, measured, measured_own, voxel, float(mask.sum()) * voxel),
            entropy=None if entropy is None else self._image(entropy),
            metadata={
                "weights_sha256": entry.sha256,
                "weights": entry.name,
                "resolution_mm": float(self.grid.spacing[0]),
                "deformed_onto_atlas": self.shift is not None,
                "mean_entropy": measured.mean_entropy,
                **({} if self.own is None else {"regions_weights_sha256": self.own.sha256}),
            },
        )

    def _rows(self, numbers: Sequence[int]) -> list[int]:
        return [self.numbers.index(n) for n in numbers]

    def _volumes(
        self,
        asked: tuple[Region, ...],
        measured: MeasuredLeaves,
        measured_own: MeasuredOwn,
        voxel: float,
        mask_mm3: float,
    ) -> list[dict[str, Any]]:
        """Volumes (mm^3) from the probabilities inside the brain mask, on the scan's grid."""
        size = float(abs(np.linalg.det(self.template2scan[:3, :3])))
        rows: list[dict[str, Any]] = []
        for region in asked:
            whole = region.name == "brain"
            sums = measured_own if region.is_own else measured
            value = mask_mm3 if whole else sums.voxels(region) * voxel
            parts = ("brain",) if whole else region.numbers or (region.index,)
            usual = size * sum(self.usual_mm3.get(part, math.nan) for part in parts)
            row = {"index": region.index, "name": region.name, "volume_mm3": round(float(value), 1)}
            row["relative_volume"] = _rounded(float(value) / usual if usual > 0 else math.nan)
            row["expected_dice"] = _rounded(math.nan if whole else sums.expected_dice(region))
            rows.append(row)
        inside = round(size * TEMPLATE_INTRACRANIAL_MM3, 1)
        rows.append({"index": INTRACRANIAL, "name": INTRACRANIAL_NAME, "volume_mm3": inside})
        return rows

    def _image(self, data: np.ndarray) -> nb.Nifti1Image:
        return nb.Nifti1Image(data, self.target.affine)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
