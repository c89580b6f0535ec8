"""The registration at every lambda: image, outlines, grid, Jacobian and curve move together.

The figure is one SVG with a layer per lambda, of which one is shown; the report's page gives it a slider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from nibabel.affines import apply_affine
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined

from hyperprep.interfaces.reportlets.alignment import GUIDES, REFERENCE_COLOUR, SCAN_COLOUR, save_report
from hyperprep.interfaces.reportlets.curve import Curve
from hyperprep.interfaces.reportlets.jacobian import COLOUR_MAP, JACOBIAN_LIMIT
from hyperprep.interfaces.reportlets.mosaic import (
    WIDTH,
    Cell,
    document,
    jpeg_uri,
    line_element,
    path_data,
)
from hyperprep.interfaces.reportlets.plots import Plot
from hyperprep.interfaces.reportlets.slices import (
    IN_PLANE_AXES,
    Box,
    Plane,
    bounding_box,
    plane_points,
    sample,
    to_grey,
    window,
)
from hyperprep.interfaces.reportlets.structures import group_fields
from hyperprep.models.spatial.measures import jacobian_determinant
from hyperprep.models.spatial.sweep import LambdaSweep

IMAGE_WIDTH = 830.0
"""Figure units that the three planes share; the curves stand to the right of them."""

CENTRE = np.array([14.0, -18.0, 8.0])
"""Where the planes meet (template frame, RAS mm): thalamus, hippocampus and lateral ventricle are cut."""

TOP, GAP = 30.0, 26.0
GRID_DISTANCE = 8.0
CURSOR, CURVE, SINGLE = "#ffa630", "#5cc8ff", "#5d6a73"

WORDS = {
    "dice_all": "Dice {:.3f}",
    "similarity": "similarity {:.3f}",
    "sd_log_jacobian": "SD of log |J| {:.3f}",
    "folding_percent": "folded {:.2g} %",
}
"""What a step's line of words says, where it was measured."""

STYLE = """\
.hp-slider .step { display: none; }
.hp-slider .step.on { display: inline; }
.hp-slider.no-outlines .outline, .hp-slider.no-grid .grid { display: none; }
"""


@dataclass(frozen=True)
class Pair:
    """The two images of a registration and what is known of them.

    Attributes
    ----------
    fixed, moving
        The images.
    fixed_mask
        Brain mask of the fixed image.
    fixed_dseg, moving_dseg
        Structures, FreeSurfer numbers.
    """

    fixed: nib.Nifti1Image
    moving: nib.Nifti1Image
    fixed_mask: nib.Nifti1Image | None = None
    fixed_dseg: nib.Nifti1Image | None = None
    moving_dseg: nib.Nifti1Image | None = None


def draw_slider(sweep: LambdaSweep, curve: Curve, pair: Pair) -> str:
    """SVG with one layer per lambda; the chosen one is shown.

    Parameters
    ----------
    sweep
        The registrations.
    curve
        Their figures; the rows nearest in lambda are shown.
    pair
        Images and structures.

    Returns
    -------
    The SVG document: a ``g.step`` per lambda with ``data-lam`` and ``data-label``.
    """
    box = bounding_box(pair.fixed_mask if pair.fixed_mask is not None else pair.fixed)
    upper = _side_by_side(sweep, box, TOP)
    lower = _side_by_side(sweep, box, TOP + max(cell.height for cell in upper) + GAP)
    bottom = max(cell.y + cell.height for cell in lower)
    plots = _plots(curve, bottom)
    scene = _Scene(sweep, pair, box, upper, lower)
    shown = sweep.nearest(curve.chosen)
    body = []
    for step, lam in enumerate(sweep.lam):
        row = curve.table.iloc[int((curve.table["lam"] - lam).abs().argmin())]
        label = describe(row)
        state, mark = ("step on", ' data-chosen=""') if step == shown else ("step", "")
        body += [
            f'<g class="{state}" data-lam="{lam:g}" data-label="{escape(label)}"{mark}>',
            *scene.draw(step),
            *(plot.cursor(float(lam), float(row.get(key, np.nan)), CURSOR) for key, plot in plots.items()),
            f'<text class="title" x="8" y="21">{escape(label)}</text>',
            "</g>",
        ]
    body += scene.guides()
    body += [_frames(plots, curve), _words(upper, lower)]
    return document(
        body, height=bottom + 6, label="Registration at every lambda", kind="hp-slider", style=STYLE
    )


