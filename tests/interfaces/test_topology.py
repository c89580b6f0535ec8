"""Interfaces of the topology-change maps, with small functions in the network's place, and their figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from hyperprep.exceptions import UsageError
from hyperprep.interfaces.reportlets import SessionChangeMap, UncertaintyMap
from hyperprep.interfaces.reportlets.topology import draw_topology
from hyperprep.interfaces.topology import REGION_COLUMNS, SessionChange, TopologyChange
from hyperprep.models.predict import topology
from hyperprep.models.predict.topology import TopologyChange as Scores
from hyperprep.models.spatial.controls import control_statistics
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField, write_transform

DIGEST = "0" * 64
GRID = Grid((24, 26, 28), np.array([[8.0, 0, 0, -90], [0, 8, 0, -100], [0, 0, 8, -110], [0, 0, 0, 1]]))


def scores(centre: np.ndarray) -> Scores:
    """Healthy noise with a peak around a point of the template frame."""
    points = GRID.to_world(np.moveaxis(np.indices(GRID.shape), 0, -1))
    values = np.random.default_rng(0).normal(10, 1, GRID.shape).astype(np.float32)
    values += 80 * (np.linalg.norm(points - centre, axis=-1) < 22)
    still = DisplacementField(GRID, np.zeros((*GRID.shape, 3), np.float32))
    brain = np.ones(GRID.shape, bool)
    return Scores(
        values, values, values, values, brain, brain, still, still, GRID, np.eye(4), np.eye(4),
        {"score_mean": 10.0}, DIGEST,
    )  # fmt: skip


@pytest.fixture
def centre(scan: str) -> np.ndarray:
    """The middle of the scan."""
    return Grid.of(nb.load(scan)).center


@pytest.fixture
def seen(centre: np.ndarray, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Any]) -> dict[str, Any]:
    calls: dict[str, Any] = {}

    def change(fixed: nb.Nifti1Image, moving: nb.Nifti1Image, **options: Any) -> Scores:
        calls.update(options)
        return scores(centre)

    monkeypatch.setattr(topology, "topology_change", change)
    monkeypatch.setattr("hyperprep.models.predict.session_change.topology_change", change)
    monkeypatch.setattr("hyperprep.models.weights.find_controls", lambda entry, kind: None)
    return calls


@pytest.fixture
def statistics(tmp_path: Path) -> Callable[[str], str]:
    def make(kind: str) -> str:
        maps = [np.random.default_rng(i + 1).normal(10, 1, GRID.shape) for i in range(5)]
        made = control_statistics(
            maps, np.ones(GRID.shape, bool), GRID, controls=list("abcde"), weights_sha256=DIGEST, kind=kind
        )
        return str(made.save(tmp_path / f"{kind}.npz"))

    return make


@pytest.fixture
def xfm(tmp_path: Path) -> str:
    return str(write_transform([np.eye(4)], tmp_path / "identity.txt"))


def test_without_controls_there_is_the_score_alone(scan: str, xfm: str, seen: dict, workdir: Path) -> None:
    made = TopologyChange(template_image=scan, scan=scan, template2scan_xfm=xfm).run().outputs
    assert nb.load(made.out_score).shape == nb.load(scan).shape
    assert nb.load(made.out_template_score).shape == GRID.shape
    assert "undefined" in str(made.out_z)
    assert json.loads(Path(made.out_metrics).read_text())["calibrated"] is False
    assert seen["transforms"] is None


def test_with_controls_regions_are_listed_by_name(
    scan: str, xfm: str, seen: dict, statistics: Callable[[str], str], centre: np.ndarray,
    save: Callable[..., str], workdir: Path,
) -> None:  # fmt: skip
    dseg = save(np.full(nb.load(scan).shape, 17, np.int16), "dseg.nii.gz")
    node = TopologyChange(
        template_image=scan, scan=scan, template2scan_xfm=xfm, in_xfm=xfm, in_inverse_xfm=xfm, scan_dseg=dseg,
        control_statistics=statistics("template"),
    )  # fmt: skip
    made = node.run().outputs
    assert len(seen["transforms"]) == 2
    table = pd.read_csv(made.out_regions, sep="\t")
    assert list(table) == list(REGION_COLUMNS)
    assert np.linalg.norm(table.loc[0, ["x_mm", "y_mm", "z_mm"]].astype(float) - centre) < 8
    assert table.loc[0, "structures"] == "Left-Hippocampus 100 %"
    mask = np.asanyarray(nb.load(made.out_mask).dataobj)
    assert 0 < mask.mean() < 0.5
    assert nb.load(made.out_z).get_fdata().max() > 5
    weight = nb.load(made.out_weight)
    assert weight.get_fdata().min() == 0
    metrics = json.loads(Path(made.out_metrics).read_text())
    assert metrics["calibrated"] is True
    assert metrics["controls"] == 5
    assert metrics["regions"] == len(table)


def test_statistics_can_be_left_aside(
    scan: str, xfm: str, seen: dict, statistics: Callable[[str], str], workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Those that ship hold for the default template only: a run with another one must not take them."""
    shipped = Path(statistics("template"))
    monkeypatch.setattr("hyperprep.models.weights.find_controls", lambda entry, kind: shipped)
    told = {}
    for wanted in (True, False):
        node = TopologyChange(template_image=scan, scan=scan, template2scan_xfm=xfm, calibrate=wanted)
        told[wanted] = json.loads(Path(node.run().outputs.out_metrics).read_text())
    assert told[True]["calibrated"] is True
    assert told[False]["calibrated"] is False
    assert "threshold" not in told[False]


