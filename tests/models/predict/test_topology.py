"""Maps of pairs whose difference is known: transported correctly, read against controls, listed by region."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy import ndimage

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.losses.topology import symmetric_score
from hyperprep.models.nets.topology import TopologyNetwork
from hyperprep.models.nn.greedy import Stage, invert_displacement, refine
from hyperprep.models.nn.smooth import gaussian_smooth
from hyperprep.models.nn.warp import warp
from hyperprep.models.predict.outliers import change_regions, match_weight, outliers
from hyperprep.models.predict.session_change import (
    APPEARED,
    DISAPPEARED,
    _log_growth,
    _shared,
    compare_sessions,
)
from hyperprep.models.predict.topology import score_pair, topology_change
from hyperprep.models.spatial.controls import ControlStatistics, _one_region, control_statistics
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField
from hyperprep.models.train.export import export

SHAPE, SPACING, ORIGIN = (24, 28, 24), 6.0, (-70.0, -100.0, -60.0)
PLACE = np.array([-22.0, -40.0, 30.0])


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory):
    """Weights of an untrained network that compares images and starts from a registration."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    run = folder / "run"
    run.mkdir()
    (run / "config.toml").write_text(
        f'network = "topology"\n[lattice]\nshape = {list(SHAPE)}\nspacing_mm = {SPACING}\n'
        f"origin_mm = {list(ORIGIN)}\n"
        '[model]\nchannels = [4, 6]\nnorm = "instance"\nfeatures = "image"\nstart = "registration"\n'
    )
    network = TopologyNetwork(3, (4, 6), "instance")
    with torch.no_grad():
        network.feature_log_variance.fill_(-5.0)
        network.running.copy_(torch.tensor([-1.0, -2.0]))
    torch.save({"average": network.state_dict(), "step": 1, "seconds": 1.0}, run / "model.pt")
    (run / "curve.jsonl").write_text('{"step": 1, "seconds": 1.0, "val_misfit": 0.5}\n')
    export(run, out_dir=folder / "out")
    return folder / "out"


def head(*, lesion: float = 0.0, seed: int = 0, affine: np.ndarray | None = None) -> nb.Nifti1Image:
    """A textured ellipsoid; ``lesion`` is the intensity of a ball of 14 mm radius at ``PLACE``."""
    affine = (
        np.array([[3.0, 0, 0, -69], [0, 3, 0, -99], [0, 0, 3, -59], [0, 0, 0, 1]])
        if affine is None
        else affine
    )
    grid = Grid((46, 54, 46), affine)
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    centre, axes = np.array([0.0, -18.0, 10.0]), np.array([55.0, 68.0, 55.0])
    inside = (((points - centre) / axes) ** 2).sum(-1) < 1
    waves = 0.15 * np.sin(points[..., 0] / 9) * np.cos(points[..., 1] / 11) * np.sin(points[..., 2] / 8)
    data = 0.5 + waves + 0.01 * np.random.default_rng(seed).standard_normal(grid.shape)
    if lesion:
        data[np.linalg.norm(points - PLACE, axis=-1) < 14] = lesion
    return nb.Nifti1Image((np.where(inside, data, 0) * 100).astype(np.float32), grid.affine)


def still(first: nb.Nifti1Image) -> tuple:
    return [np.eye(4)], [np.eye(4)]


@pytest.fixture(scope="module")
def changed(weights_dir):
    template, scan = head(), head(lesion=0.6, seed=1)
    found = topology_change(
        template, scan, fixed2moving=np.eye(4), transforms=still(scan), weights_dir=weights_dir
    )
    return template, scan, found


@pytest.fixture(scope="module")
def controls(weights_dir):
    scores = []
    for seed in range(6):
        found = topology_change(
            head(),
            head(seed=10 + seed),
            fixed2moving=np.eye(4),
            transforms=still(head()),
            weights_dir=weights_dir,
        )
        scores.append(found.fixed_score)
    return control_statistics(
        scores, found.fixed_brain, found.grid, controls=list("abcdef"), weights_sha256=found.weights_sha256
    )


def smooth_field(shape: tuple[int, int, int]) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.linspace(0, 2 * torch.pi, n) for n in shape), indexing="ij")
    return 1.5 * torch.stack([torch.sin(axes[1]), torch.cos(axes[2]), torch.sin(axes[0])])[None]


def test_symmetric_scores_are_one_map_seen_from_both_sides():
    """L_sym(I|J) = L_sym(J|I) o Phi where the transforms are inverse to each other (section 3)."""
    torch.manual_seed(0)
    shape = (40, 44, 48)
    there = smooth_field(shape)
    back = invert_displacement(there, steps=80, tolerance=1e-3)
    one, other = (gaussian_smooth(torch.rand(1, 1, *shape), 3.0) for _ in range(2))
    on_fixed, on_moving = symmetric_score(one, other, there), symmetric_score(other, one, back)
    inner = (slice(None), slice(None), *[slice(6, -6)] * 3)
    carried = warp(on_fixed, back)[inner]
    spread = float(on_moving[inner].std())
    assert float((carried - on_moving[inner]).abs().mean()) < 0.05 * spread
    assert float((on_fixed[inner] - on_moving[inner]).abs().mean()) > 0.25 * spread, (
        "the test must be able to fail"
    )
    wrong = warp(on_fixed, there)[inner]
    assert float((wrong - on_moving[inner]).abs().mean()) > 0.25 * spread


@pytest.mark.parametrize("dims", [2, 3])
def test_exchanging_the_images_exchanges_the_sides(dims):
    torch.manual_seed(1)
    network = TopologyNetwork(dims, (4, 4), "none").eval()
    one, other = torch.rand(1, 1, 8, 12, 20), torch.rand(1, 1, 8, 12, 20)
    with torch.no_grad():
        found, again = score_pair(network, one, other), score_pair(network, other, one)
    assert found.fixed_score.shape == (1, 1, 8, 12, 20)
    assert found.forward.shape == (1, 3, 8, 12, 20)
    assert torch.allclose(found.fixed_score, again.moving_score, atol=1e-5)
    assert torch.allclose(found.forward, again.backward, atol=1e-5)
    if dims == 2:
        assert float(found.forward[:, 2].abs().max()) == 0


def test_a_lesion_has_the_highest_score_on_both_sides(changed):
    _, scan, found = changed
    points = found.grid.to_world(np.moveaxis(np.indices(found.grid.shape), 0, -1))
    away = np.linalg.norm(points - PLACE, axis=-1)
    lesion, around = away < 10, away < 18
    for name in ("fixed", "moving"):
        values, brain = getattr(found, f"{name}_score"), getattr(found, f"{name}_brain")
        assert values[lesion].mean() > np.quantile(values[brain & ~around], 0.99)
        assert not values[~brain].any()
    own = found.on_moving(found.moving_score, Grid.of(scan))
    assert own.shape == scan.shape
    peak = Grid.of(scan).to_world(np.argwhere(own.get_fdata() == own.get_fdata().max())[0])
    assert np.linalg.norm(peak - PLACE) < 16


