"""The published architectures have the published sizes, and every network maps shapes as it says."""

import pytest
import torch

from hyperprep.exceptions import WeightsError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import build_network
from hyperprep.models.nets.conemos import ConditionalUNet
from hyperprep.models.nets.head_unet import HeadConditionedUNet, depth_to_space, space_to_depth
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.nets.registration_unet import RegistrationUNet
from hyperprep.models.nets.siamese import local_correlation, soft_argmax


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_primary_registration_network_has_the_papers_parameters():
    assert count(RegistrationUNet()) == 313_507
    assert count(RegistrationUNet(normalise=True)) == 313_507


def test_normalised_and_narrow_registration_networks_keep_the_wiring():
    torch.manual_seed(0)
    fixed, moving = torch.rand(2, 1, 1, 32, 16, 48).unbind(0)
    narrow = RegistrationUNet(width=4)
    assert count(narrow) < 313_507 / 10
    assert narrow(fixed, moving).shape == (1, 3, 16, 8, 24)
    plain, normalised = RegistrationUNet(), RegistrationUNet(normalise=True)
    normalised.load_state_dict(plain.state_dict())
    torch.nn.init.normal_(plain.flow.weight)
    normalised.flow.weight.data.copy_(plain.flow.weight)
    brighter = [normalised(scale * fixed, scale * moving) for scale in (1.0, 3.0)]
    assert torch.allclose(*brighter, atol=1e-2)
    assert not torch.allclose(plain(fixed, moving), plain(3 * fixed, 3 * moving), atol=1e-2)


def test_soft_argmax_of_the_correlation_finds_a_shift():
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(1, 6, 7, 8, 9), dim=1)
    moved = features.roll((1, -1), (2, 4))
    found = soft_argmax(local_correlation(features, moved, 1), 1, torch.tensor(50.0))
    inner = found[0, :, 1:-1, 1:-1, 1:-1].flatten(1)
    assert torch.allclose(inner[:3].median(dim=1).values, torch.tensor([1.0, 0.0, -1.0]), atol=0.01)
    assert inner[3].median() > 0.99


def test_conditional_unet_has_the_papers_parameters_without_modulation():
    network = ConditionalUNet(37)
    backbone = count(network.convs) + count(network.last)
    assert backbone == 1_459_585  # "1.46M" in table 2
    assert count(network) == 1_566_017  # ours with modulation; the paper's table says 1.52M
    assert len(network.convs) + 1 == 15


def test_every_convolution_of_the_conditional_unet_obeys_the_condition():
    torch.manual_seed(0)
    network = ConditionalUNet(3)
    for output in network.conditioner.outputs:
        torch.nn.init.normal_(output.weight, std=0.3)
    image = torch.rand(1, 1, 8, 16, 8)
    with torch.no_grad():
        before = network(image, torch.eye(3)[:1])
        for place, output in enumerate(network.conditioner.outputs):
            kept = output.bias.clone()
            output.bias += torch.linspace(-1, 1, len(kept))
            changed = network(image, torch.eye(3)[:1])
            output.bias.copy_(kept)
            assert not torch.allclose(before, changed), f"convolution {place} ignores its modulation"
        assert not torch.allclose(before, network(image, torch.eye(3)[1:2]))
    assert before.shape == image.shape


def test_head_conditioned_network_gives_each_asked_label_alone_what_it_gives_in_company():
    torch.manual_seed(0)
    network = HeadConditionedUNet(5, channels=(8, 8), stem=2)
    image, rows = torch.rand(1, 1, 8, 12, 16), torch.eye(5)
    with torch.no_grad():
        together = network(image, rows)
        alone = torch.cat([network(image, rows[i : i + 1]) for i in range(5)], dim=1)
    assert together.shape == (1, 5, 8, 12, 16)
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std(dim=1).mean() > 1e-3


