"""The recipes in ``containers/`` fit the program: options, folders, scripts. Nothing is built here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperprep.bidsapp.cli.parser import build_parser, parse_settings
from hyperprep.bidsapp.slurm import measured


@pytest.fixture
def containers(repository: Path) -> Path:
    return repository / "containers"


def sections(definition: Path) -> dict[str, str]:
    """Divide an Apptainer definition into its sections."""
    parts = re.split(r"^%(\w+)[^\n]*\n", definition.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_boutiques_has_every_option_and_no_other(containers: Path) -> None:
    descriptor = json.loads((containers / "boutiques.json").read_text())
    actions = [a for a in build_parser()._actions if a.dest not in ("help", "version")]
    flags = {one.get("command-line-flag", one["id"]) for one in descriptor["inputs"]}
    options = {next((o for o in a.option_strings if o.startswith("--")), a.dest) for a in actions}
    assert flags == options
    assert {one["id"] for one in descriptor["inputs"] if not one["optional"]} == {
        "bids_dir", "output_dir", "analysis_level"
    }  # fmt: skip
    lists = {one["id"] for one in descriptor["inputs"] if one.get("list")}
    assert lists == {a.dest for a in actions if a.nargs == "+"}
    assert descriptor["suggested-resources"]["ram"] == measured.task_memory_gb()


def test_boutiques_descriptor_is_valid(containers: Path) -> None:
    bosh = shutil.which("bosh")
    if bosh is None:
        pytest.skip("boutiques is not installed; make test-hpc installs it")
    done = subprocess.run(
        [bosh, "validate", str(containers / "boutiques.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_babs_asks_for_what_the_program_understands(containers: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((containers / "babs.yaml").read_text())
    words = ["/in", "/out", "participant"]
    for key, value in content["bids_app_args"].items():
        option = value if key.startswith("$") else key
        words += [option, "01"] if key.startswith("$") else [option, *([value] if value else [])]
    settings = parse_settings(words)
    assert settings.participant_label == ("01",)
    assert settings.mem_gb == pytest.approx(5.4)
    assert content["cluster_resources"]["hard_memory_limit"] == f"{measured.task_memory_gb():g}G"


def test_both_recipes_take_every_room_and_call_the_same_script(containers: Path) -> None:
    docker, apptainer = (containers / "Dockerfile").read_text(), sections(containers / "hyperprep.def")
    for room in ("src", "bidsapp", "interfaces", "workflows", "models", "pyproject.toml", "requirements.txt"):
        assert re.search(rf"^COPY .*\b{re.escape(room)}\b", docker, re.M), room
        assert re.search(rf"^\s+{re.escape(room)} /build/{re.escape(room)}$", apptainer["files"], re.M), room
    for step in ("environment", "app", "check"):
        assert f"containers/install.sh {step}" in docker
        assert f"containers/install.sh {step}" in apptainer["post"]


def test_no_source_is_built_in(containers: Path) -> None:
    apptainer = sections(containers / "hyperprep.def")
    arguments = dict(line.strip().split("=", 1) for line in apptainer["arguments"].split("\n") if "=" in line)
    used = set(re.findall(r"{{ (\w+) }}", (containers / "hyperprep.def").read_text()))
    assert used == set(arguments)
    assert (arguments["device"], arguments["pip_cert"]) == ("cpu", "")


@pytest.mark.parametrize("section", ["post", "environment", "runscript", "test"])
def test_apptainer_sections_are_shell(containers: Path, section: str) -> None:
    text = sections(containers / "hyperprep.def")[section]
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_install_script_is_shell(containers: Path) -> None:
    done = subprocess.run(["sh", "-n", str(containers / "install.sh")], capture_output=True, check=False)
    assert done.returncode == 0
