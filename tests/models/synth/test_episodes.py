"""Episodes: every task shows what it says, examples and target share the task, held-out things stay out."""

import numpy as np
import pytest
import torch

from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.degrade import Holes, LowResolution, apply_low_resolution, hole_masks
from hyperprep.models.synth.draw import Anatomy, SynthSpec
from hyperprep.models.synth.episodes import TASK_WEIGHTS, EpisodeSpec, draw_episode
from hyperprep.models.synth.kspace import (
    Motion,
    Undersampling,
    apply_motion,
    apply_undersampling,
    draw_motion,
    measured_lines,
)
from hyperprep.models.synth.make_episodes import Heads, make_batch
from hyperprep.models.synth.maps import LabelMaps, structure_ranges
from hyperprep.models.synth.paint import brain_pools
from hyperprep.models.synth.slices import Plane, sample_slices
from hyperprep.models.synth.task_augment import Augmentation, AugmentSpec, draw_augmentation

LATTICE = Lattice((24, 32, 40), 6.0, (-72.0, -114.0, -108.0))
NUMBERS = (0, 2, 41, 17, 507)


@pytest.fixture(scope="module")
def heads():
    """Two heads: half balls of 2 and 41, a small ball of 17 on the left, scalp of 507 around."""
    axes = np.meshgrid(*(np.arange(n) for n in (192, 224, 192)), indexing="ij", sparse=True)
    x, y, z = (a + o for a, o in zip(axes, (-96, -132, -78), strict=True))
    radius = np.sqrt(x**2 + (y + 18) ** 2 + (z - 12) ** 2)
    labels = np.where(radius < 60, np.where(x < 0, 1, 2), np.where(radius < 75, 4, 0)).astype(np.uint8)
    labels[np.sqrt((x + 25) ** 2 + (y + 18) ** 2 + (z - 12) ** 2) < 12] = 3
    brain = (radius < 60).astype(np.uint8)
    maps = LabelMaps(
        torch.from_numpy(np.stack([labels] * 2)), torch.from_numpy(np.stack([brain] * 2)), NUMBERS
    )
    return Heads(maps, maps.groups(), brain_pools(maps, maps.groups(), size=256))


def episode(heads, task, seed=0, axis=1, context=2, **changes):
    table = heads.maps.lookup((2, 41, 17))
    ranges = structure_ranges(table[heads.maps.maps[0].long()].numpy(), (2, 41, 17), (-96, -132, -78))
    ranges |= structure_ranges(heads.maps.brain[0].numpy(), (0,), (-96, -132, -78))
    images = SynthSpec(rotation_deg=2, shift_mm=2, warp_mm=1, thick_slices=0.2, noise=0.02, **changes)
    spec = EpisodeSpec((2, 41, 17), images=images, augment=None, turn_deg=0, log_scale=0, shift_mm=0)
    return draw_episode(
        np.random.default_rng(seed), spec, LATTICE, n_maps=(0, 1), n_groups=int(heads.groups.max()) + 1,
        ranges=ranges, pairs={2: 41, 41: 2}, axis=axis, context=context, task=task,
    )  # fmt: skip


