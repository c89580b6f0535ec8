"""Few-shot training: the task's batches, its loss, what is held out, and that it learns and ships."""

import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.nets.neuralizer import Neuralizer
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.train.configure import read_config
from hyperprep.models.train.export import export
from hyperprep.models.train.loop import train
from hyperprep.models.train.neuralizer import NeuralizerTask, few_shot_loss
from hyperprep.models.train.schedule import Schedule
from hyperprep.models.weights import find_weights, load_state

LATTICE = Lattice((16, 24, 32), 8.0, (-60.0, -110.0, -116.0))
SPEC = SynthSpec(
    rotation_deg=2, shift_mm=2, warp_mm=1, contrasts=("T1w", "FLAIR"), random_contrast=0.0, subsamples=1
)


@pytest.fixture(scope="module")
def maps():
    axes = np.meshgrid(*(np.arange(n) for n in (192, 224, 192)), indexing="ij", sparse=True)
    x, y, z = (a + o for a, o in zip(axes, (-96, -132, -78), strict=True))
    radius = np.sqrt(x**2 + (y + 18) ** 2 + (z - 12) ** 2)
    labels = np.where(radius < 60, np.where(x < 0, 1, 2), 0).astype(np.uint8)
    for index, side in ((3, -25), (4, 25)):
        labels[np.sqrt((x - side) ** 2 + (y + 18) ** 2 + (z - 12) ** 2) < 20] = index
    both = torch.from_numpy(np.stack([labels] * 4))
    return LabelMaps(both, (both > 0).to(torch.uint8), (0, 2, 41, 17, 53))


def make(maps, **options):
    return NeuralizerTask(
        maps, LATTICE, SPEC, channels=4, levels=3, batch_size=2, most_context=3, held_out=2, **options
    )


def test_batches_have_one_size_of_context_and_every_axis(maps):
    task = make(maps)
    shapes = set()
    for seed in range(12):
        batch = task.batch(np.random.default_rng(seed))
        assert batch.target.shape[:2] == (2, 3)
        assert 1 <= batch.context.shape[1] <= 3
        shapes.add(tuple(batch.target.shape[2:]))
    assert shapes == {(24, 32), (16, 32), (16, 24)}


def test_training_begins_from_weights_that_are_there(maps):
    task = NeuralizerTask(maps, LATTICE, SPEC, channels=32, start=True, begin_from="neuralizer")
    known = load_state(find_weights("neuralizer"))
    made = task.build().state_dict()
    assert set(made) == set(known)
    assert all(torch.equal(made[name], known[name]) for name in known)
    with pytest.raises(UsageError, match=r"begin_from = 'neuralizer'.*another shape"):
        make(maps, begin_from="neuralizer").build()


def test_held_out_structures_and_contrast_never_train(maps):
    task = make(maps, held_out_structures=(17,), held_out_contrast="FLAIR")
    spec = task._episode_spec()
    assert set(spec.structures) == {2, 41}
    assert spec.images.contrasts == ("T1w",)
    assert list(task.training_maps) == [0, 1]
    assert task.validation_batch(0, "segmentation", numbers=(17,)).truth.sum() > 0


def test_loss_is_dice_for_masks_and_scaled_error_for_images():
    truth = torch.zeros(2, 1, 8, 8)
    truth[:, :, :4] = 1
    wrong = few_shot_loss(1 - truth, truth, torch.tensor([True, False]))
    assert wrong[0] > 0.95
    assert wrong[1] == pytest.approx(1 / (2 * 0.05))
    right = few_shot_loss(truth, truth, torch.tensor([True, False]))
    assert right.abs().max() < 1e-6


def test_wrong_options_are_named(maps):
    with pytest.raises(UsageError, match="segmentatoin"):
        make(maps, tasks=("segmentatoin",))
    with pytest.raises(UsageError, match="divisible by 16"):
        NeuralizerTask(maps, LATTICE, SPEC, levels=5)
    only = make(maps, held_out_contrast="T1w")
    only.spec = SynthSpec(contrasts=("T1w",))
    with pytest.raises(UsageError, match="No contrast is left"):
        only.batch(np.random.default_rng(0))


def test_learns_resumes_validates_and_exports(maps, tmp_path):
    task = make(maps, tasks=("segmentation", "denoise_bias"), augment=False, held_out_structures=(17,))
    model = task.build()
    before = task.validate(model, episodes=3)
    run = tmp_path / "run"
    schedule = Schedule(steps=10, learning_rate=1e-2, warmup_steps=2, average=0.9)
    train(task, schedule, run)
    longer = Schedule(steps=60, learning_rate=1e-2, warmup_steps=2, average=0.9)
    trained = train(task, longer, run)
    after = task.validate(trained, episodes=3)
    assert set(after) == {"dice_segmentation", "psnr_denoise_bias", "dice_unseen"}
    assert after["psnr_denoise_bias"] > before["psnr_denoise_bias"] + 1
    (run / "config.toml").write_text(
        'network = "neuralizer"\n[lattice]\nshape = [16, 24, 32]\nspacing_mm = 8.0\n'
        "origin_mm = [-60.0, -110.0, -116.0]\n[model]\nchannels = 4\nlevels = 3\nmost_context = 3\n"
    )
    export(run, out_dir=tmp_path / "weights")
    entry = find_weights("neuralizer", weights_dir=tmp_path / "weights")
    assert entry.metadata["network"] == {"kind": "neuralizer", "channels": 4, "levels": 3}
    assert entry.metadata["most_context"] == 3
    assert entry.metadata["scores"]["val_psnr_denoise_bias"] > 0


@pytest.mark.parametrize("name", ["neuralizer", "neuralizer_small"])
def test_configurations_fit_the_network(name):
    config = read_config(name)
    assert all(side % 8 == 0 for side in config["lattice"]["shape"])
    assert Neuralizer(config["model"]["channels"]).divisor == 8
    assert {18, 54} <= set(config["model"]["held_out_structures"])
