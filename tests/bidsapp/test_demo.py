"""The demo dataset: seeded, valid BIDS, and its ground truth fits its scans."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.demo import write_demo
from hyperprep.bidsapp.demo.__main__ import main
from hyperprep.bidsapp.demo.anatomy import box_grid, draw_position, draw_warp, exponentiate
from hyperprep.bidsapp.demo.template import TEMPLATE_SPACE, load_template
from hyperprep.exceptions import OutputError, UsageError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.measures import dice
from hyperprep.models.spatial.transforms import map_points, read_transform, resample

SCANS = ("sub-01/ses-01", "sub-01/ses-02", "sub-02", "sub-03")


def _truth(dataset: Path, scan: str, suffix: str) -> Path:
    stem = scan.replace("/", "_")
    return dataset / "derivatives" / "groundtruth" / scan / "anat" / f"{stem}_{suffix}"


def _t1w(dataset: Path, scan: str) -> nb.Nifti1Image:
    return nb.load(dataset / scan / "anat" / f"{scan.replace('/', '_')}_T1w.nii.gz")


def _to_template(dataset: Path, scan: str) -> Path:
    return _truth(dataset, scan, f"from-{TEMPLATE_SPACE}_to-T1w_mode-image_xfm.h5")


def _to_scan(dataset: Path, scan: str) -> Path:
    return _truth(dataset, scan, f"from-T1w_to-{TEMPLATE_SPACE}_mode-image_xfm.h5")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def one_participant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sub-01 alone, generated again in another place."""
    return write_demo(tmp_path_factory.mktemp("again") / "data set", participants=1)


def test_seed_fixes_every_byte(demo_dataset, one_participant):
    again = _files(one_participant)
    scans = {name for name in again if "sub-01" in name}
    assert len(scans) == 18
    for name in scans:
        assert (demo_dataset / name).read_bytes() == again[name], name


def test_other_seed_gives_other_anatomy():
    first, second = (draw_warp(np.random.default_rng(seed)).forward.data for seed in (1, 2))
    assert np.abs(first - second).mean() > 1.0


@pytest.mark.parametrize("folder", ["", "derivatives/groundtruth"])
def test_validator_finds_no_error(demo_dataset, folder):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [str(validator), "--format", "json", str(demo_dataset / folder)], capture_output=True, text=True
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert done.returncode == 0


def test_small(demo_dataset):
    assert sum(len(content) for content in _files(demo_dataset).values()) < 30e6


def test_grids_are_what_the_readme_says(demo_dataset):
    first, second, oblique, thick = (_t1w(demo_dataset, scan) for scan in SCANS)
    assert nb.aff2axcodes(first.affine) == ("R", "A", "S")
    assert nb.aff2axcodes(second.affine) == ("L", "P", "S")
    assert nb.affines.obliquity(oblique.affine).max() > np.deg2rad(5)
    assert nb.aff2axcodes(thick.affine) == ("L", "A", "S")
    assert thick.header.get_zooms() == (1, 1, 3)
    assert np.linalg.det(thick.affine) < 0
    sidecar = json.loads((demo_dataset / "sub-03/anat/sub-03_T1w.json").read_text())
    assert sidecar["SkullStripped"] is True


@pytest.mark.parametrize("scan", SCANS)
def test_truth_is_the_template_moved_by_the_stored_transform(demo_dataset, scan):
    ants = pytest.importorskip("ants")
    dseg = nb.load(_truth(demo_dataset, scan, "dseg.nii.gz"))
    template = load_template().dseg
    values = np.asanyarray(template.dataobj).astype(np.float32)
    moved = ants.apply_transforms(
        ants.from_nibabel_nifti(nb.Nifti1Image(np.asanyarray(dseg.dataobj).astype(np.float32), dseg.affine)),
        ants.from_nibabel_nifti(nb.Nifti1Image(values, template.affine)),
        [str(_to_template(demo_dataset, scan))],
        interpolator="nearestNeighbor",
    ).numpy()
    truth = np.asanyarray(dseg.dataobj)
    assert set(np.unique(truth)) == {0, 1, 2, 3}
    assert min(dice(moved, truth, [1, 2]).values()) > 0.96
    assert dice(moved > 0, truth > 0, [1])[1] > 0.985


@pytest.mark.parametrize("scan", SCANS)
def test_transforms_are_inverse_and_do_not_fold(demo_dataset, scan):
    mask = nb.load(_truth(demo_dataset, scan, "desc-brain_mask.nii.gz"))
    voxels = np.argwhere(np.asanyarray(mask.dataobj))[::997]
    points = nb.affines.apply_affine(mask.affine, voxels)
    there = read_transform(_to_template(demo_dataset, scan))
    back = read_transform(_to_scan(demo_dataset, scan))
    mapped = map_points(points, there)
    assert np.linalg.norm(mapped - points, axis=1).mean() > 3
    assert np.linalg.norm(map_points(mapped, back) - points, axis=1).max() < 0.15
    step = 0.5
    columns = [(map_points(points + step * axis, there) - mapped) / step for axis in np.eye(3)]
    assert np.linalg.det(np.stack(columns, axis=-1)).min() > 0.2


@pytest.mark.parametrize("scan", SCANS)
def test_contrast_is_that_of_a_t1w(demo_dataset, scan):
    t1w = _t1w(demo_dataset, scan).get_fdata()
    dseg = np.asanyarray(nb.load(_truth(demo_dataset, scan, "dseg.nii.gz")).dataobj)
    gm, wm, csf = (np.median(t1w[dseg == label]) for label in (1, 2, 3))
    assert csf < 0.75 * gm < 0.75 * wm
    outside = t1w[dseg == 0]
    if scan == "sub-03":
        assert np.count_nonzero(outside) < 0.02 * t1w.size
    else:
        assert np.percentile(outside, 99) > gm


