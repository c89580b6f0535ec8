"""Wall time and memory of the app, participant by participant, and what the validator says of its output.

python -m benchmarks.sessions BIDS_DIR [BIDS_DIR ...] --threads 2 --out benchmarks/results/sessions.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil

from hyperprep.bidsapp.validate import _find_program


def run(command: list[str]) -> tuple[int, float, float]:
    """Run a command: exit code, seconds, and the largest resident memory with all children (GB)."""
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            family = []
        for one in family:
            try:
                total += one.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, total / 1e9)
        time.sleep(0.2)
    return process.returncode, time.perf_counter() - began, peak


def verdict(folder: Path) -> str:
    """Errors that the official BIDS validator finds, counted by code."""
    program = _find_program()
    if program is None:
        return "no validator installed"
    done = subprocess.run(
        [program, "--format", "json", "--ignoreWarnings", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DENO_DIR": tempfile.gettempdir() + "/deno"},
    )
    found = [i for i in json.loads(done.stdout)["issues"]["issues"] if i.get("severity") == "error"]
    counts = Counter(str(i.get("code")) for i in found)
    return "0 errors" if not counts else ", ".join(f"{code} x {n}" for code, n in counts.items())


def steps_of(outputs: list[Path]) -> Counter[str]:
    """Seconds of every kind of step, summed over all that the resource monitor recorded in some outputs."""
    steps: Counter[str] = Counter()
    for table in (t for out in outputs for t in out.glob("logs/*/resources.tsv")):
        for row in pd.read_csv(table, sep="\t").itertuples():
            steps[str(row.node).rsplit(".", 1)[-1]] += float(row.seconds)
    return steps


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bids_dirs", type=Path, nargs="+", metavar="BIDS_DIR")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--outputs", type=Path, help="keep the derivatives in this folder")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [
        "| data set | participant | sessions | exit code | seconds | seconds per session | peak memory GB |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = ["| folder | validator |", "|---|---|"]
    scans = 0
    with tempfile.TemporaryDirectory() as scratch:
        base = args.outputs or Path(scratch)
        for bids_dir in args.bids_dirs:
            name, out = bids_dir.name, base / bids_dir.name
            for folder in sorted(bids_dir.glob("sub-*")):
                label = folder.name.removeprefix("sub-")
                sessions = len(list(folder.rglob("*_T1w.nii.gz")))
                work = Path(scratch) / f"work-{name}-{label}"
                code, seconds, peak = run(
                    [sys.executable, "-m", "hyperprep.bidsapp", str(bids_dir), str(out), "participant",
                     "--participant-label", label, "-w", str(work), "--nprocs", str(args.threads),
                     "--resource-monitor"]
                )  # fmt: skip
                scans += sessions
                lines.append(
                    f"| {name} | {label} | {sessions} | {code} | {seconds:.0f} "
                    f"| {seconds / max(1, sessions):.0f} | {peak:.1f} |"
                )
                print(lines[-1], flush=True)
            group = [sys.executable, "-m", "hyperprep.bidsapp", str(bids_dir), str(out), "group"]
            code = run(group)[0]
            for folder, what in ((bids_dir, "input"), (out, f"output (group level: exit code {code})")):
                verdicts.append(f"| {name}, {what} | {verdict(folder)} |")
                print(verdicts[-1], flush=True)
        steps = steps_of([base / bids_dir.name for bids_dir in args.bids_dirs])
    spent = [f"| {step} | {seconds / max(1, scans):.1f} |" for step, seconds in steps.most_common(12)]
    text = [*lines, "", *verdicts, "", "| step | seconds per session |", "|---|---|", *spent]
    print("\n".join(spent))
    if args.out:
        args.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
