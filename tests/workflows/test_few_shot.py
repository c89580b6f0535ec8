"""A run with a few-shot task: names, sidecars and validity of what is written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.workflows.outputs import BIDSIGNORE
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, FewShotTask, Scan, Template


@pytest.fixture
def few_shot(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Few-shot tasks by threshold; what was asked for is recorded."""
    seen: dict[str, Any] = {}

    def predict(images: list[Any], examples: list[Any], **options: Any) -> SimpleNamespace:
        seen.update(options, examples=[e.label for e in examples])
        data = images[0].get_fdata()

        def made(values: np.ndarray) -> nb.Nifti1Image:
            return nb.Nifti1Image(values, images[0].affine)

        return SimpleNamespace(
            output=made((data > 80).astype("u1")),
            probability=made((data / 100).astype("f4")),
            spread=made(np.zeros(data.shape, "f4")),
            examples=tuple(seen["examples"]),
            scan2example=tuple(np.eye(4) for _ in examples),
            metadata={
                "examples": [{"label": label, "similarity": 0.5} for label in seen["examples"]],
                "left_out": [],
                "context_size": 4,
                "bootstraps": 1,
                "resolution_mm": 2.0,
                "output_range": None,
            },
        )

    module = types.ModuleType("hyperprep.models.predict.few_shot")
    module.few_shot = predict  # type: ignore[attr-defined]
    module.drawn_places = lambda count, seed: list(range(count))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


@pytest.fixture
def task(dataset: list[Scan], tmp_path: Path) -> FewShotTask:
    """An example that is somebody else, and one that is the participant."""
    folder = tmp_path / "lab"
    folder.mkdir()
    img = nb.load(dataset[0].t1w)
    files = []
    for number in ("01", "07"):
        given, output = folder / f"sub-{number}_T1w.nii.gz", folder / f"sub-{number}_desc-core_mask.nii.gz"
        img.to_filename(given)
        nb.Nifti1Image((img.get_fdata() > 80).astype("u1"), img.affine).to_filename(output)
        files.append((given, output))
    inputs, outputs = zip(*files, strict=True)
    return FewShotTask("core", "mask", inputs, outputs, (None, None), ("sub-01", "sub-07"))


def test_a_run_with_a_task(
    settings: AnatSettings,
    dataset: list[Scan],
    template_file: Path,
    networks: None,
    few_shot: dict[str, Any],
    task: FewShotTask,
    tmp_path: Path,
    read_json: Callable[[Path], dict[str, Any]],
) -> None:
    workflow = init_run_wf(
        participants={"01": dataset[:1]},
        template=Template("tiny", template_file),
        settings=dataclasses.replace(settings, reportlets=True, few_shot=(task,)),
        base_dir=tmp_path / "work",
    )
    assert "from 1 examples" in workflow.visit_desc()
    workflow.config["execution"].update(
        {"crashdump_dir": str(tmp_path / "crash"), "poll_sleep_duration": 0.01}
    )
    workflow.run(plugin="Linear")
    assert few_shot["examples"] == ["sub-07"]
    assert few_shot["kind"] == "mask"
    stem = settings.output_dir / "sub-01/ses-1/anat/sub-01_ses-1"
    mask = nb.load(f"{stem}_desc-core_mask.nii.gz")
    assert mask.shape == nb.load(dataset[0].t1w).shape
    assert mask.get_data_dtype() == np.uint8
    sidecar = read_json(Path(f"{stem}_desc-core_mask.json"))
    assert sidecar["Type"] == "ROI"
    assert [one["Name"] for one in sidecar["ContextExamples"]] == ["sub-07"]
    assert sidecar["WeightsSHA256"] == "0" * 64
    assert Path(f"{stem}_desc-coreSpread_probseg.nii.gz").is_file()
    figure = settings.output_dir / "sub-01/figures/sub-01_ses-1_seg-core_desc-fewshot_T1w.svg"
    assert "Example sub-07" in figure.read_text()
    _check_validator(settings.output_dir)


def _check_validator(root: Path) -> None:
    description = {
        "Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "HyperPrep"}],
    }  # fmt: skip
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / ".bidsignore").write_text("\n".join(BIDSIGNORE) + "\n")
    program = str(Path(sys.executable).with_name("bids-validator-deno"))
    done = subprocess.run(
        [program, "--format", "json", str(root)], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []
