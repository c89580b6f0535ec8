"""A pair of brains on the network's grid, and what is measured of a deformation between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import ScanError
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.predict.sampling import sample_averaged
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.spatial.labels import resolve_labels, to_leaves
from hyperprep.models.spatial.measures import folding_percent, jacobian_determinant, sd_log_jacobian
from hyperprep.models.spatial.transforms import DisplacementField, resample

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
    fixed_labels, moving_labels
        (1, L, *coarse) share of each label in each voxel of the half grid.
    numbers
        FreeSurfer numbers of the L labels.
    groups
        Groups of numbers whose mean overlap is measured beside that of all.
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_labels: torch.Tensor | None
    moving_labels: torch.Tensor | None
    numbers: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: REGION_GROUPS)

    def measure(self, velocity: torch.Tensor) -> dict[str, float]:
        """Give overlap, similarity and regularity of a velocity."""
        displacement = integrate(velocity, steps=6)
        fine = 2 * F.interpolate(displacement, size=self.fixed.shape[2:], mode="trilinear")
        row: dict[str, float] = {}
        if self.fixed_labels is not None and self.moving_labels is not None:
            row |= self._group_dice(warp(self.moving_labels, displacement))
        inside = self.fixed > 0
        row["similarity"] = float(
            local_ncc(self.fixed, warp(self.moving, fine), window=9, mask=inside.float())
        )
        determinant = _determinant(displacement)
        coarse = F.avg_pool3d(inside.float(), 2)[0, 0].cpu().numpy() > 0.5
        row["sd_log_jacobian"] = sd_log_jacobian(determinant, coarse)
        row["folding_percent"] = folding_percent(determinant, coarse)
        return row

    def _group_dice(self, moved: torch.Tensor) -> dict[str, float]:
        """Soft Dice of shares: mean over labels present in both, overall and by group."""
        assert self.fixed_labels is not None
        overlap = torch.minimum(self.fixed_labels, moved).flatten(2).sum(2)[0]
        sizes = [labels.flatten(2).sum(2)[0] for labels in (self.fixed_labels, moved)]
        each = (2 * overlap / (sizes[0] + sizes[1]).clamp_min(1e-6)).cpu().numpy()
        present = ((sizes[0] > 1) & (sizes[1] > 1)).cpu().numpy()
        row = {"dice_all": float(each[present].mean()) if present.any() else 0.0}
        for name, members in self.groups.items():
            chosen = [i for i, n in enumerate(self.numbers) if n in members and present[i]]
            if chosen:
                row[f"dice_{name}"] = float(each[chosen].mean())
        return row


def _determinant(displacement: torch.Tensor) -> np.ndarray:
    """Jacobian determinant of a displacement in voxels; the voxels' size does not change it."""
    data = displacement[0].movedim(0, -1).cpu().numpy()
    return jacobian_determinant(DisplacementField(Grid(data.shape[:3], np.eye(4)), data.astype(np.float32)))


def make_pair(
    grid: Grid,
    fixed: tuple[Any, ...],
    moving: tuple[Any, ...],
    where: torch.device,
    groups: Mapping[str, tuple[int, ...]] = REGION_GROUPS,
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

    Raises
    ------
    ScanError
        When nothing of a brain lies on the grid.
    """
    images: list[torch.Tensor] = []
    labels: list[np.ndarray | None] = []
    for name, (image, mask, dseg, point_map) in (("fixed", fixed), ("moving", moving)):
        values = sample_averaged(image, grid, point_map)
        inside = (
            values > 0
            if mask is None
            else resample(mask, grid, [point_map], interpolation="nearest").get_fdata() > 0
        )
        if inside.sum() < 1000:
            raise ScanError(
                f"Almost nothing of the {name} brain lies where the template's brain is: the affine "
                "prealignment is wrong."
            )
        images.append(torch.from_numpy(robust_rescale(values, inside) * inside)[None, None].float().to(where))
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
    return BrainPair(images[0], images[1], shares[0], shares[1], numbers, groups)
