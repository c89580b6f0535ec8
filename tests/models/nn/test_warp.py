"""Warping and integration against known motions."""

import pytest
import torch

from hyperprep.models.nn.norm import InstanceNorm
from hyperprep.models.nn.warp import compose, integrate, resize, warp


def smooth_velocity(shape=(16, 18, 20), size=1.0):
    torch.manual_seed(1)
    return (
        torch.nn.functional.interpolate(
            torch.randn(1, 3, 3, 3, 3), size=shape, mode="trilinear", align_corners=True
        )
        * size
    )


def test_warp_by_whole_voxels_shifts():
    image = torch.rand(1, 1, 7, 8, 9)
    shift = torch.zeros(1, 3, 7, 8, 9)
    shift[:, 2] = 2
    assert torch.allclose(warp(image, shift)[..., :-2], image[..., 2:], atol=1e-5)


def test_constant_velocity_is_a_translation():
    velocity = torch.ones(1, 3, 7, 8, 9) * torch.tensor([0.5, -0.25, 1.0]).view(1, 3, 1, 1, 1)
    assert torch.allclose(integrate(velocity), velocity, atol=1e-5)


def test_negative_velocity_inverts():
    velocity = smooth_velocity()
    there, back = integrate(velocity, steps=7), integrate(-velocity, steps=7)
    inner = (..., slice(3, -3), slice(3, -3), slice(3, -3))
    residual = compose(there, back)[inner].norm(dim=1)
    assert there[inner].norm(dim=1).mean() > 0.4
    assert residual.mean() < 0.03


def test_resize_keeps_world_motion():
    field = smooth_velocity((8, 8, 8))
    assert torch.allclose(resize(field, (16, 16, 16), factor=2.0).mean(), 2 * field.mean(), atol=1e-3)


def test_instance_norm_equals_torchs():
    torch.manual_seed(0)
    features = torch.rand(2, 4, 5, 6, 7)
    ours, theirs = InstanceNorm(4), torch.nn.InstanceNorm3d(4, affine=True)
    with torch.no_grad():
        ours.weight.copy_(torch.rand(4))
        theirs.weight.copy_(ours.weight)
    assert torch.allclose(ours(features), theirs(features), atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_in_slabs_changes_nothing(mode: str) -> None:
    image, displacement = torch.rand(1, 2, 7, 8, 9), torch.randn(1, 3, 6, 8, 9)
    whole = warp(image, displacement, mode=mode)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with torch.no_grad():
            assert torch.equal(warp(image, displacement, mode=mode), whole)
    finally:
        torch.set_num_threads(before)
