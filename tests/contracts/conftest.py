"""Finds every module, interface and workflow builder, and parametrises the contracts over them."""

from __future__ import annotations

import dataclasses
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
from hyperprep.workflows.settings import AnatSettings, FewShotTask, OutputSpace, Scan, Template

_TOGETHER = ("topology", "topology_calibrated")
"""Settings of which one does nothing without the other."""


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
        for module in _modules("hyperprep.workflows")
        for name, value in vars(module).items()
        if name.startswith("init_")
        and name.endswith("_wf")
        and inspect.isfunction(value)
        and value.__module__.startswith("hyperprep.")
    }
    return sorted(found, key=lambda function: (function.__module__, function.__qualname__))


def module_names() -> list[str]:
    """Every module of the package, found without importing any."""
    root = Path(hyperprep.__file__).parent
    files = [path for room in root.iterdir() if room.is_dir() for path in room.rglob("*.py")]
    names = {".".join(("hyperprep", *path.relative_to(root).with_suffix("").parts)) for path in files}
    return sorted(name.removesuffix(".__init__") for name in names if not name.endswith("__main__"))


def _choices(builder: Any) -> Iterator[dict[str, Any]]:
    """Turn away from each default once: every other value of flags and literals, of the settings too."""
    yield {}
    hints = typing.get_type_hints(builder)
    parameters = inspect.signature(builder).parameters
    for name, parameter in parameters.items():
        for option in _options(hints.get(name)):
            if option != parameter.default:
                yield {name: option}
    if "settings" in parameters:
        hints = typing.get_type_hints(AnatSettings)
        for field in dataclasses.fields(AnatSettings):
            for option in _options(hints[field.name]):
                if option != field.default:
                    yield {f"settings.{field.name}": option}
        yield {f"settings.{name}": True for name in _TOGETHER}


def _options(hint: Any) -> tuple[Any, ...]:
    if hint is bool:
        return (True, False)
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _case_id(builder: Any, choice: dict[str, Any]) -> str:
    return "-".join([builder.__name__, *(f"{name}={value}" for name, value in choice.items())])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Supply ``interface_class``, ``builder``, ``workflow`` and ``module_name``."""
    if "interface_class" in metafunc.fixturenames:
        metafunc.parametrize("interface_class", interfaces(), ids=lambda cls: cls.__qualname__)
    if "module_name" in metafunc.fixturenames:
        metafunc.parametrize("module_name", module_names())
    if "workflow" in metafunc.fixturenames:
        cases = [(builder, choice) for builder in builders() for choice in _choices(builder)]
        ids = [_case_id(builder, choice) for builder, choice in cases]
        metafunc.parametrize("workflow", cases, ids=ids, indirect=True, scope="module")
    elif "builder" in metafunc.fixturenames:
        metafunc.parametrize("builder", builders(), ids=lambda function: function.__name__)


@pytest.fixture(scope="module")
def workflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """One workflow, built with defaults, one choice and examples for what has no default."""
    return build(*request.param, tmp_path_factory.mktemp("workflow"))


@pytest.fixture
def variants(builder: Any, tmp_path: Path) -> list[Workflow]:
    """Every workflow that a builder makes."""
    cases = list(_choices(builder))
    return [build(builder, choice, tmp_path / str(number)) for number, choice in enumerate(cases)]


def build(builder: Any, choice: dict[str, Any], folder: Path) -> Workflow:
    """Call a builder with one choice and examples for what has no default."""
    known = example_arguments(folder)
    settings = {name.removeprefix("settings."): value for name, value in choice.items() if "." in name}
    known["settings"] = dataclasses.replace(known["settings"], **settings)
    arguments = {name: value for name, value in choice.items() if "." not in name}
    for name, parameter in inspect.signature(builder).parameters.items():
        needed = parameter.default is inspect.Parameter.empty or name == "output_spaces"
        useful = bool(choice) and parameter.default is None and name in known
        if name in arguments or not (needed or useful):
            continue
        assert name in known, f"{builder.__name__}({name}=...): add an example to example_arguments()"
        arguments[name] = known[name]
    return builder(**arguments)


def example_arguments(folder: Path) -> dict[str, Any]:
    """Values for the arguments of workflow builders that have no default."""
    anat = folder / "data" / "sub-01" / "ses-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("sub-01_ses-01_T1w.nii.gz", "mask.nii.gz", "dseg.nii.gz", "controls.npz"):
        (anat / name).touch()
    second = folder / "data" / "sub-01" / "ses-02" / "anat" / "sub-01_ses-02_T1w.nii.gz"
    second.parent.mkdir(parents=True)
    second.touch()
    (folder / "out").mkdir()
    scan = Scan(anat / "sub-01_ses-01_T1w.nii.gz")
    later = Scan(second)
    space = OutputSpace(resolution="2")
    given, mask = anat / "sub-01_ses-01_T1w.nii.gz", anat / "mask.nii.gz"
    task = FewShotTask("claustrum", "mask", (given,), (mask,), (None,), ("sub-02",))
    return {
        "bids_dir": folder / "data",
        "control_statistics": anat / "controls.npz",
        "mask": anat / "mask.nii.gz",
        "output_dir": folder / "out",
        "output_spaces": (OutputSpace(), space),
        "participant": "01",
        "earlier": scan,
        "earlier_name": "session 01",
        "later": later,
        "later_name": "session 02",
        "participants": {"01": (scan, later)},
        "scan": scan,
        "scans": (scan, later),
        "preproc_uri": "bids::sub-01/ses-01/anat/sub-01_ses-01_desc-preproc_T1w.nii.gz",
        "raw_uri": "bids:raw:sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz",
        "settings": AnatSettings(bids_dir=folder / "data", output_dir=folder / "out", few_shot=(task,)),
        "source_file": given,
        "task": task,
        "space": space,
        "template": Template(),
        "template_name": Template().name,
    }
