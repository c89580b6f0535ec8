"""Processes that train together reach what one process reaches with as many batches per step."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hyperprep.exceptions import DeviceError, UsageError
from hyperprep.models.predict.device import device_of_process
from hyperprep.models.train.loop import train
from hyperprep.models.train.processes import Processes, launched_processes
from hyperprep.models.train.schedule import Schedule

CONFIG = """
network = "locate"
seed = 5
steps = 40
learning_rate = 3e-3
[lattice]
shape = [12, 16, 12]
spacing_mm = 16.0
origin_mm = [-96.0, -132.0, -78.0]
[model]
channels = [4, 6]
stem = 2
[images]
subsamples = 1
"""


def write_maps(path):
    """Balls of brain whose left half is 2 and right half 41, of several sizes, in shells of 507."""
    axes = np.meshgrid(*(np.arange(n) for n in (192, 224, 192)), indexing="ij")
    x, y, z = (a + o for a, o in zip(axes, (-96, -132, -78), strict=True))
    radius = np.sqrt(x**2 + (y + 18) ** 2 + (z - 12) ** 2)
    sizes = (50, 54, 58, 62)
    maps = [np.where(radius < r, np.where(x < 0, 1, 2), np.where(radius < r + 15, 3, 0)) for r in sizes]
    brain = np.packbits(np.stack([radius < r for r in sizes]), axis=-1)
    np.savez(path, maps=np.stack(maps).astype(np.uint8), brain=brain, numbers=np.array([0, 2, 41, 507]))


def curve(folder):
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


class Pair(Processes):
    """Two processes of which the other has twice of everything."""

    def sum_(self, tensors):
        for tensor in tensors:
            tensor.mul_(3)


def test_buffers_that_a_step_moved_are_averaged_and_no_others():
    model = torch.nn.BatchNorm1d(2)
    model.register_buffer("still", torch.ones(2))
    before = [one.clone() for one in model.buffers()]
    model(torch.rand(4, 2) + 5)
    mean = model.running_mean.clone()
    Pair(0, 2).average_moved(model, before)
    assert torch.allclose(model.running_mean, 1.5 * mean)
    assert torch.equal(model.still, torch.ones(2))
    assert int(model.num_batches_tracked) == 1


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_with_two_batches(tmp_path, repository):
    write_maps(tmp_path / "maps.npz")
    (tmp_path / "tiny.toml").write_text(CONFIG)
    environ = {**os.environ, "PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"}

    def run(name, *launcher, options=()):
        words = ["-m", "hyperprep.models.train", "run", str(tmp_path / "tiny.toml")]
        words += ["--maps", str(tmp_path / "maps.npz"), "--run-dir", str(tmp_path / name)]
        words += ["--device", "cpu", "--threads", "1", *options]
        command = [sys.executable, *launcher, *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = run("two", *torchrun)
    run("one", options=["--batches", "2"])
    two, one = (curve(tmp_path / name) for name in ("two", "one"))
    print(two, one)
    assert [step for step, _ in two] == [20, 40]
    assert np.allclose(two, one, atol=2e-4)
    assert two[1][1] < two[0][1]
    weights = [
        torch.load(tmp_path / name / "model.pt", weights_only=True)["average"] for name in ("two", "one")
    ]
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(*(w.values() for w in weights), strict=True))
    assert said.count("locate: step 40") <= 2  # one process speaks: the last curve and the validation


class Line:
    """Fits y = 2 x and notes the data it was given."""

    name = "line"

    def __init__(self):
        self.seen = []

    def build(self):
        return torch.nn.Linear(1, 1)

    def batch(self, rng):
        self.seen.append(rng.standard_normal((8, 1)).astype(np.float32))
        return torch.from_numpy(self.seen[-1])

    def loss(self, model, batch):
        return (model(batch) - 2 * batch).square().mean(), {}

    def validate(self, model):
        return {"slope": float(model.weight)}


def test_batches_of_a_step_differ_and_the_first_is_that_of_a_lone_batch(tmp_path):
    alone, three = Line(), Line()
    train(alone, Schedule(steps=2), tmp_path / "alone")
    train(three, Schedule(steps=2, batches_per_step=3), tmp_path / "three")
    assert len(three.seen) == 6
    assert np.array_equal(alone.seen[1], three.seen[3])
    assert len({batch.tobytes() for batch in three.seen}) == 6


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(UsageError, match="3 batches per step cannot be shared by 2 processes"):
        Processes(rank=1, count=2).share(3)


def test_a_lone_process_needs_no_launcher():
    assert launched_processes({}) == Processes(0, 1, 0)
    tensor = torch.ones(2)
    Processes().sum_([tensor])
    assert tensor.tolist() == [1, 1]


def test_every_process_has_a_gpu_of_its_own():
    with pytest.raises(DeviceError, match="each has its own"):
        device_of_process("cuda:0", 1)
