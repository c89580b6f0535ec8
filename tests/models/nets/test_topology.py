"""The topology network: the paper's sizes by default, two and three dimensions, features that stay."""

from __future__ import annotations

import pytest
import torch

from hyperprep.models.losses.topology import (
    bound,
    brain_union,
    differences,
    feature_variances,
    score,
    surprise,
)
from hyperprep.models.losses.variational import divergence_map
from hyperprep.models.nets.build import build_network
from hyperprep.models.nets.head_unet import HeadConditionedUNet
from hyperprep.models.nets.topology import DisplacementUNet, TopologyNetwork
from hyperprep.models.nn.warp import compose, warp


def test_default_is_the_papers_network():
    network = TopologyNetwork(features=HeadConditionedUNet(3, (32, 64, 64), stem=1))
    stages = network.posterior_network
    assert [stage[1].out_channels for stage in stages.down] == [64, 128, 256]
    assert [stage[1].out_channels for stage in stages.up] == [256, 128, 64]
    assert {type(stage[0]).__name__ for stage in (*stages.down, *stages.up)} == {"BatchNorm3d"}
    assert network.widths == (32, 64, 64)
    assert network.feature_log_variance.numel() == 160


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 16)])
def test_posterior_lies_on_the_images_grid(shape, norm):
    network = DisplacementUNet(len(shape), (4, 6, 8), norm)
    images = torch.rand(2, 1, *shape), torch.rand(2, 1, *shape)
    mean, log_variance = network(*images)
    assert mean.shape == log_variance.shape == (2, len(shape), *shape)
    assert network.divisor == 4
    assert float(mean.detach().abs().max()) < 0.1


def test_a_start_is_composed_with_what_the_network_adds():
    torch.manual_seed(0)
    network = TopologyNetwork(3, (4, 4), "none").eval()
    fixed, moving, start = (
        torch.rand(1, 1, 8, 8, 8),
        torch.rand(1, 1, 8, 8, 8),
        torch.full((1, 3, 8, 8, 8), 0.7),
    )
    with torch.no_grad():
        found = network.posterior(fixed, moving, start)
        added, _ = network.posterior_network(fixed, warp(moving, start))
    assert torch.allclose(found.mean, compose(added, start))


def test_features_are_the_stages_of_the_segmentation_network_and_are_not_trained():
    torch.manual_seed(0)
    inner = HeadConditionedUNet(3, (4, 6, 8, 8), stem=1)
    network = TopologyNetwork(3, (4, 4), "instance", inner)
    image = torch.rand(2, 1, 8, 16, 8)
    features = network.describe(image)
    assert [tuple(f.shape[1:]) for f in features] == [(4, 8, 16, 8), (6, 4, 8, 4), (8, 2, 4, 2)]
    found = network.posterior(image, image.flip(0))
    misfit, divergence, moments, variances = bound(
        network, features, [f.flip(0) for f in features], found, torch.ones_like(image)
    )
    (misfit + divergence).backward()
    assert all(p.grad is None for p in inner.parameters())
    assert network.posterior_network.mean.weight.grad.abs().max() > 0
    network.follow(moments, variances, first=True)
    assert float(network.alpha) == pytest.approx(float(1 / moments[0]), rel=1e-5)
    assert torch.allclose(network.feature_log_variance.exp(), 0.95 + 0.05 * variances, rtol=1e-5)
    network.feature_log_variance.copy_(variances.log())
    network.follow(4 * moments, 3 * variances)
    assert float(network.alpha) == pytest.approx(float(1 / (moments[0] * 1.03)), rel=1e-4)
    assert torch.allclose(network.feature_log_variance.exp(), 1.1 * variances, rtol=1e-4)
    before = network.feature_log_variance.clone(), network.running.clone()
    network.follow(moments, variances * float("nan"))
    network.follow(moments * float("inf"), variances)
    assert torch.equal(before[0], network.feature_log_variance)
    assert torch.equal(before[1], network.running)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_the_batches_variances_make_its_likelihood_largest(factor, stage):
    rng = torch.Generator().manual_seed(0)
    inner = HeadConditionedUNet(3, (2, 3, 4), stem=1)
    network = TopologyNetwork(2, (4, 4), "none", inner)
    mask = torch.ones(2, 1, 8, 16)
    mask[..., :5] = 0
    ramp = torch.linspace(0.1, 1, 16)
    left = [
        torch.randn(2, f, 8 // 2**s, 16 // 2**s, generator=rng) * ramp[:: 2**s]
        for s, f in ((0, 2), (1, 3), (2, 4))
    ]
    best = feature_variances(left, mask)
    network.feature_log_variance.copy_(best.log())
    least = float((surprise(network, left) * mask).sum())
    changed = best.clone()
    changed[2 * stage] *= factor
    network.feature_log_variance.copy_(changed.log())
    assert float((surprise(network, left) * mask).sum()) > least


def test_map_sums_to_the_bound_where_nothing_is_drawn():
    torch.manual_seed(0)
    network = TopologyNetwork(2, (4, 4), "none").eval()
    fixed, moving = torch.rand(1, 1, 8, 12), torch.rand(1, 1, 8, 12)
    with torch.no_grad():
        found = network.posterior(fixed, moving)
        mask = brain_union(fixed, moving, found.mean)
        misfit, improbable = score(network, [fixed], [moving], found, mask)
        expected = divergence_map(found.mean, found.log_variance, float(network.alpha), float(network.beta))
        square = (fixed - warp(moving, found.mean)).square()
    assert torch.allclose(improbable, expected)
    assert torch.allclose(misfit, (square + torch.log(torch.tensor(2 * torch.pi))) / 2)
    assert misfit.shape == fixed.shape


def test_a_description_makes_the_same_network():
    inner = {"kind": "semantic", "channels": [4, 6, 8], "stem": 1, "n_labels": 3, "shape": [8, 8, 8]}
    described = {"kind": "topology", "dims": 3, "channels": [4, 6], "norm": "instance", "reduction": "mean"}
    described["features"] = inner
    network = build_network(described)
    again = build_network(described)
    again.load_state_dict(network.state_dict())
    assert network.widths == (4, 6, 8)
    assert build_network({**described, "features": None}).widths == (1,)


def test_the_mean_over_features_divides_by_their_number():
    torch.manual_seed(0)
    inner = HeadConditionedUNet(3, (4, 6, 8), stem=1)
    fixed, moving = torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 8, 8, 8)
    still = torch.zeros(1, 3, 8, 8, 8)
    both = [TopologyNetwork(3, (4,), "none", inner, reduction) for reduction in ("sum", "mean")]
    added, averaged = (surprise(n, differences(n.describe(fixed), n.describe(moving), still)) for n in both)
    assert torch.allclose(added, 18 * averaged, rtol=1e-4)
    assert added.shape == fixed.shape
