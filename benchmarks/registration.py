"""Deformable registration beside its peers: pairs of brains with manual labels, prealigned alike, one run.

python -m benchmarks.registration --data DATA --pairs 20 --threads 2 --rows rows.tsv

Every method has a process of its own, which does all pairs one after the other and is idle in between: its
memory is its own, and libraries are warm from its second pair on (the table gives medians). All methods do a
pair before the next one begins. Rows are written as they are measured; a second run with the same file
continues.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd

from benchmarks.peers import Method, Moved, ants_method, dipy_syn, greedy

SUBCORTICAL = (59, 60, 36, 37, 57, 58, 55, 56, 47, 48, 31, 32)
"""Manual labels of thalamus, caudate, putamen, pallidum, hippocampus and amygdala, both sides."""

KINDS = ("image", "labels")

COLUMNS = {
    "dice": ("Dice all", "mean", 3),
    "cortical": ("cortical", "mean", 3),
    "subcortical": ("subcortical", "mean", 3),
    "hd95": ("HD95 subcortical, mm", "mean", 2),
    "folding": ("folding %, largest", "max", 4),
    "sd_jacobian": ("sd of J", "mean", 3),
    "inverse_error": ("there and back, mm", "mean", 2),
    "seconds": ("seconds, median", "median", 1),
    "memory_gb": ("memory, GB", "max", 1),
}
"""Columns of the table: title, what is made of the pairs' values, digits."""


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