def test_statistics_of_the_other_kind_are_refused(
    scan: str, xfm: str, seen: dict, statistics: Callable[[str], str], workdir: Path
) -> None:
    node = TopologyChange(
        template_image=scan, scan=scan, template2scan_xfm=xfm, control_statistics=statistics("sessions")
    )
    with pytest.raises(UsageError, match="kind 'sessions'"):
        node.run()


def test_sessions(
    scan: str, xfm: str, seen: dict, statistics: Callable[[str], str], scan_data: np.ndarray,
    save: Callable[..., str], workdir: Path,
) -> None:  # fmt: skip
    low, high = (
        save(np.where(scan_data > 0, 1 + v, 0).astype("f4") + scan_data / 999, f"z{v}.nii.gz") for v in (0, 5)
    )
    node = SessionChange(
        first_image=scan, second_image=scan, frame2first_xfm=xfm, frame2second_xfm=xfm, first_z=low,
        second_z=high, control_statistics=statistics("sessions"),
    )  # fmt: skip
    made = node.run().outputs
    table = pd.read_csv(made.out_regions, sep="\t")
    assert table["direction"].tolist()[0] == "appeared"
    assert abs(table.loc[0, "log_volume_change"]) < 1e-6
    for mask in (made.first_out_mask, made.second_out_mask):
        assert set(np.unique(nb.load(mask).get_fdata())) == {0, 1}
    assert Path(made.first_out_z).is_file()


