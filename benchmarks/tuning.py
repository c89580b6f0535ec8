"""The searches for lambda against an exhaustive grid: pairs with manual labels, together and by region.

python -m benchmarks.tuning --data DATA --pairs 12 --threads 2 --out benchmarks/results/tuning.md

Every pair's rows are appended to the TSV as soon as the pair is finished; a second run skips such pairs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd

from benchmarks.registration import pairs_of, prealigned

REGIONS = ("hippocampus", "thalamus", "putamen", "cortex", "lateral ventricle", "cerebral white matter")

GRID = tuple(round(i / 100, 2) for i in range(101))

SEARCHES = ("golden", "parabola", "gradient")

GUARDED, PLAIN, SMOOTHEST = "as used", "overlap alone", "smoothest fit"
"""Rules by which a lambda is best: our score, with its bounds on fit and regularity; the overlap and nothing
else (HyperMorph eq. 6); the largest lambda that keeps 98 % of the highest similarity."""


COLUMNS = [
    "pair", "aim", "rule", "search", "lam", "score", "fit", "dice_all", "evaluations", "gradients", "seconds",
]  # fmt: skip


def brain_pair(
    fixed: tuple[nb.Nifti1Image, nb.Nifti1Image], moving: tuple[nb.Nifti1Image, nb.Nifti1Image]
) -> tuple[Any, Any]:
    """Bring two prealigned brains and their manual labels onto the grid of the shipped network."""
    import torch

    from hyperprep.models.nets.build import load_network
    from hyperprep.models.predict.pair import make_pair, region_groups
    from hyperprep.models.predict.rules import percentiles
    from hyperprep.models.predict.sampling import lattice_grid
    from hyperprep.models.spatial.labels import manual_to_freesurfer
    from hyperprep.models.weights import find_weights

    entry = find_weights("hypermorph")
    sides = []
    for image, manual in (fixed, moving):
        numbers = manual_to_freesurfer(np.asanyarray(manual.dataobj).astype(int)).astype(np.int16)
        sides.append((image, None, nb.Nifti1Image(numbers, manual.affine), np.eye(4)))
    grid = lattice_grid(entry.metadata["grid"])
    groups = region_groups(REGIONS)
    pair = make_pair(
        grid,
        sides[0],
        sides[1],
        torch.device("cpu"),
        groups=groups,
        fine=False,
        percentiles=percentiles(entry),
    )
    return load_network(entry), pair


def search(trials: Any, kind: str, score: Callable[[float], float] | None = None) -> Any:
    """Run one of the searches, for the trials' own score unless another is given."""
    from hyperprep.models.predict.tune import climb_lambda, search_lambda

    if kind == "gradient":
        return climb_lambda(trials.score_and_slope)
    options: dict[str, Any] = (
        {"step": "parabola", "fine": 7} if kind == "parabola" else {"step": "golden", "fine": 5}
    )
    return search_lambda(score or trials.score, **options)


