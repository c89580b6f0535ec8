"""Finds every module, interface and workflow builder, and parametrises the contracts over them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterface
from nipype.pipeline.engine import Workflow

import hyperprep


@cache
def _modules(package: str) -> list[ModuleType]:
    root = importlib.import_module(package)
    names = [info.name for info in pkgutil.walk_packages(root.__path__, f"{package}.")]
    return [root, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]


def interfaces() -> list[type[BaseInterface]]:
    """Every interface that is defined in the package, bases among them."""
    found = {
        value
        for module in _modules("hyperprep.interfaces")
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, BaseInterface)
        and value.__module__.startswith("hyperprep.")
        and value.input_spec is not None
    }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def builders() -> list[Any]:
    """Every ``init_..._wf`` that is defined in the package."""
    found = {
        value
        for package in ("hyperprep.workflows", "hyperprep.bidsapp.cli")
        for module in _modules(package)
        for name, value in vars(module).items()
        if name.startswith("init_")
        and name.endswith("_wf")
        and inspect.isfunction(value)
        and value.__module__.startswith("hyperprep.")
    }
    return sorted(found, key=lambda function: (function.__module__, function.__qualname__))


def module_names() -> list[str]:
    """Every module of the package, found without importing any."""
    roots = [Path(hyperprep.__file__).parent]
    found = []
    for info in pkgutil.walk_packages(
        [str(root) for root in roots], "hyperprep.", onerror=lambda _name: None
    ):
        if not info.name.endswith("__main__"):
            found.append(info.name)
    return sorted(found)


def _choices(builder: Any) -> Iterator[dict[str, Any]]:
    """Turn away from each default once: every other value of flags and literals."""
    yield {}
    hints = typing.get_type_hints(builder)
    for name, parameter in inspect.signature(builder).parameters.items():
        hint = hints.get(name)
        options: tuple[Any, ...] = ()
        if hint is bool:
            options = (True, False)
        elif typing.get_origin(hint) is typing.Literal:
            options = typing.get_args(hint)
        for option in options:
            if option != parameter.default:
                yield {name: option}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Supply ``interface_class``, ``builder``, ``workflow`` and ``module_name``."""
    if "interface_class" in metafunc.fixturenames:
        metafunc.parametrize("interface_class", interfaces(), ids=lambda cls: cls.__qualname__)
    if "module_name" in metafunc.fixturenames:
        metafunc.parametrize("module_name", module_names())
    if "workflow" in metafunc.fixturenames:
        cases = [
            pytest.param(
                (builder, choice), id="-".join([builder.__name__, *(f"{k}={v}" for k, v in choice.items())])
            )
            for builder in builders()
            for choice in _choices(builder)
        ]
        metafunc.parametrize("workflow", cases, indirect=True)
    elif "builder" in metafunc.fixturenames:
        metafunc.parametrize("builder", builders(), ids=lambda function: function.__name__)


@pytest.fixture
def workflow(request: pytest.FixtureRequest, tmp_path: Path) -> Workflow:
    """One workflow, built with defaults, one choice and examples for what has no default."""
    builder, choice = request.param
    known = example_arguments(tmp_path)
    arguments = dict(choice)
    for name, parameter in inspect.signature(builder).parameters.items():
        needed = parameter.default is inspect.Parameter.empty
        useful = bool(choice) and parameter.default is None and name in known
        if name in arguments or not (needed or useful):
            continue
        assert name in known, f"{builder.__name__}({name}=...): add an example to example_arguments()"
        arguments[name] = known[name]
    return builder(**arguments)


def example_arguments(folder: Path) -> dict[str, Any]:
    """Values for the arguments of workflow builders that have no default."""
    from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template

    anat = folder / "data" / "sub-01" / "ses-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("sub-01_ses-01_T1w.nii.gz", "mask.nii.gz", "dseg.nii.gz"):
        (anat / name).touch()
    (folder / "out").mkdir()
    scan = Scan(anat / "sub-01_ses-01_T1w.nii.gz")
    settings = AnatSettings(bids_dir=folder / "data", output_dir=folder / "out")
    return {
        "bids_dir": folder / "data",
        "output_dir": folder / "out",
        "output_spaces": (OutputSpace(), OutputSpace(resolution="2")),
        "derivative": anat / "mask.nii.gz",
        "mask": anat / "mask.nii.gz",
        "scan": scan,
        "scans": (scan,),
        "settings": settings,
        "template": Template(),
        "template_name": Template().name,
        "weights_sha256": {},
        "work_dir": folder / "work",
    }
