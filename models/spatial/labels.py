"""Names, FreeSurfer numbers and colours of the regions that can be asked for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperprep.exceptions import UsageError


@dataclass(frozen=True)
class Region:
    """A part of the brain.

    Parameters
    ----------
    name
        FreeSurfer's name for a leaf (``Left-Hippocampus``), a short plural word for a super-region.
    numbers
        FreeSurfer numbers of the leaves that make it up; exactly one for a leaf, none for a region that
        somebody taught a network (:mod:`hyperprep.models.spatial.own_regions`).
    abbreviation
        Short name for file names and tables.
    color
        ``#rrggbb``; FreeSurfer's colour for a leaf.
    index
        Number that stands for the region in a ``dseg``: FreeSurfer's for a leaf, 30001 upwards for unions of
        leaves, 31001 upwards for own regions.
    """

    name: str
    numbers: tuple[int, ...]
    abbreviation: str
    color: str
    index: int

    @property
    def is_leaf(self) -> bool:
        """Whether the region is one FreeSurfer label."""
        return self.numbers == (self.index,)

    @property
    def is_own(self) -> bool:
        """Whether somebody taught the region to a network, so that no leaf tells of it."""
        return not self.numbers


# name without hemisphere, left number, right number, abbreviation, colour (FreeSurfer's colour table)
_PAIRS = (
    ("Cerebral-White-Matter", 2, 41, "CeWM", "#f5f5f5"),
    ("Cerebral-Cortex", 3, 42, "CeCx", "#cd3e4e"),
    ("Lateral-Ventricle", 4, 43, "LV", "#781286"),
    ("Cerebellum-White-Matter", 7, 46, "CbWM", "#dcf8a4"),
    ("Cerebellum-Cortex", 8, 47, "CbCx", "#e69422"),
    ("Thalamus", 10, 49, "Tha", "#00760e"),
    ("Caudate", 11, 50, "Cau", "#7abadc"),
    ("Putamen", 12, 51, "Put", "#ec0db0"),
    ("Pallidum", 13, 52, "Pal", "#0d30ff"),
    ("Hippocampus", 17, 53, "Hip", "#dcd814"),
    ("Amygdala", 18, 54, "Amy", "#67ffff"),
    ("Accumbens-area", 26, 58, "Acc", "#ffa500"),
    ("VentralDC", 28, 60, "VDC", "#a52a2a"),
)
_MIDLINE = (
    ("3rd-Ventricle", 14, "3V", "#ccb68e"),
    ("4th-Ventricle", 15, "4V", "#2acca4"),
    ("Brain-Stem", 16, "BS", "#779fb0"),
    ("CSF", 24, "CSF", "#3c3c3c"),
)

PAIRED: tuple[tuple[int, int], ...] = tuple((row[1], row[2]) for row in _PAIRS)
"""FreeSurfer numbers of each structure that there is twice: left, right."""
MIDLINE: tuple[int, ...] = tuple(row[1] for row in _MIDLINE)
"""FreeSurfer numbers of those that there is once."""


def _leaves() -> tuple[Region, ...]:
    regions = [Region(name, (number,), short, color, number) for name, number, short, color in _MIDLINE]
    for name, left, right, short, color in _PAIRS:
        regions.append(Region(f"Left-{name}", (left,), f"L{short}", color, left))
        regions.append(Region(f"Right-{name}", (right,), f"R{short}", color, right))
    return tuple(sorted(regions, key=lambda region: region.index))


LEAVES: tuple[Region, ...] = _leaves()
"""The 30 labels that segmentations are written with, by FreeSurfer number."""

ALIASES: dict[int, int] = {5: 4, 44: 43}
"""FreeSurfer numbers that are merged into a leaf: the inferior lateral ventricles into the lateral ones."""

_LEFT = tuple(row[1] for row in _PAIRS)
_RIGHT_OF = {row[1]: row[2] for row in _PAIRS}

# name, left (or both-sided) leaves, midline leaves, abbreviation, colour
_SUPER = (
    ("brain", _LEFT, (14, 15, 16), "Brain", "#c8c8c8"),
    ("cerebrum", (2, 3, 4, 10, 11, 12, 13, 17, 18, 26, 28), (14,), "Cer", "#d7a08c"),
    ("cortex", (3,), (), "Cx", "#cd3e4e"),
    ("white-matter", (2, 7), (), "WM", "#f0f0dc"),
    ("deep-grey", (10, 11, 12, 13, 26), (), "DGM", "#3c8cb4"),
    ("ventricles", (4,), (14, 15), "Ven", "#8c3c96"),
    ("cerebellum", (7, 8), (), "Cb", "#e6b45a"),
    ("total-csf", (4,), (14, 15, 24), "TCSF", "#5a5a78"),
)


def _super_regions() -> tuple[Region, ...]:
    regions: list[Region] = []
    for name, left, midline, short, color in _SUPER:
        right = tuple(_RIGHT_OF[number] for number in left)
        members = [(name, (*left, *right, *midline), short)]
        if len(left) > 1:  # one side of a single pair is a leaf already
            members += [(f"left-{name}", left, f"L{short}"), (f"right-{name}", right, f"R{short}")]
        for full, numbers, abbreviation in members:
            regions.append(Region(full, tuple(sorted(numbers)), abbreviation, color, 30001 + len(regions)))
    return tuple(regions)


SUPER_REGIONS: tuple[Region, ...] = _super_regions()
"""Unions of leaves. ``brain`` is tissue and ventricles without the fluid around the brain (label 24);
``left-`` and ``right-`` regions leave out what lies in the midline."""

TISSUES: dict[str, tuple[int, ...]] = {
    "GM": (3, 8, 10, 11, 12, 13, 17, 18, 26, 42, 47, 49, 50, 51, 52, 53, 54, 58),
    "WM": (2, 7, 16, 28, 41, 46, 60),
    "CSF": (4, 14, 15, 24, 43),
}
"""FreeSurfer numbers of each tissue; every leaf belongs to exactly one."""

_SYNONYMS = {
    "left-cortex": (3,),
    "right-cortex": (42,),
    "left-ventricles": (4,),
    "right-ventricles": (43,),
    "left-ventricle": (4,),
    "right-ventricle": (43,),
    "brainstem": (16,),
    "third-ventricle": (14,),
    "fourth-ventricle": (15,),
    "cerebral-wm": (2, 41),
    "cerebellar-white-matter": (7, 46),
    "cerebellar-cortex": (8, 47),
    "thalamus-proper": (10, 49),
    "left-thalamus-proper": (10,),
    "right-thalamus-proper": (49,),
    "accumbens": (26, 58),
    "left-accumbens": (26,),
    "right-accumbens": (58,),
    "ventral-diencephalon": (28, 60),
    "inferior-lateral-ventricle": (4, 43),
    "inf-lat-vent": (4, 43),
    "left-inf-lat-vent": (4,),
    "right-inf-lat-vent": (43,),
    "extraventricular-csf": (24,),
}
_SUPER_SYNONYMS = {"deep-grey-matter": "deep-grey", "all-csf": "total-csf", "wm": "white-matter"}


def fold(name: str) -> str:
    """Return a name without case, spaces, dashes and underscores; gray is grey.

    >>> fold("Left Gray_Matter")
    'leftgreymatter'
    """
    return re.sub(r"[^0-9a-z]", "", name.lower()).replace("gray", "grey")


def _dictionary() -> dict[str, tuple[str, tuple[Region, ...]]]:
    """Folded name -> (readable name, regions)."""
    leaf = {region.index: region for region in LEAVES}
    named: list[tuple[str, tuple[Region, ...]]] = [
        (region.name, (region,)) for region in (*SUPER_REGIONS, *LEAVES)
    ]
    named += [(name.lower(), (leaf[left], leaf[right])) for name, left, right, _, _ in _PAIRS]
    named += [(name, tuple(leaf[number] for number in numbers)) for name, numbers in _SYNONYMS.items()]
    supers = {region.name: region for region in SUPER_REGIONS}
    named += [(synonym, (supers[name],)) for synonym, name in _SUPER_SYNONYMS.items()]
    named += [(str(region.index), (region,)) for region in (*LEAVES, *SUPER_REGIONS)]
    named += [(str(number), (leaf[target],)) for number, target in ALIASES.items()]
    named.append(("all", LEAVES))
    return {fold(name): (name, regions) for name, regions in reversed(named)}


def without_side(name: str) -> str:
    """Give a region's name without the side that it begins with.

    >>> without_side("Left-Claustrum"), without_side("RightClaustrum"), without_side("Leftover")
    ('Claustrum', 'Claustrum', 'Leftover')
    """
    return re.sub(r"^([Ll]eft|[Rr]ight)([-_ ]|(?=[A-Z]))", "", name)


def _own_dictionary(own: Sequence[Region]) -> dict[str, tuple[str, tuple[Region, ...]]]:
    """Folded name -> (readable name, regions) of own regions."""
    found: dict[str, tuple[str, tuple[Region, ...]]] = {}
    for region in own:
        both = without_side(region.name)
        if both != region.name:
            found[fold(both)] = (both, (*found.get(fold(both), ("", ()))[1], region))
    for region in own:
        found[fold(region.name)] = found[str(region.index)] = (region.name, (region,))
    return found


def known_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Give those names that every installation knows, or ``all`` where there is none.

    Examples
    --------
    >>> known_labels(["hippocampus", "claustrum"]), known_labels(["claustrum"])
    (('hippocampus',), ('all',))
    """
    return tuple(name for name in names if is_known(name)) or ("all",)


