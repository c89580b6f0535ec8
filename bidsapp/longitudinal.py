"""The order of a participant's sessions in time, and what is said of comparing them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from hyperprep.bidsapp.query import ParticipantInput, SessionInput


def prepare_sessions(participant: ParticipantInput, bids_dir: Path) -> ParticipantInput:
    """Put the sessions in order of time and say which one the others will be registered to.

    The order is that of ``acq_time`` in the participant's ``sessions.tsv`` where it has a time for all of
    them, else that of the labels (numbers by their value).

    Parameters
    ----------
    participant
        With the sessions that are processed.
    bids_dir
        Root of the raw data set.

    Returns
    -------
    ParticipantInput
        With a remark on what is compared, or that there is nothing to compare.
    """
    sessions = participant.sessions
    if len(sessions) < 2:
        said = (
            "only one session with a T1w image: it is processed as usual and there is nothing to register "
            "it to (--longitudinal)",
        )
        return replace(participant, remarks=(*participant.remarks, *(said if sessions else ())))
    times = session_times(bids_dir / f"sub-{participant.label}" / f"sub-{participant.label}_sessions.tsv")
    timed = all(session.session in times for session in sessions)
    ordered = sorted(
        sessions,
        key=lambda session: (times[session.session or ""] if timed else datetime.min, _natural(session)),
    )
    later = ", ".join(str(session.session) for session in ordered[1:])
    how = "acq_time in its sessions.tsv" if timed else "their labels; its sessions.tsv gives no acq_time"
    remark = (
        f"registered to session {ordered[0].session}: {later} (--longitudinal; the order is that of {how})"
    )
    return replace(participant, sessions=tuple(ordered), remarks=(*participant.remarks, remark))


def session_times(file: Path) -> dict[str, datetime]:
    """Read when the sessions of a participant were acquired.

    Parameters
    ----------
    file
        ``sub-<label>_sessions.tsv``; need not exist.

    Returns
    -------
    dict
        Label without ``ses-`` to time, without time zone; sessions without a readable time are left out.
    """
    try:
        table = pd.read_csv(file, sep="\t", dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError):
        return {}
    if not {"session_id", "acq_time"} <= set(table.columns):
        return {}
    times = {}
    for label, text in zip(table["session_id"], table["acq_time"], strict=True):
        try:
            times[str(label).removeprefix("ses-")] = datetime.fromisoformat(str(text)).replace(tzinfo=None)
        except ValueError:
            continue
    return times


def _natural(session: SessionInput) -> list[tuple[int, int, str]]:
    """Sort numbers by their value and before words."""
    parts = re.findall(r"\d+|\D+", session.session or "")
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
