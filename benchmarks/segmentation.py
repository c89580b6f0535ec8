"""Brain masks and structures of the shipped networks on real scans, whole chain: locate, prealign, segment.

python -m benchmarks.segmentation --data DATA --threads 2 --out benchmarks/results/segmentation.md
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from benchmarks.registration import boxed_distance

Score = tuple[float, float]
"""Dice and HD95, mm."""

SHARED = (10, 11, 12, 13, 17, 18, 49, 50, 51, 52, 53, 54, 4, 43, 16, 14, 15)
"""FreeSurfer numbers that the manual protocol and the networks draw alike."""


def aligned(
    scan: nb.Nifti1Image, template: nb.Nifti1Image, threads: int
) -> tuple[nb.Nifti1Image, np.ndarray]:
    """Locate and prealign to the template: rough brain mask and (4, 4) map from the template to the scan."""
    from hyperprep.models.predict.locate import locate
    from hyperprep.models.predict.prealign import prealign

    rough = locate(scan, num_threads=threads).mask
    mask = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    found = prealign(template, scan, fixed_mask=mask, moving_mask=rough, num_threads=threads)
    return rough, found.fixed2moving


def chain(scan: nb.Nifti1Image, template: nb.Nifti1Image, threads: int) -> tuple[Any, float]:
    """Locate, prealign to the template and segment, as the app does for a scan without a mask."""
    from hyperprep.models.predict.segment import segment

    began = time.perf_counter()
    rough, template2scan = aligned(scan, template, threads)
    result = segment(scan, template2scan=template2scan, mask=rough, num_threads=threads)
    return result, time.perf_counter() - began


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Give the Dice coefficient of two masks."""
    both = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / max(1, both)


def given_affine(file: Path) -> np.ndarray:
    """Read an affine of the data set: the (4, 4) RAS map from points of its target to its source."""
    from hyperprep.models.spatial.itk import affine_from_itk
    from hyperprep.models.spatial.transforms import read_transform

    return np.asarray(affine_from_itk(read_transform(file)))


def drawn_slices(mask: nb.Nifti1Image) -> nb.Nifti1Image:
    """Mark the slices in which a reference was drawn, from its first to its last.

    The manual mask begins in full width where the field of view that both sessions share ends; the brain
    below, which the second session also shows, has no reference.
    """
    data = np.zeros(mask.shape, np.uint8)
    held = np.flatnonzero((np.asanyarray(mask.dataobj) > 0).any(axis=(0, 1)))
    data[:, :, held[0] : held[-1] + 1] = 1
    return nb.Nifti1Image(data, mask.affine)


def in_simulated_head(
    scan: nb.Nifti1Image, labels: nb.Nifti1Image, template: nb.Nifti1Image, seed: int
) -> tuple[nb.Nifti1Image, np.ndarray, np.ndarray]:
    """Put a skull-stripped brain into a simulated head, drawn around this very brain.

    Returns the image (1.5 mm, template frame, noise 2 % of white matter), its brain and its labels.
    """
    from hyperprep.bidsapp.demo.head import draw_head, simulate_head
    from hyperprep.bidsapp.demo.template import load_template
    from hyperprep.models.predict.prealign import prealign
    from hyperprep.models.spatial.grids import Grid, model_grid
    from hyperprep.models.spatial.transforms import resample

    masks = [nb.Nifti1Image((i.get_fdata() > 0).astype(np.uint8), i.affine) for i in (template, scan)]
    rigid = prealign(template, scan, dof=6, fixed_mask=masks[0], moving_mask=masks[1]).fixed2moving
    wide = model_grid(1.0)
    inside = np.asanyarray(resample(masks[1], wide, [rigid], interpolation="nearest").dataobj) > 0
    rng = np.random.default_rng(seed)
    frame = replace(load_template(), grid=wide, mask=inside)
    head = simulate_head(frame, draw_head(rng))
    grid = Grid.of(head)
    brain = resample(scan, grid, [rigid]).get_fdata(dtype=np.float32)
    known = np.asanyarray(resample(masks[1], grid, [rigid], interpolation="nearest").dataobj) > 0
    white = float(np.quantile(brain[known], 0.9))
    values = head.get_fdata(dtype=np.float32) * (~known) + brain / white * 0.86 * known
    noisy = np.hypot(values + rng.normal(0, 0.02, values.shape), rng.normal(0, 0.02, values.shape))
    drawn = np.asanyarray(resample(labels, grid, [rigid], interpolation="nearest").dataobj)
    return nb.Nifti1Image((1000 * noisy).astype(np.float32), grid.affine), known, drawn


