"""The lambda of a whole cohort, from the curves of its sessions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hyperprep.bidsapp.description import write_atomically
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.models.predict.cohort import CohortLambda, cohort_lambda
from hyperprep.workflows.settings import TO_SESSION

TABLE = "group_lambda.tsv"
_CURVES = "*_desc-lambda_xfm.tsv"

_COLUMNS = {
    "region": "Structures whose overlap with the template counts; all: mean of all structures",
    "lambda": "Regularisation weight with the highest mean overlap of the cohort",
    "dice_mean": "Mean overlap of the cohort at that weight (network alone)",
    "dice_sd": "Standard deviation of that overlap over the scans",
    "own_lambda_median": "Median of each scan's own best weight",
    "own_lambda_min": "Smallest of them",
    "own_lambda_max": "Largest of them",
    "scans": "Number of scans with a curve",
}


def write_cohort_lambda(
    output_dir: Path, labels: Sequence[str], sessions: Sequence[str] = ()
) -> float | None:
    """Find the lambda of the cohort, overall and per group of structures, and write ``group_lambda.tsv``.

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
    float or None
        Lambda for all structures together; None where no scan has a curve of several lambdas.
    """
    curves = [
        curve
        for path in _curve_files(output_dir, labels, sessions)
        if (curve := read_curve(path)) is not None
    ]
    names = dict.fromkeys(
        name.removeprefix("dice_") for curve in curves for name in curve if name.startswith("dice_")
    )
    found = [one for name in names if (one := cohort_lambda(curves, name)) is not None]
    if not found:
        return None
    table = pd.DataFrame([_row(one) for one in found])
    path = output_dir / TABLE
    write_atomically(path, table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n"))
    described = {name: {"Description": text} for name, text in _COLUMNS.items()}
    write_atomically(path.with_suffix(".json"), json.dumps(described, indent=2) + "\n")
    return next((one.lam for one in found if one.region == "all"), None)


def _row(found: CohortLambda) -> dict[str, object]:
    at = round(100 * found.lam)
    own = pd.Series(found.own)
    return {
        "region": found.region,
        "lambda": found.lam,
        "dice_mean": round(float(found.mean[at]), 4),
        "dice_sd": round(float(found.sd[at]), 4),
        "own_lambda_median": round(float(own.median()), 3),
        "own_lambda_min": own.min(),
        "own_lambda_max": own.max(),
        "scans": found.pairs,
    }


def _curve_files(output_dir: Path, labels: Sequence[str], sessions: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for label in labels:
        subject = output_dir / f"sub-{label}"
        files += sorted(subject.glob(f"anat/{_CURVES}"))
        for path in sorted(subject.glob(f"ses-*/anat/{_CURVES}")):
            if not sessions or path.parent.parent.name.removeprefix("ses-") in sessions:
                files.append(path)
    return [path for path in files if not TO_SESSION.search(path.name)]


def read_curve(path: Path) -> dict[str, np.ndarray] | None:
    """Read a table of figures by lambda; columns with a value that is no number are left out.

    Parameters
    ----------
    path
        TSV file with a header.

    Returns
    -------
    dict or None
        Columns by name, ``chosen`` left out; None where the table has no ``lam`` or cannot be read.
    """
    try:
        names, *rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
        columns = {
            name: np.array([_number(cell) for cell in cells])
            for name, *cells in zip(names, *rows, strict=True)
            if name != "chosen"
        }
    except (OSError, ValueError) as error:
        LOGGER.warning("%s cannot be read (%s) and is left out", path, error)
        return None
    if "lam" not in columns:
        return None
    return {name: values for name, values in columns.items() if np.isfinite(values).all()}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
