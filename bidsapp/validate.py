"""The official BIDS validator over what a run is going to read, and nothing more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = "bids-validator-deno"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Verdict:
    """What the validator found.

    Parameters
    ----------
    dataset
        Errors of the data set itself; they stop a run.
    participants
        Errors in a participant's files, by label; they are told in that participant's report.
    remark
        Why there is no verdict, if there is none.
    """

    dataset: tuple[str, ...] = ()
    participants: dict[str, tuple[str, ...]] | None = None
    remark: str | None = None


def validate(bids_dir: Path, participants: Sequence[str]) -> Verdict:
    """Validate the description of a data set and the ``anat`` folders of some participants.

    The validator sees a temporary folder of links to these, so that it neither walks through the rest of
    a large data set nor stumbles over it. It needs no network.

    Parameters
    ----------
    bids_dir
        Root of the data set.
    participants
        Labels without ``sub-``.

    Returns
    -------
    Verdict
        Without findings, but with a remark, where the validator is not installed or does not work.
    """
    program = _find_program()
    if program is None:
        return Verdict(remark=f"the input was not validated: {_PROGRAM} is not installed")
    with tempfile.TemporaryDirectory(prefix="hyperprep-validate-") as folder:
        view = Path(folder) / "bids"
        _link_view(bids_dir, participants, view)
        environ = {k: v for k, v in os.environ.items() if k != "BIDS_SCHEMA"}
        environ["DENO_DIR"] = str(Path(folder) / "deno")
        command = [program, "--format", "json", "--ignoreNiftiHeaders", "--ignoreWarnings", str(view)]
        try:
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
            issues = json.loads(done.stdout)["issues"]["issues"]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            return Verdict(
                remark=f"the input was not validated: {_PROGRAM} failed ({type(error).__name__}: {error})"
            )
    return _sort_issues(issues)


def _find_program() -> str | None:
    """Find the validator beside this Python, or on the search path."""
    beside = Path(sys.executable).with_name(_PROGRAM)
    return str(beside) if beside.is_file() else shutil.which(_PROGRAM)


def _link_view(bids_dir: Path, participants: Sequence[str], view: Path) -> None:
    """Make a folder that looks like the part of the data set that is read."""
    view.mkdir(parents=True)
    for name in (
        "dataset_description.json",
        "README",
        "README.md",
        "README.txt",
        "README.rst",
        ".bidsignore",
    ):
        if (bids_dir / name).is_file():
            (view / name).symlink_to(bids_dir / name)
    for path in bids_dir.glob("*T1w.json"):
        (view / path.name).symlink_to(path)
    for label in participants:
        subject = bids_dir / f"sub-{label}"
        for anat in (subject / "anat", *sorted(subject.glob("ses-*/anat"))):
            if anat.is_dir():
                target = view / anat.relative_to(bids_dir)
                target.mkdir(parents=True)
                for path in anat.iterdir():
                    if path.exists():
                        (target / path.name).symlink_to(path)


def _sort_issues(issues: Sequence[dict[str, str]]) -> Verdict:
    """Tell a data set's errors from a participant's.

    Examples
    --------
    >>> verdict = _sort_issues([
    ...     {"code": "EMPTY_FILE", "severity": "error", "location": "/sub-01/anat/sub-01_T1w.nii.gz"},
    ...     {"code": "JSON_KEY_REQUIRED", "severity": "error", "location": "/dataset_description.json"}])
    >>> verdict.dataset
    ('/dataset_description.json: JSON_KEY_REQUIRED',)
    >>> verdict.participants
    {'01': ('/sub-01/anat/sub-01_T1w.nii.gz: EMPTY_FILE',)}
    """
    dataset: list[str] = []
    participants: dict[str, tuple[str, ...]] = {}
    for issue in issues:
        if issue.get("severity") != "error":
            continue
        location = issue.get("location", "/")
        detail = " ".join(issue[key] for key in ("code", "subCode") if issue.get(key))
        message = f"{location}: {detail}"
        top = location.lstrip("/").split("/", 1)[0]
        if top.startswith("sub-") and "/" in location.lstrip("/"):
            participants[top[4:]] = (*participants.get(top[4:], ()), message)
        else:
            dataset.append(message)
    return Verdict(tuple(dataset), participants)
