"""Small images on uneven grids, and stand-ins for the networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField

#: Oblique, anisotropic, first axis flipped; columns are perpendicular.
OBLIQUE = np.array([[-9.66, 0, 3.11, 10], [0, 11, 0, -20], [2.59, 0, 11.59, 5], [0, 0, 0, 1]], dtype=float)
SHAPE = (7, 8, 9)
DIGEST = "0" * 64


@pytest.fixture
def scan_data() -> np.ndarray:
    """Positive noise in a box, zero around it, ``(7, 8, 9)``."""
    data = np.zeros(SHAPE, dtype=np.float32)
    data[1:6, 1:7, 1:8] = np.random.default_rng(3).uniform(50, 100, (5, 6, 7))
    return data


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writer of an image in the test's folder."""

    def write(data: np.ndarray, name: str, affine: np.ndarray = OBLIQUE) -> str:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        nb.Nifti1Image(data, affine).to_filename(path)
        return str(path)

    return write


@pytest.fixture
def scan(save: Callable[..., str], scan_data: np.ndarray) -> str:
    """A scan on an oblique, flipped, anisotropic grid."""
    return save(scan_data, "sub-01_T1w.nii.gz")


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty current folder, where interfaces write."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Weights of every name are there and have one digest; calls are recorded."""
    calls: dict[str, Any] = {}

    def find(name: str, **options: Any) -> SimpleNamespace:
        calls[name] = options
        return SimpleNamespace(name=name, path=Path("weights"), sha256=DIGEST, metadata={})

    monkeypatch.setattr("hyperprep.models.weights.find_weights", find)
    return calls


def like(img: nb.Nifti1Image, data: np.ndarray) -> nb.Nifti1Image:
    """Image with other values on the same grid."""
    return nb.Nifti1Image(data, img.affine)


@pytest.fixture
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Replace ``hyperprep.models.predict.<module>.<name>``, the module too, and record its keywords.

    The module is called like the function where it is not given.
    """
    import sys
    import types

    def install(name: str, function: Callable[..., Any], module: str = "") -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def record(*images: Any, **keywords: Any) -> Any:
            seen.update(keywords, images=images)
            return function(*images, **keywords)

        made = types.ModuleType(f"hyperprep.models.predict.{module or name}")
        setattr(made, name, record)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        return seen

    return install


def shift_field(grid: Grid, mm: tuple[float, float, float]) -> DisplacementField:
    """The same displacement at every node."""
    return DisplacementField(grid, np.broadcast_to(np.float32(mm), (*grid.shape, 3)).copy())
