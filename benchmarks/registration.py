"""Deformable registration beside its peers: pairs of brains with manual labels, prealigned alike, one run.

python -m benchmarks.registration --data DATA --pairs 12 --threads 2 --out benchmarks/results/registration.md
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from benchmarks.peers import Method, ants_method, dipy_syn, greedy

SUBCORTICAL = (59, 60, 36, 37, 57, 58, 55, 56, 47, 48, 31, 32)
"""Manual labels of thalamus, caudate, putamen, pallidum, hippocampus and amygdala, both sides."""

COLUMNS = {
    "dice": 3, "cortical": 3, "subcortical": 3, "hd95": 2, "folding": 4, "sd_jacobian": 3, "seconds": 1,
}  # fmt: skip
"""Columns of the table and their digits; distances in mm, folding in percent."""


def pairs_of(subjects: list[str], count: int) -> list[tuple[str, str]]:
    """Give (fixed, moving) pairs that use every subject before any twice as often as another.

    >>> pairs_of(["a", "b", "c"], 4)
    [('a', 'b'), ('b', 'c'), ('c', 'a'), ('a', 'c')]
    """
    n = len(subjects)
    every = [(subjects[i], subjects[(i + shift) % n]) for shift in range(1, n) for i in range(n)]
    return every[:count]


def prealigned(data: Path, threads: int) -> dict[str, tuple[nb.Nifti1Image, nb.Nifti1Image]]:
    """Bring image and labels of every subject onto the 1 mm model grid by one affine to the template."""
    from nilearn.datasets import load_mni152_template

    from hyperprep.models.predict.prealign import prealign
    from hyperprep.models.spatial.grids import model_grid
    from hyperprep.models.spatial.images import read_dseg, read_scan, robust_rescale
    from hyperprep.models.spatial.transforms import resample

    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    grid = model_grid(1.0)
    out = {}
    for file in sorted((data / "bids" / "oasis").glob("sub-*/anat/*_T1w.nii.gz")):
        subject = file.name.split("_")[0]
        labels = data / "bids" / "oasis" / "derivatives" / "manual" / subject / "anat"
        scan, dseg = read_scan(file), read_dseg(labels / f"{subject}_desc-manual_dseg.nii.gz")
        masks = [nb.Nifti1Image((i.get_fdata() > 0).astype(np.uint8), i.affine) for i in (template, scan)]
        found = prealign(template, scan, fixed_mask=masks[0], moving_mask=masks[1], num_threads=threads)
        image = resample(scan, grid, [found.fixed2moving])
        values = image.get_fdata(dtype=np.float32)
        scaled = nb.Nifti1Image(robust_rescale(values, values > 0) * (values > 0), grid.affine)
        out[subject] = scaled, resample(dseg, grid, [found.fixed2moving], interpolation="nearest")
    return out


def measure(fixed: nb.Nifti1Image, moved: nb.Nifti1Image, field: np.ndarray | None) -> dict[str, float]:
    """Overlap of the warped labels and regularity of the displacement (X, Y, Z, 3; mm at 1 mm).

    Labels from 100 on are the cortical parcels of the manual protocol. ``hd95`` is the mean over the
    subcortical labels, mm.
    """
    from hyperprep.models.spatial.grids import Grid
    from hyperprep.models.spatial.measures import dice, folding_percent, hausdorff95, jacobian_determinant
    from hyperprep.models.spatial.transforms import DisplacementField

    a, b = (np.asanyarray(i.dataobj).astype(int) for i in (fixed, moved))
    scores = dice(a, b, [int(n) for n in np.unique(a) if n > 0])
    row = {
        "dice": float(np.mean(list(scores.values()))),
        "cortical": float(np.mean([score for n, score in scores.items() if n >= 100])),
        "hd95": float(np.mean([_distance(hausdorff95, a == n, b == n) for n in SUBCORTICAL if n in scores])),
        "subcortical": float(np.mean([scores[n] for n in SUBCORTICAL if n in scores])),
        "folding": 0.0,
        "sd_jacobian": 0.0,
    }
    if field is not None:
        determinant = jacobian_determinant(DisplacementField(Grid(field.shape[:3], np.eye(4)), field))
        inside = a > 0
        row["folding"] = folding_percent(determinant, inside)
        row["sd_jacobian"] = float(determinant[inside].std())
    return row


def _distance(measure_of: Any, a: np.ndarray, b: np.ndarray) -> float:
    """Measure two masks inside the box that holds both."""
    held = np.argwhere(a | b)
    box = tuple(slice(low, high + 1) for low, high in zip(held.min(0), held.max(0), strict=True))
    return float(measure_of(a[box], b[box], spacing=(1.0, 1.0, 1.0))) if b.any() else float("nan")


def ours(refine: str, threads: int) -> Method:
    """Our registration, lambda 0.3 without labels: the peers are given none either."""

    def run(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, np.ndarray, float]:
        from hyperprep.models.predict.register import register
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.transforms import map_points, resample

        began = time.perf_counter()
        found = register(
            fixed[0], moving[0], fixed2moving=np.eye(4), lam=0.3, refine=refine, num_threads=threads
        )
        seconds = time.perf_counter() - began
        grid = Grid.of(fixed[0])
        points = grid.to_world(np.argwhere(np.ones(grid.shape, bool)))
        field = (map_points(points, found.chain()) - points).reshape(*grid.shape, 3).astype(np.float32)
        return resample(moving[1], grid, found.chain(), interpolation="nearest"), field, seconds

    return run


def nothing(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, None, float]:
    """Give the common affine alone."""
    return moving[1], None, 0.0


def rows(data: Path, count: int, threads: int, chosen: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run every chosen method on every pair."""
    subjects = prealigned(data, threads)
    every: dict[str, Method] = {
        "affine": nothing,
        "ours, network alone": ours("none", threads),
        "ours, refined": ours("ncc", threads),
    }
    every |= {
        "antspyx SyN": ants_method("SyN"),
        "antspyx SyNQuick": ants_method("antsRegistrationSyNQuick[s]"),
        "greedy 100x50x10": greedy(threads),
        "dipy SyN": dipy_syn(),
    }
    methods = {name: method for name, method in every.items() if any(word in name for word in chosen)}
    for fixed, moving in pairs_of(sorted(subjects), count):
        for name, method in methods.items():
            moved, field, seconds = method(subjects[fixed], subjects[moving])
            row = {
                "pair": f"{fixed} <- {moving}",
                "method": name,
                "seconds": seconds,
                **measure(subjects[fixed][1], moved, field),
            }
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            yield row


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["affine", "ours", "SyN", "greedy"],
        help="words of the methods' names; 'ours' alone is a quick look",
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(args.threads)
    found = list(rows(args.data, args.pairs, args.threads, args.methods))
    lines = [
        "| method | Dice all | cortical | subcortical | HD95 subcortical | folding % | sd of J | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["method"] for row in found):
        mine = [row for row in found if row["method"] == name]
        means = [f"{np.mean([row[key] for row in mine]):.{digits}f}" for key, digits in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(means)} |")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines.append(
        f"\n{args.pairs} pairs, {args.threads} threads, peak memory of the whole run {memory:.1f} GiB."
    )
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
