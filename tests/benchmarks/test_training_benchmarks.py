"""The comparisons of networks in training: what they compare is what they say, and they resume."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import hypernetwork, primary_networks
from benchmarks.heldout import HeldOut, finer, lattice_of, measure, synthetic_pairs
from benchmarks.integrative import STRATEGIES, HyperVolume, integrative_network
from hyperprep.models.nets.hypermorph import primary_network
from hyperprep.models.nets.registration_unet import RegistrationUNet
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps


@pytest.fixture(scope="module")
def few_maps() -> LabelMaps:
    """Four heads: nested boxes of white matter, cortex and ventricle."""
    maps = torch.zeros(4, 192, 224, 192, dtype=torch.uint8)
    for one in range(4):
        for label, margin in ((2, 30 - one), (1, 45 + one), (3, 70 - one)):
            maps[one, margin : 192 - margin, margin : 224 - margin, margin : 192 - margin] = label
    return LabelMaps(maps, (maps > 0).to(torch.uint8), (0, 2, 3, 4, 500))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    ("primary", "options"), [("unet", {"width": 4}), ("unrolled", {"channels": 4, "steps": (1, 2)})]
)
def test_integrative_networks_obey_the_hyperparameter_and_teach_every_weight(
    name: str, primary: str, options: dict
) -> None:
    torch.manual_seed(0)
    network = integrative_network(name, primary, **options)
    if isinstance(network, RegistrationUNet):
        torch.nn.init.normal_(network.flow.weight, std=0.1)
    fixed, moving = torch.rand(2, 1, 1, 32, 16, 48).unbind(0)
    low, high = (network(fixed, moving, torch.tensor([value])) for value in (0.1, 0.9))
    assert low.shape == (1, 3, 16, 8, 24)
    assert not torch.allclose(low, high)
    low.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_integrative_networks_add_what_the_paper_says() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    auxiliary = count(HyperVolume(1))
    assert auxiliary == (27 * 32 + 32) + 5 * (27 * 32 * 32 + 32)  # six convolutions of 32 channels
    assert count(integrative_network("pre-integrative", "unet")) == 313_507 + auxiliary + 27 * 32 * 16
    assert count(integrative_network("post-integrative", "unet")) == 313_507 + auxiliary + 27 * 32 * 32
    channels = 16 + 3 * 32 + 4 * 32 + 32 + 16 + 16 + 3
    dense = (256 + 256) + 4 * (256 * 256 + 256) + 256 * channels + channels
    assert count(integrative_network("full-integrative", "unet")) == 313_507 + dense


@pytest.mark.parametrize(
    ("primary", "options"), [("unet", {"width": 4}), ("unrolled", {"channels": 4, "steps": (1, 2)})]
)
def test_the_full_integrative_network_without_its_values_is_the_plain_one(
    primary: str, options: dict
) -> None:
    torch.manual_seed(0)
    network = integrative_network("full-integrative", primary, **options)
    plain = primary_network(primary, **options)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("auxiliary")})
    for name in ("weight", "bias"):
        torch.nn.init.zeros_(getattr(network.auxiliary.layers[-1], name))
    fixed, moving = torch.rand(2, 1, 1, 16, 32, 16).unbind(0)
    assert plain(fixed, moving).abs().max() > 0
    assert torch.allclose(network(fixed, moving, torch.tensor([0.4])), plain(fixed, moving))


def test_finer_lattice_covers_the_same_field() -> None:
    coarse = lattice_of(8.0)
    fine = finer(coarse, 2.0)
    assert fine.extent_mm == coarse.extent_mm
    assert np.allclose(np.array(coarse.origin) - 4, np.array(fine.origin) - 1)


def test_measure_rewards_the_deformation_that_was_made() -> None:
    labels = np.zeros((32, 32, 32), int)
    labels[8:20, 8:20, 8:20] = 1
    moved = np.roll(labels, 4, axis=0)  # 4 fine voxels are 1 coarse voxel of the velocity
    image = torch.zeros(1, 1, 16, 16, 16)
    pair = HeldOut("shift", image, image, labels, torch.from_numpy(moved))
    wanted = torch.zeros(1, 3, 8, 8, 8)
    wanted[:, 0] = 1
    assert measure(None, [pair])["dice"] == pytest.approx(8 / 12, abs=1e-4)
    found = measure(lambda fixed, moving: wanted, [pair])
    assert found == {"dice": 1.0, "folding": 0.0, "sd_jacobian": 0.0}


def test_held_out_pairs_show_the_labels_that_they_are_measured_by(few_maps: LabelMaps) -> None:
    task = hypernetwork.StrategyTask(
        few_maps, lattice_of(8.0), SynthSpec(skull_kept=0.0, skull_badly_removed=0.0, subsamples=1)
    )
    first, again = synthetic_pairs(task, 2), synthetic_pairs(task, 2)
    assert all(torch.equal(a.fixed, b.fixed) for a, b in zip(first, again, strict=True))
    for pair in first:
        inside = torch.nn.functional.avg_pool3d((pair.moving_labels > 0).float()[None, None], 4)
        assert pair.fixed.shape == pair.moving.shape == inside.shape == (1, 1, 32, 32, 32)
        assert (pair.moving[inside > 0.99] > 0).float().mean() > 0.95
        assert (pair.moving[inside < 0.01] > 0).float().mean() < 0.05


def _run(module: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    module.main()  # type: ignore[attr-defined]


def test_finished_runs_are_not_run_again(
    few_maps: LabelMaps, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hypernetwork, "load_maps", lambda path: few_maps)
    arguments = ["--maps", "-", "--work", str(tmp_path), "--spacing", "8", "--channels", "1", "--steps", "1"]
    arguments += [
        "--pairs",
        "1",
        "--threads",
        "1",
        "--lambdas",
        "0.2",
        "0.7",
        "--out",
        str(tmp_path / "t.md"),
    ]
    _run(hypernetwork, monkeypatch, *arguments, "--seeds", "1")
    results = next(tmp_path.glob("*/results.jsonl"))
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["run"] for row in rows] == ["affine"] + [
        run.name for run in hypernetwork.runs_of([0.2, 0.7], 1, STRATEGIES)
    ]
    assert list(rows[1]["by_lambda"]) == ["0.2", "0.7"]
    with results.open("a") as stream:
        stream.write('{"run": "cut sho')
    (results.parent / "hypernetwork_seed0" / "model.pt").unlink()
    trainings: list[str] = []
    monkeypatch.setattr(hypernetwork, "train", lambda *a: trainings.append(a[2].name))
    _run(hypernetwork, monkeypatch, *arguments, "--seeds", "1")
    assert trainings == []
    table = (tmp_path / "t.md").read_text()
    assert "| 0.7 |" in table
    missing = [run.name for run in hypernetwork.runs_of([0.2, 0.7], 1, STRATEGIES)]
    other = argparse.Namespace(pairs=2, seeds=1, lambdas=[0.2, 0.7], data=None)
    assert not any(hypernetwork._answers(row, other) for row in rows)
    other = argparse.Namespace(pairs=1, seeds=1, lambdas=[0.2, 0.9], data=None)
    kept = {row["run"] for row in rows if hypernetwork._answers(row, other)}
    assert kept == {"affine", "fixed-lambda-0.2_seed0"} < {"affine", *missing}
    assert "full-integrative - fixed" in table


def test_table_compares_like_with_like() -> None:
    def row(strategy: str, seed: int, seconds: float, scores: dict[str, float]) -> dict:
        figures = {k: {"dice": v, "folding": 0.0, "sd_jacobian": 0.1} for k, v in scores.items()}
        return {"strategy": strategy, "seed": seed, "seconds": seconds, "by_lambda": figures}

    rows = [{"strategy": "affine", "by_lambda": {"": {"dice": 0.4}}}]
    for seed, shift in ((0, -0.02), (1, 0.02)):
        rows.append(row("hypernetwork", seed, 11.0, {"0.1": 0.60 + shift / 2, "0.5": 0.70 + shift / 2}))
        rows.append(row("fixed lambda", seed, 10.0, {"0.1": 0.61 + shift}))
        rows.append(row("fixed lambda", seed, 12.0, {"0.5": 0.72 + shift}))
    lines = hypernetwork.table(rows, [0.1, 0.5]).splitlines()
    assert lines[2].startswith("| 0.1 | 61.00 (2.83) | 60.00 (1.41) | -1.00 |")
    assert lines[4].startswith("| peak | 72.00 | 70.00 | -2.00 |")
    assert "ratio 2.00" in lines[-1]
    assert "took 2.00 times" in lines[-1]
    assert "Mean |difference| 1.50" in lines[-1]


def test_primary_networks_are_measured_along_the_way_and_not_twice(
    few_maps: LabelMaps, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primary_networks, "load_maps", lambda path: few_maps)
    arguments = ["--maps", "-", "--work", str(tmp_path), "--spacing", "8", "--pairs", "1", "--threads", "1"]
    arguments += ["--minutes", "0.02", "--looks", "2", "--networks", "siamese", "--lambdas", "0.3"]
    _run(primary_networks, monkeypatch, *arguments, "--out", str(tmp_path / "t.md"))
    curve = next(tmp_path.glob("*/siamese/curve.jsonl"))
    before = curve.read_text()
    assert any("val_synthetic_dice" in json.loads(line) for line in before.splitlines())
    assert "| siamese |" in (tmp_path / "t.md").read_text()
    _run(primary_networks, monkeypatch, *arguments)
    assert curve.read_text() == before
