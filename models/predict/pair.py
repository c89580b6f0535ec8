"""A pair of brains on the network's grid, and what is measured of a deformation between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import ScanError
from hyperprep.models.losses.regularity import jacobian_determinant
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.predict.sampling import block_means, halved
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.spatial.labels import resolve_labels, to_leaves
from hyperprep.models.spatial.transforms import resample

REGION_GROUPS: dict[str, tuple[int, ...]] = {
    "cortex": (3, 42),
    "white": (2, 41),
    "ventricles": (4, 43, 14, 15),
    "subcortical": (10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54),
    "cerebellum": (7, 46, 8, 47),
    "brainstem": (16,),
}
"""Groups of labels whose mean overlap is written beside the overall one."""


def region_groups(regions: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Give the groups that overlap is measured of: the usual ones and regions asked for.

    Raises
    ------
    UsageError
        When a region is not known.

    Examples
    --------
    >>> region_groups(["hippocampus"])["hippocampus"]
    (17, 53)
    """
    asked = {
        name: tuple(number for region in resolve_labels([name]) for number in region.numbers)
        for name in regions
    }
    return REGION_GROUPS | asked


@dataclass
class BrainPair:
    """The two brains on the network's grid, as tensors.

    Attributes
    ----------
    fixed, moving
        (1, 1, *spatial) in [0, 1], zero outside the brain.
    fixed_fine, moving_fine
        The same at twice the resolution, for the refinement; None where they were not asked for.
    fixed_labels, moving_labels
        (1, L, *coarse) share of each label in each voxel of the half grid.
    numbers
        FreeSurfer numbers of the L labels.
    groups
        Groups of numbers whose mean overlap is measured beside that of all.
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_fine: torch.Tensor | None
    moving_fine: torch.Tensor | None
    fixed_labels: torch.Tensor | None
    moving_labels: torch.Tensor | None
    numbers: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: REGION_GROUPS)

    def measure(self, velocity: torch.Tensor) -> dict[str, float]:
        """Give overlap, similarity and regularity of a velocity (1, 3, *coarse), coarse voxels."""
        return {name: float(value) for name, value in self.figures(velocity).items()}

    def figures(self, velocity: torch.Tensor) -> dict[str, torch.Tensor]:
        """Give the same as scalars that can be differentiated by the velocity; folding has no derivative."""
        displacement = integrate(velocity, steps=6)
        fine = 2 * F.interpolate(displacement, size=self.fixed.shape[2:], mode="trilinear")
        inside = F.avg_pool3d((self.fixed > 0).float(), 2) > 0.5
        return self._fit(displacement, fine) | _regularity(displacement, inside)

    def measure_displacement(self, displacement: torch.Tensor) -> dict[str, float]:
        """Give overlap, similarity and regularity of a displacement (1, 3, *spatial), the images' voxels."""
        fit = self._fit(F.avg_pool3d(displacement, 2) / 2, displacement)
        return {k: float(v) for k, v in (fit | _regularity(displacement, self.fixed > 0)).items()}

    def measure_fit(self) -> dict[str, float]:
        """Give overlap and similarity of the affine alignment that the pair came with."""
        still = self.fixed.new_zeros(1, 3, *self.fixed.shape[2:])
        return {name: float(value) for name, value in self._fit(F.avg_pool3d(still, 2), still).items()}

    def without_labels(self) -> BrainPair:
        """Give the same images without their labels: what is left to choose lambda by is their similarity."""
        return replace(self, fixed_labels=None, moving_labels=None, numbers=())

    def _fit(self, coarse: torch.Tensor, fine: torch.Tensor) -> dict[str, torch.Tensor]:
        row: dict[str, torch.Tensor] = {}
        if self.fixed_labels is not None and self.moving_labels is not None:
            row |= self._group_dice(warp(self.moving_labels, coarse))
        inside = (self.fixed > 0).float()
        row["similarity"] = local_ncc(self.fixed, warp(self.moving, fine), window=9, mask=inside)
        return row

    def _group_dice(self, moved: torch.Tensor) -> dict[str, torch.Tensor]:
        """Soft Dice of shares (eq. 6): mean over labels present in both, overall and by group."""
        assert self.fixed_labels is not None
        overlap = torch.minimum(self.fixed_labels, moved).flatten(2).sum(2)[0]
        sizes = [labels.flatten(2).sum(2)[0] for labels in (self.fixed_labels, moved)]
        each = 2 * overlap / (sizes[0] + sizes[1]).clamp_min(1e-6)
        present = [i for i, both in enumerate(((sizes[0] > 1) & (sizes[1] > 1)).tolist()) if both]
        row = {"dice_all": each[present].mean() if present else each.new_zeros(())}
        for name, members in self.groups.items():
            chosen = [i for i in present if self.numbers[i] in members]
            if chosen:
                row[f"dice_{name}"] = each[chosen].mean()
        return row


