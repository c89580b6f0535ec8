"""The group's table of volumes: one row per scan, one column per structure, for a statistics program."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.figures import Figures, scan_files, write_table
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.workflows.settings import SEGMENTATION_NAME

TABLE = "group_volumes.tsv"
_ENDING = f"_seg-{SEGMENTATION_NAME}_desc-volumes_dseg.tsv"


def write_volumes(output_dir: Path, labels: Sequence[str], sessions: Sequence[str] = ()) -> Path | None:
    """Gather the volumes of all scans in ``group_volumes.tsv``, and describe its columns beside it.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    labels
        Participants, without ``sub-``.
    sessions
        Sessions to keep, without ``ses-``; empty keeps all.

    Returns
    -------
    pathlib.Path or None
        The table; None if no scan has volumes.
    """
    with Figures() as rows:
        for label in labels:
            for row in volume_rows(output_dir / f"sub-{label}", sessions):
                rows.add(row)
        if not len(rows):
            return None
        path = output_dir / TABLE
        write_table(rows, path, rows.columns, describe=_described)
        return path


def volume_rows(subject: Path, sessions: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the volumes of one participant's scans.

    Parameters
    ----------
    subject
        Folder of the participant.
    sessions
        Sessions to keep, without ``ses-``; empty keeps all.

    Returns
    -------
    list of dict
        One row per scan: ``participant_id``, ``session_id`` (or ``n/a``), ``scan``, then mm^3 by structure.
    """
    rows = []
    for session, path in scan_files(subject, f"*{_ENDING}", sessions):
        row: dict[str, Any] = {
            "participant_id": subject.name,
            "session_id": session,
            "scan": path.name.removesuffix(_ENDING),
        }
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                for line in csv.DictReader(stream, delimiter="\t"):
                    row[line["name"]] = _number(line["volume_mm3"])
        except (OSError, ValueError, KeyError) as error:
            LOGGER.warning("%s cannot be read (%r) and is left out of %s", path, error, TABLE)
            continue
        rows.append(row)
    return rows


def _number(text: str) -> float:
    return math.nan if text == "n/a" else float(text)


def _described(name: str) -> dict[str, str]:
    return {"Description": f"Volume of {name}, from probabilities on the scan's own grid", "Units": "mm^3"}
