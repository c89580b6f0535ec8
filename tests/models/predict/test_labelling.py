"""From logits on a network's grid to the scan's own grid."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hyperprep.models.predict.evidence import Evidence
from hyperprep.models.predict.labelling import Labelling
from hyperprep.models.predict.volumes import INTRACRANIAL
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import resolve_labels
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
