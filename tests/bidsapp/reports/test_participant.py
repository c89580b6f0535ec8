"""The participant's page: complete, self-contained, and there when things went wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperprep.bidsapp.reports.inline import assets
from hyperprep.bidsapp.reports.participant import write_participant_report
from hyperprep.exceptions import OutputError

SECTIONS = ["Summary", "Alignment", "Segmentation", "Deformation", "Lambda", "About"]
RUN = "20260101-000000_abc"


@pytest.fixture
def write(settings) -> Callable[..., str]:
    """Write a participant's page and read it: ``write(output_dir, subject, errors)``."""

    def page(out: Path, subject: str = "01", errors: tuple[str, ...] = ()) -> str:
        path = write_participant_report(out, subject, run_uuid=RUN, settings=settings, errors=errors)
        assert path == out / f"sub-{subject.removeprefix('sub-')}.html"
        return path.read_text(encoding="utf-8")

    return page


def test_sections_come_in_order_with_the_summary_first(derivatives, write):
    page = write(derivatives())
    assert re.findall(r'<h2 id="(\w+)-heading">', page) == SECTIONS
    assert re.findall(r'<a href="#(\w+)">\1</a>', page)[:6] == SECTIONS
    assert page.index("processed without warnings") < page.index("Key figures") < page.index('class="layer')


def test_the_page_needs_nothing_but_itself_and_is_small(derivatives, write):
    out = derivatives(sessions=("1", "2"))
    page = write(out)
    assert assets(page) == []
    assert not re.search(r"(src|data)=\"(?!data:)[^\"#]", re.sub(r"data-\w+=", "", page))
    assert "jsdelivr" not in page
    assert "jquery" not in page
    assert len(page.encode()) < 8_000_000
    assert page.count("<svg") == 10  # alignment, segmentation, grid, Jacobian, slider of two sessions
    assert page.count('src="data:image/svg+xml,') == 2  # the curves
    assert "Get figure file" not in page


def test_sessions_are_told_apart_and_in_order(derivatives, write):
    page = write(derivatives(sessions=("post", "pre")))
    assert re.findall(r'<h3 class="hp-scan">(.*?)</h3>', page) == ["Session post", "Session pre"] * 4
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Session post", "Session pre"]
    assert page.count('<a href="#Alignment-') == 2


def test_the_figures_on_disk_stay_as_they_were(derivatives, write):
    out = derivatives()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    first = write(out)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in out.rglob("*") if path.is_file()} - {path.name for path in before} == {
        "sub-01.html"
    }
    when = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert when.sub("", write(out)) == when.sub("", first)


def test_a_participant_whose_label_begins_alike_does_not_get_in(derivatives, write):
    derivatives("011", dice_mean=0.111)
    out = derivatives("01")
    assert "0.111" not in write(out)
    assert "sub-011" not in write(out, "sub-01")


def test_warnings_are_counted_at_the_top(derivatives, write):
    page = write(derivatives(sessions=("1", "2"), dice_mean=0.3, folding_percent=2.0))
    assert "2 scans were processed. There are 4 warnings: read below first." in page


def test_settings_weights_versions_and_methods_are_told(derivatives, write):
    out = derivatives()
    (out / "logs").mkdir()
    (out / "logs" / "CITATION.html").write_text("<html><body><p>Done with (Doe 2020).</p></body></html>")
    page = write(out)
    assert "<code>/data/in put</code>" in page
    assert "weights_dir" not in page
    assert re.search(r"segment</th><td><code>(ab){32}</code>", page)
    assert re.search(r"nireports</th><td><code>\d+\.\d+", page)
    assert "<p>Done with (Doe 2020).</p>" in page
    assert RUN in page


