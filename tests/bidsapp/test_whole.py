"""The true program with its networks over one demo scan, from the command line to the group page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperprep.bidsapp.validate import _find_program
from hyperprep.exceptions import WeightsError
from hyperprep.models.weights import SHIPPED, find_weights


def run(repository: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-m", "hyperprep.bidsapp", *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_scan_from_raw_to_the_group_page(demo_dataset: Path, repository: Path, tmp_path: Path) -> None:
    try:
        for name in SHIPPED:
            find_weights(name)
    except WeightsError as error:
        pytest.skip(str(error))
    label = sorted(path.parent.name[4:] for path in demo_dataset.glob("sub-*/anat"))[0]
    out, work = tmp_path / "my output", tmp_path / "work"
    options = ["-w", work, "--participant-label", label, "--refine", "none", "--offline", "--nprocs", "1"]
    first = run(repository, demo_dataset, out, "participant", *options, "--lambda", "0.5")
    assert first.returncode == 0, first.stderr
    assert f"processed 1 of 1 participant. Report: {out}/sub-{label}.html" in first.stdout.splitlines()[-1]
    quality = json.loads((out / f"sub-{label}/anat/sub-{label}_quality.json").read_text())
    assert quality["lambda"] == pytest.approx(0.5)
    assert quality["prealign_success"] is True

    before = {path: path.stat().st_mtime_ns for path in work.rglob("result_*.pklz")}
    again = run(repository, demo_dataset, out, "participant", *options, "--lambda", "0.5")
    assert again.returncode == 0, again.stderr
    heavy = ("locate", "segment", "prealign", "register", "n4")
    rerun = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert [path for path in rerun if path.parent.name in heavy] == []

    changed = run(repository, demo_dataset, out, "participant", *options, "--lambda", "0.9")
    assert changed.returncode == 0, changed.stderr
    rerun = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert {path.parent.name for path in rerun} & set(heavy) == {"register"}
    quality = json.loads((out / f"sub-{label}/anat/sub-{label}_quality.json").read_text())
    assert quality["lambda"] == pytest.approx(0.9)

    group = run(repository, demo_dataset, out, "group", "--participant-label", label)
    assert group.returncode == 0, group.stderr
    assert f'href="sub-{label}.html"' in (out / "group_quality.html").read_text()
    program = _find_program()
    if program is not None:
        done = subprocess.run(
            [program, "--format", "json", str(out)], capture_output=True, text=True, check=False
        )
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []
