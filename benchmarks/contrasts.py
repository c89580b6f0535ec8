"""Registration of T1w to T2w and FLAIR of another session, beside SyN with mutual information.

python -m benchmarks.contrasts --data DATA --threads 2 --pictures DIR --out benchmarks/results/contrasts.md

There are no manual labels of these scans: overlap is that of our own segmentations of both images, which
favours nobody among the methods but says nothing where a segmentation itself fails. So look at the pictures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from benchmarks.peers import Method, Moved, ants_method
from benchmarks.registration import nothing, ours, regularity

SESSIONS = ("1", "2")
CONTRASTS = ("T2w", "FLAIR")
SUBCORTICAL = (10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54)

COLUMNS = {
    "dice": 3,
    "cortex": 3,
    "subcortical": 3,
    "ventricles": 3,
    "folding": 4,
    "sd_jacobian": 3,
    "seconds": 1,
}
"""Columns of the table and their digits; folding in percent."""

OUTLINES = {
    "cerebral white matter": ((2, 41), "orange"),
    "ventricles": ((4, 43, 14, 15), "deepskyblue"),
    "thalamus, putamen, caudate": ((10, 49, 12, 51, 11, 50), "limegreen"),
}
"""What the pictures outline."""


@dataclass(frozen=True)
class Brain:
    """A scan with what the shipped networks find in it.

    Attributes
    ----------
    scan
        The image, its own grid.
    mask, leaves
        Brain mask and structures (FreeSurfer numbers), same grid.
    template2scan
        (4, 4) point map.
    """

    scan: nb.Nifti1Image
    mask: nb.Nifti1Image
    leaves: nb.Nifti1Image
    template2scan: np.ndarray


def segmented(file: Path, template: nb.Nifti1Image, threads: int) -> Brain:
    """Locate, align to the template and segment, as the app does, whatever the contrast."""
    from hyperprep.models.predict.locate import locate
    from hyperprep.models.predict.prealign import prealign
    from hyperprep.models.predict.segment import segment
    from hyperprep.models.spatial.images import read_scan

    scan = read_scan(file)
    place = locate(scan, num_threads=threads)
    mask = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    found = prealign(
        template,
        scan,
        fixed_mask=mask,
        moving_mask=place.mask,
        fixed_centroids=place.template_centroids,
        moving_centroids=place.centroids,
        num_threads=threads,
    )
    result = segment(scan, template2scan=found.fixed2moving, mask=place.mask, num_threads=threads)
    return Brain(scan, result.mask, result.leaves, found.fixed2moving)


def prealigned_pair(fixed: Brain, moving: Brain, threads: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Bring both brains and their structures onto the 1 mm model grid by one affine between the two."""
    from hyperprep.models.predict.prealign import prealign
    from hyperprep.models.spatial.grids import model_grid
    from hyperprep.models.spatial.images import keep_inside, robust_rescale
    from hyperprep.models.spatial.transforms import resample

    found = prealign(
        fixed.scan, moving.scan, fixed_mask=fixed.mask, moving_mask=moving.mask, dof=12, num_threads=threads
    )
    if not found.success:
        raise RuntimeError(f"the affine alignment failed: {found.reason}")
    grid, sides = model_grid(1.0), []
    for brain, point_map in ((fixed, np.eye(4)), (moving, found.fixed2moving)):
        chain = [point_map @ fixed.template2scan]
        image = resample(keep_inside(brain.scan, brain.mask), grid, chain)
        values = image.get_fdata(dtype=np.float32)
        scaled = nb.Nifti1Image(robust_rescale(values, values > 0) * (values > 0), grid.affine)
        sides.append((scaled, resample(brain.leaves, grid, chain, interpolation="nearest")))
    return sides[0], sides[1]


def measure(fixed: nb.Nifti1Image, found: Moved) -> dict[str, float]:
    """Overlap of the structures and regularity of the displacement."""
    from hyperprep.models.spatial.measures import dice

    a, b = (np.asanyarray(i.dataobj).astype(int) for i in (fixed, found.labels))
    scores = dice(a, b, [int(n) for n in np.unique(a) if n > 0])
    groups = {"cortex": (3, 42), "subcortical": SUBCORTICAL, "ventricles": (4, 43, 14, 15)}
    row = {"dice": float(np.mean(list(scores.values())))}
    for name, numbers in groups.items():
        row[name] = float(np.mean([scores[n] for n in numbers if n in scores]))
    return row | regularity(found.forward, a > 0)


