"""Regions of one's own on top of a segmentation network."""

import pytest
import torch

from hyperprep.models.nets.build import build_network
from hyperprep.models.nets.region_head import LEAST, RegionHead, slices_of

BOXES = (((1, 6), (0, 4), (2, 9)), ((3, 7), (2, 8), (0, 5)))
DESCRIPTION = {"kind": "regions", "boxes": BOXES, "features": 6, "ratios": [4, 2], "channels": [5, 4]}


@pytest.fixture
def head():
    torch.manual_seed(0)
    made = build_network(DESCRIPTION)
    assert isinstance(made, RegionHead)
    made.fill([torch.rand(5, 4, 7), torch.rand(4, 6, 5)])
    return made


def test_untrained_it_answers_with_the_prior(head):
    for region, shape in enumerate(((5, 4, 7), (4, 6, 5))):
        found = torch.sigmoid(head(torch.randn(1, 6, *shape), region))
        assert torch.allclose(found, head.prior(region).clamp(LEAST, 1 - LEAST), atol=1e-5)


def test_priors_are_stored_in_whole_255ths(head):
    given = [torch.rand(5, 4, 7), torch.rand(4, 6, 5)]
    head.fill(given)
    for region, prior in enumerate(given):
        assert (head.prior(region) - prior).abs().max() < 0.5 / 255 + 1e-6


def test_a_prior_given_takes_the_place_of_the_stored_one(head):
    features, prior = torch.randn(1, 6, 5, 4, 7), torch.full((5, 4, 7), 0.25)
    assert torch.allclose(torch.sigmoid(head(features, 0, prior)), prior)


def test_evidence_moves_the_regions_whose_weight_it_has(head):
    features = torch.zeros(1, 6, 5, 4, 7)
    features[0, 4] = 0.5  # a quarter of a log-likelihood ratio of 2
    before = head(features, 0)
    with torch.no_grad():
        head.evidence[0, 0] = 3.0
    assert torch.allclose(head(features, 0) - before, torch.full((5, 4, 7), 6.0), atol=1e-4)
    assert torch.allclose(
        head(torch.zeros(1, 6, 4, 6, 5), 1), torch.logit(head.prior(1).clamp(LEAST, 1 - LEAST)), atol=1e-4
    )


def test_the_region_changes_what_the_same_features_say(head):
    """Conditioning by FiLM: with equal priors only the condition tells two regions apart."""
    with torch.no_grad():
        torch.nn.init.normal_(head.last.weight)
    features, prior = torch.randn(1, 6, 4, 4, 4), torch.full((4, 4, 4), 0.5)
    assert (head(features, 0, prior) - head(features, 1, prior)).abs().mean() > 0.01


def test_weights_survive_a_round_trip(head, tmp_path):
    again = build_network(DESCRIPTION)
    again.load_state_dict({key: value.float() for key, value in head.state_dict().items()})
    features = torch.randn(1, 6, 4, 6, 5)
    assert torch.allclose(again(features, 1), head(features, 1), atol=1e-5)


def test_boxes_become_slices():
    assert torch.zeros(8, 8, 9)[slices_of(BOXES[0])].shape == (5, 4, 7)
