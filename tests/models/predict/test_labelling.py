"""From logits on a network's grid to the scan's own grid."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hyperprep.models.predict.evidence import Evidence
from hyperprep.models.predict.labelling import Labelling
from hyperprep.models.predict.own_regions import OwnLogits
from hyperprep.models.predict.volumes import INTRACRANIAL, paint_regions
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import resolve_labels
from hyperprep.models.spatial.own_regions import number_regions
from hyperprep.models.weights import WeightsEntry

ENTRY = WeightsEntry("segment", Path("segment.safetensors"), "0" * 64, {})
NUMBERS = (11, 12, 17)
GRID = Grid((7, 8, 9), np.diag([2.0, 2, 2, 1]))
FINE = Grid((13, 15, 17), np.eye(4))
HIPPOCAMPUS, CAUDATE = (resolve_labels([n])[0] for n in ("17", "11"))


def halves():
    """Caudate certain on the left half of the grid, hippocampus on the right one."""
    logits = torch.zeros(3, *GRID.shape)
    logits[0, :4], logits[2, 4:] = 20.0, 20.0
    return logits


def labelled(logits=None, target=GRID, **options):
    given = {"temperature": 1.0, "template2scan": np.eye(4), "evidence": None, "usual_mm3": {}, **options}
    template2scan = given.pop("template2scan")
    asked = given.pop("asked", (CAUDATE, HIPPOCAMPUS))
    logits = halves() if logits is None else logits
    made = Labelling(target, GRID, template2scan, NUMBERS, torch.ones(GRID.shape), logits, 0.5, None, **given)
    return made.finish(asked, ENTRY, uncertainty=True)


def test_certain_logits_make_certain_labels():
    made = labelled()
    data = np.asanyarray(made.dseg.dataobj)
    assert set(np.unique(data[:4])) == {11}
    assert set(np.unique(data[4:])) == {17}
    assert made.entropy.get_fdata().max() < 1e-3
    assert [row["expected_dice"] for row in made.volumes[:2]] == [1.0, 1.0]
    assert made.volumes[0]["volume_mm3"] == pytest.approx(4 * 8 * 9 * 8, rel=1e-3)


def test_equal_logits_are_as_uncertain_as_can_be():
    made = labelled(torch.zeros(3, *GRID.shape))
    assert np.allclose(made.entropy.get_fdata(), np.log2(3), atol=1e-5)
    assert made.metadata["mean_entropy"] == pytest.approx(np.log2(3), abs=1e-3)
    # all voxels go to one of three, and a third of them are right
    chosen = next(row for row in made.volumes if row["name"] == CAUDATE.name)
    assert chosen["expected_dice"] == pytest.approx(2 / 3 / (1 / 3 + 1), abs=1e-3)


def test_a_temperature_makes_labels_less_certain_and_keeps_them():
    cold, warm = labelled(halves() / 8), labelled(halves() / 8, temperature=3.0)
    assert np.array_equal(cold.dseg.dataobj, warm.dseg.dataobj)
    assert warm.metadata["mean_entropy"] > cold.metadata["mean_entropy"] + 0.1
    assert warm.volumes[0]["expected_dice"] < cold.volumes[0]["expected_dice"] - 0.05


def test_voxels_are_judged_by_their_own_intensity():
    """Where the grid's own voxels cannot tell, finer intensities put the border where it is."""
    table = torch.zeros(64, 1)
    table[32:], table[:32] = 4.0, -4.0
    values = np.zeros(FINE.shape, np.float32)
    values[5:] = 1.0
    evidence = Evidence(
        ratios=torch.zeros(1, *GRID.shape), table=table, weights=torch.tensor([[0.0], [0.0], [1.0]]),
        values=values,
    )  # fmt: skip
    logits = torch.zeros(3, *GRID.shape)
    logits[1] = -20.0
    made = np.asanyarray(labelled(logits, FINE, evidence=evidence).dseg.dataobj)
    assert set(np.unique(made[:5])) == {11}
    assert set(np.unique(made[5:])) == {17}


