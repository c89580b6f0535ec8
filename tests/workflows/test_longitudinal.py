"""Later sessions registered to the first one: the files, what they hold, and the figures."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from hyperprep.models.spatial.transforms import map_points, read_transform
from hyperprep.workflows.longitudinal import init_longitudinal_wf
from hyperprep.workflows.participant import init_participant_wf
from hyperprep.workflows.reportlets import init_longitudinal_reportlets_wf
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, Scan, Template

GOLDEN = Path(__file__).with_name("golden") / "tiny_longitudinal.txt"


def run(settings: AnatSettings, scans: list[Scan], template_file: Path, base_dir: Path) -> Path:
    """Run over one participant in this process; returns the later session's folder."""
    workflow = init_run_wf(
        participants={"01": scans},
        template=Template("tiny", template_file),
        settings=dataclasses.replace(settings, reportlets=False, longitudinal=True, lam=0.7),
        output_spaces=(),
        base_dir=base_dir,
    )
    workflow.config["execution"].update({"crashdump_dir": str(base_dir / "crash")})
    workflow.run(plugin="Linear")
    return settings.output_dir / "sub-01/ses-2/anat"


def core(image: nb.Nifti1Image) -> np.ndarray:
    """Centre of the bright core, RAS mm."""
    found = np.argwhere(image.get_fdata() > 80).mean(axis=0)
    return np.asarray(nb.affines.apply_affine(image.affine, found))


def test_the_later_session_is_brought_to_the_first(
    settings: AnatSettings, dataset: list[Scan], template_file: Path, networks: None, tmp_path: Path,
    read_json: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
    check_validator: Callable[[Path], None],
) -> None:  # fmt: skip
    stand_in = sys.modules["hyperprep.models.predict.register"]
    asked: list[dict[str, Any]] = []
    register = stand_in.register

    def noted(fixed: nb.Nifti1Image, moving: nb.Nifti1Image, **options: Any) -> Any:
        asked.append(options)
        return register(fixed, moving, **options)

    monkeypatch.setattr(stand_in, "register", noted)
    folder = run(settings, dataset, template_file, tmp_path / "work")
    first = nb.load(settings.output_dir / "sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz")
    later = nb.load(folder / "sub-01_ses-2_desc-preproc_T1w.nii.gz")
    names = sorted(path.name for path in folder.iterdir() if "ses1T1w" in path.name or "longit" in path.name)
    assert names == GOLDEN.read_text().split()

    # lambda of the template is the one given, between the sessions it is searched
    assert sorted(str(options["lam"]) for options in asked) == ["0.7", "0.7", "auto"]
    between = next(options for options in asked if options["lam"] == "auto")
    assert between["fixed_dseg"].shape == first.shape
    assert between["moving_dseg"].shape == later.shape
    assert not np.allclose(between["frame2fixed"], np.eye(4)), "the first session's place in the template"

    stem = folder / "sub-01_ses-2"
    moved = nb.load(f"{stem}_space-ses1T1w_desc-preproc_T1w.nii.gz")
    assert moved.shape == first.shape
    assert np.allclose(moved.affine, first.affine, atol=1e-4)
    forward, inverse = (
        read_transform(f"{stem}_from-{way}_mode-image_xfm.h5") for way in ("T1w_to-ses1T1w", "ses1T1w_to-T1w")
    )
    points = np.array([[0.0, 3, -2], [10, -20, 15]])
    assert np.allclose(map_points(map_points(points, forward), inverse), points, atol=1e-3)
    assert np.allclose(map_points(core(moved)[None], forward)[0], core(later), atol=2)

    jacobian = nb.load(f"{stem}_from-T1w_to-ses1T1w_mode-image_desc-jacobian_xfm.nii.gz")
    assert np.allclose(jacobian.affine, first.affine, atol=1e-4)
    assert np.allclose(jacobian.get_fdata()[2:-2, 2:-2, 2:-2], 1, atol=1e-3), "a shift changes no volume"
    told = read_json(Path(f"{stem}_from-T1w_to-ses1T1w_mode-image_desc-jacobian_xfm.json"))
    assert told["Units"] == "1"
    assert told["SpatialReference"] == "bids:raw:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    assert told["RegularizationWeight"] == 0.4
    quality = read_json(Path(f"{stem}_desc-longitudinal_quality.json"))
    assert quality["lambda"] == 0.4
    assert 0 < quality["dice_mean"] <= 1
    check_validator(settings.output_dir)


def interface(workflow: Any, name: str) -> Any:
    graph = generate_expanded_graph(workflow._create_flat_graph())
    return next(node.interface for node in graph.nodes() if node.fullname.endswith(name))


