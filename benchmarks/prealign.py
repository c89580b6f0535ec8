"""Affine prealignment from far starts: HyperPrep beside ANTs.

Real scans are moved away (rotation to 45 degrees, shift to 60 mm, scale 0.7 to 1.4; seeded) and aligned.
A run counts as correct within 3 mm mean displacement over the brain of the reference: what HyperPrep finds
from the untouched headers. ANTs has a say in the reference: started there, it must stay within 3 mm.
Run ``python benchmarks/prealign.py DATA_DIR [--starts N] [--threads 2] [--out FILE]``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.affines import voxel_sizes
from nilearn.datasets import load_mni152_template
from scipy.spatial.transform import Rotation

from hyperprep.models.predict.prealign import prealign
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import read_scan
from hyperprep.models.spatial.itk import affine_from_itk
from hyperprep.models.spatial.transforms import map_points, read_transform, write_transform


@dataclass(frozen=True)
class Case:
    """Two scans, and the degrees of freedom between them."""

    name: str
    kind: str
    fixed: nb.Nifti1Image
    moving: nb.Nifti1Image
    dof: int


def cases(data: Path) -> Iterator[Case]:
    """Pairs of real scans: same and different contrast, whole heads and brains."""
    oasis, longitudinal = data / "bids/oasis", data / "bids/longitudinal"
    template = load_mni152_template(resolution=1)

    def brain(subject: str) -> nb.Nifti1Image:
        return read_scan(oasis / f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")

    def head(subject: str, session: str, suffix: str) -> nb.Nifti1Image:
        folder = longitudinal / f"sub-{subject}/ses-{session}/anat"
        return read_scan(folder / f"sub-{subject}_ses-{session}_{suffix}.nii.gz")

    yield Case("oasis 1001 to template", "brain to brain", template, brain("1001"), 12)
    yield Case("oasis 1007 to oasis 1004", "brain to brain", brain("1004"), brain("1007"), 12)
    whole = read_scan(longitudinal / "sub-CR/anat/sub-CR_T1w.nii.gz")
    yield Case("CR T1w to template", "head to brain", template, whole, 12)
    yield Case("20 T1w to template", "head to brain", template, head("20", "2", "T1w"), 12)
    yield Case("04 T2w to template", "head to brain, other contrast", template, head("04", "1", "T2w"), 12)
    yield Case(
        "01 T2w to T1w", "head to head, other contrast", head("01", "1", "T1w"), head("01", "1", "T2w"), 7
    )
    yield Case(
        "04 FLAIR to T1w", "head to head, other contrast", head("04", "1", "T1w"), head("04", "1", "FLAIR"), 7
    )


def brain_points(case: Case) -> np.ndarray:
    """Points ``(N, 3)`` of the fixed image's brain: the template's, brought there."""
    template = load_mni152_template(resolution=4)
    voxels = np.argwhere(template.get_fdata() > 0.1)
    points = Grid.of(template).to_world(voxels)
    return map_points(points, [np.linalg.inv(prealign(case.fixed, template).fixed2moving)])


def move_away(img: nb.Nifti1Image, rng: np.random.Generator) -> tuple[np.ndarray, nb.Nifti1Image]:
    """Random similarity about the image's centre of mass, written into its header."""
    data = np.asarray(img.dataobj)
    weights = np.clip(data, 0, np.percentile(data, 99))
    middle = [(weights.sum(axis=(1, 2)), 0), (weights.sum(axis=(0, 2)), 1), (weights.sum(axis=(0, 1)), 2)]
    voxel = np.array([np.average(np.arange(data.shape[axis]), weights=sums) for sums, axis in middle])
    center = Grid.of(img).to_world(voxel)
    axis, direction = rng.normal(size=(2, 3))
    turn = np.deg2rad(rng.uniform(0, 45)) * axis / np.linalg.norm(axis)
    away = np.eye(4)
    away[:3, :3] = np.exp(rng.uniform(np.log(0.7), np.log(1.4))) * Rotation.from_rotvec(turn).as_matrix()
    away[:3, 3] = center - away[:3, :3] @ center + rng.uniform(0, 60) * direction / np.linalg.norm(direction)
    return away, nb.Nifti1Image(data, away @ img.affine)


