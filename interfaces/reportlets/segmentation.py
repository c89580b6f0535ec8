"""Outlines of the brain mask and of every structure over the scan they were found in."""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined

from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import WIDTH, Mosaic, document, line_element
from hyperprep.interfaces.reportlets.slices import bounding_box, sample, to_grey
from hyperprep.interfaces.reportlets.structures import Group, group_fields, read_own_groups

MASK = Group("Brain mask", (), "#ff5c5c")
DEEP = (10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60)
"""FreeSurfer numbers of what is shown enlarged."""

LEGEND_COLUMNS = 6
LEGEND_LINE = 20.0
ZOOM_GAP = 30.0
SPACING = 0.8
"""Distance between pixels, mm."""

CONTOUR_STYLE = """\
.hp-contours .legend text { font-size: 13px; }
.hp-contours .structure:hover .line { stroke-width: 2.4px; }
"""


def draw_contours(
    img: nib.Nifti1Image,
    *,
    dseg: nib.Nifti1Image | None = None,
    mask: nib.Nifti1Image | None = None,
    named: Mapping[int, Group] | None = None,
) -> str:
    """SVG of a scan with the outlines of its brain mask and structures.

    Parameters
    ----------
    img
        The scan.
    dseg
        Structures, FreeSurfer numbers, any grid in the scan's space.
    mask
        Brain mask, any grid in the scan's space.
    named
        Groups of numbers that not every installation knows.

    Returns
    -------
    The SVG document; each structure is a ``g.structure`` with ``data-label``.
    """
    frame = mask if mask is not None else dseg if dseg is not None else img
    fields = [] if dseg is None else list(group_fields(dseg, named=named))
    if mask is not None:
        fields.insert(0, (MASK, _mask_field(mask)))
    entries = [group for group, _ in fields]
    mosaic = Mosaic.of(
        bounding_box(frame, margin=14.0), top=12 + LEGEND_LINE * -(-len(entries) // LEGEND_COLUMNS)
    )
    mosaics = [mosaic]
    enlarged = (*DEEP, *(named or ()))
    if dseg is not None and np.isin(np.asanyarray(dseg.dataobj), enlarged).any():
        deep = nib.Nifti1Image(np.isin(np.asanyarray(dseg.dataobj), enlarged).astype(np.uint8), dseg.affine)
        mosaics.append(
            Mosaic.of(
                bounding_box(deep, margin=10.0), counts=(0, 5, 5), top=mosaic.height + ZOOM_GAP, rim=0.25
            )
        )
    data = np.nan_to_num(np.asanyarray(img.dataobj, dtype=np.float32))
    limits = mosaic.limits(img, mask)
    body = [
        part.raster(lambda points: to_grey(sample(data, img.affine, points), limits), spacing=SPACING)
        for part in mosaics
    ]
    for group, field in fields:
        body.append(_structure(group, "".join(part.contours(field, [0.5]) for part in mosaics)))
    body += [part.marks() for part in mosaics] + _legend(entries)
    if len(mosaics) > 1:
        body.append(f'<text x="8" y="{mosaics[1].top - 8:.0f}">Deep structures, enlarged</text>')
    return document(
        body,
        height=mosaics[-1].height,
        label="Brain mask and structures drawn over planes through the scan",
        kind="hp-contours",
        style=CONTOUR_STYLE,
    )


def _mask_field(mask: nib.Nifti1Image) -> Callable[[np.ndarray], np.ndarray]:
    """Membership in the brain mask at world points."""
    inside = np.asanyarray(mask.dataobj).astype(np.float32)
    return lambda points: sample(inside, mask.affine, points)


def _structure(group: Group, outline: str) -> str:
    line = line_element(outline, group.colour, group.name)
    return f'<g class="structure" data-label="{escape(group.name)}">{line}</g>'


def _legend(entries: list[Group]) -> list[str]:
    """Legend above the mosaic, row by row."""
    elements = ['<g class="legend">']
    for number, group in enumerate(entries):
        x = (number % LEGEND_COLUMNS) * WIDTH / LEGEND_COLUMNS + 8
        y = 20 + (number // LEGEND_COLUMNS) * LEGEND_LINE
        elements.append(
            f'<line x1="{x:.0f}" x2="{x + 22:.0f}" y1="{y - 4:.0f}" y2="{y - 4:.0f}" '
            f'stroke="{group.colour}" stroke-width="3"/>'
            f'<text x="{x + 28:.0f}" y="{y:.0f}">{escape(group.name)}</text>'
        )
    return [*elements, "</g>"]


class _LabelContoursInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan to draw over")
    in_dseg = File(exists=True, desc="structures in the scan's space, FreeSurfer numbers")
    in_mask = File(exists=True, desc="brain mask in the scan's space")
    in_legend = File(exists=True, desc="TSV that names the numbers of own regions: index, name, color")
    out_file = File("label_contours.svg", usedefault=True, desc="name of the figure")


class _LabelContoursOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class LabelContours(SimpleInterface):
    """Outlines of the brain mask and of all structures over three rows of planes through the scan."""

    input_spec = _LabelContoursInputSpec
    output_spec = _LabelContoursOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        svg = draw_contours(
            nib.load(inputs.in_file),
            dseg=nib.load(inputs.in_dseg) if isdefined(inputs.in_dseg) else None,
            mask=nib.load(inputs.in_mask) if isdefined(inputs.in_mask) else None,
            named=read_own_groups(Path(inputs.in_legend)) if isdefined(inputs.in_legend) else None,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime
