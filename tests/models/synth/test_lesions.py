"""Focal pathology: replayable, masked truthfully, of the looks asked for, and never part of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hyperprep.models.train
from hyperprep.exceptions import UsageError
from hyperprep.models.losses.regularity import jacobian_determinant
from hyperprep.models.synth.apply import Lattice, Sampling, render
from hyperprep.models.synth.draw import SynthSpec, draw_contrast
from hyperprep.models.synth.lesions import (
    KINDS,
    LesionSpec,
    apply_lesion,
    draw_lesion,
    shifted_points,
    with_lesion,
)
from hyperprep.models.synth.maps import TISSUE_GROUPS

LATTICE = Lattice((20, 21, 22), 2.0, (-20.0, -21.0, -22.0))
GROUPS = torch.tensor([0, 1, 2, 3])  # background, white matter, cortex, csf
SPEC = SynthSpec(
    skull_kept=0, skull_badly_removed=0, blur_mm=0, thick_slices=0, noise=0, bias=0, log_gamma=0,
    random_contrast=0, contrasts=("T1w",),
)  # fmt: skip


@pytest.fixture
def head() -> tuple[Sampling, np.ndarray]:
    """White matter (2) with a slab of cortex (3) and one of fluid (24), in an empty rim."""
    labels = np.zeros(LATTICE.shape, int)
    labels[2:-2, 2:-2, 2:-2] = 2
    labels[2:4, 2:-2, 2:-2] = 3
    labels[4:6, 2:-2, 2:-2] = 24
    index = np.select([labels == 2, labels == 3, labels == 24], [1, 2, 3], 0).astype(np.uint8)
    indices = torch.from_numpy(index)[None].repeat(3, 1, 1, 1)
    return Sampling(indices, (indices[0] > 0).float()), labels


def test_the_same_seed_gives_the_same_lesion(head):
    one, other = (draw_lesion(np.random.default_rng(5), LesionSpec(), head[1], LATTICE) for _ in range(2))
    assert one == other
    first, second = (apply_lesion(head[0], one, LATTICE, 4) for _ in range(2))
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0].indices, second[0].indices)


@pytest.mark.parametrize("site", ["cortex", "anywhere"])
def test_lesions_lie_where_asked(head, site):
    for seed in range(20):
        lesion = draw_lesion(np.random.default_rng(seed), LesionSpec(), head[1], LATTICE, site=site)
        voxel = tuple(np.rint(np.add(lesion.centre, [20, 21, 22]) / 2).astype(int))
        assert head[1][voxel] > 0
        assert 1 <= lesion.radius_mm <= 15
        if site == "cortex":
            assert voxel[0] <= 7
    with pytest.raises(UsageError, match="no tissue near"):
        draw_lesion(np.random.default_rng(0), LesionSpec(), head[1], LATTICE, site="ventricle")
    with pytest.raises(UsageError, match="Unknown site"):
        draw_lesion(np.random.default_rng(0), LesionSpec(), head[1], LATTICE, site="moon")


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_the_image_changed(head, kind):
    rng = np.random.default_rng(2)
    lesion = draw_lesion(rng, LesionSpec(), head[1], LATTICE, diameter_mm=14.0, kind=kind)
    lesion = replace(lesion, centre=(0.0, 0.0, 0.0), contrast=-0.4, shift_mm=0.0)
    contrast = replace(
        draw_contrast(rng, SPEC, len(TISSUE_GROUPS) + 1), sds=np.zeros(len(TISSUE_GROUPS) + 1, np.float32)
    )
    changed, mask = apply_lesion(head[0], lesion, LATTICE, 4)
    groups, extended = with_lesion(GROUPS, contrast, lesion)
    before = render(head[0], GROUPS, contrast, spacing=2.0)
    after = render(changed, groups, extended, spacing=2.0)
    assert abs(float(mask.sum()) * 8 - 4 / 3 * np.pi * 7**3) < 600
    difference = (after - before).abs()
    assert difference[mask > 0].mean() > 10 * difference[mask == 0].mean()
    white, csf = contrast.means[1], contrast.means[list(TISSUE_GROUPS).index("csf") + 1]
    expected = csf if kind == "resection" else np.clip(white - 0.4, 0.02, 1)
    assert extended.means[-1] == pytest.approx(expected, abs=1e-5)


def test_mass_effect_pushes_tissue_away_without_folding(head):
    lesion = draw_lesion(np.random.default_rng(1), LesionSpec(), head[1], LATTICE, diameter_mm=16.0)
    lesion = replace(lesion, centre=(0.0, 0.0, 0.0), shift_mm=3.0)
    moved = (shifted_points(lesion, LATTICE) - LATTICE.points())[None] / LATTICE.spacing
    assert float(jacobian_determinant(moved).min()) > 0
    outwards = (moved[0] * LATTICE.points()).sum(0)
    assert float(outwards.max()) <= 1e-5  # looked up nearer to the centre: what is there was pushed out
    assert float(moved.norm(dim=1).max()) == pytest.approx(1.5, abs=0.1)


def test_no_training_task_knows_of_pathology():
    folder = Path(hyperprep.models.train.__file__).parent
    assert [path.name for path in folder.glob("*.py") if "synth.lesions" in path.read_text()] == []
