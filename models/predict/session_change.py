"""What changed in one brain between two sessions: maps on both, and what appeared or disappeared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy import ndimage

from hyperprep.models.predict.outliers import change_regions, outliers
from hyperprep.models.predict.topology import TopologyChange, Transforms, topology_change
from hyperprep.models.spatial.controls import MIN_VOLUME_MM3, ControlStatistics
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.measures import jacobian_determinant
from hyperprep.models.spatial.transforms import resample

APPEARED, DISAPPEARED = 1, 2
"""Numbers in the masks of a session change."""

QUANTILE = 0.995
"""Without control statistics, regions are cut at this quantile of the scores themselves."""

THIN_VOXELS = 2
"""Radius, in voxels of the network's grid, of places by which brain masks differ through error."""


@dataclass(frozen=True, eq=False)
class SessionChange:
    """Change between two sessions; images lie on the sessions' own grids.

    Attributes
    ----------
    first_score, second_score
        float32 L_sym, nats: the first session explained by the second, and the second by the first.
    first_z, second_z
        Calibrated z-scores against pairs of sessions without change; None without such statistics.
    first_mask, second_mask
        uint8: :data:`APPEARED` or :data:`DISAPPEARED` where a region is, else 0.
    rows
        One per region of the second session: what :func:`~hyperprep.models.spatial.regions.describe_regions`
        gives, with ``direction`` and ``log_volume_change`` (mean log of the volume in the second session
        divided by that in the first, affine alignments included; above 0 where the region grew).
    change
        The scores on the network's grid; its fixed side is the first session.
    metrics
        Flat figures.
    """

    first_score: nb.Nifti1Image
    second_score: nb.Nifti1Image
    first_z: nb.Nifti1Image | None
    second_z: nb.Nifti1Image | None
    first_mask: nb.Nifti1Image
    second_mask: nb.Nifti1Image
    rows: Sequence[dict[str, Any]]
    change: TopologyChange
    metrics: dict[str, Any]


