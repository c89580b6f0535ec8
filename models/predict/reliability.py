"""Are probabilities right as often as they say: reliability curve, calibration error, temperature."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 15


@dataclass
class Reliability:
    """Reliability curve of many predictions, added batch by batch.

    Attributes
    ----------
    count, confidence, correct
        (:data:`BINS`,) of each bin of confidence: how many predictions, and the sums of what they claimed and
        of how many were right.
    """

    count: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    correct: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Add predictions: (N,) probability of the chosen class, and (N,) whether it was right."""
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for total, weights in (
            (self.count, None),
            (self.confidence, confidence),
            (self.correct, correct),
        ):
            total += np.bincount(place, weights, minlength=BINS)

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between claim and truth (Guo et al. 2017, eq. 3).

        Examples
        --------
        >>> curve = Reliability()
        >>> curve.add(np.array([0.9, 0.9]), np.array([True, False]))
        >>> round(curve.error, 3)
        0.4
        """
        return float(np.abs(self.confidence - self.correct).sum() / max(1.0, self.count.sum()))

    @property
    def overconfidence(self) -> float:
        """Mean claim less the share that was right; above 0 where too much is claimed."""
        return float((self.confidence - self.correct).sum() / max(1.0, self.count.sum()))


def sharpened(log_probability: np.ndarray, temperature: float) -> np.ndarray:
    """Divide logits by a temperature.

    Parameters
    ----------
    log_probability
        (N, L) logs of probabilities, or logits.
    temperature
        Above 1 makes probabilities more alike.

    Returns
    -------
    numpy.ndarray
        (N, L) log-probabilities.

    Examples
    --------
    >>> np.exp(sharpened(np.log([[0.8, 0.2]]), 0.5)).round(3).tolist()
    [[0.941, 0.059]]
    """
    scaled = log_probability / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def fit_temperature(log_probability: np.ndarray, truth: np.ndarray) -> float:
    """Find the temperature under which the truth is likeliest (Guo et al. 2017, section 4.2).

    Parameters
    ----------
    log_probability
        (N, L) logs of probabilities, or logits.
    truth
        (N,) the right class of each.

    Returns
    -------
    float
        Between 0.2 and 5.

    Examples
    --------
    >>> logits = np.log(np.array([[0.9, 0.1]] * 10))
    >>> truth = np.array([0] * 7 + [1] * 3)
    >>> claimed = np.exp(sharpened(logits, fit_temperature(logits, truth)))[0, 0]
    >>> round(float(claimed), 2)
    0.7
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(sharpened(log_probability, float(np.exp(log_temperature)))[rows, truth].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
    return float(np.exp(found.x))
