"""Few-shot tasks on volumes and slices, with a network that copies the mean of its examples."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
import torch

from hyperprep.exceptions import AlignmentError, ScanError, UsageError, WeightsError
from hyperprep.models.nets.neuralizer import Neuralizer
from hyperprep.models.predict import few_shot as module
from hyperprep.models.predict.few_shot import few_shot
from hyperprep.models.predict.few_shot_slices import few_shot_slice, predict_slices
from hyperprep.models.predict.placing import choose, context_sets, nudged
from hyperprep.models.spatial.examples import ExampleImages
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import resample

SHAPE, SPACING = (14, 16, 18), 6.0
GRID = {"orientation": "RAS", "shape": list(SHAPE), "spacing_mm": SPACING, "origin_mm": [-39.0, -45.0, -51.0]}
OBLIQUE = np.array([[-3.86, 0, 1.04, 30], [0, 4, 0, -40], [1.04, 0, 3.86, -45], [0, 0, 0, 1]], float)


class Copying(Neuralizer):
    """Gives the mean of the examples' outputs; what it is shown is recorded."""

    def __init__(self) -> None:
        super().__init__(channels=2)
        self.seen: list[torch.Size] = []

    def forward(self, target, context, *, chunk=None):
        self.seen.append(context.shape)
        return context[:, :, 3].mean(1, keepdim=True)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Copying:
    copying = Copying()
    entry = SimpleNamespace(
        sha256="0" * 64, metadata={"grid": GRID, "intensity": {"percentiles": [0.5, 99.5]}}
    )
    for name in ("few_shot", "few_shot_slices"):
        monkeypatch.setattr(f"hyperprep.models.predict.{name}.load_few_shot", lambda *_: (copying, entry))
    return copying


STRAIGHT = np.array([[3.0, 0, 0, -45], [0, 3, 0, -45], [0, 0, 3, -45], [0, 0, 0, 1]])


def ball(centre, radius, affine=STRAIGHT, shape=(29, 30, 31)):
    points = Grid(shape, affine).to_world(np.moveaxis(np.indices(shape), 0, -1))
    return nb.Nifti1Image((np.linalg.norm(points - centre, axis=-1) < radius).astype("f4"), affine)


def head(affine=None, shape=None, gain=1.0, seed=0):
    place = {} if affine is None else {"affine": affine, "shape": shape}
    data = sum(ball((0, 0, 0), r, **place).get_fdata() for r in (36, 20)) * gain * 50
    noise = np.random.default_rng(seed).uniform(0, 1, data.shape) * (data > 0)
    img = ball((0, 0, 0), 1, **place)
    return nb.Nifti1Image((data + noise).astype("f4"), img.affine)


def example(label="sub-01", centre=(10, 5, 0), radius=14, **options):
    return ExampleImages(label, (head(**options),), ball(centre, radius))


def test_a_mask_comes_to_the_scans_own_oblique_grid(network):
    scan = head(OBLIQUE, (22, 21, 23))
    made = few_shot(
        [scan], [example()], kind="mask", template2scan=np.eye(4), prealigned=True, context_size=1
    )
    assert made.output.shape == scan.shape
    assert np.allclose(made.output.affine, OBLIQUE)
    truth = resample(ball((10, 5, 0), 14), Grid.of(scan), [np.eye(4)], interpolation="linear")
    a, b = made.output.get_fdata() > 0, truth.get_fdata() > 0.5
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85
    assert made.probability is not None
    assert made.metadata["predictions"] == 3
    # three orientations of a network that copies agree
    assert made.spread.get_fdata().max() < 0.02


