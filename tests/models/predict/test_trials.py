"""Trying lambdas on one pair: nothing twice, and the regions asked for decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nibabel as nb
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hyperprep.exceptions import UsageError
from hyperprep.models.nn.smooth import gaussian_smooth
from hyperprep.models.nn.warp import identity_grid, integrate, warp
from hyperprep.models.predict.pair import BrainPair, make_pair, region_groups
from hyperprep.models.predict.trials import REFERENCE_LAMBDA, SIMILARITY_KEPT, Trials
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.measures import folding_percent, jacobian_determinant, sd_log_jacobian
from hyperprep.models.spatial.transforms import DisplacementField

GRID = Grid((16, 20, 16), np.diag([8.0, 8.0, 8.0, 1.0]))


class _Fake:
    """A network whose hippocampus fits best at 0.2 and whose cortex fits best at 0.8."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        self.asked.append(float(lam))
        return torch.full((1, 3, 2, 2, 2), float(lam))


class _Pair(BrainPair):
    def measure(self, velocity: torch.Tensor) -> dict[str, float]:
        lam = float(velocity.mean())
        peaks = {"all": 0.5, "hippocampus": 0.2, "cortex": 0.8}
        row = {f"dice_{name}": 0.9 - abs(lam - peak) for name, peak in peaks.items()}
        return {**row, "similarity": 0.7, "sd_log_jacobian": 0.1, "folding_percent": 0.0}


@pytest.fixture
def pair() -> _Pair:
    image = torch.ones(1, 1, 4, 4, 4)
    return _Pair(
        image, image, image, image, None, None, (3, 17, 42, 53), region_groups(["hippocampus", "cortex"])
    )


@pytest.mark.parametrize(("regions", "best"), [((), 0.5), (["hippocampus"], 0.2), (["cortex"], 0.8)])
def test_the_regions_asked_for_decide(pair: _Pair, regions: list[str], best: float) -> None:
    network = _Fake()
    trials = Trials(network, pair, regions)  # type: ignore[arg-type]
    chosen = trials.choose()
    assert abs(chosen - best) < 0.04
    assert trials.evaluations <= 12
    trials.velocity(chosen), trials.row(chosen)
    assert len(network.asked) == len(set(network.asked)) == trials.evaluations
    marked = [row["lam"] for row in trials.curve(chosen) if row["chosen"]]
    assert marked == [chosen]
    assert [row["lam"] for row in trials.curve(chosen)] == sorted(row["lam"] for row in trials.curve(chosen))


def test_a_region_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="hippocampus"):
        region_groups(["hippocmpus"])


def _brain(label: int) -> tuple[nb.Nifti1Image, None, nb.Nifti1Image, np.ndarray]:
    data = np.random.default_rng(0).random(GRID.shape).astype(np.float32) + 1
    dseg = np.full(GRID.shape, label, np.int16)
    return nb.Nifti1Image(data, GRID.affine), None, nb.Nifti1Image(dseg, GRID.affine), np.eye(4)


@pytest.mark.parametrize(("first", "second"), [(17, 53), (30001, 30001), (17, 0)])
def test_segmentations_without_a_common_structure_leave_the_images_to_decide(first: int, second: int) -> None:
    made = make_pair(GRID, _brain(first), _brain(second), torch.device("cpu"))
    assert made.numbers == ()
    row = made.measure(torch.zeros(1, 3, 8, 10, 8))
    assert not any(key.startswith("dice") for key in row)
    assert row["similarity"] > 0.9


KNOWN = 0.4
"""The lambda at which the network below undoes the deformation exactly."""


class _Scaled:
    """A network whose velocity is the right one times (1 - lambda) / (1 - KNOWN)."""

    def __init__(self, velocity: torch.Tensor) -> None:
        self.velocity, self.runs = velocity, 0

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.velocity * (1 - lam) / (1 - KNOWN)


@pytest.fixture(scope="module")
def deformed() -> tuple[_Scaled, BrainPair]:
    """A network, and a brain of four structures with its copy under a known deformation."""
    coarse, shape = (10, 12, 14), (20, 24, 28)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, *coarse, generator=rng)
    velocity = gaussian_smooth(noise, 2.5)
    velocity = 0.8 * velocity / velocity.std()
    where = identity_grid(shape, noise)
    centre = torch.tensor(shape).view(1, 3, 1, 1, 1) / 2
    inside = ((where - centre) / (0.42 * centre * 2)).square().sum(1, keepdim=True) < 1
    texture = gaussian_smooth(torch.rand(1, 1, *shape, generator=rng), 1.0)
    quarter = 2 * (where[:, :1] > centre[:, :1]) + (where[:, 1:2] > centre[:, 1:2]).long()
    fixed = (texture + 0.2 * quarter) * inside
    hot = torch.cat([(quarter == q) & inside for q in range(4)], dim=1).float()
    back = 2 * F.interpolate(integrate(-velocity, steps=6), size=shape, mode="trilinear")
    moving, moved_hot = warp(fixed, back), warp(hot, back)
    labels = [F.avg_pool3d(one, 2) for one in (hot, moved_hot)]
    pair = BrainPair(
        fixed, moving, fixed, moving, labels[0], labels[1], (17, 53, 3, 42), region_groups(["hippocampus"])
    )
    return _Scaled(velocity), pair


