"""The folders a run reads from and writes to: apart from each other, writable, not full."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hyperprep.bidsapp.config import Settings
from hyperprep.exceptions import OutputError, WeightsError
from hyperprep.models.weights.resolver import MANIFEST

#: Less free space than this (GB) cannot hold the intermediate results of one scan.
MIN_FREE_GB = 1.0


def check_locations(settings: Settings) -> None:
    """Check that nothing would be written into the input.

    Raises
    ------
    OutputError
        If the output or working folder is, or lies inside, the input; an output below its
        ``derivatives`` is allowed.
    """
    source = settings.bids_dir.resolve()
    output, work = settings.output_dir.resolve(), settings.work_dir.resolve()
    if output == source:
        raise OutputError(
            f"the output folder is the input folder {source}; choose another, for example "
            f"{settings.bids_dir / 'derivatives' / 'hyperprep'}"
        )
    if source in output.parents and output.relative_to(source).parts[0] != "derivatives":
        raise OutputError(
            f"the output folder {output} lies inside the input; only a folder below "
            f"{source / 'derivatives'} may"
        )
    if output in source.parents and output != Path(output.anchor):
        inside = source.relative_to(output).parts[0]
        if inside.startswith("sub-"):
            raise OutputError(f"the input {source} lies inside a participant's folder of the output {output}")
    if work == source or (source in work.parents and output not in (work, *work.parents)):
        raise OutputError(f"the working folder {work} lies inside the input {source}; choose another by -w")
    if work == output:
        raise OutputError(f"the working folder and the output folder are both {work}; choose another by -w")


def check_writable(folder: Path, name: str) -> None:
    """Check that a folder can be made and written to, and that its disk is not full.

    Parameters
    ----------
    folder
        Folder that need not exist; afterwards it does.
    name
        What it is called in the message.

    Raises
    ------
    OutputError
        With the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"the {name} folder {folder} cannot be written: {reason}; choose another"
        ) from error
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < MIN_FREE_GB:
        raise OutputError(
            f"only {free_gb:.2f} GB are free for the {name} folder {folder}, and at least {MIN_FREE_GB:g} GB "
            "are needed; free some or choose another disk"
        )


def check_weights_dir(weights_dir: Path | None) -> None:
    """Check that a folder of weights holds some.

    Raises
    ------
    WeightsError
        If it has no manifest.
    """
    if weights_dir is not None and not (weights_dir / MANIFEST).is_file():
        raise WeightsError(
            f"--weights-dir {weights_dir} has no {MANIFEST}, so nothing in it would be used; give the "
            "folder that the weights were exported to"
        )
