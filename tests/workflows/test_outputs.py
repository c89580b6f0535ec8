"""Which files a run writes, fixed for each kind of data set; no graph is run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from hyperprep.interfaces.bids import DerivativesDataSink
from hyperprep.workflows.anat import mask_source
from hyperprep.workflows.outputs_topology import init_ds_session_change_wf
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template

GOLDEN = Path(__file__).with_name("golden")

KINDS: dict[str, tuple[dict[str, list[str]], Template, Sequence[OutputSpace]]] = {
    "one_scan": ({"CR": ["sub-CR_T1w"]}, Template(), (OutputSpace(),)),
    "native_only": ({"CR": ["sub-CR_T1w"]}, Template(), ()),
    "sessions": (
        {"01": ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w"], "04": ["sub-04_ses-1_T1w"], "empty": []},
        Template(),
        (OutputSpace(),),
    ),
    "longitudinal": (
        {
            "01": ["sub-01_ses-1_T1w", "sub-01_ses-2_run-1_T1w", "sub-01_ses-10_T1w"],
            "04": ["sub-04_ses-1_T1w"],
        },
        Template(),
        (),
    ),
    "entities": (
        {"01": ["sub-01_ses-pre_acq-mprage_ce-gd_rec-norm_run-02_echo-1_part-mag_T1w"]},
        Template("MNI152NLin2009cAsym", Path("tpl.nii.gz"), Path("mask.nii.gz")),
        (OutputSpace("1"), OutputSpace("2")),
    ),
}


def sinks(workflow: object) -> list[DerivativesDataSink]:
    """Sinks of a run's graph that write derivatives, not figures."""
    graph = generate_expanded_graph(workflow._create_flat_graph())
    found = [node.interface for node in graph.nodes() if isinstance(node.interface, DerivativesDataSink)]
    return [sink for sink in found if sink.inputs.datatype != "figures"]