@pytest.mark.parametrize("kind", ["bounded", "gradient"])
@pytest.mark.parametrize("labels", [True, False])
def test_the_right_lambda_is_found_with_labels_and_without(
    deformed: tuple[_Scaled, BrainPair], kind: Any, labels: bool
) -> None:
    network, pair = deformed
    network.runs = 0
    trials = Trials(network, pair if labels else pair.without_labels())  # type: ignore[arg-type]
    found = trials.search(kind)
    assert network.runs == trials.evaluations <= 12
    assert trials.gradients == len(found.slopes)
    assert bool(found.slopes) == (kind == "gradient")
    assert all(trials.score(lam) == pytest.approx(value, abs=1e-6) for lam, value in found.scores.items())
    assert network.runs == trials.evaluations, "a score that is known is not computed again"
    if labels:
        assert abs(found.best - KNOWN) < 0.06
    else:  # as regular as the fit allows
        wanted = SIMILARITY_KEPT * trials.score(KNOWN)
        assert found.best > KNOWN
        assert trials.score(found.best) >= 0.999 * wanted
        assert trials.score(found.best + 0.05) < wanted


@pytest.mark.parametrize("kind", ["bounded", "gradient"])
def test_runs_in_both_directions_are_counted(deformed: tuple[_Scaled, BrainPair], kind: Any) -> None:
    network, pair = deformed
    network.runs = 0
    trials = Trials(network, pair, symmetric=True)  # type: ignore[arg-type]
    found = trials.search(kind)
    assert network.runs == trials.evaluations == 2 * len(trials.curve(found.best))
    assert trials.gradients == 2 * len(found.slopes)
    # this network gives both directions the same velocity: their average is none
    assert trials.velocity(found.best).abs().max() == 0


@pytest.mark.parametrize("regions", [(), ("hippocampus",)])
@pytest.mark.parametrize("lam", [0.1, 0.25, 0.9])
@pytest.mark.parametrize("labels", [True, False])
def test_the_slope_is_that_of_the_score(
    deformed: tuple[_Scaled, BrainPair], regions: tuple[str, ...], lam: float, labels: bool
) -> None:
    network, pair = deformed
    trials = Trials(network, pair, regions).aimed_at(regions, by_labels=labels)  # type: ignore[arg-type]
    score, slope = trials.score_and_slope(lam)
    step = 0.004
    numeric = (trials.score(lam + step) - trials.score(lam - step)) / (2 * step)
    assert score == pytest.approx(trials.score(lam), abs=1e-6)
    assert slope == pytest.approx(numeric, rel=0.1, abs=0.02)
    assert abs(slope) > 0.02


def test_the_guard_has_a_slope_too(deformed: tuple[_Scaled, BrainPair]) -> None:
    network, pair = deformed
    unlike = replace(pair, moving=pair.moving.flip(2))
    trials = Trials(network, unlike)  # type: ignore[arg-type]
    trials._row[REFERENCE_LAMBDA] = {**trials.row(REFERENCE_LAMBDA), "similarity": 1.0}
    plain = Trials(network, unlike)  # type: ignore[arg-type]
    guarded, free = trials.score_and_slope(0.7), plain.score_and_slope(0.7)
    assert guarded[0] < free[0]
    assert guarded[1] != pytest.approx(free[1], rel=0.01)
    numeric = (trials.score(0.704) - trials.score(0.696)) / 0.008
    assert guarded[1] == pytest.approx(numeric, rel=0.1, abs=0.02)


def test_other_aims_share_the_registrations(deformed: tuple[_Scaled, BrainPair]) -> None:
    network, pair = deformed
    trials = Trials(network, pair)  # type: ignore[arg-type]
    for lam in (0.25, 0.5):
        trials.row(lam)
    network.runs = 0
    region = trials.aimed_at(["hippocampus"])
    assert region.score(0.5) != trials.score(0.5)
    assert trials.aimed_at(by_labels=False).score(0.5) == pytest.approx(trials.row(0.5)["similarity"])
    assert network.runs == 0


def test_figures_are_those_of_the_measures_in_numpy(deformed: tuple[_Scaled, BrainPair]) -> None:
    network, pair = deformed
    velocity = 3 * network.velocity  # folds somewhere
    row = pair.measure(velocity)
    data = integrate(velocity, steps=6)[0].movedim(0, -1).numpy()
    determinant = jacobian_determinant(DisplacementField(Grid(data.shape[:3], np.eye(4)), data))
    inside = (F.avg_pool3d((pair.fixed > 0).float(), 2) > 0.5)[0, 0].numpy()
    assert row["sd_log_jacobian"] == pytest.approx(sd_log_jacobian(determinant, inside), rel=1e-4)
    assert row["folding_percent"] == pytest.approx(folding_percent(determinant, inside), abs=1e-3)
    assert row["sd_log_jacobian"] > 0.3


@pytest.mark.parametrize("kind", ["bounded", "gradient"])
def test_further_hyperparameters_stay_as_they_are(deformed: tuple[_Scaled, BrainPair], kind: Any) -> None:
    network, pair = deformed
    asked: list[list[float]] = []

    def two(fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
        asked.append(hyper.tolist())
        return network.velocity * (1 - hyper[0]) / (1 - KNOWN) * (0.5 + hyper[1])

    trials = Trials(two, pair, others=(0.5,))  # type: ignore[arg-type]
    assert abs(trials.search(kind).best - KNOWN) < 0.06
    assert {hyper[1] for hyper in asked} == {0.5}
    assert trials.aimed_at(["hippocampus"]).others == (0.5,)
