"""Few-shot network: the published size, the published formulas, and no order among the examples."""

import pytest
import torch
import torch.nn.functional as F

from hyperprep.models.nets.build import build_network
from hyperprep.models.nets.few_shot_start import first_answer
from hyperprep.models.nets.neuralizer import Neuralizer, PairwiseConvAvg
from hyperprep.models.nets.residual_unet import ResidualUNet


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(params=[False, True], ids=["paper", "start"])
def network(request) -> Neuralizer:
    torch.manual_seed(0)
    made = Neuralizer(channels=6, start=request.param).eval()
    torch.nn.init.normal_(made.last.weight, std=0.3)
    return made


@pytest.fixture
def episode() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 16, 24), torch.rand(2, 5, 4, 16, 24)


def test_sizes_are_the_papers():
    assert count(Neuralizer()) == 1_265_345  # "1.27" million in appendix H
    assert count(ResidualUNet(64)) == 615_937  # "0.62"
    assert count(ResidualUNet(256)) == 9_836_545  # "9.84"
    assert len(Neuralizer().blocks) == 7


def test_a_network_with_a_start_answers_in_closed_form_before_it_is_trained(episode):
    target, context = episode
    with torch.no_grad():
        found = Neuralizer(channels=6, start=True)(target, context)
    assert torch.allclose(found, first_answer(target, context)[0])


def shifted_disc(shift: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    return ((rows - 14 - shift).square() + (columns - 16).square() < 50).float()


def test_masks_are_voted_for_by_the_examples_that_look_alike():
    """Of four examples two show the target's anatomy; the mean of all would be wrong at its border."""
    slices = []
    for shift in (0, 0, 5, -5):
        disc = shifted_disc(shift)
        slices.append(torch.stack([0.2 + 0.5 * disc, *torch.zeros(2, 32, 32), disc]))
    context, truth = torch.stack(slices)[None], shifted_disc(0)
    target = context[:, 0, :3]
    voted = first_answer(target, context)[0][0, 0] > 0.5
    assert (voted == truth.bool()).float().mean() > 0.995
    assert ((context[0, :, 3].mean(0) > 0.5) != truth.bool()).any()


def test_a_contrast_is_transferred_to_an_image_unlike_the_examples(episode):
    target, context = episode
    context[:, :, 3] = 0.9 - 0.7 * context[:, :, 0]
    assert (first_answer(target, context)[0] - (0.9 - 0.7 * target[:, :1])).abs().max() < 0.03


def test_a_single_example_is_explained_too(episode):
    target, context = episode
    context = context[:, :1]
    context[:, :, 3] = context[:, :, 1]
    assert (first_answer(target, context)[0] - target[:, 1:2]).abs().max() < 0.03


def test_a_block_computes_the_formulas_of_section_3_3():
    torch.manual_seed(0)
    block = PairwiseConvAvg(4)
    target, context = torch.rand(2, 4, 6, 5), torch.rand(2, 3, 4, 6, 5)
    pairs = torch.cat([target[:, None].expand_as(context), context], dim=2)
    by_hand_target = target + torch.stack([block.to_target(pairs[:, i]) for i in range(3)]).mean(0)
    by_hand_context = context + torch.stack([block.to_context(pairs[:, i]) for i in range(3)], dim=1)
    assert torch.allclose(block.update_target(target, context.mean(1)), by_hand_target, atol=1e-6)
    made = block.update_context(target, context.flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.allclose(made, by_hand_context, atol=1e-6)


def test_order_of_the_context_does_not_matter(network, episode):
    target, context = episode
    with torch.no_grad():
        one = network(target, context)
        other = network(target, context[:, torch.tensor([3, 0, 4, 2, 1])])
    assert one.shape == (2, 1, 16, 24)
    assert torch.allclose(one, other, atol=1e-5)


def test_every_member_of_the_context_matters(network, episode):
    target, context = episode
    with torch.no_grad():
        before = network(target, context)
        for member in range(5):
            changed = context.clone()
            changed[:, member, 3] = 1 - changed[:, member, 3]
            assert not torch.allclose(before, network(target, changed), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_give_what_the_whole_context_gives(network, episode, chunk):
    with torch.no_grad():
        assert torch.allclose(network(*episode), network(*episode, chunk=chunk), atol=1e-5)


@pytest.mark.parametrize("members", [1, 7, 32])
def test_any_size_of_context(network, members):
    with torch.no_grad():
        assert network(torch.rand(1, 3, 8, 16), torch.rand(1, members, 4, 8, 16)).shape == (1, 1, 8, 16)


def test_saving_memory_changes_no_gradient(network, episode):
    gradients = []
    for save in (False, True):
        network.save_memory = save
        network.zero_grad()
        network(*episode).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.allclose(*gradients, atol=1e-4)
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


def test_chunks_bound_the_members_in_memory(network, monkeypatch):
    seen = []
    embed = network.embed_context.forward
    monkeypatch.setattr(network.embed_context, "forward", lambda x: seen.append(len(x)) or embed(x))
    with torch.no_grad():
        network(torch.rand(1, 3, 8, 8), torch.rand(1, 9, 4, 8, 8), chunk=4)
    assert max(seen) == 4


def test_is_built_from_its_description():
    network = build_network({"kind": "neuralizer", "channels": 4, "levels": 3})
    assert isinstance(network, Neuralizer)
    assert network.divisor == 4


def test_baseline_maps_shapes():
    out = ResidualUNet(4)(torch.rand(2, 3, 8, 16))
    assert out.shape == (2, 1, 8, 16)
    assert F.relu(out).isfinite().all()
