"""Refinement and inversion on deformations that are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hyperprep.models.nn.greedy import STAGES, Stage, invert_displacement, refine
from hyperprep.models.nn.smooth import gaussian_smooth
from hyperprep.models.nn.warp import resize, warp

SHAPE = (48, 56, 64)
QUICK = (Stage(4, 4, 60, 0.5, 1.2), Stage(2, 2, 40, 0.5, 1.2))


@pytest.fixture(scope="module")
def brain() -> torch.Tensor:
    """A textured ball in [0, 1], zero outside."""
    generator = torch.Generator().manual_seed(3)
    texture = gaussian_smooth(torch.rand(1, 1, *SHAPE, generator=generator), 3.0)
    texture = (texture - texture.min()) / (texture.max() - texture.min()) * 0.8 + 0.2
    axes = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    ball = (sum(axis**2 for axis in axes) < 0.8).float()
    return texture * ball


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    """A smooth displacement of up to 3 voxels (fixed to moving) that does not fold."""
    axes = torch.meshgrid(*(torch.linspace(0, 2 * torch.pi, n) for n in SHAPE), indexing="ij")
    return 3 * torch.stack([torch.sin(axes[1]), torch.cos(axes[2]), torch.sin(axes[0])])[None]


def _start() -> torch.Tensor:
    return torch.zeros(1, 3, *(n // 4 for n in SHAPE))


def test_a_known_deformation_is_found_again(brain: torch.Tensor, truth: torch.Tensor) -> None:
    moving = warp(brain, invert_displacement(truth, steps=60))
    found = refine(_start(), brain, moving, lam=0.3, stages=QUICK)
    assert tuple(found.shape) == (1, 3, *(n // 2 for n in SHAPE))
    inside = F.avg_pool3d(brain, 2) > 0.2
    expected = F.avg_pool3d(truth, 2) / 2
    before = expected.norm(dim=1, keepdim=True)[inside].mean()
    after = (found - expected).norm(dim=1, keepdim=True)[inside].mean()
    assert after < 0.5 * before


def test_a_larger_lambda_gives_a_smoother_deformation(brain: torch.Tensor, truth: torch.Tensor) -> None:
    moving = warp(brain, truth)
    rough = [
        float(refine(_start(), brain, moving, lam=lam, stages=QUICK).diff(dim=2).square().mean())
        for lam in (0.0, 0.4, 1.0)
    ]
    assert rough[0] > rough[1] > rough[2] > 0


def test_equal_images_and_a_good_start_stay(brain: torch.Tensor, truth: torch.Tensor) -> None:
    still = refine(_start(), brain, brain, lam=0.3, stages=QUICK)
    assert float(still.norm(dim=1).mean()) < 0.1
    start = resize(truth, tuple(n // 4 for n in SHAPE), factor=0.25)
    moving = warp(brain, invert_displacement(truth, steps=60))
    kept = refine(start, brain, moving, lam=0.3, stages=QUICK)
    inside = F.avg_pool3d(brain, 2) > 0.2
    expected = F.avg_pool3d(truth, 2) / 2
    error = (kept - expected).norm(dim=1, keepdim=True)[inside].mean()
    assert error < 0.4 * expected.norm(dim=1, keepdim=True)[inside].mean()  # smoothing takes a part


def test_images_without_structure_leave_the_start_as_it_is() -> None:
    flat = torch.zeros(1, 1, *SHAPE)
    flat[:, :, 12:36, 12:40, 12:48] = 1
    found = refine(_start(), flat, torch.zeros_like(flat), lam=0.3, stages=QUICK)
    assert torch.isfinite(found).all()
    assert float(found.abs().max()) == 0


def test_the_last_default_stage_takes_finer_images_than_its_field(brain: torch.Tensor) -> None:
    assert (STAGES[-1].image_mm, STAGES[-1].field_mm) == (1, 2)
    quick = (*QUICK[:1], Stage(1, 2, 2, 0.4, 0.7, 0.75))
    assert tuple(refine(_start(), brain, brain, lam=0.3, stages=quick).shape[2:]) == (24, 28, 32)


def test_the_inverse_leads_back(truth: torch.Tensor) -> None:
    inverse = invert_displacement(truth)
    there_and_back = truth + warp(inverse, truth)
    error = there_and_back[:, :, 8:-8, 8:-8, 8:-8].norm(dim=1)
    assert float(error.mean()) < 0.02
    assert float(error.max()) < 0.5


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.2, 2.5])
def test_smoothing_keeps_constants_and_sums_and_has_the_width_asked_for(sigma: float) -> None:
    assert torch.allclose(gaussian_smooth(torch.full((2, 3, 5, 6, 7), 2.5), sigma), torch.tensor(2.5))
    peak = torch.zeros(1, 1, 25, 25, 25)
    peak[0, 0, 12, 12, 12] = 1
    profile = gaussian_smooth(peak, sigma).sum(dim=(0, 1, 3, 4))
    assert float(profile.sum()) == pytest.approx(1, abs=1e-5)
    width = float((profile * (torch.arange(25) - 12.0) ** 2).sum()) ** 0.5
    assert width == pytest.approx(sigma, rel=0.12 if sigma > 0.5 else 0.9)
