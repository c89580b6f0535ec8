"""Where a scan and the template have no match: z-scores over the scan, and the regions as a table."""

from collections.abc import Callable
from html import escape

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import WIDTH, Mosaic, document, jpeg_uri, line_element
from hyperprep.interfaces.reportlets.slices import Plane, bounding_box, sample, to_grey

COUNTS = (4, 5, 5)
"""Sagittal, coronal and axial planes."""

SCALE = (2.0, 8.0)
"""z-scores at which the colours begin and end; the same in every report."""

CALIBRATED, UNCALIBRATED = "z-score against controls", "score in nats, not calibrated: no controls"
"""What the colours mean."""

COLOUR_MAP = "inferno"
OUTLINE = "#3ddbd9"
ROWS = 12
"""Most regions listed in the figure; the TSV has all."""

ROW_HEIGHT = 19
COLUMNS = ((10, "Region"), (90, "Volume mm³"), (200, "Centre x, y, z mm"), (360, "Peak"), (430, "Structures"))
DIRECTION = (1060, "Direction")


def draw_topology(
    scan: nib.Nifti1Image,
    values: nib.Nifti1Image,
    *,
    regions: nib.Nifti1Image | None = None,
    rows: pd.DataFrame | None = None,
    mask: nib.Nifti1Image | None = None,
    calibrated: bool = True,
) -> str:
    """SVG of a topology-change map over a scan, with its regions outlined and listed.

    Parameters
    ----------
    scan
        The scan.
    values
        z-scores on its grid, or scores in nats where ``calibrated`` is False.
    regions
        Mask of the regions on the same grid.
    rows
        Their table: columns of the TSV.
    mask
        Brain mask.
    calibrated
        Whether the values are z-scores against controls.

    Returns
    -------
    The SVG document.
    """
    box = bounding_box(mask if mask is not None else scan)
    mosaic = _through_largest(Mosaic.of(box, counts=COUNTS), rows)
    limits = mosaic.limits(scan, mask)
    low, high = SCALE if calibrated else own_scale(values)
    draw = painter(scan, limits, values, (low, high))
    body = [mosaic.raster(draw)]
    if regions is not None:
        inside = (np.asanyarray(regions.dataobj) > 0).astype(np.float32)
        lines = mosaic.contours(lambda points: sample(inside, regions.affine, points), [0.5])
        body.append(line_element(lines, OUTLINE, "Region"))
    body += [colour_bar(low, high, title=CALIBRATED if calibrated else UNCALIBRATED), mosaic.marks()]
    listed, height = region_table(rows, mosaic.height) if rows is not None else ([], mosaic.height)
    return document([*body, *listed], height=height, label="Topology change", kind="hp-topology")


def painter(
    scan: nib.Nifti1Image, limits: tuple[float, float], values: nib.Nifti1Image, scale: tuple[float, float]
) -> Callable[[np.ndarray], np.ndarray]:  # fmt: skip
    """Make what draws a scan in grey with a map blended in where it is high: world points to RGB uint8."""
    data, found_in = (np.nan_to_num(np.asanyarray(i.dataobj, dtype=np.float32)) for i in (scan, values))
    low, high = scale
    colours, norm = matplotlib.colormaps[COLOUR_MAP], Normalize(low, high)

    def draw(points: np.ndarray) -> np.ndarray:
        grey = to_grey(sample(data, scan.affine, points), limits).astype(np.float32)[..., None]
        found = sample(found_in, values.affine, points)
        strength = np.clip((found - low) / (0.25 * (high - low)), 0, 0.85)[..., None]
        painted = colours(0.25 + 0.75 * np.clip(norm(found), 0, 1), bytes=True)[..., :3]
        return np.rint(grey * (1 - strength) + painted * strength).astype(np.uint8)

    return draw


def own_scale(values: nib.Nifti1Image) -> tuple[float, float]:
    """Give where colours begin and end on a map without a scale: its 80 and 99.9 % quantiles."""
    data = np.nan_to_num(np.asanyarray(values.dataobj, dtype=np.float32))
    held = data[data != 0]
    if held.size < 2:
        return 0.0, 1.0
    low, high = np.quantile(held, [0.8, 0.999])
    return float(low), float(max(high, low + 1e-3))


