"""How far a lesion pulls the tissue around it when it is registered, with and without the topology mask.

The same synthetic head is registered to the template with and without a focal change. What the two
deformations differ by, in a shell around the change, is what it has done to the alignment of healthy tissue.

python -m benchmarks.topology_mask --maps MAPS --cases 10 --out benchmarks/results/topology_mask.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage, stats

from benchmarks.topology_cases import Case, cases
from hyperprep.models.predict.outliers import match_weight, outliers
from hyperprep.models.predict.register import register
from hyperprep.models.predict.synthetic_controls import template_brain
from hyperprep.models.predict.topology import topology_change
from hyperprep.models.spatial.composite import joined
from hyperprep.models.spatial.controls import ControlStatistics
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import displacement_from_itk
from hyperprep.models.synth.maps import load_maps
from hyperprep.models.weights import find_controls, find_weights

DIAMETERS_MM = ((12.0, 20.0), (20.0, 30.0))
"""Changes large enough to pull at what surrounds them."""

SHELL_MM = 8.0
"""How far around the change alignment is looked at."""

LAMBDA = 0.3
"""Regularisation of all registrations here."""


def shell(mask: nb.Nifti1Image, brain: np.ndarray) -> np.ndarray:
    """Give the voxels of the brain outside a mask but within :data:`SHELL_MM` of it."""
    inside = np.asanyarray(mask.dataobj) > 0
    away = ndimage.distance_transform_edt(~inside, sampling=Grid.of(mask).spacing)
    return np.asarray(brain & ~inside & (away <= SHELL_MM))


def pulled(
    case: Case, template: nb.Nifti1Image, controls: ControlStatistics, threads: int
) -> dict[str, float]:
    """Give mean differences (mm) from the deformation without the change, plain and masked."""
    assert case.reference is not None
    options = {"fixed2moving": np.eye(4), "lam": LAMBDA, "num_threads": threads}
    without = register(template, case.reference, **options)
    plain = register(template, case.scan, **options)
    change = topology_change(
        template, case.scan, fixed2moving=np.eye(4), transforms=(plain.chain(), plain.inverse_chain()),
        num_threads=threads,
    )  # fmt: skip
    weight = change.image(match_weight(outliers(change, controls).fixed_z, controls.threshold))
    masked = register(template, case.scan, fixed_weight=weight, **options)
    place = shell(case.truth, case.scan.get_fdata() > 0)
    grid = Grid.of(case.scan)
    known, one, other = (
        displacement_from_itk(joined([found.inverse_chain()]), grid).data[place]
        for found in (without, plain, masked)
    )
    return {
        "diameter": case.diameter_mm,
        "plain": float(np.linalg.norm(one - known, axis=-1).mean()),
        "masked": float(np.linalg.norm(other - known, axis=-1).mean()),
    }


def lines(rows: list[dict[str, float]]) -> Iterator[str]:
    """Give the lines of the table, and what they say together."""
    yield "| diameter, mm | pulled without mask, mm | with mask, mm |"
    yield "|---|---|---|"
    for row in rows:
        yield f"| {row['diameter']:.0f} | {row['plain']:.2f} | {row['masked']:.2f} |"
    plain, masked = (np.array([row[key] for row in rows]) for key in ("plain", "masked"))
    p = stats.wilcoxon(plain, masked).pvalue if len(rows) > 1 else float("nan")
    yield f"| **mean** | {plain.mean():.2f} | {masked.mean():.2f} |"
    yield f"\nBetter with the mask in {int((masked < plain).sum())} of {len(rows)}; Wilcoxon p = {p:.3g}."


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = find_controls(find_weights("topology"))
    if found is None:
        raise SystemExit("The weights of 'topology' have no control statistics: make them first.")
    controls, template = ControlStatistics.load(found), template_brain()
    rows = []
    for case in cases(load_maps(args.maps), args.cases, references=True, diameters=DIAMETERS_MM):
        rows.append(pulled(case, template, controls, args.threads))
        print(case.name, case.site, case.kind, rows[-1], flush=True)
    text = "\n".join(lines(rows))
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