def structure_scores(found: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> dict[int, Score]:
    """Give Dice and HD95 (mm) of every shared structure; both label images hold FreeSurfer numbers."""
    masks = {n: (found == n, truth == n) for n in SHARED}
    return {n: (overlap(a, b), boxed_distance(a, b, spacing)) for n, (a, b) in masks.items()}


def structure_table(scores: dict[str, list[dict[int, Score]]]) -> list[str]:
    """Give the lines of the table of structures, for each kind of scan."""
    from hyperprep.models.spatial.labels import resolve_labels

    kinds = " | ".join(f"{kind}: Dice (worst) | HD95, mm" for kind in scores)
    lines = [f"| structure | {kinds} |", "|---" * (1 + 2 * len(scores)) + "|"]
    for numbers in (*((n,) for n in SHARED), SHARED):
        cells = [resolve_labels([str(numbers[0])])[0].name if len(numbers) == 1 else "**mean**"]
        for found in scores.values():
            each = np.array([[one[n] for n in numbers] for one in found]).mean(1)
            cells += [f"{each[:, 0].mean():.3f} ({each[:, 0].min():.3f})", f"{np.nanmean(each[:, 1]):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print and write the table."""
    from nilearn.datasets import load_mni152_template

    from hyperprep.models.spatial.grids import Grid
    from hyperprep.models.spatial.images import read_dseg, read_mask, read_scan
    from hyperprep.models.spatial.labels import manual_to_freesurfer
    from hyperprep.models.spatial.transforms import resample

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scans", type=int, default=8, help="how many of the labelled brains")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    lines = ["| scan | brain mask Dice | mean Dice of 17 structures | seconds |", "|---|---|---|---|"]
    long, oasis = args.data / "bids" / "longitudinal", args.data / "bids" / "oasis"
    given = long / "derivatives" / "manual" / "sub-01" / "anat"
    manual = read_mask(given / "sub-01_desc-brain_mask.nii.gz")
    for session in ("ses-1", "ses-2"):
        scan = read_scan(long / "sub-01" / session / "anat" / f"sub-01_{session}_T1w.nii.gz")
        result, seconds = chain(scan, template, args.threads)
        to_flair, to_mask = (
            given_affine(given / f"sub-01_{session}_from-{way}_xfm.txt")
            for way in ("T1w_to-FLAIR", "FLAIR_to-change")
        )
        truth = resample(manual, Grid.of(scan), [np.linalg.inv(to_flair @ to_mask)], interpolation="nearest")
        drawn = resample(
            drawn_slices(manual), Grid.of(scan), [np.linalg.inv(to_flair @ to_mask)], interpolation="nearest"
        )
        mine, inside = np.asanyarray(result.mask.dataobj) > 0, np.asanyarray(drawn.dataobj) > 0
        score = overlap(mine & inside, np.asanyarray(truth.dataobj) > 0)
        everywhere = overlap(mine, np.asanyarray(truth.dataobj) > 0)
        lines.append(
            f"| sub-01 {session} T1w, whole head, slices with a reference | {score:.3f} "
            f"(all slices: {everywhere:.3f}) | | {seconds:.1f} |"
        )
        print(lines[-1], flush=True)
    scores: dict[str, list[dict[int, Score]]] = {"skull-stripped": [], "in a simulated head": []}
    for seed, file in enumerate(sorted(oasis.glob("sub-*/anat/*_T1w.nii.gz"))[: args.scans]):
        subject = file.name.split("_")[0]
        scan = read_scan(file)
        manual_labels = oasis / "derivatives" / "manual" / subject / "anat"
        drawn_labels = read_dseg(manual_labels / f"{subject}_desc-manual_dseg.nii.gz")
        head, known, inner = in_simulated_head(scan, drawn_labels, template, seed)
        for kind, image, brain, drawn_by_hand in (
            ("skull-stripped", scan, scan.get_fdata() > 0, np.asanyarray(drawn_labels.dataobj)),
            ("in a simulated head", head, known, inner),
        ):
            result, seconds = chain(image, template, args.threads)
            spacing = tuple(float(v) for v in Grid.of(image).spacing)
            truth = manual_to_freesurfer(drawn_by_hand.astype(int))
            found = structure_scores(np.asanyarray(result.dseg.dataobj), truth, spacing)
            scores[kind].append(found)
            mask = overlap(np.asanyarray(result.mask.dataobj) > 0, brain)
            mean = np.mean([dice for dice, _ in found.values()])
            lines.append(f"| {subject}, {kind} | {mask:.3f} | {mean:.3f} | {seconds:.1f} |")
            print(lines[-1], flush=True)
    lines += ["", *structure_table(scores)]
    print("\n".join(lines[-len(SHARED) - 3 :]))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