def compare_sessions(
    first: nb.Nifti1Image,
    second: nb.Nifti1Image,
    *,
    frame2first: np.ndarray,
    frame2second: np.ndarray,
    first_mask: nb.Nifti1Image | None = None,
    second_mask: nb.Nifti1Image | None = None,
    second_dseg: nb.Nifti1Image | None = None,
    first_outlier: nb.Nifti1Image | None = None,
    second_outlier: nb.Nifti1Image | None = None,
    transforms: Transforms | None = None,
    controls: ControlStatistics | None = None,
    min_volume_mm3: float = MIN_VOLUME_MM3,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> SessionChange:
    """Map what changed between two sessions of one person, and in which direction.

    A difference between two images does not say in which of them something unusual is. Where each session
    was compared with the template before, that decides: a region *appeared* if the second session is more
    unusual there than the first, and *disappeared* if it is less. Without those maps the two directions of
    this pair decide: a thing that grew out of little is worse explained by the session without it.

    Parameters
    ----------
    first, second
        Images of the two sessions on their own grids.
    frame2first, frame2second
        (4, 4) from the template frame to each of them: their affine alignments. What they differ by beyond
        the head's position is taken up by ``transforms``.
    first_mask, second_mask
        Brain masks on the images' grids.
    second_dseg
        FreeSurfer numbers on the second image's grid: names of the structures that regions touch.
    first_outlier, second_outlier
        z-scores of each session against the template, on its own grid.
    transforms
        Point maps first to second and back, affine part included.
    controls
        Statistics of the kind ``"sessions"``.
    min_volume_mm3
        Smaller regions are left out.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Raises
    ------
    ScanError
        When a brain does not lie on the network's grid, or statistics do not fit.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    change = topology_change(
        first,
        second,
        fixed2moving=np.asarray(frame2second, float) @ np.linalg.inv(frame2first),
        frame2fixed=frame2first,
        fixed_mask=first_mask,
        moving_mask=second_mask,
        transforms=transforms,
        weights=weights,
        weights_dir=weights_dir,
        device=device,
        num_threads=num_threads,
    )
    grids = Grid.of(first), Grid.of(second)
    place = change.on_fixed, change.on_moving

    def put(values: Sequence[np.ndarray]) -> list[nb.Nifti1Image]:
        """Bring a pair of maps onto the sessions' own grids."""
        return [bring(one, grid) for bring, one, grid in zip(place, values, grids, strict=True)]

    maps = [change.fixed_score, change.moving_score]
    scores = put(maps)
    found = None if controls is None else outliers(change, controls)
    cut = [float(np.quantile(v[v != 0], QUANTILE)) if v.any() else np.inf for v in maps]
    images = scores
    if found is not None:
        images, cut = put([found.fixed_z, found.moving_z]), [found.threshold] * 2
    sides = put(_surplus(change, first_outlier, second_outlier))
    shared = [np.asanyarray(img.dataobj) > 0.5 for img in put(_shared(change))]
    masks: list[nb.Nifti1Image] = []
    rows: list[dict[str, Any]] = []
    growth = np.asanyarray(change.on_moving(_log_growth(change), grids[1]).dataobj)
    for image, both, side, threshold, mask, dseg in (
        (images[0], shared[0], sides[0], cut[0], first_mask, None),
        (images[1], shared[1], sides[1], cut[1], second_mask, second_dseg),
    ):
        inside = both if mask is None else both & (np.asanyarray(mask.dataobj) > 0)
        regions = change_regions(
            image,
            threshold=threshold,
            min_volume_mm3=min_volume_mm3,
            mask=nb.Nifti1Image(inside.astype(np.uint8), image.affine),
            dseg=dseg,
        )
        labels = np.zeros(image.shape, np.uint8)
        more = np.asanyarray(side.dataobj)
        rows = []
        for row in regions.rows:
            inside = regions.numbers == row["index"]
            appeared = bool(more[inside].mean() >= 0)
            labels[inside] = APPEARED if appeared else DISAPPEARED
            rows.append({**row, "direction": "appeared" if appeared else "disappeared"})
            if image is images[1]:
                rows[-1]["log_volume_change"] = round(float(growth[inside].mean()), 3)
        masks.append(nb.Nifti1Image(labels, image.affine))
    metrics = {
        **change.metrics,
        **({"threshold_nats": cut[1]} if controls is None else _calibration(controls)),
        "calibrated": controls is not None,
        "direction_from": "template" if first_outlier is not None and second_outlier is not None else "pair",
        "regions_appeared": sum(row["direction"] == "appeared" for row in rows),
        "regions_disappeared": sum(row["direction"] == "disappeared" for row in rows),
    }
    z = images if found is not None else [None, None]
    return SessionChange(scores[0], scores[1], z[0], z[1], masks[0], masks[1], rows, change, metrics)


def _shared(change: TopologyChange) -> tuple[np.ndarray, np.ndarray]:
    """Say where regions are looked for, on the first side and on the second.

    Where only one of the brain masks reaches, it is mostly the masks that differ: such places are left out,
    with a voxel of the common rim, unless they are thicker than :data:`THIN_VOXELS` (an open resection).
    """
    ball = np.linalg.norm(np.indices([2 * THIN_VOXELS + 1] * 3) - THIN_VOXELS, axis=0) <= THIN_VOXELS

    def place(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        both = own & (other > 0.5)
        thick = ndimage.binary_opening(own & ~both, ball)
        return (ndimage.binary_erosion(both) | thick).astype(np.float32)

    first, second = change.fixed_brain, change.moving_brain
    return place(first, change.to_fixed(second)), place(second, change.to_moving(first))


def _log_growth(change: TopologyChange) -> np.ndarray:
    """Give the log of volume in the second session over volume in the first, on the second's side."""
    scales = [float(np.linalg.det(m[:3, :3])) for m in (change.frame2fixed, change.frame2moving)]
    determinant = jacobian_determinant(change.backward) * scales[0] / scales[1]
    return np.asarray(-np.log(np.clip(determinant, 1e-3, None)))


def _calibration(controls: ControlStatistics) -> dict[str, Any]:
    return {"threshold": controls.threshold, "controls": len(controls.controls)}


def _surplus(
    change: TopologyChange, first: nb.Nifti1Image | None, second: nb.Nifti1Image | None
) -> tuple[np.ndarray, np.ndarray]:
    """Give how much more unusual the second session is than the first, on the first and on the second.

    Both maps lie on the network's grid. The transport between the two sides is that of the scores.
    """
    if first is None or second is None:
        one, other = change.fixed_own, change.moving_own
    else:
        one = resample(first, change.grid, [change.frame2fixed]).get_fdata(dtype=np.float32)
        other = resample(second, change.grid, [change.frame2moving]).get_fdata(dtype=np.float32)
    on_second = other - change.to_moving(one)
    return change.to_fixed(other) - one, on_second