def _through_largest(mosaic: Mosaic, rows: pd.DataFrame | None) -> Mosaic:
    """Move the plane nearest to the largest region's peak onto it, in each row."""
    if rows is None or rows.empty:
        return mosaic
    moved = []
    for row in mosaic.rows:
        axis = row[0].axis
        peak = Plane(axis, float(rows.iloc[0][f"peak_{'xyz'[axis]}_mm"]))
        nearest = min(row, key=lambda plane: abs(plane.position - peak.position))
        moved.append(tuple(peak if plane is nearest else plane for plane in row))
    return Mosaic(mosaic.box, tuple(moved), top=mosaic.top)


def colour_bar(low: float, high: float, *, title: str) -> str:
    """Draw the scale of the colours at the upper right."""
    left, width = WIDTH - 330, 240
    strip = matplotlib.colormaps[COLOUR_MAP](np.linspace(0.25, 1, 240)[None].repeat(4, 0), bytes=True)[
        ..., :3
    ]
    elements = [
        f'<text x="{left - 10}" y="15" text-anchor="end">{title}</text>',
        f'<image x="{left}" y="4" width="{width}" height="11" preserveAspectRatio="none" '
        f'href="{jpeg_uri(strip)}"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        text = f"≥ {value:.3g}" if share == 1 else f"{value:.3g}"
        elements.append(f'<text x="{left + share * width:.0f}" y="27" text-anchor="middle">{text}</text>')
    return "\n".join(elements)


def region_table(rows: pd.DataFrame, top: float) -> tuple[list[str], float]:
    """List the largest regions below the planes; gives the elements and the figure's height."""
    y = top + 24
    if rows.empty:
        return [f'<text x="10" y="{y:.0f}">No region above the threshold</text>'], y + 12
    columns = [*COLUMNS, DIRECTION] if "direction" in rows else list(COLUMNS)
    elements = [f'<text class="side" x="{x}" y="{y:.0f}">{title}</text>' for x, title in columns]
    for _, row in rows.head(ROWS).iterrows():
        y += ROW_HEIGHT
        structures = str(row["structures"]) if isinstance(row["structures"], str) else ""
        cells = [
            f"{row['index']:.0f}",
            f"{row['volume_mm3']:.0f}",
            ", ".join(f"{row[f'{axis}_mm']:.0f}" for axis in "xyz"),
            f"{row['peak']:.1f}",
            structures if len(structures) < 95 else structures[:92] + "...",
        ]
        cells += [str(row["direction"])] if "direction" in rows else []
        elements += [
            f'<text x="{x}" y="{y:.0f}">{escape(text)}</text>'
            for (x, _), text in zip(columns, cells, strict=True)
        ]
    if len(rows) > ROWS:
        y += ROW_HEIGHT
        elements.append(f'<text x="10" y="{y:.0f}">and {len(rows) - ROWS} smaller ones in the TSV</text>')
    return elements, y + 12


class _TopologyMapInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan")
    score = File(exists=True, mandatory=True, desc="score on the scan's grid, nats; shown without z-scores")
    z = File(exists=True, desc="z-scores against controls on the scan's grid")
    regions = File(exists=True, desc="mask of the regions")
    table = File(exists=True, desc="TSV of the regions")
    in_mask = File(exists=True, desc="brain mask of the scan")
    out_file = File("topology.svg", usedefault=True, desc="name of the figure")


class _TopologyMapOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")
    count = traits.Int(desc="regions listed in the table")


class TopologyMap(SimpleInterface):
    """Topology-change map over the scan, with outlines and a table of the regions."""

    input_spec = _TopologyMapInputSpec
    output_spec = _TopologyMapOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        calibrated = isdefined(inputs.z)
        rows = pd.read_csv(inputs.table, sep="\t", na_values=["n/a"]) if isdefined(inputs.table) else None
        svg = draw_topology(
            nib.load(inputs.in_file),
            nib.load(inputs.z if calibrated else inputs.score),
            regions=nib.load(inputs.regions) if isdefined(inputs.regions) else None,
            rows=rows,
            mask=nib.load(inputs.in_mask) if isdefined(inputs.in_mask) else None,
            calibrated=calibrated,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        self._results["count"] = 0 if rows is None else len(rows)
        return runtime
