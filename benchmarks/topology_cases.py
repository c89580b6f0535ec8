"""Cases of the topology benchmark: synthetic heads with one focal change each, and healthy ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nb
import numpy as np

from hyperprep.models.predict.synthetic_controls import HELD_OUT, SPEC
from hyperprep.models.spatial.grids import Grid, model_grid
from hyperprep.models.synth.apply import model_lattice, render, sample_anatomy
from hyperprep.models.synth.draw import draw_anatomy, draw_contrast
from hyperprep.models.synth.lesions import (
    SITES,
    LesionSpec,
    apply_lesion,
    draw_lesion,
    shifted_points,
    with_lesion,
)
from hyperprep.models.synth.maps import LabelMaps

DIAMETERS_MM = ((2.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 30.0))
"""Ranges of the focal changes' diameters; cases take turns."""


@dataclass(frozen=True)
class Case:
    """A skull-stripped scan in the template frame, and the mask of what changed in it, both at 1 mm.

    ``reference`` is the same scan without the change, its tissue pushed aside alike; made on request.
    """

    name: str
    scan: nb.Nifti1Image
    truth: nb.Nifti1Image
    diameter_mm: float
    site: str
    kind: str
    reference: nb.Nifti1Image | None = None


def cases(
    maps: LabelMaps, count: int, *, seed: int = 7, spacing: float = 1.0, references: bool = False,
    diameters: tuple[tuple[float, float], ...] = DIAMETERS_MM,
) -> Iterator[Case]:  # fmt: skip
    """Make cases: sizes and sites take turns, all else is drawn; heads are those that were kept out."""
    grid, lattice = model_grid(spacing), model_lattice(spacing)
    numbers, groups = np.array(maps.numbers), maps.groups()
    sites = [*SITES, "anywhere"]
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        low, high = diameters[number % len(diameters)]
        site = sites[number // len(diameters) % len(sites)]
        index = len(maps.maps) - 1 - number % HELD_OUT
        anatomy = draw_anatomy(rng, SPEC, len(maps.maps), lattice.extent_mm, index=index)
        contrast = draw_contrast(rng, SPEC, int(groups.max()) + 1)
        options = {"subsamples": SPEC.subsamples, "seed": contrast.seed}
        healthy = sample_anatomy(maps, anatomy, lattice, **options)
        labels = numbers[healthy.indices[0].numpy()] * (healthy.brain.numpy() > 0)
        lesion = draw_lesion(
            rng, LesionSpec(), labels, lattice, site=site, diameter_mm=float(rng.uniform(low, high))
        )
        moved = sample_anatomy(maps, anatomy, lattice, points=shifted_points(lesion, lattice), **options)
        changed, mask = apply_lesion(moved, lesion, lattice, len(numbers))
        table, looks = with_lesion(groups, contrast, lesion)
        image = (render(changed, table, looks, spacing=spacing) * changed.brain).numpy()
        without = None
        if references:
            bare = (render(moved, groups, contrast, spacing=spacing) * moved.brain).numpy()
            without = nb.Nifti1Image(bare, grid.affine)
        yield Case(
            f"{number:03d}",
            nb.Nifti1Image(image, grid.affine),
            nb.Nifti1Image(mask.numpy(), grid.affine),
            2 * lesion.radius_mm,
            site,
            lesion.kind,
            without,
        )


def on_grid(img: nb.Nifti1Image, grid: Grid) -> np.ndarray:
    """Give a mask on another grid of the same space: voxels that it fills by half."""
    from hyperprep.models.spatial.transforms import resample

    data = nb.Nifti1Image(np.asanyarray(img.dataobj).astype(np.float32), img.affine)
    return np.asanyarray(resample(data, grid, [np.eye(4)]).dataobj) >= 0.5
