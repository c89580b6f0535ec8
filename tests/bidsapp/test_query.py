"""What is read of a data set: the right scans, and no folder that is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.layout import read_filters
from hyperprep.bidsapp.participants import available_participants, choose_participants
from hyperprep.bidsapp.query import find_inputs
from hyperprep.exceptions import NoInputError, UsageError

Maker = Callable[..., Path]


def scans(settings: Settings, *labels: str) -> dict[str, list[str]]:
    found = find_inputs(settings, labels or available_participants(settings.bids_dir))
    return {p.label: [session.scan.t1w.name for session in p.sessions] for p in found}


def test_with_and_without_sessions(settings: Settings) -> None:
    assert scans(settings) == {
        "01": ["sub-01_ses-post_T1w.nii.gz", "sub-01_ses-pre_T1w.nii.gz"],
        "02": ["sub-02_T1w.nii.gz"],
        "03": ["sub-03_T1w.nii.gz"],
    }


def test_chosen_sessions_only(settings: Settings) -> None:
    (one, two) = find_inputs(replace(settings, session_label=("pre",)), ("01", "02"))
    assert [session.session for session in one.sessions] == ["pre"]
    assert one.problems == ()
    assert two.sessions == ()
    assert "sub-02 has no T1w image with --session-label pre" in two.problems[0]


def test_a_session_that_is_asked_for_and_missing_is_a_problem(settings: Settings) -> None:
    (one,) = find_inputs(replace(settings, session_label=("pre", "later")), ("01",))
    assert [session.session for session in one.sessions] == ["pre"]
    assert one.problems == ("sub-01 has no T1w image in session later",)


def test_a_session_without_t1w_is_remarked(settings: Settings) -> None:
    (settings.bids_dir / "sub-01/ses-later/anat").mkdir(parents=True)
    (one,) = find_inputs(settings, ("01",))
    assert one.problems == ()
    assert one.remarks == ("session later has no T1w image and is left out",)


def test_the_first_of_several_t1w_is_used_and_the_others_are_named(
    settings: Settings, make_scan: Maker
) -> None:
    make_scan(settings.bids_dir / "sub-02/anat/sub-02_acq-b_T1w.nii.gz")
    make_scan(settings.bids_dir / "sub-02/anat/sub-02_acq-a_run-2_T1w.nii.gz")
    (two,) = find_inputs(settings, ("02",))
    assert two.sessions[0].scan.t1w.name == "sub-02_T1w.nii.gz"
    assert len(two.sessions[0].unused) == 2
    assert "sub-02_acq-a_run-2_T1w.nii.gz, sub-02_acq-b_T1w.nii.gz" in two.remarks[0]


def test_first_lex_takes_the_first_image_of_all_and_names_the_sessions_left_out(
    settings: Settings, make_scan: Maker
) -> None:
    make_scan(settings.bids_dir / "sub-01/ses-post/anat/sub-01_ses-post_run-2_T1w.nii.gz")
    make_scan(settings.bids_dir / "sub-01/ses-post/anat/sub-01_ses-post_acq-z_T1w.nii.gz")
    chosen = replace(settings, subject_anatomical_reference="first-lex")
    one, two = find_inputs(chosen, ("01", "02"))
    assert [session.scan.t1w.name for session in one.sessions] == ["sub-01_ses-post_T1w.nii.gz"]
    said, others = one.remarks
    assert said.startswith("sub-01_ses-post_T1w.nii.gz is the participant's first T1w image, and the only")
    assert said.endswith("left out: session pre (sub-01_ses-pre_T1w.nii.gz)")
    assert "not used: sub-01_ses-post_acq-z_T1w.nii.gz, sub-01_ses-post_run-2_T1w.nii.gz" in others
    assert (len(two.sessions), two.remarks) == (1, ())


def test_first_lex_is_first_of_what_is_asked_for(settings: Settings) -> None:
    chosen = replace(settings, subject_anatomical_reference="first-lex", session_label=("pre", "later"))
    (one,) = find_inputs(chosen, ("01",))
    assert [session.session for session in one.sessions] == ["pre"]
    assert one.problems == ("sub-01 has no T1w image in session later",)


def test_sessions_are_independent_by_default(settings: Settings) -> None:
    assert settings.subject_anatomical_reference == "sessionwise"
    (one,) = find_inputs(settings, ("01",))
    assert (len(one.sessions), one.remarks) == (2, ())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"t1w": {"acquisition": "b"}}, "sub-02_acq-b_T1w.nii.gz"),
        ({"t1w": {"acquisition": None}, "bold": {"task": "rest"}}, "sub-02_T1w.nii.gz"),
        ({"t1w": {"run": 2}}, "sub-02_acq-a_run-2_T1w.nii.gz"),
        ({"t1w": {"acquisition": "*"}}, "sub-02_acq-a_run-2_T1w.nii.gz"),
        ({"t1w": {"acquisition": ["b", "c"]}}, "sub-02_acq-b_T1w.nii.gz"),
    ],
)
def test_a_filter_file_chooses(
    settings: Settings, make_scan: Maker, tmp_path: Path, filters: dict[str, object], expected: str
) -> None:
    make_scan(settings.bids_dir / "sub-02/anat/sub-02_acq-b_T1w.nii.gz")
    make_scan(settings.bids_dir / "sub-02/anat/sub-02_acq-a_run-2_T1w.nii.gz")
    path = tmp_path / "filters.json"
    path.write_text(json.dumps(filters))
    assert scans(replace(settings, bids_filter_file=path), "02")["02"][0] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must look like"),
        ('{"t1w": "mprage"}', "must look like"),
        ('{"T1w": {}}', "found 'T1w'; the query that is used is called 't1w'"),
        ("{}", "found nothing"),
        ('{"t1w": {"subject": "01"}}', "'subject' cannot be filtered on"),
        ('{"t1w": {"suffix": "T2w"}}', "only the suffix T1w"),
        ('{"t1w": {"acquistion": "b"}}', "'acquistion' is no entity of BIDS .* near matches: acquisition"),
    ],
)
def test_a_wrong_filter_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_filters(path)


def test_unknown_participants_are_named_with_those_there(dataset: Path) -> None:
    available = available_participants(dataset)
    with pytest.raises(NoInputError, match=r"unknown participant 07, 9; .* has 01, 02, 03"):
        choose_participants(available, ["01", "07", "9"], dataset)
    with pytest.raises(NoInputError, match="has no participant"):
        choose_participants([], [], dataset)
    with pytest.raises(NoInputError, match="cannot be listed"):
        available_participants(dataset / "nowhere")


def test_masks_and_segmentations_of_derivatives_are_used(
    settings: Settings, make_scan: Maker, tmp_path: Path
) -> None:
    first, second = tmp_path / "der one", tmp_path / "der two"
    mask = make_scan(second / "sub-01/ses-pre/anat/sub-01_ses-pre_desc-brain_mask.nii.gz")
    make_scan(second / "sub-01/ses-pre/anat/sub-01_ses-pre_space-MNI_desc-brain_mask.nii.gz")
    make_scan(second / "sub-01/ses-post/anat/sub-01_ses-post_acq-x_desc-brain_mask.nii.gz")
    tissues = make_scan(first / "sub-01/ses-pre/anat/sub-01_ses-pre_dseg.nii.gz")
    dseg = make_scan(second / "sub-01/ses-pre/anat/sub-01_ses-pre_desc-aseg_dseg.nii.gz")
    given = replace(settings, derivatives=(("one", first), ("two", second)))
    (one,) = find_inputs(given, ("01",))
    post, pre = one.sessions
    assert (pre.scan.mask, pre.scan.dseg) == (mask, dseg)
    assert pre.scan.dseg != tissues
    assert (post.scan.mask, post.scan.dseg) == (None, None)
    assert any("brain mask taken from derivatives 'two'" in remark for remark in one.remarks)
    assert any("ses-post_T1w.nii.gz: no brain mask of it was found" in remark for remark in one.remarks)


@pytest.mark.parametrize(
    ("where", "content", "expected"),
    [
        ("sub-02/anat/sub-02_T1w.json", {"SkullStripped": True}, True),
        ("T1w.json", {"SkullStripped": True}, True),
        ("sub-02/sub-02_T1w.json", {"SkullStripped": False}, False),
        ("sub-02/anat/sub-02_T1w.json", {}, None),
        ("acq-x_T1w.json", {"SkullStripped": True}, None),
    ],
)
def test_skull_stripped_is_read_from_sidecars(
    settings: Settings, where: str, content: dict[str, bool], expected: bool | None
) -> None:
    (settings.bids_dir / where).write_text(json.dumps(content))
    (two,) = find_inputs(settings, ("02",))
    assert two.sessions[0].scan.skull_stripped is expected


def test_the_nearest_sidecar_wins(settings: Settings) -> None:
    (settings.bids_dir / "T1w.json").write_text('{"SkullStripped": true}')
    (settings.bids_dir / "sub-02/anat/sub-02_T1w.json").write_text('{"SkullStripped": false}')
    (two,) = find_inputs(settings, ("02",))
    assert two.sessions[0].scan.skull_stripped is False


LISTED = """
    import sys
    from pathlib import Path
    from hyperprep.bidsapp.config import Settings
    from hyperprep.bidsapp.query import find_inputs
    import bids.layout

    root = Path(sys.argv[1])
    listed = []

    def note(event, arguments):
        if event in ("os.scandir", "os.listdir", "open") and str(arguments[0]).startswith(str(root)):
            listed.append(str(Path(str(arguments[0])).relative_to(root)))

    sys.addaudithook(note)
    settings = Settings(bids_dir=root, output_dir=root / "derivatives/x", analysis_level="participant")
    find_inputs(settings, ["01"])
    print("\\n".join(sorted(set(listed))))
"""


def test_no_other_folder_is_listed(dataset: Path, repository: Path, make_scan: Maker) -> None:
    """Other modalities, participants and derivatives are neither listed nor opened, however many."""
    for folder in ("sub-01/ses-pre/func", "sub-01/ses-pre/anat/deep", "derivatives/big/sub-01", "sourcedata"):
        (dataset / folder).mkdir(parents=True)
    (dataset / "sub-01/ses-pre/func/sub-01_ses-pre_task-x_bold.nii.gz").symlink_to("/nowhere/at/all")
    make_scan(dataset / "sub-01/ses-pre/func/sub-01_ses-pre_T1w.nii.gz")
    script = "\n".join(line.removeprefix("    ") for line in LISTED.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", script, str(dataset)],
        env={"PYTHONPATH": str(repository / "src"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split("\n")) - {""} == {
        ".",
        "dataset_description.json",
        "sub-01",
        "sub-01/ses-post",
        "sub-01/ses-post/anat",
        "sub-01/ses-pre",
        "sub-01/ses-pre/anat",
    }
