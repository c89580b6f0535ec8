"""Topology-change scores read against those of controls: excess, z-scores, regions, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nb
import numpy as np

from hyperprep.exceptions import ScanError
from hyperprep.models.predict.topology import TopologyChange
from hyperprep.models.spatial.controls import MIN_VOLUME_MM3, ControlStatistics
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import to_leaves
from hyperprep.models.spatial.regions import describe_regions, label_regions

WEIGHT_FROM = 2.0
"""z-score up to which a place keeps its full weight in a registration."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """What of a pair's scores controls do not show; (X, Y, Z) float32 on the network's grid.

    Attributes
    ----------
    fixed_excess, moving_excess
        Q: the score, averaged as those of the controls were, less their mean at that place, nats (eq. 7).
    fixed_z, moving_z
        Calibrated z-scores: as rare among controls as z among normal numbers.
    threshold
        z at which a control has one region on average.
    """

    fixed_excess: np.ndarray
    moving_excess: np.ndarray
    fixed_z: np.ndarray
    moving_z: np.ndarray
    threshold: float


def outliers(change: TopologyChange, controls: ControlStatistics) -> Outliers:
    """Compare a pair's scores with those of controls (Czolbe et al. 2021, eq. 7, one reference).

    The controls' mean lies on the fixed side: the template, or the first session. It is transported to the
    moving side by the same displacement that the score has.

    Parameters
    ----------
    change
        Scores of a pair whose fixed side lies in the controls' frame.
    controls
        Their statistics.

    Raises
    ------
    ScanError
        When the statistics were made on another grid or by another network.
    """
    if not change.grid.same_as(controls.grid) or change.weights_sha256 != controls.weights_sha256:
        raise ScanError(
            "The control statistics were made by other weights of the network 'topology': run the group "
            "level with --controls again, or leave them out."
        )
    shifted, spread = (change.to_moving(v) for v in (controls.mean, controls.sd))
    fixed = controls.comparable(change.fixed_score, change.fixed_brain)
    moving = controls.comparable(change.moving_score, change.moving_brain)
    known = change.to_moving(controls.mask.astype(np.float32)) > 0.5
    known &= change.moving_brain & (spread > 0)
    excess = np.where(known, moving - shifted, 0).astype(np.float32)
    deviation = np.divide(excess, spread, out=np.zeros_like(excess), where=known)
    inside = controls.mask & change.fixed_brain
    return Outliers(
        fixed_excess=np.where(inside, fixed - controls.mean, 0).astype(np.float32),
        moving_excess=excess,
        fixed_z=np.where(inside, controls.calibrate(controls.deviation(fixed)), 0),
        moving_z=np.where(known, controls.calibrate(deviation), 0).astype(np.float32),
        threshold=controls.threshold,
    )


def match_weight(z: np.ndarray, threshold: float) -> np.ndarray:
    """Give each place's weight in a registration's similarity: 1 where a match exists, 0 where none does.

    Parameters
    ----------
    z
        Calibrated z-scores.
    threshold
        z from which on a place has no weight; the weight falls linearly from :data:`WEIGHT_FROM` on.

    Examples
    --------
    >>> match_weight(np.array([0.0, 3.0, 4.0, 9.0]), 4.0).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    until = max(threshold, WEIGHT_FROM + 0.5)
    return np.clip((until - z) / (until - WEIGHT_FROM), 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ChangeRegions:
    """Connected regions above a threshold.

    Attributes
    ----------
    mask
        uint8 0/1 on the scan's grid.
    numbers
        (X, Y, Z) number of each region, the largest first.
    rows
        One per region: :func:`hyperprep.models.spatial.regions.describe_regions`.
    """

    mask: nb.Nifti1Image
    numbers: np.ndarray
    rows: Sequence[dict[str, Any]]


def change_regions(
    z: nb.Nifti1Image,
    *,
    threshold: float,
    min_volume_mm3: float = MIN_VOLUME_MM3,
    mask: nb.Nifti1Image | None = None,
    dseg: nb.Nifti1Image | None = None,
) -> ChangeRegions:
    """Cut a map of z-scores at a threshold and list its connected regions.

    Parameters
    ----------
    z
        (X, Y, Z) on the scan's grid.
    threshold
        From which z on a voxel counts.
    min_volume_mm3
        Smaller regions are left out.
    mask, dseg
        Brain mask and FreeSurfer numbers on the same grid.

    Examples
    --------
    >>> data = np.zeros((7, 8, 9), np.float32)
    >>> data[2:5, 2:5, 2:5] = 5
    >>> found = change_regions(nb.Nifti1Image(data, np.diag([2.0, 2, 2, 1])), threshold=4)
    >>> [row["volume_mm3"] for row in found.rows]
    [216.0]
    """
    grid, values = Grid.of(z), z.get_fdata(dtype=np.float32)
    above = values >= threshold
    if mask is not None:
        above &= np.asanyarray(mask.dataobj) > 0
    numbers, _ = label_regions(above, grid, min_volume_mm3=min_volume_mm3)
    leaves = None if dseg is None else to_leaves(np.asanyarray(dseg.dataobj))
    rows = describe_regions(numbers, values, grid, leaves)
    return ChangeRegions(nb.Nifti1Image((numbers > 0).astype(np.uint8), z.affine), numbers, rows)
