"""One lambda for many pairs, from the curves that were written for each (HyperMorph section 3.2, cohort)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SIMILARITY_KEPT = 0.98
"""Lambda keeps at least this share of the mean similarity that lambda 0.25 reaches."""

MAX_FOLDING_PERCENT = 0.1

Curve = Mapping[str, Sequence[float] | np.ndarray]
"""Columns of one pair's table: ``lam``, ``dice_<region>``, ``similarity``, ``folding_percent``."""


@dataclass(frozen=True)
class CohortLambda:
    """The lambda that suits a cohort best.

    Attributes
    ----------
    region
        What the overlap is of: ``all``, or a region of the curves.
    lam
        Where the cohort's mean overlap is highest, among the lambdas whose fit and regularity pass.
    grid
        (101,) lambdas.
    mean, sd
        (101,) mean and standard deviation over the pairs of the overlap.
    pairs
        How many pairs have this region.
    own
        Each pair's own best lambda by the same rule.
    """

    region: str
    lam: float
    grid: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    pairs: int
    own: tuple[float, ...]


def cohort_lambda(curves: Sequence[Curve], region: str = "all") -> CohortLambda | None:
    """Maximise the mean overlap of a cohort over lambda.

    Curves are interpolated linearly between the lambdas that were looked at.

    Parameters
    ----------
    curves
        One table per pair; pairs without this region or with a single lambda do not count.
    region
        Column ``dice_<region>``.

    Returns
    -------
    CohortLambda or None
        None where no curve counts.

    Examples
    --------
    >>> first = {"lam": [0.0, 0.5, 1.0], "dice_all": [0.6, 0.8, 0.7]}
    >>> second = {"lam": [0.0, 0.5, 1.0], "dice_all": [0.6, 0.7, 0.9]}
    >>> found = cohort_lambda([first, second])
    >>> found.lam, found.own, round(float(found.mean.max()), 2)
    (1.0, (0.5, 1.0), 0.8)
    """
    grid = np.linspace(0, 1, 101)
    counted = [c for c in curves if f"dice_{region}" in c and len(c["lam"]) > 1]
    if not counted:
        return None
    overlap = np.stack([_on(grid, curve, f"dice_{region}") for curve in counted])
    passes = np.stack([_passes(grid, curve) for curve in counted])
    together = _passing(passes.mean(axis=0) >= 0.5)
    mean = overlap.mean(axis=0)
    own = tuple(
        round(float(grid[np.where(_passing(ok), row, -np.inf).argmax()]), 2)
        for row, ok in zip(overlap, passes, strict=True)
    )
    best = round(float(grid[np.where(together, mean, -np.inf).argmax()]), 2)
    return CohortLambda(region, best, grid, mean, overlap.std(axis=0), len(counted), own)


def _on(grid: np.ndarray, curve: Curve, column: str) -> np.ndarray:
    order = np.argsort(curve["lam"])
    return np.interp(grid, np.asarray(curve["lam"], float)[order], np.asarray(curve[column], float)[order])


def _passes(grid: np.ndarray, curve: Curve) -> np.ndarray:
    """Say at which lambdas the registration still fits the images and does not fold."""
    ok = np.ones(grid.shape, bool)
    if "similarity" in curve:
        similarity = _on(grid, curve, "similarity")
        ok &= similarity >= SIMILARITY_KEPT * similarity[25]
    if "folding_percent" in curve:
        ok &= _on(grid, curve, "folding_percent") <= MAX_FOLDING_PERCENT
    return ok


def _passing(ok: np.ndarray) -> np.ndarray:
    return ok if ok.any() else np.ones_like(ok)
