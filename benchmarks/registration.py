"""Deformable registration beside its peers: pairs of brains with manual labels, prealigned alike, one run.

python -m benchmarks.registration --data DATA --pairs 12 --threads 2 --out benchmarks/results/registration.md
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

SUBCORTICAL = (59, 60, 36, 37, 57, 58, 55, 56, 47, 48, 31, 32)
"""Manual labels of thalamus, caudate, putamen, pallidum, hippocampus and amygdala, both sides."""


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
    """Overlap of the warped labels and regularity of the displacement (X, Y, Z, 3; mm at 1 mm)."""
    from hyperprep.models.spatial.grids import Grid
    from hyperprep.models.spatial.measures import dice, folding_percent, jacobian_determinant
    from hyperprep.models.spatial.transforms import DisplacementField

    a, b = (np.asanyarray(i.dataobj).astype(int) for i in (fixed, moved))
    scores = dice(a, b, [int(n) for n in np.unique(a) if n > 0])
    row = {
        "dice": float(np.mean(list(scores.values()))),
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


Method = Callable[[Any, Any], tuple[nb.Nifti1Image, np.ndarray | None, float]]


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


def ants_method(kind: str) -> Method:
    """Run a registration of antspyx; images arrive prealigned, so its affine stage has little to do."""

    def run(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, np.ndarray | None, float]:
        import ants

        f, m = (ants.from_nibabel_nifti(i[0]) for i in (fixed, moving))
        values = np.asanyarray(moving[1].dataobj).astype(np.float32)
        labels = ants.from_nibabel_nifti(nb.Nifti1Image(values, moving[1].affine))
        began = time.perf_counter()
        found = ants.registration(fixed=f, moving=m, type_of_transform=kind)
        seconds = time.perf_counter() - began
        moved = ants.apply_transforms(f, labels, found["fwdtransforms"], interpolator="nearestNeighbor")
        warp = ants.image_read(next(t for t in found["fwdtransforms"] if "Warp" in t))
        field = warp.numpy().astype(np.float32) * np.array([-1, -1, 1], np.float32)
        return nb.Nifti1Image(moved.numpy().astype(np.int16), fixed[0].affine), field, seconds

    return run


def nothing(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, None, float]:
    """Give the common affine alone."""
    return moving[1], None, 0.0


def rows(data: Path, count: int, threads: int, peers: bool) -> Iterator[dict[str, Any]]:
    """Run every method on every pair."""
    subjects = prealigned(data, threads)
    methods: dict[str, Method] = {
        "affine": nothing,
        "ours, network alone": ours("none", threads),
        "ours, refined": ours("ncc", threads),
    }
    if peers:
        methods |= {
            "antspyx SyN": ants_method("SyN"),
            "antspyx SyNQuick": ants_method("antsRegistrationSyNQuick[s]"),
        }
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
    parser.add_argument("--no-peers", action="store_true", help="ours only: a quick look")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(args.threads)
    found = list(rows(args.data, args.pairs, args.threads, not args.no_peers))
    lines = [
        "| method | Dice all | Dice subcortical | folding % | sd of J | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["method"] for row in found):
        mine = [row for row in found if row["method"] == name]
        mean = {
            k: np.mean([row[k] for row in mine])
            for k in ("dice", "subcortical", "folding", "sd_jacobian", "seconds")
        }
        lines.append(
            f"| {name} | {mean['dice']:.3f} | {mean['subcortical']:.3f} | {mean['folding']:.4f} | "
            f"{mean['sd_jacobian']:.3f} | {mean['seconds']:.1f} |"
        )
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
