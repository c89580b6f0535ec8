"""Trying lambdas on one pair: nothing twice, and the regions asked for decide."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.predict.pair import BrainPair, make_pair, region_groups
from hyperprep.models.predict.trials import Trials
from hyperprep.models.spatial.grids import Grid

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
