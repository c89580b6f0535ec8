"""One simulated person: anatomy, head and contrast, scanned at each visit with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy.ndimage import gaussian_filter

from hyperprep.bidsapp.demo.anatomy import (
    Warp,
    draw_growth,
    draw_position,
    draw_warp,
)
from hyperprep.bidsapp.demo.head import draw_head, simulate_head
from hyperprep.bidsapp.demo.plan import Participant, Visit
from hyperprep.bidsapp.demo.scan import acquire, acquisition_grid, brain_image, draw_contrast
from hyperprep.bidsapp.demo.template import Template
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField, map_points, resample

MIDDLE_OF_HEAD = np.array([0.0, -12.0, -4.0])
"""Where the field of view of a whole-head scan is centred (template frame, RAS mm)."""

MEAN_SIZE = 0.93
"""Mean length of the heads relative to the template's, whose brain of 1.85 l is larger than people's."""

CHANGE_RADIUS = 8.0
"""Mean radius of the focal change in mm (template frame)."""

CHANGE_INTENSITY = 0.38
"""Its T1w intensity (white matter 0.86, grey matter about 0.6)."""

CHANGE_GROWTH = 14.0
"""Percent by which lengths grow at its centre."""

_Members = list[np.ndarray | DisplacementField]


@dataclass(frozen=True)
class Scan:
    """One scan and its truth, all images on the scan's own grid.

    Parameters
    ----------
    t1w
        int16 intensity.
    dseg
        uint8: 1 grey matter, 2 white matter, 3 CSF.
    mask
        uint8 brain mask.
    change
        uint8 mask of the focal change, or None.
    to_template
        Point maps from the scan to the template (resample the template onto the scan).
    to_scan
        Point maps from the template to the scan (resample the scan onto the template).
    """

    t1w: nb.Nifti1Image
    dseg: nb.Nifti1Image
    mask: nb.Nifti1Image
    change: nb.Nifti1Image | None
    to_template: _Members
    to_scan: _Members


def scan_person(template: Template, participant: Participant, *, seed: int) -> list[Scan]:
    """All scans of one participant, in the order of the visits.

    Parameters
    ----------
    template
        Anatomy that is deformed.
    participant
        Who, and how scanned.
    seed
        Seed of the dataset; participants do not depend on each other.
    """
    rng = np.random.default_rng([seed, participant.number])
    warp = draw_warp(rng)
    position = draw_position(rng, degrees=5.0, shift=8.0, scale=0.06)
    position[:3, :3] /= MEAN_SIZE
    brain = brain_image(template, draw_contrast(rng))
    head_shape = draw_head(rng)
    head = None
    if any(visit.acquisition.whole_head for visit in participant.visits):
        head = simulate_head(template, head_shape)
    center = np.array([rng.choice([-1.0, 1.0]) * 26.0, -18.0, 28.0]) + rng.normal(0, 2, 3)
    blob = draw_blob(rng, template.grid, center)
    middle = map_points(center[None], [warp.inverse])[0]
    growth = draw_growth(rng, middle, radius=CHANGE_RADIUS, percent=CHANGE_GROWTH)
    scans = []
    for number, visit in enumerate(participant.visits):
        if number:
            position = position @ draw_position(rng, degrees=4.0, shift=5.0, scale=0.0)
        layers = [brain] if not visit.acquisition.whole_head or head is None else [brain, head]
        scans.append(_scan_visit(template, visit, layers, blob, warp, growth, position, rng))
    return scans


def draw_blob(rng: np.random.Generator, grid: Grid, center: np.ndarray) -> nb.Nifti1Image:
    """Irregular ball around a point: the share of each voxel that it fills, float32, 0 to 1.

    Parameters
    ----------
    rng
        Source of randomness.
    grid
        Grid of the result.
    center
        ``(3,)`` RAS mm.
    """
    offset = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float32)) - center
    noise = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 4.0)
    radius = CHANGE_RADIUS * (1 + 0.18 * noise / noise.std())
    inside = np.clip(0.5 + radius - np.sqrt((offset**2).sum(axis=-1)), 0, 1)
    return nb.Nifti1Image(inside.astype(np.float32), grid.affine)


def _scan_visit(
    template: Template,
    visit: Visit,
    layers: list[nb.Nifti1Image],
    blob: nb.Nifti1Image,
    warp: Warp,
    growth: Warp,
    position: np.ndarray,
    rng: np.random.Generator,
) -> Scan:
    to_template: _Members = [position, warp.forward]
    to_scan: _Members = [warp.inverse, np.linalg.inv(position)]
    if visit.changed:
        to_template.insert(1, growth.forward)
        to_scan.insert(1, growth.inverse)
        share = np.asanyarray(blob.dataobj)
        brain = np.asanyarray(layers[0].dataobj)
        lesion = share * (CHANGE_INTENSITY - brain) * template.mask
        layers = [*layers, nb.Nifti1Image(lesion.astype(np.float32), blob.affine)]
    acquisition = visit.acquisition
    aim = MIDDLE_OF_HEAD if acquisition.whole_head else _middle_of(template)
    grid = acquisition_grid(acquisition, map_points(aim[None], [np.linalg.inv(position)])[0])
    t1w = acquire(layers, to_template, acquisition, grid, rng)
    dseg = resample(template.dseg, grid, to_template, interpolation="label")
    mask = nb.Nifti1Image((np.asanyarray(dseg.dataobj) > 0).astype(np.uint8), grid.affine)
    change = None
    if visit.changed:
        filled = resample(blob, grid, to_template)
        inside = (np.asanyarray(filled.dataobj) > 0.5) & (np.asanyarray(mask.dataobj) > 0)
        change = nb.Nifti1Image(inside.astype(np.uint8), grid.affine)
    return Scan(t1w, dseg, mask, change, to_template, to_scan)


def _middle_of(template: Template) -> np.ndarray:
    inside = np.argwhere(template.mask)
    return template.grid.to_world((inside.min(axis=0) + inside.max(axis=0)) / 2)
