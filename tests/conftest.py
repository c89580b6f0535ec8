"""Fixtures shared by all tests: where the real scans are, and one demo dataset for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

# One thread per worker, no look-ups on the network and no window system, in child processes too.
for _variable, _value in {
    "OMP_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "MPLBACKEND": "Agg",
    "NIPYPE_NO_ET": "1",
    "NO_ET": "1",
    "TEMPLATEFLOW_AUTOUPDATE": "0",
}.items():
    os.environ.setdefault(_variable, _value)

import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real scans (``bids/``, ``labelmaps/``); skips the test where it is absent."""
    folder = Path(os.environ.get("HYPERPREP_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "bids").is_dir():
        pytest.skip(f"no real scans at {folder}: set HYPERPREP_TEST_DATA to the folder that holds bids/")
    return folder.resolve()


def _shared_by_workers(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The default demo dataset, generated once per test run. Tests read it and never write into it."""
    from hyperprep.bidsapp.demo import write_demo

    shared = _shared_by_workers(tmp_path_factory, worker_id)
    dataset = shared / "demo_dataset"
    with FileLock(shared / "demo_dataset.lock"):
        if not (dataset / "dataset_description.json").exists():
            write_demo(dataset)
    return dataset
