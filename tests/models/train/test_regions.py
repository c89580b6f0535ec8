"""Training of own regions from masks of which every scan has some."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.spatial.own_regions import read_class_table
from hyperprep.models.spatial.region_examples import INDEX
from hyperprep.models.train.export_regions import Interrupted, RegionTraining, train_regions
from hyperprep.models.train.regions import MARGIN, RegionTask
from hyperprep.models.weights import find_weights

SHAPE = (24, 26, 28)
CHANNELS = 5


def cube(corner, side=6):
    mask = torch.zeros(SHAPE)
    mask[tuple(slice(c, c + side) for c in corner)] = 1
    return mask


@pytest.fixture
def folder(tmp_path):
    """Prepared scans whose first features show two regions that move from scan to scan."""
    rng = np.random.default_rng(0)
    rows = []
    drawn = {"01": ["front", "back"], "02": ["front"], "03": ["front", "back"], "04": ["front", "back"]}
    for participant, names in drawn.items():
        corner = 8 + rng.integers(-2, 3, 3)
        masks = {"back": cube(corner), "front": cube(corner + np.array([0, 6, 0]))}
        features = 0.1 * torch.randn(
            CHANNELS, *SHAPE, generator=torch.Generator().manual_seed(int(participant))
        )
        features[0] += masks["front"]
        features[1] += masks["back"]
        file = str(tmp_path / f"sub-{participant}_0.safetensors")
        stored = torch.stack([masks[name] for name in names])
        save_file({"features": features.half(), "masks": (255 * stored).byte()}, file)
        rows.append({"file": file, "label": f"sub-{participant}", "participant": participant, "variant": 0,
                     "regions": {name: row for row, name in enumerate(names)}})  # fmt: skip
    content = {
        "base_sha256": "0" * 64,
        "grid": {"orientation": "RAS", "shape": SHAPE, "spacing_mm": 2.0, "origin_mm": [0, 0, 0]},
        "intensity": {"percentiles": [0.5, 99.5], "inside": "brain"},
        "features": CHANNELS,
        "ratios": [3, 2],
        "scans": rows,
    }
    (tmp_path / INDEX).write_text(json.dumps(content))
    return tmp_path


def test_regions_are_drawn_inversely_to_how_often_they_were_annotated(folder):
    task = RegionTask(folder, held_out=("04",))
    assert task.annotated == {"front": 3, "back": 2}
    rng = np.random.default_rng(1)
    drawn = np.bincount([task.batch(rng)[0] for _ in range(600)], minlength=2) / 600
    assert drawn == pytest.approx([3 / 5, 2 / 5], abs=0.06)


def test_a_scan_teaches_only_what_was_drawn_in_it(folder):
    task = RegionTask(folder)
    back = task.regions.index("back")
    assert {scan.participant for scan in task.having[back]} == {"01", "03", "04"}


def test_the_prior_leaves_out_who_is_learnt_from(folder):
    task = RegionTask(folder)
    place = task.regions.index("back")
    everybody = task.prior(place)
    without = task.prior(place, without="01")
    assert not torch.allclose(everybody, without)
    rest = [mask for who, mask in task.means[place].items() if who != "01"]
    assert float(without.sum()) == pytest.approx(float(torch.stack(rest).mean(0).sum()), rel=0.05)


def test_boxes_hold_all_masks_and_a_margin(folder):
    task = RegionTask(folder)
    for place, name in enumerate(task.regions):
        union = torch.stack([s.mask(name, tuple(slice(0, n) for n in SHAPE)) > 0 for s in task.having[place]])
        places = union.any(0).nonzero()
        for (start, end), low, high, size in zip(
            task.boxes[place], places.amin(0), places.amax(0), SHAPE, strict=True
        ):
            assert start == max(0, int(low) - MARGIN)
            assert end == min(size, int(high) + 1 + MARGIN)


def test_what_is_held_out_must_be_there(folder):
    with pytest.raises(UsageError, match="09"):
        RegionTask(folder, held_out=("09",))
    with pytest.raises(UsageError, match="Nothing is left to learn from"):
        RegionTask(folder, held_out=("01", "02", "03", "04"))
    with pytest.raises(NoInputError, match=INDEX):
        RegionTask(folder / "none")


def test_training_finds_the_region_in_a_scan_it_never_saw(folder, tmp_path):
    """The prior alone overlaps with a region that has moved by far less."""
    torch.manual_seed(0)
    task = RegionTask(folder, held_out=("04",), channels=(8, 8, 8))
    before = task.validate(task.build())
    out = tmp_path / "weights"
    train_regions(task, tmp_path / "run", out, training=RegionTraining(steps=300), command="c", data="d")
    entry = find_weights("regions", weights_dir=out)
    scores = entry.metadata["scores"]
    assert scores["val_mean"] > before["mean"] + 0.05
    assert scores["val_mean"] > 0.9
    assert [region.name for region in read_class_table(entry.metadata["regions"])] == list(task.regions)
    assert entry.metadata["annotated"] == {"front": 3, "back": 2}
    head = load_network(entry)
    again = task.validate(head)
    assert again["mean"] == pytest.approx(scores["val_mean"], abs=0.01)  # half precision
    assert "| val_mean |" in (out / "regions.md").read_text()


def test_what_a_box_does_not_hold_counts_as_missed(folder):
    task = RegionTask(folder, held_out=("04",))
    whole = task.validate(task.build())
    far = torch.zeros(SHAPE)
    far[:3, :3, :3] = 1
    scan = task.testing[0]
    stored = {name: torch.from_numpy(value) for name, value in load_file(scan.file).items()}
    for name, row in scan.rows.items():
        if name == "back":
            stored["masks"][row] = torch.maximum(stored["masks"][row], (255 * far).byte())
    save_file(stored, scan.file)
    more = task.validate(task.build())
    assert more["front"] == whole["front"]
    assert more["back"] < whole["back"] - 0.01


def test_a_region_that_fills_no_voxel_is_not_measured(folder):
    task = RegionTask(folder, held_out=("04",))
    scan = task.testing[0]
    stored = {name: torch.from_numpy(value) for name, value in load_file(scan.file).items()}
    stored["masks"][scan.rows["back"]] //= 3
    save_file(stored, scan.file)
    assert set(task.validate(task.build())) == {"mean", "front"}


def test_a_region_too_small_for_the_grid_is_told(folder):
    task = RegionTask(folder)
    task.means = [{who: mask * (mask == 2) for who, mask in means.items()} for means in task.means]
    with pytest.raises(UsageError, match=r"back, front: too small for voxels of 2 mm"):
        task.build()


def test_a_signal_ends_the_training_and_writes_no_weights(folder, tmp_path, monkeypatch):
    task, drawn = RegionTask(folder), RegionTask.batch

    def interrupted(self, rng):
        os.kill(os.getpid(), signal.SIGTERM)
        return drawn(self, rng)

    monkeypatch.setattr(RegionTask, "batch", interrupted)
    with pytest.raises(Interrupted, match="step 1 of 5"):
        train_regions(task, tmp_path / "run", tmp_path / "weights", training=RegionTraining(steps=5))
    assert not (tmp_path / "weights").exists()
    monkeypatch.setattr(RegionTask, "batch", drawn)
    train_regions(task, tmp_path / "run", tmp_path / "weights", training=RegionTraining(steps=5))
    assert find_weights("regions", weights_dir=tmp_path / "weights").metadata["steps"] == 5


def test_without_anybody_held_out_nothing_is_claimed(folder, tmp_path):
    out = tmp_path / "weights"
    train_regions(RegionTask(folder), tmp_path / "run", out, training=RegionTraining(steps=2))
    assert find_weights("regions", weights_dir=out).metadata["scores"] == {}
