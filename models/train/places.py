"""Where structures lie in the template frame, on average over the training label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_NOWHERE = (24,)
"""Structures whose centre says nothing of their place: the fluid around the brain."""


def places_of_maps(maps_file: Path) -> dict[str, Any]:
    """Give what the label maps say of the places of things in the template frame, for ``locate``.

    Returns
    -------
    dict
        Means over the maps: ``template_centroids`` (FreeSurfer number, as text, to RAS mm) and
        ``template_brain``, the closed mask's (``volume_mm3`` to three digits, ``centre_mm`` in whole mm).

    Raises
    ------
    NoInputError
        When the file is not there.
    """
    import numpy as np

    from hyperprep.models.synth.maps import ORIGIN_MM, load_maps

    brain = load_maps(maps_file).brain.numpy()
    volumes = [float(one.sum()) for one in brain]
    centres = [[np.average(np.arange(n), weights=one.sum(tuple({0, 1, 2} - {axis})))
                for axis, n in enumerate(one.shape)] for one in brain]  # fmt: skip
    centre = np.mean(centres, axis=0) + np.array(ORIGIN_MM)
    return {
        "template_centroids": centroids_of_maps(maps_file),
        "template_brain": {
            "volume_mm3": float(f"{np.mean(volumes):.3g}"),
            "centre_mm": [float(round(value)) + 0.0 for value in centre],
        },
    }


def centroids_of_maps(maps_file: Path) -> dict[str, list[float]]:
    """Give the mean centroid of every structure that has a place over the prepared label maps.

    Returns
    -------
    dict
        FreeSurfer number, as text, to RAS mm in the template frame.

    Raises
    ------
    NoInputError
        When the file is not there.
    """
    import numpy as np

    from hyperprep.models.synth.maps import ORIGIN_MM, load_maps
    from hyperprep.models.synth.structures import STRUCTURES

    maps = load_maps(maps_file)
    table, count = maps.lookup(STRUCTURES).numpy(), len(STRUCTURES) + 1
    means = []
    for one in maps.maps.numpy():
        structure = table[one]
        sums = np.zeros((3, count))
        for axis in range(3):
            for place, plane in enumerate(np.moveaxis(structure, axis, 0)):
                sums[axis] += place * np.bincount(plane.ravel(), minlength=count)
        means.append((sums / np.bincount(structure.ravel(), minlength=count)).T[1:])
    mean = np.nanmean(np.array(means), axis=0) + np.array(ORIGIN_MM)
    return {
        str(n): [round(float(v), 2) for v in row]
        for n, row in zip(STRUCTURES, mean, strict=True)
        if n not in _NOWHERE
    }