def test_focal_change_is_in_the_second_session_only(demo_dataset):
    change = nb.load(_truth(demo_dataset, SCANS[1], "desc-change_mask.nii.gz"))
    inside = np.asanyarray(change.dataobj) > 0
    millilitres = inside.sum() * np.prod(change.header.get_zooms()) / 1000
    assert 1.5 < millilitres < 6
    follow_up = _t1w(demo_dataset, SCANS[1])
    baseline = resample(
        _t1w(demo_dataset, SCANS[0]),
        Grid.of(follow_up),
        _chain_between_sessions(demo_dataset),
    )
    dseg = np.asanyarray(nb.load(_truth(demo_dataset, SCANS[1], "dseg.nii.gz")).dataobj)
    white = (dseg == 2) & inside
    normal = (dseg == 2) & ~inside
    after, before = follow_up.get_fdata(), baseline.get_fdata()
    assert after[white].mean() / after[normal].mean() < 0.6
    assert before[white].mean() / before[normal].mean() > 0.85


def _chain_between_sessions(dataset: Path):
    import SimpleITK as sitk

    composite = sitk.CompositeTransform(3)
    composite.AddTransform(read_transform(_to_scan(dataset, SCANS[0])))
    composite.AddTransform(read_transform(_to_template(dataset, SCANS[1])))
    return composite


def test_change_grows_locally(demo_dataset):
    change = nb.load(_truth(demo_dataset, SCANS[1], "desc-change_mask.nii.gz"))
    middle = np.argwhere(np.asanyarray(change.dataobj)).mean(axis=0)
    point = nb.affines.apply_affine(change.affine, middle)[None]
    to_baseline = _chain_between_sessions(demo_dataset)
    here = map_points(point, to_baseline)
    columns = [(map_points(point + 2 * axis, to_baseline) - here) / 2 for axis in np.eye(3)]
    assert np.linalg.det(np.stack(columns, axis=-1)[0]) < 0.85


def test_exponential_of_a_rotation_is_the_rotation():
    grid = box_grid(np.full(3, -20.0), np.full(3, 40.0), 2.0)
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1).astype(float))
    angle = np.deg2rad(20)
    velocity = angle * np.stack([-points[..., 1], points[..., 0], np.zeros(grid.shape)], axis=-1)
    flow = exponentiate(velocity, grid)
    moved = flow.map_points(np.array([[6.0, 0.0, 3.0]]))
    np.testing.assert_allclose(moved, [[6 * np.cos(angle), 6 * np.sin(angle), 3.0]], atol=0.02)


def test_position_is_within_its_bounds():
    position = draw_position(np.random.default_rng(3), degrees=5, shift=8, scale=0.06)
    scales = np.linalg.svd(position[:3, :3], compute_uv=False)
    assert scales.min() > 0.939
    assert scales.max() < 1.061


class TestFolder:
    def test_kept_when_it_is_the_same_demo(self, one_participant):
        before = {p: p.stat().st_mtime_ns for p in one_participant.rglob("*")}
        write_demo(one_participant, participants=1)
        assert {p: p.stat().st_mtime_ns for p in one_participant.rglob("*")} == before

    def test_foreign_folder_is_refused_and_untouched(self, tmp_path, capsys):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"holds no demo dataset \(notes\.txt"):
            write_demo(tmp_path)
        assert main([str(tmp_path)]) == 73
        assert "nothing was changed" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]

    def test_results_inside_a_demo_are_not_lost(self, tmp_path):
        (tmp_path / "derivatives" / "mine").mkdir(parents=True)
        description = {"GeneratedBy": [{"Name": "bidsapp-demo", "Version": "0.0.0"}]}
        (tmp_path / "dataset_description.json").write_text(json.dumps(description))
        with pytest.raises(OutputError, match="derivatives/mine"):
            write_demo(tmp_path)

    def test_file_is_refused(self, tmp_path):
        (tmp_path / "data").write_text("")
        with pytest.raises(OutputError, match="is a file"):
            write_demo(tmp_path / "data")

    def test_older_demo_is_replaced(self, tmp_path, monkeypatch):
        monkeypatch.setattr("hyperprep.bidsapp.demo.dataset.scan_person", lambda *_args, **_kw: [])
        monkeypatch.setattr("hyperprep.bidsapp.demo.dataset.load_template", lambda: None)
        monkeypatch.setattr("hyperprep.bidsapp.demo.dataset._write_scan", lambda *_args: None)
        target = tmp_path / "data"
        (target / "sub-77").mkdir(parents=True)
        description = {"GeneratedBy": [{"Name": "bidsapp-demo", "Version": "0.0.0"}]}
        (target / "dataset_description.json").write_text(json.dumps(description))
        monkeypatch.setattr("hyperprep.bidsapp.demo.dataset.make_plan", lambda _number: [])
        write_demo(target)
        assert not (target / "sub-77").exists()
        assert (target / "participants.tsv").exists()
        assert [p.name for p in tmp_path.iterdir()] == ["data"]

    @pytest.mark.parametrize("number", [0, 100])
    def test_impossible_number_of_participants(self, tmp_path, number):
        with pytest.raises(UsageError, match="1 to 99"):
            write_demo(tmp_path / "data", participants=number)
        assert main([str(tmp_path / "data"), "--participants", str(number)]) == 2
