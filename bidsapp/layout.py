"""PyBIDS, held to the folders that are needed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hyperprep.exceptions import NoInputError, UsageError

#: Queries of other NiPreps in a shared filter file; they select images that are not read here.
_FOREIGN_QUERIES = frozenset({"bold", "sbref", "fmap", "t2w", "flair", "roi", "dwi", "pet", "asl", "xfm"})

#: What Python makes of the bytes of a name that is not UTF-8; neither PyBIDS nor JSON can hold it.
NOT_UTF8 = re.compile("[\ud800-\udfff]")


def read_filters(path: Path | None) -> Mapping[str, Any]:
    """Read the filters for T1w images from a filter file as fMRIPrep takes it.

    Parameters
    ----------
    path
        JSON file ``{"t1w": {entity: value}}``; ``null`` stands for "entity absent", ``"*"`` for any value.

    Returns
    -------
    mapping
        Keyword arguments of PyBIDS' ``BIDSLayout.get``.

    Raises
    ------
    UsageError
        If the file is no JSON object of objects, or has a query that is unknown.
    """
    if path is None:
        return {}
    from bids.layout import Config, Query

    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--bids-filter-file {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f'--bids-filter-file {path} must look like {{"t1w": {{"acquisition": "mprage"}}}}')
    unknown = sorted(set(content) - {"t1w"} - _FOREIGN_QUERIES)
    if unknown or "t1w" not in content:
        found = ", ".join(map(repr, unknown or content)) or "nothing"
        raise UsageError(f"--bids-filter-file {path}: found {found}; the query that is used is called 't1w'")
    special = {None: Query.NONE, "*": Query.ANY, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY}
    filters = {
        entity: special.get(value, value) if not isinstance(value, (list, dict)) else value
        for entity, value in content["t1w"].items()
    }
    known = set(Config.load("bids").entities)
    for entity in filters:
        if entity not in known:
            near = difflib.get_close_matches(str(entity), known, n=3, cutoff=0.5)
            raise UsageError(
                f"--bids-filter-file {path}: {entity!r} is no entity of BIDS as PyBIDS names them"
                + (f"; near matches: {', '.join(near)}" if near else "")
            )
    for entity, value in content["t1w"].items():
        if any(isinstance(one, (dict, list)) for one in (value if isinstance(value, list) else [value])):
            raise UsageError(
                f"--bids-filter-file {path}: {entity!r} must be text, a number, null or a list of these, not "
                f"{json.dumps(value)}"
            )
    if filters.get("datatype", "anat") != "anat":
        raise UsageError(
            f"--bids-filter-file {path}: T1w images have the datatype anat, no other can be chosen"
        )
    for fixed in ("subject", "extension"):
        if fixed in filters:
            raise UsageError(f"--bids-filter-file {path}: {fixed!r} cannot be filtered on here")
    if filters.get("suffix", "T1w") != "T1w":
        raise UsageError(f"--bids-filter-file {path}: only the suffix T1w can be processed")
    return filters


def open_layout(root: Path, participants: Iterable[str], *, derivative: bool = False) -> Any:
    """Index the ``anat`` folders of some participants, and list no other folder below them.

    Parameters
    ----------
    root
        Root of the data set.
    participants
        Labels without ``sub-``.
    derivative
        Whether it is a derivative data set.

    Returns
    -------
    bids.layout.BIDSLayout
        Without metadata, and without files whose names are not UTF-8.

    Raises
    ------
    NoInputError
        If a folder cannot be read.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    labels = "|".join(re.escape(label) for label in participants)
    everything_else = re.compile(rf"^/(?!sub-({labels})(/ses-[^/]+)?(/anat(/[^/]+\.[^/]+)?)?$)")
    ignored = [everything_else, NOT_UTF8]
    try:
        return BIDSLayout(
            root,
            validate=False,
            derivatives=False,
            config=["bids", "derivatives"] if derivative else ["bids"],
            indexer=BIDSLayoutIndexer(validate=False, ignore=ignored, index_metadata=False),
        )
    except OSError as error:
        raise NoInputError(
            f"{error.filename or root} cannot be read: {error.strerror or error}; check its permissions"
        ) from error
