"""An image that was built is run as a cluster would, and the Apptainer sections are executed in it.

Name the image, as podman knows it, by HYPERPREP_TEST_IMAGE; docs/hpc.md says how it is built.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.hpc
UID = 23456


@pytest.fixture(scope="module")
def image() -> str:
    name = os.environ.get("HYPERPREP_TEST_IMAGE", "")
    if not name:
        pytest.skip("set HYPERPREP_TEST_IMAGE to an image that podman knows")
    return name


def run(image: str, *words: str, out: Path, data: Path, entry: str = "") -> subprocess.CompletedProcess[str]:
    command = [
        "podman", "run", "--runtime", "runc", "--rm", "--network", "none", "--read-only",
        "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,size=8g", "--user", f"{UID}:{UID}",
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--memory", "6g",
        "-v", f"{data}:/data:ro", "-v", f"{out}:/out", *(["--entrypoint", entry] if entry else []),
    ]  # fmt: skip
    return subprocess.run([*command, image, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_a_participant_in_a_locked_container(image: str, demo_dataset: Path, out: Path) -> None:
    words = [
        "participant",
        "--participant-label",
        "02",
        "-w",
        "/tmp/work",
        "--nprocs",
        "2",
        "--mem",
        "5400MB",
    ]
    done = run(image, "/data", "/out", *words, "--offline", out=out, data=demo_dataset)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "processed 1 of 1 participant" in done.stdout
    assert (out / "sub-02.html").is_file()
    assert (out / "sub-02.html").stat().st_uid == UID
    description = (out / "dataset_description.json").read_text()
    assert '"Container"' in description


@pytest.mark.parametrize("section", ["test", "runscript"])
def test_apptainer_sections(
    image: str, repository: Path, demo_dataset: Path, out: Path, section: str
) -> None:
    parts = re.split(
        r"^%(\w+)[^\n]*\n", (repository / "containers" / "hyperprep.def").read_text(), flags=re.M
    )
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    script = texts["environment"].replace("{{ version }}", "0.1.0") + "\n" + texts[section]
    done = run(image, "-c", script, "sh", "--version", out=out, data=demo_dataset, entry="/bin/sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HyperPrep" in done.stdout
