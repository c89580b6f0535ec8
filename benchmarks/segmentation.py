"""Brain masks and structures of the shipped networks on real scans, whole chain: locate, prealign, segment.

python -m benchmarks.segmentation --data DATA --threads 2 --out benchmarks/results/segmentation.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

SHARED = (10, 11, 12, 13, 17, 18, 49, 50, 51, 52, 53, 54, 4, 43, 16, 14, 15)
"""FreeSurfer numbers that the manual protocol and the networks draw alike."""


def chain(scan: nb.Nifti1Image, template: nb.Nifti1Image, threads: int) -> tuple[Any, float]:
    """Locate, prealign to the template and segment, as the app does for a scan without a mask."""
    from hyperprep.models.predict.locate import locate
    from hyperprep.models.predict.prealign import prealign
    from hyperprep.models.predict.segment import segment

    began = time.perf_counter()
    place = locate(scan, num_threads=threads)
    mask = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    found = prealign(template, scan, fixed_mask=mask, moving_mask=place.mask, num_threads=threads)
    result = segment(scan, template2scan=found.fixed2moving, mask=place.mask, num_threads=threads)
    return result, time.perf_counter() - began


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Give the Dice coefficient of two masks."""
    return float(2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))


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
    manual = read_mask(long / "derivatives" / "manual" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz")
    for session in ("ses-1", "ses-2"):
        scan = read_scan(long / "sub-01" / session / "anat" / f"sub-01_{session}_T1w.nii.gz")
        result, seconds = chain(scan, template, args.threads)
        truth = resample(manual, Grid.of(scan), [np.eye(4)], interpolation="nearest")
        score = overlap(np.asanyarray(result.mask.dataobj) > 0, np.asanyarray(truth.dataobj) > 0)
        lines.append(
            f"| sub-01 {session} T1w (scanner coordinates taken as shared) | {score:.3f} | | {seconds:.1f} |"
        )
        print(lines[-1], flush=True)
    for file in sorted(oasis.glob("sub-*/anat/*_T1w.nii.gz"))[: args.scans]:
        subject = file.name.split("_")[0]
        scan = read_scan(file)
        result, seconds = chain(scan, template, args.threads)
        labels = read_dseg(
            oasis / "derivatives" / "manual" / subject / "anat" / f"{subject}_desc-manual_dseg.nii.gz"
        )
        truth = manual_to_freesurfer(np.asanyarray(labels.dataobj).astype(int))
        mine = np.asanyarray(result.dseg.dataobj)
        scores = [overlap(mine == n, truth == n) for n in SHARED]
        mask = overlap(np.asanyarray(result.mask.dataobj) > 0, scan.get_fdata() > 0)
        lines.append(f"| {subject} (skull-stripped) | {mask:.3f} | {np.mean(scores):.3f} | {seconds:.1f} |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
