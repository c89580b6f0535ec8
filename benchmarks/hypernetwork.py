"""One hypernetwork beside networks of fixed lambdas and integrative networks (HyperMorph 4.1, 4.2, 4.6).

Every network sees the same pairs in the same order for the same number of steps. A run that is finished is
not run again, and one that was killed goes on from its last checkpoint: give the same command once more.

python -m benchmarks.hypernetwork --maps runs/maps.npz --work runs/hypernetwork --out FILE.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.heldout import HeldOut, lattice_of, measure, real_pairs, sweep, synthetic_pairs
from benchmarks.integrative import STRATEGIES, integrative_network
from benchmarks.rows import Rows
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import load_maps
from hyperprep.models.train.configure import read_config, spec_of
from hyperprep.models.train.loop import train
from hyperprep.models.train.registration import RegistrationTask
from hyperprep.models.train.schedule import Schedule

HYPER, FIXED = "hypernetwork", "fixed lambda"

OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "unet": lambda channels: {"width": channels},
    "unrolled": lambda channels: {"channels": channels, "steps": (2, 2)},
    "siamese": lambda channels: {"channels": channels},
}
"""Options of each primary network of reduced size."""


class WithoutHyper(nn.Module):
    """A primary network alone; the hyperparameter that it is called with does not reach it."""

    def __init__(self, primary: nn.Module) -> None:
        super().__init__()
        self.primary = primary

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
        """Give the primary network's velocity."""
        velocity: torch.Tensor = self.primary(fixed, moving)
        return velocity


@dataclass
class StrategyTask(RegistrationTask):
    """The task of one run: ``strategy`` makes the network, and ``lam`` is its only lambda where given."""

    strategy: str = HYPER
    lam: float | None = None

    def build(self) -> nn.Module:
        """Make the network."""
        options = self.options or {}
        if self.strategy in STRATEGIES:
            return integrative_network(self.strategy, self.primary, **options)
        primary = primary_network(self.primary, **options)
        return WithoutHyper(primary) if self.strategy == FIXED else HyperMorph(primary)

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw the pair that every strategy sees at this step, and lambda."""
        *pair, hyper = super().batch(rng)
        return (*pair, hyper if self.lam is None else torch.tensor([self.lam]))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure nothing: all networks are measured together, on other pairs."""
        return {}


@dataclass(frozen=True)
class Run:
    """One network to train."""

    strategy: str
    seed: int
    lam: float | None = None

    @property
    def name(self) -> str:
        """The run's folder."""
        part = self.strategy.replace(" ", "-") + ("" if self.lam is None else f"-{self.lam:g}")
        return f"{part}_seed{self.seed}"


def runs_of(lams: Sequence[float], seeds: int, strategies: Sequence[str]) -> list[Run]:
    """List all runs, one seed after the other, so that a part of them is a whole comparison.

    >>> [run.name for run in runs_of([0.1, 0.5], 1, [])]
    ['hypernetwork_seed0', 'fixed-lambda-0.1_seed0', 'fixed-lambda-0.5_seed0']
    """
    return [
        run
        for seed in range(seeds)
        for run in (
            Run(HYPER, seed),
            *(Run(FIXED, seed, lam) for lam in lams),
            *(Run(strategy, seed) for strategy in strategies),
        )
    ]


def trained(task: StrategyTask, schedule: Schedule, folder: Path) -> tuple[nn.Module, float]:
    """Train, or take the network that was trained before; give it and its seconds of training."""
    if not (folder / "model.pt").exists():
        train(task, schedule, folder)
    stored = torch.load(folder / "model.pt", weights_only=True)
    model = task.build()
    model.load_state_dict(stored["average"])
    return model.eval(), float(stored["seconds"])


