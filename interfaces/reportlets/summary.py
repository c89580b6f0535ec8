"""One session in numbers and words, as an HTML fragment: warnings first, then figures, then volumes."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.base import read_table
from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.quality import BY_KEY, MEASURES, as_number, measure_of, warnings_of

_SIDE = re.compile(r"^(left|right)-", re.IGNORECASE)


def merge_metrics(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Key figures of several steps in one flat table; durations are added up.

    Parameters
    ----------
    parts
        Tables, nested ones too: their keys are joined by an underscore.

    Examples
    --------
    >>> merge_metrics([{"seconds": 1.0, "prealign": {"cost": 0.5}}, {"seconds": 2.0}])
    {'seconds': 3.0, 'prealign_cost': 0.5}
    """
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Mapping):
                merged.update({f"{key}_{inner}": item for inner, item in merge_metrics([value]).items()})
            elif key == "seconds" and as_number(merged.get(key)) is not None and as_number(value) is not None:
                merged[key] += value
            else:
                merged[key] = value
    return merged


def session_heading(source_file: str) -> str:
    """Head a scan's summary, from its file name.

    Examples
    --------
    >>> session_heading("/data/sub-01/ses-pre/anat/sub-01_ses-pre_acq-fast_run-2_T1w.nii.gz")
    'Session pre, acq-fast, run-2'
    >>> session_heading("sub-01_T1w.nii.gz")
    'T1w scan'
    """
    parts = Path(source_file).name.split("_")[:-1]
    session = [f"Session {part.removeprefix('ses-')}" for part in parts if part.startswith("ses-")]
    others = [part for part in parts if not part.startswith(("sub-", "ses-"))]
    return ", ".join([*(session or ["T1w scan"]), *others])


