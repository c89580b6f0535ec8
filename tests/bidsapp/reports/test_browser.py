"""The pages in a real browser, offline: nothing is fetched, everything that can be pressed works."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperprep.bidsapp.reports.group import write_group_page
from hyperprep.bidsapp.reports.participant import write_participant_report


@pytest.fixture
def report(derivatives, settings) -> Path:
    out = derivatives(sessions=("1", "2"), dice_mean=0.3)
    return write_participant_report(out, "01", run_uuid="run", settings=settings, errors=())


def test_headings_figures_and_navigation(visit, report):
    page = visit(report)
    assert page.title() == "HyperPrep: sub-01"
    assert page.locator("h2").all_inner_texts() == [
        "Summary", "Alignment", "Segmentation", "Deformation", "Lambda", "About"]  # fmt: skip
    widths = page.evaluate(
        "Array.from(document.querySelectorAll('.hp-figure svg, .hp-figure img'), e => e.clientWidth)"
    )
    assert len(widths) == 12
    assert min(widths) > 1000
    loaded = page.evaluate("Array.from(document.querySelectorAll('img'), e => e.naturalWidth)")
    assert min(loaded) > 0
    cards = page.locator(".hp-session")
    left, right = cards.nth(0).bounding_box(), cards.nth(1).bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name="Segmentation", exact=True).click()
    assert page.evaluate("location.hash") == "#Segmentation"


def test_images_flicker_on_hover_and_by_buttons(visit, report):
    page = visit(report)
    figure = page.locator(".hp-flicker").first
    tools = page.locator(".hp-tools").first
    state = "e => getComputedStyle(e.querySelector('.layer.top')).animationPlayState"
    opacity = "e => Array.from(e.querySelectorAll('.layer'), l => getComputedStyle(l).opacity)"
    assert figure.evaluate(state) == "paused"
    assert figure.evaluate(opacity) == ["1", "0", "1"]
    figure.hover(position={"x": 300, "y": 60})
    assert figure.evaluate(state) == "running"
    page.mouse.move(5, 5)
    show = tools.get_by_role("button", name="Scan after affine")
    show.focus()
    page.keyboard.press("Enter")
    assert figure.evaluate(opacity) == ["0", "1", "0"]
    assert show.get_attribute("aria-pressed") == "true"
    tools.get_by_role("button", name="template ↔ affine").click()
    assert figure.evaluate(state) == "running"
    assert figure.evaluate("e => e.querySelector('.layer.top').dataset.label") == "Scan after affine"
    assert figure.evaluate("e => e.querySelector('.layer.base').dataset.label") == "Template"
    outlines = tools.get_by_role("button", name="Outlines")
    outlines.click()
    assert not figure.locator(".guides").is_visible()


def test_the_slider_moves_everything_by_mouse_and_by_keyboard(visit, report):
    page = visit(report)
    figure = page.locator(".hp-slider").first
    slider = page.locator("input[type=range]").first
    shown = page.locator(".hp-tools output").first
    visible = "e => Array.from(e.querySelectorAll('.step'), s => getComputedStyle(s).display !== 'none')"
    assert figure.evaluate(visible) == [False, True, False]
    assert shown.inner_text() == "λ = 0.40 (taken)"
    before = figure.screenshot()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert figure.evaluate(visible) == [True, False, False]
    assert shown.inner_text() == "λ = 0.00"
    assert slider.get_attribute("aria-valuetext").startswith("λ = 0.00 · Dice 0.600")
    moved = figure.screenshot()
    assert moved != before, "the picture did not change"
    page.keyboard.press("End")
    assert figure.evaluate(visible) == [False, False, True]
    assert figure.screenshot() not in (before, moved)
    page.get_by_role("button", name="λ taken").first.click()
    assert figure.evaluate(visible) == [False, True, False]
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    assert figure.evaluate(visible) == [True, False, False]
    grid = page.locator(".hp-tools", has=page.locator("input")).first.get_by_role("button", name="Grid")
    assert figure.locator(".step.on .grid").first.is_visible()
    grid.click()
    assert not figure.locator(".step.on .grid").first.is_visible()


def test_a_figure_fills_the_window_until_escape_and_can_be_saved(visit, report):
    page = visit(report)
    page.get_by_role("button", name="Enlarge").nth(2).click()
    assert page.locator(".hp-wide").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".hp-wide").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").nth(2).click()
    assert download.value.suggested_filename == "sub-01_ses-1_desc-segmentation_T1w.svg"


@pytest.fixture
def group(tmp_path) -> Path:
    dice = [0.75, 0.74, 0.3, 0.76, 0.77, 0.73, None]
    rows = [
        {
            "participant_id": f"sub-{n}",
            "session_id": f"ses-{n % 2}",
            "dice_mean": value,
            "seconds": 100.0 - n * 9,
            "extra_ml": float(n),
        }
        for n, value in enumerate(dice, start=5)
    ]
    return write_group_page(rows, tmp_path / "group.html")


def _column(page, number: int) -> list[str]:
    return page.locator(f"tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_the_table_sorts_by_every_column_and_by_keyboard(visit, group):
    page = visit(group)
    head = page.get_by_role("button", name="Dice after deformation")
    head.click()
    assert [text.split()[-1] for text in _column(page, 4)] == [
        "0.300", "0.730", "0.740", "0.750", "0.760", "0.770", "n/a"]  # fmt: skip
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Dice")
    head.focus()
    page.keyboard.press("Enter")
    assert _column(page, 4)[0] == "0.770"
    assert _column(page, 4)[-1] == "n/a"  # what is missing stays last
    page.get_by_role("button", name="Participant").click()
    assert _column(page, 1) == [f"sub-{n}" for n in range(5, 12)]  # 9 before 10
    page.get_by_role("button", name="Computing time").click()
    assert _column(page, 1)[0] == "sub-11"


def test_the_table_is_filtered_and_further_figures_are_folded_away(visit, group):
    page = visit(group)
    assert not page.get_by_role("button", name="Extra").is_visible()
    page.get_by_label("all figures").check()
    assert page.get_by_role("button", name="Extra (mL)").is_visible()
    page.get_by_label("only marked scans").check()
    assert _column(page, 1) == ["sub-7"]
    assert page.get_by_role("status").inner_text() == "1 of 7 scans shown"
    page.get_by_label("only marked scans").uncheck()
    page.get_by_label("Find").fill("SUB-1")
    assert _column(page, 1) == ["sub-10", "sub-11"]
    page.locator("tbody tr:visible").first.hover()
    assert page.locator("circle.here").count() == 3
