"""Comparing the sessions of a participant: their order, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hyperprep.bidsapp.cli.parser import parse_settings
from hyperprep.bidsapp.cohort import write_cohort_lambda
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import build_workflow
from hyperprep.bidsapp.group import quality_rows
from hyperprep.bidsapp.longitudinal import prepare_sessions
from hyperprep.bidsapp.preflight import Plan
from hyperprep.bidsapp.query import ParticipantInput, SessionInput, find_inputs
from hyperprep.exceptions import UsageError
from hyperprep.workflows.settings import Scan


def participant(*sessions: str) -> ParticipantInput:
    scans = [SessionInput(ses, Scan(Path(f"sub-01_ses-{ses}_T1w.nii.gz"))) for ses in sessions]
    return ParticipantInput("01", tuple(scans), remarks=("before",))


def order(made: ParticipantInput) -> list[str | None]:
    return [session.session for session in made.sessions]


def write_times(root: Path, rows: dict[str, str], column: str = "acq_time") -> None:
    folder = root / "sub-01"
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame({"session_id": list(rows), column: list(rows.values())})
    table.to_csv(folder / "sub-01_sessions.tsv", sep="\t", index=False)


def test_without_times_numbers_count_by_value(tmp_path: Path) -> None:
    made = prepare_sessions(participant("10", "2", "1", "m12", "m6"), tmp_path)
    assert order(made) == ["1", "2", "10", "m6", "m12"]
    assert made.remarks[0] == "before"
    assert made.remarks[1].startswith("registered to session 1: 2, 10, m6, m12 ")


def test_times_win_where_all_sessions_have_one(tmp_path: Path) -> None:
    write_times(tmp_path, {"ses-pre": "2001-02-03T10:00:00", "ses-post": "2001-02-04T10:00:00Z"})
    made = prepare_sessions(participant("post", "pre"), tmp_path)
    assert order(made) == ["pre", "post"]
    assert "acq_time in its sessions.tsv" in made.remarks[1]


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ({"ses-pre": "2001-02-03T10:00:00", "ses-post": "n/a"}, "acq_time"),
        ({"ses-pre": "2001-02-03T10:00:00"}, "acq_time"),
        ({"ses-pre": "2001-02-03", "ses-post": "2001-02-04"}, "age"),
    ],
)
def test_incomplete_times_do_not_count(tmp_path: Path, rows: dict[str, str], column: str) -> None:
    write_times(tmp_path, rows, column)
    made = prepare_sessions(participant("pre", "post"), tmp_path)
    assert order(made) == ["post", "pre"]
    assert "their labels" in made.remarks[1]


def test_one_session_is_told(tmp_path: Path) -> None:
    made = prepare_sessions(participant("1"), tmp_path)
    assert order(made) == ["1"]
    assert "only one session with a T1w image: it is processed as usual" in made.remarks[1]
    assert prepare_sessions(participant(), tmp_path).remarks == ("before",)


def test_the_option_reaches_the_graph(settings: Settings, dataset: Path) -> None:
    chosen = replace(settings, longitudinal=True)
    inputs = tuple(prepare_sessions(one, dataset) for one in find_inputs(chosen, ("01", "02")))
    workflow = build_workflow(chosen, Plan(participants=("01", "02")), inputs)
    names = [name for name in workflow.list_node_names() if "longitudinal_wf.register" in name]
    assert names == ["sub_01_wf.sub_01_ses_pre_longitudinal_wf.register"]
    plain = build_workflow(settings, Plan(participants=("01",)), find_inputs(settings, ("01",)))
    assert not any("longitudinal" in name for name in plain.list_node_names())


def test_the_option_is_one_of_the_participant_level() -> None:
    words = ["/in", "/out", "participant", "--longitudinal"]
    assert parse_settings(words).longitudinal
    assert parse_settings(words).as_options() == {"longitudinal": True}
    with pytest.raises(UsageError, match="compares sessions"):
        parse_settings([*words, "--subject-anatomical-reference", "first-lex"])
    with pytest.raises(UsageError, match="--longitudinal"):
        parse_settings(["/in", "/out", "group", "--longitudinal"])


def test_a_run_notes_for_the_report_what_is_compared(
    settings: Settings, app: object, clean_process: None
) -> None:
    code = app.run(  # type: ignore[attr-defined]
        [str(settings.bids_dir), str(settings.output_dir), "participant", "--longitudinal",
         "--skip-bids-validation", "--boilerplate-only", "-w", str(settings.work_dir), "--nprocs", "1"]
    )  # fmt: skip
    assert code == 0
    told = {
        path.parents[2].name: json.loads(path.read_text())["remarks"]
        for path in settings.output_dir.glob("sub-*/log/*/inputs.json")
    }
    assert any("registered to session post: pre" in remark for remark in told["sub-01"])
    assert any("only one session" in remark for remark in told["sub-02"])


def test_the_group_level_keeps_sessions_and_template_apart(tmp_path: Path) -> None:
    anat = tmp_path / "sub-01/ses-2/anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_ses-2_quality.json").write_text('{"lambda": 0.3}')
    (anat / "sub-01_ses-2_desc-longitudinal_quality.json").write_text('{"lambda": 0.6, "prealign_cost": 1}')
    assert quality_rows(tmp_path, "01") == [
        {"participant_id": "sub-01", "session_id": "ses-2", "scan": "sub-01_ses-2", "lambda": 0.3,
         "longitudinal_lambda": 0.6}
    ]  # fmt: skip
    for target, best in (("MNI", 0.2), ("ses1T1w", 0.8)):
        table = pd.DataFrame({"lam": [0.0, best, 1.0], "dice_all": [0.5, 0.9, 0.5]})
        name = f"sub-01_ses-2_from-T1w_to-{target}_mode-image_desc-lambda_xfm.tsv"
        table.to_csv(anat / name, sep="\t", index=False)
    assert write_cohort_lambda(tmp_path, ["01"]) == pytest.approx(0.2)


def test_the_report_has_a_section_of_its_own(tmp_path: Path, make_report: Callable[[Path], str]) -> None:
    figures = tmp_path / "sub-01/figures"
    figures.mkdir(parents=True)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><g class="layer"/></svg>'
    for kind in ("longitudinal", "volumechange", "longitudinalcurve"):
        (figures / f"sub-01_ses-2_desc-{kind}_T1w.svg").write_text(svg)
    page = make_report(tmp_path)
    assert '<h2 id="Longitudinal-heading">' in page
    assert "Change of volume since the first session" in page


@pytest.fixture
def make_report() -> Callable[[Path], str]:
    """Writer and reader of a participant's page."""
    from hyperprep.bidsapp.reports.participant import write_participant_report

    def make(out: Path) -> str:
        path = write_participant_report(out, "01", run_uuid="test", settings={}, errors=())
        return path.read_text(encoding="utf-8")

    return make
