"""Contracts about what is imported when, checked in fresh processes."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

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


def test_doctests(module_name):
    module = importlib.import_module(module_name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, optionflags=flags)
    assert failed == 0, f"{failed} examples of {module_name} failed (run: python -m doctest)"
