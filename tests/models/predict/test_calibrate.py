"""Calibration on synthetic heads; the network is replaced by one whose temperature is known."""

import json
import shutil
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

from hyperprep.models.predict import calibrate as module
from hyperprep.models.predict.labelling import Labelling
from hyperprep.models.predict.reliability import sharpened
from hyperprep.models.spatial.labels import LEAVES
from hyperprep.models.weights import find_weights
from hyperprep.models.weights.resolver import package_dir, read_manifest

TRUE = 1.8
SHAPE = (7, 8, 9)


@pytest.fixture
def pretended(monkeypatch):
    """Heads of random labels, and probabilities that claim as much as logits at temperature 1 do."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (*SHAPE, len(LEAVES)))
    calibrated = np.exp(sharpened(logits.reshape(-1, len(LEAVES)), TRUE))
    numbers = np.array([leaf.index for leaf in LEAVES], np.int16)

    def heads(_maps, count, *, seed, spec=None):
        for number in range(count):
            own = np.random.default_rng([seed, number])
            drawn = (calibrated.cumsum(1) < own.uniform(size=(len(calibrated), 1))).sum(1)
            truth = numbers[np.minimum(drawn, len(LEAVES) - 1)].reshape(SHAPE)
            yield module.Head(nb.Nifti1Image(np.zeros(SHAPE), np.eye(4)), truth, "T1w")

    def segment(_scan, **_):
        soft = np.exp(sharpened(logits.reshape(-1, len(LEAVES)), 1.0)).reshape(*SHAPE, -1)
        maps = {
            leaf.name: nb.Nifti1Image(soft[..., i].astype(np.float32), np.eye(4))
            for i, leaf in enumerate(LEAVES)
        }
        return SimpleNamespace(probsegs=maps, mask=nb.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)))

    monkeypatch.setattr(module, "heads", heads)
    monkeypatch.setattr(module, "segment", segment)


def test_the_temperature_is_found_and_measured_on_other_heads(pretended, few_maps, tmp_path):
    for name in ("segment.safetensors", "manifest.json"):
        shutil.copy(package_dir() / name, tmp_path)
    manifest = read_manifest(tmp_path)
    manifest = {"segment": {k: v for k, v in manifest["segment"].items() if k != "calibration"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = module.calibrate(few_maps, count=24, weights_dir=tmp_path)
    assert found["temperature"] == pytest.approx(TRUE, rel=0.1)
    assert found["ece_after"] < 0.5 * found["ece_before"]


def test_the_shipped_weights_are_calibrated():
    stated = find_weights("segment").metadata["calibration"]
    assert stated["ece_after"] <= stated["ece_before"]
    assert Labelling.__dataclass_fields__["temperature"].default == 1.0
    assert 0.2 < stated["temperature"] < 5


def test_heads_have_the_structures_of_the_maps_kept_out(few_maps):
    head = next(module.heads(few_maps, 1, seed=0))
    assert head.scan.shape == head.truth.shape
    inside = head.truth > 0
    assert inside.any()
    assert np.asanyarray(head.scan.dataobj)[inside].mean() > np.asanyarray(head.scan.dataobj)[~inside].mean()
