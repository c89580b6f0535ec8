"""Quality figures of all scans, gathered one by one; only what a page shows is held in memory."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.description import write_atomically
from hyperprep.interfaces.reportlets.quality import MEASURES
from hyperprep.models.spatial.files import replacing

#: Columns that say which scan a row is about; they come first.
KEYS = ("participant_id", "session_id", "scan")
#: Scans beyond which a page shows the key figures only; the table has all of them.
MANY = 1000
_SHOWN = frozenset(
    {*KEYS, *(measure.key for measure in MEASURES), "prealign_success", "prealign_reason", "volumes_remarks"}
)


class Figures:
    """Rows of figures, kept in a temporary file; the key figures are kept in memory too.

    Examples
    --------
    >>> with Figures() as figures:
    ...     figures.add({"participant_id": "sub-01", "volume_ml": 1400})
    ...     figures.columns, figures.shown(), len(figures)
    (['participant_id', 'volume_ml'], [{'participant_id': 'sub-01', 'volume_ml': 1400}], 1)
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed by __exit__
        self._columns: dict[str, None] = {}
        self._key_figures: list[dict[str, Any]] = []

    def __enter__(self) -> Figures:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._key_figures)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)
        self._file.seek(0, 2)

    @property
    def columns(self) -> list[str]:
        """Names of all figures, the keys first, then in the order in which they came."""
        return [*(key for key in KEYS if key in self._columns), *(c for c in self._columns if c not in KEYS)]

    @property
    def participants(self) -> set[str]:
        """Participants with a row, with ``sub-``."""
        return {str(row["participant_id"]) for row in self._key_figures}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the figures of one scan."""
        self._columns.update(dict.fromkeys(row))
        self._key_figures.append({key: value for key, value in row.items() if key in _SHOWN})
        self._file.write(json.dumps(row) + "\n")

    def shown(self) -> list[dict[str, Any]]:
        """Rows for a page: whole ones, or with more than ``MANY`` scans their key figures."""
        return list(self) if len(self) <= MANY else self._key_figures


def scan_files(subject: Path, pattern: str, sessions: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """Find a kind of file of a participant's scans.

    Parameters
    ----------
    subject
        Folder of the participant in the derivatives.
    pattern
        What the file's name matches.
    sessions
        Sessions to keep, without ``ses-``; empty keeps all.

    Yields
    ------
    tuple of str and Path
        The session, with ``ses-``, or ``n/a`` without one; and the file.
    """
    for path in sorted([*subject.glob(f"anat/{pattern}"), *subject.glob(f"ses-*/anat/{pattern}")]):
        session = path.parent.parent.name if path.parent.parent != subject else "n/a"
        if not sessions or session.removeprefix("ses-") in sessions:
            yield session, path


def _quality_figure(name: str) -> dict[str, str]:
    return {"Description": f"Quality figure {name!r} of the scan's quality JSON file"}


def write_table(
    rows: Iterable[Mapping[str, Any]],
    path: Path,
    columns: Sequence[str] = (),
    *,
    describe: Callable[[str], dict[str, str]] = _quality_figure,
) -> None:
    """Write rows as TSV, one after the other, and beside it a JSON dictionary of the columns.

    Parameters
    ----------
    rows
        One per scan.
    path
        The table; it appears when it is complete.
    columns
        Names of the columns in order; those of the rows when empty, which are then read twice.
    describe
        Gives the dictionary's entry of a column by its name.
    """
    if not columns:
        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        columns = [*KEYS, *(name for name in names if name not in KEYS)]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in columns])
    described = {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session, n/a in a data set without sessions"},
        "scan": {"Description": "Entities of the T1w image that was processed"},
    }
    for name in columns:
        if name not in KEYS:
            described[name] = describe(name)
    write_atomically(path.with_suffix(".json"), json.dumps(described, indent=2) + "\n")


def _cell(value: Any) -> Any:
    """Write what is missing or no number as BIDS wants it."""
    return "n/a" if value is None or value != value else value