def draw(rows: list[tuple[str, nb.Nifti1Image, nb.Nifti1Image]], title: str, file: Path) -> None:
    """Draw outlines of structures over slices: one row per (name, image, structures), all on one grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    brain = np.argwhere(np.asanyarray(rows[0][2].dataobj) > 0)
    low, high = brain.min(0), brain.max(0)
    cuts = [(2, share) for share in (0.35, 0.5, 0.65)] + [(1, 0.45), (0, 0.4)]
    places = [(axis, round(low[axis] + share * (high[axis] - low[axis]))) for axis, share in cuts]
    figure = Figure(figsize=(3 * len(places), 3.3 * len(rows)), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(places), squeeze=False)
    for line, (name, image, structures) in zip(axes, rows, strict=True):
        data, labels = image.get_fdata(dtype=np.float32), np.asanyarray(structures.dataobj)
        for cell, (axis, place) in zip(line, places, strict=True):
            others = [a for a in range(3) if a != axis]
            box = tuple(slice(low[a], high[a] + 1) for a in others)
            cell.imshow(data.take(place, axis)[box].T, cmap="gray", origin="lower", vmin=0, vmax=1)
            for numbers, colour in OUTLINES.values():
                inside = np.isin(labels.take(place, axis)[box], numbers).T
                if inside.any() and not inside.all():
                    cell.contour(inside, [0.5], colors=colour, linewidths=0.7)
            cell.set_axis_off()
        line[0].set_title(name, color="white", loc="left", fontsize=11)
    key = ", ".join(f"{what} ({colour})" for what, (_, colour) in OUTLINES.items())
    figure.suptitle(f"{title}\n{key}", color="white", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80, facecolor="black")


def methods(threads: int) -> dict[str, Method]:
    """Give every method by its name in the table."""
    return {
        "affine": nothing,
        "ours, network alone": ours("none", threads),
        "ours, refined by local correlation": ours("ncc", threads),
        "ours, network alone, lambda auto (by these labels)": ours("none", threads, "auto"),
        "ours, refined, lambda auto (by these labels)": ours("ncc", threads, "auto"),
        "antspyx SyN, mutual information": ants_method("SyN", syn_metric="mattes"),
    }


def rows(data: Path, threads: int, pictures: Path | None, chosen: list[str]) -> Iterator[dict[str, Any]]:
    """Run every method on every pair."""
    from nilearn.datasets import load_mni152_template

    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    folder = data / "bids" / "longitudinal" / "sub-01"
    brains: dict[str, Brain] = {}

    def brain(session: str, contrast: str) -> Brain:
        name = f"ses-{session}/anat/sub-01_ses-{session}_{contrast}.nii.gz"
        if name not in brains:
            brains[name] = segmented(folder / name, template, threads)
        return brains[name]

    for contrast in CONTRASTS:
        for session, other in zip(SESSIONS, reversed(SESSIONS), strict=True):
            pair = f"ses-{session} {contrast} <- ses-{other} T1w"
            if chosen and not any(word in pair for word in chosen):
                continue
            there, here = prealigned_pair(brain(session, contrast), brain(other, "T1w"), threads)
            shown = [("moving T1w, its own outlines", *here), (f"fixed {contrast}, its own outlines", *there)]
            for name, method in methods(threads).items():
                found = method(there, here)
                row = {"pair": pair, "contrast": contrast, "method": name, "seconds": found.seconds}
                row |= measure(there[1], found)
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
                shown.append((f"fixed {contrast}, outlines moved by: {name}", there[0], found.labels))
                yield row
            if pictures:
                name = f"ses-{session}_{contrast}_from_ses-{other}_T1w.png"
                draw(shown, f"sub-01, {pair}", pictures / name)


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=Path, help="folder for one PNG per pair")
    parser.add_argument("--only", nargs="+", default=[], help="words of the pairs' names, such as FLAIR")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(args.threads)
    found = list(rows(args.data, args.threads, args.pictures, args.only))
    titles = "Dice all | cortex | subcortical | ventricles | folding % | sd of J | seconds"
    lines = [f"| fixed | method | {titles} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for contrast, name in dict.fromkeys((row["contrast"], row["method"]) for row in found):
        mine = [row for row in found if (row["contrast"], row["method"]) == (contrast, name)]
        means = [f"{np.mean([row[key] for row in mine]):.{digits}f}" for key, digits in COLUMNS.items()]
        lines.append(f"| {contrast} | {name} | {' | '.join(means)} |")
    pairs = len({row["pair"] for row in found})
    lines.append(
        f"\n{pairs} pairs of sub-01, {args.threads} threads, lambda 0.3 unless said otherwise; overlap of "
        "our own segmentations of both images."
    )
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