@pytest.mark.parametrize(("given", "used"), [(("a", "b"), True), (("a", None), False), ((None, "b"), False)])
def test_given_segmentations_count_where_both_sessions_have_one(
    settings: AnatSettings, make_scan: Callable[..., Scan], tmp_path: Path, given: tuple[Any, ...], used: bool
) -> None:
    scans = []
    for session, name in enumerate(given, start=1):
        path = tmp_path / f"{name}.nii.gz" if name else None
        if path:
            path.touch()
        scans.append(make_scan(f"sub-01_ses-{session}_T1w", dseg=path))
    workflow = init_longitudinal_wf(earlier=scans[0], later=scans[1], settings=settings)
    inputs = interface(workflow, "sub_01_ses_2_longitudinal_wf.register").inputs
    expected = [str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz")] if used else []
    found = [value for value in (inputs.fixed_dseg, inputs.moving_dseg) if isinstance(value, str)]
    assert found == expected


def test_settings_reach_the_registration_but_lambda(
    settings: AnatSettings, make_scan: Callable[..., Scan]
) -> None:
    changed = dataclasses.replace(
        settings, longitudinal=True, lam=0.2, lambda_regions=("cortex",), refine="none", symmetric=True
    )
    scans = [make_scan(f"sub-01_ses-{session}_T1w") for session in "12"]
    workflow = init_participant_wf(
        participant="01", scans=scans, template=Template(), settings=changed, with_template=False
    )
    inputs = interface(workflow, "sub_01_ses_2_longitudinal_wf.register").inputs
    assert (inputs.lam, inputs.lambda_regions, inputs.refine) == ("auto", ["cortex"], "none")
    assert inputs.symmetric
    assert "rigid-body" in workflow.visit_desc()


@pytest.mark.parametrize(
    ("sessions", "longitudinal", "count"), [("123", True, 2), ("1", True, 0), ("12", False, 0)]
)
def test_every_later_session_is_registered_and_a_single_one_is_not(
    settings: AnatSettings, make_scan: Callable[..., Scan], sessions: str, longitudinal: bool, count: int
) -> None:
    workflow = init_participant_wf(
        participant="01",
        scans=[make_scan(f"sub-01_ses-{session}_T1w") for session in sessions],
        template=Template(),
        settings=dataclasses.replace(settings, longitudinal=longitudinal),
        with_template=False,
    )
    assert sum("longitudinal_wf.register" in name for name in workflow.list_node_names()) == count


def test_the_figures_are_drawn_and_name_the_sessions(tmp_path: Path) -> None:
    shape, affine = (20, 24, 22), np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-76, -92, -80)
    distance = np.linalg.norm(
        nb.affines.apply_affine(affine, np.stack(np.indices(shape), axis=-1)) / (60, 75, 60), axis=-1
    )
    images = {
        "scan": np.where(distance < 1, 500 - 200 * distance, 0).astype(np.float32),
        "mask": (distance < 1).astype(np.uint8),
        "dseg": np.where(distance < 0.3, 10, np.where(distance < 1, 3, 0)).astype(np.int16),
        "jacobian": (1 + 0.2 * (distance < 0.5)).astype(np.float32),
    }
    paths = {}
    for name, data in images.items():
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nb.save(nb.Nifti1Image(data, affine), paths[name])
    curve = {"lam": [0.2, 0.4], "dice_all": [0.7, 0.8], "sd_log_jacobian": [0.5, 0.3], "chosen": [0, 1]}
    pd.DataFrame(curve).to_csv(tmp_path / "curve.tsv", sep="\t", index=False)
    workflow = init_longitudinal_reportlets_wf(
        output_dir=tmp_path / "out", earlier_name="session pre", later_name="session <post>"
    )
    workflow.base_dir = str(tmp_path / "work")
    given = {
        "earlier": "scan", "rigid": "scan", "registered": "scan", "earlier_mask": "mask",
        "earlier_dseg": "dseg", "registered_dseg": "dseg", "jacobian": "jacobian",
    }  # fmt: skip
    for field, name in given.items():
        setattr(workflow.inputs.inputnode, field, paths[name])
    workflow.inputs.inputnode.lambda_curve = str(tmp_path / "curve.tsv")
    workflow.inputs.inputnode.source_file = "/data/sub-01/ses-post/anat/sub-01_ses-post_T1w.nii.gz"
    workflow.run(plugin="Linear")
    figures = tmp_path / "out/sub-01/figures"
    assert sorted(path.name for path in figures.iterdir()) == [
        f"sub-01_ses-post_desc-{kind}_T1w.svg"
        for kind in ("longitudinal", "longitudinalcurve", "volumechange")
    ]
    flicker = (figures / "sub-01_ses-post_desc-longitudinal_T1w.svg").read_text()
    assert flicker.count('class="layer') == 3
    assert "Session &lt;post&gt;, registered" in flicker
    assert "structures of session &lt;post&gt;" in flicker
    assert "template" not in flicker
    change = (figures / "sub-01_ses-post_desc-volumechange_T1w.svg").read_text()
    assert "Volume in session &lt;post&gt; / in session pre" in change
    assert "≥ 1.5" in change
    assert "≤ 0.67" in change


def test_sidecars_are_json(tmp_path: Path) -> None:
    from hyperprep.workflows.outputs_longitudinal import init_ds_longitudinal_wf

    scans = [Scan(tmp_path / f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz") for s in ("1", "2")]
    workflow = init_ds_longitudinal_wf(
        earlier=scans[0], later=scans[1], bids_dir=tmp_path, output_dir=tmp_path / "out", skull_stripped=True
    )
    sinks = {node.name: node.interface for node in workflow._graph.nodes() if node.name.startswith("ds_")}
    assert sinks["ds_later_moved"]._metadata["SkullStripped"] is True
    written = {name for sink in sinks.values() for name in sink.names()}
    for sink in sinks.values():
        json.dumps(sink._metadata)
        for uri in sink._metadata.get("Sources", ()):
            own = {"sub-01/ses-2/anat/sub-01_ses-2_desc-preproc_T1w.nii.gz"}
            assert uri.startswith("bids:raw:") or uri.removeprefix("bids::") in written | own, uri