def describe(row: pd.Series) -> str:
    """Put one row of the curve into words.

    Examples
    --------
    >>> describe(pd.Series({"lam": 0.4, "dice_all": 0.7312, "sd_log_jacobian": 0.2, "folding_percent": 0.0}))
    'λ = 0.40 · Dice 0.731 · SD of log |J| 0.200 · folded 0 %'
    """
    parts = [f"λ = {row['lam']:.2f}"]
    for key, text in WORDS.items():
        value = float(row.get(key, np.nan))
        if np.isfinite(value):
            parts.append(text.format(value))
    return " · ".join(parts)


def _side_by_side(sweep: LambdaSweep, box: Box, top: float) -> list[Cell]:
    """Axial, coronal and sagittal plane in one row, all at the same scale."""
    centre = apply_affine(sweep.frame2fixed, CENTRE)
    extents = [[box.extent(axis) for axis in IN_PLANE_AXES[normal]] for normal in (2, 1, 0)]
    scale = IMAGE_WIDTH / sum(right for right, _ in extents)
    cells, x = [], 0.0
    for normal, (right, up) in zip((2, 1, 0), extents, strict=True):
        cells.append(Cell(Plane(normal, float(centre[normal])), x, top, right * scale, up * scale))
        x += right * scale
    return cells


class _Scene:
    """The three planes above (image) and below (volume change and grid), at any step."""

    def __init__(
        self, sweep: LambdaSweep, pair: Pair, box: Box, upper: Sequence[Cell], lower: Sequence[Cell]
    ) -> None:
        self.sweep, self.pair, self.box, self.upper, self.lower = sweep, pair, box, upper, lower
        self.points = [plane_points(cell.plane, box, 1.0) for cell in upper]
        self.image = np.nan_to_num(np.asanyarray(pair.moving.dataobj, dtype=np.float32))
        self.inside = [
            np.ones(points.shape[:2], bool)
            if pair.fixed_mask is None
            else _membership(pair.fixed_mask)(points) > 0.5
            for points in self.points
        ]
        self.limits = self._limits()
        self.fields = [] if pair.moving_dseg is None else list(group_fields(pair.moving_dseg, names=GUIDES))

    def _limits(self) -> tuple[float, float]:
        step = self.sweep.nearest(1.0)
        values = [
            self._moved(points, step)[inside] for points, inside in zip(self.points, self.inside, strict=True)
        ]
        return window(np.concatenate(values), low=0.5, high=99.7)

    def _moved(self, points: np.ndarray, step: int) -> np.ndarray:
        return sample(self.image, self.pair.moving.affine, self.sweep.to_moving(points, step))

    def draw(self, step: int) -> list[str]:
        """Give the elements of one step."""
        determinant = jacobian_determinant(self.sweep.field(step))
        to_frame = np.linalg.inv(self.sweep.frame2fixed)
        colours, norm = matplotlib.colormaps[COLOUR_MAP], LogNorm(1 / JACOBIAN_LIMIT, JACOBIAN_LIMIT)
        elements, lines, outlines = [], "", dict.fromkeys((group.name for group, _ in self.fields), "")
        for points, inside, upper, lower in zip(
            self.points, self.inside, self.upper, self.lower, strict=True
        ):
            elements.append(_image(to_grey(self._moved(points, step), self.limits), upper))
            values = sample(determinant, self.sweep.grid.affine, apply_affine(to_frame, points), outside=1.0)
            pixels = colours(norm(np.clip(values, 1e-3, None)), bytes=True)[..., :3]
            elements.append(_image(np.where(inside[..., None], pixels, np.uint8(0)), lower))
            moved = self.sweep.deform(points, step)
            for axis in IN_PLANE_AXES[lower.plane.axis]:
                first = np.ceil(self.box.low[axis] / GRID_DISTANCE) * GRID_DISTANCE
                levels = np.arange(first, self.box.high[axis], GRID_DISTANCE)
                lines += path_data(np.where(inside, moved[..., axis], np.nan), levels, lower)
            there = self.sweep.to_moving(points, step)
            for group, field in self.fields:
                outlines[group.name] += path_data(field(there), [0.5], upper)
        elements += [
            line_element(data, SCAN_COLOUR, f"{name} of the scan", kind="outline")
            for name, data in outlines.items()
        ]
        elements.append(line_element(lines, "#303030", kind="grid", extra='style="stroke-width:.8px"'))
        return elements

    def guides(self) -> list[str]:
        """Outlines of the fixed image, which stay."""
        elements = []
        if self.pair.fixed_dseg is not None:
            for group, field in group_fields(self.pair.fixed_dseg, names=GUIDES):
                data = "".join(
                    path_data(field(points), [0.5], cell)
                    for points, cell in zip(self.points, self.upper, strict=True)
                )
                elements.append(
                    line_element(data, REFERENCE_COLOUR, f"{group.name} of the template", kind="outline")
                )
        return elements


