"""Losses against direct computation."""

import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.losses.dice import exclusive_loss, region_loss, soft_dice
from hyperprep.models.losses.registration import weighted_loss
from hyperprep.models.losses.regularity import gradient_energy, jacobian_determinant
from hyperprep.models.losses.similarity import (
    SIMILARITIES,
    local_ncc,
    mean_squared_error,
    mutual_information,
    similarity_loss,
)
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


def _binned(bins: int, seed: int, shape: tuple[int, ...] = (1, 1, 7, 8, 9)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(bins, shape, generator=generator) / (bins - 1)


def test_mutual_information_of_values_at_bin_centres_is_that_of_their_joint_histogram():
    bins = 5
    first = _binned(bins, 0)
    second = torch.where(_binned(2, 1) > 0, first, _binned(bins, 2))
    joint, _, _ = np.histogram2d(
        first.numpy().ravel() * (bins - 1),
        second.numpy().ravel() * (bins - 1),
        bins=np.arange(bins + 1) - 0.5,
    )
    joint /= joint.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    wanted = (joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum()
    assert mutual_information(first, second, bins=bins).item() == pytest.approx(wanted, abs=1e-5)


def test_mutual_information_sees_any_relation_between_intensities():
    torch.manual_seed(0)
    image = torch.rand(1, 1, 17, 18, 19)
    folded = (image - 0.5).abs()
    related, unrelated = mutual_information(image, folded), mutual_information(image, torch.rand_like(image))
    assert related > 1 > 0.15 > unrelated
    assert local_ncc(image, folded, window=5) < 0.2


def test_mutual_information_counts_only_the_mask():
    first, second = _binned(8, 0), _binned(8, 1)
    mask = torch.zeros_like(first)
    mask[:, :, :4] = 1
    whole = mutual_information(first[:, :, :4], second[:, :, :4], bins=8)
    assert mutual_information(first, second, bins=8, mask=mask).item() == pytest.approx(
        whole.item(), abs=1e-5
    )


def test_gradient_of_mutual_information_is_that_of_differences():
    torch.manual_seed(0)
    fixed = torch.rand(1, 1, 5, 6, 7, dtype=torch.float64)
    moved = (0.1 + 0.8 * fixed.square() + 0.05 * torch.rand_like(fixed)).requires_grad_()
    mutual_information(fixed, moved, bins=8).backward()
    assert moved.grad is not None
    for place in ((0, 0, 1, 2, 3), (0, 0, 4, 0, 6)):
        step = torch.zeros_like(fixed)
        step[place] = 1e-6
        with torch.no_grad():
            rise = mutual_information(fixed, moved + step, bins=8) - mutual_information(fixed, moved, bins=8)
        assert moved.grad[place].item() == pytest.approx(rise.item() / 1e-6, rel=1e-3)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_similarity_is_lowest_for_the_aligned_image(name):
    torch.manual_seed(0)
    image = torch.nn.functional.avg_pool3d(torch.rand(1, 1, 17, 18, 19), 3, stride=1, padding=1)
    image = (image - image.min()) / (image.max() - image.min())
    aligned = similarity_loss(name, image, image)
    assert all(aligned < similarity_loss(name, image, image.roll(shift, 2)) for shift in (1, 2))


def test_an_unknown_similarity_is_refused():
    with pytest.raises(UsageError, match="ncc, mse, mi"):
        similarity_loss("ssd", torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2))


@pytest.mark.parametrize(
    ("lam", "gamma", "wanted"), [(0, 0, 5.0), (1, 0, 7.0), (0, 1, 11.0), (0.25, 0.5, 1.875 + 1.75 + 5.5)]
)
def test_weights_of_the_terms_are_those_of_equation_5(lam, gamma, wanted):
    terms = [torch.tensor(value) for value in (5.0, 7.0, 11.0)]
    assert weighted_loss(*terms, lam=lam, gamma=gamma).item() == pytest.approx(wanted)
