"""Hyperparameters: what is drawn, what is described in the weights, what a user may give."""

import numpy as np
import pytest

from hyperprep.exceptions import UsageError, WeightsError
from hyperprep.models.nets.hyperparameters import (
    Hyperparameter,
    fixed_values,
    hyperparameters_of,
    read_hyperparameters,
)


def test_lambda_is_uniform_with_a_fifth_at_the_ends():
    rng = np.random.default_rng(0)
    drawn = np.array([Hyperparameter("lambda").draw(rng) for _ in range(5000)])
    ends = np.isin(drawn, (0.0, 1.0))
    assert ends.mean() == pytest.approx(0.2, abs=0.02)
    assert drawn[ends].mean() == pytest.approx(0.5, abs=0.05)
    counts, _ = np.histogram(drawn[~ends], bins=5, range=(0, 1))
    assert counts.min() > 0.85 * counts.mean()


def test_the_window_is_drawn_from_its_values_alone_each_as_often():
    window = hyperparameters_of(["lambda", "w"], windows=(3, 5, 9))[1]
    rng = np.random.default_rng(0)
    drawn = [window.unscaled(window.draw(rng)) for _ in range(3000)]
    assert {value: round(drawn.count(value) / 3000, 1) for value in set(drawn)} == {3: 0.3, 5: 0.3, 9: 0.3}
    assert [round(window.scaled(value), 3) for value in (3, 5, 9)] == [0.0, 0.333, 1.0]


@pytest.mark.parametrize(
    "names", [["lambda"], ["lambda", "gamma"], ["lambda", "w"], ["lambda", "gamma", "w"]]
)
def test_what_weights_describe_is_read_back(names):
    made = hyperparameters_of(names, windows=(3, 7), defaults={"lambda": 0.2})
    entry = {"network": {"n_hyper": len(names)}, "hyperparameters": [one.described() for one in made]}
    assert read_hyperparameters(entry) == made


def test_older_weights_have_lambda_alone():
    assert [one.name for one in read_hyperparameters({"network": {"n_hyper": 1}})] == ["lambda"]


@pytest.mark.parametrize("names", [["gamma"], ["gamma", "lambda"]])
def test_weights_that_do_not_say_what_their_network_takes_are_refused(names):
    entry = {"network": {"n_hyper": 2}, "hyperparameters": [{"name": name} for name in names]}
    with pytest.raises(WeightsError, match="lambda must be the first"):
        read_hyperparameters(entry)


def test_values_are_given_or_the_default_and_never_ignored():
    known = hyperparameters_of(["lambda", "gamma", "w"], defaults={"gamma": 0.6})
    assert fixed_values(known, None) == {"gamma": 0.6, "w": 5}
    assert fixed_values(known, {"gamma": 0.1, "w": 4}) == {"gamma": 0.1, "w": 4}
    with pytest.raises(UsageError, match=r"w must lie in \[3, 9\], not 11"):
        fixed_values(known, {"w": 11})
    with pytest.raises(UsageError, match="no hyperparameter gamma"):
        fixed_values(known[:1], {"gamma": 0.1})
    with pytest.raises(UsageError, match="no hyperparameter lambda"):
        fixed_values(known, {"lambda": 0.1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["gamma", "lambda"]}, "lambda first"),
        ({"names": ["lambda", "bins"]}, "lambda first"),
        ({"names": ["lambda", "w"], "windows": (3, 4)}, "odd"),
        ({"names": ["lambda", "w"], "windows": (5, 3)}, "rising"),
        ({"names": ["lambda"], "defaults": {"gamma": 0.2}}, "gamma"),
        ({"names": ["lambda", "gamma"], "defaults": {"gamma": 2.0}}, "gamma must lie"),
    ],
)
def test_wrong_sets_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        hyperparameters_of(**arguments)