class Rows:
    """The rows of one pair; its registrations over the grid are computed once and shared.

    Parameters
    ----------
    network, pair
        As :func:`brain_pair` gives them.
    """

    def __init__(self, network: Any, pair: Any) -> None:
        from hyperprep.models.predict.trials import Trials

        self.network, self.pair, self.shared = network, pair, Trials(network, pair)
        began = time.perf_counter()
        self.figures = {lam: self.shared.row(lam) for lam in GRID}
        self.seconds = time.perf_counter() - began
        self.regions = [region for region in REGIONS if f"dice_{region}" in self.figures[0.0]]

    def all(self) -> Iterator[dict[str, Any]]:
        """Give every row: the exhaustive grid and the searches, by aim and rule."""
        yield from self.searched("all", GUARDED)
        yield from self.searched("none", GUARDED)
        yield self.row("none", SMOOTHEST, "grid", self.smoothest(), evaluations=len(GRID))
        yield from self.shared_searches("all", PLAIN)
        together = {rule: max(GRID, key=self.score_of("all", rule)) for rule in (GUARDED, PLAIN)}
        for region in self.regions:
            for rule, lam in together.items():
                yield from self.shared_searches(region, rule)
                yield self.row(region, rule, "lambda of all", lam)

    def score_of(self, aim: str, rule: str) -> Callable[[float], float]:
        """Give the score of a rule; what is known of the pair is not computed again."""
        if rule == PLAIN:
            return lambda lam: float(self.shared.row(lam)[f"dice_{aim}"])
        regions = () if aim in ("all", "none") else (aim,)
        score: Callable[[float], float] = self.shared.aimed_at(regions, by_labels=aim != "none").score
        return score

    def row(self, aim: str, rule: str, how: str, lam: float, **spent: float) -> dict[str, Any]:
        """Make one row."""
        figures = self.shared.row(lam)
        return {
            "aim": aim,
            "rule": rule,
            "search": how,
            "lam": lam,
            "score": self.score_of(aim, GUARDED if rule == SMOOTHEST else rule)(lam),
            "fit": figures["similarity" if aim == "none" else f"dice_{aim}"],
            "dice_all": figures["dice_all"],
            **spent,
        }

    def searched(self, aim: str, rule: str) -> Iterator[dict[str, Any]]:
        """Run every search from nothing, as a user does: runs and seconds are its own."""
        from hyperprep.models.predict.trials import Trials

        lam = max(GRID, key=self.score_of(aim, rule))
        yield self.row(aim, rule, "grid", lam, evaluations=len(GRID), seconds=self.seconds)
        for kind in SEARCHES:
            alone = Trials(self.network, self.pair if aim == "all" else self.pair.without_labels())
            began = time.perf_counter()
            lam = search(alone, kind).best
            seconds = time.perf_counter() - began
            spent = {"evaluations": alone.evaluations, "gradients": alone.gradients, "seconds": seconds}
            yield self.row(aim, rule, kind, lam, **spent)

    def shared_searches(self, aim: str, rule: str) -> Iterator[dict[str, Any]]:
        """Run the searches by values on what is shared; only their runs are counted."""
        score = self.score_of(aim, rule)
        yield self.row(aim, rule, "grid", max(GRID, key=score), evaluations=len(GRID))
        for kind in SEARCHES[:2]:
            found = search(self.shared, kind, score)
            yield self.row(aim, rule, kind, found.best, evaluations=len(found.scores))

    def smoothest(self) -> float:
        """Give the largest lambda that keeps 98 % of the highest similarity."""
        similarity = {lam: figures["similarity"] for lam, figures in self.figures.items()}
        wanted = 0.98 * max(similarity.values())
        return max(lam for lam, value in similarity.items() if value >= wanted)


def measured(data: Path, count: int, threads: int, file: Path) -> pd.DataFrame:
    """Measure the pairs that the TSV does not have yet, and give the rows of the first ``count`` pairs."""
    import torch

    from hyperprep.models.predict.device import torch_threads

    files = sorted((data / "bids" / "oasis").glob("sub-*/anat/*_T1w.nii.gz"))
    pairs = pairs_of([path.name.split("_")[0] for path in files], count)
    names = [f"{fixed} <- {moving}" for fixed, moving in pairs]
    done = set(pd.read_csv(file, sep="\t")["pair"]) if file.is_file() else set()
    missing = [(name, pair) for name, pair in zip(names, pairs, strict=True) if name not in done]
    subjects = prealigned(data, threads) if missing else {}
    for name, (fixed, moving) in missing:
        with torch_threads(threads), torch.no_grad():
            network, pair = brain_pair(subjects[fixed], subjects[moving])
            rows = [{"pair": name, **row} for row in Rows(network, pair).all()]
        found = pd.DataFrame(rows, columns=COLUMNS)
        found.to_csv(file, sep="\t", index=False, mode="a", header=not file.is_file(), float_format="%.6g")
        print(found[found["aim"].isin(["all", "none"])].to_string(index=False), flush=True)
    table = pd.read_csv(file, sep="\t")
    return table[table["pair"].isin(names)]


