"""The structures that networks are trained on: numbers, mirror images, groups of one intensity.

Numbers are FreeSurfer's. Names and pairs come from :mod:`hyperprep.models.spatial.labels`; this is the one
place that says which of them are trained, and how. What a trained network knows stands in its metadata.
"""

from __future__ import annotations

from hyperprep.models.spatial.labels import ALIASES, MIDLINE, PAIRED, SUPER_REGIONS

STRUCTURES = (*(left for left, _ in PAIRED), *MIDLINE, *(right for _, right in PAIRED))
"""Structures in the order of the networks' conditions: left, midline, right."""

REGIONS: dict[str, tuple[int, ...]] = {
    region.name: () if region.name == "brain" else region.numbers
    for region in SUPER_REGIONS
    if region.name in ("brain", "cerebrum", "cortex", "white-matter", "deep-grey", "ventricles", "cerebellum")
}
"""Super-regions that are conditions of their own, after the structures; "brain" is the closed mask."""

MERGED = {**ALIASES, 25: 2, 57: 41, 30: 2, 62: 41}
"""Numbers that are trained as part of another structure (inferior horns, lesions, vessels)."""

_MIRRORED = (*PAIRED, (5, 44), (25, 57), (30, 62), (136, 137), (163, 164))

TISSUE_GROUPS: dict[str, tuple[int, ...]] = {
    "white": (2, 41),
    "cortex": (3, 42),
    "csf": (24,),
    "ventricle": (4, 43, 5, 44, 14, 15, 72),
    "cerebellar_white": (7, 46),
    "cerebellar_cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50, 26, 58),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "brainstem": (16, 28, 60),
    "hippocampus": (17, 53, 18, 54),
    "lesion": (25, 57),
    "vessel": (30, 62),
    "other": (85, 136, 137, 163, 164),
}
"""Structures that share one intensity distribution in a synthetic image (left and right alike)."""

_ALIKE = (
    ("white",),
    ("cortex", "hippocampus"),
    ("ventricle", "csf"),
    ("caudate", "putamen"),
    ("thalamus",),
    ("pallidum",),
    ("brainstem",),
    ("cerebellar_white",),
    ("cerebellar_cortex",),
)

_KINDS = {
    "white": 1, "brainstem": 1, "cerebellar_white": 1,
    "cortex": 2, "caudate": 2, "thalamus": 2, "pallidum": 2, "cerebellar_cortex": 2,
    "ventricle": 3,
}  # fmt: skip

TISSUE_KINDS: tuple[int, ...] = (0, *(_KINDS[groups[0]] for groups in _ALIKE))
"""Of each of a network's own tissues, not brain first: 1 white matter, 2 grey matter, 3 fluid, 0 none."""

INTENSITY_TISSUES: tuple[tuple[int, ...], ...] = tuple(
    tuple(number for group in groups for number in TISSUE_GROUPS[group] if number in STRUCTURES)
    for groups in _ALIKE
)
"""Structures that share one distribution in a network's own estimate, after whatever is not brain: groups of
``TISSUE_GROUPS`` that real contrasts hardly tell apart are one here."""


def mirrored(number: int) -> int:
    """Give the number of the same structure in the other hemisphere.

    >>> mirrored(17), mirrored(53), mirrored(16)
    (53, 17, 16)
    """
    for left, right in _MIRRORED:
        if number == left:
            return right
        if number == right:
            return left
    return number
