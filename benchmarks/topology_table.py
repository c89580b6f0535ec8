"""Table of the topology benchmark: curves, intervals from drawing cases anew, detections by region."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.topology_cases import DIAMETERS_MM

BINS = 2000
"""Quantiles that the bins of the curves are made of."""


def table(args: argparse.Namespace) -> None:
    """Make the table from the rows, with intervals from bootstrapping cases."""
    lines = [
        "| set | method | map | cases | voxel AUC (95 %) | average precision (95 %) | changes found at 1 "
        "false region per scan | seconds, median | memory, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    about = [json.loads(path.read_text()) | {"stem": path.stem} for path in sorted(args.rows.glob("*.json"))]
    keys = sorted({(one["stem"].split("-")[0], one["method"]) for one in about})
    for group, method in keys:
        mine = [one for one in about if one["method"] == method and one["stem"].startswith(group)]
        for name in ("L", "Q"):
            files = [args.rows / f"{one['stem']}__{name}.npz" for one in mine]
            rows = [dict(np.load(path)) for path in files if path.exists()]
            if rows:
                timed = [one["seconds"] for one in mine if "seconds" in one]
                memory = max(one["memory_gb"] for one in mine)
                cells = [
                    group,
                    method,
                    name,
                    str(len(rows)),
                    summary(rows),
                    f"{np.median(timed):.1f}" if timed else "",
                    f"{memory:.1f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_beside(args.rows, about), "", *_by_size(args.rows, about)]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def _beside(rows: Path, about: Sequence[dict[str, Any]], *, draws: int = 500) -> list[str]:
    """Compare Q of our networks with every other map on the same synthetic cases, drawn together."""
    lines = [
        "| ours, Q | baseline | map | difference of AUC (95 %, cases drawn in pairs) |",
        "|---|---|---|---|",
    ]
    known = {(one["stem"].partition("__")[0], one["method"]): one["stem"] for one in about}
    names_ = sorted({method for case, method in known if case.startswith("synthetic")})
    for own in (name for name in names_ if name.startswith("ours")):
        for other, kind in ((name, kind) for name in names_ if name != own for kind in ("L", "Q")):
            pairs = [
                (rows / f"{known[c, own]}__Q.npz", rows / f"{known[c, other]}__{kind}.npz")
                for c, m in sorted(known)
                if m == own and (c, other) in known and c.startswith("synth")
            ]
            pairs = [pair for pair in pairs if all(path.exists() for path in pair)]
            if not pairs:
                continue
            paths = list(zip(*pairs, strict=True))
            both = [_histograms([dict(np.load(path)) for path in side]) for side in paths]

            def difference(chosen: np.ndarray, both: list = both) -> float:
                one, two = (areas(a[chosen].sum(0), b[chosen].sum(0))[0] for a, b in both)
                return one - two

            rng = np.random.default_rng(0)
            drawn = [difference(rng.integers(len(pairs), size=len(pairs))) for _ in range(draws)]
            low, high = np.quantile(drawn, [0.025, 0.975])
            middle = difference(np.arange(len(pairs)))
            lines.append(f"| {own} | {other} | {kind} | {middle:+.3f} ({low:+.3f} to {high:+.3f}) |")
    return lines


def _by_size(rows: Path, about: Sequence[dict[str, Any]]) -> list[str]:
    """Give the AUC of Q for each range of diameters of the synthetic changes."""
    ranges = " | ".join(f"{low:.0f} to {high:.0f} mm" for low, high in DIAMETERS_MM)
    lines = [f"| ours, AUC of Q | {ranges} |", "|---" * (1 + len(DIAMETERS_MM)) + "|"]
    for own in sorted({one["method"] for one in about if one["method"].startswith("ours")}):
        cells = []
        for low, high in DIAMETERS_MM:
            mine = [
                dict(np.load(rows / f"{one['stem']}__Q.npz"))
                for one in about
                if one["method"] == own
                and low <= one.get("diameter_mm", 0) < high
                and (rows / f"{one['stem']}__Q.npz").exists()
            ]
            found = [h.sum(0) for h in _histograms(mine)] if mine else None
            cells.append("" if found is None else f"{areas(found[0], found[1])[0]:.3f} ({len(mine)} cases)")
        lines.append(f"| {own} | {' | '.join(cells)} |")
    return lines


def summary(rows: Sequence[dict[str, np.ndarray]], *, draws: int = 500) -> str:
    """Give AUC, average precision and detection of pooled voxels; intervals by drawing cases anew.

    >>> row = {"positive": np.ones(9), "negative": np.zeros(20), "negatives": np.array(200)}
    >>> row |= {"thresholds": np.array([0.0, 0.5]), "hit": np.array([1, 1]), "false": np.array([3, 0])}
    >>> summary([row, row], draws=5)
    '1.000 (1.000-1.000) | 1.000 (1.000-1.000) | 100 %'
    """
    positive, negative = _histograms(rows)

    def scores(chosen: np.ndarray) -> tuple[float, float]:
        return areas(positive[chosen].sum(0), negative[chosen].sum(0))

    rng = np.random.default_rng(0)
    middle = scores(np.arange(len(rows)))
    drawn = np.array([scores(rng.integers(len(rows), size=len(rows))) for _ in range(draws)])
    cells = []
    for place in range(2):
        low, high = np.quantile(drawn[:, place], [0.025, 0.975])
        cells.append(f"{middle[place]:.3f} ({low:.3f}-{high:.3f})")
    return f"{' | '.join(cells)} | {100 * detection(rows):.0f} %"


def _histograms(rows: Sequence[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Count each case's voxels inside and outside the change in bins common to all, (cases, bins) each.

    The bins hold about as many of all voxels each, and those inside changes have as many more of their own.
    """
    inner = np.concatenate([row["positive"] for row in rows])
    outer = np.concatenate([row["negative"] for row in rows])
    steps = np.linspace(0, 1, BINS)
    edges = np.unique(np.concatenate([np.quantile(inner, steps), np.quantile(outer, steps)]))
    edges = np.append(edges, np.nextafter(edges[-1], np.inf))

    def counted(values: np.ndarray) -> np.ndarray:
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        return np.bincount(place, minlength=len(edges) - 1).astype(float)

    inside = np.stack([counted(row["positive"]) for row in rows])
    outside = [
        counted(row["negative"]) * float(row["negatives"]) / max(len(row["negative"]), 1) for row in rows
    ]
    return inside, np.stack(outside)