@pytest.mark.parametrize("calibrated", [True, False])
def test_figure_shows_and_lists_the_regions(calibrated: bool) -> None:
    affine = np.array([[4.0, 0, 0, -66], [0, 4, 0, -90], [0, 0, 4, -60], [0, 0, 0, 1]])
    data = np.full((34, 42, 36), 100, np.float32)
    z = np.zeros(data.shape, np.float32)
    z[20:24, 20:24, 20:24] = 9
    row = dict.fromkeys(REGION_COLUMNS, 0.0) | {
        "index": 1, "volume_mm3": 4096.0, "peak": 9.0, "peak_x_mm": 18.0, "peak_y_mm": -6.0,
        "peak_z_mm": 24.0, "structures": "Left-Thalamus 90 %",
    }  # fmt: skip
    images = [nb.Nifti1Image(values, affine) for values in (data, z, (z > 0).astype(np.uint8))]
    svg = draw_topology(
        images[0], images[1], regions=images[2], rows=pd.DataFrame([row]), calibrated=calibrated
    )
    root = ElementTree.fromstring(svg)
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Left-Thalamus 90 %" in texts
    assert "4096" in texts
    assert "x = 18 mm" in texts, "a plane goes through the largest region's peak"
    assert any(("z-score" if calibrated else "not calibrated") in text for text in texts)
    assert root.findall(".//{http://www.w3.org/2000/svg}path")
    empty = draw_topology(images[0], images[1], rows=pd.DataFrame([], columns=REGION_COLUMNS))
    assert "No region above the threshold" in empty


@pytest.mark.parametrize("calibrated", [True, False])
def test_both_sessions_stand_in_the_same_planes(calibrated: bool, tmp_path: Path, workdir: Path) -> None:
    affine = np.array([[4.0, 0, 0, -66], [0, 4, 0, -90], [0, 0, 4, -60], [0, 0, 0, 1]])
    data = np.full((34, 42, 36), 100, np.float32)
    z, regions = np.zeros(data.shape, np.float32), np.zeros(data.shape, np.uint8)
    z[20:24, 20:24, 20:24], regions[20:24, 20:24, 20:24] = 9, 1
    regions[8:11, 20:24, 10:12] = 2
    row = dict.fromkeys([*REGION_COLUMNS, "log_volume_change"], 0.0) | {
        "index": 1, "volume_mm3": 4096.0, "structures": "Left-Thalamus 90 %", "direction": "appeared",
    }  # fmt: skip
    files = {}
    for name, values in (("first", data), ("second", data / 2), ("z", z), ("regions", regions)):
        files[name] = str(tmp_path / f"{name}.nii.gz")
        nb.save(nb.Nifti1Image(values, affine), files[name])
    table = tmp_path / "regions.tsv"
    pd.DataFrame([row]).to_csv(table, sep="\t", index=False)
    made = SessionChangeMap(
        first=files["first"], second=files["second"], score=files["z"], regions=files["regions"],
        table=str(table), names=["session pre", "session post"], **({"z": files["z"]} if calibrated else {}),
    ).run().outputs  # fmt: skip
    assert made.count == 1
    root = ElementTree.fromstring(Path(made.out_file).read_text())
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Session pre", "Session post", "appeared", "4096"} <= set(texts)
    places = [text for text in texts if text.startswith("z = ")]
    assert places[: len(places) // 2] == places[len(places) // 2 :], "each plane stands in both rows"
    assert {"z = 26 mm", "z = -18 mm"} <= set(places), "planes go through both regions"
    assert any(("z-score" if calibrated else "not calibrated") in text for text in texts)


def test_uncertainty_is_drawn_where_it_is(
    scan: str, scan_data: np.ndarray, save: Callable[..., str], workdir: Path
) -> None:
    from hyperprep.interfaces.reportlets.topology import painter
    from hyperprep.interfaces.reportlets.uncertainty import SCALE

    bits = np.zeros(scan_data.shape, np.float32)
    bits[3, 3, 3] = 1.9
    entropy = save(bits, "entropy.nii.gz")
    made = UncertaintyMap(in_file=scan, entropy=entropy).run().outputs.out_file
    root = ElementTree.parse(made).getroot()
    assert "entropy in bits" in "".join(root.itertext())
    images = nb.load(scan), nb.load(entropy)
    draw = painter(images[0], (0.0, 100.0), images[1], SCALE)
    places = images[0].affine @ np.array([[3, 3, 3, 1], [2, 2, 2, 1]]).T
    certain_not, certain = draw(places[:3].T.astype(float))
    assert np.ptp(certain_not.astype(int)) > 40, "colour"
    assert np.ptp(certain.astype(int)) == 0, "grey"
