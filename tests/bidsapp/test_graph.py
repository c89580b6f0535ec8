"""The graph that a run builds: what the settings ask for reaches the nodes, and nothing is computed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperprep.bidsapp.boilerplate import read_bibtex
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.graph import build_workflow, template_workflow_name
from hyperprep.bidsapp.logs import participant_log_dir
from hyperprep.bidsapp.preflight import Plan
from hyperprep.bidsapp.query import find_inputs
from hyperprep.workflows.settings import OutputSpace, Template

PLAN = Plan(participants=("01", "02"), output_spaces=(OutputSpace(), OutputSpace("2")))


def nodes(settings: Settings, plan: Plan = PLAN) -> dict[str, Any]:
    workflow = build_workflow(settings, plan, find_inputs(settings, plan.participants))
    return {node.fullname: node for node in workflow._create_flat_graph().nodes()}


def inputs_named(found: dict[str, Any], trait: str) -> set[str]:
    """Values that a trait has in any node."""
    values = (getattr(node.inputs, trait, None) for node in found.values())
    return {str(value) for value in values if value is not None and "undefined" not in str(value)}


def test_all_sessions_are_in_and_one_template(settings: Settings) -> None:
    found = nodes(settings)
    scans = {name.split(".")[2] for name in found if name.split(".")[1].startswith("sub_")}
    assert {"sub_01_ses_pre_wf", "sub_01_ses_post_wf", "sub_02_wf"} <= scans
    assert len({name.split(".")[1] for name in found if ".template_" in name}) == 1
    assert any("ds_standard_1_wf" in name for name in found)


@pytest.mark.parametrize(
    ("change", "trait", "expected"),
    [
        ({"lam": 0.25}, "lam", {"0.25"}),
        ({}, "lam", {"auto"}),
        ({"refine": "none"}, "refine", {"none"}),
        ({"labels": ("brain", "hippocampus")}, "labels", {"['brain', 'hippocampus']"}),
        ({"weights_dir": Path("/tmp")}, "weights_dir", {"/tmp"}),
        ({"output_dir": Path("/tmp/elsewhere")}, "base_directory", {"/tmp/elsewhere"}),
    ],
)
def test_settings_reach_the_nodes(
    settings: Settings, change: dict[str, Any], trait: str, expected: set[str]
) -> None:
    assert inputs_named(nodes(replace(settings, **change)), trait) == expected


def test_what_the_checks_found_reaches_the_nodes(settings: Settings) -> None:
    digests = {"locate": "1" * 64, "segment": "2" * 64, "hypermorph": "3" * 64}
    found = nodes(settings, replace(PLAN, device="cuda:1", weights_sha256=digests))
    assert inputs_named(found, "device") == {"cuda:1"}
    assert inputs_named(found, "weights_sha256") == set(digests.values())
    assert all(node.is_gpu_node() for node in found.values() if hasattr(node.inputs, "device"))


def test_topology_maps_are_made_when_asked_for(settings: Settings, tmp_path: Path) -> None:
    assert not any("topology" in name for name in nodes(settings))
    asked = replace(settings, topology=True)
    found = nodes(asked)
    assert any(name.endswith("topology_wf.change") for name in found)
    assert not any("first_register_wf" in name or name.endswith("ds_regions") for name in found)
    statistics = tmp_path / "controls.npz"
    statistics.touch()
    plan = replace(PLAN, control_statistics=statistics, weights_sha256={"topology": "4" * 64})
    found = nodes(asked, plan)
    assert inputs_named(found, "control_statistics") == {str(statistics)}
    assert "4" * 64 in inputs_named(found, "weights_sha256")
    assert any(name.endswith("ds_regions") for name in found)
    twice = nodes(replace(settings, topology_mask=True), plan)
    assert sum(name.endswith("register_wf.register") for name in twice) == 6
    assert sum("first_register_wf.register" in name for name in twice) == 3


def test_change_between_sessions_is_mapped_when_both_are_asked_for(
    settings: Settings, tmp_path: Path
) -> None:
    asked = replace(settings, topology=True, longitudinal=True)
    for some in (replace(asked, topology=False), replace(asked, longitudinal=False)):
        assert not any("topology_longitudinal_wf" in name for name in nodes(some))
    found = nodes(asked)
    change = [name for name in found if name.endswith("topology_longitudinal_wf.change")]
    assert len(change) == 1, "one of the two participants has a second session"
    assert not any("second_change_z" in name for name in found)
    statistics = tmp_path / "controls.npz"
    statistics.touch()
    (tmp_path / "pairs.npz").touch()
    plan = replace(PLAN, control_statistics=statistics, session_statistics=tmp_path / "pairs.npz")
    found = nodes(asked, plan)
    assert any(name.endswith("ds_second_change_z") for name in found)
    between = found[change[0]]
    assert inputs_named({"": between}, "control_statistics") == {str(tmp_path / "pairs.npz")}


def test_no_node_takes_more_threads_than_allowed(settings: Settings) -> None:
    threads = {node.n_procs for node in nodes(replace(settings, nprocs=3, omp_nthreads=2)).values()}
    assert threads == {1, 2}


def test_skull_stripping_follows_the_option(settings: Settings) -> None:
    assert any("find" in name or "locate" in name for name in nodes(settings))
    skipped = nodes(replace(settings, skull_strip_t1w="skip"))
    assert sum(name.endswith("brain_mask_wf.brain_mask") for name in skipped) == 3
    assert not any(name.endswith("brain_mask_wf.brain_mask") for name in nodes(settings))


def test_crash_files_go_to_the_participants_folder(settings: Settings) -> None:
    for name, node in nodes(settings).items():
        part = name.split(".")[1]
        if part.startswith("sub_"):
            folder = participant_log_dir(settings, part.split("_")[1])
            assert node.config["execution"]["crashdump_dir"] == str(folder)


def test_the_templates_folder_changes_with_what_it_depends_on(settings: Settings) -> None:
    names = {
        template_workflow_name(settings, PLAN),
        template_workflow_name(settings, replace(PLAN, template=Template("Other"))),
        template_workflow_name(settings, replace(PLAN, output_spaces=())),
        template_workflow_name(settings, replace(PLAN, weights_sha256={"segment": "1"})),
        template_workflow_name(replace(settings, labels=("brain",)), PLAN),
    }
    assert len(names) == 5
    same = replace(settings, lam=0.1, nprocs=7, participant_label=("01",), run_uuid="other")
    assert template_workflow_name(same, PLAN) == template_workflow_name(settings, PLAN)


def test_every_citation_has_its_reference(settings: Settings, repository: Path) -> None:
    text = build_workflow(settings, PLAN, find_inputs(settings, ("01",))).visit_desc()
    bibliography = read_bibtex((repository / "bidsapp/data/boilerplate.bib").read_text())
    maps = replace(settings, topology=True)
    text += build_workflow(maps, PLAN, find_inputs(maps, ("01",))).visit_desc()
    assert "spotthedifference" in text
    cited = set(re.findall(r"@([\w:-]+)", text))
    assert cited
    assert cited <= set(bibliography)
    for work in bibliography.values():
        assert {"author", "title", "year"} <= set(work)


def test_building_a_graph_imports_no_network_library(dataset: Path, repository: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from hyperprep.bidsapp import app
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.preflight import Plan
from hyperprep.bidsapp.query import find_inputs
root, out = Path({str(dataset)!r}), Path({str(tmp_path)!r})
settings = Settings(bids_dir=root, output_dir=out, analysis_level="participant")
app.build_workflow(settings, Plan(participants=("01",)), find_inputs(settings, ("01",)))
print(sorted({{"torch", "templateflow"}} & set(sys.modules)))
"""
    environ = {**os.environ, "PYTHONPATH": str(repository / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