def _regularity(displacement: torch.Tensor, inside: torch.Tensor) -> dict[str, torch.Tensor]:
    """Measure the Jacobian determinant of a displacement in voxels; the voxels' size does not change it.

    The same figures as those of :mod:`hyperprep.models.spatial.measures`, as tensors.
    """
    determinant = jacobian_determinant(displacement, central=True)[inside[:, 0]]
    return {
        "sd_log_jacobian": determinant.clamp_min(1e-3).log().std(correction=0),
        "folding_percent": 100 * (determinant <= 0).float().mean(),
    }


def _inside(values: np.ndarray, mask: Any, grid: Grid, point_map: np.ndarray) -> np.ndarray:
    if mask is None:
        return values > 0
    return np.asanyarray(resample(mask, grid, [point_map], interpolation="nearest").dataobj) > 0


def _scaled(
    values: np.ndarray, inside: np.ndarray, where: torch.device, percentiles: tuple[float, float]
) -> torch.Tensor:
    low, high = percentiles
    scaled = robust_rescale(values, inside, low=low, high=high) * inside
    return torch.from_numpy(scaled)[None, None].float().contiguous().to(where)


def make_pair(
    grid: Grid,
    fixed: tuple[Any, ...],
    moving: tuple[Any, ...],
    where: torch.device,
    groups: Mapping[str, tuple[int, ...]] = REGION_GROUPS,
    *,
    fine: bool = True,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> BrainPair:
    """Bring two brains onto the network's grid.

    Parameters
    ----------
    grid
        The network's grid.
    fixed, moving
        Image, brain mask or None, label image or None, and (4, 4) map from the grid's frame to the image.
    where
        Device of the tensors.
    groups
        Groups of labels whose overlap is measured.
    fine
        Make the images at twice the resolution too.
    percentiles
        Percentiles of the intensities inside the brain that become 0 and 1; a network's are in its metadata.

    Raises
    ------
    ScanError
        When nothing of a brain lies on the grid.
    """
    images: list[torch.Tensor] = []
    finer: list[torch.Tensor] = []
    fine_grid = halved(grid)
    labels: list[np.ndarray | None] = []
    for name, (image, mask, dseg, point_map) in (("fixed", fixed), ("moving", moving)):
        sampled = resample(image, fine_grid, [point_map]).get_fdata(dtype=np.float32)
        values = block_means(sampled)
        inside = _inside(values, mask, grid, point_map)
        if inside.sum() < 1000:
            raise ScanError(
                f"Almost nothing of the {name} brain lies where the template's brain is: the affine "
                "prealignment is wrong."
            )
        images.append(_scaled(values, inside, where, percentiles))
        if fine:
            kept = _inside(sampled, mask, fine_grid, point_map)
            finer.append(_scaled(sampled, kept, where, percentiles))
        labels.append(
            None
            if dseg is None
            else to_leaves(np.asanyarray(resample(dseg, grid, [point_map], interpolation="nearest").dataobj))
        )
    numbers: tuple[int, ...] = ()
    shares: list[torch.Tensor | None] = [None, None]
    if labels[0] is not None and labels[1] is not None:
        shared = np.intersect1d(np.unique(labels[0]), np.unique(labels[1]))
        numbers = tuple(int(n) for n in shared if n > 0)
    if numbers:
        for place, one in enumerate(labels):
            hot = torch.stack([torch.from_numpy(one == n) for n in numbers])[None].float().to(where)
            shares[place] = F.avg_pool3d(hot, 2)
    fixed_fine, moving_fine = finer if fine else (None, None)
    return BrainPair(images[0], images[1], fixed_fine, moving_fine, shares[0], shares[1], numbers, groups)
