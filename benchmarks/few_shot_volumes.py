"""Few-shot tasks on real volumes: overlap, ablation, and what they cost (parts of :mod:`.neuralizer`)."""

from __future__ import annotations

import argparse
import hashlib
import resource
import time
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nb
import numpy as np
import torch

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


class Deformations:
    """Deformations of examples, each made once for all structures; what a call would have taken counts.

    Attributes
    ----------
    saved
        Seconds of the calls that were answered from memory.
    """

    def __init__(self) -> None:
        self.saved = 0.0
        self._known: dict[str, tuple[torch.Tensor, float]] = {}

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Give the deformation between two volumes."""
        from hyperprep.models.predict.normalise import deformation

        key = hashlib.sha256(fixed.numpy().tobytes() + moving.numpy().tobytes()).hexdigest()
        if key in self._known:
            self.saved += self._known[key][1]
        else:
            began = time.perf_counter()
            self._known[key] = deformation(fixed, moving), time.perf_counter() - began
        return self._known[key][0]


class People:
    """The real subjects, with alignments that are found once each.

    Parameters
    ----------
    data
        Folder that holds ``bids/oasis``.
    threads
        Threads of the alignments.
    """

    def __init__(self, data: Path, threads: int) -> None:
        self.known, self.threads = subjects(data), threads
        self._to_scan: dict[str, np.ndarray] = {}
        self._between: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
        self._moved: dict[tuple[str, str], tuple[nb.Nifti1Image, float]] = {}
        self.deformations = Deformations()

    def to_scan(self, name: str) -> np.ndarray:
        """Give the (4, 4) point map from the template to a subject."""
        if name not in self._to_scan:
            scan, mask, _ = self.known[name]
            self._to_scan[name] = template_map(scan, mask, self.threads)
        return self._to_scan[name]

    def aligned(self, target: str, name: str) -> tuple[Any, float]:
        """Give a subject with headers moved onto the target's space, and the seconds the alignment took."""
        from hyperprep.models.predict.prealign import prealign

        if (target, name) not in self._between:
            began = time.perf_counter()
            (scan, mask, _), (other, inside, _) = self.known[target], self.known[name]
            found = prealign(scan, other, fixed_mask=mask, moving_mask=inside, num_threads=self.threads)
            self._between[target, name] = found.fixed2moving, time.perf_counter() - began
        matrix, seconds = self._between[target, name]
        back = np.linalg.inv(matrix)
        moved = (nb.Nifti1Image(np.asanyarray(i.dataobj), back @ i.affine) for i in self.known[name])
        return tuple(moved), seconds

    def propagated(self, target: str, given: list[str]) -> tuple[nb.Nifti1Image, float]:
        """Move the labels of the example most like a target to it by SyN, in the template's frame at 1 mm.

        Returns
        -------
        tuple
            Manual numbers, and the seconds of the registration; it is made once for all structures.
        """
        from benchmarks.few_shot_baselines import moved_labels
        from hyperprep.models.predict.placing import sample_inputs
        from hyperprep.models.spatial.grids import model_grid
        from hyperprep.models.spatial.transforms import resample

        grid, to_scan = model_grid(1.0), self.to_scan(target)
        near = {name: self.aligned(target, name)[0] for name in given}
        held = {
            name: sample_inputs([scan], mask, grid, to_scan)[0][0] for name, (scan, mask, _) in near.items()
        }
        fixed = sample_inputs([self.known[target][0]], self.known[target][1], grid, to_scan)[0][0]
        best = max(given, key=lambda name: np.corrcoef(held[name].ravel(), fixed.ravel())[0, 1])
        if (target, best) not in self._moved:
            labels = resample(near[best][2], grid, [to_scan], interpolation="nearest")
            numbers = np.asanyarray(labels.dataobj).astype(np.float32)
            found, seconds = moved_labels(held[best], numbers, fixed, grid.affine)
            self._moved[target, best] = nb.Nifti1Image(found, grid.affine), seconds
        return self._moved[target, best]


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
        truth = np.asanyarray(_structure(labels, numbers).dataobj)
        score = dice_of(np.asanyarray(made.output.dataobj), truth)
        return score, spent + time.perf_counter() - began
    if method == "syn":
        moved, seconds = people.propagated(target, given)
        score = _score(_structure(moved, numbers), people, target, numbers)
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
    return dice_of(on_scan.get_fdata() > 0.5, np.asanyarray(_structure(labels, numbers).dataobj))


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
        inside = _structure(people.known[name][2], numbers)
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
