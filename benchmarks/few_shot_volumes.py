"""Few-shot tasks on real volumes: overlap, ablation, and what they cost (parts of :mod:`.neuralizer`)."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from benchmarks.rows import Rows

STRUCTURES = {
    "thalamus": (59, 60), "caudate": (36, 37), "putamen": (57, 58), "pallidum": (55, 56),
    "hippocampus": (47, 48), "amygdala": (31, 32),
}  # fmt: skip
"""Manual labels of the six structures of the real volumes, both sides."""

HELD_OUT = ("pallidum", "amygdala")
"""Those of them that no training mask held (with the shipped configurations)."""


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    """Give the Dice coefficient of two masks.

    >>> dice_of(np.array([1, 1, 0]), np.array([1, 0, 0]))
    0.6666666666666666
    """
    return float(2 * np.count_nonzero((a > 0) & (b > 0)) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))


def subjects(data: Path) -> dict[str, tuple[nb.Nifti1Image, nb.Nifti1Image, nb.Nifti1Image]]:
    """Read scan, brain mask and manual labels of every real subject."""
    from hyperprep.models.spatial.images import read_dseg, read_scan

    out = {}
    for file in sorted((data / "bids" / "oasis").glob("sub-*/anat/*_T1w.nii.gz")):
        name = file.name.split("_")[0]
        scan = read_scan(file)
        folder = data / "bids" / "oasis" / "derivatives" / "manual" / name / "anat"
        mask = nb.Nifti1Image((scan.get_fdata() > 0).astype(np.uint8), scan.affine)
        out[name] = scan, mask, read_dseg(folder / f"{name}_desc-manual_dseg.nii.gz")
    return out


def template_map(scan: nb.Nifti1Image, mask: nb.Nifti1Image, threads: int) -> np.ndarray:
    """Align a scan to the template as the app does: (4, 4) point map from template to scan."""
    from nilearn.datasets import load_mni152_template

    from hyperprep.models.predict.prealign import prealign

    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    inside = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    return prealign(template, scan, fixed_mask=inside, moving_mask=mask, num_threads=threads).fixed2moving


def cases(args: argparse.Namespace) -> Iterator[tuple[str, Any, list[Any], int]]:
    """Give (target's name, target, examples, number of examples): the first subjects are the examples."""
    people = subjects(args.data)
    names = list(people)
    most = 1 if args.quick else 4
    for size in (1,) if args.quick else (1, 2, 4):
        for name in names[most : most + 1] if args.quick else names[most:]:
            yield name, people[name], [(n, people[n]) for n in names[:size]], size


def examples_of(chosen: list[Any], numbers: tuple[int, ...]) -> list[Any]:
    """Make examples of one structure."""
    from hyperprep.models.spatial.examples import ExampleImages

    return [
        ExampleImages(name, (scan,), _structure(labels, numbers), mask)
        for name, (scan, mask, labels) in chosen
    ]


def _structure(labels: nb.Nifti1Image, numbers: tuple[int, ...]) -> nb.Nifti1Image:
    inside = np.isin(np.asanyarray(labels.dataobj), numbers).astype(np.uint8)
    return nb.Nifti1Image(inside, labels.affine)


def oasis(args: argparse.Namespace, rows: Rows) -> None:
    """Dice of six structures on real volumes: few-shot, U-Net trained on the same subjects, SyN."""
    from hyperprep.models.predict.few_shot import few_shot

    structures = dict(list(STRUCTURES.items())[-1:]) if args.quick else STRUCTURES
    maps: dict[str, np.ndarray] = {}
    for name, (scan, mask, labels), chosen, size in cases(args):
        for structure, numbers in structures.items():
            key = {"part": "oasis", "subject": name, "structure": structure, "context": size}
            missing = [m for m in args.methods if not rows.has(**key, method=m)]
            if not missing:
                continue
            if name not in maps:
                maps[name] = template_map(scan, mask, args.threads)
            truth = np.asanyarray(_structure(labels, numbers).dataobj)
            given = examples_of(chosen, numbers)
            if "few-shot" in missing:
                began = time.perf_counter()
                made = few_shot(
                    [scan], given, kind="mask", template2scan=maps[name], mask=mask,
                    weights_dir=args.weights_dir, num_threads=args.threads,
                )  # fmt: skip
                score = dice_of(np.asanyarray(made.output.dataobj), truth)
                rows.add({**key, "method": "few-shot", "dice": score, "seconds": time.perf_counter() - began})
            for method in [m for m in missing if m != "few-shot"]:
                score, seconds = _baseline(method, args, scan, mask, given, maps[name], truth)
                rows.add({**key, "method": method, "dice": score, "seconds": seconds})


def _baseline(
    method: str,
    args: argparse.Namespace,
    scan: Any,
    mask: Any,
    given: list[Any],
    to_scan: np.ndarray,
    truth: Any,
) -> tuple[float, float]:
    """Run a baseline on the few-shot network's own grid and measure it on the scan's."""
    from benchmarks.few_shot_baselines import moved_labels, unet_volume
    from hyperprep.models.predict.few_shot_slices import WEIGHTS
    from hyperprep.models.predict.placing import place_example, sample_inputs
    from hyperprep.models.predict.sampling import lattice_grid
    from hyperprep.models.spatial.grids import Grid, model_grid
    from hyperprep.models.spatial.transforms import resample
    from hyperprep.models.weights import find_weights

    grid = lattice_grid(find_weights(WEIGHTS, weights_dir=args.weights_dir).metadata["grid"])
    if method == "syn":
        grid = model_grid(1.0)
    target, _, _ = sample_inputs([scan], mask, grid, to_scan)
    placed = [place_example(e, (scan, mask, target[0]), grid, to_scan, "mask", args.threads) for e in given]
    inputs, outputs = ([p.volumes[i].numpy() for p in placed] for i in (0, 3))
    if method == "syn":
        found, seconds = moved_labels(inputs, outputs, target[0], grid.affine)
    else:
        minutes = 0.05 if args.quick else args.unet_minutes
        found, seconds = unet_volume(inputs, outputs, target[0], minutes=minutes)
    back = resample(nb.Nifti1Image(found, grid.affine), Grid.of(scan), [np.linalg.inv(to_scan)])
    return dice_of(back.get_fdata() > 0.5, truth), seconds


def ablation(args: argparse.Namespace, rows: Rows) -> None:
    """Without alignment of the examples, and with one orientation; four examples, two structures."""
    from hyperprep.models.predict.few_shot import few_shot

    variants: dict[str, dict[str, Any]] = {
        "all": {}, "examples not aligned": {"prealigned": True}, "sagittal only": {"orientations": (0,)},
        "coronal only": {"orientations": (1,)}, "axial only": {"orientations": (2,)},
        "4 bootstraps": {"bootstraps": 4},
    }  # fmt: skip
    for name, (scan, mask, labels), chosen, size in cases(args):
        if size != 4 and not args.quick:
            continue
        to_scan = None
        for structure in ("hippocampus", "amygdala")[: 1 if args.quick else 2]:
            for variant, options in list(variants.items())[: 2 if args.quick else None]:
                key = {"part": "ablation", "subject": name, "structure": structure, "variant": variant}
                if rows.has(**key):
                    continue
                to_scan = template_map(scan, mask, args.threads) if to_scan is None else to_scan
                made = few_shot(
                    [scan], examples_of(chosen, STRUCTURES[structure]), kind="mask", template2scan=to_scan,
                    mask=mask, weights_dir=args.weights_dir, num_threads=args.threads, **options,
                )  # fmt: skip
                truth = np.asanyarray(_structure(labels, STRUCTURES[structure]).dataobj)
                rows.add({**key, "dice": dice_of(np.asanyarray(made.output.dataobj), truth)})


def cost(args: argparse.Namespace, rows: Rows) -> None:
    """Seconds and memory per volume, a mask and an image, with 1, 4 and 16 examples (copies of four)."""
    from dataclasses import replace

    from hyperprep.models.predict.few_shot import few_shot

    people = list(subjects(args.data).items())
    name, (scan, mask, _) = people[-1]
    to_scan = template_map(scan, mask, args.threads)
    for size in (1,) if args.quick else (1, 4, 16):
        for kind in ("mask",) if args.quick else ("mask", "image"):
            if rows.has(part="cost", context=size, kind=kind):
                continue
            four = examples_of(people[:4], STRUCTURES["hippocampus"])
            given = [replace(four[i % 4], label=f"{four[i % 4].label}-{i}") for i in range(size)]
            if kind == "image":
                given = [replace(e, output=e.inputs[0]) for e in given]
            began = time.perf_counter()
            made = few_shot(
                [scan], given, kind=kind, template2scan=to_scan, mask=mask, context_size=size,
                weights_dir=args.weights_dir, num_threads=args.threads,
            )  # fmt: skip
            rows.add(
                {"part": "cost", "context": size, "kind": kind, "subject": name, "threads": args.threads,
                 "seconds": time.perf_counter() - began, "align_seconds": made.metadata["align_seconds"],
                 "network_seconds": made.metadata["network_seconds"],
                 "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
            )  # fmt: skip
