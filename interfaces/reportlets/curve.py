"""Overlap and regularity against lambda, with the value that was taken."""

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec

from hyperprep.exceptions import ScanError
from hyperprep.interfaces.reportlets.alignment import save_report

INK = "#222222"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#9aa3ab"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hyperprep",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6e8",
}
REGULARITY = (
    ("sd_log_jacobian", "SD of log |J|", None),
    ("folding_percent", "Folded voxels (%)", 0.1),
)


@dataclass(frozen=True)
class Curve:
    """The table of a search for lambda.

    Attributes
    ----------
    table
        One row per lambda, sorted; numeric columns ``lam``, ``dice_<region>``, ``similarity``,
        ``sd_log_jacobian``, ``folding_percent`` as far as they are there.
    chosen
        The lambda that was taken.
    """

    table: pd.DataFrame
    chosen: float

    @classmethod
    def read(cls, path: str) -> "Curve":
        """Read a curve TSV.

        Raises
        ------
        ScanError
            There is no column ``lam`` or no row.
        """
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
        if "lam" not in table.columns or table.empty:
            raise ScanError(
                f"{path} is no lambda curve: it has the columns {', '.join(map(str, table.columns))} and "
                f"{len(table)} rows, but a column 'lam' and at least one row are needed."
            )
        marked = (
            table["chosen"].astype(str).str.lower().isin(["1", "1.0", "true"]) if "chosen" in table else None
        )
        numbers = table.drop(columns="chosen", errors="ignore").apply(pd.to_numeric, errors="coerce")
        rows = numbers[marked] if marked is not None and marked.any() else numbers.iloc[:1]
        return cls(numbers.sort_values("lam").reset_index(drop=True), float(rows["lam"].iloc[0]))

    def overlaps(self) -> pd.DataFrame:
        """Dice columns of single regions (without ``dice_all``), named by region."""
        names = [name for name in self.table.columns if name.startswith("dice_") and name != "dice_all"]
        return self.table[names].rename(columns=lambda name: name.removeprefix("dice_").replace("-", " "))

    def mean_overlap(self) -> pd.Series:
        """Mean Dice of all structures per lambda: the column ``dice_all``, else the mean of the regions."""
        if "dice_all" in self.table.columns:
            return self.table["dice_all"]
        return self.overlaps().mean(axis=1)


def draw_curve(curve: Curve) -> str:
    """SVG with overlap (or similarity) on the left, regularity on the right.

    Returns
    -------
    The SVG document; text stays text.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        left, upper, lower = figure.subplot_mosaic(
            [["fit", "sd"], ["fit", "fold"]], width_ratios=(1.25, 1)
        ).values()
        _draw_fit(left, curve)
        for axes, (name, label, limit) in zip((upper, lower), REGULARITY, strict=True):
            _draw_measure(axes, curve, name, label, limit)
        upper.tick_params(labelbottom=False)
        for axes in (left, lower):
            axes.set_xlabel("λ (smoother →)")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)


def _draw_fit(axes: Axes, curve: Curve) -> None:
    """Dice of every region in grey, their mean in blue; similarity when there is no Dice."""
    regions, lam = curve.overlaps(), curve.table["lam"]
    mean = curve.mean_overlap()
    if mean.notna().any():
        for number, name in enumerate(regions.columns):
            label = "groups of structures" if number == 0 else None
            axes.plot(lam, regions[name], color=GREY, linewidth=0.7, alpha=0.7, label=label)
        values, label = mean, "mean of all structures"
        axes.set_ylabel("Dice of scan and template")
    elif "similarity" in curve.table:
        values, label = curve.table["similarity"], "similarity"
        axes.set_ylabel("Image similarity")
    else:
        axes.text(0.5, 0.5, "no overlap or similarity in the table", ha="center", transform=axes.transAxes)
        return
    axes.plot(lam, values, color=BLUE, linewidth=2, marker="o", markersize=4, label=label)
    _mark_chosen(axes, curve, values)
    axes.legend(frameon=False, loc="best", fontsize=9)


def _draw_measure(axes: Axes, curve: Curve, name: str, label: str, limit: float | None) -> None:
    """One measure of regularity, with the limit above which a warning is given."""
    axes.set_ylabel(label)
    if name not in curve.table or curve.table[name].isna().all():
        axes.text(0.5, 0.5, "not measured", ha="center", color=GREY, transform=axes.transAxes)
        return
    axes.plot(curve.table["lam"], curve.table[name], color=BLUE, linewidth=1.6, marker="o", markersize=3)
    if limit is not None:
        axes.axhline(limit, color=ORANGE, linewidth=1, linestyle="--")
        axes.annotate(
            f"warning above {limit:g}", (1, limit), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", ha="right", color=ORANGE, fontsize=8,
        )  # fmt: skip
    axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1])
    _mark_chosen(axes, curve, curve.table[name])


def _mark_chosen(axes: Axes, curve: Curve, values: pd.Series) -> None:
    """Vertical line and ring at the lambda that was taken."""
    axes.axvline(curve.chosen, color=ORANGE, linewidth=1.2, zorder=1.5)
    lam = curve.table["lam"].to_numpy(dtype=float)
    at = int(np.abs(lam - curve.chosen).argmin())
    value = float(values.iloc[at])
    if np.isnan(value):
        return
    axes.plot(
        [lam[at]], [value], "o", markersize=10, fillstyle="none", color=ORANGE, markeredgewidth=2
    )  # fmt: skip
    axes.annotate(
        f"λ* = {curve.chosen:.2f}: {value:.3g}", (lam[at], value), xytext=(9, 8),
        textcoords="offset points", color=ORANGE, fontweight="bold", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip


class _LambdaCurveInputSpec(BaseInterfaceInputSpec):
    in_file = File(
        exists=True,
        mandatory=True,
        desc="TSV with the columns lam, dice_<region>, similarity, sd_log_jacobian, folding_percent, chosen",
    )
    out_file = File("lambda_curve.svg", usedefault=True, desc="name of the figure")


class _LambdaCurveOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class LambdaCurve(SimpleInterface):
    """Overlap and regularity of the registration against lambda, the chosen value marked."""

    input_spec = _LambdaCurveInputSpec
    output_spec = _LambdaCurveOutputSpec

    def _run_interface(self, runtime):
        svg = draw_curve(Curve.read(self.inputs.in_file))
        self._results["out_file"] = str(save_report(svg, self.inputs.out_file, runtime.cwd))
        return runtime
