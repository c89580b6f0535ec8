"""The search for lambda against curves whose maximum is known."""

import pytest

from hyperprep.models.predict.tune import search_lambda


@pytest.mark.parametrize("peak", [0.0, 0.07, 0.31, 0.5, 0.83, 1.0])
def test_finds_the_peak_within_a_few_evaluations(peak):
    found = search_lambda(lambda lam: -(abs(lam - peak) ** 1.5))
    assert abs(found.best - peak) < 0.04
    assert len(found.scores) <= 12
    assert list(found.scores) == sorted(found.scores)
    assert found.scores[found.best] == max(found.scores.values())