def test_the_template_frame_need_not_be_the_scans(network):
    shift = np.eye(4)
    shift[:3, 3] = 12, -6, 6
    moved = OBLIQUE.copy()
    moved[:3, 3] += shift[:3, 3]
    scan = nb.Nifti1Image(head(OBLIQUE, (22, 21, 23)).get_fdata(dtype=np.float32), moved)
    there = ExampleImages(
        "sub-01",
        tuple(nb.Nifti1Image(i.get_fdata(dtype=np.float32), shift @ i.affine) for i in (head(),)),
        nb.Nifti1Image(ball((10, 5, 0), 14).get_fdata(dtype=np.float32), shift @ ball((0, 0, 0), 1).affine),
    )
    made = few_shot([scan], [there], kind="mask", template2scan=shift, prealigned=True, context_size=1)
    held = np.argwhere(made.output.get_fdata() > 0).mean(0)
    assert np.allclose(nb.affines.apply_affine(moved, held), [22, -1, 6], atol=2)


def test_an_image_follows_the_units_of_the_subject(network):
    images = [
        ExampleImages(f"sub-{n}", (head(gain=gain),), head(gain=2 * gain))
        for n, gain in enumerate((1.0, 3.0))
    ]
    scan = head(gain=10.0)
    made = few_shot([scan], images, kind="image", template2scan=np.eye(4), prealigned=True)
    bright = scan.get_fdata() > 900
    assert np.median(made.output.get_fdata()[bright]) == pytest.approx(2000, rel=0.1)
    assert made.probability is None
    assert made.metadata["output_unit_of_examples"] is False


def test_disagreeing_examples_make_spread_under_bootstraps(network):
    two = [example("sub-01"), example("sub-02", centre=(-12, 0, 0))]
    made = few_shot(
        [head()], two, kind="mask", template2scan=np.eye(4), prealigned=True, bootstraps=4, context_size=2
    )
    assert made.spread.get_fdata().max() > 0.1
    assert made.metadata["predictions"] == 12
    again = few_shot(
        [head()], two, kind="mask", template2scan=np.eye(4), prealigned=True, bootstraps=4, context_size=2
    )
    assert np.array_equal(made.spread.get_fdata(), again.spread.get_fdata())


def test_few_examples_are_padded_and_the_most_similar_of_many_are_taken(network):
    few_shot([head()], [example()], kind="mask", template2scan=np.eye(4), prealigned=True)
    assert {shape[1] for shape in network.seen} == {4}
    many = [example("sub-01"), example("sub-02", seed=9)]
    many[1] = ExampleImages("sub-02", (ball((20, 20, 20), 25),), many[1].output)
    made = few_shot([head()], many, kind="mask", template2scan=np.eye(4), prealigned=True, context_size=1)
    assert made.examples == ("sub-01",)


def test_only_slices_near_the_structure_are_computed(network):
    few_shot([head()], [example(radius=8)], kind="mask", template2scan=np.eye(4), prealigned=True)
    assert len(network.seen) < sum(SHAPE) / 2


def test_what_cannot_be_done_is_told(network, monkeypatch):
    with pytest.raises(UsageError, match="as many images"):
        few_shot([head()], [], kind="mask", template2scan=np.eye(4))
    with pytest.raises(UsageError, match="orientations"):
        few_shot([head()], [example()], kind="mask", template2scan=np.eye(4), orientations=(3,))
    with pytest.raises(ScanError, match="vanish"):
        few_shot([head()], [example(radius=1.0)], kind="mask", template2scan=np.eye(4), prealigned=True)

    def fail(*_, **__):
        return SimpleNamespace(success=False, reason="they do not match")

    monkeypatch.setattr("hyperprep.models.predict.placing.prealign", fail)
    with pytest.raises(AlignmentError, match="sub-01: they do not match"):
        few_shot([head()], [example()], kind="mask", template2scan=np.eye(4))


def test_one_failed_example_is_left_out_and_named(network, monkeypatch):
    def align(fixed, moving, **_):
        lost = moving.get_fdata().max() < 2
        return SimpleNamespace(success=not lost, reason="lost", fixed2moving=np.eye(4))

    monkeypatch.setattr("hyperprep.models.predict.placing.prealign", align)
    lost = ExampleImages("sub-02", (ball((0, 0, 0), 20),), ball((0, 0, 0), 14))
    made = few_shot([head()], [example(), lost], kind="mask", template2scan=np.eye(4))
    assert made.examples == ("sub-01",)
    assert made.metadata["left_out"] == ["example sub-02: lost"]


