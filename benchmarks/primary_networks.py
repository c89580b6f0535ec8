"""Primary networks under the hypernetwork with equal minutes of training: the paper's U-Net and its rivals.

Each network trains for the same minutes on the images that the shipped network trains on and is measured on
the same held-out pairs along the way. Finished runs are not run again; a killed one goes on: give the same
command once more. Nothing else should run beside it, since minutes decide.

python -m benchmarks.primary_networks --maps runs/maps.npz --work runs/primary --out FILE.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.heldout import HeldOut, lattice_of, measure, real_pairs, sweep, synthetic_pairs
from benchmarks.rows import Rows
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.synth.maps import load_maps
from hyperprep.models.train.configure import read_config, spec_of
from hyperprep.models.train.loop import train
from hyperprep.models.train.registration import RegistrationTask
from hyperprep.models.train.schedule import Schedule

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet (paper)": ("unet", {}),
    "unet, instance norm": ("unet", {"normalise": True}),
    "unrolled": ("unrolled", {}),
    "siamese": ("siamese", {}),
}


@dataclass
class ComparedTask(RegistrationTask):
    """The shipped network's task, measured on the comparison's pairs instead of its own."""

    lams: Sequence[float] = (0.1, 0.3, 0.6)
    compared: dict[str, list[HeldOut]] = field(default_factory=dict)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure Dice and folding (percent) at the lambda that is best on these pairs."""
        out = {}
        for kind, pairs in self.compared.items():
            lam, best = max(sweep(model, list(self.lams), pairs), key=lambda found: found[1]["dice"])
            out |= {f"{kind}_dice": best["dice"], f"{kind}_folding": best["folding"], f"{kind}_lambda": lam}
        return out


def curve(
    name: str, task: ComparedTask, minutes: float, looks: int, folder: Path, learning_rate: float
) -> list[dict[str, Any]]:
    """Train a network for its minutes, or what is left of them; give what was measured along the way."""
    if not (folder / "model.pt").exists():
        print(f"{name}: {folder}", flush=True)
        schedule = Schedule(
            max_seconds=60 * minutes,
            learning_rate=learning_rate,
            validate_seconds=60 * minutes / looks,
            checkpoint_seconds=60,
        )
        train(task, schedule, folder)
    rows = [row for row in Rows(folder / "curve.jsonl").known if any(k.startswith("val_") for k in row)]
    # a run that was killed measures some of its steps twice: the later row counts
    return sorted({row["step"]: row for row in rows}.values(), key=lambda row: row["step"])


def table(curves: dict[str, list[dict[str, Any]]], affine: dict[str, float], kind: str, looks: int) -> str:
    """Write Dice against minutes of training, one row per network."""
    titles = "".join(f" {(i + 1) / looks:.0%} |" for i in range(looks))
    lines = [
        f"| network | parameters, primary / hyper | steps | seconds per step |{titles} lambda | folding % |",
        "|" + "---|" * (6 + looks),
    ]
    for name, rows in curves.items():
        last = rows[-1]
        cells = []
        for look in range(1, looks + 1):
            due = last["seconds"] * look / looks
            near = min(rows, key=lambda row, due=due: abs(row["seconds"] - due))
            cells.append(f"{100 * near[f'val_{kind}_dice']:.2f}")
        primary = primary_network(NETWORKS[name][0], **NETWORKS[name][1])
        sizes = [sum(p.numel() for p in m.parameters()) for m in (primary, HyperMorph(primary))]
        lines.append(
            f"| {name} | {sizes[0]:,} / {sizes[1]:,} | {last['step']} | {last['seconds'] / last['step']:.2f} "
            f"| {' | '.join(cells)} | {last[f'val_{kind}_lambda']:g} | {last[f'val_{kind}_folding']:.4f} |"
        )
    lines.append(f"\nDice x 100, all labels, at the best of the lambdas; affine: {100 * affine[kind]:.2f}.")
    return "\n".join(lines)


def main() -> None:
    """Train, measure, print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True, help="label maps made by 'prepare'")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder that holds bids/oasis: measure on real pairs too")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, per network")
    parser.add_argument("--looks", type=int, default=4, help="how often each network is measured")
    parser.add_argument("--spacing", type=float, default=4.0, help="mm: 4, 6 or 8")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.1, 0.3, 0.6])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = read_config("hypermorph")
    shared: dict[str, Any] = {
        "maps": load_maps(args.maps),
        "lattice": lattice_of(args.spacing),
        "spec": spec_of(config),
        "lams": args.lambdas,
    }
    compared = {"synthetic": synthetic_pairs(ComparedTask(**shared), args.pairs)}
    if args.data:
        compared["real"] = real_pairs(args.data, shared["lattice"], args.pairs, args.threads)
    affine = {kind: measure(None, pairs)["dice"] for kind, pairs in compared.items()}
    with_real = "_with-real" if args.data else ""
    lams = "-".join(f"{lam:g}" for lam in args.lambdas)
    folder = args.work / (
        f"{args.spacing:g}mm_{args.minutes:g}min_rate{args.learning_rate:g}"
        f"_{args.pairs}pairs_lambda{lams}{with_real}"
    )
    curves = {}
    for name in args.networks:
        kind, options = NETWORKS[name]
        task = ComparedTask(**shared, primary=kind, options=options, compared=compared)
        place = folder / name.replace(" ", "-").replace(",", "")
        curves[name] = curve(name, task, args.minutes, args.looks, place, args.learning_rate)
    text = f"{folder.name}, {args.pairs} pairs, {args.threads} threads\n"
    for kind in compared:
        text += f"\n{kind} pairs\n\n{table(curves, affine, kind, args.looks)}\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