def is_known(name: str) -> bool:
    """Say whether a name stands for regions that every installation knows.

    Examples
    --------
    >>> is_known("left hippocampus"), is_known("claustrum")
    (True, False)
    """
    return fold(name) in _dictionary()


def resolve_labels(names: Iterable[str | int], own: Sequence[Region] = ()) -> tuple[Region, ...]:
    """Regions that names stand for.

    Parameters
    ----------
    names
        Names of leaves with or without hemisphere (without: both sides), FreeSurfer numbers, super-regions,
        or ``all`` (every leaf). Case, spaces, dashes and underscores do not matter.
    own
        Further regions, which weights know; also by number, and both sides by the name without side.

    Returns
    -------
    tuple of Region
        In the order asked for, each region once.

    Raises
    ------
    UsageError
        If a name is unknown (near matches are listed) or none is given.

    Examples
    --------
    >>> [region.name for region in resolve_labels(["hippocampus", "16"])]
    ['Left-Hippocampus', 'Right-Hippocampus', 'Brain-Stem']
    >>> resolve_labels(["deep gray"])[0].numbers
    (10, 11, 12, 13, 26, 49, 50, 51, 52, 58)
    """
    known = {**_own_dictionary(own), **_dictionary()}
    chosen: dict[str, Region] = {}
    for name in names:
        entry = known.get(fold(str(name)))
        if entry is None:
            near = difflib.get_close_matches(fold(str(name)), known, n=4, cutoff=0.5)
            hint = (
                f"near matches: {', '.join(known[key][0] for key in near)}" if near else "no name is similar"
            )
            supers = ", ".join(region.name for region in (*SUPER_REGIONS, *own))
            raise UsageError(
                f"Unknown label '{name}' ({hint}). Use a FreeSurfer name or number, one of {supers}, or all."
            )
        chosen.update({region.name: region for region in entry[1]})
    if not chosen:
        raise UsageError("No label was asked for: name at least one region, or all.")
    return tuple(chosen.values())


