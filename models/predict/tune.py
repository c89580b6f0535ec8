"""Choose lambda for one pair: the network is frozen, lambda the only variable (HyperMorph section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

GOLDEN = 0.381966


@dataclass(frozen=True)
class Search:
    """What a bounded search over lambda found.

    Attributes
    ----------
    best
        The lambda with the highest score.
    scores
        Every lambda looked at and its score, in order of lambda.
    """

    best: float
    scores: dict[float, float]


def search_lambda(score: Callable[[float], float], *, coarse: int = 5, fine: int = 5) -> Search:
    """Maximise ``score(lam)`` over [0, 1]: a coarse grid, then golden sections around its best.

    Parameters
    ----------
    score
        Registers with this lambda and measures; higher is better. Asked once per value.
    coarse
        Evenly spaced first values, ends included.
    fine
        Further evaluations, each within the interval that still holds the maximum.

    Returns
    -------
    Search
        Best lambda and all scores.

    Examples
    --------
    >>> found = search_lambda(lambda lam: -(lam - 0.3) ** 2)
    >>> abs(found.best - 0.3) < 0.04, len(found.scores)
    (True, 10)
    """
    seen: dict[float, float] = {}

    def ask(lam: float) -> float:
        lam = round(min(max(lam, 0.0), 1.0), 4)
        if lam not in seen:
            seen[lam] = float(score(lam))
        return seen[lam]

    grid = [i / (coarse - 1) for i in range(coarse)]
    peak = max(range(coarse), key=lambda i: ask(grid[i]))
    low, high, middle = grid[max(peak - 1, 0)], grid[min(peak + 1, coarse - 1)], grid[peak]
    for _ in range(fine):
        wider_left = middle - low >= high - middle
        probe = middle - GOLDEN * (middle - low) if wider_left else middle + GOLDEN * (high - middle)
        if ask(probe) > ask(middle):
            low, high = (low, middle) if wider_left else (middle, high)
            middle = probe
        elif wider_left:
            low = probe
        else:
            high = probe
    return Search(best=max(seen, key=lambda lam: seen[lam]), scores=dict(sorted(seen.items())))
