"""Contracts about what is imported when, checked in fresh processes."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

GRAPHS = """
import importlib, pkgutil, sys
import hyperprep
for package in ("interfaces", "workflows", "bidsapp"):
    root = importlib.import_module(f"hyperprep.{package}")
    for info in pkgutil.walk_packages(root.__path__, f"hyperprep.{package}."):
        importlib.import_module(info.name)
        assert "torch" not in sys.modules, f"{info.name} imports torch"
from hyperprep.workflows import conform, prealign, register, segment
workflows = [conform.init_conform_wf(), prealign.init_prealign_wf()]
workflows += [segment.init_segment_wf(), register.init_register_wf()]
for workflow in workflows:
    workflow._create_flat_graph()
assert "torch" not in sys.modules, "building a graph imports torch"
print(sorted(name for name in ("bidsapp", "interfaces", "workflows", "models") if name in sys.modules))
"""


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_graphs_are_built_without_torch():
    assert _fresh(GRAPHS) == "[]"


def test_rooms_are_never_imported_by_their_bare_names():
    bare = {"bidsapp", "interfaces", "workflows", "models"} & set(sys.modules)
    assert bare == set(), "import hyperprep.<room> instead"


@pytest.mark.parametrize("package", ["hyperprep.models.spatial", "hyperprep.exceptions"])
def test_numeric_ground_floor_needs_neither_torch_nor_nipype(package):
    names = "('torch', 'nipype', 'niworkflows', 'bids')"
    code = f"import sys, {package}; print([name for name in {names} if name in sys.modules])"
    assert _fresh(code) == "[]"


def test_import_is_cheap_and_offline():
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('network access at import')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import hyperprep.bidsapp.cli.main\n"
        "print('done')"
    )
    assert _fresh(code) == "done"


def _declared(extra: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def _imported(*folders: str) -> set[str]:
    """Top-level modules that are imported anywhere, inside functions too."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"hyperprep"}


def _undeclared(modules: set[str], declared: set[str]) -> list[str]:
    owners = importlib.metadata.packages_distributions()
    return sorted(m for m in modules if not declared & {canonicalize_name(o) for o in owners.get(m, ())})


def test_every_import_is_a_declared_dependency():
    modules = _imported("bidsapp", "workflows", "interfaces", "models")
    assert _undeclared(modules, _declared()) == []
    assert _undeclared(_imported("tests") - {"benchmarks"}, _declared() | _declared("test")) == []


def test_the_lock_pins_every_dependency_and_nothing_local():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    loose = [str(pin) for pin in pins if pin.url or [s.operator for s in pin.specifier] != ["=="]]
    assert loose == []
    assert [str(pin) for pin in pins if "+" in str(pin.specifier)] == []
    assert "torch==2.13.0" in lines
    names = {canonicalize_name(pin.name) for pin in pins}
    assert (_declared() | _declared("test")) - names == set()


def test_doctests(module_name):
    module = importlib.import_module(module_name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0, f"{failed} examples of {module_name} failed (run: python -m doctest)"
