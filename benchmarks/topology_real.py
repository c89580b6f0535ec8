"""Real scans of the topology benchmark: two sessions with a manual mask of change, and healthy pairs."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from benchmarks.registration import pairs_of
from benchmarks.topology_methods import Registered, Scored, names, scaled, score_of, syn_only
from hyperprep.models.predict.locate import locate
from hyperprep.models.predict.outliers import outliers
from hyperprep.models.predict.prealign import prealign
from hyperprep.models.predict.synthetic_controls import template_brain
from hyperprep.models.predict.topology import topology_change
from hyperprep.models.spatial.controls import ControlStatistics, averaged
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import keep_inside, read_dseg, read_mask, read_scan
from hyperprep.models.spatial.itk import affine_from_itk
from hyperprep.models.spatial.transforms import read_transform, resample
from hyperprep.models.weights import find_controls, find_weights

Row = tuple[str, str, Callable[[], Scored], np.ndarray, np.ndarray, Grid]


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _to_change(
    manual: Path, session: str, contrast: str, brain: nb.Nifti1Image, rough: nb.Nifti1Image
) -> np.ndarray:
    """Give the map from the change's grid to a scan, RAS mm: whichever direction makes the brains overlap."""
    stem = f"sub-01_ses-{session}"
    first = affine_from_itk(read_transform(manual / f"{stem}_from-FLAIR_to-change_xfm.txt"))
    then = np.eye(4)
    if contrast != "FLAIR":
        then = affine_from_itk(read_transform(manual / f"{stem}_from-{contrast}_to-FLAIR_xfm.txt"))
    reference = np.asanyarray(brain.dataobj) > 0
    found = [
        (
            _dice(
                np.asanyarray(resample(rough, Grid.of(brain), [m], interpolation="nearest").dataobj) > 0,
                reference,
            ),
            m,
        )
        for m in (then @ first, np.linalg.inv(first @ then))
    ]
    overlap, best = max(found, key=lambda pair: pair[0])
    if overlap < 0.8:
        raise SystemExit(
            f"{stem} {contrast}: the brains overlap by {overlap:.2f} only; look at the transforms."
        )
    return best


def sessions(args: argparse.Namespace) -> Iterator[Row]:
    """Give every method's run on session 2 against session 1, T1w and FLAIR, on the manual mask's grid."""
    root = args.data / "bids" / "longitudinal"
    manual = root / "derivatives" / "manual" / "sub-01" / "anat"
    truth_img = read_mask(manual / "sub-01_desc-lesionchange_mask.nii.gz")
    brain = read_mask(manual / "sub-01_desc-brain_mask.nii.gz")
    grid = Grid.of(truth_img)
    inside = np.asanyarray(brain.dataobj) > 0
    truth = (np.asanyarray(truth_img.dataobj) > 0) & inside
    for contrast in ("T1w", "FLAIR"):
        scans, masks, maps = [], [], []
        for session in ("1", "2"):
            anat = root / "sub-01" / f"ses-{session}" / "anat"
            scan = read_scan(anat / f"sub-01_ses-{session}_{contrast}.nii.gz")
            rough = locate(scan, num_threads=args.threads).mask
            to_scan = _to_change(manual, session, contrast, brain, rough)
            mask = resample(brain, Grid.of(scan), [np.linalg.inv(to_scan)], interpolation="nearest")
            scans.append(scan)
            masks.append(mask)
            maps.append(to_scan)
        for name, run in _runs(args, scans, masks, maps, grid):
            yield f"real-{contrast}", name, run, truth, inside, grid


def _runs(
    args: argparse.Namespace, scans: list, masks: list, maps: list[np.ndarray], grid: Grid
) -> Iterator[tuple[str, Callable[[], Scored]]]:
    first2second = maps[1] @ np.linalg.inv(maps[0])
    template = template_brain()
    bare = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    frame2first = prealign(
        template, scans[0], fixed_mask=bare, moving_mask=masks[0], num_threads=args.threads
    ).fixed2moving
    for word in args.weights:
        name, _, folder = word.partition("=")

        def run(folder: str = folder) -> Scored:
            began = time.perf_counter()
            found = topology_change(
                scans[0], scans[1], fixed2moving=first2second, frame2fixed=frame2first, fixed_mask=masks[0],
                moving_mask=masks[1], weights_dir=folder, device=args.device, num_threads=args.threads,
            )  # fmt: skip
            kept = find_controls(find_weights("topology", weights_dir=folder), "sessions")
            above = None if kept is None else outliers(found, ControlStatistics.load(kept)).moving_excess

            def place(values: np.ndarray) -> np.ndarray:
                to_moving = np.linalg.inv(found.frame2moving) @ maps[1]
                return np.asanyarray(resample(found.image(values), grid, [to_moving]).dataobj)

            excess = None if above is None else place(above)
            return place(found.moving_score), excess, time.perf_counter() - began

        yield f"ours {name}", run
    pair = [
        resample(scaled(keep_inside(scan, mask)), grid, [point_map])
        for scan, mask, point_map in zip(scans, masks, maps, strict=True)
    ]
    register = functools.cache(lambda: syn_only(pair[1], pair[0]))
    for kind in names(args.methods):
        yield kind, _after_syn(kind, register, grid)


def _after_syn(kind: str, register: Callable[[], Registered], grid: Grid) -> Callable[[], Scored]:
    def run() -> Scored:
        one = register()
        began = time.perf_counter()
        inside = one.fixed.numpy() > 0
        score = score_of(kind, one.fixed.numpy(), one.moved, one.determinant) * inside
        return score, averaged(score, inside, grid), one.seconds + time.perf_counter() - began

    return run


def healthy_scores(
    args: argparse.Namespace, classes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Give L_sym between pairs of healthy brains by class of structures, for each network."""
    from hyperprep.models.spatial.labels import manual_to_freesurfer

    template = template_brain()
    bare = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    brains: dict[str, tuple[Any, np.ndarray, Any]] = {}
    root = args.data / "bids" / "oasis"
    for file in sorted(root.glob("sub-*/anat/*_T1w.nii.gz"))[: 2 if args.quick else None]:
        subject = file.name.split("_")[0]
        scan = read_scan(file)
        mask = nb.Nifti1Image((scan.get_fdata() > 0).astype(np.uint8), scan.affine)
        placed = prealign(template, scan, fixed_mask=bare, moving_mask=mask, num_threads=args.threads)
        labels = root / "derivatives" / "manual" / subject / "anat" / f"{subject}_desc-manual_dseg.nii.gz"
        brains[subject] = scan, placed.fixed2moving, read_dseg(labels)
    for word in args.weights:
        name, _, folder = word.partition("=")
        found: dict[str, list[np.ndarray]] = {key: [] for key in classes}
        for one, other in pairs_of(sorted(brains), 1 if args.quick else 2 * len(brains)):
            (first, frame2first, _), (second, frame2second, dseg) = brains[one], brains[other]
            change = topology_change(
                first, second, fixed2moving=frame2second @ np.linalg.inv(frame2first),
                frame2fixed=frame2first, weights_dir=folder, device=args.device, num_threads=args.threads,
            )  # fmt: skip
            own = resample(dseg, change.grid, [frame2second], interpolation="nearest")
            numbers = manual_to_freesurfer(np.asanyarray(own.dataobj).astype(int))
            for key, members in classes.items():
                found[key].append(change.moving_score[np.isin(numbers, members) & change.moving_brain])
        yield name, {key: np.concatenate(values) for key, values in found.items()}
