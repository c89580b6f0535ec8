"""Weights are found in order, verified, and their absence is explained."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hyperprep.exceptions import WeightsError
from hyperprep.models.weights import find_weights, load_state
from hyperprep.models.weights.resolver import ENVIRONMENT, digest


@pytest.fixture
def folder(tmp_path):
    def make(name, value):
        place = tmp_path / name
        place.mkdir()
        save_file({"w": torch.full((3,), value, dtype=torch.float16)}, place / "toy.safetensors")
        entry = {"file": "toy.safetensors", "sha256": digest(place / "toy.safetensors")}
        (place / "manifest.json").write_text(json.dumps({"toy": entry}))
        return place

    return make


def test_order_of_places(folder, monkeypatch):
    given, environment = folder("given", 1.0), folder("environment", 2.0)
    monkeypatch.setenv(ENVIRONMENT, str(environment))
    assert find_weights("toy").path.parent == environment
    assert find_weights("toy", weights_dir=given).path.parent == given
    assert (
        find_weights("toy", path=environment / "toy.safetensors", weights_dir=given).path.parent
        == environment
    )
    assert load_state(find_weights("toy", weights_dir=given))["w"].dtype == torch.float32


def test_damaged_file_is_refused(folder):
    place = folder("given", 1.0)
    content = bytearray((place / "toy.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "toy.safetensors").write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="damaged"):
        find_weights("toy", weights_dir=place)


def test_absence_names_every_place(folder, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    place = folder("given", 1.0)
    with pytest.raises(WeightsError, match=r"'other'.*given.*package"):
        find_weights("other", weights_dir=place)
    (place / "toy.safetensors").unlink()
    with pytest.raises(WeightsError, match="is not there"):
        find_weights("toy", weights_dir=place)
    with pytest.raises(WeightsError, match="does not exist"):
        find_weights("toy", weights_dir=place / "nowhere")


def test_broken_manifest_is_named(folder):
    place = folder("given", 1.0)
    (place / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match="not valid JSON"):
        find_weights("toy", weights_dir=place)
