"""Structures as they are drawn: groups of FreeSurfer numbers, a colour each, and smooth outlines.

Colours are Paul Tol's "light" scheme (distinct for every common kind of colour vision, light enough for a
black ground). A colour serves twice only for structures that never touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from hyperprep.interfaces.base import read_table
from hyperprep.interfaces.reportlets.slices import sample
from hyperprep.models.spatial.labels import SUPER_REGIONS
from hyperprep.models.spatial.own_regions import FIRST_NUMBER


@dataclass(frozen=True)
class Group:
    """Structures drawn with one line.

    Attributes
    ----------
    name
        What the legend says.
    numbers
        FreeSurfer numbers.
    colour
        Hexadecimal RGB.
    """

    name: str
    numbers: tuple[int, ...]
    colour: str


GROUPS = (
    Group("Cerebral cortex", (3, 42), "#77aadd"),
    Group("Cerebral white matter", (2, 41), "#eedd88"),
    Group("Lateral ventricles", (4, 43, 5, 44), "#ffffff"),
    Group("Thalamus", (10, 49), "#ee8866"),
    Group("Caudate", (11, 50), "#44bb99"),
    Group("Putamen", (12, 51), "#ffaabb"),
    Group("Pallidum", (13, 52), "#bbcc33"),
    Group("Accumbens", (26, 58), "#99ddff"),
    Group("Hippocampus", (17, 53), "#44bb99"),
    Group("Amygdala", (18, 54), "#ee8866"),
    Group("Ventral DC", (28, 60), "#aaaa00"),
    Group("3rd and 4th ventricle, CSF", (14, 15, 24), "#99ddff"),
    Group("Brain stem", (16,), "#ffaabb"),
    Group("Cerebellar cortex", (8, 47), "#77aadd"),
    Group("Cerebellar white matter", (7, 46), "#eedd88"),
)
"""Groups in the order of the legend."""

OTHER_COLOUR = "#dddddd"


def groups_of(numbers: Sequence[int], named: Mapping[int, Group] | None = None) -> tuple[Group, ...]:
    """Find the groups that occur among some label numbers; super-regions and unknown numbers get one each.

    Parameters
    ----------
    numbers
        Numbers that occur.
    named
        Groups of further numbers, as a legend tells them.

    Examples
    --------
    >>> [group.name for group in groups_of([0, 10, 49, 17])]
    ['Thalamus', 'Hippocampus']
    >>> groups_of([999])
    (Group(name='Label 999', numbers=(999,), colour='#dddddd'),)
    """
    present = {int(number) for number in numbers} - {0}
    found = [group for group in GROUPS if present & set(group.numbers)]
    names = {region.index: region.name.replace("-", " ").capitalize() for region in SUPER_REGIONS}
    others = sorted(present - {number for group in GROUPS for number in group.numbers})
    for number in others:
        plain = Group(names.get(number, f"Label {number}"), (number,), OTHER_COLOUR)
        found.append((named or {}).get(number, plain))
    return tuple(found)


def read_own_groups(legend: Path) -> dict[int, Group]:
    """Read the own regions of a legend (TSV: index, name, color), each as a group of its own, by number."""
    rows = read_table(legend).to_dict("records")
    return {
        int(row["index"]): Group(str(row["name"]).replace("-", " "), (int(row["index"]),), str(row["color"]))
        for row in rows
        if int(row["index"]) >= FIRST_NUMBER
    }


def group_fields(
    dseg: nib.Nifti1Image,
    *,
    names: Sequence[str] | None = None,
    named: Mapping[int, Group] | None = None,
) -> Iterator[tuple[Group, Callable[[np.ndarray], np.ndarray]]]:
    """Give the groups of a segmentation with a function each from world points to membership in [0, 1].

    Parameters
    ----------
    dseg
        Label image, FreeSurfer numbers.
    names
        Only these groups.
    named
        As in :func:`groups_of`.

    Yields
    ------
    Group and a function (..., 3) RAS mm -> (...) float32 whose 0.5 level is the outline; NaN is returned for
    a plane that the group does not touch.
    """
    labels = np.asanyarray(dseg.dataobj).astype(np.int32)
    for group in groups_of(np.unique(labels).tolist(), named):
        if names is not None and group.name not in names:
            continue
        inside = np.isin(labels, group.numbers)
        box = ndimage.find_objects(inside.astype(np.uint8))[0]
        grown = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
        origin = np.eye(4)
        origin[:3, 3] = [part.start for part in grown]
        affine = dseg.affine @ origin
        crop = inside[grown].astype(np.float32)

        def field(points: np.ndarray, crop: np.ndarray = crop, affine: np.ndarray = affine) -> np.ndarray:
            return sample(crop, affine, points)

        yield group, field