def areas(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Give the area under the ROC curve and the average precision of counts per bin, lowest bin first.

    >>> areas(np.array([0, 1, 1]), np.array([2, 1, 0]))
    (0.9166666666666666, 0.8333333333333333)
    """
    below = np.cumsum(negative) - negative
    auc = float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))
    hits, false = (np.cumsum(counts[::-1]) for counts in (positive, negative))
    precision = hits / np.maximum(hits + false, 1e-9)
    return auc, float((precision * positive[::-1]).sum() / positive.sum())


def detection(rows: Sequence[dict[str, np.ndarray]]) -> float:
    """Give the share of changes found at the lowest threshold from which on a scan has one false region.

    The threshold is searched from above: far below, all regions grow together into one that touches anything.

    >>> row = {"thresholds": np.arange(3.0), "hit": np.array([1, 1, 0]), "false": np.array([0, 5, 1])}
    >>> detection([row])
    0.0
    """
    every = np.unique(np.concatenate([row["thresholds"] for row in rows]))
    found = 0.0
    for threshold in every[::-1]:
        place = [int(np.searchsorted(row["thresholds"], threshold, side="right")) - 1 for row in rows]
        if min(place) < 0:
            break
        if np.mean([row["false"][i] for row, i in zip(rows, place, strict=True)]) > 1:
            break
        found = float(np.mean([row["hit"][i] for row, i in zip(rows, place, strict=True)]))
    return found