def measure(fixed: nb.Nifti1Image, found: Moved) -> dict[str, float]:
    """Overlap of the warped labels, and regularity and consistency of the displacements (mm at 1 mm).

    Labels from 100 on are the cortical parcels of the manual protocol. ``hd95`` is the mean over the
    subcortical labels, mm; ``inverse_error`` the mean distance by which there and back misses, mm, over the
    brain.
    """
    from hyperprep.models.spatial.measures import dice

    a, b = (np.asanyarray(i.dataobj).astype(int) for i in (fixed, found.labels))
    scores = dice(a, b, [int(n) for n in np.unique(a) if n > 0])
    row = {
        "dice": float(np.mean(list(scores.values()))),
        "cortical": float(np.mean([score for n, score in scores.items() if n >= 100])),
        "hd95": float(np.mean([boxed_distance(a == n, b == n) for n in SUBCORTICAL if n in scores])),
        "subcortical": float(np.mean([scores[n] for n in SUBCORTICAL if n in scores])),
        **regularity(found.forward, a > 0),
        "inverse_error": 0.0,
        "seconds": found.seconds,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    if found.forward is not None and found.inverse is not None:
        row["inverse_error"] = _inverse_error(found.forward, found.inverse, a > 0)
    return row


def regularity(displacement: np.ndarray | None, inside: np.ndarray) -> dict[str, float]:
    """Measure a displacement (X, Y, Z, 3), mm at 1 mm, over some voxels; None is the identity."""
    from hyperprep.models.spatial.grids import Grid
    from hyperprep.models.spatial.measures import folding_percent, jacobian_determinant
    from hyperprep.models.spatial.transforms import DisplacementField

    if displacement is None:
        return {"folding": 0.0, "sd_jacobian": 0.0}
    field = DisplacementField(Grid(displacement.shape[:3], np.eye(4)), displacement)
    determinant = jacobian_determinant(field)
    return {
        "folding": folding_percent(determinant, inside),
        "sd_jacobian": float(determinant[inside].std()),
    }


def _inverse_error(forward: np.ndarray, inverse: np.ndarray, inside: np.ndarray) -> float:
    """Give the mean of ||forward(x) + inverse(x + forward(x))|| over some voxels, mm at 1 mm."""
    from scipy.ndimage import map_coordinates

    there = forward[inside]
    at = (np.argwhere(inside) + there).T
    back = np.stack([map_coordinates(inverse[..., axis], at, order=1, mode="nearest") for axis in range(3)])
    return float(np.linalg.norm(there.T + back, axis=0).mean())


def boxed_distance(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> float:
    """Give HD95 (mm) of two masks, measured inside the box that holds both; NaN where one is empty."""
    from hyperprep.models.spatial.measures import hausdorff95

    if not (a.any() and b.any()):
        return float("nan")
    held = np.argwhere(a | b)
    box = tuple(slice(low, high + 1) for low, high in zip(held.min(0), held.max(0), strict=True))
    return float(hausdorff95(a[box], b[box], spacing=spacing))


def ours(refine: str, threads: int, lam: float | str = 0.3) -> Method:
    """Our registration; without ``lam="auto"`` it is given no labels: the peers are given none either.

    ``"auto"`` chooses lambda by the labels that the table counts (FreeSurfer numbers).
    """

    def run(fixed: Any, moving: Any) -> Moved:
        from hyperprep.models.predict.register import register
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.itk import displacement_from_itk
        from hyperprep.models.spatial.transforms import resample, to_itk

        labels = {"fixed_dseg": fixed[1], "moving_dseg": moving[1]} if lam == "auto" else {}
        began = time.perf_counter()
        found = register(
            fixed[0], moving[0], fixed2moving=np.eye(4), lam=lam, refine=refine, num_threads=threads, **labels
        )
        seconds = time.perf_counter() - began
        if lam == "auto":
            print(f"  lambda {found.lam:.2f}", flush=True)
        grid = Grid.of(fixed[0])
        forward, inverse = (
            displacement_from_itk(to_itk(chain), grid).data
            for chain in (found.chain(), found.inverse_chain())
        )
        moved = resample(moving[1], grid, found.chain(), interpolation="nearest")
        return Moved(moved, forward, inverse, seconds)

    return run


def nothing(fixed: Any, moving: Any) -> Moved:
    """Give the common affine alone."""
    return Moved(moving[1], None, None, 0.0)


def methods(threads: int) -> dict[str, Method]:
    """Give every method by its name in the table."""
    return {
        "affine": nothing,
        "ours, network alone": ours("none", threads),
        "ours, refined": ours("ncc", threads),
        "antspyx SyN": ants_method("SyN"),
        "antspyx SyNQuick": ants_method("antsRegistrationSyNQuick[s]"),
        "greedy 100x50x10": greedy(threads),
        "dipy SyN": dipy_syn(),
    }


def one(name: str, folder: Path, fixed: str, moving: str, threads: int) -> dict[str, float]:
    """Run one method on one pair of the prealigned images in a folder: what a method's process does."""
    pair = [[_held(folder / f"{subject}_{kind}.nii") for kind in KINDS] for subject in (fixed, moving)]
    return measure(pair[0][1], methods(threads)[name](*pair))


def _means(word: str, name: str, known: Sequence[str]) -> bool:
    """Say whether a word means a method: its whole name, or a part of it when it is nobody's whole name.

    >>> [_means(word, "SyNQuick", ["SyN", "SyNQuick"]) for word in ("SyN", "Quick", "Sy")]
    [False, True, True]
    """
    return word == name if word in known else word in name


def _held(file: Path) -> nb.Nifti1Image:
    """Hold an image in memory as nibabel gives it: first axis fastest."""
    image = nb.load(file)
    return nb.Nifti1Image(np.asanyarray(image.dataobj).copy(order="K"), image.affine)


def rows(
    data: Path, count: int, threads: int, chosen: Sequence[str], finished: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Run every chosen method on every pair that is not finished."""
    known = list(methods(threads))
    names = [name for name in known if any(_means(word, name, known) for word in chosen)]
    done = set(zip(finished["pair"], finished["method"], strict=True)) if len(finished) else set()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        subjects = prealigned(data, threads)
        for subject, images in subjects.items():
            for kind, image in zip(KINDS, images, strict=True):
                nb.save(image, folder / f"{subject}_{kind}.nii")
        workers = {
            name: stack.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=context))
            for name in names
        }
        for fixed, moving in pairs_of(sorted(subjects), count):
            pair = f"{fixed} <- {moving}"
            for name in names:
                if (pair, name) in done:
                    continue
                found = workers[name].submit(one, name, folder, fixed, moving, threads).result()
                yield {"pair": pair, "method": name, **found}


def table(found: pd.DataFrame) -> list[str]:
    """Give the lines of the table: means, but medians of seconds and the largest folding and memory."""
    lines = [f"| method | {' | '.join(title for title, _, _ in COLUMNS.values())} |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for name, mine in found.groupby("method", sort=False):
        cells = [f"{getattr(mine[key], how)():.{digits}f}" for key, (_, how, digits) in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def comparisons(found: pd.DataFrame) -> list[str]:
    """Say pair by pair how our two results stand beside every peer."""
    wide = {key: found.pivot(index="pair", columns="method", values=key) for key in ("dice", "seconds")}
    lines = [
        "| ours | peer | mean difference of Dice | pairs above | median ratio of seconds |",
        "|---|---|---|---|---|",
    ]
    mine = [name for name in wide["dice"] if name.startswith("ours")]
    for name in mine:
        for peer in wide["dice"]:
            if peer in mine or peer == "affine":
                continue
            gain = (wide["dice"][name] - wide["dice"][peer]).dropna()
            ratio = (wide["seconds"][name] / wide["seconds"][peer]).median()
            lines.append(
                f"| {name} | {peer} | {gain.mean():+.3f} | {int((gain > 0).sum())} of {len(gain)} "
                f"| 1/{1 / ratio:.1f} |"
            )
    return lines


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
        help="methods, or words of their names; 'ours' alone is a quick look",
    )
    parser.add_argument("--rows", type=Path, help="table of single results; what it holds is not run again")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(args.threads)
    found = pd.read_csv(args.rows, sep="\t") if args.rows and args.rows.exists() else pd.DataFrame()
    for row in rows(args.data, args.pairs, args.threads, args.methods, found):
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        found = pd.concat([found, pd.DataFrame([row])], ignore_index=True)
        if args.rows:
            found.to_csv(args.rows, sep="\t", index=False, float_format="%.6g")
    count = found["pair"].nunique()
    text = "\n".join([*table(found), "", *comparisons(found), "", f"{count} pairs, {args.threads} threads."])
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
