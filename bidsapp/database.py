"""A PyBIDS database of a whole data set: checked, used, or made for this and later runs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.places import check_writable
from hyperprep.exceptions import OutputError, UsageError

#: Name that PyBIDS gives the file.
FILE_NAME = "layout_index.sqlite"


def check_database(settings: Settings) -> None:
    """Check that the database asked for can be used, or made.

    Raises
    ------
    UsageError
        If it is no PyBIDS database, or one of another data set.
    OutputError
        If it would have to be made in the input, or cannot be written.
    """
    folder = settings.bids_database_dir
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--bids-database-dir {folder} is a file; give the folder that holds {FILE_NAME}")
    file = folder / FILE_NAME
    if file.exists():
        root = _root_of(file)
        if root.resolve() != settings.bids_dir.resolve():
            raise UsageError(
                f"--bids-database-dir {folder} is a database of {root}, not of {settings.bids_dir}; give "
                "another folder, or a new one to have it made there"
            )
        return
    _check_place(folder, settings.bids_dir)


def _check_place(folder: Path, bids_dir: Path) -> None:
    """Check that a new database may be made in a folder."""
    source = bids_dir.resolve()
    if source in (folder.resolve(), *folder.resolve().parents):
        raise OutputError(
            f"--bids-database-dir {folder} holds no {FILE_NAME} and lies inside the input, where nothing is "
            "written; choose a folder elsewhere"
        )
    check_writable(folder, "database")
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise UsageError(
            f"--bids-database-dir {folder} is no PyBIDS database: it holds {', '.join(others[:3])} and no "
            f"{FILE_NAME}; give the folder of a database, or a new one to have it made there"
        )


def _root_of(file: Path) -> Path:
    """Read which data set a database was made of.

    Raises
    ------
    UsageError
        If the file is no PyBIDS database.
    """
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT root FROM layout_info").fetchone()
    except sqlite3.Error as error:
        raise UsageError(
            f"--bids-database-dir: {file} is no PyBIDS database that can be read ({error}); delete it to "
            "have it made again, or give another folder"
        ) from error
    if row is None:
        raise UsageError(f"--bids-database-dir: {file} was never finished; delete it to have it made again")
    return Path(row[0].removeprefix("file://"))


def open_database(root: Path, folder: Path) -> Any:
    """Open the database of a data set; make it first where there is none.

    A new one appears under its name only when it is complete. It holds the metadata too, so that other
    programs can use it.

    Parameters
    ----------
    root
        Root of the data set.
    folder
        Folder of the database.

    Returns
    -------
    bids.layout.BIDSLayout
        Of the whole data set.

    Raises
    ------
    UsageError
        If PyBIDS cannot load the database, or cannot index the data set.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    try:
        if not (folder / FILE_NAME).exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
                BIDSLayout(
                    root,
                    validate=False,
                    derivatives=False,
                    config=["bids"],
                    database_path=scratch,
                    reset_database=True,
                    indexer=BIDSLayoutIndexer(validate=False),
                ).session.close()
                os.replace(Path(scratch) / FILE_NAME, folder / FILE_NAME)
        return BIDSLayout(root, validate=False, database_path=folder)
    except Exception as error:  # PyBIDS and SQLAlchemy raise many kinds
        raise UsageError(
            f"--bids-database-dir {folder}: PyBIDS cannot use it for {root} ({type(error).__name__}: "
            f"{error}); give a new folder, or leave the option out"
        ) from error


def differences(layout: Any, root: Path, label: str) -> tuple[list[Path], list[Path]]:
    """Compare what a database knows of a participant's T1w images with what is on disk.

    Parameters
    ----------
    layout
        What :func:`open_database` gives.
    root
        Root of the data set.
    label
        Participant, without ``sub-``.

    Returns
    -------
    tuple of list of Path
        Images that are in the database only, and those that are on disk only.
    """
    found = layout.get(subject=label, suffix="T1w", datatype="anat", scope="self")
    known = {
        in_dataset(image.path, layout.root, root)
        for image in found
        if image.filename.endswith((".nii", ".nii.gz"))
    }
    subject = root / f"sub-{label}"
    there = {path for where in ("anat", "ses-*/anat") for path in subject.glob(f"{where}/*_T1w.nii*")}
    there = {path for path in there if path.name.endswith((".nii", ".nii.gz"))}
    return sorted(known - there), sorted(there - known)


def in_dataset(path: str, layout_root: str, root: Path) -> Path:
    """Write a path of a layout as one below the data set's root as the user gave it.

    Examples
    --------
    >>> in_dataset("/mnt/data/sub-01/anat/sub-01_T1w.nii.gz", "/mnt/data", Path("/data")).as_posix()
    '/data/sub-01/anat/sub-01_T1w.nii.gz'
    """
    one = Path(path)
    return root / one.relative_to(layout_root) if one.is_relative_to(layout_root) else one