def against_grid(table: pd.DataFrame) -> list[str]:
    """Make the table of the searches: how far from the grid's optimum, at what price."""
    aims = {"all": "all labels", "none": "no labels", "regions": f"{len(REGIONS)} regions, each alone"}
    lines = [
        "| chosen by | rule | search | difference of lambda, mean (largest) | Dice lost, mean (largest) "
        "| score lost, mean (largest) | runs, mean (most) | derivatives | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    named = table.assign(group=table["aim"].where(table["aim"].isin(["all", "none"]), "regions"))
    grid = named[named["search"] == "grid"].set_index(["pair", "aim", "rule"])
    for group, title in aims.items():
        for rule in (GUARDED, PLAIN):
            for kind in SEARCHES:
                mine = named[(named["group"] == group) & (named["rule"] == rule) & (named["search"] == kind)]
                if mine.empty:
                    continue
                mine = mine.set_index(["pair", "aim", "rule"])
                best = grid.loc[mine.index]
                apart = (mine["lam"] - best["lam"]).abs()
                overlap = "dice_all" if group == "none" else "fit"
                lost = 100 * (best[overlap] - mine[overlap])
                score = 100 * (best["score"] - mine["score"])
                runs, back = mine["evaluations"], mine["gradients"].mean()
                seconds = mine["seconds"].median()
                lines.append(
                    f"| {title} | {rule} | {kind} | {apart.mean():.3f} ({apart.max():.3f}) "
                    f"| {lost.mean():.3f} ({lost.max():.3f}) | {score.mean():.3f} ({score.max():.3f}) "
                    f"| {runs.mean():.1f} ({runs.max():.0f}) | {'' if np.isnan(back) else f'{back:.1f}'} "
                    f"| {'' if np.isnan(seconds) else f'{seconds:.1f}'} |"
                )
    return lines


def by_region(table: pd.DataFrame) -> list[str]:
    """Make the table of the regions: where each wants lambda, and what the lambda of all costs it."""
    lines = [
        "| region | lambda by overlap alone, mean ± sd (range) | above / below that of all labels "
        "| Dice there | Dice lost with the lambda of all labels | lambda as used, mean ± sd "
        "| Dice lost by the bounds |",
        "|---|---|---|---|---|---|---|",
    ]
    by = table.set_index(["aim", "rule", "search", "pair"]).sort_index()
    all_plain = by.loc[("all", PLAIN, "grid")]
    for aim in ("all", *REGIONS):
        if (aim, PLAIN, "grid") not in by.index:
            continue
        plain, used = by.loc[(aim, PLAIN, "grid")], by.loc[(aim, GUARDED, "grid")]
        lam = plain["lam"]
        apart = (lam - all_plain["lam"]).dropna()
        cost = ""
        if aim != "all":
            lost = 100 * (plain["fit"] - by.loc[(aim, PLAIN, "lambda of all")]["fit"])
            cost = f"{lost.mean():.2f} ± {lost.std():.2f}"
        bounds = 100 * (plain["fit"] - used["fit"])
        lines.append(
            f"| {'all labels' if aim == 'all' else aim} "
            f"| {lam.mean():.2f} ± {lam.std():.2f} ({lam.min():.2f} to {lam.max():.2f}) "
            f"| {(apart > 0.04).sum()} / {(apart < -0.04).sum()} of {len(apart)} | {plain['fit'].mean():.3f} "
            f"| {cost} | {used['lam'].mean():.2f} ± {used['lam'].std():.2f} | {bounds.mean():.2f} |"
        )
    return lines


def without_labels(table: pd.DataFrame) -> list[str]:
    """Say what overlap the choices without labels lead to, beside those with labels."""
    lines = ["| chosen by | lambda, mean ± sd | Dice of all labels |", "|---|---|---|"]
    for aim, rule, title in (
        ("all", PLAIN, "overlap alone"),
        ("all", GUARDED, "overlap, as used"),
        ("none", GUARDED, "no labels: similarity with regularity bounded (default before)"),
        (
            "none",
            SMOOTHEST,
            "no labels: the largest lambda that keeps 98 % of the highest similarity (default)",
        ),
    ):
        rows = table[(table["aim"] == aim) & (table["rule"] == rule) & (table["search"] == "grid")]
        lam, dice = rows["lam"], rows["dice_all"]
        lines.append(f"| {title} | {lam.mean():.2f} ± {lam.std():.2f} | {dice.mean():.4f} |")
    return lines


def main() -> None:
    """Measure what is missing, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=Path("tuning.tsv"), help="TSV that grows pair by pair")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = measured(args.data, args.pairs, args.threads, args.rows)
    seconds = table.loc[table["search"] == "grid", "seconds"].median()
    note = (
        f"{table['pair'].nunique()} pairs, {args.threads} threads; exhaustive grid of {len(GRID)} values: "
        f"{seconds:.0f} seconds (median). Dice: shares of labels on a 4 mm grid (eq. 6), points of 100 where "
        "lost."
    )
    parts = (against_grid(table), by_region(table), without_labels(table), [note])
    text = "\n\n".join("\n".join(part) for part in parts)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
