"""The group level: tables and a page with the quality figures of all sessions, and the cohort's lambda."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.cohort import TABLE as LAMBDA_TABLE
from hyperprep.bidsapp.cohort import write_cohort_lambda
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.controls import STATISTICS, write_controls
from hyperprep.bidsapp.figures import MANY, Figures, scan_files, write_table
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.bidsapp.participants import available_participants
from hyperprep.bidsapp.reports.group import write_group_page
from hyperprep.bidsapp.volumes import write_volumes
from hyperprep.exceptions import NoInputError

TABLE = "group_quality.tsv"
PAGE = "group_quality.html"
_QUALITY = "*_quality.json"
_LONGITUDINAL = "_desc-longitudinal_quality.json"
#: Figures of the registration to the first session that stand in the session's row.
_COMPARED = (
    "lambda", "dice_affine", "dice_mean", "similarity", "sd_log_jacobian", "folding_percent", "seconds",
)  # fmt: skip


def run_group(settings: Settings) -> int:
    """Collect the quality figures of all participants that were processed.

    Parameters
    ----------
    settings
        Settings of this run.

    Returns
    -------
    int
        0, or 1 if a participant of the input has no result.

    Raises
    ------
    NoInputError
        If no participant has one.
    """
    wanted = settings.participant_label or _expected(settings.bids_dir)
    found = available_participants(settings.output_dir) if settings.output_dir.is_dir() else ()
    chosen = [label for label in found if not settings.participant_label or label in wanted]
    with Figures() as figures:
        for label in chosen:
            for row in quality_rows(settings.output_dir, label, settings.session_label):
                figures.add(row)
        if not len(figures):
            raise NoInputError(
                f"{settings.output_dir} has no quality figures ({_QUALITY}) of any participant asked for; "
                "run the participant level first"
            )
        missing = sorted(set(wanted) - {name.removeprefix("sub-") for name in figures.participants})
        table = settings.output_dir / TABLE
        write_table(figures, table, figures.columns)
        page = write_group_page(figures.shown(), settings.output_dir / PAGE, left_out=len(figures) > MANY)
        done = len(figures)
    if missing:
        LOGGER.warning("without results: %s", ", ".join(f"sub-{label}" for label in missing))
    volumes = write_volumes(settings.output_dir, chosen, settings.session_label)
    cohort = write_cohort_lambda(settings.output_dir, chosen, settings.session_label)
    further = "" if volumes is None else f" Volumes: {volumes}."
    if cohort is not None:
        further += f" Lambda that suits all scans together: {cohort:.2f} ({LAMBDA_TABLE})."
    if settings.controls is not None:
        made = write_controls(settings.output_dir, settings.controls)
        further += (
            f" Statistics of {len(made.controls)} controls in {STATISTICS}: run the participant level with "
            "--topology again."
        )
    note = f"; without results: {', '.join(missing)}" if missing else ""
    print(f"HyperPrep group level: {done} scan(s) in {table}{note}. Page: {page}.{further}")
    return 1 if missing else 0


def _expected(bids_dir: Path) -> tuple[str, ...]:
    """Participants of the input, as far as it can still be read."""
    try:
        return available_participants(bids_dir)
    except NoInputError:
        return ()


def quality_rows(output_dir: Path, label: str, sessions: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the quality figures of one participant.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    label
        Participant, without ``sub-``.
    sessions
        Sessions to keep, without ``ses-``; empty keeps all.

    Returns
    -------
    list of dict
        One row per scan: ``participant_id``, ``session_id`` (or ``n/a``), ``scan``, then its figures; nested
        figures are joined by ``_``. Figures of the registration to the first session, where there is one,
        begin with ``longitudinal_``.
    """
    subject = output_dir / f"sub-{label}"
    rows = []
    for session, path in scan_files(subject, _QUALITY, sessions):
        if path.name.endswith(_LONGITUDINAL):
            continue
        content = _read(path)
        if content is None:
            continue
        scan = path.name.removesuffix("_quality.json")
        row = {"participant_id": f"sub-{label}", "session_id": session, "scan": scan, **flatten(content)}
        remarks = content.get("volumes_remarks")
        if isinstance(remarks, list) and remarks:
            row["volumes_remarks"] = "; ".join(map(str, remarks))
        compared = path.with_name(f"{scan}{_LONGITUDINAL}")
        if compared.is_file():
            figures = _read(compared) or {}
            row |= flatten({key: figures[key] for key in _COMPARED if key in figures}, "longitudinal_")
        rows.append(row)
    return rows


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        LOGGER.warning("%s cannot be read (%s) and is left out", path, error)
        return None
    return dict(content)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join the keys of nested figures; only numbers, truth values and words are kept.

    Examples
    --------
    >>> flatten({"lambda": 0.3, "dice": {"thalamus": 0.9}, "curve": [1, 2], "sources": None})
    {'lambda': 0.3, 'dice_thalamus': 0.9}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}_"))
        elif isinstance(value, (bool, int, float, str)):
            flat[name] = value
    return flat
