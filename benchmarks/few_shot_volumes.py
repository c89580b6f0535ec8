"""Few-shot tasks on real volumes: overlap, ablation, and what they cost (parts of :mod:`.neuralizer`)."""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any
from unittest import mock

import nibabel as nb
import numpy as np

from benchmarks.few_shot_people import (
    STRUCTURES,
    People,
    dice_of,
    examples_of,
    structure_mask,
    subjects,
    template_map,
)
from benchmarks.rows import Rows


def oasis(args: argparse.Namespace, rows: Rows) -> None:
    """Dice of six structures on real volumes: few-shot, U-Net trained on the same subjects, votes, SyN."""
    people = People(args.data, args.threads)
    names = list(people.known)
    structures = dict(list(STRUCTURES.items())[-1:]) if args.quick else STRUCTURES
    most = 1 if args.quick else 4
    targets = names[most : most + (1 if args.quick else args.subjects)]
    if max(args.sizes or (1,)) > most:
        raise SystemExit(f"--sizes: {most} real subjects are examples, the others are segmented.")
    for size in (1,) if args.quick else args.sizes or (1, 2, 4):
        for structure, numbers in structures.items():
            for target in targets:
                key = {"part": "oasis", "subject": target, "structure": structure, "context": size}
                for method in args.methods:
                    if method == "unet" or rows.has(**key, method=method):
                        continue
                    people.deformations.saved = 0.0
                    with mock.patch("hyperprep.models.predict.placing.deformation", people.deformations):
                        score, seconds = _answer(method, args, people, target, names[:size], numbers)
                    seconds += people.deformations.saved
                    rows.add({**key, "method": method, "dice": score, "seconds": seconds})
        if "unet" in args.methods:
            _unets(args, rows, people, names[:size], targets, structures)


def _answer(
    method: str, args: argparse.Namespace, people: People, target: str, given: list[str], numbers: Any
) -> tuple[float, float]:
    """Segment a target by one method from some examples; give Dice and seconds, the alignments' too."""
    from hyperprep.models.predict.few_shot import few_shot

    scan, mask, labels = people.known[target]
    to_scan = people.to_scan(target)
    aligned = [people.aligned(target, name) for name in given]
    examples = examples_of([(n, one) for n, (one, _) in zip(given, aligned, strict=True)], numbers)
    spent = sum(seconds for _, seconds in aligned)
    began = time.perf_counter()
    if method == "few-shot":
        made = few_shot(
            [scan], examples, kind="mask", template2scan=to_scan, mask=mask,
            prealigned=True, weights_dir=args.weights_dir, num_threads=args.threads,
        )  # fmt: skip
        truth = np.asanyarray(structure_mask(labels, numbers).dataobj)
        score = dice_of(np.asanyarray(made.output.dataobj), truth)
        return score, spent + time.perf_counter() - began
    if method == "syn":
        moved, seconds = people.propagated(target, given)
        score = _score(structure_mask(moved, numbers), people, target, numbers)
        return score, spent + seconds
    found, affine = _baseline(method, args, (scan, mask), examples, to_scan)
    score = _score(nb.Nifti1Image(found, affine), people, target, numbers)
    return score, spent + time.perf_counter() - began


def _score(probability: nb.Nifti1Image, people: People, target: str, numbers: Any) -> float:
    """Bring a probability in the template's frame onto a target's grid and measure its mask."""
    from hyperprep.models.spatial.grids import Grid
    from hyperprep.models.spatial.transforms import resample

    scan, _, labels = people.known[target]
    on_scan = resample(probability, Grid.of(scan), [np.linalg.inv(people.to_scan(target))])
    return dice_of(on_scan.get_fdata() > 0.5, np.asanyarray(structure_mask(labels, numbers).dataobj))


def _grid(args: argparse.Namespace) -> Any:
    from hyperprep.models.predict.few_shot_slices import WEIGHTS
    from hyperprep.models.predict.sampling import lattice_grid
    from hyperprep.models.weights import find_weights

    return lattice_grid(find_weights(WEIGHTS, weights_dir=args.weights_dir).metadata["grid"])


