"""Control statistics from synthetic healthy heads: what ships with the weights of the network ``topology``.

python -m hyperprep.models.predict.synthetic_controls --maps MAPS --count 24 --out WEIGHTS_FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np

from hyperprep.models.predict.topology import TopologyChange, topology_change
from hyperprep.models.spatial.controls import SCORE_MM, ControlStatistics, control_statistics
from hyperprep.models.spatial.grids import model_grid
from hyperprep.models.synth.apply import model_lattice, render, sample_anatomy
from hyperprep.models.synth.draw import SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps, load_maps
from hyperprep.models.weights import find_weights
from hyperprep.models.weights.resolver import digest, read_manifest, write_manifest

SPEC = SynthSpec(
    rotation_deg=3.0, shift_mm=2.0, log_scale=0.03, anisotropic_log_scale=0.03, warp_mm=3.0,
    random_contrast=0.0, contrasts=("T1w",), noise=0.04, bias=0.15, thick_slices=0.0, blur_mm=1.0,
    skull_kept=0.0, skull_badly_removed=0.0,
)  # fmt: skip
"""T1-weighted, skull-stripped, as well aligned as a scan is after its affine alignment."""

HELD_OUT = 2
"""The last label maps of a prepared file train no network; no control is made of them either."""

SPACING_MM = 1.0
REFERENCE = "MNI152NLin2009aSym"
"""Name of the template that nilearn carries."""


def healthy_head(
    maps: LabelMaps,
    rng: np.random.Generator,
    spec: SynthSpec = SPEC,
    *,
    visits: int = 1,
    spacing: float = SPACING_MM,
) -> Iterator[nb.Nifti1Image]:
    """Make T1-weighted images of one head, skull-stripped, in the template frame.

    Parameters
    ----------
    maps
        Label maps; the last :data:`HELD_OUT` are not used.
    rng
        Where all randomness comes from.
    spec
        Ranges.
    visits
        How many images; noise, bias, and a position within a degree and a millimetre differ.
    spacing
        Voxel size, mm.
    """
    grid, lattice = model_grid(spacing), model_lattice(spacing)
    groups = maps.groups()
    anatomy = draw_anatomy(rng, spec, max(len(maps.maps) - HELD_OUT, 1), lattice.extent_mm)
    first = draw_contrast(rng, spec, int(groups.max()) + 1)
    for visit in range(visits):
        own, contrast = anatomy, first
        if visit:
            still = replace(
                spec, rotation_deg=1.0, shift_mm=1.0, log_scale=0.0, anisotropic_log_scale=0.0, shear=0.0
            )
            moved = draw_anatomy(rng, still, 1, lattice.extent_mm)
            other = draw_contrast(rng, spec, len(first.means))
            own = replace(anatomy, matrix=(anatomy.matrix @ moved.matrix).astype(np.float32))
            contrast = replace(other, means=first.means, sds=first.sds, gamma=first.gamma)
        sampling = sample_anatomy(maps, own, lattice, subsamples=spec.subsamples, seed=contrast.seed)
        image = render(sampling, groups, contrast, spacing=spacing) * sampling.brain
        yield nb.Nifti1Image(image.numpy(), grid.affine)


def template_brain() -> nb.Nifti1Image:
    """Give nilearn's skull-stripped MNI152 template at 1 mm."""
    from nilearn.datasets import load_mni152_template

    mni = load_mni152_template(resolution=1)
    return nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)


def synthetic_statistics(
    maps: LabelMaps,
    *,
    count: int,
    kind: str = "template",
    seed: int = 0,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> ControlStatistics:
    """Score synthetic healthy heads against the template, or against a second image of themselves.

    Parameters
    ----------
    maps
        Label maps; those that trained the network serve, for none of them has pathology.
    count
        Number of heads.
    kind
        ``"template"`` or ``"sessions"``.
    seed
        Seed of the images.
    weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.
    """
    template = template_brain()
    scores, last = [], None
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        visits = list(healthy_head(maps, rng, visits=2 if kind == "sessions" else 1))
        fixed = template if kind == "template" else visits[0]
        found: TopologyChange = topology_change(
            fixed, visits[-1], fixed2moving=np.eye(4), weights_dir=weights_dir, device=device,
            num_threads=num_threads,
        )  # fmt: skip
        scores.append(found.fixed_score)
        last = found
        print(f"control {number + 1}/{count}: mean score {found.metrics['score_mean']:.1f}", flush=True)
    assert last is not None
    brain = last.fixed_brain if kind == "template" else np.mean([s != 0 for s in scores], axis=0) > 0.5
    return control_statistics(
        scores,
        brain,
        last.grid,
        controls=[f"synthetic-{seed}-{number}" for number in range(count)],
        weights_sha256=last.weights_sha256,
        kind=kind,
        reference=REFERENCE if kind == "template" else "",
        score_mm=SCORE_MM if kind == "template" else 0.0,
    )


def main(argv: list[str] | None = None) -> None:
    """Write the statistics beside the weights and name them in the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="label maps made by 'train prepare'")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--kind", choices=("template", "sessions"), default="template")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the weights (default: where they are found)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    found = synthetic_statistics(
        load_maps(args.maps), count=args.count, kind=args.kind, seed=args.seed, weights_dir=args.out,
        device=args.device, num_threads=args.threads,
    )  # fmt: skip
    folder = args.out or find_weights("topology").path.parent
    file = found.save(folder / f"topology_controls_{args.kind}.npz")
    manifest = read_manifest(folder)
    named = {"file": file.name, "sha256": digest(file)}
    manifest["topology"].setdefault("controls", {})[args.kind] = named
    write_manifest(folder, manifest)
    print(f"{file}: threshold {found.threshold:g}")


if __name__ == "__main__":
    main()
