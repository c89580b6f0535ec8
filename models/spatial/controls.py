"""Topology-change maps of healthy people: mean and spread per voxel, and how to read a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from hyperprep.exceptions import NoInputError, ScanError, UsageError
from hyperprep.models.spatial.files import replacing
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.regions import label_regions

LEAST = 3
"""Fewest controls that a spread can be estimated from; ten or more make it worth something."""

SMOOTH_MM = 4.0
"""Standard deviation of the Gaussian over which mean and spread of few controls are pooled."""

SCORE_MM = 2.0
"""Standard deviation of the Gaussian over which each score is averaged before it is compared with others.

Scores of single voxels are noisy. One voxel of the network's grid raises the area under the curve of changes
of 1 cm and more, and takes a little from those below 5 mm (docs/decisions/0009).
"""

SPREAD_FLOOR = 0.1
"""Quantile of the spread inside the mask below which no voxel's spread goes."""

NORMAL_SCORES = np.arange(-2.0, 4.01, 0.25)
"""Normal scores at which the controls' own deviations are tabulated."""

MIN_VOLUME_MM3 = 64.0
"""Smaller connected regions are not reported: eight voxels of 2 mm."""

THRESHOLDS = np.arange(2.0, 8.01, 0.25)

_FORMAT = 2
"""Version of the file; 1 had no ``ScoreMM``."""


