"""The documentation is true: links lead somewhere, examples run, every option is named."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

LINK = re.compile(r"\[[^]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
PYTHON = re.compile(r"```python\n((?:import|from) .*?)```", re.S)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")

# Options of other programs that the pages mention.
FOREIGN = {
    "--build-arg", "--find-links", "--gres", "--index-url", "--network", "--no-deps", "--no-index",
    "--partition", "--read-only", "--rm", "--tmpfs",
}  # fmt: skip


def _page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_links_lead_somewhere(page):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search(page.read_text())], ids=_page_id)
def test_examples_import_what_exists(page):
    for block in PYTHON.findall(page.read_text()):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hyperprep"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_workflow_example_runs():
    blocks = PYTHON.findall((ROOT / "docs" / "embed.md").read_text())
    example = next(block for block in blocks if "init_conform_wf" in block)
    names: dict = {}
    exec(example, names)
    assert len(names["workflow"].list_node_names()) > 3


def test_interface_examples_use_traits_that_exist():
    from hyperprep.interfaces.segment import ConditionalSegmentation

    inputs, outputs = ConditionalSegmentation.input_spec(), ConditionalSegmentation.output_spec()
    for page in (ROOT / "README.md", ROOT / "docs" / "embed.md"):
        for block in PYTHON.findall(page.read_text()):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ConditionalSegmentation":
                    assert [key.arg for key in node.keywords if inputs.trait(key.arg) is None] == []
            used = re.findall(r"outputs\.(\w+)", block)
            assert [name for name in used if outputs.trait(name) is None] == []


def test_every_option_is_in_the_manual_and_no_other():
    from hyperprep.bidsapp.cli.parser import build_parser
    from hyperprep.bidsapp.slurm.cli import build_parser as build_slurm_parser

    actions = [action for action in build_parser()._actions if action.option_strings]
    known = {option for action in actions for option in action.option_strings}
    of_slurm = {option for action in build_slurm_parser()._actions for option in action.option_strings}
    missing_there = of_slurm - set(OPTION.findall((ROOT / "docs" / "hpc.md").read_text()))
    assert {option for option in missing_there if option.startswith("--") and "_" not in option} <= {
        "--help",
        "--version",
    }
    known |= of_slurm
    manual = set(OPTION.findall((ROOT / "docs" / "run.md").read_text()))
    missing = [action.option_strings for action in actions if not set(action.option_strings) & manual]
    assert [options for options in missing if "--help" not in options and "-v" not in options] == []
    for page in (
        ROOT / "README.md",
        *(ROOT / "docs" / name for name in ("run.md", "hpc.md", "embed.md")),
    ):
        assert set(OPTION.findall(page.read_text())) - known - FOREIGN - {"--help"} == set(), page.name


def test_every_option_for_own_regions_is_in_their_manual():
    from hyperprep.bidsapp.cli.parser import build_parser
    from hyperprep.bidsapp.regions.cli import build_parser as build_regions_parser

    def options(parser):
        return {option for action in parser._actions for option in action.option_strings}

    page = set(OPTION.findall((ROOT / "docs" / "regions.md").read_text()))
    own = {option for option in options(build_regions_parser()) if option[:2] == "--" and "_" not in option}
    assert own - page == {"--help"}
    assert page - own - options(build_parser()) == set()