def test_a_participant_that_failed_has_a_page_that_says_what_and_what_to_do(tmp_path, write):
    out = tmp_path / "out"
    log = out / "sub-02" / "log" / RUN
    log.mkdir(parents=True)
    (log / "crash-1.txt").write_text(
        "Node: wf.conform\n\nTraceback (most recent call last):\nScanError: <empty>\n"
    )
    (log / "inputs.json").write_text(
        '{"remarks": ["Two T1w were found; run-1 is used"], "validator": ["no README"]}'
    )
    page = write(out, "02", ("step conform failed: the scan is constant & <empty>",))
    assert "sub-02 did not finish. One thing failed:" in page
    assert "the scan is constant &amp; &lt;empty&gt;" in page
    assert "What to do:" in page
    assert (
        "Not in this report: summary, alignment, segmentation, warped grid, Jacobian map, λ curve, " in page
    )
    assert "<summary>wf.conform</summary>" in page
    assert "ScanError: &lt;empty&gt;" in page
    assert "Two T1w were found; run-1 is used" in page
    assert "no README" in page
    assert assets(page) == []


def test_crash_files_count_where_no_reason_is_given(tmp_path, write):
    log = tmp_path / "sub-02" / "log" / RUN
    log.mkdir(parents=True)
    (log / "crash-1.txt").write_text("Node: wf.register\n")
    assert "wf.register crashed" in write(tmp_path, "02")


def test_failure_with_figures_shows_both(derivatives, write):
    out = derivatives()
    for name in ("grid", "jacobian", "curve", "slider"):
        (out / "sub-01" / "figures" / f"sub-01_desc-{name}_T1w.svg").unlink()
    page = write(out, errors=("step register failed: no memory",))
    assert "Not in this report: warped grid, Jacobian map, λ curve, registration at every λ." in page
    assert re.findall(r'<h2 id="(\w+)-heading">', page) == ["Summary", "Alignment", "Segmentation", "About"]


def test_a_report_written_again_without_all_figures_does_not_claim_success(derivatives, write):
    out = derivatives()
    (out / "sub-01" / "figures" / "sub-01_desc-curve_T1w.svg").unlink()
    page = write(out)
    assert "This report is not complete." in page
    assert "Not in it: λ curve." in page
    assert "without warnings" not in page


def test_nothing_at_all_is_said_plainly(tmp_path, write):
    assert "There is nothing to show." in write(tmp_path)


def test_a_figure_that_fetches_something_is_refused_and_the_old_page_kept(derivatives, write):
    out = derivatives()
    before = write(out)
    figure = out / "sub-01" / "figures" / "sub-01_desc-grid_T1w.svg"
    figure.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg">\n<image href="http://example.org/a.png"/></svg>'
    )
    with pytest.raises(
        OutputError, match=r"would not open offline: it refers to image href=http://example\.org"
    ):
        write(out)
    assert (out / "sub-01.html").read_text() == before


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<img src="a.png">', 1),
        ('<img srcset="a.png 2x">', 1),
        ('<script src="https://x.org/a.js"></script>', 1),
        ('<link rel="stylesheet" href="//cdn/x.css">', 1),
        ('<object data="./a.svg"></object>', 1),
        ('<svg><image xlink:href="a.png"/><use href="#ok"/></svg>', 1),
        ("<style>@import 'a.css'; p {background: url('b.png')}</style>", 2),
        ('<p style="background:url(b.png)">', 1),
        ('<a href="https://doi.org/1">cite</a><img src="data:image/png;base64,AA"><p data-x="1">', 0),
        ("<p>src=&quot;a.png&quot; and url(b.png) in words</p>", 0),
    ],
)
def test_assets_are_found_wherever_they_hide(html, found):
    assert len(assets(html)) == found


def test_a_report_written_again_still_says_what_failed(derivatives, write):
    out = derivatives(sessions=("1", "2"))
    log = out / "sub-01" / "log" / "20200101-000000_earlier"
    log.mkdir(parents=True)
    (log / "inputs.json").write_text('{"problems": ["ses-3: the scan is empty"]}')
    (log / "crash-1.txt").write_text("Node: wf.register\n\nTraceback\n")
    page = write(out)
    assert "sub-01 did not finish. 2 things failed:" in page
    assert "ses-3: the scan is empty" in page
    assert "wf.register crashed" in page


def test_a_figure_that_one_session_lacks_is_missed(derivatives, write):
    out = derivatives(sessions=("1", "2"))
    (out / "sub-01" / "figures" / "sub-01_ses-2_desc-grid_T1w.svg").unlink()
    assert "warped grid" in write(out).split('id="Alignment"')[0]