@dataclass(frozen=True, eq=False)
class ControlStatistics:
    """Statistics of control maps on one grid in the template frame.

    Attributes
    ----------
    mean, sd
        (X, Y, Z) float32: E[L_sym] over the controls and its spread, nats.
    mask
        (X, Y, Z) bool: where they hold.
    grid
        Their grid.
    quantiles
        Deviations (in spreads) of left-out controls at :data:`NORMAL_SCORES`.
    threshold
        Calibrated z at which a left-out control has one region on average.
    controls
        Who they are.
    kind
        ``"template"``: scores against the template; ``"sessions"``: scores between two sessions.
    weights_sha256
        Digest of the network that made the scores.
    reference
        Name of the template's space; empty for ``"sessions"``.
    score_mm
        Width of the average that a score goes through before it is compared (:data:`SCORE_MM`).
    """

    mean: np.ndarray
    sd: np.ndarray
    mask: np.ndarray
    grid: Grid
    quantiles: np.ndarray
    threshold: float
    controls: tuple[str, ...]
    kind: str
    weights_sha256: str
    reference: str = ""
    score_mm: float = 0.0

    def comparable(self, score: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Average a score (X, Y, Z) inside a mask as those of the controls were."""
        return averaged(score, mask, self.grid, self.score_mm)

    def deviation(self, score: np.ndarray) -> np.ndarray:
        """Give how far a comparable map (X, Y, Z) lies above the controls' mean, in spreads."""
        return np.where(self.mask, (score - self.mean) / self.sd, 0).astype(np.float32)

    def calibrate(self, deviation: np.ndarray) -> np.ndarray:
        """Turn deviations into z-scores: what is as rare among left-out controls as z among normal numbers.

        Beyond the table the slope of its ends is kept.

        Examples
        --------
        >>> stats = control_statistics(
        ...     [np.random.default_rng(i).exponential(size=(12, 13, 14)) for i in range(6)],
        ...     np.ones((12, 13, 14), bool), Grid((12, 13, 14), np.diag([2.0, 2, 2, 1])),
        ...     controls=list("abcdef"), weights_sha256="")
        >>> one = stats.comparable(np.random.default_rng(9).exponential(size=(12, 13, 14)), stats.mask)
        >>> z = stats.calibrate(stats.deviation(one))
        >>> bool(abs((z > 1.645).mean() - 0.05) < 0.03)
        True
        """
        q, s = self.quantiles, NORMAL_SCORES
        z = np.interp(deviation, q, s)
        upper = (s[-1] - s[-5]) / max(q[-1] - q[-5], 1e-6)
        lower = (s[4] - s[0]) / max(q[4] - q[0], 1e-6)
        z = np.where(deviation > q[-1], s[-1] + (deviation - q[-1]) * upper, z)
        return np.where(deviation < q[0], s[0] + (deviation - q[0]) * lower, z).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write an NPZ file, and a JSON file of the same name that says in words what it holds.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        path = Path(path)
        about = self.about()
        with replacing(path) as temporary:
            np.savez_compressed(
                temporary,
                mean=self.mean.astype(np.float16),
                sd=self.sd.astype(np.float16),
                mask=np.packbits(self.mask),
                affine=self.grid.affine,
                quantiles=self.quantiles,
                about=np.array(json.dumps(about)),
            )
        with replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n")
        return path

    def about(self) -> dict[str, object]:
        """Say who the controls are, and what network and kind of score they belong to."""
        return {
            "Description": "Mean and spread of topology-change scores over controls, template frame",
            "Format": _FORMAT,
            "Kind": self.kind,
            "Reference": self.reference,
            "ScoreMM": self.score_mm,
            "Controls": list(self.controls),
            "Shape": list(self.grid.shape),
            "Threshold": self.threshold,
            "WeightsSHA256": self.weights_sha256,
        }

    @classmethod
    def load(cls, path: str | Path) -> ControlStatistics:
        """Read what :meth:`save` wrote.

        Raises
        ------
        NoInputError
            If the file is not there.
        ScanError
            If it holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise NoInputError(
                f"There are no control statistics at {path}: run the group level with --controls."
            )
        try:
            with np.load(path) as stored:
                about = json.loads(str(stored["about"]))
                if about["Format"] > _FORMAT:
                    raise ScanError(
                        f"{path} was made by a later version of hyperprep (format {about['Format']}): "
                        "update, or make the statistics again."
                    )
                x, y, z = about["Shape"]
                mask = np.unpackbits(stored["mask"], count=x * y * z).reshape(x, y, z).astype(bool)
                return cls(
                    stored["mean"].astype(np.float32),
                    stored["sd"].astype(np.float32),
                    mask,
                    Grid((x, y, z), stored["affine"]),
                    stored["quantiles"],
                    float(about["Threshold"]),
                    tuple(about["Controls"]),
                    about["Kind"],
                    about["WeightsSHA256"],
                    about["Reference"],
                    float(about.get("ScoreMM", 0.0)),
                )
        except (OSError, ValueError, KeyError) as error:
            raise ScanError(f"{path} holds no control statistics ({error}): make them again.") from error


def averaged(score: np.ndarray, mask: np.ndarray, grid: Grid, mm: float = SCORE_MM) -> np.ndarray:
    """Average a map (X, Y, Z) inside a mask by a Gaussian of ``mm`` standard deviation; 0 outside.

    Examples
    --------
    >>> inside = np.zeros((8, 9, 10), bool)
    >>> inside[2:6, 2:7, 2:8] = True
    >>> made = averaged(np.where(inside, 3.0, 99.0), inside, Grid((8, 9, 10), np.diag([2.0, 2, 2, 1])))
    >>> bool(np.allclose(made[inside], 3)), float(made[~inside].max())
    (True, 0.0)
    """
    weight = _smoothed(mask.astype(np.float32), grid, mm)
    return np.where(mask, _pooled(score, mask, weight, grid, mm), 0).astype(np.float32)


def control_statistics(
    scores: Sequence[np.ndarray],
    mask: np.ndarray,
    grid: Grid,
    *,
    controls: Sequence[str],
    weights_sha256: str,
    kind: str = "template",
    reference: str = "",
    smooth_mm: float = SMOOTH_MM,
    score_mm: float = SCORE_MM,
) -> ControlStatistics:
    """Estimate mean, spread and calibration of control maps.

    Each control is also compared with the statistics of all others; those deviations make the table that
    turns deviations into z-scores, and the threshold with one region per control.

    Parameters
    ----------
    scores
        (X, Y, Z) L_sym of each control, on one grid in the template frame; 0 where it was not compared.
    mask
        (X, Y, Z) bool: brain of the template.
    grid
        The grid of all.
    controls
        Names, in the order of the scores.
    weights_sha256
        Digest of the network that made them.
    kind
        ``"template"`` or ``"sessions"``.
    reference
        Name of the template's space.
    smooth_mm
        Standard deviation of the Gaussian over which mean and spread are pooled.
    score_mm
        Standard deviation of the Gaussian over which each score is averaged first.

    Raises
    ------
    UsageError
        If there are fewer than :data:`LEAST` controls, or their maps lie on different grids.
    """
    if len(scores) < LEAST:
        raise UsageError(
            f"{len(scores)} control(s) have a map; at least {LEAST} are needed, ten or more wanted."
        )
    if any(score.shape != grid.shape for score in scores) or mask.shape != grid.shape:
        raise UsageError(
            "The controls' maps lie on different grids: make them with one version and template."
        )
    known = np.stack([score != 0 for score in scores])
    stack = np.stack([averaged(one, there, grid, score_mm) for one, there in zip(scores, known, strict=True)])
    counts = known.sum(0)
    mask = mask & (counts >= min(LEAST, len(stack)))
    weight = _smoothed(mask.astype(np.float32), grid, smooth_mm)
    total, square = stack.sum(0), np.square(stack).sum(0)

    def estimate(sums: np.ndarray, squares: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = sums / np.maximum(n, 1)
        variance = np.clip(squares / np.maximum(n, 1) - mean**2, 0, None) * n / np.maximum(n - 1, 1)
        mean, variance = (_pooled(v, mask, weight, grid, smooth_mm) for v in (mean, variance))
        sd = np.sqrt(variance)
        floor = np.quantile(sd[mask], SPREAD_FLOOR) if mask.any() else 0.0
        return mean, np.maximum(sd, max(float(floor), 1e-3))

    deviations = []
    for one, there in zip(stack, known, strict=True):
        mean, sd = estimate(total - one, square - one**2, counts - there)
        deviations.append(np.where(mask & there, (one - mean) / sd, 0).astype(np.float32))
    left_out = np.concatenate([d[mask & there] for d, there in zip(deviations, known, strict=True)])
    quantiles = np.quantile(left_out, ndtr(NORMAL_SCORES))
    quantiles = np.maximum.accumulate(quantiles + 1e-6 * np.arange(len(quantiles)))
    mean, sd = estimate(total, square, counts)
    made = ControlStatistics(
        mean.astype(np.float32), sd.astype(np.float32), mask, grid, quantiles, 0.0, tuple(controls), kind,
        weights_sha256, reference, score_mm,
    )  # fmt: skip
    threshold = _one_region([made.calibrate(d) for d in deviations], mask, grid)
    return ControlStatistics(**{**vars(made), "threshold": threshold})


def _smoothed(values: np.ndarray, grid: Grid, mm: float) -> np.ndarray:
    if mm <= 0:
        return values
    return np.asarray(ndimage.gaussian_filter(values, mm / grid.spacing, truncate=2.5))


def _pooled(values: np.ndarray, mask: np.ndarray, weight: np.ndarray, grid: Grid, mm: float) -> np.ndarray:
    """Average inside the mask only."""
    inside = _smoothed(np.where(mask, values, 0).astype(np.float32), grid, mm)
    return inside / np.clip(weight, 1e-3, None)


def _one_region(scores: Sequence[np.ndarray], mask: np.ndarray, grid: Grid) -> float:
    """Find the lowest threshold from which on a map has one region or fewer on average.

    It is searched from above: far below it, regions grow together into one, which is fewer but not better.
    """
    lowest = float(THRESHOLDS[-1])
    for threshold in THRESHOLDS[::-1]:
        counts = [
            label_regions((z >= threshold) & mask, grid, min_volume_mm3=MIN_VOLUME_MM3)[1] for z in scores
        ]
        if np.mean(counts) > 1:
            break
        lowest = float(threshold)
    return lowest