def still(mirrored=False):
    return Anatomy(0, mirrored, np.eye(4, dtype=np.float32), np.zeros((3, 3, 3, 3), np.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_unmoved_head_is_looked_up_where_the_volume_is(heads, axis):
    place = LATTICE.origin[axis] + 6.0 * 15
    found = sample_slices(heads.maps, [still()], [Plane(axis, place)], LATTICE, subsamples=1)
    points = LATTICE.points().select(axis + 1, 15) + torch.tensor([96.0, 132, 78])[:, None, None]
    x, y, z = points.long()
    inside = (y >= 0) & (y < 224) & (z >= 0) & (z < 192)
    wanted = heads.maps.maps[0][x, y.clamp(0, 223), z.clamp(0, 191)] * inside
    assert torch.equal(found.indices[0, 0], wanted.to(torch.uint8))


def test_left_stays_left_in_a_mirrored_head_and_not_in_a_flipped_picture(heads):
    planes = [Plane(1, -18.0), Plane(1, -18.0), Plane(1, -18.0, flipped=True)]
    found = sample_slices(heads.maps, [still(), still(True), still()], planes, LATTICE, subsamples=1)
    left = [set(one[:11].unique().tolist()) for one in found.indices[0]]
    assert [1 in seen for seen in left] == [True, True, False]
    assert [2 in seen for seen in left] == [False, False, True]


@pytest.mark.parametrize("task", sorted(TASK_WEIGHTS))
def test_every_task_makes_finite_slices_in_range(heads, task):
    batch = make_batch(heads, [episode(heads, task)], LATTICE)
    assert batch.target.shape == (1, 3, 24, 40)
    assert batch.context.shape == (1, 2, 4, 24, 40)
    for tensor in (batch.target, batch.context, batch.truth):
        assert tensor.isfinite().all()
        assert tensor.min() >= 0
        assert tensor.max() <= 1
    assert batch.truth.max() > 0, task
    assert bool(batch.is_mask[0]) == (task in ("segmentation", "skull_strip"))
    if bool(batch.is_mask[0]):
        assert set(batch.truth.unique().tolist()) <= {0.0, 1.0}


def test_the_same_draw_gives_the_same_tensors(heads):
    first, again = (make_batch(heads, [episode(heads, "motion", 4)], LATTICE) for _ in range(2))
    assert torch.equal(first.context, again.context)
    other = make_batch(heads, [episode(heads, "motion", 5)], LATTICE)
    assert not torch.equal(first.context, other.context)


def test_an_episode_is_the_same_alone_and_in_a_batch_but_for_its_noise(heads):
    one = episode(heads, "segmentation", 3)
    alone = make_batch(heads, [one], LATTICE, subsamples=1)
    company = make_batch(heads, [one, episode(heads, "skull_strip", 9)], LATTICE, subsamples=1)
    assert torch.equal(alone.truth[0], company.truth[0])
    assert company.target.shape[0] == 2


def test_segmentation_marks_the_drawn_structures(heads):
    drawn = episode(heads, "segmentation", 1)
    batch = make_batch(heads, [drawn], LATTICE, subsamples=1)
    sampling = sample_slices(heads.maps, drawn.anatomies, [drawn.plane] * 3, LATTICE, subsamples=1)
    numbers = torch.tensor(NUMBERS)[sampling.indices[0].long()]
    wanted = torch.isin(numbers, torch.tensor(drawn.numbers)).float()
    assert torch.equal(batch.truth[0, 0], wanted[0])
    assert torch.equal(batch.context[0, :, 3], wanted[1:])


def test_skull_stripping_shows_the_skull(heads):
    batch = make_batch(heads, [episode(heads, "skull_strip", skull_kept=0.0, random_contrast=1.0)], LATTICE)
    outside = batch.truth[0, 0] == 0
    assert (batch.target[0].amax(0)[outside] > 0.05).float().sum() > 20


def test_inpainting_cuts_holes_that_its_mask_channel_shows(heads):
    batch = make_batch(heads, [episode(heads, "inpainting", 2)], LATTICE)
    image, truth = batch.target[0, 0], batch.truth[0, 0]
    holes = next(c for c in batch.target[0] if set(c.unique().tolist()) == {0.0, 1.0})
    assert image[holes > 0].abs().max() == 0
    assert torch.equal(image[holes == 0], truth[holes == 0])


def test_transfer_asks_for_one_other_modality_of_all(heads):
    drawn = episode(heads, "modality_transfer", 6)
    names = {c.name for c in drawn.wanted}
    assert len(names) == 1
    assert names <= set(SynthSpec().contrasts)
    assert [c.skull for c in drawn.wanted] == [drawn.wanted[0].skull] * 3


def test_target_head_is_no_example(heads):
    for seed in range(5):
        first, *others = (a.index for a in episode(heads, "denoise_bias", seed).anatomies)
        assert first not in others


def test_augmentations_keep_to_the_papers_exceptions():
    spec = AugmentSpec(contour=1, dilate=1, invert=1, intensity=1, permute=1, duplicate=1)
    rng = np.random.default_rng(0)
    hole = draw_augmentation(rng, spec, "inpainting", 2)
    assert (hole.contour, hole.dilate, hole.invert) == (False, False, True)
    changes = {draw_augmentation(rng, spec, "modality_transfer", 1).change for _ in range(20)}
    assert changes == {"mapping"}
    free = {draw_augmentation(rng, spec, "segmentation", 1).change for _ in range(40)}
    assert free == {"mapping", "sobel", "synthetic"}
    assert not draw_augmentation(rng, spec, "super_resolution", 1).contour


def test_augmented_masks_change_in_target_and_examples_alike(heads):
    import dataclasses

    drawn = episode(heads, "segmentation", 1)
    plain = make_batch(heads, [drawn], LATTICE, subsamples=1)
    turned = dataclasses.replace(drawn, augmentation=Augmentation(invert=True, channels=(-1, -1, 0)))
    made = make_batch(heads, [turned], LATTICE, subsamples=1)
    assert torch.equal(made.truth, 1 - plain.truth)
    assert torch.equal(made.context[:, :, 3], 1 - plain.context[:, :, 3])
    assert made.target[0, :2].abs().max() == 0
    assert made.target[0, 2].max() > 0


def test_motion_shows_the_pose_at_the_centre_and_blurs_the_rest():
    image = torch.zeros(1, 32, 24)
    image[0, 10:20, 8:16] = 1
    late = Motion((0.9,), np.float32([0, 10]), np.float32([[0, 0], [0, 5]]), 0)
    moved = apply_motion(image, [late])
    assert 0.005 < (moved - image).abs().mean() < 0.1
    early = Motion((0.1,), np.float32([0, 0]), np.float32([[0, 0], [0, 5]]), 0)
    shifted = apply_motion(image, [early])[0]
    middle = (shifted.sum(0) * torch.arange(24)).sum() / shifted.sum()
    assert abs(float(middle) - 11.5) > 3.5  # most of k-space was seen at the other pose
    for seed in range(20):
        drawn = draw_motion(np.random.default_rng(seed))
        at_centre = int(np.searchsorted(drawn.times, 0.5, side="right"))
        assert drawn.angles_deg[at_centre] == 0


def test_undersampling_keeps_the_mean_and_aliases_along_the_phase_axis():
    image = torch.rand(1, 24, 32)
    drawn = Undersampling(4.0, 0.1, False, 0, 3)
    kept = measured_lines(drawn, 24).mean()
    assert 0.15 < kept < 0.5
    spoilt = apply_undersampling(image, [drawn])[0]
    assert abs(float(spoilt.mean() - image.mean())) < 0.05
    spectrum = torch.fft.fftshift(torch.fft.fft2(spoilt)).abs()
    assert spectrum[~torch.from_numpy(measured_lines(drawn, 24))].mean() < spectrum.mean()


def test_low_resolution_acts_along_its_axis_only():
    stripes = (torch.arange(24) % 2).float()[None, :, None].expand(1, 24, 16)
    rough = apply_low_resolution(stripes, [LowResolution((2.0, 1.0))])
    assert rough.std() < 0.2
    assert torch.allclose(apply_low_resolution(stripes, [LowResolution((1.0, 2.0))]), stripes)


def test_holes_cover_the_share_and_are_connected_patches():
    rng = np.random.default_rng(1)
    mask = hole_masks([Holes(rng.uniform(0, 6, (4, 4)).astype(np.float32), 0.25)], (48, 40), "cpu")[0]
    assert mask.mean() == pytest.approx(0.25, abs=0.02)
    edges = (mask[1:] != mask[:-1]).float().mean()
    assert edges < 0.1
