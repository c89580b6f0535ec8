"""Segmentation against contrast, slice thickness, skull, orientation and lesions: heads kept out of training.

python -m benchmarks.robustness --maps MAPS --rows ROWS --threads 2 --out FILE

Synthetic scans of the two label maps that trained no network, by what the interface alone does (locate, align
to the atlas, deform, segment), from the scan alone. Every line changes one thing of the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks.rows import Row, Rows
from benchmarks.segmentation import overlap
from hyperprep.models.synth.maps import LabelMaps, load_maps

HELD_OUT = 2
"""The last label maps trained no network."""

UNCOUNTED = (24,)
"""Fluid around the brain: where it ends is a matter of definition."""

Pair = tuple[nb.Nifti1Image, nb.Nifti1Image]
"""Scan, and on the same grid the truth: FreeSurfer numbers, -1 where a lesion is."""


@dataclass(frozen=True)
class Condition:
    """What is different from the first line.

    Attributes
    ----------
    spec
        Changed entries of the ranges.
    contrast
        Changed entries of what was drawn.
    stored
        How scan and truth are stored.
    lesion
        Diameter (mm) and kind of a focal change.
    """

    spec: dict[str, Any] = field(default_factory=dict)
    contrast: dict[str, Any] = field(default_factory=dict)
    stored: Callable[[Pair], Pair] | None = None
    lesion: tuple[float, str] | None = None


def thick(axis: int, times: int) -> Callable[[Pair], Pair]:
    """Average so many slices along an axis into one; the truth is that of its middle."""

    def store(pair: Pair) -> Pair:
        scan = pair[0]
        data, labels = (np.moveaxis(np.asanyarray(i.dataobj), axis, 0) for i in pair)
        count = len(data) // times
        blocks = data[: count * times].reshape(count, times, *data.shape[1:]).mean(1)
        kept = labels[times // 2 : count * times : times]
        affine = scan.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (times - 1) / 2
        affine[:3, axis] *= times
        images = (np.moveaxis(a, 0, axis) for a in (blocks.astype(np.float32), kept))
        made = [nb.Nifti1Image(np.ascontiguousarray(a), affine) for a in images]
        return made[0], made[1]

    return store


def oriented(code: str) -> Callable[[Pair], Pair]:
    """Store in another order of axes."""

    def store(pair: Pair) -> Pair:
        wanted = nb.orientations.axcodes2ornt(tuple(code))
        turn = nb.orientations.ornt_transform(nb.orientations.io_orientation(pair[0].affine), wanted)
        made = [one.as_reoriented(turn) for one in pair]
        return made[0], made[1]

    return store


def oblique(degrees: float, shift_mm: float) -> Callable[[Pair], Pair]:
    """Let the head lie turned and shifted in the scanner: only the header changes."""

    def store(pair: Pair) -> Pair:
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, 0.64, 0.48])).as_matrix()
        turn[:3, 3] = shift_mm
        made = [nb.Nifti1Image(np.asanyarray(one.dataobj), turn @ one.affine) for one in pair]
        return made[0], made[1]

    return store


CONDITIONS: dict[str, Condition] = {
    "T1w, 1 mm, whole head": Condition(),
    "T2w": Condition({"contrasts": ("T2w",)}),
    "FLAIR": Condition({"contrasts": ("FLAIR",)}),
    "PDw": Condition({"contrasts": ("PDw",)}),
    "random contrast": Condition({"random_contrast": 1.0}),
    "axial slices of 3 mm": Condition(stored=thick(2, 3)),
    "axial slices of 5 mm": Condition(stored=thick(2, 5)),
    "axial slices of 7 mm": Condition(stored=thick(2, 7)),
    "sagittal slices of 7 mm": Condition(stored=thick(0, 7)),
    "FLAIR, axial slices of 5 mm": Condition({"contrasts": ("FLAIR",)}, stored=thick(2, 5)),
    "skull removed": Condition(contrast={"skull": "removed", "rim_mm": 0.0}),
    "skull badly removed": Condition(contrast={"skull": "badly", "rim_mm": 9.0}),
    "noise of 12 %": Condition(contrast={"noise": 0.12}),
    "stored as PIR": Condition(stored=oriented("PIR")),
    "stored as LAS": Condition(stored=oriented("LAS")),
    "turned by 25 degrees, 30 mm off": Condition(stored=oblique(25, 30)),
    "a lesion of 25 mm": Condition(lesion=(25.0, "lesion")),
    "a resection of 35 mm": Condition(lesion=(35.0, "resection")),
}


def make(maps: LabelMaps, condition: Condition, number: int) -> Pair:
    """Make a scan and its truth."""
    from hyperprep.models.spatial.grids import model_grid
    from hyperprep.models.synth.apply import model_lattice, render, sample_anatomy
    from hyperprep.models.synth.draw import SynthSpec, draw_anatomy, draw_contrast
    from hyperprep.models.synth.lesions import LesionSpec, apply_lesion, draw_lesion, with_lesion
    from hyperprep.models.synth.structures import STRUCTURES

    spec = SynthSpec(
        random_contrast=0.0, contrasts=("T1w",), noise=0.04, bias=0.2, thick_slices=0.0, blur_mm=1.0,
        skull_kept=1.0,
    )  # fmt: skip
    spec = replace(spec, **condition.spec)
    rng = np.random.default_rng([77, number])
    lattice, groups = model_lattice(1.0), maps.groups()
    index = len(maps.maps) - 1 - number % HELD_OUT
    anatomy = draw_anatomy(rng, spec, len(maps.maps), lattice.extent_mm, index=index)
    contrast = replace(draw_contrast(rng, spec, int(groups.max()) + 1), **condition.contrast)
    sampling = sample_anatomy(maps, anatomy, lattice, subsamples=spec.subsamples, seed=contrast.seed)
    numbers = np.array([0, *STRUCTURES], np.int16)
    truth = numbers[maps.lookup(STRUCTURES)[sampling.indices[0].long()].long().numpy()]
    if condition.lesion is not None:
        diameter, kind = condition.lesion
        ranges = LesionSpec(mass_effect=0.0)
        drawn = draw_lesion(rng, ranges, truth, lattice, diameter_mm=diameter, kind=kind)
        sampling, changed = apply_lesion(sampling, drawn, lattice, len(groups))
        groups, contrast = with_lesion(groups, contrast, drawn)
        truth = np.where(changed.numpy() > 0, np.int16(-1), truth)
    image = render(sampling, groups, contrast, spacing=1.0).numpy()
    affine = model_grid(1.0).affine
    pair = nb.Nifti1Image(image, affine), nb.Nifti1Image(truth, affine)
    return condition.stored(pair) if condition.stored else pair


def measure(pair: Pair, threads: int) -> dict[str, float | bool]:
    """Segment a scan from itself alone; mean and worst Dice of its structures, and of all together."""
    from hyperprep.models.predict.place import place
    from hyperprep.models.predict.segment import segment
    from hyperprep.models.synth.structures import STRUCTURES

    scan, labels = pair
    placed = place(scan, num_threads=threads)
    result = segment(scan, template2scan=placed.template2scan, mask=placed.mask, num_threads=threads)
    truth, found = np.asanyarray(labels.dataobj), np.asanyarray(result.leaves.dataobj)
    known = truth >= 0
    counted = [n for n in STRUCTURES if n not in UNCOUNTED and (truth == n).any()]
    each = [overlap((found == n) & known, truth == n) for n in counted]
    inside = np.isin(truth, counted)
    return {
        "structures": float(np.mean(each)),
        "worst": float(np.min(each)),
        "aligned": placed.aligned,
        "brain": overlap(np.isin(found, counted) & known, inside),
    }


def table(rows: list[Row]) -> list[str]:
    """One line for each condition."""
    lines = [
        "| scan | mean Dice of 29 structures (worst scan) | worst structure | all of them together |",
        "|---|---|---|---|",
    ]
    for name in CONDITIONS:
        mine = [row for row in rows if row["condition"] == name]
        if mine:
            mean, worst, brain = (np.array([r[k] for r in mine]) for k in ("structures", "worst", "brain"))
            lines.append(
                f"| {name} | {mean.mean():.3f} ({mean.min():.3f}) | {worst.min():.3f} | {brain.mean():.3f} |"
            )
    return lines


def main() -> None:
    """Measure what the rows do not hold yet, print."""
    from hyperprep.exceptions import HyperPrepError

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    maps, rows = load_maps(args.maps), Rows(args.rows)
    for name, condition in CONDITIONS.items():
        for number in range(args.scans):
            if not rows.has(condition=name, number=number):
                pair = make(maps, condition, number)
                try:
                    scores = measure(pair, args.threads)
                except HyperPrepError as error:
                    print(f"{name}, scan {number}: {error}", flush=True)
                    scores = {"structures": 0.0, "worst": 0.0, "aligned": False, "brain": 0.0}
                rows.add({"condition": name, "number": number, **scores})
    lines = table(rows.known)
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
