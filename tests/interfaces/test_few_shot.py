"""Few-shot interface and its figure, with a small function in the network's place."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.exceptions import UsageError
from hyperprep.interfaces.few_shot import FewShot
from hyperprep.interfaces.reportlets.few_shot import FewShotPanel
from hyperprep.models.spatial.transforms import read_transform

SHIFT = np.eye(4)
SHIFT[:3, 3] = 12, -7, 5


@pytest.fixture
def files(save: Callable[..., str], scan_data: np.ndarray) -> dict[str, Any]:
    """Two examples, one with a brain mask."""
    mask = np.zeros(scan_data.shape, np.float32)
    mask[2:5, 3:6, 4:7] = 1
    return {
        "example_inputs": [[save(scan_data, f"sub-0{n}_T1w.nii.gz")] for n in (1, 2)],
        "example_outputs": [save(mask, f"sub-0{n}_desc-a_mask.nii.gz") for n in (1, 2)],
        "example_masks": [None, save((scan_data > 0).astype("f4"), "sub-02_desc-brain_mask.nii.gz")],
        "example_labels": ["sub-01", "sub-02"],
    }


def answer(kind: str) -> Callable[..., SimpleNamespace]:
    def few_shot(images: list[Any], examples: list[Any], **options: Any) -> SimpleNamespace:
        def made(value: float, dtype: type) -> nb.Nifti1Image:
            return nb.Nifti1Image(np.full(images[0].shape, value, dtype), images[0].affine)

        mask = kind == "mask"
        return SimpleNamespace(
            output=made(1, np.uint8) if mask else made(7, np.float32),
            probability=made(0.8, np.float32) if mask else None,
            spread=made(0.1, np.float32),
            examples=("sub-02", "sub-01"),
            scan2example=(SHIFT, np.eye(4)),
            metadata={
                "examples": [{"label": "sub-02", "similarity": 0.9}, {"label": "sub-01", "similarity": 0.5}],
                "left_out": [],
                "context_size": 4,
                "bootstraps": 1,
                "resolution_mm": 2.0,
                "output_range": None if mask else [0.0, 9.0],
            },
        )

    return few_shot


@pytest.mark.parametrize("kind", ["mask", "image"])
def test_few_shot(
    scan: str,
    files: dict[str, Any],
    workdir: Path,
    weights: dict[str, Any],
    fake_module: Callable[..., Any],
    kind: str,
) -> None:
    if kind == "image":
        files["example_outputs"] = [one[0] for one in files["example_inputs"]]
    seen = fake_module("few_shot", answer(kind))
    sys.modules["hyperprep.models.predict.few_shot"].drawn_places = lambda count, seed: list(range(count))
    outputs = (
        FewShot(in_files=[scan], in_template_frame=True, num_threads=2, bootstraps=3, **files).run().outputs
    )
    assert seen["kind"] == kind
    assert seen["bootstraps"] == 3
    assert [example.label for example in seen["images"][1]] == ["sub-01", "sub-02"]
    assert [example.mask is None for example in seen["images"][1]] == [True, False]
    assert nb.load(outputs.out_file).shape == nb.load(scan).shape
    assert outputs.out_places == [1, 0]
    names = [one["Name"] for one in outputs.out_meta["ContextExamples"]]
    assert names == ["sub-02", "sub-01"]
    assert files["example_outputs"][1] in outputs.out_meta["ContextExamples"][0]["Files"]
    assert outputs.out_meta["WeightsSHA256"] == "0" * 64
    assert ("OutputRange" in outputs.out_meta) == (kind == "image")
    transform = read_transform(outputs.out_xfms[0])
    assert np.allclose(transform.TransformPoint((0.0, 0.0, 0.0)), (-12, 7, 5))
    assert json.loads(Path(outputs.out_metrics).read_text())["kind"] == kind


def test_lists_of_different_lengths_are_refused(
    scan: str, files: dict[str, Any], workdir: Path, weights: dict[str, Any]
) -> None:
    files["example_labels"] = ["sub-01"]
    with pytest.raises(UsageError, match="as many as each other"):
        FewShot(in_files=[scan], in_template_frame=True, **files).run()


@pytest.mark.parametrize("is_mask", [True, False])
def test_panel_shows_the_result_beside_the_examples(
    scan: str,
    files: dict[str, Any],
    save: Callable[..., str],
    scan_data: np.ndarray,
    workdir: Path,
    is_mask: bool,
) -> None:
    result = save(nb.load(files["example_outputs"][0]).get_fdata(dtype=np.float32), "result.nii.gz")
    panel = FewShotPanel(
        in_file=scan,
        result=result,
        spread=save(0.1 * scan_data, "spread.nii.gz"),
        is_mask=is_mask,
        example_inputs=[one[0] for one in files["example_inputs"]],
        example_outputs=files["example_outputs"],
        places=[1],
        labels=["sub-02"],
        task="claustrum <1>",
    )
    svg = Path(panel.run().outputs.out_file).read_text()
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "claustrum <1>" in texts
    assert "Example sub-02" in texts
    assert "Example sub-01" not in texts
    pictures = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert len(pictures) == (9 if is_mask else 12)
    lines = [e for e in root.iter("{http://www.w3.org/2000/svg}path") if "line" in e.get("class", "")]
    assert (len(lines) == 6) == is_mask