def ants_affine(case: Case, moving: nb.Nifti1Image, start: np.ndarray | None = None) -> np.ndarray:
    """Run ``ants.registration`` and give its ``(4, 4)`` RAS point map; it starts from the centres of mass."""
    import ants

    def to_ants(img: nb.Nifti1Image) -> ants.ANTsImage:
        spacing = voxel_sizes(img.affine)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ img.affine
        return ants.from_numpy(
            img.get_fdata(dtype=np.float32),
            origin=lps[:3, 3].tolist(),
            spacing=spacing.tolist(),
            direction=lps[:3, :3] / spacing,
        )

    with tempfile.TemporaryDirectory() as folder:
        initial = None if start is None else [str(write_transform([start], Path(folder) / "start.mat"))]
        result = ants.registration(
            to_ants(case.fixed),
            to_ants(moving),
            type_of_transform="Affine" if case.dof == 12 else "Similarity",
            initial_transform=initial,
            outprefix=f"{folder}/out",
            random_seed=1,
        )
        return affine_from_itk(read_transform(result["fwdtransforms"][0]))


def distance(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> float:
    """Mean distance in mm between two maps over points."""
    return float(np.linalg.norm(map_points(points, [a]) - map_points(points, [b]), axis=1).mean())


def run(case: Case, starts: int, threads: int, with_ants: bool) -> tuple[str, np.ndarray]:
    """Run one case: its row, and per start our error, seconds, flag, and the peer's error and seconds."""
    points = brain_points(case)
    reference = prealign(case.fixed, case.moving, dof=case.dof, num_threads=threads).fixed2moving
    agreed = float("nan")
    if with_ants:
        agreed = distance(ants_affine(case, case.moving, reference), reference, points)
    rng = np.random.default_rng(2024)
    rows = []
    for _ in range(starts):
        away, moving = move_away(case.moving, rng)
        began = time.perf_counter()
        ours = prealign(case.fixed, moving, dof=case.dof, num_threads=threads)
        seconds, back = time.perf_counter() - began, np.linalg.inv(away)
        row = [distance(back @ ours.fixed2moving, reference, points), seconds, ours.success]
        if with_ants:
            began = time.perf_counter()
            theirs = ants_affine(case, moving)
            seconds = time.perf_counter() - began
            row += [distance(back @ theirs, reference, points), seconds]
        else:
            row += [np.nan, np.nan]
        rows.append(row)
    table = np.array(rows, dtype=float)
    good = table[:, 0] < 3
    right_flag = (table[:, 2] == good).sum()
    text = (
        f"| {case.name} | {case.kind} | {case.dof} | {agreed:.1f} "
        f"| {good.sum()}/{starts} | {np.median(table[:, 0]):.2f} | {np.median(table[:, 1]):.1f} "
        f"| {right_flag}/{starts} | {f'{(table[:, 3] < 3).sum()}/{starts}' if with_ants else 'not run'} "
        f"| {np.median(table[:, 3]):.2f} | {np.median(table[:, 4]):.1f} |"
    )
    return text, table


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder that holds bids/oasis and bids/longitudinal")
    parser.add_argument("--starts", type=int, default=100, help="random starts per case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-ants", action="store_true", help="leave out the peer")
    parser.add_argument("--only", help="only cases whose name holds this text")
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(options.threads)
    titles = (
        "case", "kind", "dof", "ANTs from the reference stays within (mm)",
        "ours within 3 mm", "median error (mm)", "median s", "our flag right",
        "ANTs within 3 mm", "median error (mm)", "median s",
    )  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    tables = []
    for case in cases(options.data):
        if options.only and options.only not in case.name:
            continue
        line, table = run(case, options.starts, options.threads, not options.no_ants)
        print(line, flush=True)
        lines.append(line)
        tables.append(table)
    together = np.concatenate(tables)
    ours, theirs = 100 * (together[:, 0] < 3).mean(), 100 * (together[:, 3] < 3).mean()
    lines.append(
        f"\nAll cases: ours {ours:.1f} %, ANTs {theirs:.1f} % within 3 mm of {len(together)} starts."
    )
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
