"""The array job of ``bidsapp-slurm`` on a real Slurm: a task killed in the middle, again, then the group."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = pytest.mark.hpc


def bidsapp_slurm(repository: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-m", "hyperprep.bidsapp.slurm", *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


STAND_IN = """\
#!/bin/bash
# The group level is the true one; a participant fails, waits, or writes a figure as a true run would.
if [ "$3" = group ]; then exec {python} -m hyperprep.bidsapp "$@"; fi
while [ "$5" = {waits} ] && [ ! -e {mended} ]; do sleep 0.2; done
[ "$5" = {fails} ] && [ ! -e {mended} ] && exit 1
mkdir -p "$2/sub-$5/anat"
echo '{{"dice_mean": 0.8}}' > "$2/sub-$5/anat/sub-$5_quality.json"
"""


def test_states_of_tasks_that_fail_and_are_killed(
    slurm: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))
    data, out = tmp_path / "data", tmp_path / "my out"
    labels = ["01", "02", "03", "04"]
    for label in labels:
        (data / f"sub-{label}" / "anat").mkdir(parents=True)
        (data / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz").touch()
    (data / "dataset_description.json").write_text('{"Name": "empty", "BIDSVersion": "1.10.0"}')
    program = tmp_path / "stand-in"
    program.write_text(
        STAND_IN.format(python=sys.executable, fails="02", waits="03", mended=tmp_path / "mended")
    )
    program.chmod(0o755)
    words = ["--command", program, "--nprocs", "1", "--mem", "3GB"]
    submitted = bidsapp_slurm(repository, data, out, "submit", *words)
    assert submitted.returncode == 0, submitted.stderr
    state = out / "logs" / "slurm" / "state"
    until = time.monotonic() + 120
    while not (state / "sub-03.run").exists():
        assert time.monotonic() < until, slurm.ask("squeue")
        time.sleep(0.2)
    assert bidsapp_slurm(repository, data, out, "status").returncode == 75
    slurm.ask("scancel", "--signal=KILL", "--full", (state / "sub-03.run").read_text().split("\t")[0])
    slurm.wait()
    after = bidsapp_slurm(repository, data, out, "status")
    print(after.stdout)
    assert after.returncode == 1
    assert re.search("4 participants: 2 done, (1 failed, 1 killed|2 failed)", after.stdout)
    assert "group level: exit code 1" in after.stdout

    (tmp_path / "mended").touch()
    again = bidsapp_slurm(repository, data, out, "resubmit", "--time", "5")
    assert again.returncode == 0, again.stderr
    submissions = (out / "logs" / "slurm" / "submissions.tsv").read_text().splitlines()
    assert [line.split("\t")[1:4] for line in submissions[2:]] == [["array", "0", "1-2"], ["group", "0", "-"]]
    slurm.wait()
    finished = bidsapp_slurm(repository, data, out, "status")
    print(finished.stdout)
    assert finished.returncode == 0, finished.stdout
    assert "group level: exit code 0" in finished.stdout
    assert len(pd.read_csv(out / "group_quality.tsv", sep="\t")) == len(labels)


def test_an_array_with_a_killed_task(
    slurm: Any, demo_dataset: Path, repository: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "my out", tmp_path / "work"
    base = [demo_dataset, out]
    submitted = bidsapp_slurm(
        repository, *base, "submit", "-w", work, "--mem", "7GB", "--max-running", "1", "--",
        "--lambda", "0.5", "--refine", "none", "--skip-bids-validation",
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    assert "array: job" in submitted.stdout
    labels = sorted(path.name[4:] for path in demo_dataset.glob("sub-*"))
    state = out / "logs" / "slurm" / "state"

    victim = labels[1]
    until = time.monotonic() + 900
    while not any((work / f"sub-{victim}").rglob("result_*.pklz")):  # it is in the middle of its work
        assert time.monotonic() < until
        time.sleep(0.5)
    running = bidsapp_slurm(repository, *base, "status")
    assert running.returncode == 75, running.stdout + running.stderr
    assert "1 running" in running.stdout
    task = (state / f"sub-{victim}.run").read_text().split("\t")[0]
    slurm.ask("scancel", "--signal=KILL", "--full", task)
    slurm.wait()

    after = bidsapp_slurm(repository, *base, "status")
    assert after.returncode == 1, after.stdout + after.stderr
    assert f"{len(labels) - 1} done, 1 killed" in after.stdout or "1 failed" in after.stdout
    assert f"sub-{victim}" in after.stdout
    assert "group level: exit code 1" in after.stdout  # it tells who is missing
    assert not (out / f"sub-{victim}.html").exists()

    again = bidsapp_slurm(repository, *base, "resubmit")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("array: job") == 1
    slurm.wait()
    finished = bidsapp_slurm(repository, *base, "status")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{len(labels)} participants: {len(labels)} done" in finished.stdout
    assert "group level: exit code 0" in finished.stdout
    assert not (work / f"sub-{victim}").exists()  # what is done needs no intermediate results

    table = pd.read_csv(out / "logs" / "slurm" / "status.tsv", sep="\t")
    assert list(table["status"]) == ["done"] * len(labels)
    print(table.to_string())
    submissions = (out / "logs" / "slurm" / "submissions.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in submissions] == ["array", "group", "array", "group"]
    assert submissions[2].split("\t")[3] == "1"  # only the killed one
    quality = pd.read_csv(out / "group_quality.tsv", sep="\t")
    assert set(quality["participant_id"]) == {f"sub-{label}" for label in labels}
    nothing = bidsapp_slurm(repository, *base, "resubmit")
    assert "nothing to submit" in nothing.stdout