def _membership(mask: nib.Nifti1Image) -> Callable[[np.ndarray], np.ndarray]:
    data = np.asanyarray(mask.dataobj).astype(np.float32)
    return lambda points: sample(data, mask.affine, points)


def _image(pixels: np.ndarray, cell: Cell) -> str:
    return (
        f'<image x="{cell.x:.1f}" y="{cell.y:.1f}" width="{cell.width:.1f}" height="{cell.height:.1f}" '
        f'preserveAspectRatio="none" href="{jpeg_uri(pixels, quality=80)}"/>'
    )


def _plots(curve: Curve, bottom: float) -> dict[str, Plot]:
    """Axes of the curves that the table holds, one below the other."""
    wanted = (("dice_all", "Dice of scan and template"), ("similarity", "Image similarity"),
              ("sd_log_jacobian", "SD of log |J|"), ("folding_percent", "Folded voxels (%)"))  # fmt: skip
    held = [(key, text) for key, text in wanted if key in curve.table and curve.table[key].notna().any()]
    step = (bottom - TOP - 20) / max(len(held), 1)
    plots = {}
    for place, (key, text) in enumerate(held):
        values = curve.table[key].dropna()
        span = float(values.max() - values.min())
        if key in ("dice_all", "similarity"):
            drawn = values.tolist()
            if key == "dice_all":
                drawn += [value for _, column in curve.overlaps().items() for value in column.dropna()]
            low, high = min(drawn), max(drawn)
            edges = (np.floor(low * 20) / 20, max(np.ceil(high * 20) / 20, np.floor(low * 20) / 20 + 0.05))
        else:
            edges = (0.0, max(1.1 * float(values.max()), 0.1 if span < 1e-9 else 1e-3))
        y = TOP + place * step + 22
        plots[key] = Plot(IMAGE_WIDTH + 62, y, WIDTH - IMAGE_WIDTH - 100, step - 40, text, edges[1], edges[0])
    return plots


def _frames(plots: dict[str, Plot], curve: Curve) -> str:
    """Axes and curves; every region thin and grey under the mean."""
    lam = curve.table["lam"].tolist()
    elements = []
    for place, (key, plot) in enumerate(plots.items()):
        if key == "dice_all":
            elements += [
                plot.line(lam, column.tolist(), SINGLE, width=1) for _, column in curve.overlaps().items()
            ]
        elements += [
            plot.line(lam, curve.table[key].tolist(), CURVE),
            plot.frame(lam_ticks=place == len(plots) - 1),
        ]
    return "\n".join(elements)


def _words(upper: Sequence[Cell], lower: Sequence[Cell]) -> str:
    """Say what is shown, and on which side."""
    elements = []
    for cell in (*upper, *lower):
        left, right = ("P", "A") if cell.plane.axis == 0 else ("L", "R")
        y = cell.y + 14
        elements += [
            f'<text class="side" x="{cell.x + 5:.0f}" y="{y:.0f}">{left}</text>',
            f'<text class="side" x="{cell.x + cell.width - 5:.0f}" y="{y:.0f}" '
            f'text-anchor="end">{right}</text>',
            f'<text x="{cell.x + 6:.0f}" y="{cell.y + cell.height - 7:.0f}">{cell.plane.label}</text>',
        ]
    y = lower[0].y - 8
    elements.append(
        f'<text x="8" y="{y:.0f}">Below: change of volume (red: larger in the scan, blue: smaller) and the '
        f"scan&#8217;s grid, every {GRID_DISTANCE:g} mm</text>"
    )
    return "\n".join(elements)


class _LambdaSliderInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="registrations by lambda (NPZ)")
    lambda_curve = File(exists=True, mandatory=True, desc="TSV with their figures")
    reference_image = File(exists=True, mandatory=True, desc="image that stays: the template")
    reference_mask = File(exists=True, desc="brain mask of the reference")
    reference_dseg = File(exists=True, desc="structures of the reference, FreeSurfer numbers")
    moving_image = File(exists=True, mandatory=True, desc="image that is registered, own grid")
    moving_dseg = File(exists=True, desc="structures of the moving image, own grid")
    out_file = File("slider.svg", usedefault=True, desc="name of the figure")


class _LambdaSliderOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class LambdaSlider(SimpleInterface):
    """The registration at every lambda, one layer each; the report's page makes it move."""

    input_spec = _LambdaSliderInputSpec
    output_spec = _LambdaSliderOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        pair = Pair(
            nib.load(inputs.reference_image),
            nib.load(inputs.moving_image),
            *(
                nib.load(path) if isdefined(path) else None
                for path in (inputs.reference_mask, inputs.reference_dseg, inputs.moving_dseg)
            ),
        )
        svg = draw_slider(LambdaSweep.load(inputs.in_file), Curve.read(inputs.lambda_curve), pair)
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime
