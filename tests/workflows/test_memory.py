"""Memory reserved for the steps grows with the images, and a run that cannot hold it is not started."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hyperprep.workflows.memory import NEEDS, SCAN_VOXELS, TEMPLATE_VOXELS, needed_gb
from hyperprep.workflows.run import init_run_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template

#: Peak GB of a step alone in a process, with a scan of 94.4 million voxels (0.5 mm); benchmarks/memory.py.
MEASURED_AT_HALF_MM = {
    "conform": 1.60,
    "n4": 3.16,
    "locate": 2.25,
    "prealign": 2.14,
    "segment": 2.87,
    "measure": 1.60,
    "strip": 1.98,
    "register": 3.38,
    "contours": 2.88,
}


def mem_gb(voxels: int, tmp_path: Path) -> dict[str, float]:
    """Memory of every node of a scan of so many voxels, by the end of its name."""
    workflow = init_run_wf(
        participants={"01": [Scan(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz", voxels=voxels)]},
        template=Template(),
        settings=AnatSettings(bids_dir=tmp_path, output_dir=tmp_path / "out"),
        output_spaces=(OutputSpace("2"),),
    )
    return {node.fullname: node.mem_gb for node in workflow._create_flat_graph().nodes()}


@pytest.mark.parametrize("step", MEASURED_AT_HALF_MM)
def test_what_was_measured_is_reserved(step: str) -> None:
    measured = MEASURED_AT_HALF_MM[step]
    assert measured <= needed_gb(step, 94_371_840) <= 1.5 * measured + 0.3


def test_a_scan_of_usual_size_fits_a_small_machine() -> None:
    assert max(needed_gb(step, SCAN_VOXELS + TEMPLATE_VOXELS) for step in NEEDS) <= 4


def test_finer_scans_reserve_more(tmp_path: Path) -> None:
    coarse, fine = (mem_gb(voxels, tmp_path) for voxels in (SCAN_VOXELS, 16 * SCAN_VOXELS))
    grown = {name.rsplit(".", 1)[-1] for name in coarse if fine[name] > coarse[name]}
    assert grown >= {
        "conform", "n4", "locate", "prealign", "segment", "measure", "strip_scan", "register", "dseg_std",
        "t1w_preproc_std", "segmentation", "slider",
    }  # fmt: skip
    assert {name for name in coarse if "template_" in name and fine[name] != coarse[name]} == set()


def test_the_number_of_voxels_does_not_enter_what_is_computed() -> None:
    scan, template = Scan(Path("sub-01_T1w.nii")), Template()
    assert dataclasses.replace(scan, voxels=1) == scan
    assert repr(dataclasses.replace(template, voxels=1)) == repr(template)
