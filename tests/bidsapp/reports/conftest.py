"""Derivatives as a run leaves them, with figures small enough for quick tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hyperprep.interfaces.reportlets.alignment import draw_layers
from hyperprep.interfaces.reportlets.curve import Curve, draw_curve
from hyperprep.interfaces.reportlets.segmentation import draw_contours
from hyperprep.interfaces.reportlets.slider import Pair, draw_slider
from hyperprep.interfaces.reportlets.summary import summary_fragment
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.sweep import LambdaSweep

GOOD = {"dice_mean": 0.75, "lambda": 0.3, "folding_percent": 0.001, "seconds": 60.0}
_SETTINGS = {
    "bids_dir": "/data/in put",
    "lam": "auto",
    "labels": ["all"],
    "weights_dir": None,
    "offline": False,
}


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings of a run, as plain values."""
    return dict(_SETTINGS)


@pytest.fixture(scope="session")
def figures() -> dict[str, str]:
    """One figure of each kind by its ``desc``."""
    points = np.stack(np.indices((24, 28, 24)), axis=-1) * 7.0 - 80
    ball = (np.linalg.norm(points, axis=-1) < 60).astype(np.uint8)
    affine = np.diag([7.0, 7.0, 7.0, 1.0])
    affine[:3, 3] = -80
    mask = nib.Nifti1Image(ball, affine)
    scan = nib.Nifti1Image((ball * (points[..., 0] + 200)).astype(np.float32), affine)
    lam = np.linspace(0, 1, 4)
    curve = draw_curve(Curve(pd.DataFrame({"lam": lam, "dice_a": lam, "sd_log_jacobian": lam}), 0.0))
    still = draw_contours(scan, mask=mask, dseg=nib.Nifti1Image(ball.astype(np.int16) * 3, affine))
    layers = [("Template", scan), ("Scan after affine", scan), ("Scan after deformation", scan)]
    flicker = draw_layers(layers, mask=mask)
    grid = Grid((24, 28, 24), affine)
    shifts = np.stack([np.full((24, 28, 24, 3), 10.0 * step) for step in (2, 1, 0)])
    sweep = LambdaSweep(np.array([0.0, 0.4, 1.0]), shifts, grid, np.eye(4), np.eye(4))
    rows = pd.DataFrame(
        {"lam": [0.0, 0.4, 1.0], "dice_all": [0.6, 0.8, 0.7], "sd_log_jacobian": [0.4, 0.2, 0]}
    )
    labels = nib.Nifti1Image(ball.astype(np.int16) * 10, affine)
    slider = draw_slider(sweep, Curve(rows, 0.4), Pair(scan, scan, mask, labels, labels))
    return {
        "alignment": flicker,
        "segmentation": still,
        "grid": still,
        "jacobian": still,
        "curve": curve,
        "slider": slider,
    }


@pytest.fixture
def derivatives(tmp_path: Path, figures: dict[str, str]) -> Callable[..., Path]:
    """Make the output folder of a run: ``derivatives(subject, sessions, **quality)``."""
    out = tmp_path / "out put ses-x"  # neither a space nor an entity in the folder's name may matter

    def make(subject: str = "01", sessions: tuple[str, ...] = ("",), **quality: Any) -> Path:
        folder = out / f"sub-{subject}" / "figures"
        folder.mkdir(parents=True)
        for session in sessions:
            stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
            for kind, svg in figures.items():
                (folder / f"{stem}_desc-{kind}_T1w.svg").write_text(svg)
            figure = {**GOOD, "segment_weights_sha256": "ab" * 32, **quality}
            (folder / f"{stem}_desc-summary_T1w.html").write_text(
                summary_fragment(f"{stem}_T1w.nii.gz", figure)
            )
            anat = folder.parent / (f"ses-{session}/anat" if session else "anat")
            anat.mkdir(parents=True)
            (anat / f"{stem}_quality.json").write_text(json.dumps(figure))
        return out

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine: install it to look at the pages")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[Path], Any]]:
    """Open a file offline; a script error, or a request for anything but the file, fails the test."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(180_000)
    wrong: list[str] = []

    def note(url: str, uri: str) -> None:
        if url.split("#")[0] != uri and not url.startswith("data:"):
            wrong.append(f"request {url[:100]}")

    def go(path: Path) -> Any:
        page = context.new_page()
        uri = path.as_uri()
        page.on("request", lambda request: note(request.url, uri))
        page.on("pageerror", lambda error: wrong.append(f"script {error}"))
        page.goto(uri)
        return page

    yield go
    context.close()
    assert wrong == []
