"""Contracts of the weights that ship with the package."""

from __future__ import annotations

import datetime
import json
import math

import pytest

from hyperprep.models.weights.resolver import (
    MANIFEST,
    REQUIRED_KEYS,
    SHIPPED,
    digest,
    find_weights,
    package_dir,
    read_manifest,
)

LARGEST_SET_BYTES = 40_000_000


@pytest.fixture(scope="module")
def manifest() -> dict:
    entries = read_manifest(package_dir())
    if not entries:
        pytest.skip(f"no weights ship with the package yet ({package_dir() / MANIFEST} is absent)")
    return entries


def test_all_networks_of_the_main_job_ship(manifest):
    assert [name for name in SHIPPED if name not in manifest] == []


def test_entries_are_complete(manifest):
    for name, entry in manifest.items():
        assert [key for key in REQUIRED_KEYS if key not in entry] == [], name
        assert entry["scores"], f"{name} has no measured score"
        assert all(math.isfinite(score) for score in entry["scores"].values()), name
        assert datetime.date.fromisoformat(entry["date"]), name
        assert isinstance(entry["steps"], int)
        assert entry["steps"] > 0, name


def test_files_are_the_ones_that_were_exported(manifest):
    for name, entry in manifest.items():
        file = package_dir() / entry["file"]
        assert file.stat().st_size == entry["bytes"], name
        assert digest(file) == entry["sha256"], name
        assert find_weights(name).path == file


def test_the_set_is_small_and_has_no_strays(manifest):
    files = sorted(package_dir().glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) < LARGEST_SET_BYTES
    assert [file.name for file in files] == sorted(entry["file"] for entry in manifest.values())


def test_every_network_has_a_model_card(manifest):
    for name in manifest:
        card = (package_dir() / f"{name}.md").read_text()
        assert manifest[name]["sha256"] in card, name
        assert "Limits" in card, name


def test_tensors_are_half_precision_and_finite(manifest):
    safetensors = pytest.importorskip("safetensors.numpy")
    import numpy as np

    for entry in manifest.values():
        tensors = safetensors.load_file(package_dir() / entry["file"])
        assert tensors
        assert {str(t.dtype) for t in tensors.values() if np.issubdtype(t.dtype, np.floating)} == {"float16"}
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_manifest_is_stable_json(manifest):
    text = (package_dir() / MANIFEST).read_text()
    assert json.loads(text) == manifest
    assert "NaN" not in text
