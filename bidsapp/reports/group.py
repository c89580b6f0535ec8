"""One page for all sessions: a table that sorts by any figure, outliers marked, links to the participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from hyperprep import __version__
from hyperprep.bidsapp.reports.inline import require_self_contained
from hyperprep.interfaces.reportlets.quality import MEASURES, Measure, as_number, measure_of, warnings_of
from hyperprep.models.spatial.files import replacing

FEWEST = 5
"""Sessions below which no outlier is called."""

FAR = 3.0
"""Robust z beyond which a figure is an outlier."""

_FOLDER = Path(__file__).parent
_KEYS = ("participant_id", "session_id", "scan")
_STRIP = (120.0, 22.0)
_MOST_DOTS = 500
_BARS = 40


@dataclass(frozen=True)
class Cell:
    """One figure of one session.

    Attributes
    ----------
    value
        The number, or None.
    text
        What is written.
    far
        Robust z when it is beyond ``FAR``, else 0.
    beyond
        Whether the value is outside the limits of its measure.
    """

    value: float | None
    text: str
    far: float = 0.0
    beyond: bool = False


@dataclass(frozen=True)
class Column:
    """One figure of all sessions.

    Attributes
    ----------
    measure
        Name, unit, limits.
    cells
        One per session.
    known
        Whether the figure is among the key figures; the others are folded away at first.
    """

    measure: Measure
    cells: tuple[Cell, ...]
    known: bool

    def strip(self) -> str:
        """Small SVG with a dot per session, or bars for very many, and a line at the median."""
        points = [(number, cell) for number, cell in enumerate(self.cells) if cell.value is not None]
        width, height = _STRIP
        values = np.array([cell.value for _, cell in points], dtype=float)
        if values.size == 0:
            return ""
        low, high = float(values.min()), float(values.max())
        span = (high - low) or 1.0
        marks = self._bars(values) if len(points) > _MOST_DOTS else self._dots(points, low, high)
        middle = 5 + (width - 10) * (float(np.median(values)) - low) / span if high > low else width / 2
        return (
            f'<svg class="strip" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="Distribution: '
            f"{self.measure.text(low)} to {self.measure.text(high)}, "
            f'median {self.measure.text(np.median(values))}">'
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="1" y2="{height - 1:.0f}"/>{marks}</svg>'
        )

    @staticmethod
    def _dots(points: Sequence[tuple[int, Cell]], low: float, high: float) -> str:
        width, height = _STRIP
        dots = []
        for number, cell in points:
            x = 5 + (width - 10) * ((cell.value or 0.0) - low) / (high - low) if high > low else width / 2
            y = height / 2 + ((number * 7) % 9 - 4) * 1.4
            kind = ' class="far"' if cell.far or cell.beyond else ""
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" data-row="{number}"{kind}/>')
        return "".join(dots)

    @staticmethod
    def _bars(values: np.ndarray) -> str:
        width, height = _STRIP
        counts, _ = np.histogram(values, bins=_BARS)
        step = (width - 10) / _BARS
        tall = np.where(counts > 0, 1 + (height - 3) * counts / counts.max(), 0)
        return "".join(
            f'<rect x="{5 + step * place:.1f}" y="{height - 1 - bar:.1f}" width="{step:.1f}" '
            f'height="{bar:.1f}"/>'
            for place, bar in enumerate(tall)
            if bar
        )


def robust_z(values: Sequence[float | None]) -> list[float]:
    """Distances from the median in robust standard deviations (1.4826 times the median absolute deviation).

    Where more than half of the values are equal, the mean absolute deviation takes its place.

    Parameters
    ----------
    values
        Figures; None where there is none.

    Returns
    -------
    One z per value, 0 for missing ones and where fewer than ``FEWEST`` are there.

    Examples
    --------
    >>> [round(z, 2) for z in robust_z([1.0, 2.0, 3.0, 4.0, 100.0, None])]
    [-1.35, -0.67, 0.0, 0.67, 65.43, 0.0]
    >>> robust_z([1.0, 9.0])
    [0.0, 0.0]
    """
    known = np.array([value for value in values if value is not None], dtype=float)
    if known.size < FEWEST:
        return [0.0] * len(values)
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    if spread == 0:
        spread = 1.2533 * float(np.mean(np.abs(known - middle)))
    if spread == 0:
        return [0.0] * len(values)
    return [0.0 if value is None else (value - middle) / spread for value in values]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """All numeric figures, the key figures first; words are left out.

    Examples
    --------
    >>> columns = columns_of([{"participant_id": "sub-01", "dice_mean": 0.8, "register_refine": "ncc"}])
    >>> [column.measure.key for column in columns]
    ['dice_mean']
    """
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in _KEYS))
    ordered = [measure.key for measure in MEASURES if measure.key in keys]
    ordered += sorted(key for key in keys if key not in ordered)
    columns = []
    for key in ordered:
        values = [as_number(row.get(key)) for row in rows]
        if all(value is None for value in values):
            continue
        measure = measure_of(key)
        cells = tuple(
            Cell(
                value,
                "n/a" if value is None else f"{value:.{measure.decimals}f}",
                z if abs(z) > FAR else 0.0,
                measure.beyond(value),
            )
            for value, z in zip(values, robust_z(values), strict=True)
        )
        columns.append(Column(measure, cells, any(key == known.key for known in MEASURES)))
    return tuple(columns)


def marks_of(row: Mapping[str, Any], columns: Sequence[Column], number: int) -> int:
    """Count key figures that are outliers or outside their limits; a failed alignment adds one."""
    marked = sum(bool(c.cells[number].far or c.cells[number].beyond) for c in columns if c.known)
    return marked + (row.get("prealign_success") is False)


def _implausible(row: Mapping[str, Any]) -> list[str]:
    """Give a warning for each structure of implausible size."""
    remarks = row.get("volumes_remarks")
    found = remarks.split("; ") if isinstance(remarks, str) else []
    return [f"Implausible volume: {remark}. Look at the segmentation." for remark in found]


def write_group_page(rows: list[dict[str, Any]], out_html: Path, *, left_out: bool = False) -> Path:
    """Write the page of all sessions: complete, or not at all.

    Parameters
    ----------
    rows
        One per scan: ``participant_id``, ``session_id`` (``n/a`` without sessions), ``scan``, then figures.
    out_html
        The page; participants are linked to where their ``<participant_id>.html`` lies beside it.
    left_out
        Whether the rows hold the key figures only; the page then says where the others are.

    Returns
    -------
    The page.

    Raises
    ------
    OutputError
        The page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> page = write_group_page([{"participant_id": "sub-01"}], Path(tempfile.mkdtemp()) / "group.html")
    >>> "sub-01" in page.read_text()
    True
    """
    out_html = Path(out_html)
    columns = columns_of(rows)
    lines = []
    for number, row in enumerate(rows):
        cells = [column.cells[number] for column in columns]
        participant = str(row.get("participant_id", "n/a"))
        session = row.get("session_id")
        named = session is not None and session == session and str(session) != "n/a"
        lines.append(
            {
                "participant": participant,
                "session": str(session) if named else "",
                "scan": str(row.get("scan", "")),
                "page": f"{participant}.html" if (out_html.parent / f"{participant}.html").is_file() else "",
                "cells": cells,
                "marks": marks_of(row, columns, number),
                "warnings": warnings_of(row, _implausible(row)),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(_FOLDER)), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["raw_file"] = lambda name: (_FOLDER / name).read_text(encoding="utf-8")
    page = environment.get_template("group.tpl").render(
        lines=lines,
        columns=columns,
        version=__version__,
        with_sessions=any(line["session"] for line in lines),
        participants=len({line["participant"] for line in lines}),
        few=len(lines) < FEWEST,
        fewest=FEWEST,
        far=FAR,
        left_out=left_out,
    )
    require_self_contained(page, out_html)
    with replacing(out_html) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out_html
