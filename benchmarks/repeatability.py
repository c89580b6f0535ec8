"""Volumes of one brain from scans of other contrasts and from another session: how far they lie apart.

Every scan is segmented for itself, from the whole head, with no help from the other scans of its subject.

python -m benchmarks.repeatability --data DATA --threads 2 --out benchmarks/results/repeatability.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd

from benchmarks.segmentation import chain

INTRACRANIAL = "intracranial"
REGIONS = (
    "thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "ventricles", "cortex",
    INTRACRANIAL,
)  # fmt: skip
"""Structures of both sides together, super-regions, and the estimated total intracranial volume."""

SUBJECTS = ("sub-01", "sub-04", "sub-20")
CONTRASTS = ("T1w", "T2w", "FLAIR")


def members(region: str) -> tuple[int, ...]:
    """Give the FreeSurfer numbers of a structure on both sides, or of a super-region."""
    from hyperprep.models.predict.volumes import INTRACRANIAL as NUMBER
    from hyperprep.models.spatial.labels import PAIRED, SUPER_REGIONS, resolve_labels

    if region == INTRACRANIAL:
        return (NUMBER,)
    known = {one.name: one.numbers for one in SUPER_REGIONS}
    if region in known:
        return tuple(known[region])
    left = next(
        pair for pair in PAIRED if region in resolve_labels([str(pair[0])])[0].name.lower().replace("-", " ")
    )
    return tuple(left)


def volumes(file: Path, template: nb.Nifti1Image, threads: int) -> dict[str, float]:
    """Segment a scan and give the volume of each region (ml) and the seconds it took."""
    from hyperprep.models.spatial.images import read_scan

    result, seconds = chain(read_scan(file), template, threads)
    known = {row["index"]: row["volume_mm3"] / 1000 for row in result.volumes}
    return {r: sum(known.get(n, 0.0) for n in members(r)) for r in REGIONS} | {"seconds": seconds}


def apart(found: pd.DataFrame, index: list[str], across: str) -> pd.Series:
    """Give the mean difference between two scans of one group, percent of their mean, for each region."""
    differences = []
    for _, group in found.groupby(index):
        for i in range(len(group)):
            for j in range(i):
                a, b = (group.iloc[k][list(REGIONS)].astype(float) for k in (i, j))
                if group.iloc[i][across] != group.iloc[j][across]:
                    differences.append(200 * (a - b).abs() / (a + b))
    return pd.DataFrame(differences).mean() if differences else pd.Series(np.nan, index=list(REGIONS))


def main() -> None:
    """Print and write the table."""
    from nilearn.datasets import load_mni152_template

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    rows = []
    for subject in SUBJECTS:
        for file in sorted((args.data / "bids" / "longitudinal" / subject).glob("ses-*/anat/*.nii.gz")):
            contrast = file.name.split("_")[-1].split(".")[0]
            if contrast in CONTRASTS:
                found = volumes(file, template, args.threads)
                rows.append({"subject": subject, "session": file.parts[-3], "contrast": contrast, **found})
                print(
                    {k: round(v, 1) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True
                )
    table = pd.DataFrame(rows)
    of_scan = "| subject | session | contrast | " + " | ".join(f"{r}, ml" for r in REGIONS) + " | seconds |"
    lines = [of_scan, "|---" * (len(REGIONS) + 4) + "|"]
    for row in rows:
        cells = [f"{row[name]:.1f}" for name in (*REGIONS, "seconds")]
        lines.append(f"| {row['subject']} | {row['session']} | {row['contrast']} | {' | '.join(cells)} |")
    lines += ["", "| mean difference, % of the mean | " + " | ".join(REGIONS) + " |"]
    lines.append("|---" * (len(REGIONS) + 1) + "|")
    t1w = table[table["contrast"] == "T1w"]
    lines.append(_line("T1w of two sessions", apart(t1w, ["subject"], "session")))
    for other in ("T2w", "FLAIR"):
        both = table[table["contrast"].isin(["T1w", other])]
        lines.append(_line(f"T1w and {other} of a session", apart(both, ["subject", "session"], "contrast")))
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


def _line(title: str, values: pd.Series) -> str:
    return f"| {title} | " + " | ".join(f"{values[r]:.1f}" for r in REGIONS) + " |"


if __name__ == "__main__":
    main()
