"""What is read: the T1w images of the chosen participants, and nothing else of the data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.database import FILE_NAME, differences, in_dataset, open_database
from hyperprep.bidsapp.layout import NOT_UTF8, open_layout, read_filters
from hyperprep.workflows.settings import Scan

_EXTENSIONS = [".nii", ".nii.gz"]
_NO_MATCH = frozenset({"suffix", "extension", "datatype"})
_MASKS = ({"suffix": "mask", "desc": "brain"},)
#: Segmentations with FreeSurfer's numbers; a plain ``dseg`` of other programs holds tissues.
_SEGMENTATIONS = (
    {"suffix": "dseg", "desc": "aseg"},
    {"suffix": "dseg", "segmentation": ["aseg", "hyperprep", "synthseg"]},
)


@dataclass(frozen=True)
class SessionInput:
    """The scan of one session that is processed, and those that are not.

    Parameters
    ----------
    session
        Label without ``ses-``, or ``None`` in a data set without sessions.
    scan
        The T1w image with what is known of it.
    unused
        Further T1w images of the session.
    """

    session: str | None
    scan: Scan
    unused: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ParticipantInput:
    """One participant's sessions, and what keeps some of it from being processed.

    Parameters
    ----------
    label
        Label without ``sub-``.
    sessions
        Sessions with a T1w image, in order.
    problems
        Why something asked for cannot be done, in words; not empty means this participant fails.
    remarks
        What a reader of the report should know.
    """

    label: str
    sessions: tuple[SessionInput, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def find_inputs(settings: Settings, participants: Sequence[str]) -> tuple[ParticipantInput, ...]:
    """Find the scan of every chosen session, with what derivatives have for it.

    Parameters
    ----------
    settings
        Settings of this run.
    participants
        Labels without ``sub-``, all of them in the data set.

    Returns
    -------
    tuple of ParticipantInput
        In the order of `participants`.
    """
    filters = read_filters(settings.bids_filter_file)
    if settings.bids_database_dir is None:
        layout = open_layout(settings.bids_dir, participants)
    else:
        layout = open_database(settings.bids_dir, settings.bids_database_dir)
    masks = [(name, open_layout(path, participants, derivative=True)) for name, path in settings.derivatives]
    found = []
    for label in participants:
        try:
            found.append(_participant(settings, label, layout, masks, filters))
        except OSError as error:
            reason = f"{error.filename} cannot be read: {error.strerror}; check its permissions"
            found.append(ParticipantInput(label, problems=(reason,)))
    return tuple(found)


def _participant(
    settings: Settings,
    label: str,
    layout: Any,
    derivatives: Sequence[tuple[str, Any]],
    filters: Mapping[str, Any],
) -> ParticipantInput:
    """Collect the sessions of one participant."""
    images = layout.get(
        subject=label, extension=_EXTENSIONS, scope="self", **{"suffix": "T1w", "datatype": "anat", **filters}
    )
    by_session: dict[str | None, list[Any]] = {}
    for image in sorted(images, key=lambda image: image.path):
        by_session.setdefault(image.entities.get("session"), []).append(image)
    problems = []
    if settings.session_label:
        absent = [ses for ses in settings.session_label if ses not in by_session]
        by_session = {ses: found for ses, found in by_session.items() if ses in settings.session_label}
        if absent and by_session:
            problems += [f"sub-{label} has no T1w image in session {ses}" for ses in absent]
    if not by_session:
        problems.append(_no_t1w(settings, label))
    remarks = [
        f"session {ses} has no T1w image and is left out"
        for ses in _session_folders(settings.bids_dir / f"sub-{label}")
        if by_session and ses not in by_session and not settings.session_label
    ]
    problems += _undecodable(settings.bids_dir / f"sub-{label}")
    if settings.bids_database_dir is not None:
        remarks += _outdated(settings, settings.bids_database_dir, layout, label)
    if settings.subject_anatomical_reference == "first-lex" and len(by_session) > 1:
        by_session, left_out = _first_lexicographic(by_session)
        remarks.append(left_out)
    sessions: list[SessionInput] = []
    for ses in sorted(by_session, key=lambda ses: ses or ""):
        first, *others = by_session[ses]
        if others:
            names = ", ".join(image.filename for image in others)
            remarks.append(f"{first.filename} is used as the session's first T1w image; not used: {names}")
        mask, mask_uri = _from_derivatives(first, derivatives, _MASKS, "brain mask", remarks)
        dseg, _ = _from_derivatives(first, derivatives, _SEGMENTATIONS, "segmentation", remarks)
        path, *unused = (in_dataset(image.path, layout.root, settings.bids_dir) for image in by_session[ses])
        stripped = _skull_stripped(path, settings.bids_dir)
        scan = Scan(path, mask=mask, dseg=dseg, mask_uri=mask_uri, skull_stripped=stripped)
        sessions.append(SessionInput(ses, scan, tuple(unused)))
    return ParticipantInput(label, tuple(sessions), tuple(problems), tuple(remarks))


def _first_lexicographic(by_session: Mapping[Any, list[Any]]) -> tuple[dict[Any, list[Any]], str]:
    """Keep the session whose first image comes first of all, and say which sessions are left out."""
    chosen = min(by_session, key=lambda ses: by_session[ses][0].path)
    others = "; ".join(
        f"{'no session' if ses is None else f'session {ses}'} ({', '.join(i.filename for i in images)})"
        for ses, images in by_session.items()
        if ses != chosen
    )
    first = by_session[chosen][0].filename
    return {chosen: by_session[chosen]}, (
        f"{first} is the participant's first T1w image, and the only one used "
        f"(--subject-anatomical-reference first-lex); left out: {others}"
    )


def _outdated(settings: Settings, folder: Path, layout: Any, label: str) -> list[str]:
    """Say where a database differs from the participant's folder."""
    gone, new = differences(layout, settings.bids_dir, label)
    remade = f"delete {folder / FILE_NAME} to have it made again"
    return [
        *(f"{path} is in the database of --bids-database-dir but not on disk; {remade}" for path in gone),
        *(f"{path} is not in the database of --bids-database-dir and not used; {remade}" for path in new),
    ]


