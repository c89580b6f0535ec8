"""Averages over cubes against torch's own pooling, values and derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hyperprep.models.nn.box import box_mean


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9])
def test_mean_is_that_of_a_pooling_window(window: int) -> None:
    volume = torch.rand(2, 3, 9, 10, 11, dtype=torch.float64, requires_grad=True)
    ours, pooled = box_mean(volume, window), F.avg_pool3d(volume, window, 1, window // 2)
    assert torch.allclose(ours, pooled)
    slopes = [torch.autograd.grad((mean * mean.sin()).sum(), volume)[0] for mean in (ours, pooled)]
    assert torch.allclose(*slopes)


def test_second_derivative() -> None:
    volume = torch.rand(1, 1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: box_mean(v, 3), (volume,))
