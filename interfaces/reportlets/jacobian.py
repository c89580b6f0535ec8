"""Where the deformation makes room and where it takes it: the Jacobian determinant over the template."""

from dataclasses import dataclass
from html import escape

import matplotlib
import nibabel as nib
import numpy as np
from matplotlib.colors import LogNorm
from nibabel.affines import apply_affine
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import WIDTH, Cell, Mosaic, document, jpeg_uri, line_element
from hyperprep.interfaces.reportlets.slices import IN_PLANE_AXES, Box, Plane, bounding_box, sample
from hyperprep.interfaces.reportlets.structures import group_fields

COUNTS = (4, 5, 5)
"""Sagittal, coronal and axial planes."""

JACOBIAN_LIMIT = 3.0
"""The colour scale runs from 1 / this to this, on a log scale, the same in every report."""

CAPTION = "Jacobian determinant (volume in scan / in template)"

COLOUR_MAP = "RdBu_r"
FOLD_COLOUR = "#ffe600"
RING = '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" stroke="{colour}" stroke-width="{width}"/>'
OUTLINES = ("Cerebral cortex", "Lateral ventricles", "Thalamus", "Putamen", "Caudate", "Cerebellar cortex")


@dataclass(frozen=True)
class Folding:
    """Where a deformation folds.

    Attributes
    ----------
    count
        Voxels with a Jacobian determinant of zero or less (inside the mask).
    worst
        Plane per axis that holds the most of them; None when there is none.
    """

    count: int
    worst: tuple[Plane, Plane, Plane] | None

    @classmethod
    def of(cls, jacobian: nib.Nifti1Image, inside: np.ndarray) -> "Folding":
        """Count folded voxels and find the planes with most of them.

        Examples
        --------
        >>> data = np.ones((7, 8, 9), np.float32)
        >>> data[3, 4, 5] = -1
        >>> folding = Folding.of(nib.Nifti1Image(data, np.eye(4)), np.ones((7, 8, 9), bool))
        >>> folding.count, [plane.position for plane in folding.worst]
        (1, [3.0, 4.0, 5.0])
        """
        folded = (np.asanyarray(jacobian.dataobj) <= 0) & inside
        if not folded.any():
            return cls(0, None)
        world = np.rint(apply_affine(jacobian.affine, np.argwhere(folded)))
        planes = []
        for axis in range(3):
            positions, counts = np.unique(world[:, axis], return_counts=True)
            planes.append(Plane(axis, float(positions[counts.argmax()])))
        return cls(int(folded.sum()), (planes[0], planes[1], planes[2]))


def draw_jacobian(
    jacobian: nib.Nifti1Image,
    *,
    mask: nib.Nifti1Image | None = None,
    dseg: nib.Nifti1Image | None = None,
    limit: float = JACOBIAN_LIMIT,
    caption: str = CAPTION,
) -> str:
    """SVG of the Jacobian determinant in template space, on a log scale, folded places ringed.

    Parameters
    ----------
    jacobian
        Determinant of the deformation (without the affine part), template space.
    mask
        Brain mask of the template.
    dseg
        Structures of the template, drawn as outlines.
    limit
        The colour scale runs from 1 / this to this.
    caption
        What the colours mean.

    Returns
    -------
    The SVG document.
    """
    data = np.nan_to_num(np.asanyarray(jacobian.dataobj, dtype=np.float32), nan=1.0)
    mask_data = (
        np.ones(data.shape, np.float32) if mask is None else np.asanyarray(mask.dataobj).astype(np.float32)
    )
    mask_affine = jacobian.affine if mask is None else mask.affine
    box = bounding_box(mask if mask is not None else jacobian)
    inside = _on_grid(mask_data, mask_affine, jacobian)
    folding = Folding.of(jacobian, inside)
    mosaic = _through_folds(Mosaic.of(box, counts=COUNTS), folding)
    norm = LogNorm(1 / limit, limit)
    colours = matplotlib.colormaps[COLOUR_MAP]

    def draw(points: np.ndarray) -> np.ndarray:
        values = sample(data, jacobian.affine, points, outside=1.0)
        pixels = colours(norm(np.clip(values, 1e-3, None)), bytes=True)[..., :3]
        return np.where((sample(mask_data, mask_affine, points) > 0.5)[..., None], pixels, np.uint8(0))

    body = [mosaic.raster(draw)]
    outline = mosaic.contours(lambda points: sample(mask_data, mask_affine, points), [0.5])
    body.append(line_element(outline, "#404040", extra='style="stroke-width:.9px"'))
    for group, field in [] if dseg is None else group_fields(dseg, names=OUTLINES):
        body.append(
            line_element(mosaic.contours(field, [0.5]), "#404040", group.name, extra='stroke-opacity=".75"')
        )
    body += _rings(jacobian.affine, (data <= 0) & inside, mosaic, box)
    body += [_colour_bar(limit, caption), _folding_note(folding, int(inside.sum())), mosaic.marks()]
    return document(
        body, height=mosaic.height, label="Jacobian determinant of the deformation", kind="hp-jacobian"
    )