def test_a_registration_that_is_given_is_started_from(changed, weights_dir):
    template, scan, _ = changed
    grid = Grid.of(template)
    field = np.zeros((*grid.shape, 3), np.float32)
    field[..., 1] = 9.0
    there, back = DisplacementField(grid, field), DisplacementField(grid, -field)
    found = topology_change(
        template, scan, fixed2moving=np.eye(4), transforms=([there], [back]), weights_dir=weights_dir
    )
    middle = tuple(n // 2 for n in found.grid.shape)
    assert found.forward.data[middle][1] == pytest.approx(9, abs=0.5)
    assert found.backward.data[middle][1] == pytest.approx(-9, abs=0.5)


def test_outliers_are_found_named_and_placed(changed, controls):
    _, scan, found = changed
    above = outliers(found, controls)
    z = found.on_moving(above.moving_z, Grid.of(scan))
    dseg = nb.Nifti1Image(np.full(scan.shape, 2, np.int16), scan.affine)
    regions = change_regions(z, threshold=above.threshold, dseg=dseg)
    assert regions.rows, "the lesion is a region"
    row = regions.rows[0]
    assert np.linalg.norm([row["x_mm"], row["y_mm"], row["z_mm"]] - PLACE) < 8
    assert 0.4 < row["volume_mm3"] / (4 / 3 * np.pi * 14**3) < 4
    assert row["structures"] == "Left-Cerebral-White-Matter 100 %"
    mask = np.asanyarray(regions.mask.dataobj)
    assert mask.sum() * 27 >= row["volume_mm3"]
    weight = match_weight(above.fixed_z, above.threshold)
    voxel = tuple(np.rint(found.grid.to_voxels(PLACE)).astype(int))
    assert weight[voxel] == 0
    assert np.median(weight[found.fixed_brain]) == 1


def test_a_healthy_brain_has_about_one_region(controls, weights_dir):
    scan = head(seed=99)
    found = topology_change(
        head(), scan, fixed2moving=np.eye(4), transforms=still(scan), weights_dir=weights_dir
    )
    above = outliers(found, controls)
    assert len(change_regions(found.image(above.moving_z), threshold=above.threshold).rows) <= 3
    inside = above.moving_z[found.moving_brain & controls.mask]
    assert abs(np.median(inside)) < 0.7
    assert 0.5 < inside.std() < 2


def test_statistics_survive_their_file_and_refuse_strangers(controls, changed, tmp_path):
    again = ControlStatistics.load(controls.save(tmp_path / "a.npz"))
    assert np.allclose(again.mean, controls.mean, rtol=2e-3, atol=2e-2)
    assert np.array_equal(again.mask, controls.mask)
    assert (again.threshold, again.controls) == (controls.threshold, controls.controls)
    assert again.score_mm == controls.score_mm > 0
    assert "WeightsSHA256" in (tmp_path / "a.json").read_text()
    stranger = ControlStatistics(**{**vars(controls), "weights_sha256": "other"})
    with pytest.raises(ScanError, match="other weights"):
        outliers(changed[2], stranger)
    with pytest.raises(UsageError, match="at least 3"):
        control_statistics([controls.mean], controls.mask, controls.grid, controls=["a"], weights_sha256="")
    with np.load(tmp_path / "a.npz") as stored:
        later = dict(stored) | {
            "about": np.array(json.dumps(json.loads(str(stored["about"])) | {"Format": 99}))
        }
    np.savez(tmp_path / "c.npz", **later)
    with pytest.raises(ScanError, match="later version"):
        ControlStatistics.load(tmp_path / "c.npz")
    (tmp_path / "b.npz").write_bytes(b"no")
    with pytest.raises(ScanError, match="no control statistics"):
        ControlStatistics.load(tmp_path / "b.npz")


def test_scores_are_averaged_as_those_of_the_controls_were(changed):
    """Noise of single voxels has the spread of the controls' noise, which a raw map would exceed."""
    shape = (24, 28, 32)
    grid = Grid(shape, np.diag([2.0, 2, 2, 1]))
    noise = [np.random.default_rng(seed).normal(5, 1, shape).astype(np.float32) for seed in range(9)]
    brain = np.ones(shape, bool)
    made = control_statistics(noise[1:], brain, grid, controls=list("abcdefgh"), weights_sha256="w")
    still = DisplacementField(grid, np.zeros((*shape, 3), np.float32))
    change = replace(
        changed[2], fixed_score=noise[0], moving_score=noise[0], fixed_brain=brain, moving_brain=brain,
        grid=grid, forward=still, backward=still, weights_sha256="w",
    )  # fmt: skip
    above = outliers(change, made)
    inner = (slice(4, -4),) * 3
    for z in (above.fixed_z, above.moving_z):
        assert 0.8 < z[inner].std() < 1.2
    raw = outliers(change, replace(made, score_mm=0.0))
    assert raw.fixed_z[inner].std() > 2
    assert raw.moving_z[inner].std() > 2


def test_masks_that_differ_at_the_rim_are_no_change_but_an_open_resection_is(changed):
    shape = (40, 44, 48)
    grid = Grid(shape, np.diag([2.0, 2, 2, 1]))
    brain = np.zeros(shape, bool)
    brain[6:34, 6:38, 6:42] = True
    other = brain.copy()
    other[6:9] = False  # a mask that is too small on one side
    other[24:34, 15:30, 15:30] = False  # a cavity that is open to the outside
    still = DisplacementField(grid, np.zeros((*shape, 3), np.float32))
    change = replace(
        changed[2], fixed_brain=brain, moving_brain=other, grid=grid, forward=still, backward=still
    )
    first, second = _shared(change)
    assert first[29, 22, 22] == 1, "tissue that is gone is looked at"
    assert not first[6:9, 6:38, 6:42].any()
    assert second[29, 22, 22] == 0
    assert first[16, 22, 22] == second[16, 22, 22] == 1


@pytest.mark.parametrize("gone", [False, True])
def test_what_appeared_and_what_disappeared_are_told_apart(weights_dir, gone):
    healthy, ill = head(seed=3), head(lesion=0.64, seed=4)
    first, second = (ill, healthy) if gone else (healthy, ill)
    unusual = [
        nb.Nifti1Image((np.abs(i.get_fdata() - 64) < 3).astype(np.float32) * 5, i.affine)
        for i in (first, second)
    ]
    for img in unusual:
        img.dataobj[:] = ndimage.grey_opening(np.asarray(img.dataobj), 3) * (head().get_fdata() > 0)
    found = compare_sessions(
        first,
        second,
        frame2first=np.eye(4),
        frame2second=np.eye(4),
        first_outlier=unusual[0],
        second_outlier=unusual[1],
        transforms=still(first),
        weights_dir=weights_dir,
    )
    largest = found.rows[0]
    assert np.linalg.norm([largest["x_mm"], largest["y_mm"], largest["z_mm"]] - PLACE) < 10
    assert largest["direction"] == ("disappeared" if gone else "appeared")
    for mask, scan in ((found.first_mask, first), (found.second_mask, second)):
        voxel = tuple(np.rint(Grid.of(scan).to_voxels(PLACE)).astype(int))
        assert np.asanyarray(mask.dataobj)[voxel] == (DISAPPEARED if gone else APPEARED)
    assert found.metrics["direction_from"] == "template"
    assert not found.metrics["calibrated"]


QUICK = (Stage(4, 4, 50, 0.5, 1.2), Stage(2, 2, 30, 0.5, 1.2))


def test_a_weight_lets_the_surroundings_of_a_lesion_align_better():
    generator = torch.Generator().manual_seed(3)
    shape = (48, 56, 64)
    texture = gaussian_smooth(torch.rand(1, 1, *shape, generator=generator), 3.0)
    texture = (texture - texture.min()) / (texture.max() - texture.min()) * 0.8 + 0.2
    axes = torch.meshgrid(*(torch.linspace(0, 2 * torch.pi, n) for n in shape), indexing="ij")
    truth = 2 * torch.stack([torch.sin(axes[1]), torch.cos(axes[2]), torch.sin(axes[0])])[None]
    moving = warp(texture, invert_displacement(truth, steps=60))
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")).float()
    distance = (places - torch.tensor([24.0, 28, 32]).view(3, 1, 1, 1)).norm(dim=0)[None, None]
    lesion = (distance < 9).float()
    blotch = gaussian_smooth(torch.rand(1, 1, *shape, generator=generator), 2.0)
    blotch = (blotch - blotch.min()) / (blotch.max() - blotch.min())
    ill = moving * (1 - warp(lesion, invert_displacement(truth, steps=60))) + blotch * warp(
        lesion, invert_displacement(truth, steps=60)
    )
    start = torch.zeros(1, 3, *(n // 4 for n in shape))
    plain = refine(start, texture, ill, lam=0.3, stages=QUICK)
    weighted = refine(start, texture, ill, lam=0.3, stages=QUICK, weight=1 - lesion)
    expected = torch.nn.functional.avg_pool3d(truth, 2) / 2
    rim = torch.nn.functional.avg_pool3d(((distance >= 9) & (distance < 15)).float(), 2) > 0.5
    errors = [float((u - expected).norm(dim=1, keepdim=True)[rim].mean()) for u in (plain, weighted)]
    assert errors[1] < 0.9 * errors[0]
    same = refine(start, texture, ill, lam=0.3, stages=QUICK, weight=torch.ones_like(lesion))
    assert torch.equal(same, plain)


def test_the_threshold_is_above_where_regions_grow_together():
    """Below z = 5 everything is one region, between 5 and 6 there are two: the threshold lies above 6."""
    grid = Grid((20, 8, 9), np.diag([4.0, 4, 4, 1]))
    z = np.full(grid.shape, 4.5)
    z[2:6, 2:6, 2:6] = z[12:16, 2:6, 2:6] = 6.0
    assert _one_region([z, z], np.ones(grid.shape, bool), grid) == 6.25


def test_what_one_image_does_not_show_is_no_change(weights_dir):
    """A slab that ends inside the brain is compared up to its edge, on both sides."""
    whole, cut = head(), head(seed=1)
    short = nb.Nifti1Image(cut.get_fdata(dtype=np.float32)[:, :, 18:], cut.affine.copy())
    short.affine[:3, 3] += 18 * cut.affine[:3, 2]
    found = topology_change(
        whole, short, fixed2moving=np.eye(4), transforms=still(whole), weights_dir=weights_dir
    )
    full = topology_change(
        whole, cut, fixed2moving=np.eye(4), transforms=still(whole), weights_dir=weights_dir
    )
    heights = found.grid.to_world(np.moveaxis(np.indices(SHAPE), 0, -1))[..., 2]
    edge = short.affine[2, 3]
    for side in ("fixed", "moving"):
        brain, score = getattr(found, f"{side}_brain"), getattr(found, f"{side}_score")
        before = getattr(full, f"{side}_brain")
        assert not brain[heights < edge].any()
        assert not score[~brain].any()
        kept = heights > edge + 3 * SPACING + 3
        assert (brain == before)[kept].mean() > 0.99, "the rest is compared as before"
        assert before[heights < edge].any()


def test_growth_counts_the_affine_alignments_too(changed):
    _, _, found = changed
    still_ = DisplacementField(found.grid, np.zeros((*SHAPE, 3), np.float32))
    grown = replace(found, backward=still_, frame2moving=np.diag([1.1, 1.1, 1.1, 1.0]))
    assert np.allclose(_log_growth(grown), 3 * np.log(1.1), atol=1e-5)


def test_controls_are_counted_where_they_were_compared(controls):
    rng = np.random.default_rng(0)
    maps = [rng.normal(10, 1, controls.grid.shape).astype(np.float32) for _ in range(8)]
    everywhere = np.ones(controls.grid.shape, bool)
    for one in maps[:4]:
        one[:6] = 0  # half of them do not show this part
    maps[4][6:12] = maps[5][6:12] = maps[6][6:12] = 0
    for one in maps[:6]:
        one[18:] = 0  # fewer than three show that one
    made = control_statistics(
        maps, everywhere, controls.grid, controls=list("abcdefgh"), weights_sha256="", smooth_mm=0
    )
    assert abs(made.mean[:6].mean() - 10) < 0.2
    assert 0.7 < made.sd[:6].mean() < 1.2
    assert made.mask[:18].all()
    assert not made.mask[18:].any()
