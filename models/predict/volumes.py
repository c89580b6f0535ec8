"""From a segmentation to tissues, volumes and a verdict on their plausibility."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import nibabel as nb
import numpy as np

from hyperprep.models.spatial.labels import LEAVES, SUPER_REGIONS, TISSUES, Region, resolve_labels

TISSUE_NUMBERS = {"GM": 1, "WM": 2, "CSF": 3}
"""Numbers of the three-tissue segmentation (the common labels of BIDS derivatives)."""

INTRACRANIAL, INTRACRANIAL_NAME = 30000, "EstimatedTotalIntraCranialVol"
"""Number and name (FreeSurfer's) of the row with the estimated total intracranial volume."""

TEMPLATE_INTRACRANIAL_MM3 = 1_948_000.0
"""What a head of the template's size is taken to have.

It is the one factor by which FreeSurfer scales the volume change of the affine alignment to MNI space
(Buckner et al. 2004, NeuroImage 23:724).
"""

_REGIONS: dict[int, Region] = {region.index: region for region in (*SUPER_REGIONS, *LEAVES)}


class VolumeRow(TypedDict):
    """One line of the volumes table.

    ``relative_volume`` is the volume divided by that of the average structure scaled to this head, and
    ``expected_dice`` the overlap with the truth that the probabilities promise; both may be missing.
    """

    index: int
    name: str
    volume_mm3: float
    relative_volume: NotRequired[float | None]
    expected_dice: NotRequired[float | None]


def voxel_volume(img: nb.Nifti1Image) -> float:
    """Volume of one voxel in mm^3.

    Examples
    --------
    >>> voxel_volume(nb.Nifti1Image(np.zeros((7, 8, 9), np.uint8), np.diag([1, 2, -3, 1])))
    6.0
    """
    return float(abs(np.linalg.det(img.affine[:3, :3])).round(9))


def tissue_dseg(dseg: nb.Nifti1Image) -> nb.Nifti1Image:
    """Grey matter 1, white matter 2, CSF 3 from a segmentation with FreeSurfer numbers.

    Parameters
    ----------
    dseg
        ``(X, Y, Z)`` whole numbers.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, same grid; 0 where no leaf label is.

    Examples
    --------
    >>> img = nb.Nifti1Image(np.array([[[0, 17, 41, 4]]], np.int16), np.eye(4))
    >>> np.asarray(tissue_dseg(img).dataobj).ravel().tolist()
    [0, 1, 2, 3]
    """
    numbers = np.asanyarray(dseg.dataobj)
    tissues = np.zeros(dseg.shape, dtype=np.uint8)
    for name, number in TISSUE_NUMBERS.items():
        tissues[np.isin(numbers, TISSUES[name])] = number
    return nb.Nifti1Image(tissues, dseg.affine)


def tissue_legend() -> list[dict[str, str | int]]:
    """Rows of the TSV that explains a three-tissue segmentation.

    Examples
    --------
    >>> [row["name"] for row in tissue_legend()]
    ['Grey matter', 'White matter', 'Cerebrospinal fluid']
    """
    names = {"GM": "Grey matter", "WM": "White matter", "CSF": "Cerebrospinal fluid"}
    return [
        {"index": number, "name": names[short], "abbreviation": short}
        for short, number in TISSUE_NUMBERS.items()
    ]


def measure_volumes(dseg: nb.Nifti1Image, mask: nb.Nifti1Image | None = None) -> list[VolumeRow]:
    """Count voxels of every label, and of every super-region whose leaves are all there.

    Parameters
    ----------
    dseg
        ``(X, Y, Z)`` segmentation with the numbers of :mod:`hyperprep.models.spatial.labels`.
    mask
        Brain mask on any grid; adds the row ``brain-mask`` with index 0.

    Returns
    -------
    list of dict
        ``index``, ``name``, ``volume_mm3``; unknown numbers are named ``label-<number>``.

    Examples
    --------
    >>> img = nb.Nifti1Image(np.array([[[0, 17, 17, 4]]], np.int16), np.diag([2, 2, 2, 1]))
    >>> [(row["name"], row["volume_mm3"]) for row in measure_volumes(img)]
    [('Left-Lateral-Ventricle', 8.0), ('Left-Hippocampus', 16.0)]
    """
    size = voxel_volume(dseg)
    present, counts = np.unique(np.asanyarray(dseg.dataobj), return_counts=True)
    rows = [
        VolumeRow(index=int(number), name=region_name(int(number)), volume_mm3=round(int(n) * size, 3))
        for number, n in zip(present, counts, strict=True)
        if number
    ]
    return complete_volumes(rows, mask)


def complete_volumes(rows: Sequence[VolumeRow], mask: nb.Nifti1Image | None = None) -> list[VolumeRow]:
    """Add the super-regions whose leaves are all there, and the brain mask.

    Parameters
    ----------
    rows
        Volumes of leaves (and of super-regions, which are kept).
    mask
        Brain mask; adds the row ``brain-mask`` with index 0.

    Returns
    -------
    list of dict
        Sorted by index.

    Examples
    --------
    >>> rows = [VolumeRow(index=n, name=region_name(n), volume_mm3=10.0) for n in (3, 42)]
    >>> complete_volumes(rows)[-1]
    {'index': 30007, 'name': 'cortex', 'volume_mm3': 20.0}
    """
    known = {row["index"]: row for row in rows}
    for region in SUPER_REGIONS:
        if region.index not in known and all(number in known for number in region.numbers):
            known[region.index] = _sum_of([known[number] for number in region.numbers], region)
    if mask is not None:
        inside = int(np.count_nonzero(np.asanyarray(mask.dataobj)))
        volume = round(inside * voxel_volume(mask), 3)
        known[0] = VolumeRow(index=0, name="brain-mask", volume_mm3=volume)
    return [known[index] for index in sorted(known)]


def _sum_of(parts: Sequence[VolumeRow], region: Region) -> VolumeRow:
    """Put the rows of a region's leaves together."""
    total = sum(part["volume_mm3"] for part in parts)
    row = VolumeRow(index=region.index, name=region.name, volume_mm3=round(total, 3))
    relative = [part.get("relative_volume") for part in parts]
    if all(relative):
        usual = sum(part["volume_mm3"] / (share or 1) for part, share in zip(parts, relative, strict=True))
        row["relative_volume"] = round(total / usual, 3)
    return row


def paint_regions(
    dseg: nb.Nifti1Image, regions: Mapping[str, nb.Nifti1Image], own: Sequence[Region] = ()
) -> nb.Nifti1Image:
    """Put regions into a segmentation of leaves: super-regions where no leaf is, own regions over leaves.

    Of regions that overlap, small ones lie over large ones.

    Parameters
    ----------
    dseg
        ``(X, Y, Z)`` FreeSurfer numbers.
    regions
        Name of a super-region or own region to its mask on the same grid.
    own
        The own regions that there are.

    Returns
    -------
    nibabel.Nifti1Image
        int16, same grid.

    Raises
    ------
    UsageError
        If a name is neither.

    Examples
    --------
    >>> leaves = nb.Nifti1Image(np.array([[[17, 0, 0]]], np.int16), np.eye(4))
    >>> mask = nb.Nifti1Image(np.array([[[1, 1, 0]]], np.uint8), np.eye(4))
    >>> np.asarray(paint_regions(leaves, {"brain": mask}).dataobj).ravel().tolist()
    [17, 30001, 0]
    """
    named = {region.name: region for region in resolve_labels(regions, own)} if regions else {}
    masks = {name: np.asanyarray(img.dataobj) > 0 for name, img in regions.items()}
    leaves = np.asanyarray(dseg.dataobj)
    below, above = (np.zeros(dseg.shape, dtype=np.int16) for _ in range(2))
    for name in sorted(masks, key=lambda name: -int(masks[name].sum())):
        (above if named[name].is_own else below)[masks[name]] = named[name].index
    painted = np.where(above != 0, above, np.where(leaves != 0, leaves, below))
    return nb.Nifti1Image(painted.astype(np.int16), dseg.affine)


def expected_dice(hits: float, probability: float, count: int) -> float:
    """Give the Dice coefficient that labels have with the truth if their probabilities are right.

    Parameters
    ----------
    hits
        Sum of the probability where the label is.
    probability
        Sum of the probability everywhere.
    count
        Number of voxels of the label.

    Returns
    -------
    float
        2 hits / (probability + count), which replaces truth by its expectation; NaN if nothing is there.

    Examples
    --------
    >>> expected_dice(hits=8.0, probability=10.0, count=10)
    0.8
    """
    both = probability + count
    return 2 * hits / both if both > 0 else math.nan


def mean_overlap(overlaps: dict[int, float]) -> float:
    """Mean of the Dice values that exist; NaN if none does.

    Examples
    --------
    >>> mean_overlap({17: 0.5, 53: 0.7, 54: float("nan")})
    0.6
    """
    known = [value for value in overlaps.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def region_name(number: int) -> str:
    """Name of a label number; ``label-<number>`` where it has none.

    Examples
    --------
    >>> region_name(17), region_name(999)
    ('Left-Hippocampus', 'label-999')
    """
    region = _REGIONS.get(number)
    return region.name if region else f"label-{number}"