def atlas_network() -> AtlasUNet:
    """Left and right half are labels 0 and 1 of tissues 1 and 2; label 2 is the region of both."""
    network = AtlasUNet(3, 3, (16, 16, 16), channels=(4, 4, 8), hidden=6)
    share = torch.zeros(5, 16, 16, 16)
    share[0] = 0.02
    share[1], share[2] = 0.18, 0.18
    share[1, :8], share[2, 8:] = 0.8, 0.8
    members = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0]])
    network.atlas.fill(share, members, torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    return network.eval()


def test_atlas_gives_back_what_was_stored_and_is_blurred_for_affine_alignment():
    atlas = atlas_network().atlas
    sharp, blurred = (atlas.probability(kind)[1, :, 8, 8] for kind in ("nonlinear", "affine"))
    assert torch.allclose(atlas.probability("nonlinear").sum(0), torch.ones(16, 16, 16))
    assert sharp[:8].tolist() == pytest.approx([0.8] * 8, abs=0.01)
    assert float((sharp[7] - sharp[8]).abs()) > 0.5
    assert float((blurred[7] - blurred[8]).abs()) < 0.2
    odds, tissues, coarse = atlas.at_voxels("nonlinear")
    assert odds.shape == (16**3, 3)
    assert tissues.exp().sum(1).sub(1).abs().max() < 0.01
    assert coarse[0, 2].min() > 0.9


@pytest.mark.parametrize("bright", [0, 1])
def test_atlas_is_painted_in_the_contrast_of_the_image(bright: int):
    network = atlas_network()
    values = torch.full((16, 16, 16), 0.2)
    values[:8] = values[:8] if bright else 0.9
    values[8:] = 0.9 if bright else values[8:]
    painted = network.painted(values)
    difference = float(painted[12:].mean() - painted[:4].mean())
    assert difference * (1 if bright else -1) > 0.3


def test_atlas_is_painted_in_the_usual_contrast_that_an_image_has():
    network = atlas_network()
    atlas = network.atlas
    looks = torch.tensor([[0.0, 0.2, 0.7, 0, 0], [0.0, 0.6, 0.3, 0, 0]])
    atlas.fill(atlas.probability("nonlinear"), atlas.members, atlas.tissue, looks)
    image = torch.full((16, 16, 16), 0.55)
    image[8:] = 0.25
    painted = network.painted(image + 0.02 * torch.rand(16, 16, 16))
    assert torch.allclose(painted, atlas.painted("nonlinear")[1])
    assert painted[0, 0, 0] > painted[15, 0, 0] + 0.15


@pytest.mark.parametrize("bright", [0, 1])
def test_untrained_atlas_network_is_the_classical_segmentation_whatever_the_contrast(bright: int):
    torch.manual_seed(0)
    network = atlas_network()
    torch.nn.init.zeros_(network.label_weights.weight)
    truth = torch.zeros(16, 16, 16, dtype=torch.long)
    truth[7:] = 1  # the border lies a voxel beside the atlas' border
    image = torch.where(truth == bright, 0.8, 0.3) + 0.02 * torch.randn(16, 16, 16)
    with torch.no_grad():
        found = network(image[None, None], torch.eye(3))[0]
    assert (found[:2].argmax(0) == truth).float().mean() > 0.97
    assert bool((found[2] > 0).all())


def test_atlas_network_gives_each_asked_label_alone_what_it_gives_in_company():
    torch.manual_seed(0)
    network, image, rows = atlas_network(), torch.rand(1, 1, 16, 16, 16), torch.eye(3)
    with torch.no_grad():
        together = network(image, rows)
        alone = torch.cat([network(image, rows[i : i + 1]) for i in range(3)], dim=1)
    assert torch.allclose(together, alone, atol=1e-4)


def test_atlas_network_at_chosen_voxels_is_what_it_is_everywhere():
    torch.manual_seed(0)
    network, image, rows = atlas_network(), torch.rand(1, 1, 16, 16, 16), torch.eye(3)
    chosen = torch.randperm(16**3)[:50]
    with torch.no_grad():
        trunk = network.trunk(image)
        cells = trunk[0].movedim(0, -1).reshape(-1, network.features)
        some = network.cell_logits(cells[chosen], rows, chosen)[:, 0]
        every = network.label_logits(trunk, rows)[0].flatten(1).T
    assert torch.allclose(some, every[chosen], atol=1e-5)


def test_space_to_depth_is_inverted():
    image = torch.rand(2, 3, 4, 6, 8)
    assert space_to_depth(image, 2).shape == (2, 24, 2, 3, 4)
    assert torch.equal(depth_to_space(space_to_depth(image, 2), 2), image)


@pytest.mark.parametrize("kind", ["unet", "unrolled", "siamese"])
def test_hypermorph_obeys_lambda_and_its_gradient_reaches_lambda(kind):
    torch.manual_seed(0)
    network = HyperMorph(primary_network(kind))
    for output in network.hyper.hypernetwork.outputs:
        torch.nn.init.normal_(output.weight, std=0.02)
    fixed, moving = torch.rand(1, 1, 32, 16, 48), torch.rand(1, 1, 32, 16, 48)
    lam = torch.tensor([0.3], requires_grad=True)
    velocity = network(fixed, moving, lam)
    assert velocity.shape == (1, 3, 16, 8, 24)
    velocity.square().sum().backward()
    assert lam.grad is not None
    assert lam.grad.abs() > 0
    assert not torch.allclose(velocity, network(fixed, moving, torch.tensor([0.9])))


def test_hypernetwork_starts_the_primary_as_it_starts_itself():
    torch.manual_seed(0)
    primary = RegistrationUNet()
    wanted = {name: tensor.detach().clone() for name, tensor in primary.named_parameters()}
    made = HyperMorph(primary).hyper.hypernetwork(torch.tensor([0.5]))
    for name, tensor in made.items():
        spread = wanted[name].std() if wanted[name].numel() > 1 else torch.tensor(1e-3)
        assert (tensor - wanted[name]).abs().mean() < 0.2 * spread + 1e-4, name


def test_only_the_hypernetwork_is_trained_and_stored():
    network = HyperMorph(primary_network("unrolled"))
    assert all(name.startswith("hyper.hypernetwork") for name in network.state_dict())


def test_unknown_networks_are_refused():
    with pytest.raises(WeightsError, match="does not know"):
        build_network({"kind": "oracle"})
    with pytest.raises(WeightsError, match="unet, unrolled, siamese"):
        primary_network("oracle")


def test_sizes_of_an_atlas_are_those_of_what_was_stored():
    network = atlas_network()
    left, right, both = network.atlas.sizes().tolist()
    assert left == pytest.approx((0.8 + 0.18) / 2 * 16**3, rel=0.01)
    assert (right, both) == (pytest.approx(left, rel=0.01), pytest.approx(2 * left, rel=0.01))
    share = torch.zeros(5, 16, 16, 16)
    share[0] = 1.0
    share[:2, 3, 4, 5] = torch.tensor([0.0, 1.0])
    network.atlas.fill(share, network.atlas.members, network.atlas.tissue)
    assert network.atlas.sizes().tolist() == [1, 0, 1], "whatever is possible everywhere is not counted"


def test_sampled_logits_leave_units_out_and_have_the_networks_own_as_their_mean():
    torch.manual_seed(0)
    network = atlas_network()
    trunk = network.trunk(torch.rand(1, 1, 16, 16, 16))
    rows = torch.eye(3)
    with torch.no_grad():
        own = network.label_logits(trunk, rows)
        generator = torch.Generator().manual_seed(1)
        drawn = torch.stack([network.sampled_logits(trunk, rows, generator=generator) for _ in range(400)])
        whole = network.sampled_logits(trunk, rows, rate=0.0)
        again = network.sampled_logits(trunk, rows, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(whole, own, atol=1e-5)
    assert torch.equal(again, drawn[0])
    spread = drawn.std(0)
    assert float(spread.mean()) > 0
    assert float((drawn.mean(0) - own).abs().max()) < 5 * float(spread.max()) / 400**0.5
