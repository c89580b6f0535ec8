"""A verdict on the volumes of a brain: what cannot be right, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hyperprep.models.predict.volumes import VolumeRow
from hyperprep.models.spatial.labels import LEAVES, TISSUES

_LEAVES = frozenset(region.index for region in LEAVES)

# ml; wide enough for children from about six years and for atrophied brains
_PLAUSIBLE_ML = {
    "brain": (700.0, 2100.0),
    "cortex": (200.0, 900.0),
    "white-matter": (200.0, 900.0),
    "deep-grey": (15.0, 90.0),
    "ventricles": (2.0, 250.0),
    "cerebellum": (60.0, 240.0),
    "Brain-Stem": (9.0, 45.0),
}
# of the average structure's volume, scaled to the head
_PLAUSIBLE_SHARE = (0.4, 2.5)
_PLAUSIBLE_SHARE_OF_FLUID = (0.1, 12.0)
_LARGEST_SIDE_RATIO = 2.0
_RATIO_FROM_ML = 0.5


def implausible_volumes(rows: Sequence[VolumeRow]) -> list[str]:
    """Say in words what cannot be right about a brain's volumes.

    Checks total sizes against wide limits, left against right (factor two, from 0.5 ml), and every structure
    against the average one scaled to this head, where the rows say its relative volume (0.4 to 2.5 times as
    large, spaces of fluid 0.1 to 12 times).

    Parameters
    ----------
    rows
        From :func:`measure_volumes`.

    Returns
    -------
    list of str
        One remark per finding; empty if all is plausible.

    Examples
    --------
    >>> rows = [VolumeRow(index=30001, name="brain", volume_mm3=300e3)]
    >>> rows.append(VolumeRow(index=17, name="Left-Hippocampus", volume_mm3=0.0, relative_volume=0.0))
    >>> implausible_volumes(rows)
    ['brain is 300 ml, expected 700 to 2100 ml', 'Left-Hippocampus is 0 ml, 0 of the average for this head']
    """
    ml = {row["name"]: row["volume_mm3"] / 1000 for row in rows}
    remarks = [
        f"{name} is {ml[name]:.4g} ml, expected {low:g} to {high:g} ml"
        for name, (low, high) in _PLAUSIBLE_ML.items()
        if name in ml and not low <= ml[name] <= high
    ]
    for name in ml:
        other = name.replace("Left-", "Right-", 1)
        if not name.startswith("Left-") or other not in ml or "Ventricle" in name:
            continue
        small, large = sorted((ml[name], ml[other]))
        if large >= _RATIO_FROM_ML and large > _LARGEST_SIDE_RATIO * small:
            remarks.append(f"{name} is {ml[name]:.3g} ml but {other} is {ml[other]:.3g} ml")
    return remarks + [remark for row in rows if (remark := _out_of_scale(row)) is not None]


def _out_of_scale(row: VolumeRow) -> str | None:
    """Say in words that a leaf's volume does not go with the size of the head."""
    share = row.get("relative_volume")
    if share is None or math.isnan(share) or row["index"] not in _LEAVES:
        return None
    low, high = _PLAUSIBLE_SHARE_OF_FLUID if row["index"] in TISSUES["CSF"] else _PLAUSIBLE_SHARE
    if low <= share <= high:
        return None
    return f"{row['name']} is {row['volume_mm3'] / 1000:.3g} ml, {share:.2g} of the average for this head"
