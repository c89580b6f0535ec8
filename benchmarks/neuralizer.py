"""Few-shot tasks: Dice and PSNR against the number of examples, beside a U-Net and label propagation.

python -m benchmarks.neuralizer synthetic --maps runs/maps.npz --weights-dir WEIGHTS --rows rows.jsonl
python -m benchmarks.neuralizer tasks     --maps runs/maps.npz --weights-dir WEIGHTS --rows rows.jsonl
python -m benchmarks.neuralizer oasis     --data DATA --weights-dir WEIGHTS --rows rows.jsonl
python -m benchmarks.neuralizer ablation  --data DATA --weights-dir WEIGHTS --rows rows.jsonl
python -m benchmarks.neuralizer cost      --data DATA --weights-dir WEIGHTS --rows rows.jsonl --threads 2
python -m benchmarks.neuralizer table     --rows rows.jsonl --out benchmarks/results/neuralizer.md

Each row is written as soon as it is there; a run with the same rows file goes on where it stopped.
``--quick`` makes one small row of each kind; ``--unet-minutes`` is what each U-Net trains.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.few_shot_people import HELD_OUT
from benchmarks.few_shot_volumes import ablation, cost, oasis
from benchmarks.rows import Rows


def task_for(args: argparse.Namespace) -> tuple[Any, Any]:
    """Make the training task of the weights' grid, for its synthetic episodes, and load the network."""
    from hyperprep.models.predict.device import pick_device
    from hyperprep.models.predict.few_shot_slices import load_few_shot
    from hyperprep.models.synth.maps import load_maps
    from hyperprep.models.train import configure

    network, entry = load_few_shot(None, args.weights_dir, pick_device("cpu"))
    config = configure.read_config(args.config)
    config["lattice"] = {k: entry.metadata["grid"][k] for k in ("shape", "spacing_mm", "origin_mm")}
    config["model"] |= {k: v for k, v in entry.metadata["network"].items() if k != "kind"}
    return configure.task_of(config, load_maps(args.maps), "cpu"), network.eval()


def synthetic(args: argparse.Namespace, rows: Rows) -> None:
    """Dice on slices of held-out heads, structures seen and not seen in training."""
    import torch

    from hyperprep.models.synth.structures import STRUCTURES as NUMBERS
    from hyperprep.models.train.neuralizer import hard_dice

    task, network = task_for(args)
    unseen = sorted(task._unseen)
    seen = [n for n in NUMBERS if n not in task._unseen and n in task._ranges and n != 24]
    for size in (1, 2) if args.quick else args.sizes or (1, 2, 4, 8, 16, 32):
        for group, numbers in (("unseen", unseen), ("seen", seen)):
            if not numbers or rows.has(part="synthetic", group=group, context=size):
                continue
            scores = []
            for seed in range(2 if args.quick else args.episodes):
                batch = task.validation_batch(
                    seed, "segmentation", context=size, numbers=(numbers[seed % len(numbers)],)
                )
                with torch.inference_mode():
                    scores.append(float(hard_dice(network(batch.target, batch.context), batch.truth)))
            rows.add(
                {"part": "synthetic", "group": group, "context": size, "episodes": len(scores),
                 "dice": float(np.nanmean(scores)), "sd": float(np.nanstd(scores))}
            )  # fmt: skip


def tasks(args: argparse.Namespace, rows: Rows) -> None:
    """PSNR (Dice for skull stripping) of every task, on contrasts seen and not seen in training."""
    import torch

    from hyperprep.models.synth.episodes import TASK_WEIGHTS
    from hyperprep.models.train.neuralizer import hard_dice, psnr

    task, network = task_for(args)
    groups = (
        {"seen": ("T1w",), "unseen": (task.held_out_contrast,)} if task.held_out_contrast else {"seen": ()}
    )
    names = [name for name in TASK_WEIGHTS if name != "segmentation"]
    for size in (1,) if args.quick else args.sizes or (1, 2, 4, 8, 16, 32):
        for name in names[:2] if args.quick else names:
            for group, contrasts in groups.items():
                if rows.has(part="tasks", task=name, group=group, context=size):
                    continue
                scores, kind = [], "psnr"
                for seed in range(1 if args.quick else args.episodes):
                    batch = task.validation_batch(seed, name, context=size, contrasts=contrasts)
                    kind = "dice" if bool(batch.is_mask[0]) else "psnr"
                    with torch.inference_mode():
                        found = network(batch.target, batch.context)
                    scores.append(float((hard_dice if kind == "dice" else psnr)(found, batch.truth)))
                rows.add(
                    {"part": "tasks", "task": name, "group": group, "context": size, "measure": kind,
                     "value": float(np.nanmean(scores)), "sd": float(np.nanstd(scores))}
                )  # fmt: skip


def table(rows: Rows) -> str:
    """Write the rows as Markdown tables.

    Examples
    --------
    >>> import tempfile
    >>> rows = Rows(Path(tempfile.mkdtemp()) / "rows.jsonl")
    >>> rows.known = [{"part": "synthetic", "group": "seen", "context": 1, "dice": 0.5}]
    >>> print(table(rows).splitlines()[4])
    | seen | 0.500 |
    """
    sections = (
        ("synthetic", ("group",), "context", "dice", "Dice on synthetic slices of held-out heads"),
        ("tasks", ("task", "measure", "group"), "context", "value", "Other tasks, PSNR in dB or Dice"),
        ("oasis", ("structure", "method"), "context", "dice", "Dice on real volumes"),
        ("ablation", ("structure", "variant"), "", "dice", "Ablation, four examples"),
        ("cost", ("kind",), "context", "seconds", "Seconds per volume"),
        ("cost", ("kind",), "context", "peak_gib", "Peak memory of the process, GiB"),
    )
    lines: list[str] = []
    for part, names, column, value, title in sections:
        mine = [{"": "Dice", **row} for row in rows.known if row["part"] == part]
        if not mine:
            continue
        if part == "oasis":
            mine += [row | {"structure": "**mean of all**"} for row in mine] + [
                row | {"structure": f"**mean of {', '.join(HELD_OUT)}**"}
                for row in mine
                if row["structure"] in HELD_OUT
            ]
        heads = list(dict.fromkeys(row[column] for row in mine))
        lines += [f"## {title}", "", f"| {' | '.join(names)} | {' | '.join(map(str, heads))} |"]
        lines.append("|---" * (len(names) + len(heads)) + "|")
        for label in dict.fromkeys(tuple(row[n] for n in names) for row in mine):
            cells = []
            for head in heads:
                found = [r[value] for r in mine if tuple(r[n] for n in names) == label and r[column] == head]
                cells.append(f"{np.mean(found):.3f}" if found else "")
            lines.append(f"| {' | '.join(map(str, label))} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run one part, or print the table."""
    parts = {"synthetic": synthetic, "tasks": tasks, "oasis": oasis, "ablation": ablation, "cost": cost}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*parts, "table"])
    parser.add_argument("--rows", type=Path, default=Path("runs/neuralizer_rows.jsonl"))
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument(
        "--config", default="neuralizer", help="configuration that the weights were trained with"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--unet-minutes", type=float, default=10.0)
    parser.add_argument("--methods", nargs="+", default=["few-shot", "mean", "vote", "unet", "syn"])
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        help="numbers of examples (default: 1 to 4 real, 1 to 32 synthetic ones)",
    )
    parser.add_argument("--subjects", type=int, default=4, help="real subjects that are segmented")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = Rows(args.rows)
    if args.part != "table":
        import torch

        torch.set_num_threads(args.threads)
        parts[args.part](args, rows)
    text = table(rows)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
