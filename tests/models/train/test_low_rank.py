"""The factorised last layer: as exact as it says, and loaded as any other weights are."""

import json

import nibabel as nb
import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.hypermorph import HyperMorph, primary_network
from hyperprep.models.predict.register import register
from hyperprep.models.train.export import export
from hyperprep.models.train.low_rank import factorise, hyper_grid
from hyperprep.models.weights import find_weights

OPTIONS = {"channels": 2, "steps": [1, 1], "window": 3}


def tiny(n_hyper: int = 1) -> HyperMorph:
    torch.manual_seed(0)
    network = HyperMorph(primary_network("unrolled", **OPTIONS), n_hyper)
    for output in network.hyper.hypernetwork.outputs:
        torch.nn.init.normal_(output.weight, std=0.02)
    return network


def relative_errors(whole: HyperMorph, stored: torch.nn.Module, hyper: torch.Tensor) -> np.ndarray:
    """Norm of the error per setting and tensor, over the tensor's root mean square norm."""
    wanted = [whole.hyper.hypernetwork(row) for row in hyper]
    made = [stored.hyper.hypernetwork(row) for row in hyper]
    columns = []
    for name in wanted[0]:
        size = torch.stack([one[name].norm() for one in wanted]).square().mean().sqrt()
        apart = [(a[name] - b[name]).norm() for a, b in zip(wanted, made, strict=True)]
        columns.append(torch.stack(apart) / size)
    return torch.stack(columns, 1).detach().numpy()


@pytest.fixture(params=[1, 2])
def run(request, tmp_path):
    """A finished run of a tiny network with one or two hyperparameters."""
    folder = tmp_path / "run"
    folder.mkdir()
    names = ["lambda", "gamma"][: request.param]
    (folder / "config.toml").write_text(
        'network = "hypermorph"\n[lattice]\nshape = [16, 20, 16]\nspacing_mm = 8.0\n'
        "origin_mm = [-64.0, -80.0, -64.0]\n"
        f'[model]\nprimary = "unrolled"\nhyperparameters = {json.dumps(names)}\n'
        "options = { channels = 2, steps = [1, 1], window = 3 }\n"
    )
    network = tiny(request.param)
    torch.save({"average": network.state_dict(), "step": 7, "seconds": 60.0}, folder / "model.pt")
    (folder / "curve.jsonl").write_text('{"step": 7, "val_dice": 0.5}\n')
    return folder, network, request.param


def test_error_in_the_manifest_is_the_error_of_what_is_loaded(run, tmp_path):
    folder, network, n_hyper = run
    export(folder, out_dir=tmp_path / "out", rank=4)
    entry = find_weights("hypermorph", weights_dir=tmp_path / "out")
    stored = load_network(entry)
    said = entry.metadata["low_rank"]
    assert said["rank"] == entry.metadata["network"]["rank"] == 4
    found = relative_errors(network, stored, hyper_grid(n_hyper, {1: 201, 2: 41}[n_hyper]))
    assert len(found) == said["points"]
    assert found.max() == pytest.approx(said["max_relative_error"], rel=0.02)
    assert found.mean() == pytest.approx(said["mean_relative_error"], rel=0.02)
    assert 0 < said["half_precision_error"] < said["max_relative_error"] < 0.2
    assert said["parameters"] < said["full_parameters"] / 4
    assert entry.metadata["bytes"] < 2.5 * said["parameters"] + 10_000
    assert "factorised" in (tmp_path / "out" / "hypermorph.md").read_text()


def test_the_rank_is_the_smallest_that_keeps_the_error(run, tmp_path):
    folder, network, n_hyper = run
    export(folder, out_dir=tmp_path / "out", max_error=0.01)
    said = find_weights("hypermorph", weights_dir=tmp_path / "out").metadata["low_rank"]
    assert said["max_relative_error"] <= 0.01
    _, one_less = factorise(network.hyper.hypernetwork, n_hyper, rank=said["rank"] - 1)
    assert one_less.max_relative_error > 0.01


def test_more_rank_means_less_error_down_to_that_of_half_precision():
    network = tiny().hyper.hypernetwork
    found = [factorise(network, 1, rank=rank)[1].max_relative_error for rank in (1, 2, 4, 8, 32)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 2 * factorise(network, 1, rank=32)[1].half_precision_error
    assert found[0] > 20 * found[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "within 1 and 128"),
        ({"max_error": 1e-7}, "half precision"),
        ({"rank": 1, "max_error": 1e-3}, "Rank 1"),
    ],
)
def test_impossible_factorisations_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        factorise(tiny().hyper.hypernetwork, 1, **options)


def test_only_hypernetworks_are_factorised(tmp_path):
    (tmp_path / "config.toml").write_text(
        'network = "segment"\n[lattice]\nshape = [16, 16, 16]\nspacing_mm = 2.0\n'
        "origin_mm = [0.0, 0.0, 0.0]\n[model]\nchannels = [4, 4]\nstem = 2\n"
    )
    torch.save({"average": {}, "step": 1, "seconds": 1.0}, tmp_path / "model.pt")
    (tmp_path / "curve.jsonl").write_text("")
    with pytest.raises(UsageError, match="'segment' has none"):
        export(tmp_path, out_dir=tmp_path / "out", rank=2)


@pytest.mark.parametrize("rank", [None, 6])
def test_registration_takes_weights_with_any_hyperparameters(run, tmp_path, rank):
    folder, _, n_hyper = run
    export(folder, out_dir=tmp_path / "out", rank=rank)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = [-64, -80, -64]
    rng = np.random.default_rng(0)
    images = [nb.Nifti1Image(rng.random((16, 20, 16), np.float32) + 1, affine) for _ in range(2)]

    def displacement(**options):
        found = register(
            *images, fixed2moving=np.eye(4), lam=0.5, refine="none", weights_dir=tmp_path / "out", **options
        )
        return found.forward.data, found.metrics

    default, figures = displacement()
    if n_hyper == 1:
        assert "gamma" not in figures
        with pytest.raises(UsageError, match="no hyperparameter gamma"):
            displacement(hyperparameters={"gamma": 0.5})
        return
    assert figures["gamma"] == 0.3
    assert np.array_equal(displacement(hyperparameters={"gamma": 0.3})[0], default)
    other, figures = displacement(hyperparameters={"gamma": 0.9})
    assert figures["gamma"] == 0.9
    assert np.abs(other - default).max() > 1e-3
    with pytest.raises(UsageError, match="gamma must lie"):
        displacement(hyperparameters={"gamma": 1.5})
