"""Tissue features: contrast does not matter, place does not matter, pathology shows."""

from __future__ import annotations

import pytest
import torch

from hyperprep.models.nets.build import build_network
from hyperprep.models.nets.tissue_features import KINDS, TissueFeatures
from hyperprep.models.nets.topology import TopologyNetwork

SHAPE = (16, 16, 16)
MEANS = {"T1w": (0.9, 0.6, 0.15), "T2w": (0.3, 0.5, 0.95)}


def head(contrast: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers of fluid, grey matter and white matter along the first axis, and nothing at its ends."""
    kind = torch.tensor([0, 0, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0, 0]).view(-1, 1, 1).expand(SHAPE)
    means = torch.tensor([0.0, *MEANS[contrast]])
    noise = 0.02 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    return ((means[kind] + noise) * (kind > 0)).clamp(0, 1)[None, None], kind


def features() -> TissueFeatures:
    """Features with an atlas that is blurred by one in ten."""
    _, kind = head("T1w")
    prior = 0.9 * torch.nn.functional.one_hot(kind, 4).movedim(-1, 0) + 0.1 / 4
    made = TissueFeatures(4, SHAPE)
    made.fill(prior, [0, 1, 2, 3])
    return made


@pytest.mark.parametrize("contrast", list(MEANS))
def test_tissues_are_told_apart_in_any_contrast(contrast):
    image, kind = head(contrast)
    finest = features().stages(image)[0]
    assert torch.equal(finest[:, :1], image)
    inside = kind > 0
    best = finest[0, 1:].argmax(0) + 1
    assert float((best == kind)[inside].float().mean()) > 0.98
    assert float(finest[0, 1:, ~inside].abs().max()) == 0
    assert torch.allclose(finest[0, 1:, inside].sum(0), torch.ones(int(inside.sum())), atol=1e-5)


def test_what_lies_where_it_should_not_is_not_explained_by_its_place():
    image, _ = head("T1w")
    image[0, 0, 10:13, 4:9, 4:9] = MEANS["T1w"][2]  # fluid in the middle of white matter
    finest = features().stages(image)[0]
    assert float(finest[0, 3, 11, 6, 6]) > 0.8


def test_coarser_stages_are_means():
    image, _ = head("T1w")
    made = features()
    stages = made.stages(image)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(1 + KINDS, *[16 // 2**i] * 3) for i in range(3)]
    assert torch.allclose(stages[2][0, :, 1, 1, 1], stages[0][0, :, 4:8, 4:8, 4:8].mean((1, 2, 3)), atol=1e-5)
    assert len(made.stages(image, 2)) == 2


def test_a_topology_network_carries_its_atlas():
    inner = {"kind": "tissues", "n_tissues": 4, "shape": list(SHAPE)}
    described = {"kind": "topology", "dims": 3, "channels": [4, 4], "norm": "none", "reduction": "sum"}
    network = build_network({**described, "features": inner})
    again = build_network({**described, "features": inner})
    assert isinstance(network, TopologyNetwork)
    assert network.widths == (1 + KINDS,) * 3
    assert network.divisor == 4
    network.features.fill(torch.rand(4, *SHAPE), [0, 1, 2, 3])
    again.load_state_dict(network.state_dict())
    image, _ = head("T1w")
    for one, other in zip(network.describe(image), again.describe(image), strict=True):
        assert torch.equal(one, other)
