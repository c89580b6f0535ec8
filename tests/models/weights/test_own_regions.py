"""Weights of own regions: found, matched with their network, told apart from all others."""

import dataclasses

import pytest
import torch

from hyperprep.bidsapp.labels import check_labels
from hyperprep.exceptions import UsageError, WeightsError
from hyperprep.models.spatial.labels import legend
from hyperprep.models.spatial.own_regions import number_regions
from hyperprep.models.train.store import store
from hyperprep.models.weights import find_weights
from hyperprep.models.weights.own_regions import find_own_regions, own_regions, resolve_all_labels
from hyperprep.models.weights.resolver import ENVIRONMENT, read_manifest, write_manifest
from hyperprep.workflows.outputs_native import region_entities
from hyperprep.workflows.segment import init_segment_wf


@pytest.fixture
def folder(tmp_path):
    entry = {
        "capability": "c", "grid": {}, "intensity": {"percentiles": [1, 99], "inside": "brain"},
        "network": {"kind": "regions"}, "regions": legend(number_regions(["Left-Claustrum", "Habenula"])),
        "base_sha256": find_weights("segment").sha256, "command": "c", "seed": 0, "steps": 1,
        "training_seconds": 1, "data": "d", "data_licence": "l", "licence": "l", "scores": {},
    }  # fmt: skip
    store("regions", {"x": torch.zeros(1)}, entry, tmp_path)
    return tmp_path


def test_their_names_can_be_asked_for(folder, monkeypatch):
    assert own_regions() == ()
    assert [region.name for region in own_regions(folder)] == ["Left-Claustrum", "Habenula"]
    assert [region.index for region in resolve_all_labels(["claustrum", "amygdala"], folder)] == [
        31001,
        18,
        54,
    ]
    assert region_entities(["claustrum"], folder) == ["LeftClaustrum"]
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    assert len(own_regions()) == 2


def test_without_their_folder_the_message_says_what_is_missing():
    with pytest.raises(
        UsageError, match=r"Unknown label 'claustrum'.*bidsapp-regions.*HYPERPREP_WEIGHTS_DIR"
    ):
        resolve_all_labels(["claustrum"])


def test_they_belong_to_the_network_they_were_trained_on(folder):
    base = find_weights("segment")
    assert find_own_regions(base, folder).name == "regions"
    with pytest.raises(WeightsError, match="bidsapp-regions"):
        find_own_regions(dataclasses.replace(base, sha256="f" * 64), folder)


def test_a_run_that_asks_for_them_depends_on_their_digest(folder):
    digest = find_own_regions(find_weights("segment"), folder).sha256
    assert check_labels(["claustrum"], folder) == {"regions": digest}
    assert check_labels(["amygdala"], folder) == {}
    workflow = init_segment_wf(
        labels=["claustrum"], weights_dir=folder, weights_sha256={"segment": "a", "regions": digest}
    )
    assert workflow.get_node("segment").inputs.regions_weights_sha256 == digest
    assert "drawn by hand" in workflow.__desc__


def test_a_damaged_class_table_is_told(folder):
    manifest = read_manifest(folder)
    del manifest["regions"]["regions"][0]["index"]
    write_manifest(folder, manifest)
    with pytest.raises(WeightsError, match="class table"):
        own_regions(folder)
