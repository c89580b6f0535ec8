"""The searches for lambda against curves whose maximum is known."""

from collections.abc import Callable
from math import copysign, exp

import pytest

from hyperprep.models.predict.tune import Search, climb_lambda, search_lambda

PEAKS = [0.0, 0.07, 0.31, 0.5, 0.83, 1.0]

SHAPES: dict[str, Callable[[float], tuple[float, float]]] = {
    "parabola": lambda x: (-(x**2), -2 * x),
    "pointed": lambda x: (-(abs(x) ** 1.5), -1.5 * copysign(abs(x) ** 0.5, x)),
    "skewed": lambda x: (4 * x - exp(4 * x), 4 - 4 * exp(4 * x)),
    "bounded": lambda x: (x, 1.0) if x < 0 else (-8 * x, -8.0),
}
"""Score and slope by the distance from the peak; a fiftieth of it is like real curves of Dice."""


def curve(shape: str, peak: float) -> Callable[[float], tuple[float, float]]:
    def at(lam: float) -> tuple[float, float]:
        value, slope = SHAPES[shape](lam - peak)
        return 0.8 + 0.02 * value, 0.02 * slope

    return at


def run(search: str, shape: str, peak: float) -> Search:
    at = curve(shape, peak)
    if search == "climb":
        return climb_lambda(at)
    return search_lambda(lambda lam: at(lam)[0], step=search)  # type: ignore[arg-type]


@pytest.mark.parametrize("search", ["golden", "parabola", "climb"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("peak", PEAKS)
def test_finds_the_peak_within_a_few_evaluations(search: str, shape: str, peak: float) -> None:
    found = run(search, shape, peak)
    best = curve(shape, peak)(peak)[0]
    assert best - found.scores[found.best] <= 0.0006
    assert abs(found.best - peak) <= (0.04 if search != "climb" else 0.1)
    assert len(found.scores) <= 12
    assert list(found.scores) == sorted(found.scores)
    assert found.scores[found.best] == max(found.scores.values())
    assert list(found.slopes) == (list(found.scores) if search == "climb" else [])


def test_smooth_curves_need_fewer_steps_with_parabolas() -> None:
    asked = {search: sum(len(run(search, "parabola", peak).scores) for peak in PEAKS)
             for search in ("golden", "parabola", "climb")}  # fmt: skip
    assert asked["climb"] < asked["parabola"] < asked["golden"]


@pytest.mark.parametrize("higher", [0.15, 0.85])
def test_climbing_looks_at_both_hills(higher: float) -> None:
    def hills(lam: float) -> tuple[float, float]:
        value = slope = 0.0
        for peak, height in ((0.15, 1.0), (0.85, 1.0), (higher, 0.3)):
            part = height * exp(-(((lam - peak) / 0.12) ** 2))
            value, slope = value + part, slope - 2 * (lam - peak) / 0.12**2 * part
        return value, slope

    found = climb_lambda(hills)
    assert abs(found.best - higher) < 0.04
    assert min(abs(lam - (1 - higher)) for lam in found.scores) < 0.12, "the lower hill was looked at too"


@pytest.mark.parametrize("constant", [lambda lam: (0.5, 0.0), lambda lam: (0.5, float("nan"))])
def test_climbing_a_plain_ends_at_once(constant: Callable[[float], tuple[float, float]]) -> None:
    assert len(climb_lambda(constant).scores) == 2