def _answers(row: Mapping[str, Any], args: argparse.Namespace) -> bool:
    """Say whether a result of an earlier command was measured on these pairs, at these lambdas and seeds."""
    asked = {f"{lam:g}" for lam in args.lambdas}
    measured = set(row["by_lambda"])
    return (
        row["count"] == args.pairs
        and (row["pairs"] == "synthetic" or args.data is not None)
        and row.get("seed", 0) < args.seeds
        and (
            row["strategy"] == "affine"
            or (measured <= asked if row["strategy"] == FIXED else measured == asked)
        )
    )


def rows_of(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Train and measure what is still missing, and give every row of the result."""
    results = Rows(folder / "results.jsonl")
    known = [row for row in results.known if _answers(row, args)]
    yield from known
    shared = {
        "maps": load_maps(args.maps),
        "lattice": lattice_of(args.spacing, 16 if args.primary == "unet" else 8),
        "spec": SynthSpec(
            **{**vars(spec_of(read_config("hypermorph"))), "random_contrast": 0.0, "contrasts": ("T1w",)}
        ),
        "primary": args.primary,
        "options": OPTIONS[args.primary](args.channels),
        "window": args.window,
        "seg_weight": args.seg_weight,
        "same_contrast": 1.0,
    }
    material: dict[str, list[HeldOut]] = {}

    def pairs(kind: str) -> list[HeldOut]:
        if kind not in material:
            material[kind] = (
                synthetic_pairs(StrategyTask(**shared), args.pairs)
                if kind == "synthetic"
                else real_pairs(args.data, shared["lattice"], args.pairs, args.threads)
            )
        return material[kind]

    kinds = ["synthetic"] + (["real"] if args.data else [])
    schedule = {"steps": args.steps, "learning_rate": args.learning_rate, "log_every": 100}

    def write(row: dict[str, Any]) -> dict[str, Any]:
        results.add({**row, "count": args.pairs})
        return results.known[-1]

    done = {(row["run"], row["pairs"]) for row in known}
    for kind in kinds:
        if ("affine", kind) not in done:
            figures = measure(None, pairs(kind))
            yield write({"run": "affine", "strategy": "affine", "pairs": kind, "by_lambda": {"": figures}})
    for run in runs_of(args.lambdas, args.seeds, [] if args.primary == "siamese" else STRATEGIES):
        for kind in kinds:
            if (run.name, kind) in done:
                continue
            task = StrategyTask(**shared, strategy=run.strategy, lam=run.lam)
            model, seconds = trained(task, Schedule(**schedule, seed=run.seed), folder / run.name)
            lams = args.lambdas if run.lam is None else [run.lam]
            yield write(
                {
                    "run": run.name,
                    "strategy": run.strategy,
                    "seed": run.seed,
                    "pairs": kind,
                    "seconds": round(seconds, 1),
                    "by_lambda": {f"{lam:g}": figures for lam, figures in sweep(model, lams, pairs(kind))},
                }
            )


def _scores(rows: Sequence[Mapping[str, Any]], strategy: str, lam: str, key: str = "dice") -> np.ndarray:
    """Give one figure of a strategy at a lambda, one per seed in the order of the seeds."""
    mine = sorted(
        (row for row in rows if row["strategy"] == strategy and lam in row["by_lambda"]),
        key=lambda row: row["seed"],
    )
    return np.array([row["by_lambda"][lam][key] for row in mine])


def table(rows: Sequence[Mapping[str, Any]], lams: Sequence[float]) -> str:
    """Write the comparison on one kind of pairs: Dice by lambda, differences, variability and cost."""
    strategies = [name for name in STRATEGIES if any(row["strategy"] == name for row in rows)]
    names = [f"{lam:g}" for lam in lams]
    affine = 100 * next(row["by_lambda"][""]["dice"] for row in rows if row["strategy"] == "affine")
    others = "".join(f" {name} - fixed |" for name in strategies)
    lines = [
        f"| lambda | fixed: Dice (sd over seeds) | {HYPER}: Dice (sd) | {HYPER} - fixed |{others} sd of J, "
        "fixed / hyper | folding %, fixed / hyper |",
        "|" + "---|" * (6 + len(strategies)),
    ]
    means: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    for lam in names:
        for strategy in (FIXED, HYPER, *strategies):
            scores = 100 * _scores(rows, strategy, lam)
            means.setdefault(strategy, []).append(float(scores.mean()) if len(scores) else float("nan"))
            spreads.setdefault(strategy, []).append(
                float(scores.std(ddof=1)) if len(scores) > 1 else float("nan")
            )
        cells = [f"{means[s][-1]:.2f} ({spreads[s][-1]:.2f})" for s in (FIXED, HYPER)]
        cells += [f"{means[s][-1] - means[FIXED][-1]:+.2f}" for s in (HYPER, *strategies)]
        for key, digits in (("sd_jacobian", 3), ("folding", 4)):
            both = [_scores(rows, s, lam, key) for s in (FIXED, HYPER)]
            cells.append(" / ".join(f"{one.mean():.{digits}f}" if len(one) else "-" for one in both))
        lines.append(f"| {lam} | {' | '.join(cells)} |")
    peaks = [f"{max(means[s]) - max(means[FIXED]):+.2f}" for s in (HYPER, *strategies)]
    lines.append(f"| peak | {max(means[FIXED]):.2f} | {max(means[HYPER]):.2f} | {' | '.join(peaks)} | | |")
    seconds = {
        s: sum(row["seconds"] for row in rows if row["strategy"] == s) for s in (FIXED, HYPER, *strategies)
    }
    seeds = {s: len({row["seed"] for row in rows if row["strategy"] == s}) for s in seconds}
    ratio = (seconds[FIXED] / seeds[FIXED]) / (seconds[HYPER] / seeds[HYPER])
    costs = "; ".join(
        f"{s} {seconds[s] / seeds[s] / (seconds[HYPER] / seeds[HYPER]):.2f} times the {HYPER}'s"
        for s in strategies
    )
    apart = [abs(a - b) for a, b in zip(means[HYPER], means[FIXED], strict=True)]
    lines.append(
        f"\nDice x 100 over all labels; affine alone {affine:.2f}. Mean |difference| {np.mean(apart):.2f}. "
        f"Mean sd over seeds: fixed {np.mean(spreads[FIXED]):.3f}, {HYPER} {np.mean(spreads[HYPER]):.3f} "
        f"(ratio {np.mean(spreads[FIXED]) / np.mean(spreads[HYPER]):.2f}). Training of all {len(lams)} fixed "
        f"networks took {ratio:.2f} times the {HYPER}'s; {costs}."
    )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True, help="label maps made by 'prepare'")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and their results")
    parser.add_argument("--data", type=Path, help="folder that holds bids/oasis: measure on real pairs too")
    parser.add_argument(
        "--primary",
        choices=tuple(OPTIONS),
        default="unrolled",
        help="the paper's unet learns nothing in a few hundred steps; siamese has no integrative variants",
    )
    parser.add_argument("--channels", type=int, default=8, help="of the convolutions; unet: of the first")
    parser.add_argument("--spacing", type=float, default=6.0, help="mm: 4, 6 or 8")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.1, 0.4, 0.7, 0.9])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--window", type=int, default=5, help="of the local correlation, voxels")
    parser.add_argument("--seg-weight", type=float, default=0.0, help="label overlap within the similarity")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Train, measure, print and write the tables."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    folder = args.work / (
        f"{args.primary}{args.channels}_{args.spacing:g}mm_{args.steps}steps_rate{args.learning_rate:g}"
        f"_window{args.window}_seg{args.seg_weight:g}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(rows_of(args, folder))
    text = f"{folder.name}, {args.seeds} seeds, {args.pairs} pairs, {args.threads} threads\n"
    for kind in dict.fromkeys(row["pairs"] for row in rows):
        text += f"\n{kind} pairs\n\n{table([row for row in rows if row['pairs'] == kind], args.lambdas)}\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
