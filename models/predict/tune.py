"""Choose lambda for one pair: the network is frozen, lambda the only variable (HyperMorph section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GOLDEN = 0.381966


@dataclass
class Search:
    """A bounded search over lambda and everything that it looked at.

    Attributes
    ----------
    best
        The lambda with the highest score.
    rows
        One row per evaluation, as ``evaluate`` gave it, with ``lam`` and ``score``.
    """

    best: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


def search_lambda(evaluate: Callable[[float], dict[str, Any]], *, coarse: int = 5, fine: int = 5) -> Search:
    """Maximise ``evaluate(lam)["score"]`` over [0, 1]: a coarse grid, then golden sections around its best.

    Parameters
    ----------
    evaluate
        Registers with this lambda and measures; must give a row with ``score``, higher is better.
    coarse
        Evenly spaced first values, ends included.
    fine
        Further evaluations, each within the interval that still holds the maximum.

    Returns
    -------
    Search
        Best lambda and all rows, in order of lambda.

    Examples
    --------
    >>> found = search_lambda(lambda lam: {"score": -(lam - 0.3) ** 2})
    >>> abs(found.best - 0.3) < 0.04, len(found.rows)
    (True, 10)
    """
    seen: dict[float, dict[str, Any]] = {}

    def score(lam: float) -> float:
        lam = round(min(max(lam, 0.0), 1.0), 4)
        if lam not in seen:
            seen[lam] = {"lam": lam, **evaluate(lam)}
        return float(seen[lam]["score"])

    grid = [i / (coarse - 1) for i in range(coarse)]
    peak = max(range(coarse), key=lambda i: score(grid[i]))
    low, high, middle = grid[max(peak - 1, 0)], grid[min(peak + 1, coarse - 1)], grid[peak]
    for _ in range(fine):
        wider_left = middle - low >= high - middle
        probe = middle - GOLDEN * (middle - low) if wider_left else middle + GOLDEN * (high - middle)
        if score(probe) > score(middle):
            low, high = (low, middle) if wider_left else (middle, high)
            middle = probe
        elif wider_left:
            low = probe
        else:
            high = probe
    rows = [seen[k] for k in sorted(seen)]
    return Search(best=max(rows, key=lambda row: row["score"])["lam"], rows=rows)
