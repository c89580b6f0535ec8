"""What large data sets cost before anything is computed: checks and query, the graph, the group level.

python -m benchmarks.scale --sizes 10 100 1000 5000

Data sets of so many participants with two sessions each are generated (tiny files of random numbers). Each
measurement is made in a process of its own: seconds from its start to its end, its processor seconds, and its
largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nb
import numpy as np

SESSIONS = ("01", "02")
GRAPH_OF = 50

PREFLIGHT = """
import sys
from pathlib import Path
from hyperprep.bidsapp.cli.parser import parse_settings
from hyperprep.bidsapp.environment import prepare_environment
settings = parse_settings(sys.argv[1:])
prepare_environment(settings)
from hyperprep.bidsapp.preflight import preflight
from hyperprep.bidsapp.query import find_inputs
plan = preflight(settings)
inputs = find_inputs(settings, plan.participants)
assert all(len(one.sessions) == 2 for one in inputs), inputs
"""
GRAPH = (
    PREFLIGHT
    + """
from hyperprep.bidsapp.graph import build_workflow
workflow = build_workflow(settings, plan, inputs)
print(len(workflow._create_flat_graph().nodes()), "nodes")
"""
)


def label(number: int) -> str:
    """Label of a participant of the generated data sets."""
    return f"{number:05d}"


def write_input(root: Path, participants: int) -> None:
    """Write a raw data set; its images are links to one small file."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "scale", "BIDSVersion": "1.10.0"}))
    (root / "README").write_text("Generated: images of random numbers, to measure the query alone.\n")
    image = root / "scan.nii.gz"
    data = np.random.default_rng(0).uniform(0, 100, (7, 8, 9)).astype("f4")
    nb.Nifti1Image(data, np.diag([20.0, 20, 20, 1])).to_filename(image)
    (root / ".bidsignore").write_text("scan.nii.gz\n")
    for number in range(participants):
        for session in SESSIONS:
            stem = f"sub-{label(number)}/ses-{session}/anat/sub-{label(number)}_ses-{session}"
            path = root / f"{stem}_T1w.nii.gz"
            path.parent.mkdir(parents=True)
            os.link(image, path)
            (root / f"{stem}_T1w.json").write_text('{"MagneticFieldStrength": 3}')


def write_results(root: Path, participants: int, example: Path) -> None:
    """Write the quality figures and lambda curves of all participants, varied from those of a true run."""
    quality = json.loads(next(iter(sorted(example.rglob("*_quality.json")))).read_text())
    curve = next(iter(sorted(example.rglob("*_desc-lambda_xfm.tsv")))).read_text()
    rng = np.random.default_rng(0)
    for number in range(participants):
        for session in SESSIONS:
            folder = root / f"sub-{label(number)}" / f"ses-{session}" / "anat"
            folder.mkdir(parents=True)
            stem = f"sub-{label(number)}_ses-{session}"
            factor = float(rng.normal(1, 0.02))
            (folder / f"{stem}_quality.json").write_text(json.dumps(varied(quality, factor)))
            (folder / f"{stem}_from-T1w_to-MNI152NLin2009aSym_mode-image_desc-lambda_xfm.tsv").write_text(
                curve
            )
        (root / f"sub-{label(number)}.html").write_text("report")


def varied(value: object, factor: float) -> object:
    """Multiply every number by a factor."""
    if isinstance(value, dict):
        return {key: varied(item, factor) for key, item in value.items()}
    return value * factor if isinstance(value, float) else value


_WATCH = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, (lines or [""])[-1]]))
"""


def measure(*command: str) -> tuple[int, float, float, float, str]:
    """Run a command: exit code, seconds, processor seconds, largest resident memory (MB), last line."""
    began = time.perf_counter()
    watch = [sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(watch, capture_output=True, text=True, check=True)
    code, processor, megabytes, last = json.loads(done.stdout)
    return code, time.perf_counter() - began, processor, megabytes, last


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--example", type=Path, help="derivatives of a true run, for the group level")
    args = parser.parse_args()
    print("| participants (2 sessions each) | what | exit code | seconds | processor s | memory MB | |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for size in args.sizes:
            root = Path(scratch) / f"in-{size}"
            write_input(root, size)
            base = [str(root), str(Path(scratch) / f"out-{size}"), "participant", "-w", f"{scratch}/work"]
            one = ["--participant-label", label(size // 2)]
            many = ["--participant-label", *map(label, range(min(size, GRAPH_OF)))]
            runs = [
                ("checks and query of 1", [sys.executable, "-c", PREFLIGHT, *base, *one]),
                (f"graph of {min(size, GRAPH_OF)}", [sys.executable, "-c", GRAPH, *base, *many]),
                (
                    "bidsapp-slurm write",
                    [sys.executable, "-m", "hyperprep.bidsapp.slurm", *base[:2], "write"],
                ),
            ]
            if args.example:
                done = Path(scratch) / f"done-{size}"
                write_results(done, size, args.example)
                group = [sys.executable, "-m", "hyperprep.bidsapp", str(root), str(done), "group"]
                runs.append(("group level", [*group, "-w", f"{scratch}/work"]))
            for what, command in runs:
                code, seconds, processor, megabytes, last = measure(*command)
                note = last if "nodes" in last or code else ""
                cells = [size, what, code, f"{seconds:.1f}", f"{processor:.1f}", f"{megabytes:.0f}", note]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
