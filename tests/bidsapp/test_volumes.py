"""The group's table of volumes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hyperprep.bidsapp.volumes import TABLE, write_volumes

HEADER = "index\tname\tvolume_mm3\trelative_volume\texpected_dice\n"


def store(root: Path, folder: str, stem: str, text: str) -> None:
    """Write one scan's table of volumes."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / f"{stem}_seg-hyperprep_desc-volumes_dseg.tsv").write_text(text)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = "17\tLeft-Hippocampus\t{}\t1.1\t0.8\n30000\tEstimatedTotalIntraCranialVol\t1500000.0\tn/a\tn/a\n"
    store(tmp_path, "sub-01/ses-a/anat", "sub-01_ses-a", HEADER + rows.format("3000.5"))
    store(tmp_path, "sub-01/ses-b/anat", "sub-01_ses-b", HEADER + rows.format("n/a"))
    store(tmp_path, "sub-02/anat", "sub-02", HEADER + "18\tLeft-Amygdala\t1200.0\t1.0\t0.7\n")
    return tmp_path


def test_each_scan_is_a_row_and_each_structure_a_column(results: Path) -> None:
    assert write_volumes(results, ["01", "02"]) == results / TABLE
    table = pd.read_csv(results / TABLE, sep="\t", keep_default_na=False)
    assert table["scan"].tolist() == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert table["session_id"].tolist() == ["ses-a", "ses-b", "n/a"]
    assert table["Left-Hippocampus"].tolist() == ["3000.5", "n/a", "n/a"]
    assert table["EstimatedTotalIntraCranialVol"].tolist() == ["1500000.0", "1500000.0", "n/a"]
    described = json.loads((results / TABLE).with_suffix(".json").read_text())
    assert set(described) == set(table.columns)
    assert described["Left-Amygdala"]["Units"] == "mm^3"


def test_participants_and_sessions_can_be_chosen(results: Path) -> None:
    write_volumes(results, ["01"], ["b"])
    assert pd.read_csv(results / TABLE, sep="\t")["scan"].tolist() == ["sub-01_ses-b"]


def test_a_broken_table_is_left_out_and_none_is_no_table(results: Path, tmp_path: Path) -> None:
    store(results, "sub-02/anat", "sub-02", HEADER + "18\tLeft-Amygdala\tmany\t1.0\t0.7\n")
    write_volumes(results, ["01", "02"])
    assert pd.read_csv(results / TABLE, sep="\t")["participant_id"].unique().tolist() == ["sub-01"]
    assert write_volumes(tmp_path / "empty", ["01"]) is None
