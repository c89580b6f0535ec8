"""The group page: what is a column, what is an outlier, and that nothing needs the network."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from hyperprep.bidsapp.reports.group import columns_of, marks_of, robust_z, write_group_page
from hyperprep.bidsapp.reports.inline import assets


def _rows(dice: list[float | None], session: str = "n/a", **more) -> list[dict]:
    return [
        {
            "participant_id": f"sub-{n:02d}",
            "session_id": session,
            "scan": f"sub-{n:02d}",
            "dice_mean": value,
            **more,
        }
        for n, value in enumerate(dice, start=1)
    ]


TYPICAL = [0.74, 0.75, 0.76, 0.77, 0.73, 0.75, 0.74]


def test_an_outlier_is_one_however_large_it_is():
    values = [*TYPICAL, 0.30]
    far = [abs(z) > 3 for z in robust_z(values)]
    assert far == [False] * 7 + [True]
    assert abs(robust_z([*TYPICAL, -1e9])[-1]) > 1e6  # it does not hide itself as with mean and sd


@pytest.mark.parametrize("values", [[0.1] * 8, [], [None, None], [0.1, 0.9, 0.5, 5.0]])
def test_no_outlier_without_spread_or_with_few_sessions(values):
    assert all(z == 0 for z in robust_z(values))


def test_one_value_among_equal_ones_is_far():
    assert robust_z([0.0] * 20 + [1.0])[-1] > 3


def test_key_figures_come_first_with_units_and_words_are_left_out():
    rows = _rows(TYPICAL, folding_percent=0.01, zeta_seconds=2.0, register_refine="ncc", alpha=None, ok=True)
    columns = columns_of(rows)
    assert [(c.measure.key, c.known) for c in columns] == [
        ("dice_mean", True), ("folding_percent", True), ("zeta_seconds", False)]  # fmt: skip
    assert columns[1].measure.unit == "%"
    assert columns[2].measure.label == "Zeta"


def test_figures_that_are_missing_or_not_finite_are_no_numbers(tmp_path):
    page = write_group_page(_rows([*TYPICAL, None, math.nan]), tmp_path / "group.html").read_text()
    assert page.count(">n/a</td>") == 2
    assert "nan" not in page.split("<body>")[1].split("<script>")[0]


def test_marks_count_figures_beyond_limits_and_failed_alignments():
    rows = _rows([*TYPICAL, 0.2], folding_percent=0.0)
    rows[0]["prealign_success"] = False
    columns = columns_of(rows)
    assert [marks_of(row, columns, number) for number, row in enumerate(rows)] == [1, 0, 0, 0, 0, 0, 0, 1]


def test_the_page_is_self_contained_and_links_to_pages_that_exist(tmp_path):
    (tmp_path / "sub-01.html").write_text("x")
    page = write_group_page(_rows([*TYPICAL, 0.2]), tmp_path / "group.html").read_text()
    assert assets(page) == []
    assert re.findall(r'<a href="(sub-[^"]+)">', page) == ["sub-01.html"]
    assert "8 scans of 8 participants" in page
    assert page.count("<circle") == 8
    assert "▼" in page.split("<tbody>")[1]
    assert "Outlier: robust z -" in page
    assert ">Session<" not in page


def test_sessions_get_a_column_where_there_are_some(tmp_path):
    page = write_group_page(_rows(TYPICAL, session="ses-pre"), tmp_path / "group.html").read_text()
    assert ">Session</button>" in page
    assert 'data-value="ses-pre">pre</td>' in page


def test_names_are_text_not_markup(tmp_path: Path):
    rows = [{"participant_id": 'sub-<b>"', "session_id": "n/a", "<i>": 1.0}]
    page = write_group_page(rows, tmp_path / "group.html").read_text()
    assert "<b>" not in page
    assert "<i>" not in page


def test_few_sessions_and_no_figure_still_make_a_page(tmp_path):
    page = write_group_page([{"participant_id": "sub-01"}], tmp_path / "new" / "group.html").read_text()
    assert "1 scan of 1 participant<" in page
    assert "none is called with fewer than 5 scans" in page


def test_a_thousand_sessions_stay_within_bounds(tmp_path):
    path = write_group_page(_rows([0.7 + 0.0001 * n for n in range(1000)], lam=0.1), tmp_path / "group.html")
    assert path.stat().st_size < 2_000_000
