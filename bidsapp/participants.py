"""The participants of a data set, by their folders, and those of them that are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hyperprep.exceptions import NoInputError

_LABEL = re.compile("[0-9A-Za-z+]+")


def available_participants(bids_dir: Path) -> tuple[str, ...]:
    """List the participants of a data set by their folders, without looking into them.

    Raises
    ------
    NoInputError
        If the folder cannot be listed.
    """
    return tuple(label for label in _participant_folders(bids_dir) if _LABEL.fullmatch(label))


def misnamed_participants(bids_dir: Path) -> tuple[str, ...]:
    """List the folders that begin like a participant's, but whose label is none; they are left out."""
    labels = [label for label in _participant_folders(bids_dir) if not _LABEL.fullmatch(label)]
    return tuple(os.fsencode(f"sub-{label}").decode(errors="backslashreplace") for label in labels)


def _participant_folders(bids_dir: Path) -> list[str]:
    try:
        with os.scandir(bids_dir) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("sub-") and entry.is_dir()]
    except OSError as error:
        raise NoInputError(f"the input folder {bids_dir} cannot be listed: {error.strerror}") from error
    return sorted(name[4:] for name in names)


def choose_participants(available: Sequence[str], wanted: Sequence[str], bids_dir: Path) -> tuple[str, ...]:
    """Choose the participants that are asked for.

    Raises
    ------
    NoInputError
        If one is not there, naming those that are, or if there is none at all.

    Examples
    --------
    >>> choose_participants(["01", "02"], ["02"], Path("/data"))
    ('02',)
    """
    if not available:
        raise NoInputError(f"{bids_dir} has no participant: no folder there is called sub-<label>")
    missing = [label for label in wanted if label not in available]
    if missing:
        dangling = [f"sub-{label}" for label in missing if (bids_dir / f"sub-{label}").is_symlink()]
        links = f" ({', '.join(dangling)}: a link whose target is not there)" if dangling else ""
        raise NoInputError(
            f"unknown participant {', '.join(missing)}{links}; {bids_dir} has {_shortened(available)}"
        )
    return tuple(label for label in available if not wanted or label in wanted)


def count_sessions(bids_dir: Path, label: str, sessions: Sequence[str] = ()) -> int:
    """Count a participant's folders that hold a T1w image, without reading any file.

    Parameters
    ----------
    bids_dir
        Root of the data set.
    label
        Participant, without ``sub-``.
    sessions
        Sessions that count, without ``ses-``; empty counts all.
    """
    subject = bids_dir / f"sub-{label}"
    folders = [subject / f"ses-{ses}" for ses in _sessions(subject) if not sessions or ses in sessions]
    return sum(_has_t1w(folder / "anat") for folder in (subject, *folders))


def _has_t1w(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(("_T1w.nii", "_T1w.nii.gz")) for entry in entries)
    except OSError:
        return False


def _sessions(subject: Path) -> list[str]:
    with os.scandir(subject) as entries:
        return sorted(e.name[4:] for e in entries if e.name.startswith("ses-") and e.is_dir())


def _shortened(labels: Sequence[str], most: int = 20) -> str:
    text = ", ".join(labels[:most])
    return text if len(labels) <= most else f"{text} and {len(labels) - most} more"
