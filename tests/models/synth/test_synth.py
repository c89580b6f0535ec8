"""Synthetic images: replayable, labelled truthfully, left never mistaken for right."""

import numpy as np
import pytest
import torch

from hyperprep.models.synth.apply import Lattice, render, sample_anatomy
from hyperprep.models.synth.draw import Anatomy, SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps

LATTICE = Lattice((24, 28, 24), 8.0, (-96.0, -132.0, -78.0))


@pytest.fixture
def maps():
    """One made-up head: a ball of brain whose left half is 2, right half 41, in a shell of 507."""
    axes = np.meshgrid(*(np.arange(n) for n in (192, 224, 192)), indexing="ij")
    x, y, z = (a + o for a, o in zip(axes, (-96, -132, -78), strict=True))
    radius = np.sqrt(x**2 + (y + 18) ** 2 + (z - 12) ** 2)
    labels = np.where(radius < 60, np.where(x < 0, 1, 2), np.where(radius < 75, 3, 0)).astype(np.uint8)
    brain = (radius < 60).astype(np.uint8)
    return LabelMaps(torch.from_numpy(labels[None]), torch.from_numpy(brain[None]), (0, 2, 41, 507))


def still(mirrored=False):
    return Anatomy(0, mirrored, np.eye(4, dtype=np.float32), np.zeros((3, 3, 3, 3), np.float32))


def test_unmoved_head_is_looked_up_exactly(maps):
    sampling = sample_anatomy(maps, still(), LATTICE, subsamples=1)
    voxels = tuple(slice(0, None, 8) for _ in range(3))
    assert torch.equal(sampling.indices[0], maps.maps[0][voxels])


def test_mirrored_head_keeps_left_on_the_left(maps):
    sampling = sample_anatomy(maps, still(mirrored=True), LATTICE, subsamples=1)
    left_half = sampling.indices[0][:12]
    assert (left_half == 1).sum() > 100
    assert (left_half[:11] == 2).sum() == 0


def test_everything_random_is_in_the_parameters(maps):
    spec = SynthSpec()
    pictures = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        anatomy = draw_anatomy(rng, spec, 1, LATTICE.extent_mm)
        contrast = draw_contrast(rng, spec, int(maps.groups().max()) + 1)
        sampling = sample_anatomy(maps, anatomy, LATTICE, seed=contrast.seed)
        pictures.append(render(sampling, maps.groups(), contrast, spacing=LATTICE.spacing))
    assert torch.equal(*pictures)
    assert pictures[0].min() >= 0
    assert pictures[0].max() <= 1


def test_removed_skull_leaves_nothing_outside(maps):
    rng = np.random.default_rng(0)
    spec = SynthSpec(skull_kept=0.0, skull_badly_removed=0.0, blur_mm=0.0, thick_slices=0.0)
    contrast = draw_contrast(rng, spec, int(maps.groups().max()) + 1)
    sampling = sample_anatomy(maps, still(), LATTICE)
    image = render(sampling, maps.groups(), contrast, spacing=8.0)
    far = torch.nn.functional.max_pool3d(sampling.brain[None, None], 5, 1, 2)[0, 0] == 0
    assert contrast.skull == "removed"
    assert image[far].abs().max() == 0
    assert image[sampling.brain > 0].mean() > 0.1


def test_merging_follows_the_table(maps):
    assert maps.lookup((2, 41)).tolist() == [0, 1, 2, 0]
    assert maps.mirror_table().tolist() == [0, 2, 1, 3]