def summary_fragment(
    source_file: str,
    metrics: Mapping[str, Any],
    *,
    volumes: pd.DataFrame | None = None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """HTML of one scan: warnings, key figures, volumes.

    Parameters
    ----------
    source_file
        Name of the raw T1w image.
    metrics
        Key figures, see :mod:`hyperprep.interfaces.reportlets.quality`.
    volumes
        Columns ``name`` and ``volume_mm3``.
    warnings, notes
        Sentences: what needs attention, and what is only good to know.

    Returns
    -------
    The fragment, one ``section`` element.
    """
    found = warnings_of(metrics, warnings)
    parts = [
        f'<section class="hp-session" data-warnings="{len(found)}">',
        f"<h3>{escape(session_heading(source_file))}</h3>",
        f'<p class="hp-file"><code>{escape(Path(source_file).name)}</code></p>',
        _warning_list(found),
    ]
    if notes:
        parts.append(
            '<ul class="hp-notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
        )
    parts.append(_figures_table(metrics))
    if volumes is not None and not volumes.empty:
        parts.append(_volumes_table(volumes, metrics))
    return "\n".join([*parts, "</section>"]) + "\n"


def _warning_list(found: Sequence[str]) -> str:
    if not found:
        return '<p class="hp-ok">No warnings: every figure is within its limits.</p>'
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    count = "1 warning" if len(found) == 1 else f"{len(found)} warnings"
    return f'<div class="hp-warnings" role="alert"><strong>{count}</strong><ul>{items}</ul></div>'


def _figures_table(metrics: Mapping[str, Any]) -> str:
    """Known figures in their order with limits and verdict, then all others."""
    rows = []
    for measure in MEASURES:
        if measure.key not in metrics:
            continue
        value = metrics[measure.key]
        beyond = measure.beyond(value)
        verdict = "" if not measure.expected() or as_number(value) is None else "check" if beyond else "ok"
        rows.append(
            f'<tr class="{"hp-beyond" if beyond else ""}"><th scope="row" title="{escape(measure.about)}">'
            f'{escape(measure.label)}</th><td class="hp-number">{escape(measure.text(value))}</td>'
            f"<td>{escape(measure.expected())}</td><td>{verdict}</td></tr>"
        )
    table = (
        '<table class="hp-table"><caption>Key figures</caption><thead><tr><th scope="col">Figure</th>'
        '<th scope="col" class="hp-number">Value</th><th scope="col">Expected</th>'
        '<th scope="col">Verdict</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    others = "".join(
        f'<tr><th scope="row">{escape(measure_of(key).label)}</th>'
        f'<td class="hp-number">{escape(_plain(key, value))}</td></tr>'
        for key, value in metrics.items()
        if key not in BY_KEY and not key.startswith("dice_")
    )
    if others:
        table += (
            '<details class="hp-more"><summary>All other figures</summary>'
            f'<table class="hp-table"><tbody>{others}</tbody></table></details>'
        )
    return table


def _plain(key: str, value: Any) -> str:
    """Any value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(key, item) for item in value)
    return "n/a" if value is None else measure_of(key).text(value)


_SPELLINGS = {
    "csf": "CSF",
    "VentralDC": "Ventral DC",
    "EstimatedTotalIntraCranialVol": "Intracranial volume, estimated",
}
_OVERLAPS = {
    "dice": ("Dice", "Overlap with the template's structure after the deformation, mean of both sides"),
    "quality": (
        "Expected Dice",
        "Overlap with the truth that the segmentation's own probabilities promise, mean of both sides",
    ),
}


def structure_rows(volumes: pd.DataFrame, metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Volumes (mL) and overlap of every structure, both sides in one row.

    Parameters
    ----------
    volumes
        Columns ``name`` and ``volume_mm3``.
    metrics
        Key figures; ``dice_<name>`` counts.

    Returns
    -------
    Structures with ``left``, ``right``, ``total`` (mL), and means over the sides ``dice`` and ``quality``
    (``expected_dice``), as far as known.

    Examples
    --------
    >>> table = pd.DataFrame({"name": ["Left-Thalamus", "Right-Thalamus"], "volume_mm3": [7000.0, 8000.0]})
    >>> structure_rows(table, {"dice_Left-Thalamus": 0.8, "dice_Right-Thalamus": 0.9})
    {'Thalamus': {'left': 7.0, 'right': 8.0, 'total': 15.0, 'dice': 0.85}}
    """
    rows: dict[str, dict[str, float]] = {}
    means: dict[tuple[str, str], list[float]] = {}
    promised = volumes["expected_dice"] if "expected_dice" in volumes else [None] * len(volumes)
    for name, size, quality in zip(volumes["name"].astype(str), volumes["volume_mm3"], promised, strict=True):
        match = _SIDE.match(name)
        base = _SIDE.sub("", name).replace("-", " ")
        base = base[:1].upper() + base[1:]
        for word, written in _SPELLINGS.items():
            base = base.replace(word, written)
        rows.setdefault(base, {})[match[1].lower() if match else "total"] = float(size) / 1000
        for key, value in (("dice", metrics.get(f"dice_{name}")), ("quality", quality)):
            number = as_number(value)
            if number is not None:
                means.setdefault((base, key), []).append(number)
    for base, row in rows.items():
        if "left" in row and "right" in row:
            row.setdefault("total", row["left"] + row["right"])
        for key in ("dice", "quality"):
            if (base, key) in means:
                row[key] = round(sum(means[base, key]) / len(means[base, key]), 6)
    return rows


def _ml(value: float | None) -> str:
    """Write a volume in mL; large ones with one digit after the point."""
    return "" if value is None else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _volumes_table(volumes: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """Volumes, asymmetry and overlap of every structure."""
    rows = structure_rows(volumes, metrics)
    shown = [key for key in ("dice", "quality") if any(key in row for row in rows.values())]
    lines = []
    for name, row in rows.items():
        cells = [_ml(row.get(side)) for side in ("left", "right", "total")]
        both = row.get("left", 0.0) + row.get("right", 0.0)
        paired = "left" in row and "right" in row and both > 0
        cells.append(f"{200 * (row['left'] - row['right']) / both:+.1f}" if paired else "")
        cells += [f"{row[key]:.3f}" if key in row else "" for key in shown]
        numbers = "".join(f'<td class="hp-number">{cell}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{numbers}</tr>')
    heads = [
        ("Left (mL)", ""),
        ("Right (mL)", ""),
        ("Total (mL)", ""),
        ("L &minus; R (%)", "100 · (L &minus; R) / mean of both"),
    ]
    heads += [_OVERLAPS[key] for key in shown]
    head = "".join(
        f'<th scope="col" class="hp-number" title="{about}">{label}</th>' for label, about in heads
    )
    return (
        '<details class="hp-more" open="open"><summary>Volumes of structures</summary>'
        f'<table class="hp-table"><thead><tr><th scope="col">Structure</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></details>"
    )


class _SummaryInputSpec(BaseInterfaceInputSpec):
    source_file = File(mandatory=True, desc="raw T1w image, for its name")
    metrics = InputMultiObject(File(exists=True), desc="JSON files with the key figures of the steps")
    volumes = File(exists=True, desc="TSV with the columns name and volume_mm3")
    warnings = traits.List(traits.Str, desc="sentences about what needs attention")
    notes = traits.List(traits.Str, desc="sentences about what is good to know")
    out_file = File("summary.html", usedefault=True, desc="name of the fragment")


class _SummaryOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the fragment (HTML)")
    warnings = traits.List(traits.Str, desc="all warnings, those from the figures included")


class Summary(SimpleInterface):
    """Warnings, key figures and volumes of one scan as an HTML fragment."""

    input_spec = _SummaryInputSpec
    output_spec = _SummaryOutputSpec

    def _run_interface(self, runtime):
        from hyperprep.models.predict.plausible import implausible_volumes
        from hyperprep.models.predict.volumes import VolumeRow

        inputs = self.inputs
        parts = (
            [json.loads(Path(path).read_text()) for path in inputs.metrics]
            if isdefined(inputs.metrics)
            else []
        )
        metrics = merge_metrics(parts)
        warnings = list(inputs.warnings) if isdefined(inputs.warnings) else []
        volumes = None
        if isdefined(inputs.volumes):
            volumes = read_table(inputs.volumes)
            remarks = metrics.pop("volumes_remarks", None) or implausible_volumes(
                cast("list[VolumeRow]", volumes.to_dict("records"))
            )
            warnings += [f"Implausible volume: {remark}. Look at the segmentation." for remark in remarks]
        self._results["warnings"] = warnings_of(metrics, warnings)
        fragment = summary_fragment(
            inputs.source_file,
            metrics,
            volumes=volumes,
            warnings=warnings,
            notes=inputs.notes if isdefined(inputs.notes) else (),
        )
        self._results["out_file"] = str(save_report(fragment, inputs.out_file, runtime.cwd))
        return runtime