def run_graph(kind: str, settings: AnatSettings, make_scan: Callable[..., Scan]) -> list[DerivativesDataSink]:
    names, template, spaces = KINDS[kind]
    settings = dataclasses.replace(settings, longitudinal=kind == "longitudinal")
    if template.image is not None:
        image, mask = (settings.bids_dir.with_name(path.name) for path in (template.image, template.mask))
        image.touch()
        mask.touch()
        template = dataclasses.replace(template, image=image, mask=mask)
    return sinks(
        init_run_wf(
            participants={label: [make_scan(name) for name in scans] for label, scans in names.items()},
            template=template,
            settings=settings,
            output_spaces=spaces,
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_run(kind: str, settings: AnatSettings, make_scan: Callable[..., Scan]) -> None:
    written = [name for sink in run_graph(kind, settings, make_scan) for name in sink.names()]
    assert len(set(written)) == len(written), "two sinks write the same file"
    assert sorted(written) == (GOLDEN / f"{kind}.txt").read_text().split()


def test_uncertainty_adds_one_map(settings: AnatSettings, make_scan: Callable[..., Scan]) -> None:
    before = {name for sink in run_graph("one_scan", settings, make_scan) for name in sink.names()}
    found = run_graph("one_scan", dataclasses.replace(settings, uncertainty=True), make_scan)
    added = [sink for sink in found if not before.issuperset(sink.names())]
    assert [sink.names() for sink in added] == [
        ["sub-CR/anat/sub-CR_seg-hyperprep_desc-entropy_probseg.nii.gz"]
    ]
    assert added[0]._metadata["Units"] == "bit"


def test_a_probability_map_for_each_region_asked_for(
    settings: AnatSettings, make_scan: Callable[..., Scan]
) -> None:
    asked = dataclasses.replace(settings, labels=("hippocampus", "brain"))
    before = {name for sink in run_graph("one_scan", asked, make_scan) for name in sink.names()}
    found = run_graph("one_scan", dataclasses.replace(asked, probsegs=True), make_scan)
    added = {name for sink in found for name in sink.names()} - before
    names = ("LeftHippocampus", "RightHippocampus", "Brain")
    assert added == {f"sub-CR/anat/sub-CR_seg-hyperprep_label-{n}_probseg.nii.gz" for n in names}


@pytest.mark.parametrize("calibrated", [False, True])
def test_files_of_topology_maps(
    calibrated: bool, settings: AnatSettings, make_scan: Callable[..., Scan]
) -> None:
    before = {name for sink in run_graph("one_scan", settings, make_scan) for name in sink.names()}
    asked = dataclasses.replace(settings, topology=True, topology_calibrated=calibrated)
    after = {name for sink in run_graph("one_scan", asked, make_scan) for name in sink.names()}
    always = ["desc-score_topology.nii.gz", "space-MNI152NLin2009aSym_desc-score_topology.nii.gz"]
    further = ["desc-excess_topology.nii.gz", "desc-regions_topology.tsv", "desc-topology_mask.nii.gz"]
    expected = [*always, *([*further, "desc-z_topology.nii.gz"] if calibrated else [])]
    assert sorted(after - before) == sorted(f"sub-CR/anat/sub-CR_{name}" for name in expected)
    assert before <= after


@pytest.mark.parametrize("calibrated", [False, True])
def test_files_of_a_change_between_sessions(
    calibrated: bool, settings: AnatSettings, make_scan: Callable[..., Scan]
) -> None:
    earlier, later = (make_scan(f"sub-01_ses-{session}_T1w") for session in "12")
    workflow = init_ds_session_change_wf(
        earlier=earlier, later=later, bids_dir=settings.bids_dir, output_dir=settings.output_dir,
        calibrated=calibrated,
    )  # fmt: skip
    found = sinks(workflow)
    both = ["desc-sessionchange", "desc-sessionscore", *(["desc-sessionz"] if calibrated else [])]
    expected = [f"{space}{name}_topology.nii.gz" for space in ("", "space-ses1T1w_") for name in both]
    expected.append("desc-sessionregions_topology.tsv")
    names = sorted(name for sink in found for name in sink.names())
    assert names == sorted(f"sub-01/ses-2/anat/sub-01_ses-2_{name}" for name in expected)
    for sink in found:
        own = "space-" not in sink.names()[0]
        if sink.names()[0].endswith(".nii.gz"):
            session = 2 if own else 1
            reference = f"bids:raw:sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz"
            assert sink._metadata["SpatialReference"] == reference


def test_sidecars_say_where_a_file_comes_from(settings: AnatSettings, make_scan: Callable[..., Scan]) -> None:
    found = run_graph("entities", settings, make_scan)
    written = {name for sink in found for name in sink.names()}
    for sink in found:
        meta, name = sink._metadata, sink.names()[0]
        if name.endswith("_T1w.nii.gz"):
            assert meta["SkullStripped"] is False
        if name.endswith("_mask.nii.gz"):
            assert meta["Type"] == "Brain"
        if "_res-" in name:
            assert "mm over the field of view of MNI152NLin2009cAsym" in meta["Resolution"]
        if "_space-" in name:
            assert meta["SpatialReference"] == "bids:templateflow:tpl-MNI152NLin2009cAsym"
        if name.endswith(".nii.gz"):
            assert meta["SpatialReference"].startswith("bids:")
            for uri in meta["Sources"]:
                raw = uri.startswith("bids:raw:sub-01/ses-pre/anat/sub-01_ses-pre")
                assert raw or uri.removeprefix("bids::") in written, uri


@pytest.mark.parametrize(
    ("known", "skull_strip", "expected"),
    [
        ({}, "auto", "network"),
        ({"skull_stripped": False}, "auto", "network"),
        ({"skull_stripped": True}, "auto", "nonzero"),
        ({"mask": Path("mask.nii.gz")}, "auto", "derivative"),
        ({"mask": Path("mask.nii.gz"), "skull_stripped": True}, "auto", "derivative"),
        ({}, "skip", "nonzero"),
        ({"mask": Path("mask.nii.gz")}, "skip", "derivative"),
        ({"skull_stripped": True}, "force", "network"),
        ({"mask": Path("mask.nii.gz")}, "force", "network"),
    ],
)
def test_where_the_brain_mask_comes_from(
    settings: AnatSettings, known: dict[str, object], skull_strip: str, expected: str
) -> None:
    changed = dataclasses.replace(settings, skull_strip=skull_strip)
    assert mask_source(Scan(Path("sub-01_T1w.nii.gz"), **known), changed) == expected


def test_a_participant_without_scan_is_refused(settings: AnatSettings) -> None:
    from hyperprep.workflows.participant import init_participant_wf

    with pytest.raises(ValueError, match="01 has no scan"):
        init_participant_wf(participant="01", scans=[], template=Template(), settings=settings)


def test_template_is_segmented_once(settings: AnatSettings, make_scan: Callable[..., Scan]) -> None:
    workflow = init_run_wf(
        participants={"01": [make_scan("sub-01_T1w")], "02": [make_scan("sub-02_T1w")]},
        template=Template(),
        settings=settings,
    )
    names = [node.fullname for node in generate_expanded_graph(workflow._create_flat_graph()).nodes()]
    assert sum(".template_wf." in name and name.endswith(".segment") for name in names) == 1
    assert sum(name.endswith(".segment_wf.segment") for name in names) == 2


def test_a_segmentation_from_a_derivative_steers_the_registration(
    settings: AnatSettings, make_scan: Callable[..., Scan], tmp_path: Path
) -> None:
    given = tmp_path / "dseg.nii.gz"
    given.touch()
    workflow = init_run_wf(
        participants={"01": [make_scan("sub-01_T1w", dseg=given)]}, template=Template(), settings=settings
    )
    graph = generate_expanded_graph(workflow._create_flat_graph())
    register = next(node for node in graph.nodes() if node.name == "register")
    assert register.inputs.moving_dseg == str(given)
