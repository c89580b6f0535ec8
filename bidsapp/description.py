"""What makes the output folder a BIDS derivative data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperprep import __version__
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.template import is_file_name
from hyperprep.exceptions import OutputError
from hyperprep.models.spatial.files import replacing
from hyperprep.workflows.outputs import BIDSIGNORE

BIDS_VERSION = "1.10.0"
CODE_URL = "https://github.com/hyperprep/hyperprep"

#: Where ``bids:templateflow:`` in the sidecars leads.
TEMPLATEFLOW_URL = "https://github.com/templateflow/templateflow"
#: What BIDS has no names for: derivatives, and the log folders of runs.
_IGNORED = (*BIDSIGNORE, "log", "group_*")


def write_atomically(path: Path, text: str) -> bool:
    """Write a text file under its final name only when it is complete, and only when it changes.

    Parameters
    ----------
    path
        File to write; its folder is made.
    text
        Its content.

    Returns
    -------
    bool
        Whether anything was written.
    """
    try:
        if path.read_text() == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    with replacing(path) as temporary:
        temporary.write_text(text)
    return True


def describe_output(settings: Settings) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``, unless they stand there already.

    Parameters
    ----------
    settings
        Settings of this run.

    Raises
    ------
    OutputError
        If the folder holds another data set.
    """
    path = settings.output_dir / "dataset_description.json"
    before = _read(path)
    _refuse_foreign(path, before)
    write_atomically(path, json.dumps(description(settings, before), indent=2) + "\n")
    ignore = settings.output_dir / ".bidsignore"
    present = ignore.read_text().splitlines() if ignore.is_file() else []
    added = [line for line in _IGNORED if line not in present]
    if added:
        write_atomically(ignore, "\n".join([*present, *added]) + "\n")


def description(settings: Settings, before: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the derivatives, keeping the links to data sets that an earlier run wrote.

    Parameters
    ----------
    settings
        Settings of this run.
    before
        The description that is there; may be empty.

    Returns
    -------
    dict
        Content of ``dataset_description.json``.
    """
    links = {"raw": settings.bids_dir.resolve().as_uri()}
    if not is_file_name(settings.template):
        links["templateflow"] = TEMPLATEFLOW_URL
    links.update({name: path.resolve().as_uri() for name, path in settings.derivatives})
    earlier = before.get("DatasetLinks")
    source = _source(settings)
    return {
        "Name": "HyperPrep derivatives",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "HyperPrep", "Version": __version__, "CodeURL": CODE_URL, **_container()}],
        "HowToAcknowledge": "Please cite the works listed in logs/CITATION.md.",
        "SourceDatasets": [source],
        "DatasetLinks": {**(earlier if isinstance(earlier, dict) else {}), **links},
    }


def _source(settings: Settings) -> dict[str, str]:
    """Describe the input: its DOI where it has one, and its address."""
    raw = _read(settings.bids_dir / "dataset_description.json")
    source = {"URL": settings.bids_dir.resolve().as_uri()}
    doi = raw.get("DatasetDOI")
    if isinstance(doi, str) and doi:
        source["DOI"] = doi
    return source


def _container() -> dict[str, Any]:
    """Name the container image this runs in, if its recipe says which one it is."""
    kind = os.environ.get("HYPERPREP_CONTAINER_TYPE")
    tag = os.environ.get("HYPERPREP_CONTAINER_TAG")
    if not kind and os.environ.get("SINGULARITY_NAME"):
        kind, tag = "apptainer", tag or os.environ["SINGULARITY_NAME"]
    if not kind:
        return {}
    return {"Container": {"Type": kind, **({"Tag": tag} if tag else {})}}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_foreign(path: Path, found: Mapping[str, Any]) -> None:
    if not found:
        return
    if found.get("DatasetType", "raw") != "derivative":
        raise OutputError(
            f"{path.parent} holds a raw BIDS data set ({found.get('Name')!r}); choose another output"
        )
    listed = found.get("GeneratedBy")
    listed = listed if isinstance(listed, list) else [listed]
    makers = [maker.get("Name") for maker in listed if isinstance(maker, dict)]
    if "HyperPrep" not in makers:
        raise OutputError(
            f"{path.parent} holds derivatives of {', '.join(map(str, makers)) or 'another program'}; "
            "choose another output folder"
        )