def test_no_weights_is_an_error_that_says_where_it_looked(monkeypatch, tmp_path):
    monkeypatch.setattr("hyperprep.models.weights.resolver.package_dir", lambda: tmp_path / "none")
    assert module.SMALLEST_CONTEXT == 4
    with pytest.raises(WeightsError, match="train run neuralizer"):
        few_shot([head()], [example()], kind="mask", template2scan=np.eye(4))


def test_nudged_masks_stay_masks_and_hardly_move():
    volumes = torch.zeros(4, 30, 34, 38)
    volumes[3, 8:16, 5:15, 6:20] = 1
    moved = nudged(volumes, np.random.default_rng(0))
    assert set(moved[3].unique().tolist()) <= {0.0, 1.0}
    overlap = 2 * (moved[3] * volumes[3]).sum() / (moved[3].sum() + volumes[3].sum())
    assert 0.5 < overlap < 1.0


def test_context_sets_begin_with_every_example_and_repeat_none_exactly():
    placed = [SimpleNamespace(volumes=torch.rand(4, 6, 7, 8), similarity=s, label=str(s)) for s in (0.1, 0.2)]
    first, second = context_sets(placed, 4, 2, seed=0)
    assert first.shape == (4, 4, 6, 7, 8)
    assert torch.equal(first[0], placed[0].volumes)
    assert torch.equal(first[1], placed[1].volumes)
    for members in (first, second):
        assert all(not torch.equal(members[i], members[j]) for i in range(4) for j in range(i))
    assert [p.label for p in choose(placed, 1)] == ["0.2"]


def test_slices_of_any_size_and_unit(network):
    rng = np.random.default_rng(0)
    images = [rng.uniform(1, 900, (9, 13))]
    mask = np.zeros((9, 13))
    mask[3:6, 4:9] = 1
    assert np.array_equal(few_shot_slice(images, [(images, mask)]), mask.astype(np.float32))
    graded = rng.uniform(100, 300, (9, 13))
    found = few_shot_slice(images, [(images, graded)])
    assert np.abs(found - graded).max() < 5
    with pytest.raises(UsageError, match="one shape"):
        few_shot_slice(images, [(images, mask[1:])])
    with pytest.raises(ScanError, match="no task"):
        few_shot_slice(images, [(images, np.zeros((9, 13)))])


def test_padding_does_not_move_the_slice():
    torch.manual_seed(0)
    network = Neuralizer(channels=2).eval()
    with torch.no_grad():
        found = predict_slices(network, torch.rand(1, 3, 9, 13), torch.rand(1, 2, 4, 9, 13), chunk=1)
    assert found.shape == (1, 9, 13)
    assert found.min() >= 0
    assert found.max() <= 1


def test_examples_are_deformed_onto_the_subject(network):
    """An example whose structure is smaller than the subject's: its mask grows with its image."""
    images = [head()]
    thin = nb.Nifti1Image(
        sum(ball((0, 0, 0), r).get_fdata() for r in (36, 14)).astype("f4") * 50, images[0].affine
    )
    examples = [ExampleImages("sub-01", (thin,), ball((0, 0, 0), 14))]
    volumes = []
    for deform in (False, True):
        made = few_shot(
            images, examples, kind="mask", template2scan=np.eye(4), prealigned=True, deform=deform
        )
        volumes.append(made.metadata["volume_mm3"])
    wanted = float(ball((0, 0, 0), 20).get_fdata().sum() * 27)
    assert volumes[0] < 0.5 * wanted
    assert abs(volumes[1] - wanted) < 0.6 * abs(volumes[0] - wanted)
