"""Losses against direct computation."""

import pytest
import torch

from hyperprep.models.losses.dice import exclusive_loss, region_loss, soft_dice
from hyperprep.models.losses.regularity import gradient_energy, jacobian_determinant
from hyperprep.models.losses.similarity import local_ncc, mean_squared_error
from hyperprep.models.nn.box import box_mean


@pytest.mark.parametrize("window", [3, 5])
def test_box_mean_equals_average_pooling(window):
    volume = torch.rand(1, 2, 7, 8, 9)
    pooled = torch.nn.functional.avg_pool3d(
        volume, window, stride=1, padding=window // 2, count_include_pad=True
    )
    assert torch.allclose(box_mean(volume, window), pooled, atol=1e-5)


def test_local_ncc_sees_any_linear_change_of_intensity_and_no_other():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 12, 12, 12)
    inner = torch.zeros_like(image)
    inner[..., 3:-3, 3:-3, 3:-3] = 1
    assert local_ncc(image, 0.3 - 0.2 * image, window=5, mask=inner, eps=1e-9) > 0.99
    assert local_ncc(image, torch.rand_like(image), window=5, mask=inner) < 0.1


def test_gradient_energy_of_a_ramp():
    ramp = torch.zeros(1, 3, 5, 6, 7)
    ramp[:, 1] = 0.5 * torch.arange(6.0)[None, None, :, None]
    assert gradient_energy(ramp).item() == pytest.approx(0.25)


def test_jacobian_of_a_scaling_and_of_a_fold():
    axis = torch.arange(6.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    assert torch.allclose(jacobian_determinant(0.1 * grid), torch.tensor(1.1**3))
    assert (jacobian_determinant(-1.5 * grid) < 0).all()


def test_exclusive_loss_equals_its_definition():
    torch.manual_seed(0)
    logits, target = torch.randn(50, 4), torch.randint(0, 4, (50,))
    p = logits.softmax(1)
    truth = torch.nn.functional.one_hot(target, 4).float()
    dice = soft_dice(p.T[None, 1:], truth.T[None, 1:]).mean()
    wanted = 1 - dice + torch.nn.functional.cross_entropy(logits, target)
    assert exclusive_loss(logits, target).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_region_loss_is_least_for_the_truth():
    target = (torch.rand(60, 3) > 0.5).float()
    right, wrong = 20 * (2 * target - 1), 20 * (1 - 2 * target)
    assert region_loss(right, target) < 1e-3 < 1 < region_loss(wrong, target)


def test_mean_squared_error_is_scaled_by_the_noise():
    assert mean_squared_error(
        torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), 0.1)
    ).item() == pytest.approx(4.0)
