"""Small line plots drawn directly as SVG, for figures whose parts move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Plot:
    """One small plot against lambda in [0, 1].

    Attributes
    ----------
    x, y, width, height
        Place of the axes' rectangle, figure units.
    label
        What is drawn.
    top
        Value at the upper edge; the lower one is ``bottom``.
    bottom
        Value at the lower edge.

    Examples
    --------
    >>> plot = Plot(100, 50, 200, 100, "Dice", top=1.0)
    >>> plot.place(0.5, 0.25)
    (200.0, 125.0)
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    top: float
    bottom: float = 0.0

    def place(self, lam: float, value: float) -> tuple[float, float]:
        """Figure units of a point; values beyond the axes are put onto their edge."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return self.x + lam * self.width, self.y + (1 - min(max(share, 0.0), 1.0)) * self.height

    def frame(self, *, lam_ticks: bool) -> str:
        """Axes, two ticks upwards and, on request, those of lambda below."""
        right, low = self.x + self.width, self.y + self.height
        elements = [
            f'<path d="M{self.x:.0f} {self.y:.0f}V{low:.0f}H{right:.0f}" fill="none" stroke="#8a949c"/>',
            f'<text x="{self.x:.0f}" y="{self.y - 7:.0f}">{escape(self.label)}</text>',
        ]
        for value, y in ((self.top, self.y + 5), (self.bottom, low + 4)):
            elements.append(f'<text x="{self.x - 6:.0f}" y="{y:.0f}" text-anchor="end">{value:.2g}</text>')
        for lam in (0.0, 0.25, 0.5, 0.75, 1.0) if lam_ticks else ():
            elements.append(
                f'<text x="{self.x + lam * self.width:.0f}" y="{low + 17:.0f}" text-anchor="middle">'
                f"{lam:g}</text>"
            )
        return "\n".join(elements)

    def line(self, lams: Sequence[float], values: Sequence[float], colour: str, *, width: float = 2.0) -> str:
        """Draw a line through all finite values."""
        points = [self.place(a, b) for a, b in zip(lams, values, strict=True) if np.isfinite(b)]
        data = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline points="{data}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'

    def cursor(self, lam: float, value: float, colour: str) -> str:
        """Draw a vertical line at lambda, with a dot and the value at the curve."""
        x, y = self.place(lam, value if np.isfinite(value) else self.bottom)
        elements = [
            f'<path d="M{x:.1f} {self.y:.0f}V{self.y + self.height:.0f}" stroke="{colour}" '
            'stroke-width="1.5" fill="none"/>'
        ]
        if np.isfinite(value):
            left = lam > 0.75
            elements.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
                f'<text class="title" x="{x + (-9 if left else 9):.1f}" y="{max(y - 8, self.y + 12):.1f}" '
                f'text-anchor="{"end" if left else "start"}">{value:.3g}</text>'
            )
        return "".join(elements)
