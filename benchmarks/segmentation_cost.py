"""Seconds and memory of segmenting 1, 5 and all regions of one scan, each in a process of its own.

python -m benchmarks.segmentation_cost --scan SCAN --threads 2 --out benchmarks/results/segmentation_cost.md
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.peak import peak_gb
from benchmarks.segmentation import aligned

ASKED: dict[str, tuple[str, ...]] = {
    "1 (hippocampus, left)": ("17",),
    "5 (subcortical, left)": ("10", "11", "12", "13", "17"),
    "all": ("all",),
}
"""What is asked for, by what the table calls it."""


def _run(
    pipe: Any, path: str, labels: tuple[str, ...], probabilities: bool, threads: int, turns: int
) -> None:
    from hyperprep.models.predict.segment import segment
    from hyperprep.models.predict.synthetic_controls import template_brain
    from hyperprep.models.spatial.images import read_scan

    scan = read_scan(path)
    rough, template2scan = aligned(scan, template_brain(), threads)
    taken = []
    for _ in range(turns):
        began = time.perf_counter()
        segment(
            scan, template2scan=template2scan, labels=labels, mask=rough, probabilities=probabilities,
            num_threads=threads,
        )  # fmt: skip
        taken.append(time.perf_counter() - began)
    pipe.send((statistics.median(taken), peak_gb()))


def measured(*task: Any) -> tuple[float, float]:
    """Run in a fresh process; give seconds (median) and its largest resident memory (GB)."""
    context = mp.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, *task))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return float(found[0]), float(found[1])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True, help="a whole head")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="runs in each process; the median counts")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = ["| regions | probability maps | seconds | peak memory, GB |", "|---|---|---|---|"]
    print("\n".join(lines))
    for name, labels in ASKED.items():
        for probabilities in (False, True):
            seconds, peak = measured(str(args.scan), labels, probabilities, args.threads, args.turns)
            lines.append(f"| {name} | {'yes' if probabilities else 'no'} | {seconds:.1f} | {peak:.2f} |")
            print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
