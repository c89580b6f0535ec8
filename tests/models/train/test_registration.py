"""The registration task: its loss is the papers', its hyperparameters reach it, wrong sets are refused."""

import numpy as np
import pytest
import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.losses.regularity import gradient_energy
from hyperprep.models.losses.similarity import local_ncc, similarity_loss
from hyperprep.models.nn.warp import integrate, resize, warp
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.train.configure import read_config, task_of
from hyperprep.models.train.registration import RegistrationTask

LATTICE = Lattice((16, 20, 24), 10.0, (-80.0, -110.0, -90.0))
TINY = {"primary": "unrolled", "options": {"channels": 2, "steps": [1, 1], "window": 3}}


def task_with(maps, **options):
    return RegistrationTask(maps, LATTICE, SynthSpec(skull_kept=0.0, subsamples=1), **TINY, **options)


class _Constant:
    """A network that always gives one velocity."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.velocity = 0.4 * torch.randn(1, 3, 8, 10, 12)

    def __call__(self, fixed, moving, hyper):
        return self.velocity


def terms(batch, velocity):
    fixed, fixed_labels, moving, moving_labels, _ = batch
    displacement = integrate(velocity, steps=5)
    moved = warp(moving, resize(displacement, fixed.shape[2:], factor=2))
    return fixed, moved, 1 - soft_dice(warp(moving_labels, displacement), fixed_labels).mean()


@pytest.mark.parametrize("similarity", ["ncc", "mse", "mi"])
def test_loss_with_gamma_is_equation_5(few_maps, similarity):
    task = task_with(
        few_maps, hyperparameters=("lambda", "gamma"), similarity=similarity, seg_weight=0.0, window=3
    )
    model, (*pair, _) = _Constant(), task.batch(np.random.default_rng(0))
    for lam, gamma in ((0.0, 0.0), (0.3, 0.6), (1.0, 0.25)):
        batch = (*pair, torch.tensor([lam, gamma]))
        fixed, moved, apart = terms(batch, model.velocity)
        fit = similarity_loss(similarity, fixed, moved, window=3, mask=(fixed > 0).float())
        wanted = (1 - lam) * (1 - gamma) * fit + lam * gradient_energy(model.velocity) + gamma * apart
        assert task.loss(model, batch)[0].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_loss_with_lambda_alone_is_equation_3_and_labels_may_count_within_the_similarity(few_maps):
    model, lam = _Constant(), 0.4
    plain, guided = task_with(few_maps, seg_weight=0.0), task_with(few_maps, seg_weight=0.5)
    (*pair, _) = plain.batch(np.random.default_rng(0))
    batch = (*pair, torch.tensor([lam]))
    fixed, moved, apart = terms(batch, model.velocity)
    fit = 1 - local_ncc(fixed, moved, window=5, mask=(fixed > 0).float())
    wanted = (1 - lam) * fit + lam * gradient_energy(model.velocity)
    assert plain.loss(model, batch)[0].item() == pytest.approx(wanted.item(), rel=1e-5)
    more = guided.loss(model, batch)[0] - plain.loss(model, batch)[0]
    assert more.item() == pytest.approx((1 - lam) * 0.5 * apart.item(), rel=1e-3)


def test_the_window_that_was_drawn_is_the_window_of_the_loss(few_maps):
    task = task_with(few_maps, hyperparameters=("lambda", "w"), windows=(3, 5, 9), seg_weight=0.0)
    model, (*pair, _) = _Constant(), task.batch(np.random.default_rng(0))
    for window, share in ((3, 0.0), (5, 1 / 3), (9, 1.0)):
        batch = (*pair, torch.tensor([0.0, share]))
        fixed, moved, _ = terms(batch, model.velocity)
        wanted = 1 - local_ncc(fixed, moved, window=window, mask=(fixed > 0).float())
        assert task.loss(model, batch)[0].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("names", [("lambda",), ("lambda", "gamma"), ("lambda", "w")])
def test_each_set_draws_trains_and_validates(few_maps, names):
    task = task_with(few_maps, hyperparameters=names, seg_weight=0.0, window=3)
    model = task.build()
    batches = [task.batch(np.random.default_rng(seed))[-1] for seed in range(2)]
    assert all(hyper.shape == (len(names),) for hyper in batches)
    assert not torch.equal(*batches)
    loss, figures = task.loss(model, task.batch(np.random.default_rng(0)))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert figures["dice"] > 0
    found = task.validate(model)
    assert {key.split("_")[0] for key in found} == {"dice", "ncc", "energy", "folding"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "ssd"}, "similarity = 'ssd'"),
        ({"hyperparameters": ("lambda", "w"), "similarity": "mi"}, "window of the local correlation"),
        ({"hyperparameters": ("lambda", "gamma"), "seg_weight": 0.5}, "twice"),
        ({"hyperparameters": ("gamma",)}, "lambda first"),
    ],
)
def test_wrong_settings_are_refused_before_training(few_maps, options, message):
    with pytest.raises(UsageError, match=message):
        task_with(few_maps, **options)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hypermorph", ["lambda"]),
        ("hypermorph_gamma", ["lambda", "gamma"]),
        ("hypermorph_window", ["lambda", "w"]),
    ],
)
def test_configurations_that_ship_make_their_task(few_maps, name, wanted):
    task = task_of(read_config(name), few_maps, "cpu")
    assert isinstance(task, RegistrationTask)
    assert [one.name for one in task.hyper] == wanted


def test_unknown_settings_of_a_network_are_named(few_maps):
    config = read_config("hypermorph")
    config["model"]["n_hyper"] = 1
    with pytest.raises(UsageError, match="n_hyper"):
        task_of(config, few_maps, "cpu")
