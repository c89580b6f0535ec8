"""Whether the folders given as input and as derivatives look like BIDS data sets."""

from __future__ import annotations

import json
from pathlib import Path

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.participants import available_participants
from hyperprep.exceptions import NoInputError, UsageError


def check_dataset(settings: Settings) -> None:
    """Check that the input is a BIDS data set.

    Raises
    ------
    NoInputError
        If the folder or its ``dataset_description.json`` is missing or unreadable; with
        ``--skip-bids-validation`` only if the folder is.
    """
    root = settings.bids_dir
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        found = "is a link whose target is not there" if root.is_symlink() and not root.exists() else found
        raise NoInputError(f"the input {root} {found}")
    path = root / "dataset_description.json"
    if settings.skip_bids_validation:
        _check_is_object(path)
        return
    hint = "give the root of a BIDS data set, or use --skip-bids-validation"
    if not path.is_file():
        raise NoInputError(f"{root} has no dataset_description.json, so it is no BIDS data set; {hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise NoInputError(f"{path} is not valid JSON ({error}); {hint}") from error
    absent = [key for key in ("Name", "BIDSVersion") if not isinstance(content, dict) or key not in content]
    if absent:
        raise NoInputError(f"{path} lacks {' and '.join(absent)}, which BIDS requires; {hint}")


def _check_is_object(path: Path) -> None:
    """Refuse a description that is JSON but no object; what is absent or broken is done without."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return
    if not isinstance(content, dict):
        raise NoInputError(f"{path} holds no JSON object; mend or remove it")


def check_derivatives(settings: Settings) -> None:
    """Check that every folder given as a derivative looks like one.

    Raises
    ------
    UsageError
        If it is the input, a raw data set, or no data set at all.
    """
    for name, path in settings.derivatives:
        option = f"--derivatives {name}={path}"
        file = path / "dataset_description.json"
        if path.resolve() == settings.bids_dir.resolve():
            raise UsageError(f"{option} is the input itself; give a folder with derivatives of it")
        if not file.exists():
            if not available_participants(path):
                raise UsageError(
                    f"{option} is no derivative data set: it has neither dataset_description.json nor a "
                    "folder sub-<label>; give its root"
                )
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{option}: {file} is not valid JSON ({error}); mend it") from error
        if not isinstance(content, dict) or content.get("DatasetType", "derivative") != "derivative":
            found = content.get("DatasetType") if isinstance(content, dict) else content
            raise UsageError(f"{option} is no derivative data set: its DatasetType is {found!r}")