def _on_grid(mask: np.ndarray, affine: np.ndarray, like: nib.Nifti1Image) -> np.ndarray:
    """Bring a mask, as booleans, onto the grid of another image."""
    if mask.shape == like.shape and np.allclose(affine, like.affine, atol=1e-4):
        return mask > 0
    voxels = np.moveaxis(np.indices(like.shape), 0, -1)
    return sample(mask, affine, apply_affine(like.affine, voxels), order=0) > 0


def _through_folds(mosaic: Mosaic, folding: Folding) -> Mosaic:
    """Move the plane nearest to the most folded place of each axis onto it."""
    if folding.worst is None:
        return mosaic
    rows = []
    for row in mosaic.rows:
        worst = folding.worst[row[0].axis]
        nearest = min(row, key=lambda plane: abs(plane.position - worst.position))
        rows.append(tuple(worst if plane is nearest else plane for plane in row))
    return Mosaic(mosaic.box, tuple(rows), top=mosaic.top)


def _rings(affine: np.ndarray, folded: np.ndarray, mosaic: Mosaic, box: Box, *, most: int = 60) -> list[str]:
    """Rings around folded voxels within 1 mm of a plane, at most ``most`` per plane."""
    if not folded.any():
        return []
    points = apply_affine(affine, np.argwhere(folded))
    elements = []
    for cell in mosaic.cells():
        near = points[np.abs(points[:, cell.plane.axis] - cell.plane.position) <= 1.0][:most]
        for x, y in _to_units(near, cell, box):
            elements.append(_ring(x, y))
    return elements


def _ring(x: float, y: float) -> str:
    """Draw a yellow ring with a black rim, seen on every colour of the map."""
    return RING.format(x=x, y=y, colour="#000000", width=4) + RING.format(
        x=x, y=y, colour=FOLD_COLOUR, width=1.8
    )


def _to_units(points: np.ndarray, cell: Cell, box: Box) -> np.ndarray:
    """Figure units (N, 2) of world points in a cell's plane."""
    right, up = IN_PLANE_AXES[cell.plane.axis]
    x = cell.x + (points[:, right] - box.low[right]) / box.extent(right) * cell.width
    y = cell.y + (box.high[up] - points[:, up]) / box.extent(up) * cell.height
    return np.stack([x, y], axis=-1)


def _colour_bar(limit: float, caption: str) -> str:
    """Colour bar with ticks, at the upper right."""
    left, width = WIDTH - 400, 240
    strip = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 240)[None].repeat(4, 0), bytes=True)[..., :3]
    elements = [
        f'<text x="{left - 10}" y="15" text-anchor="end">{escape(caption)}</text>',
        f'<image x="{left}" y="4" width="{width}" height="11" preserveAspectRatio="none" '
        f'href="{jpeg_uri(strip)}"/>',
    ]
    ticks = [(1 / limit, f"≤ {1 / limit:.2f}"), (1.0, "1"), (limit, f"≥ {limit:g}")]
    if limit == JACOBIAN_LIMIT:
        ticks = [(1 / limit, "≤ ⅓"), (0.5, "½"), (1.0, "1"), (2.0, "2"), (limit, "≥ 3")]
    for value, text in ticks:
        x = left + width * float(LogNorm(1 / limit, limit)(value))
        elements.append(f'<text x="{x:.0f}" y="27" text-anchor="middle">{text}</text>')
    return "\n".join(elements)


def _folding_note(folding: Folding, total: int) -> str:
    """Words and the ring's legend, at the upper left."""
    if folding.count == 0:
        return '<text x="8" y="20">No folded voxel (|J| ≤ 0) inside the mask</text>'
    share = 100 * folding.count / max(total, 1)
    text = f"{folding.count} folded voxels (|J| ≤ 0), {share:.3g} % of the mask"
    return f'{_ring(14, 16)}<text x="26" y="20">{text}</text>'


class _JacobianMapOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class _JacobianMapInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="Jacobian determinant in template space")
    reference_mask = File(exists=True, desc="brain mask of the template")
    reference_dseg = File(exists=True, desc="structures of the template, FreeSurfer numbers")
    limit = traits.Range(
        low=1.01, value=JACOBIAN_LIMIT, usedefault=True, desc="colour scale: from 1 / this to this"
    )
    caption = traits.Str(CAPTION, usedefault=True, desc="what the colours mean")
    out_file = File("jacobian.svg", usedefault=True, desc="name of the figure")


class JacobianMap(SimpleInterface):
    """Jacobian determinant on a diverging log scale, with folded voxels ringed."""

    input_spec = _JacobianMapInputSpec
    output_spec = _JacobianMapOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        svg = draw_jacobian(
            nib.load(inputs.in_file),
            mask=nib.load(inputs.reference_mask) if isdefined(inputs.reference_mask) else None,
            dseg=nib.load(inputs.reference_dseg) if isdefined(inputs.reference_dseg) else None,
            limit=inputs.limit,
            caption=inputs.caption,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime
