"""Figures: what they show, which way round, and that they survive what goes wrong."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hyperprep.exceptions import ScanError
from hyperprep.interfaces.reportlets import (
    BeforeAfter,
    JacobianMap,
    LabelContours,
    LambdaCurve,
    LambdaSlider,
    Summary,
    WarpedGrid,
)
from hyperprep.interfaces.reportlets.alignment import draw_layers
from hyperprep.interfaces.reportlets.curve import Curve
from hyperprep.interfaces.reportlets.grid import draw_grid, without_affine
from hyperprep.interfaces.reportlets.jacobian import draw_jacobian
from hyperprep.interfaces.reportlets.mosaic import WIDTH, Mosaic
from hyperprep.interfaces.reportlets.quality import warnings_of
from hyperprep.interfaces.reportlets.segmentation import draw_contours
from hyperprep.interfaces.reportlets.slices import Box, bounding_box, plane_points
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.measures import jacobian_determinant
from hyperprep.models.spatial.sweep import LambdaSweep
from hyperprep.models.spatial.transforms import DisplacementField, to_itk, write_transform

SVG = "{http://www.w3.org/2000/svg}"
SHAPE = (34, 42, 36)
AFFINE = np.array([[4.0, 0, 0, -66], [0, 4, 0, -90], [0, 0, 4, -60], [0, 0, 0, 1]])
LEFT_THALAMUS, RIGHT_THALAMUS, LEFT_CORTEX = 10, 49, 3


def _points() -> np.ndarray:
    return nib.affines.apply_affine(AFFINE, np.stack(np.indices(SHAPE), axis=-1))


@pytest.fixture(scope="module")
def mask() -> nib.Nifti1Image:
    inside = np.linalg.norm((_points() - (0, -10, 8)) / (55, 70, 55), axis=-1) < 1
    return nib.Nifti1Image(inside.astype(np.uint8), AFFINE)


@pytest.fixture(scope="module")
def brain(mask: nib.Nifti1Image) -> nib.Nifti1Image:
    """A brain whose left half is brighter than its right half."""
    bright = np.where(_points()[..., 0] < 0, 900.0, 300.0)
    return nib.Nifti1Image((bright * np.asanyarray(mask.dataobj)).astype(np.float32), AFFINE)


@pytest.fixture(scope="module")
def dseg(mask: nib.Nifti1Image) -> nib.Nifti1Image:
    labels = np.zeros(SHAPE, np.int16)
    labels[np.asanyarray(mask.dataobj) > 0] = LEFT_CORTEX
    points = _points()
    for number, side in ((LEFT_THALAMUS, -1), (RIGHT_THALAMUS, 1)):
        labels[np.linalg.norm(points - (side * 16, -10, 8), axis=-1) < 12] = number
    return nib.Nifti1Image(labels, AFFINE)


@pytest.fixture(scope="module")
def wave() -> DisplacementField:
    """A smooth deformation of up to 5 mm."""
    points = _points()
    data = 5 * np.sin(points[..., [1, 2, 0]] / 20)
    return DisplacementField(Grid(SHAPE, AFFINE), data.astype(np.float32))


def _rasters(svg: str) -> list[np.ndarray]:
    found = re.findall(r'href="data:image/jpeg;base64,([^"]+)"', svg)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def _moves(path: str) -> Iterator[list[tuple[int, int]]]:
    """Points of every line of compact path data, tenths of a unit."""
    for line in path.split("M")[1:]:
        start, _, steps = line.partition("l")
        numbers = list(map(int, re.findall(r"-?\d+", start + " " + steps.replace("-", " -"))))
        yield list(zip(np.cumsum(numbers[0::2]).tolist(), np.cumsum(numbers[1::2]).tolist(), strict=True))


def _save(img: nib.Nifti1Image, path: Path) -> str:
    nib.save(img, path)
    return str(path)


def test_every_figure_is_small_well_formed_and_without_ids(tmp_path, monkeypatch, brain, mask, dseg, wave):
    monkeypatch.chdir(tmp_path)
    names = {
        name: _save(img, tmp_path / f"{name}.nii.gz")
        for name, img in (("brain", brain), ("mask", mask), ("dseg", dseg))
    }
    jacobian = _save(nib.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), tmp_path / "jacobian.nii.gz")
    xfm = str(write_transform([wave, np.eye(4)], tmp_path / "xfm.h5"))
    template = {"reference_image": names["brain"], "reference_mask": names["mask"]}
    nodes = (
        BeforeAfter(**template, before=names["brain"], after=names["brain"], reference_dseg=names["dseg"],
                    after_dseg=names["dseg"]),
        LabelContours(in_file=names["brain"], in_dseg=names["dseg"], in_mask=names["mask"]),
        WarpedGrid(**template, transform=xfm),
        JacobianMap(in_file=jacobian, reference_mask=names["mask"], reference_dseg=names["dseg"]),
    )  # fmt: skip
    for node in nodes:
        figure = Path(node.run().outputs.out_file)
        root = ElementTree.parse(figure).getroot()
        assert figure.parent == tmp_path
        assert figure.stat().st_size < 1_000_000
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert not [element for element in root.iter() if element.get("id")]
        assert figure.read_text().splitlines()[0].endswith(">")  # alone, or NiReports rewrites other elements
        texts = [text.text or "" for text in root.iter(f"{SVG}text")]
        assert {"L", "R", "A", "P"} <= set(texts)
        assert sum(text.endswith(" mm") and text[:4] in ("x = ", "y = ", "z = ") for text in texts) >= 14


def test_the_left_of_the_subject_is_on_the_left(brain, mask):
    axial, coronal, _ = _rasters(draw_layers([("a", brain)], mask=mask))
    for row in (axial, coronal):
        first = row[:, : row.shape[1] // 6].astype(float)
        half = first.shape[1] // 2
        assert first[:, :half].sum() > 1.5 * first[:, half:].sum()


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "oblique"])
def test_the_same_brain_looks_the_same_on_every_grid(orientation, brain, mask):
    expected = _rasters(draw_layers([("a", brain)], mask=mask))
    if orientation == "oblique":
        angle = np.deg2rad(25)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = nib.affines.apply_affine(turn, (-110, -130, -80))
        world = nib.affines.apply_affine(affine, np.stack(np.indices((110, 120, 80)), axis=-1))
        index = np.rint(nib.affines.apply_affine(np.linalg.inv(AFFINE), world)).astype(int)
        inside = ((index >= 0) & (index < SHAPE)).all(axis=-1)
        data = np.zeros(world.shape[:3], np.float32)
        data[inside] = np.asanyarray(brain.dataobj)[tuple(index[inside].T)]
        other = nib.Nifti1Image(data, affine)
    else:
        change = nib.orientations.ornt_transform(
            nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(orientation))
        )
        other = brain.as_reoriented(change)
    for seen, wanted in zip(_rasters(draw_layers([("a", other)], mask=mask)), expected, strict=True):
        assert seen.shape == wanted.shape
        assert np.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > (0.97 if orientation == "oblique" else 0.999)


def test_layers_carry_their_labels_and_flicker(brain, mask):
    svg = draw_layers([("Template X", brain), ("affine", brain), ("final", brain)], mask=mask)
    layers = [
        group for group in ElementTree.fromstring(svg).iter(f"{SVG}g") if "layer" in group.get("class", "")
    ]
    assert [layer.get("data-label") for layer in layers] == ["Template X", "affine", "final"]
    assert [layer.get("class") for layer in layers] == ["layer base", "layer", "layer top"]
    assert "@keyframes" in svg
    assert ":hover" in svg


def test_markup_in_a_label_stays_text(brain, mask):
    svg = draw_layers([('a<b>&"c"', brain)], mask=mask)
    assert ElementTree.fromstring(svg).find(f"{SVG}g").get("data-label") == 'a<b>&"c"'


def test_an_outline_lies_where_the_structure_is(brain, mask, dseg):
    svg = draw_contours(brain, dseg=dseg, mask=mask)
    groups = {
        g.get("data-label"): g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if g.get("data-label")
    }
    assert set(groups) == {"Brain mask", "Cerebral cortex", "Thalamus"}
    assert groups["Thalamus"].find(f"{SVG}path/{SVG}title").text == "Thalamus"
    box = bounding_box(mask, margin=14.0)
    mosaic = Mosaic.of(box, top=32.0)
    cell = next(
        cell for cell in mosaic.cells() if abs(cell.plane.position - 8) <= 12 and cell.plane.axis == 2
    )
    unit = cell.width / box.extent(0)
    lines = _moves(groups["Thalamus"].find(f"{SVG}path").get("d"))
    points = np.array([point for line in lines for point in line]) / 10
    inside = ((points >= (cell.x, cell.y)) & (points <= (cell.x + cell.width, cell.y + cell.height))).all(
        axis=1
    )
    xs = points[inside, 0]
    assert min(xs) == pytest.approx(cell.x + (-28 - box.low[0]) * unit, abs=4 * unit)
    assert max(xs) == pytest.approx(cell.x + (28 - box.low[0]) * unit, abs=4 * unit)


def test_super_regions_and_unknown_labels_are_drawn_too(brain):
    labels = np.zeros(SHAPE, np.int32)
    labels[10:20, 10:20, 10:20] = 30001
    labels[20:25, 20:25, 20:25] = 777
    svg = draw_contours(brain, dseg=nib.Nifti1Image(labels, AFFINE))
    assert 'data-label="Brain"' in svg
    assert 'data-label="Label 777"' in svg


def test_an_empty_mask_and_an_empty_segmentation_are_drawn_without_complaint(brain):
    nothing = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)
    assert ElementTree.fromstring(draw_contours(brain, dseg=nothing, mask=nothing)) is not None
    assert ElementTree.fromstring(draw_layers([("a", brain)], mask=nothing, dseg=nothing)) is not None


def test_bright_scalp_does_not_dim_the_brain(brain, mask):
    expected = _rasters(draw_contours(brain, mask=mask))[0].astype(int)
    data = np.array(brain.dataobj)
    distance = np.linalg.norm((_points() - (0, -10, 8)) / (55, 70, 55), axis=-1)
    data[(distance > 1.2) & (distance < 1.35)] = 20000.0
    flipped = mask.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))  # the same mask on another grid
    for used in (mask, flipped):
        seen = _rasters(draw_contours(nib.Nifti1Image(data, AFFINE), mask=used))[0].astype(int)
        assert np.abs(seen - expected)[expected > 250].mean() < 2


def test_not_finite_voxels_do_not_spoil_the_grey_levels(brain, mask):
    data = np.array(brain.dataobj)
    data[5, 5, 5], data[6, 6, 6] = np.nan, np.inf
    spoilt = _rasters(draw_layers([("a", nib.Nifti1Image(data, AFFINE))], mask=mask))
    for seen, wanted in zip(spoilt, _rasters(draw_layers([("a", brain)], mask=mask)), strict=True):
        assert np.abs(seen.astype(int) - wanted).mean() < 1


def test_the_affine_part_is_taken_out_of_a_composite_whatever_its_place(wave):
    turn = nib.affines.from_matvec([[1.1, 0.2, 0], [-0.2, 0.9, 0], [0, 0, 1.2]], (5, 6, 7))
    points = plane_points(
        Mosaic.of(Box((-40, -50, -30), (40, 40, 50))).rows[0][2], Box((-40, -50, -30), (40, 40, 50)), 4.0
    )
    wanted = wave.map_points(points.reshape(-1, 3)).reshape(points.shape)
    assert np.abs(without_affine(to_itk([wave, turn]), points) - wanted).max() < 1e-3
    before = nib.affines.apply_affine(turn, points).reshape(-1, 3)
    conjugated = nib.affines.apply_affine(np.linalg.inv(turn), wave.map_points(before)).reshape(points.shape)
    assert np.abs(without_affine(to_itk([turn, wave]), points) - conjugated).max() < 1e-3
    assert np.abs(wanted - points).max() > 2


def test_the_grid_of_an_affine_is_straight_and_that_of_a_deformation_is_not(brain, mask, wave):
    turn = nib.affines.from_matvec(np.diag([1.3, 0.8, 1.0]), (9, 0, 0))

    def bend(chain) -> float:
        root = ElementTree.fromstring(draw_grid(brain, to_itk(chain), mask=mask))
        across, along = [path.get("d") for path in root.iter(f"{SVG}path")]
        return max(np.ptp([x for x, _ in line]) for line in _moves(across)) / 10 + max(
            np.ptp([y for _, y in line]) for line in _moves(along)) / 10  # fmt: skip

    assert bend([turn]) < 0.5
    assert bend([wave, turn]) > 5


def test_folded_voxels_are_counted_ringed_and_shown(mask):
    data = np.ones(SHAPE, np.float32)
    data[17, 20, 15] = -0.5  # world (2, -10, 0)
    data[0, 0, 0] = -1.0  # outside the mask
    svg = draw_jacobian(nib.Nifti1Image(data, AFFINE), mask=mask)
    assert "1 folded voxels (|J| ≤ 0)" in svg
    assert {"x = 2 mm", "y = -10 mm", "z = 0 mm"} <= set(re.findall(r"[xyz] = -?\d+ mm", svg))
    assert svg.count("<circle") == 2 * (3 + 1)  # rim and ring, in three planes and in the legend
    smooth = draw_jacobian(nib.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), mask=mask)
    assert "No folded voxel" in smooth
    assert "<circle" not in smooth


def test_growth_is_red_and_shrinkage_blue(mask):
    data = np.where(_points()[..., 0] < 0, 2.0, 0.5).astype(np.float32)
    rows = _rasters(draw_jacobian(nib.Nifti1Image(data, AFFINE), mask=mask))
    axial = max(rows, key=lambda row: row.size)
    middle = axial[:, axial.shape[1] // 5 * 2 : axial.shape[1] // 5 * 3]
    height, half = middle.shape[0] // 2, middle.shape[1] // 2
    left, right = middle[height, half // 2].astype(int), middle[height, half + half // 2].astype(int)
    assert left[0] > left[2] + 40
    assert right[2] > right[0] + 40


@pytest.fixture
def curve_table() -> pd.DataFrame:
    lam = np.linspace(0, 1, 6)
    return pd.DataFrame({
        "lam": lam[::-1],
        "dice_Left-Thalamus": 0.8 - (lam - 0.4) ** 2,
        "dice_Left-Caudate": 0.7 - (lam - 0.4) ** 2,
        "similarity": lam,
        "sd_log_jacobian": lam,
        "folding_percent": lam / 10,
        "chosen": np.isclose(lam[::-1], 0.4),
    })  # fmt: skip


def _draw_curve(table: pd.DataFrame, tmp_path: Path) -> str:
    table.to_csv(tmp_path / "curve.tsv", sep="\t", index=False, na_rep="n/a")
    node = LambdaCurve(in_file=str(tmp_path / "curve.tsv"), out_file=str(tmp_path / "curve.svg"))
    return Path(node.run().outputs.out_file).read_text()


def test_the_curve_tells_lambda_and_the_limit(tmp_path, curve_table):
    svg = _draw_curve(curve_table, tmp_path)
    assert "λ* = 0.40: 0.71" in svg  # the mean of both structures at rows sorted by lambda
    assert "warning above 0.1" in svg
    assert "Dice of scan and template" in svg
    assert svg == _draw_curve(curve_table, tmp_path)


@pytest.mark.parametrize("written", ["True", "1", "true", "1.0"])
def test_chosen_is_read_however_it_is_written(tmp_path, curve_table, written):
    table = curve_table.astype({"chosen": object})
    table["chosen"] = [written if chosen else {"T": "False", "t": "false", "1": "0"}[written[0]]
                       for chosen in curve_table["chosen"]]  # fmt: skip
    assert "λ* = 0.40" in _draw_curve(table, tmp_path)


def test_a_curve_without_overlap_shows_the_similarity(tmp_path, curve_table):
    table = curve_table.drop(columns=["dice_Left-Thalamus", "dice_Left-Caudate", "sd_log_jacobian"])
    svg = _draw_curve(table, tmp_path)
    assert "Image similarity" in svg
    assert "not measured" in svg


def test_a_curve_of_one_given_lambda_is_drawn(tmp_path, curve_table):
    assert "λ* = 0.40" in _draw_curve(curve_table[curve_table["chosen"]], tmp_path)


def test_the_curve_shows_the_mean_that_lambda_was_chosen_by(tmp_path, curve_table):
    means = np.linspace(0.1, 0.2, len(curve_table)).tolist()
    curve = Curve(curve_table.assign(dice_all=means), 0.4)
    assert curve.mean_overlap().tolist() == means
    assert "all" not in curve.overlaps()


@pytest.fixture
def slider_inputs(tmp_path, brain, mask, dseg, wave) -> dict[str, str]:
    grid = Grid(SHAPE, AFFINE)
    lams = np.array([0.0, 0.5, 1.0])
    stretched = wave.data + 0.2 * _points()  # changes volumes too
    data = np.stack([stretched * (1 - lam) for lam in lams])
    sweep = LambdaSweep(lams, data, grid, np.eye(4), np.eye(4))
    rows = pd.DataFrame({"lam": lams, "dice_all": [0.7, 0.9, 0.8], "chosen": [0, 1, 0]})
    rows.to_csv(tmp_path / "curve.tsv", sep="\t", index=False)
    return {
        "in_file": str(sweep.save(tmp_path / "sweep.npz")),
        "lambda_curve": str(tmp_path / "curve.tsv"),
        "reference_image": _save(brain, tmp_path / "brain.nii.gz"),
        "reference_mask": _save(mask, tmp_path / "mask.nii.gz"),
        "reference_dseg": _save(dseg, tmp_path / "dseg.nii.gz"),
        "moving_image": _save(brain, tmp_path / "brain.nii.gz"),
        "moving_dseg": _save(dseg, tmp_path / "dseg.nii.gz"),
        "out_file": str(tmp_path / "slider.svg"),
    }


def test_the_slider_has_one_step_per_lambda_and_shows_the_chosen_one(tmp_path, slider_inputs):
    path = Path(LambdaSlider(**slider_inputs).run().outputs.out_file)
    steps = [e for e in ElementTree.fromstring(path.read_text()).iter() if "data-lam" in e.attrib]
    assert [step.get("data-lam") for step in steps] == ["0", "0.5", "1"]
    assert [step.get("class") for step in steps] == ["step", "step on", "step"]
    assert steps[1].get("data-label") == "λ = 0.50 · Dice 0.900"
    pictures = [[e.get("href") for e in step.iter(f"{SVG}image")] for step in steps]
    assert [len(found) for found in pictures] == [6, 6, 6]
    changing = [found[:4] + found[5:] for found in pictures]  # the fifth is within the uniform half
    assert len({picture for found in changing for picture in found}) == 15, (
        "every picture changes with lambda"
    )
    outlines = [[e.get("d") for e in step.iter() if e.get("class") == "line outline"] for step in steps]
    assert outlines[0]
    assert outlines[0] != outlines[2]


def test_without_deformation_the_slider_shows_the_image_itself(tmp_path, slider_inputs, brain):
    svg = Path(LambdaSlider(**slider_inputs).run().outputs.out_file).read_text()
    axial = _rasters(svg)[-6]  # first picture of the last step, where lambda is 1 and nothing moves
    middle = axial.shape[1] // 2
    left, right = axial[:, :middle][axial[:, :middle] > 20], axial[:, middle:][axial[:, middle:] > 20]
    assert np.median(left) > 2 * np.median(right), "the bright half lies on the left, and is shown there"


def test_a_sweep_comes_back_as_it_was_saved(tmp_path, wave):
    there = np.diag([1.0, 2, 1, 1])
    grid = Grid(SHAPE, AFFINE)
    LambdaSweep(np.array([0.0, 1]), np.stack([wave.data, 0 * wave.data]), grid, np.eye(4), there).save(
        tmp_path / "a.npz"
    )
    sweep = LambdaSweep.load(tmp_path / "a.npz")
    points = np.array([[[1.0, -12, 7], [20, 3, 15]]])
    expected = wave.map_points(points[0]) * (1, 2, 1)
    assert np.allclose(sweep.to_moving(points, 0)[0], expected, atol=0.02)
    assert np.allclose(sweep.deform(points, 1), points)
    assert np.allclose(jacobian_determinant(sweep.field(1)), 1)
    assert sweep.nearest(0.7) == 1


def test_a_table_that_is_no_curve_is_refused_in_words(tmp_path):
    with pytest.raises(ScanError, match="no lambda curve: it has the columns a, b and 1 rows"):
        _draw_curve(pd.DataFrame({"a": [1], "b": [2]}), tmp_path)


GOOD = {
    "brain_volume_ml": 1300.0, "prealign_success": True, "prealign_overlap": 0.95, "dice_mean": 0.75,
    "lambda": 0.3, "sd_log_jacobian": 0.3, "folding_percent": 0.001, "seconds": 60.0,
}  # fmt: skip
VOLUMES = {"Left-Thalamus": 7000.0, "Right-Thalamus": 7200.0, "Brain-Stem": 20000.0, "brain": 1.2e6}


def _summarise(tmp_path: Path, figures: dict, volumes: dict = VOLUMES, **inputs) -> tuple[str, list[str]]:
    (tmp_path / "metrics.json").write_text(json.dumps(figures))
    rows = [
        {"index": n, "name": name, "voxels": 1, "volume_mm3": v}
        for n, (name, v) in enumerate(volumes.items())
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "volumes.tsv", sep="\t", index=False)
    node = Summary(
        source_file="/in/sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",
        metrics=[str(tmp_path / "metrics.json")],
        volumes=str(tmp_path / "volumes.tsv"),
        out_file=str(tmp_path / "summary.html"),
        **inputs,
    )
    outputs = node.run().outputs
    return Path(outputs.out_file).read_text(), outputs.warnings


def test_a_good_session_has_no_warning_and_all_numbers_with_units(tmp_path):
    page, warnings = _summarise(tmp_path, GOOD)
    assert warnings == []
    assert "No warnings" in page
    assert "<h3>Session a, run-2</h3>" in page
    for text in ("1300 mL", "0.950", "0.0010 %", "60.0 s", "7.00", "14.20", "20.00"):
        assert text in page
    assert 'data-warnings="0"' in page


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            {"prealign_success": False, "prealign_reason": "masks overlap by 0.2"},
            "failed: masks overlap by 0.2.",
        ),
        ({"folding_percent": 0.25}, "Folded voxels is 0.2500 %, expected at most 0.1 %"),
        ({"dice_mean": 0.4}, "Dice after deformation is 0.400, expected at least 0.6"),
        ({"brain_volume_ml": 300.0}, "Brain volume is 300 mL, expected 700 to 2100 mL"),
        ({"volumes_remarks": ["Left-Thalamus is 1 ml"]}, "Implausible volume: Left-Thalamus is 1 ml"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, figure, words):
    page, warnings = _summarise(tmp_path, {**GOOD, **figure})
    assert len(warnings) == 1
    assert words in warnings[0]
    assert words in page
    assert "<strong>1 warning</strong>" in page


def test_implausible_volumes_are_found_in_the_table(tmp_path):
    _, warnings = _summarise(tmp_path, GOOD, {**VOLUMES, "Brain-Stem": 90000.0})
    assert warnings == [
        "Implausible volume: Brain-Stem is 90 ml, expected 9 to 45 ml. Look at the segmentation."
    ]


def test_warnings_and_notes_of_the_run_come_with_their_markup_disarmed(tmp_path):
    page, _ = _summarise(
        tmp_path, GOOD, warnings=["Two T1w <images>"], notes=["Mask: from a derivative & given"]
    )
    assert "Two T1w &lt;images&gt;" in page
    assert "derivative &amp; given" in page
    assert "<images>" not in page


def test_a_failed_alignment_is_the_first_warning():
    found = warnings_of({"prealign_success": False, "dice_mean": 0.1}, ["something else"])
    assert [text.split()[0] for text in found] == ["Alignment", "something", "Dice"]


def test_a_session_without_any_figure_still_has_a_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(Summary(source_file="sub-01_T1w.nii.gz").run().outputs.out_file).read_text()
    assert "<h3>T1w scan</h3>" in page


def test_the_mosaic_fills_its_width():
    mosaic = Mosaic.of(Box((-70.0, -100.0, -60.0), (70.0, 70.0, 80.0)))
    ends = {round(cell.x + cell.width, 3) for cell in mosaic.cells()}
    assert max(ends) == WIDTH


def test_own_regions_are_drawn_by_name_and_colour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = np.zeros((30, 32, 34), np.int16)
    data[8:14, 10:16, 12:18], data[16:22, 10:16, 12:18] = 31001, 17
    affine = np.diag([2.0, 2, 2, 1])
    for name, values in (("dseg", data), ("scan", data % 7 + 1)):
        nib.save(nib.Nifti1Image(values.astype(np.int16), affine), f"{name}.nii.gz")
    legend = tmp_path / "dseg.tsv"
    legend.write_text(
        "index\tname\tabbreviation\tcolor\n31001\tNA\tNA\t#0077bb\n17\tLeft-Hippocampus\tLHip\t#dcd814\n"
    )
    drawn = LabelContours(in_file="scan.nii.gz", in_dseg="dseg.nii.gz", in_legend=str(legend)).run()
    svg = Path(drawn.outputs.out_file).read_text()
    assert 'data-label="NA"' in svg
    assert "#0077bb" in svg
    assert 'data-label="Hippocampus"' in svg
