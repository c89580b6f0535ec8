"""Statistics of the data set's own controls, which topology-change maps are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np

from hyperprep.bidsapp.cli.types import participant
from hyperprep.bidsapp.logs import LOGGER
from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.spatial.controls import ControlStatistics, control_statistics
from hyperprep.models.spatial.grids import Grid

STATISTICS = "group_topology.npz"
_SCORES = "*_space-*_desc-score_topology.nii.gz"
_FEW = 10


def read_controls(path: Path) -> tuple[str, ...]:
    r"""Read the labels of control participants: one per line; ``#`` begins a remark.

    Raises
    ------
    UsageError
        If a line is no label, or there is none.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "controls.txt"
    >>> _ = path.write_text("sub-01\n02  # left-handed\n\n")
    >>> read_controls(path)
    ('01', '02')
    """
    from argparse import ArgumentTypeError

    words = [line.split("#", 1)[0].strip() for line in path.read_text().splitlines()]
    try:
        labels = tuple(dict.fromkeys(participant(word) for word in words if word))
    except ArgumentTypeError as error:
        raise UsageError(f"--controls {path}: {error}") from error
    if not labels:
        raise UsageError(f"--controls {path} lists no participant: write one label per line.")
    return labels


def write_controls(output_dir: Path, listed: Path) -> ControlStatistics:
    """Make ``group_topology.npz`` of the maps of the control participants; one map per participant counts.

    Parameters
    ----------
    output_dir
        Root of the derivatives.
    listed
        File that lists the controls.

    Raises
    ------
    NoInputError
        If a control has no map.
    UsageError
        If the list is wrong, too short, or the maps were made by different weights.
    """
    labels = read_controls(listed)
    files = {label: _score_of(output_dir, label) for label in labels}
    missing = [f"sub-{label}" for label, path in files.items() if path is None]
    if missing:
        raise NoInputError(
            f"--controls: {', '.join(missing)} have no topology-change map in {output_dir}: run the "
            "participant level with --topology for them first."
        )
    images = [nb.load(path) for path in files.values() if path is not None]
    digests = {_digest(path) for path in files.values() if path is not None}
    if len(digests) > 1:
        raise UsageError(
            "--controls: the maps were made with different weights: run the participant level again for all."
        )
    scores = [np.asanyarray(img.dataobj, dtype=np.float32) for img in images]
    if len({score.shape for score in scores}) > 1:
        raise UsageError(
            "--controls: the maps lie on different grids: run the participant level again for all."
        )
    mask = np.mean([score != 0 for score in scores], axis=0) > 0.5
    names = [f"sub-{label}" for label in labels]
    spaces = {path.name.partition("_space-")[2].split("_")[0] for path in files.values() if path is not None}
    if len(spaces) > 1:
        raise UsageError(f"--controls: the maps lie in different spaces ({', '.join(sorted(spaces))}).")
    made = control_statistics(
        scores,
        mask,
        Grid.of(images[0]),
        controls=names,
        weights_sha256=digests.pop(),
        reference=spaces.pop(),
    )
    made.save(output_dir / STATISTICS)
    if len(names) < _FEW:
        LOGGER.warning("only %d controls: their spread is uncertain, ten or more are wanted", len(names))
    return made


def _score_of(output_dir: Path, label: str) -> Path | None:
    """Find the map of a participant's first session."""
    subject = output_dir / f"sub-{label}"
    found: Sequence[Path] = sorted([*subject.glob(f"anat/{_SCORES}"), *subject.glob(f"ses-*/anat/{_SCORES}")])
    return found[0] if found else None


def _digest(path: Path) -> str:
    sidecar = path.with_name(path.name.split(".", 1)[0] + ".json")
    try:
        return str(json.loads(sidecar.read_text()).get("WeightsSHA256", ""))
    except (OSError, ValueError) as error:
        raise NoInputError(f"--controls: the sidecar {sidecar} cannot be read ({error}).") from error
