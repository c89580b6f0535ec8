"""Label maps deformed into their mean shape."""

import numpy as np
import pytest
import torch

from hyperprep.exceptions import NoInputError
from hyperprep.models.synth.maps import load_maps
from hyperprep.models.train.normalise import normalise


def ellipsoid(axes: tuple[float, float, float]) -> np.ndarray:
    """Distance from the middle of a (64, 64, 64) grid in units of an ellipsoid's half axes."""
    places = np.stack(np.meshgrid(*[np.arange(64) - 31.5] * 3, indexing="ij"), -1)
    return np.linalg.norm(places / axes, axis=-1)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Three heads of differing shape that train, one held out: cortex, white matter and ventricle."""
    maps = np.zeros((4, 64, 64, 64), np.uint8)
    for one, axes in zip(maps, ((25, 22, 23), (21, 25, 23), (23, 23, 26), (25, 24, 21)), strict=True):
        distance = ellipsoid(axes)
        for label, size in ((2, 1.0), (1, 0.75), (3, 0.35)):
            one[distance < size] = label
    file = tmp_path_factory.mktemp("maps") / "maps.npz"
    np.savez(
        file,
        maps=maps,
        brain=np.packbits((maps > 0).astype(np.uint8), axis=-1),
        numbers=np.array([0, 2, 3, 4]),
        affines=np.tile(np.eye(4), (4, 1, 1)),
    )
    normalise(file, file.with_name("normal.npz"), held_out=1)
    return load_maps(file), load_maps(file.with_name("normal.npz"))


def agreement(maps: torch.Tensor, with_first: int) -> float:
    """Mean Dice of the three labels between a head and the first."""
    scores = [
        2
        * ((maps[0] == n) & (maps[with_first] == n)).sum()
        / ((maps[0] == n).sum() + (maps[with_first] == n).sum())
        for n in (1, 2, 3)
    ]
    return float(np.mean(scores))


@pytest.mark.parametrize("other", [1, 2, 3])
def test_heads_agree_in_their_mean_shape_held_out_ones_too(heads, other):
    before, after = heads
    assert 1 - agreement(after.maps, other) < 0.7 * (1 - agreement(before.maps, other))
    assert torch.equal(after.maps > 0, after.brain > 0)


def test_mean_shape_is_that_of_no_single_head(heads):
    before, after = heads
    volumes = [float((maps > 0).sum()) for maps in before.maps[:3]]
    found = [float((maps > 0).sum()) for maps in after.maps[:3]]
    assert min(volumes) * 0.97 < np.mean(found) < max(volumes) * 1.03
    assert np.ptp(found) < 0.02 * np.mean(found)


def test_missing_maps_are_named(tmp_path):
    with pytest.raises(NoInputError, match="prepare"):
        normalise(tmp_path / "maps.npz", tmp_path / "out.npz")
