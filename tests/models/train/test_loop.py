"""The loop learns, resumes where it stopped, and reaches what an uninterrupted run reaches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.train.configure import NETWORKS, lattice_of, read_config, schedule_of, spec_of
from hyperprep.models.train.export import export
from hyperprep.models.train.loop import train
from hyperprep.models.train.schedule import Progress, Schedule, learning_rate_at
from hyperprep.models.weights import find_weights, load_state


class Line:
    """Fits y = 2 x; ``stop_at`` imitates a kill by raising."""

    name = "line"

    def __init__(self, stop_at=None):
        self.stop_at, self.seen = stop_at, 0

    def build(self):
        return nn.Linear(1, 1)

    def batch(self, rng):
        self.seen += 1
        if self.stop_at is not None and self.seen > self.stop_at:
            raise KeyboardInterrupt
        return torch.from_numpy(rng.standard_normal((8, 1)).astype(np.float32))

    def loss(self, model, batch):
        return (model(batch) - 2 * batch).square().mean(), {}

    def validate(self, model):
        return {"slope": float(model.weight)}


SCHEDULE = Schedule(steps=150, learning_rate=0.1, warmup_steps=5, average=0.9, checkpoint_seconds=0.0)


def test_learns_and_logs(tmp_path):
    model = train(Line(), SCHEDULE, tmp_path)
    assert float(model.weight) == pytest.approx(2, abs=0.05)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert rows[-1]["val_slope"] == pytest.approx(float(model.weight), abs=1e-4)
    assert rows[0]["loss"] > rows[-2]["loss"]


def test_killed_run_resumes_to_the_same_result(tmp_path):
    whole = train(Line(), SCHEDULE, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=60), SCHEDULE, tmp_path / "cut")
    again = Line()
    resumed = train(again, SCHEDULE, tmp_path / "cut")
    assert again.seen == 90
    assert torch.allclose(whole.weight, resumed.weight)
    assert torch.allclose(whole.bias, resumed.bias)


@pytest.mark.parametrize("kept", [0, 100, None])
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(tmp_path, kept):
    train(Line(), replace(SCHEDULE, steps=3), tmp_path)
    path = tmp_path / "checkpoint.pt"
    if kept is None:
        stored = torch.load(path, weights_only=True)
        torch.save({**stored, "model": {"other": torch.zeros(2)}}, path)
    else:
        path.write_bytes(path.read_bytes()[:kept])
    what = {
        0: "EOFError|Ran out of input",
        100: "zip|archive|PytorchStreamReader",
        None: "Missing key.*weight",
    }
    with pytest.raises(
        UsageError, match=rf"checkpoint\.pt cannot be gone on from \(.*({what[kept]}).*Move it"
    ):
        train(Line(), SCHEDULE, tmp_path)


def test_learning_rate_falls_by_time_as_well_as_by_steps():
    schedule = Schedule(steps=1000, max_seconds=10, learning_rate=1.0, warmup_steps=1)
    assert learning_rate_at(schedule, Progress(step=10, seconds=5)) == pytest.approx(0.505)


@pytest.mark.parametrize("name", [*NETWORKS, "topology-small"])
def test_shipped_configurations_are_complete(name):
    config = read_config(name)
    assert config["network"] == name.split("-")[0]
    model = config["model"]
    channels = model.get("channels", ())
    if isinstance(channels, int):
        halvings = 2 ** (model.get("levels", 4) - 1)
    else:
        levels = len(channels) - 1
        halvings = 16 if levels < 0 else 2**levels * (1 if model.get("atlas") else model.get("stem", 1))
    assert all(side % halvings == 0 for side in lattice_of(config).shape)
    assert spec_of(config).subsamples >= 1
    assert schedule_of(config, max_minutes=2).max_seconds == 120


def test_wrong_configurations_are_named(tmp_path):
    with pytest.raises(UsageError, match="locate"):
        read_config("nothing")
    file = tmp_path / "own.toml"
    file.write_text('network = "segment"\n[images]\nnoize = 1\n')
    with pytest.raises(UsageError, match="noize"):
        spec_of(read_config(file))
    file.write_text('network = "segment"\nstepz = 1\n')
    with pytest.raises(UsageError, match="stepz"):
        read_config(file)


def test_export_writes_verified_weights_with_their_story(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(NoInputError, match="no trained network"):
        export(run, out_dir=tmp_path / "out")
    (run / "config.toml").write_text(
        'network = "segment"\nseed = 4\n'
        "[lattice]\nshape = [16, 16, 16]\nspacing_mm = 2.0\norigin_mm = [0.0, 0.0, 0.0]\n"
        "[model]\nchannels = [4, 4]\nstem = 2\n"
    )
    torch.save({"average": {"w": torch.tensor([0.1, 0.2])}, "step": 7, "seconds": 60.0}, run / "model.pt")
    (run / "curve.jsonl").write_text('{"step": 7, "seconds": 60.0, "val_mean": 0.5}\n')
    export(run, out_dir=tmp_path / "out", scores={"oasis_dice": 0.7})
    entry = find_weights("segment", weights_dir=tmp_path / "out")
    assert entry.metadata["steps"] == 7
    assert entry.metadata["scores"] == {"val_mean": 0.5, "oasis_dice": 0.7}
    assert torch.allclose(load_state(entry)["w"], torch.tensor([0.1, 0.2]), atol=1e-3)
    assert "oasis_dice" in (tmp_path / "out" / "segment.md").read_text()
