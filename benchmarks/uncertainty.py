"""Is the segmentation's uncertainty right: calibration, and whether errors lie where it is uncertain.

Real brains with manual labels, whole chain, each scan for itself; voxels that the manual labels name, where
they or the segmentation hold a structure that both draw alike. With and without the weights' temperature.

python -m benchmarks.uncertainty --data DATA --threads 2 --out benchmarks/results/uncertainty.md
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.segmentation import SHARED, aligned, overlap


def voxels_of(result: Any, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give claimed probability, whether it was right, and entropy of the voxels that count, (N,) each."""
    from hyperprep.models.spatial.labels import LEAVES

    found = np.asanyarray(result.leaves.dataobj)
    counts = (np.isin(found, SHARED) | np.isin(truth, SHARED)) & (truth != 0) & (found != 0)
    claimed = np.zeros(int(counts.sum()), np.float32)
    chosen = found[counts]
    for leaf in LEAVES:
        where = chosen == leaf.index
        claimed[where] = np.asanyarray(result.probsegs[leaf.name].dataobj)[counts][where]
    return claimed, chosen == truth[counts], np.asanyarray(result.entropy.dataobj)[counts]


def main() -> None:
    """Print and write the tables."""
    from sklearn.metrics import roc_auc_score

    from hyperprep.models.predict.reliability import Reliability
    from hyperprep.models.predict.segment import segment
    from hyperprep.models.predict.synthetic_controls import template_brain
    from hyperprep.models.spatial.images import read_dseg, read_scan
    from hyperprep.models.spatial.labels import manual_to_freesurfer
    from hyperprep.models.weights import find_weights

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8, help="networks with units left out")
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    oasis = args.data / "bids" / "oasis"
    entry = find_weights("segment")
    bare = replace(entry, metadata={k: v for k, v in entry.metadata.items() if k != "calibration"})
    kinds = {
        "as trained": (bare, 0),
        "calibrated": (entry, 0),
        f"calibrated, {args.samples} networks with units left out": (entry, args.samples),
    }
    curves = {kind: Reliability() for kind in kinds}
    areas: dict[str, list[float]] = {kind: [] for kind in curves}
    promised: list[tuple[float, float]] = []
    for file in sorted(oasis.glob("sub-*/anat/*_T1w.nii.gz"))[: args.scans]:
        subject = file.name.split("_")[0]
        scan = read_scan(file)
        manual = oasis / "derivatives" / "manual" / subject / "anat" / f"{subject}_desc-manual_dseg.nii.gz"
        truth = manual_to_freesurfer(np.asanyarray(read_dseg(manual).dataobj).astype(int))
        rough, template2scan = aligned(scan, template_brain(), args.threads)
        for kind, (weights, samples) in kinds.items():
            with mock.patch("hyperprep.models.predict.segment.find_weights", lambda *_, w=weights, **__: w):
                result = segment(
                    scan, template2scan=template2scan, mask=rough, probabilities=True, uncertainty=True,
                    samples=samples, num_threads=args.threads,
                )  # fmt: skip
            claimed, right, entropy = voxels_of(result, truth)
            curves[kind].add(claimed, right)
            areas[kind].append(float(roc_auc_score(~right, entropy)))
            if kind == "calibrated":
                found = np.asanyarray(result.leaves.dataobj)
                quality = {row["index"]: row.get("expected_dice") for row in result.volumes}
                promised += [(float(quality[n] or 0), overlap(found == n, truth == n)) for n in SHARED]
        print(f"{subject}: error {1 - right.mean():.3f}, area {areas['calibrated'][-1]:.3f}", flush=True)
    lines = [
        "| probabilities | expected calibration error | claimed less right | errors found by entropy, AUC |",
        "|---|---|---|---|",
    ]
    for kind, curve in curves.items():
        lines.append(
            f"| {kind} | {curve.error:.4f} | {curve.overconfidence:+.4f} | {np.mean(areas[kind]):.3f} |"
        )
    lines += [
        "",
        "| claimed | right, as trained | right, calibrated | voxels, calibrated |",
        "|---|---|---|---|",
    ]
    raw, made = curves["as trained"], curves["calibrated"]
    for place in range(len(made.count)):
        shares = [
            f"{one.correct[place] / one.count[place]:.3f}" if one.count[place] else "" for one in (raw, made)
        ]
        low, high = place / len(made.count), (place + 1) / len(made.count)
        if raw.count[place] or made.count[place]:
            lines.append(f"| {low:.2f} to {high:.2f} | {' | '.join(shares)} | {made.count[place]:.0f} |")
    claims, truths = np.array(promised).T
    lines += [
        "",
        f"Expected against true Dice, {len(claims)} structures of {args.scans} brains: correlation "
        f"{np.corrcoef(claims, truths)[0, 1]:.3f}, expected {claims.mean():.3f}, true {truths.mean():.3f}.",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
