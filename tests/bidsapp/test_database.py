"""A PyBIDS database is made once, used again, and refused where it is none or another data set's."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.database import FILE_NAME, check_database
from hyperprep.bidsapp.query import find_inputs
from hyperprep.exceptions import OutputError, UsageError

Maker = Callable[..., Path]
EVERYBODY = ("01", "02", "03")


@pytest.fixture
def with_database(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a database in a folder that is not there yet."""
    return replace(settings, bids_database_dir=tmp_path / "the database")


def test_it_is_made_then_used(
    with_database: Settings, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_database.bids_database_dir
    assert folder is not None
    check_database(with_database)
    first = find_inputs(with_database, EVERYBODY)
    assert first == find_inputs(settings, EVERYBODY)
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    before = (folder / FILE_NAME).read_bytes()
    monkeypatch.setattr("bids.layout.BIDSLayoutIndexer.__call__", lambda *_: pytest.fail("indexed again"))
    check_database(with_database)
    assert find_inputs(with_database, EVERYBODY) == first
    assert (folder / FILE_NAME).read_bytes() == before


def test_it_holds_the_whole_data_set_with_metadata(
    with_database: Settings, dataset: Path, make_scan: Maker
) -> None:
    from bids.layout import BIDSLayout

    make_scan(dataset / "sub-02/func/sub-02_task-rest_bold.nii.gz")
    (dataset / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0}')
    make_scan(dataset / "derivatives/other/sub-02/anat/sub-02_T1w.nii.gz")
    check_database(with_database)
    (one,) = find_inputs(with_database, ("02",))
    assert [session.scan.t1w for session in one.sessions] == [dataset / "sub-02/anat/sub-02_T1w.nii.gz"]
    layout = BIDSLayout(dataset, database_path=with_database.bids_database_dir)
    (bold,) = layout.get(suffix="bold", extension=".nii.gz")
    assert bold.get_metadata()["RepetitionTime"] == 2.0


def test_what_changed_since_is_said(with_database: Settings, dataset: Path, make_scan: Maker) -> None:
    check_database(with_database)
    find_inputs(with_database, ("02",))
    (dataset / "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz").unlink()
    new = make_scan(dataset / "sub-01/ses-third/anat/sub-01_ses-third_T1w.nii.gz")
    (one,) = find_inputs(with_database, ("01",))
    gone = "sub-01_ses-pre_T1w.nii.gz is in the database of --bids-database-dir but not on disk; delete "
    assert any(gone in remark for remark in one.remarks)
    assert any(f"{new} is not in the database" in remark for remark in one.remarks)
    shutil.rmtree(dataset / "sub-03")
    make_scan(dataset / "sub-04/anat/sub-04_T1w.nii.gz")
    (four,) = find_inputs(with_database, ("04",))
    assert "sub-04 has no T1w image with --bids-database-dir" in four.problems[0]


def test_a_data_set_seen_through_a_link_is_the_same(
    with_database: Settings, dataset: Path, tmp_path: Path
) -> None:
    check_database(with_database)
    (direct,) = find_inputs(with_database, ("01",))
    link = tmp_path / "link"
    link.symlink_to(dataset)
    through = replace(with_database, bids_dir=link)
    check_database(through)
    (one,) = find_inputs(through, ("01",))
    assert [s.scan.t1w.relative_to(link) for s in one.sessions] == [
        s.scan.t1w.relative_to(dataset) for s in direct.sessions
    ]


def test_another_data_sets_database_is_refused(
    with_database: Settings, dataset: Path, tmp_path: Path
) -> None:
    check_database(with_database)
    find_inputs(with_database, ("01",))
    shutil.copytree(dataset, tmp_path / "other")
    with pytest.raises(UsageError, match=r"is a database of .*my data, not of .*other; give another"):
        check_database(replace(with_database, bids_dir=tmp_path / "other"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.write_text("x"), "is a file; give the folder"),
        (lambda folder: folder.mkdir() or (folder / "notes").touch(), "holds notes and no layout"),
        (lambda folder: folder.mkdir() or (folder / FILE_NAME).write_text("x" * 200), "is not a database"),
        (lambda folder: folder.mkdir() or (folder / FILE_NAME).touch(), "no such table: layout_info"),
        (lambda folder: folder.mkdir() or _unfinished(folder / FILE_NAME), "was never finished; delete it"),
    ],
)
def test_what_is_no_database_is_refused(
    with_database: Settings, make: Callable[[Path], object], message: str
) -> None:
    assert with_database.bids_database_dir is not None
    make(with_database.bids_database_dir)
    with pytest.raises(UsageError, match=message):
        check_database(with_database)


def _unfinished(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE layout_info (root TEXT)")
    connection.close()


def test_none_is_made_inside_the_input(settings: Settings, dataset: Path) -> None:
    with pytest.raises(OutputError, match="lies inside the input, where nothing is written"):
        check_database(replace(settings, bids_database_dir=dataset / "code/db"))
    assert not (dataset / "code").exists()


def test_a_database_that_was_not_finished_leaves_nothing(
    with_database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no way")

    check_database(with_database)
    monkeypatch.setattr("bids.layout.BIDSLayoutIndexer.__call__", fail)
    with pytest.raises(UsageError, match=r"PyBIDS cannot use it for .* no way"):
        find_inputs(with_database, ("01",))
    assert with_database.bids_database_dir is not None
    assert list(with_database.bids_database_dir.iterdir()) == []