def _baseline(
    method: str, args: argparse.Namespace, subject: Any, examples: list[Any], to_scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give a baseline's probability and its grid's affine.

    ``mean`` is the mean of the affinely aligned examples' masks, ``vote`` that of those deformed as well,
    both on the few-shot network's grid.
    """
    from hyperprep.models.predict.placing import place_example, sample_inputs

    grid = _grid(args)
    (scan, mask), (target, inside, _) = subject, sample_inputs([subject[0]], subject[1], grid, to_scan)
    place = (scan, mask, target[0], inside)
    placed = [
        place_example(e, place, grid, to_scan, "mask", args.threads, np.eye(4), deform=method == "vote")
        for e in examples
    ]
    return np.mean([p.volumes[3].numpy() for p in placed], axis=0), grid.affine


def _unets(
    args: argparse.Namespace, rows: Rows, people: People, given: list[str], targets: list[str],
    structures: dict[str, Any],
) -> None:  # fmt: skip
    """Train one U-Net for all structures on the examples, and measure it on all targets."""
    from benchmarks.few_shot_baselines import unet_volumes
    from hyperprep.models.predict.placing import sample_inputs
    from hyperprep.models.predict.sampling import sample_averaged

    key = {"part": "oasis", "context": len(given), "method": "unet"}
    if all(rows.has(**key, subject=target, structure=name) for target in targets for name in structures):
        return
    grid = _grid(args)

    def sampled(name: str) -> np.ndarray:
        scan, mask, _ = people.known[name]
        volume: np.ndarray = sample_inputs([scan], mask, grid, people.to_scan(name))[0][0]
        return volume

    def outlined(name: str, numbers: Any) -> np.ndarray:
        inside = structure_mask(people.known[name][2], numbers)
        floating = nb.Nifti1Image(np.asanyarray(inside.dataobj).astype(np.float32), inside.affine)
        return (sample_averaged(floating, grid, people.to_scan(name)) > 0.5).astype(np.float32)

    outputs = [np.stack([outlined(name, numbers) for numbers in structures.values()]) for name in given]
    found, seconds = unet_volumes(
        [sampled(n) for n in given], outputs, [sampled(n) for n in targets],
        minutes=0.05 if args.quick else args.unet_minutes,
    )  # fmt: skip
    for target, volumes in zip(targets, found, strict=True):
        for (structure, numbers), volume in zip(structures.items(), volumes, strict=True):
            score = _score(nb.Nifti1Image(volume, grid.affine), people, target, numbers)
            row = {**key, "subject": target, "structure": structure}
            if not rows.has(**row):
                rows.add({**row, "dice": score, "seconds": seconds})


def ablation(args: argparse.Namespace, rows: Rows) -> None:
    """Without alignment of the examples, and with one orientation; four examples, two structures."""
    from hyperprep.models.predict.few_shot import few_shot

    variants: dict[str, dict[str, Any]] = {
        "all": {}, "examples aligned affinely only": {"deform": False},
        "examples not aligned": {"deform": False},
        "sagittal only": {"orientations": (0,)},
        "coronal only": {"orientations": (1,)}, "axial only": {"orientations": (2,)},
        "4 bootstraps": {"bootstraps": 4},
    }  # fmt: skip
    people = People(args.data, args.threads)
    names = list(people.known)
    size = 1 if args.quick else 4
    for target in names[size : size + (1 if args.quick else args.subjects)]:
        scan, mask, labels = people.known[target]
        for structure in ("hippocampus", "amygdala")[: 1 if args.quick else 2]:
            for variant, options in list(variants.items())[: 2 if args.quick else None]:
                key = {"part": "ablation", "subject": target, "structure": structure, "variant": variant}
                if rows.has(**key):
                    continue
                apart = variant == "examples not aligned"
                chosen = [
                    (n, people.known[n] if apart else people.aligned(target, n)[0]) for n in names[:size]
                ]
                with mock.patch("hyperprep.models.predict.placing.deformation", people.deformations):
                    made = few_shot(
                        [scan], examples_of(chosen, STRUCTURES[structure]), kind="mask", mask=mask,
                        template2scan=people.to_scan(target), prealigned=True,
                        weights_dir=args.weights_dir, num_threads=args.threads, **options,
                    )  # fmt: skip
                truth = np.asanyarray(structure_mask(labels, STRUCTURES[structure]).dataobj)
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
