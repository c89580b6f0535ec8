"""Control statistics of a data set, and what a run says where weights or statistics are missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.controls import STATISTICS, read_controls, write_controls
from hyperprep.bidsapp.preflight import check_controls, check_topology
from hyperprep.exceptions import NoInputError, UsageError, WeightsError
from hyperprep.models.spatial.controls import ControlStatistics
from hyperprep.workflows.settings import Template

SHAPE = (12, 13, 14)
SPACE = Template().name


def store(out: Path, label: str, *, seed: int = 0, digest: str = "1" * 64, session: str = "") -> Path:
    folder = out / f"sub-{label}" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True)
    stem = f"sub-{label}" + (f"_ses-{session}" if session else "")
    path = folder / f"{stem}_space-{SPACE}_desc-score_topology.nii.gz"
    score = np.random.default_rng(seed).exponential(size=SHAPE).astype(np.float32)
    score[:2] = 0
    nb.Nifti1Image(score, np.diag([2.0, 2, 2, 1])).to_filename(path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"WeightsSHA256": digest}))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for number in range(3):
        store(tmp_path / "out", f"0{number}", seed=number, session="a" if number == 2 else "")
    return tmp_path / "out"


def listed(folder: Path, *labels: str) -> Path:
    path = folder / "controls.txt"
    path.write_text("\n".join(labels))
    return path


def test_statistics_are_those_of_the_listed_controls(out: Path, tmp_path: Path) -> None:
    made = write_controls(out, listed(tmp_path, "sub-00", "01", "02"))
    assert made.controls == ("sub-00", "sub-01", "sub-02")
    again = ControlStatistics.load(out / STATISTICS)
    assert again.reference == SPACE
    assert again.weights_sha256 == "1" * 64
    assert not again.mask[:2].any()
    assert again.mask[3:].all()
    assert again.mean[6, 6, 6] == pytest.approx(1, abs=0.5)
    assert json.loads((out / STATISTICS).with_suffix(".json").read_text())["Controls"] == list(made.controls)


def test_what_cannot_be_used_is_told(out: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="sub-09 have no topology-change map"):
        write_controls(out, listed(tmp_path, "00", "01", "09"))
    with pytest.raises(UsageError, match="at least 3"):
        write_controls(out, listed(tmp_path, "00", "01"))
    store(out, "10", digest="2" * 64)
    with pytest.raises(UsageError, match="different weights"):
        write_controls(out, listed(tmp_path, "00", "01", "10"))
    with pytest.raises(UsageError, match="lists no participant"):
        read_controls(listed(tmp_path, "# nobody"))
    with pytest.raises(UsageError, match="no participant label"):
        read_controls(listed(tmp_path, "sub_1"))


def test_missing_weights_are_named_with_the_option(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str, **_: object) -> None:
        raise WeightsError(f"No weights for '{name}'.")

    monkeypatch.setattr("hyperprep.models.weights.find_weights", absent)
    with pytest.raises(WeightsError, match=r"--topology: the network .* cannot be used"):
        check_topology(replace(settings, topology=True), Template())


def test_statistics_are_checked_before_a_run(
    settings: Settings, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = SimpleNamespace(sha256="1" * 64, metadata={}, path=tmp_path / "weights.safetensors")
    monkeypatch.setattr("hyperprep.models.weights.find_weights", lambda name, **_: entry)
    asked = replace(settings, output_dir=out, topology=True)
    assert check_topology(asked, Template()) == ("1" * 64, None, None)
    masked = replace(asked, topology_mask=True)
    with pytest.raises(UsageError, match="needs statistics of controls"):
        check_topology(masked, Template())
    write_controls(out, listed(tmp_path, "00", "01", "02"))
    assert check_topology(masked, Template()) == ("1" * 64, out / STATISTICS, None)
    with pytest.raises(UsageError, match="another template"):
        check_topology(asked, Template(name="Other"))
    with pytest.raises(UsageError, match="--refine none"):
        check_topology(replace(masked, refine="none"), Template())
    entry.sha256 = "3" * 64
    with pytest.raises(UsageError, match="other weights"):
        check_topology(asked, Template())
    with pytest.raises(UsageError, match="group level"):
        check_controls(replace(settings, controls=tmp_path / "controls.txt"))
