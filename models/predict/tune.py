"""Choose lambda for one pair: the network is frozen, lambda the only variable (HyperMorph section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

GOLDEN = 0.381966

Interval = tuple[float, float]


@dataclass(frozen=True)
class Search:
    """What a search over lambda found.

    Attributes
    ----------
    best
        The lambda with the highest score.
    scores
        Every lambda looked at and its score, in order of lambda: one run of the network each.
    slopes
        The score's derivative by lambda where it was asked for: one pass back through the network each, about
        as dear as two runs.
    """

    best: float
    scores: dict[float, float]
    slopes: dict[float, float] = field(default_factory=dict)


def search_lambda(
    score: Callable[[float], float],
    *,
    coarse: int = 5,
    fine: int = 7,
    step: Literal["golden", "parabola"] = "parabola",
    tolerance: float = 0.03,
) -> Search:
    """Maximise ``score(lam)`` over [0, 1]: a coarse grid, then smaller steps around its best.

    Parameters
    ----------
    score
        Registers with this lambda and measures; higher is better. Asked once per value.
    coarse
        Evenly spaced first values, ends included.
    fine
        Most further evaluations, each within the interval that still holds the maximum.
    step
        ``"golden"``: golden sections; ``"parabola"``: the top of the parabola through the best value and its
        neighbours, and a golden section where that hardly narrows the interval.
    tolerance
        The search ends when the best value's neighbours on both sides are as near as this.

    Returns
    -------
    Search
        Best lambda and all scores.

    Examples
    --------
    >>> found = search_lambda(lambda lam: -(lam - 0.3) ** 2)
    >>> abs(found.best - 0.3) < 0.001, len(found.scores)
    (True, 8)
    >>> found = search_lambda(lambda lam: -(lam - 0.3) ** 2, step="golden", fine=5)
    >>> abs(found.best - 0.3) < 0.04, len(found.scores)
    (True, 10)
    """
    seen: dict[float, float] = {}

    def ask(lam: float) -> None:
        lam = _rounded(lam)
        if lam not in seen:
            seen[lam] = float(score(lam))

    for i in range(coarse):
        ask(i / (coarse - 1))
    before = math.inf
    for _ in range(fine):
        low, middle, high = _bracket(seen)
        if max(middle - low, high - middle) <= tolerance + 1e-9:
            break
        narrowed = high - low <= 0.6 * before
        before = high - low
        if step == "parabola" and narrowed:
            ask(_parabola_step(seen, tolerance))
        elif middle - low >= high - middle:
            ask(middle - GOLDEN * (middle - low))
        else:
            ask(middle + GOLDEN * (high - middle))
    return Search(best=max(seen, key=lambda lam: seen[lam]), scores=dict(sorted(seen.items())))


def largest_keeping(
    score: Callable[[float], float], top: Search, share: float, *, most: int = 12, tolerance: float = 0.03
) -> Search:
    """Find the largest lambda whose score is at least a share of the highest: as regular as the fit allows.

    Beyond the best lambda the score is taken to fall; the interval in which it crosses the share is halved.

    Parameters
    ----------
    score
        As in :func:`search_lambda`; values that ``top`` holds are not asked for again.
    top
        Where the score is highest.
    share
        Of the highest score; where that is not positive, its lambda is the answer.
    most
        Most values in all.
    tolerance
        Width of the interval at which the search ends.

    Examples
    --------
    >>> found = search_lambda(lambda lam: 1 - lam ** 2, fine=2)
    >>> found = largest_keeping(lambda lam: 1 - lam ** 2, found, 0.91)
    >>> 0.27 <= found.best <= 0.3, len(found.scores)
    (True, 10)
    """
    seen = dict(top.scores)
    wanted = share * seen[top.best]
    if wanted <= 0:
        return top
    if 1.0 not in seen:
        seen[1.0] = float(score(1.0))
    while True:
        kept = max(lam for lam, value in seen.items() if value >= wanted)
        lost = min((lam for lam in seen if lam > kept), default=kept)
        if lost - kept <= tolerance or len(seen) >= most:
            break
        middle = _rounded((kept + lost) / 2)
        seen[middle] = float(score(middle))
    return Search(best=kept, scores=dict(sorted(seen.items())), slopes=top.slopes)


def climb_lambda(
    score: Callable[[float], tuple[float, float]],
    *,
    starts: Sequence[float] = (0.25, 0.75),
    most: int = 8,
    tolerance: float = 0.02,
    gain: float = 0.0003,
) -> Search:
    """Maximise ``score(lam)`` over [0, 1] along its derivative, from several starts.

    The derivative's signs say which intervals hold a maximum: more than one where the score is not concave.
    In each, the next value is where the cubic through both ends' scores and slopes has its top. Where a cubic
    was mistaken (the slope there is no smaller than at the ends: a bounded score has kinks) or tells nothing
    new, it is where the tangents meet. The interval with the best end comes first.

    Parameters
    ----------
    score
        Gives the score of a lambda and its derivative by lambda; higher is better. Asked once per value.
    starts
        First values.
    most
        Most values in all.
    tolerance, gain
        An interval is done with when the top would be nearer to an end than ``tolerance`` and, as the
        tangents say, higher than that end by less than ``gain``.

    Returns
    -------
    Search
        Best lambda, all scores and all derivatives.

    Examples
    --------
    >>> found = climb_lambda(lambda lam: (-((lam - 0.3) ** 2), -2 * (lam - 0.3)))
    >>> abs(found.best - 0.3) < 0.001, len(found.slopes)
    (True, 3)
    """
    seen: dict[float, tuple[float, float]] = {}

    def ask(lam: float) -> None:
        lam = _rounded(lam)
        if lam not in seen:
            value, slope = score(lam)
            seen[lam] = float(value), float(slope)

    for start in starts:
        ask(start)
    smooth = True
    while len(seen) < most:
        step = _next_on_slope(seen, tolerance, gain, smooth=smooth)
        if step is None:
            break
        (a, b), lam = step
        ask(lam)
        if smooth and a in seen and b in seen:
            flattest = max(min(abs(seen[a][1]), abs(seen[b][1])), gain)
            smooth = abs(seen[_rounded(lam)][1]) < flattest / 2
    ordered = dict(sorted(seen.items()))
    return Search(
        best=max(ordered, key=lambda lam: ordered[lam][0]),
        scores={lam: value for lam, (value, _) in ordered.items()},
        slopes={lam: slope for lam, (_, slope) in ordered.items()},
    )


def _rounded(lam: float) -> float:
    return round(min(max(lam, 0.0), 1.0), 4)


def _bracket(seen: dict[float, float]) -> tuple[float, float, float]:
    """Give the best value between its neighbours; at an end of the range it is its own neighbour."""
    lams = sorted(seen)
    peak = max(range(len(lams)), key=lambda i: seen[lams[i]])
    return lams[max(peak - 1, 0)], lams[peak], lams[min(peak + 1, len(lams) - 1)]


def _parabola_step(seen: dict[float, float], tolerance: float) -> float:
    """Give the top of the parabola through the best value and its neighbours.

    Where the top is the best value itself, its wider side is closed by a step of the tolerance. At an end of
    the range, the parabola goes through the three values nearest to it.
    """
    lams = sorted(seen)
    low, middle, high = _bracket(seen)
    at = min(max(lams.index(middle), 1), len(lams) - 2)
    (a, b, c), (fa, fb, fc) = lams[at - 1 : at + 2], (seen[lam] for lam in lams[at - 1 : at + 2])
    rise, fall = (fb - fa) / (b - a), (fb - fc) / (c - b)
    bend = rise + fall
    top = middle
    if bend > 0:
        top = (a + b) / 2 + rise * (c - a) / (2 * bend)
    if low < top < high and min(abs(top - lam) for lam in (low, middle, high)) > tolerance / 2:
        return top
    return middle - tolerance if middle - low >= high - middle else middle + tolerance


def _next_on_slope(
    seen: dict[float, tuple[float, float]], tolerance: float, gain: float, *, smooth: bool
) -> tuple[Interval, float] | None:
    """Give the most promising interval with a maximum and the next value in it; None when all are done."""
    lams = sorted(seen)
    candidates: list[tuple[float, Interval, float]] = []
    if lams[0] > tolerance and seen[lams[0]][1] < 0:
        candidates.append((seen[lams[0]][0], (0.0, lams[0]), 0.0))
    if lams[-1] < 1 - tolerance and seen[lams[-1]][1] > 0:
        candidates.append((seen[lams[-1]][0], (lams[-1], 1.0), 1.0))
    for a, b in pairwise(lams):
        if not (seen[a][1] > 0 > seen[b][1] and b - a > 2 * tolerance):
            continue
        (left, up), (right, down) = seen[a], seen[b]
        meet = a + (right - left + down * (a - b)) / (up - down)
        possible = left + up * (meet - a) - max(left, right)
        top = _cubic_top((a, b), seen[a], seen[b])
        if possible < gain and (not smooth or min(top - a, b - top) < tolerance):
            continue
        if not smooth or min(top - a, b - top) < tolerance:
            top = min(max(meet, a + tolerance), b - tolerance)
        candidates.append((max(left, right), (a, b), top))
    return max(candidates)[1:] if candidates else None


def _cubic_top(interval: Interval, left: tuple[float, float], right: tuple[float, float]) -> float:
    """Give where the cubic through both ends, given by score and slope, is highest; it rises, then falls.

    Examples
    --------
    >>> round(_cubic_top((0.0, 1.0), (-0.09, 0.6), (-0.49, -1.4)), 6)
    0.3
    """
    a, b = interval
    width = b - a
    gain, up, down = right[0] - left[0], left[1] * width, right[1] * width
    square, linear = 3 * (up + down - 2 * gain), 6 * gain - 4 * up - 2 * down
    root = math.sqrt(max(linear * linear - 4 * square * up, 0.0))
    # the derivative falls from up > 0 at 0 to down < 0 at 1: of its zeros, the falling one lies between
    t = 2 * up / (root - linear) if root > linear else 0.5
    return a + width * min(max(t, 0.0), 1.0)