def legend(regions: Sequence[Region]) -> list[dict[str, str | int]]:
    """Rows of the TSV that explains a ``dseg``.

    Examples
    --------
    >>> legend(resolve_labels(["amygdala"]))[0]
    {'index': 18, 'name': 'Left-Amygdala', 'abbreviation': 'LAmy', 'color': '#67ffff'}
    """
    return [
        {
            "index": region.index,
            "name": region.name,
            "abbreviation": region.abbreviation,
            "color": region.color,
        }
        for region in regions
    ]


def renumber(dseg: np.ndarray, mapping: dict[int, int], *, keep_others: bool = False) -> np.ndarray:
    """Replace label numbers.

    Parameters
    ----------
    dseg
        Whole numbers >= 0, any shape.
    mapping
        Old number to new number.
    keep_others
        Whether numbers that the mapping does not name stay; else they become 0.

    Returns
    -------
    numpy.ndarray
        int32, same shape.

    Examples
    --------
    >>> renumber(np.array([0, 5, 17]), {5: 4}, keep_others=True).tolist()
    [0, 4, 17]
    """
    numbers, where = np.unique(dseg, return_inverse=True)
    new = [mapping.get(int(number), int(number) if keep_others else 0) for number in numbers]
    return np.asarray(new, dtype=np.int32)[where].reshape(dseg.shape)


def to_leaves(dseg: np.ndarray) -> np.ndarray:
    """Reduce a FreeSurfer segmentation (``aseg`` or ``aparc+aseg``) to the numbers of the leaves.

    Aliases are merged, cortical parcels (1000-2999, 11100-12999) become cortex, all other numbers 0.

    Examples
    --------
    >>> to_leaves(np.array([5, 17, 1022, 2035, 85])).tolist()
    [4, 17, 3, 42, 0]
    """
    mapping = {region.index: region.index for region in LEAVES} | ALIASES
    for number in np.unique(dseg).astype(int).tolist():
        if 1000 <= number < 2000 or 11100 <= number < 12000:
            mapping[number] = 3
        elif 2000 <= number < 3000 or 12000 <= number < 13000:
            mapping[number] = 42
    return renumber(dseg, mapping)


NEUROMORPHOMETRICS: dict[int, int] = {
    4: 14, 11: 15, 23: 58, 30: 26, 31: 54, 32: 18, 35: 16, 36: 50, 37: 11, 38: 47, 39: 8, 40: 46, 41: 7,
    44: 41, 45: 2, 47: 53, 48: 17, 49: 43, 50: 4, 51: 43, 52: 4, 55: 52, 56: 13, 57: 51, 58: 12, 59: 49,
    60: 10, 61: 60, 62: 28,
}  # fmt: skip
"""Neuromorphometrics number to FreeSurfer number, without the cortical parcels.

The inferior horns (49, 50) go to the lateral ventricles, of which they are part here (:data:`ALIASES`).
"""


def manual_to_freesurfer(dseg: np.ndarray) -> np.ndarray:
    """Neuromorphometrics label numbers as FreeSurfer leaves.

    Parcels (100 and above) become cortex: even numbers right, odd numbers left. Numbers without a
    counterpart become 0.

    Examples
    --------
    >>> manual_to_freesurfer(np.array([59, 48, 100, 101, 69])).tolist()
    [49, 17, 42, 3, 0]
    """
    parcels = {int(number): 3 if number % 2 else 42 for number in np.unique(dseg) if number >= 100}
    return renumber(dseg, NEUROMORPHOMETRICS | parcels)
