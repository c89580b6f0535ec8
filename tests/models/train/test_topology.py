"""The training task of the topology network, from first step to exported weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.topology import TopologyNetwork
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.train.__main__ import main
from hyperprep.models.train.configure import override, read_config
from hyperprep.models.train.export import export
from hyperprep.models.train.loop import train
from hyperprep.models.train.schedule import Schedule
from hyperprep.models.train.topology import TopologyTask
from hyperprep.models.weights import find_weights

LATTICE = Lattice((24, 28, 24), 8.0, (-96.0, -132.0, -78.0))
SPEC = SynthSpec(skull_kept=0, skull_badly_removed=0, random_contrast=0, thick_slices=0, subsamples=1)


@pytest.fixture(scope="module")
def maps() -> LabelMaps:
    """Two made-up heads: balls of white matter in cortex, of different size."""
    axes = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (192, 224, 192)), indexing="ij")
    x, y, z = (a + o for a, o in zip(axes, (-96, -132, -78), strict=True))
    radius = np.sqrt(x**2 + (y + 18) ** 2 + (z - 12) ** 2)
    labels = np.stack([np.where(radius < size - 20, 1, np.where(radius < size, 2, 0)) for size in (60, 66)])
    made = torch.from_numpy(labels.astype(np.uint8))
    return LabelMaps(made, (made > 0).to(torch.uint8), (0, 2, 3, 507))


@pytest.mark.parametrize("dims", [2, 3])
def test_trains_and_keeps_the_running_prior(maps, tmp_path, dims):
    task = TopologyTask(
        maps,
        LATTICE,
        SPEC,
        dims=dims,
        channels=(4, 6),
        norm="instance",
        features="image",
        held_out=0,
        slices=3,
    )
    model = train(task, Schedule(steps=3, log_every=1, warmup_steps=1), tmp_path)
    assert isinstance(model, TopologyNetwork)
    assert torch.isfinite(model.running).all()
    assert float(model.running.abs().min()) > 0, "the averaged network must have the trained one's prior"
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(first["average"]["running"], first["model"]["running"])
    figures = task.validate(model)
    assert {"misfit", "divergence", "alpha", "ncc", "ncc_before"} <= set(figures)
    assert all(np.isfinite(value) for value in figures.values())


def test_both_directions_of_a_pair_are_in_a_batch(maps):
    task = TopologyTask(maps, LATTICE, SPEC, channels=(4,), features="image", held_out=0, pairs=2)
    fixed, moving, start = task.batch(np.random.default_rng(0))
    assert start is None
    assert torch.equal(fixed[0], moving[1])
    assert torch.equal(fixed[3], moving[2])
    assert not torch.equal(fixed[0], fixed[2])


def test_features_begin_at_the_variance_between_brains(maps):
    task = TopologyTask(maps, LATTICE, SPEC, channels=(4,), features="image", held_out=0)
    model = task.build()
    fixed, moving, _ = task.batch(np.random.default_rng(0))
    square = (fixed - moving).square()[(fixed > 0) | (moving > 0)].mean()
    assert float(model.feature_log_variance.exp()) == pytest.approx(float(square), rel=1e-4)


def test_impossible_settings_are_named(maps):
    with pytest.raises(UsageError, match="'colours'"):
        TopologyTask(maps, LATTICE, SPEC, features="colours")
    with pytest.raises(UsageError, match="slices"):
        TopologyTask(maps, LATTICE, SPEC, dims=2, start="registration")


def test_a_setting_changes_a_configuration():
    config = override(read_config("topology"), ["model.features=image", "model.dims=2", "seed=9"])
    assert config["model"]["features"] == "image"
    assert config["model"]["dims"] == 2
    assert config["seed"] == 9
    assert read_config("topology")["model"]["dims"] == 3
    for wrong in ("model", "nothing=1", "model=3", "colour.red=1"):
        with pytest.raises(UsageError, match="KEY=VALUE"):
            override(read_config("topology"), [wrong])


def test_from_the_command_line_to_weights(maps, tmp_path):
    file = tmp_path / "maps.npz"
    np.savez(
        file,
        maps=maps.maps.repeat(2, 1, 1, 1).numpy(),
        brain=np.packbits(maps.brain.repeat(2, 1, 1, 1).numpy(), axis=-1),
        numbers=np.array(maps.numbers),
    )
    sets = [
        "lattice.shape=[24, 28, 24]", "lattice.spacing_mm=8.0", "lattice.origin_mm=[-96.0, -132.0, -78.0]",
        "steps=20", "model.channels=[4, 6]", "model.norm=instance", "model.features=image", "model.pairs=1",
    ]  # fmt: skip
    words = [word for one in sets for word in ("--set", one)]
    run = ["run", "topology", "--maps", str(file), "--run-dir", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*run, *words]) == 0
    export(tmp_path / "run", out_dir=tmp_path / "out")
    entry = find_weights("topology", weights_dir=tmp_path / "out")
    assert entry.metadata["network"]["features"] is None
    assert entry.metadata["network"]["start"] == "none"
    network = load_network(entry)
    assert isinstance(network, TopologyNetwork)
    assert float(network.alpha) > 0
    assert "nats per voxel" in (tmp_path / "out" / "topology.md").read_text()
