"""Preparing scans with masks of own regions: what is kept, what is left out."""

import json
import os

import nibabel as nb
import numpy as np
import pytest

from hyperprep.exceptions import ScanError
from hyperprep.models.predict import region_examples
from hyperprep.models.predict.region_examples import prepare_examples
from hyperprep.models.spatial.region_examples import INDEX, MaskSource, RegionExample, read_masks
from hyperprep.models.synth.alter import altered_alignment, draw_alteration


@pytest.fixture
def examples(tmp_path):
    made = []
    for label in ("sub-01", "sub-02"):
        for name in (f"{label}_T1w.nii.gz", f"{label}_mask.nii.gz"):
            nb.save(nb.Nifti1Image(np.eye(7, dtype=np.uint8)[:, :, None] * np.ones(9, np.uint8), np.eye(4)),
                    tmp_path / name)  # fmt: skip
        source = MaskSource(tmp_path / f"{label}_mask.nii.gz")
        made.append(RegionExample(label, label[4:], tmp_path / f"{label}_T1w.nii.gz", {"X": source}))
    return made


@pytest.fixture
def prepared(monkeypatch):
    """Count the scans that are prepared; sub-02 cannot be while ``bad`` is set."""
    state = {"bad": False, "done": []}

    def prepare(example, files, *_):
        if state["bad"] and example.label == "sub-02":
            raise ScanError("No brain was found")
        state["done"].append(example.label)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")

    monkeypatch.setattr(region_examples, "_prepare", prepare)
    return state


def test_what_was_prepared_is_used_again_until_its_files_change(examples, prepared, tmp_path):
    folder = tmp_path / "scans"
    assert prepare_examples(examples[:1], folder, tmp_path / "a", told=len) == []
    prepare_examples(examples, folder, tmp_path / "b", told=len)
    assert prepared["done"] == ["sub-01", "sub-02"]
    os.utime(examples[0].masks["X"].path, ns=(1, 1))
    prepare_examples(examples, folder, tmp_path / "c", told=len)
    assert prepared["done"] == ["sub-01", "sub-02", "sub-01"]
    rows = json.loads((tmp_path / "c" / INDEX).read_text())["scans"]
    assert [(row["participant"], row["variant"], row["regions"]) for row in rows] == [
        ("01", 0, {"X": 0}), ("01", 1, {"X": 0}), ("02", 0, {"X": 0}), ("02", 1, {"X": 0}),
    ]  # fmt: skip


def test_a_scan_that_cannot_be_used_is_left_out_and_told(examples, prepared, tmp_path):
    prepared["bad"] = True
    told: list[str] = []
    left = prepare_examples(examples, tmp_path / "scans", tmp_path / "run", told=told.append)
    assert left == ["sub-02: No brain was found"]
    assert "left out" in told[1]
    content = json.loads((tmp_path / "run" / INDEX).read_text())
    assert content["left_out"] == left
    assert {row["participant"] for row in content["scans"]} == {"01"}
    with pytest.raises(ScanError, match="No example could be used"):
        prepare_examples(examples[1:], tmp_path / "scans", tmp_path / "none", told=len)
    assert not (tmp_path / "none").exists()


def test_masks_are_read_one_by_one(examples):
    scan = nb.load(examples[0].image)
    ((name, mask),) = read_masks(examples[0], scan)
    assert name == "X"
    assert np.asanyarray(mask.dataobj).sum() == 7 * 9


def test_an_altered_alignment_stays_near():
    for seed in range(5):
        drawn = draw_alteration(np.random.default_rng(seed))
        centre = np.array([10.0, -20, 5])
        moved = altered_alignment(np.diag([1.1, 1, 1, 1]), centre, drawn)
        before, after = (m @ [*centre, 1] for m in (np.diag([1.1, 1, 1, 1]), moved))
        assert 0 < np.linalg.norm(after - before) < 2 * 3**0.5 * 1.1 + 1e-6
        far = centre + np.array([70, 0, 0])
        assert np.linalg.norm(moved @ [*far, 1] - np.diag([1.1, 1, 1, 1]) @ [*far, 1]) < 15
