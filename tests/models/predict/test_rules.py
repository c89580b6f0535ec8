"""How weights are used stands in their metadata: other metadata, another use."""

import json
import shutil

import nibabel as nb
import numpy as np
import pytest

from hyperprep.exceptions import UsageError, WeightsError
from hyperprep.models.predict.rules import (
    check_known,
    percentiles,
    rescaled,
    structures,
    template_brain,
    threshold,
)
from hyperprep.models.predict.sampling import lattice_grid
from hyperprep.models.predict.segment import segment
from hyperprep.models.spatial.labels import LEAVES, resolve_labels
from hyperprep.models.train.export import describe
from hyperprep.models.weights import SHIPPED, WeightsEntry, find_weights


def entry_with(tmp_path, **metadata):
    return WeightsEntry("toy", tmp_path / "toy.safetensors", "0" * 64, metadata)


def test_the_shipped_weights_say_everything():
    for name in SHIPPED:
        entry = find_weights(name)
        assert percentiles(entry) == (0.5, 99.5)
        assert lattice_grid(entry.metadata["grid"]).shape == tuple(entry.metadata["grid"]["shape"])
    for name in ("locate", "segment"):
        assert set(structures(find_weights(name))) == {region.index for region in LEAVES}
    assert threshold(find_weights("segment"), "brain") < threshold(find_weights("locate"), "brain")
    volume, centre = template_brain(find_weights("locate"))
    assert (round(volume / 1e6, 2), centre.shape) == (1.85, (3,))


def test_the_rule_of_intensities_is_obeyed(tmp_path):
    values = np.arange(1.0, 6.0)
    entry = entry_with(tmp_path, intensity={"percentiles": [0, 100], "inside": "brain"})
    assert rescaled(values, np.ones(5), entry).tolist() == [0, 0.25, 0.5, 0.75, 1]
    entry = entry_with(tmp_path, intensity={"percentiles": [25, 75], "inside": "brain"})
    assert rescaled(values, np.ones(5), entry).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (percentiles, "intensity.percentiles"),
        (lambda entry: threshold(entry, "brain"), "threshold.brain"),
        (structures, "labels"),
        (template_brain, "template_brain.volume_mm3"),
    ],
)
def test_what_is_not_said_is_named(tmp_path, read, key):
    with pytest.raises(WeightsError, match=rf"says no '{key}' of 'toy'.*train describe --out"):
        read(entry_with(tmp_path, intensity="0.5 and 99.5"))


def test_a_label_that_the_weights_do_not_know_is_refused(tmp_path):
    entry = entry_with(tmp_path, labels=["17", "53", "brain"])
    check_known(resolve_labels(["hippocampus"]), entry)
    with pytest.raises(UsageError, match="do not know Brain-Stem; they know the FreeSurfer numbers 17, 53"):
        check_known(resolve_labels(["hippocampus", "16"]), entry)


def test_an_orientation_that_is_none_is_refused():
    grid = {"shape": [7, 8, 9], "spacing_mm": 2.0, "origin_mm": [0, 0, 0]}
    for code in ("RAX", "RRS", "RA", None):
        with pytest.raises(WeightsError, match="three letters"):
            lattice_grid({"orientation": code, **grid})


@pytest.fixture(scope="module")
def brain():
    """The template at 4 mm, which its frame's grid covers."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=4)
    return nb.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine)


def with_metadata(folder, change):
    """Copy the weights of ``segment`` with a changed manifest entry."""
    entry = find_weights("segment")
    shutil.copy(entry.path, folder)
    metadata = json.loads(json.dumps(entry.metadata))
    change(metadata)
    (folder / "manifest.json").write_text(json.dumps({"segment": metadata}))
    return folder


def test_the_threshold_of_the_brain_is_the_metadatas(tmp_path, brain):
    def volume(**options):
        found = segment(brain, template2scan=np.eye(4), num_threads=1, **options)
        return int(np.asarray(found.mask.dataobj).sum())

    strict = with_metadata(tmp_path, lambda metadata: metadata["threshold"].update(brain=0.9))
    assert volume(weights_dir=strict) < 0.99 * volume()


def test_describe_keeps_weights_and_scores(tmp_path):
    def forget(metadata):
        del metadata["threshold"], metadata["intensity"]

    folder = with_metadata(tmp_path, forget)
    before = find_weights("segment", weights_dir=folder)
    describe(folder)
    after = find_weights("segment", weights_dir=folder)
    assert after.metadata == find_weights("segment").metadata
    assert (after.sha256, after.metadata["scores"]) == (before.sha256, before.metadata["scores"])
    assert "'brain': 0.1" in (folder / "segment.md").read_text()
