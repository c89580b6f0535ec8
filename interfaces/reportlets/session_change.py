"""Both sessions of one person side by side, with what changed between them outlined and listed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from html import escape

import nibabel as nib
import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from scipy import ndimage

from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import WIDTH, Mosaic, document, line_element
from hyperprep.interfaces.reportlets.slices import Box, Plane, bounding_box, sample, spread_planes
from hyperprep.interfaces.reportlets.topology import (
    CALIBRATED,
    SCALE,
    UNCALIBRATED,
    colour_bar,
    own_scale,
    painter,
    region_table,
)

PLANES = 5
"""Axial planes in each row."""

APPEARED, DISAPPEARED = "#3ddbd9", "#b4ff5a"
"""Outlines of regions that appeared and disappeared."""

APART_MM = 6.0
"""Planes through regions lie at least this far from each other."""


def chosen_planes(regions: nib.Nifti1Image, box: Box) -> tuple[Plane, ...]:
    """Choose axial planes: through the largest regions first, then evenly spread ones.

    Parameters
    ----------
    regions
        Numbers above 0 where something changed.
    box
        What part of the world is shown.

    Examples
    --------
    >>> data = np.zeros((9, 9, 40), np.uint8)
    >>> data[2:5, 2:5, 7] = 1
    >>> image = nib.Nifti1Image(data, np.eye(4))
    >>> [round(one.position) for one in chosen_planes(image, Box((0, 0, 0), (8, 8, 139)))]
    [7, 28, 56, 83, 111]
    """
    parts, count = ndimage.label(np.asanyarray(regions.dataobj) > 0)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    places = []
    for number in np.argsort(-sizes, kind="stable")[:count][: 4 * PLANES]:
        voxels = np.argwhere(parts == number)
        places.append(float(nib.affines.apply_affine(regions.affine, np.median(voxels, axis=0))[2]))
    kept: list[float] = []

    def keep(some: list[float]) -> None:
        for place in some:
            if len(kept) < PLANES and all(abs(place - other) >= APART_MM for other in kept):
                kept.append(place)

    keep(places)
    for count in (PLANES - len(kept), 4 * PLANES):
        if len(kept) < PLANES:
            keep([plane.position for plane in spread_planes(box, 2, count, rim=0.2)])
    return tuple(Plane(2, place) for place in sorted(kept))


def draw_session_change(
    first: nib.Nifti1Image,
    second: nib.Nifti1Image,
    values: nib.Nifti1Image,
    regions: nib.Nifti1Image,
    *,
    rows: pd.DataFrame,
    names: Sequence[str],
    mask: nib.Nifti1Image | None = None,
    calibrated: bool = True,
) -> str:
    """SVG of two sessions in the same planes, the map of change on both, its regions outlined and listed.

    Parameters
    ----------
    first, second
        The earlier scan, and the later one rigidly aligned to it.
    values
        z-scores of the later scan, rigidly aligned likewise, or scores in nats where ``calibrated`` is False.
    regions
        1 where a region appeared, 2 where one disappeared, aligned likewise.
    rows
        Table of the regions: columns of the TSV.
    names
        What the two sessions are called.
    mask
        Brain mask of the earlier scan.
    calibrated
        Whether the values are z-scores against pairs of sessions without change.

    Returns
    -------
    The SVG document.
    """
    box = bounding_box(mask if mask is not None else first)
    planes = chosen_planes(regions, box)
    upper = Mosaic(box, (planes,), top=54.0)
    lower = Mosaic(box, (planes,), top=upper.height + 28)
    scale = SCALE if calibrated else own_scale(values)
    marked = np.asanyarray(regions.dataobj)
    body = [colour_bar(*scale, title=CALIBRATED if calibrated else UNCALIBRATED)]
    for mosaic, scan, name in ((upper, first, names[0]), (lower, second, names[1])):
        body.append(mosaic.raster(painter(scan, mosaic.limits(scan, mask), values, scale)))
        for number, colour, title in ((1, APPEARED, "Appeared"), (2, DISAPPEARED, "Disappeared")):
            inside = (marked == number).astype(np.float32)
            lines = mosaic.contours(functools.partial(sample, inside, regions.affine), [0.5])
            body.append(line_element(lines, colour, title))
        title = escape(name[:1].upper() + name[1:])
        body.append(f'<text class="title" x="10" y="{mosaic.top - 9:.0f}">{title}</text>')
        body.append(mosaic.marks())
    x = WIDTH - 330
    for colour, title in ((APPEARED, "appeared since"), (DISAPPEARED, "disappeared since")):
        body.append(f'<rect x="{x}" y="36" width="12" height="9" fill="none" stroke="{colour}"/>')
        body.append(f'<text x="{x + 18}" y="45">{title}</text>')
        x += 120
    listed, height = region_table(rows, lower.height)
    return document([*body, *listed], height=height, label="Change between sessions", kind="hp-topology")


class _SessionChangeMapInputSpec(BaseInterfaceInputSpec):
    first = File(exists=True, mandatory=True, desc="earlier scan")
    second = File(exists=True, mandatory=True, desc="later scan, rigidly aligned, on any grid of that space")
    score = File(
        exists=True, mandatory=True, desc="score of the later scan, aligned likewise, nats; shown without z"
    )
    regions = File(exists=True, mandatory=True, desc="1 appeared, 2 disappeared, aligned likewise")
    table = File(exists=True, mandatory=True, desc="TSV of the regions")
    z = File(exists=True, desc="z-scores of the later scan, aligned likewise")
    first_mask = File(exists=True, desc="brain mask of the earlier scan")
    names = traits.List(
        traits.Str(), minlen=2, maxlen=2, desc="what the two sessions are called", mandatory=True
    )
    out_file = File("sessionchange.svg", usedefault=True, desc="name of the figure")


class _SessionChangeMapOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")
    count = traits.Int(desc="regions listed in the table")


class SessionChangeMap(SimpleInterface):
    """Both sessions in the same planes, with the regions of change outlined and listed."""

    input_spec = _SessionChangeMapInputSpec
    output_spec = _SessionChangeMapOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        calibrated = isdefined(inputs.z)
        rows = pd.read_csv(inputs.table, sep="\t", na_values=["n/a"])
        svg = draw_session_change(
            nib.load(inputs.first),
            nib.load(inputs.second),
            nib.load(inputs.z if calibrated else inputs.score),
            nib.load(inputs.regions),
            rows=rows,
            names=inputs.names,
            mask=nib.load(inputs.first_mask) if isdefined(inputs.first_mask) else None,
            calibrated=calibrated,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        self._results["count"] = len(rows)
        return runtime
