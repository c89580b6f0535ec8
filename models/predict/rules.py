"""What the metadata of weights say of their use: intensity rule, labels, thresholds.

Nothing of this stands in code, so that other weights for the same network can differ in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hyperprep.exceptions import UsageError, WeightsError
from hyperprep.models.spatial.images import robust_range, scaled_between
from hyperprep.models.spatial.labels import Region
from hyperprep.models.weights import WeightsEntry


def _stated(entry: WeightsEntry, *keys: str) -> Any:
    """Look a value up in the metadata.

    Raises
    ------
    WeightsError
        When it is not there.
    """
    value: Any = entry.metadata
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise WeightsError(
                f"The manifest beside {entry.path} says no {'.'.join(keys)!r} of '{entry.name}'. Write it: "
                f"python -m hyperprep.models.train describe --out {entry.path.parent}."
            )
        value = value[key]
    return value


def percentiles(entry: WeightsEntry) -> tuple[float, float]:
    """Give the two percentiles of the intensities inside the brain that become 0 and 1."""
    low, high = _stated(entry, "intensity", "percentiles")
    return float(low), float(high)


def rescaled(values: np.ndarray, inside: np.ndarray, entry: WeightsEntry) -> np.ndarray:
    """Bring intensities to [0, 1] as the network was trained to see them.

    Parameters
    ----------
    values
        Intensities, any shape.
    inside
        Same shape; where the brain is.
    entry
        Weights of the network.

    Returns
    -------
    numpy.ndarray
        float32, same shape.

    Raises
    ------
    ScanError
        When nothing is inside, or all intensities there are equal.
    WeightsError
        When the metadata lack the rule.
    """
    return scaled_between(values, intensity_range(values, inside, entry))


def intensity_range(values: np.ndarray, inside: np.ndarray, entry: WeightsEntry) -> tuple[float, float]:
    """Give the intensities that become 0 and 1; parameters and errors are those of :func:`rescaled`."""
    low, high = percentiles(entry)
    return robust_range(values, inside, low=low, high=high)


def template_brain(entry: WeightsEntry) -> tuple[float, np.ndarray]:
    """Give volume (mm^3) and centre ((3,), RAS mm) of the usual brain mask in the template frame.

    Raises
    ------
    WeightsError
        When the metadata lack them.
    """
    volume, centre = (_stated(entry, "template_brain", key) for key in ("volume_mm3", "centre_mm"))
    return float(volume), np.array(centre, float)


def threshold(entry: WeightsEntry, what: str) -> float:
    """Give the probability from which a voxel belongs to the ``"brain"``, or to a ``"structure"``.

    Raises
    ------
    WeightsError
        When the metadata lack it.
    """
    return float(_stated(entry, "threshold", what))


def temperature(entry: WeightsEntry) -> float:
    """Give what the structures' logits are divided by so that probabilities are right as often as they say.

    It is measured after training (Guo et al. 2017, On calibration of modern neural networks); 1 where it was
    not.
    """
    return float(entry.metadata.get("calibration", {}).get("temperature", 1.0))


def structures(entry: WeightsEntry) -> tuple[int, ...]:
    """Give the FreeSurfer numbers of the structures that the network knows, in the order of its conditions.

    Raises
    ------
    WeightsError
        When the metadata lack the labels.

    Examples
    --------
    >>> from hyperprep.models.weights import find_weights
    >>> structures(find_weights("segment"))[:3]
    (2, 3, 4)
    """
    return tuple(int(name) for name in _stated(entry, "labels") if name.isdecimal())


def check_known(asked: Iterable[Region], entry: WeightsEntry) -> None:
    """Check that the network knows every leaf of the regions asked for.

    Raises
    ------
    UsageError
        When it does not.
    """
    known = set(structures(entry))
    unknown = [region.name for region in asked if not known.issuperset(region.numbers)]
    if unknown:
        raise UsageError(
            f"The weights {entry.path} do not know {', '.join(unknown)}; they know the FreeSurfer numbers "
            f"{', '.join(map(str, sorted(known)))}. Ask for these, or give other weights."
        )