def test_what_the_network_saw_already_is_not_counted_twice():
    table = torch.linspace(-3, 3, 64)[:, None]
    values = np.full(GRID.shape, 0.9, np.float32)
    evidence = Evidence(
        ratios=torch.full((1, *GRID.shape), float(table[57, 0])), table=table,
        weights=torch.tensor([[0.0], [0.0], [1.0]]), values=values,
    )  # fmt: skip
    plain, judged = labelled(halves() / 8), labelled(halves() / 8, evidence=evidence)
    assert np.allclose(plain.entropy.get_fdata(), judged.entropy.get_fdata(), atol=1e-5)


def test_volumes_are_compared_with_the_average_brain_scaled_to_the_head():
    usual = {"brain": 10_000.0, 11: 1000.0, 12: 1.0, 17: 2000.0}
    size = np.diag([1.1, 1.1, 1.1, 1.0])
    target = Grid(GRID.shape, size @ GRID.affine)
    made = labelled(target=target, template2scan=size, usual_mm3=usual)
    caudate, _, whole = made.volumes
    assert whole["index"] == INTRACRANIAL
    assert whole["volume_mm3"] == pytest.approx(1.948e6 * 1.1**3, rel=1e-4)
    assert caudate["volume_mm3"] == pytest.approx(4 * 8 * 9 * 8 * 1.1**3, rel=1e-3)
    assert caudate["relative_volume"] == pytest.approx(4 * 8 * 9 * 8 / 1000, rel=1e-2)
    assert all(row["relative_volume"] is None for row in labelled().volumes[:2])


def test_own_regions_overlap_with_leaves_and_are_measured():
    own = number_regions(["Claustrum", "Habenula"])
    logits = torch.full((2, *GRID.shape), -20.0)
    logits[0, 2:5], logits[1, 3:4] = 20.0, 20.0
    found = OwnLogits(own, logits, torch.zeros(2, 1), {31001: 50.0}, "1" * 64)
    made = labelled(asked=(CAUDATE, *own), own=found, usual_mm3={31001: 400.0})
    claustrum, habenula = (np.asanyarray(made.regions[region.name].dataobj) for region in own)
    assert claustrum[2:5].all()
    assert claustrum.sum() == claustrum[2:5].size
    assert habenula.sum() == habenula[3:4].size
    assert (np.asanyarray(made.dseg.dataobj)[2:4] == 11).all()
    rows = {row["name"]: row for row in made.volumes}
    assert rows["Claustrum"]["volume_mm3"] == pytest.approx(8.0 * claustrum.sum(), rel=1e-3)
    assert rows["Claustrum"]["relative_volume"] == pytest.approx(8.0 * claustrum.sum() / 400.0, rel=1e-2)
    assert rows["Habenula"]["relative_volume"] is None
    assert rows["Habenula"]["expected_dice"] == 1.0
    assert made.metadata["regions_weights_sha256"] == "1" * 64
    painted = np.asanyarray(paint_regions(made.dseg, made.regions, own).dataobj)
    assert (painted[3] == 31002).all(), "the smaller region lies over the larger one"
    assert (painted[2] == 31001).all(), "own regions lie over leaves"


def test_own_regions_follow_the_voxels_own_intensity():
    own = number_regions(["Claustrum"])
    table = torch.zeros(64, 1)
    table[32:], table[:32] = 4.0, -4.0
    values = np.zeros(FINE.shape, np.float32)
    values[5:] = 1.0
    evidence = Evidence(torch.zeros(1, *GRID.shape), table, torch.zeros(3, 1), values)
    found = OwnLogits(own, torch.zeros(1, *GRID.shape), torch.ones(1, 1), {}, "1" * 64)
    made = labelled(halves(), FINE, asked=own, own=found, evidence=evidence)
    mask = np.asanyarray(made.regions["Claustrum"].dataobj)
    assert mask[5:].all()
    assert not mask[:5].any()