def _session_folders(subject: Path) -> list[str]:
    with os.scandir(subject) as entries:
        return sorted(e.name[4:] for e in entries if e.name.startswith("ses-") and e.is_dir())


def _undecodable(subject: Path) -> list[str]:
    """Name the T1w images whose names cannot be read as text."""
    found = [path for where in ("anat", "ses-*/anat") for path in subject.glob(f"{where}/*_T1w.nii*")]
    return [
        f"{os.fsencode(path).decode(errors='backslashreplace')} has a name that is not UTF-8, which BIDS "
        "requires; rename it"
        for path in sorted(found)
        if NOT_UTF8.search(str(path))
    ]


def _no_t1w(settings: Settings, label: str) -> str:
    """Say that a participant has nothing to process, and which options narrowed the search."""
    narrowing = []
    if settings.session_label:
        narrowing.append(f"--session-label {' '.join(settings.session_label)}")
    if settings.bids_filter_file:
        narrowing.append(f"--bids-filter-file {settings.bids_filter_file}")
    if settings.bids_database_dir:
        narrowing.append(f"--bids-database-dir {settings.bids_database_dir}")
    within = f" with {' and '.join(narrowing)}" if narrowing else ""
    return f"sub-{label} has no T1w image{within}: looked for *_T1w.nii[.gz] in the anat folders of " + str(
        settings.bids_dir / f"sub-{label}"
    )


def _from_derivatives(
    image: Any,
    derivatives: Sequence[tuple[str, Any]],
    queries: Sequence[Mapping[str, Any]],
    what: str,
    remarks: list[str],
) -> tuple[Path, str] | tuple[None, None]:
    """Find the first derivative of an image whose entities do not contradict the image's, and its URI.

    Parameters
    ----------
    image
        The raw image.
    derivatives
        Names and layouts of the derivative data sets.
    queries
        Filters that describe the derivative, best first.
    what
        Its name for the remarks.
    remarks
        Gets a sentence on what was found, or that nothing was.
    """
    from bids.layout import Query

    wanted = {key: value for key, value in image.entities.items() if key not in _NO_MATCH}
    for name, layout in derivatives:
        for query in queries:
            found = layout.get(
                subject=wanted["subject"],
                space=Query.NONE,
                extension=_EXTENSIONS,
                invalid_filters="allow",
                **query,
            )
            for candidate in sorted(found, key=lambda candidate: candidate.path):
                has = {k: v for k, v in candidate.entities.items() if k not in {*_NO_MATCH, *query}}
                same_session = has.get("session") == wanted.get("session")
                if same_session and all(wanted.get(key) == value for key, value in has.items()):
                    remarks.append(
                        f"{image.filename}: {what} taken from derivatives {name!r} ({candidate.path})"
                    )
                    inside = Path(candidate.path).relative_to(layout.root).as_posix()
                    return Path(candidate.path), f"bids:{name}:{inside}"
    if derivatives:
        remarks.append(f"{image.filename}: no {what} of it was found in the derivatives given")
    return None, None


def _skull_stripped(image: Path, root: Path) -> bool | None:
    """Read ``SkullStripped`` from the image's sidecar, or from one higher up (inheritance)."""
    entities = set(image.name.split(".", 1)[0].split("_"))
    for folder in (image.parent, *image.parent.parents):
        candidates = [p for p in _json_files(folder) if set(p.name[:-5].split("_")) <= entities]
        for sidecar in sorted(candidates, key=lambda p: -len(p.name)):
            try:
                content = json.loads(sidecar.read_text())
            except (OSError, ValueError):
                continue
            if isinstance(content, dict) and isinstance(content.get("SkullStripped"), bool):
                return bool(content["SkullStripped"])
        if folder == root:
            break
    return None


def _json_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.name.endswith("T1w.json")]
