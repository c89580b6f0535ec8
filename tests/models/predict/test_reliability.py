"""Calibration: what is claimed is compared with what is right."""

import numpy as np
import pytest

from hyperprep.models.predict.reliability import Reliability, fit_temperature, sharpened


def drawn(temperature, count=20_000):
    """Logits, and classes drawn from what they say once they are divided by a temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (count, 5))
    soft = np.exp(sharpened(logits, temperature))
    truth = (soft.cumsum(1) < rng.uniform(size=(count, 1))).sum(1)
    return logits, truth


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_of_what_was_drawn_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_calibration_lowers_the_error():
    logits, truth = drawn(2.5)
    curves = []
    for temperature in (1.0, fit_temperature(logits, truth)):
        soft = np.exp(sharpened(logits, temperature))
        curve = Reliability()
        for half in (slice(None, 9000), slice(9000, None)):
            curve.add(soft[half].max(1), soft[half].argmax(1) == truth[half])
        curves.append(curve)
    raw, calibrated = curves
    assert raw.count.sum() == len(truth)
    assert raw.overconfidence == pytest.approx(raw.error, abs=0.01), "too much is claimed everywhere"
    assert raw.error > 0.2
    assert calibrated.error < 0.02


def test_certainty_falls_into_the_last_bin():
    curve = Reliability()
    curve.add(np.array([1.0, 1.0, 0.0]), np.array([True, True, False]))
    assert (curve.count[-1], curve.count[0], curve.error) == (2, 1, 0)
    assert Reliability().error == 0
