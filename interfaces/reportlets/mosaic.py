"""Rows of planes as one small SVG: rasters as JPEG, everything drawn on them as vectors and text.

Figure units: the mosaic is ``WIDTH`` units wide and scales with the page. No element has an ``id``, so any
number of mosaics can stand in one HTML document.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape

import contourpy
import nibabel as nib
import numpy as np
from matplotlib.path import Path as Polyline
from PIL import Image

from hyperprep.interfaces.reportlets.slices import (
    IN_PLANE_AXES,
    Box,
    Plane,
    plane_points,
    sample,
    spread_planes,
    window,
)

WIDTH = 1200.0
ROW_GAP = 3.0
HEADER = 30.0

STYLE = """\
.hp-fig text { font-family: 'Helvetica Neue', Helvetica, Arial, sans-serif; fill: #f2f2f2; font-size: 12px;
  stroke: #000000; stroke-width: 2.5px; paint-order: stroke; }
.hp-fig .side { fill: #ffd27f; font-weight: bold; font-size: 11px; }
.hp-fig .title { font-size: 16px; font-weight: bold; fill: #ffffff; }
.hp-fig .line { fill: none; stroke-width: 1.2px; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
"""


@dataclass(frozen=True)
class Cell:
    """One plane's place in the mosaic.

    Attributes
    ----------
    plane
        What is shown.
    x, y
        Upper left corner, figure units.
    width, height
        Size, figure units.
    """

    plane: Plane
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Mosaic:
    """Rows of planes through one box.

    Attributes
    ----------
    box
        What part of the world is shown.
    rows
        Planes of each row; a row holds planes of one axis and is ``WIDTH`` units wide.
    top
        Where the first row begins, figure units.
    """

    box: Box
    rows: tuple[tuple[Plane, ...], ...]
    top: float = HEADER

    @classmethod
    def of(
        cls, box: Box, *, counts: tuple[int, int, int] = (5, 6, 6), top: float = HEADER, rim: float = 0.2
    ) -> Mosaic:
        """Axial, coronal and sagittal rows.

        Parameters
        ----------
        box
            What part of the world is shown.
        counts
            Planes along x, y and z; no row where it is 0.
        top
            Where the first row begins, figure units.
        rim
            Share of the box beyond the first and the last plane.

        Examples
        --------
        >>> mosaic = Mosaic.of(Box((-70.0, -100.0, -60.0), (70.0, 70.0, 80.0)), counts=(3, 4, 4))
        >>> [len(row) for row in mosaic.rows], round(mosaic.height)
        ([4, 4, 3], 1030)
        """
        rows = (spread_planes(box, axis, counts[axis], rim=rim) for axis in (2, 1, 0) if counts[axis])
        return cls(box, tuple(rows), top=top)

    def cells(self) -> Iterator[Cell]:
        """Cells, row after row."""
        y = self.top
        for row in self.rows:
            right, up = IN_PLANE_AXES[row[0].axis]
            width = WIDTH / len(row)
            height = width * self.box.extent(up) / self.box.extent(right)
            for column, plane in enumerate(row):
                yield Cell(plane, column * width, y, width, height)
            y += height + ROW_GAP

    @property
    def height(self) -> float:
        """Lower edge of the last row, figure units."""
        last = list(self.cells())[-1]
        return last.y + last.height

    def raster(self, draw: Callable[[np.ndarray], np.ndarray], *, spacing: float = 1.0) -> str:
        """One image element per row.

        Parameters
        ----------
        draw
            World points (rows, columns, 3) to grey levels (rows, columns) or colours (rows, columns, 3),
            uint8.
        spacing
            Distance between pixels, mm.
        """
        elements = []
        cells = iter(self.cells())
        for row in self.rows:
            first = next(cells)
            for _ in row[1:]:
                next(cells)
            pixels = np.concatenate([draw(plane_points(plane, self.box, spacing)) for plane in row], axis=1)
            elements.append(
                f'<image x="0" y="{first.y:.1f}" width="{WIDTH:.0f}" height="{first.height:.1f}" '
                f'preserveAspectRatio="none" href="{jpeg_uri(pixels)}"/>'
            )
        return "\n".join(elements)

    def contours(
        self, field: Callable[[np.ndarray], np.ndarray], levels: Iterable[float], *, spacing: float = 1.0
    ) -> str:
        """Path data (tenths of a unit) of the level lines of a field in every cell.

        Parameters
        ----------
        field
            World points (rows, columns, 3) to values (rows, columns); NaN where there are none.
        levels
            Values along which lines run.
        spacing
            Distance between samples, mm.
        """
        return "".join(
            path_data(field(plane_points(cell.plane, self.box, spacing)), levels, cell)
            for cell in self.cells()
        )

    def limits(
        self,
        img: nib.Nifti1Image,
        mask: nib.Nifti1Image | None = None,
        *,
        low: float = 0.5,
        high: float = 99.7,
    ) -> tuple[float, float]:
        """Grey-level window of an image from what the mosaic shows, inside the brain where one is known.

        Scalp and eyes of a whole head would otherwise leave few grey levels to the brain.

        Parameters
        ----------
        img
            The image.
        mask
            Brain mask in the same space, on any grid. Where it holds nothing of the image, all counts.
        low, high
            Percentiles.
        """
        data = np.nan_to_num(np.asanyarray(img.dataobj, dtype=np.float32), posinf=0.0, neginf=0.0)
        points = [plane_points(cell.plane, self.box, 2.0).reshape(-1, 3) for cell in self.cells()]
        places = np.concatenate(points)
        values = sample(data, img.affine, places)
        if mask is not None:
            inside = sample(np.asanyarray(mask.dataobj).astype(np.float32), mask.affine, places) > 0.5
            inside &= values > 0
            if inside.any():
                return window(values, inside, low=low, high=high)
        return window(values, low=low, high=high)

    def marks(self) -> str:
        """Position of every plane and the letters of its sides."""
        elements = []
        for cell in self.cells():
            left, right = ("P", "A") if cell.plane.axis == 0 else ("L", "R")
            upper = cell.y + 14
            elements += [
                f'<text x="{cell.x + 6:.0f}" y="{cell.y + cell.height - 7:.0f}">{cell.plane.label}</text>',
                f'<text class="side" x="{cell.x + 5:.0f}" y="{upper:.0f}">{left}</text>',
                f'<text class="side" x="{cell.x + cell.width - 5:.0f}" y="{upper:.0f}" '
                f'text-anchor="end">{right}</text>',
            ]
        return "\n".join(elements)


def jpeg_uri(pixels: np.ndarray, *, quality: int = 88) -> str:
    """Grey (H, W) or RGB (H, W, 3) uint8 pixels as a data URI.

    Examples
    --------
    >>> jpeg_uri(np.zeros((4, 4), np.uint8))[:30]
    'data:image/jpeg;base64,/9j/4AA'
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def path_data(values: np.ndarray, levels: Iterable[float], cell: Cell) -> str:
    """Level lines of a sampled field as SVG path data, in tenths of a figure unit.

    Parameters
    ----------
    values
        (rows, columns), first row on top.
    levels
        Values along which lines run.
    cell
        Where the samples lie in the figure.

    Examples
    --------
    >>> path_data(np.array([[0.0, 1.0], [0.0, 1.0]]), [0.5], Cell(Plane(2, 0.0), 0.0, 0.0, 20.0, 20.0))
    'M100 150l0-100'
    """
    rows, columns = values.shape
    if min(rows, columns) < 2:
        return ""
    x = 10 * (cell.x + (np.arange(columns) + 0.5) * cell.width / columns)
    y = 10 * (cell.y + (np.arange(rows) + 0.5) * cell.height / rows)
    generator = contourpy.contour_generator(x, y, np.ma.masked_invalid(values))
    parts = []
    for level in levels:
        for line in generator.lines(level):
            points = np.rint(_simplified(np.asarray(line))).astype(int)
            steps = np.diff(points, axis=0)
            steps = steps[np.any(steps != 0, axis=1)]
            if len(steps) == 0:
                continue
            moves = " ".join(f"{dx} {dy}" for dx, dy in steps).replace(" -", "-")
            parts.append(f"M{points[0, 0]} {points[0, 1]}l{moves}")
    return "".join(parts)


def _simplified(line: np.ndarray) -> np.ndarray:
    """Return a polyline without the points that matter by less than 0.3 of a unit; (N, 2) tenths."""
    polyline = Polyline(line)
    polyline.simplify_threshold = 3.0
    cleaned = polyline.cleaned(simplify=True)
    return np.asarray(cleaned.vertices)[np.asarray(cleaned.codes) != Polyline.STOP]


def line_element(data: str, colour: str, title: str = "", *, kind: str = "", extra: str = "") -> str:
    """Draw a coloured line from the path data of :func:`path_data`; nothing when the data are empty.

    ``kind`` is a further class of the element, ``extra`` are further attributes.

    Examples
    --------
    >>> line_element("M0 0l5 5", "#fff", "Thalamus")
    '<path class="line" transform="scale(.1)" stroke="#fff" d="M0 0l5 5"><title>Thalamus</title></path>'
    >>> line_element("", "#fff")
    ''
    """
    if not data:
        return ""
    tooltip = f"<title>{escape(title)}</title>" if title else ""
    more = f" {extra}" if extra else ""
    name = f"line {kind}".strip()
    return f'<path class="{name}" transform="scale(.1)" stroke="{colour}"{more} d="{data}">{tooltip}</path>'


def document(body: Iterable[str], *, height: float, label: str, kind: str = "", style: str = "") -> str:
    """Write a complete SVG file; its opening tag stands alone on the first line.

    Parameters
    ----------
    body
        Elements.
    height
        Figure units.
    label
        What the figure shows, for screen readers.
    kind
        Further class of the root element.
    style
        Further style rules.
    """
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'class="{f"hp-fig {kind}".strip()}" role="img" aria-label="{escape(label)}" '
        'preserveAspectRatio="xMidYMid meet">'
    )
    content = [opening, f"<style>\n{STYLE}{style}</style>"]
    content.append(f'<rect x="0" y="0" width="{WIDTH:.0f}" height="{height:.0f}" fill="#000000"/>')
    return "\n".join([*content, *body, "</svg>"]) + "\n"
