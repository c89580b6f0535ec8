"""The demo as a BIDS dataset on disk, with its ground truth as a derivative."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nb

from hyperprep import __version__
from hyperprep.bidsapp.demo.person import Scan, scan_person
from hyperprep.bidsapp.demo.plan import Participant, Visit, make_plan
from hyperprep.bidsapp.demo.template import TEMPLATE_SPACE, TISSUE_NAMES, load_template
from hyperprep.exceptions import OutputError
from hyperprep.models.spatial.images import write_image
from hyperprep.models.spatial.transforms import write_transform

GENERATOR = "bidsapp-demo"
TRUTH = "groundtruth"
BIDS_VERSION = "1.10.0"

_TOP_LEVEL = frozenset(
    ("README", "CHANGES", "dataset_description.json", "participants.tsv", "participants.json", "derivatives")
)

_README = """\
Simulated T1-weighted scans
===========================

Nobody was scanned. Every head is the ICBM 152 template that the Python package nilearn bundles, deformed
at random, with a drawn skull and face around it, "scanned" by the program bidsapp-demo of HyperPrep.

- sub-01: isotropic voxels, whole head, two sessions. ses-02 is stored in LPS, lies differently in the
  scanner and holds a focal change: a dark, slightly expanding blob in the white matter.
- sub-02: oblique grid, whole head.
- sub-03: 1 x 1 x 3 mm, stored in LAS, skull-stripped (its sidecar says so).
- Further participants, if any, repeat these kinds.

derivatives/groundtruth holds what is known exactly: tissue labels, brain mask, the transforms between
scan and template that made the scan (ITK, both directions), and the mask of the focal change.

The numbers are no anatomy of anybody and suit tests and demonstrations only.

Template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute it for any purpose and without
fee is granted by its authors, provided that this notice appears in all copies; it comes without warranty.
"""

_TRUTH_README = """\
Ground truth of the simulated scans
===================================

All images lie on the grid of the scan they belong to.

- dseg: tissue (1 grey matter, 2 white matter, 3 CSF), the template's tissues moved by the transform below.
- desc-brain_mask: where dseg is not 0.
- desc-change_mask: the focal change of a follow-up session; dseg ignores it.
- from-TEMPLATE_to-T1w xfm: exact; it made the scan (resamples template images onto the scan).
- from-T1w_to-TEMPLATE xfm: its numerical inverse, right to about 0.1 mm.
"""


def write_demo(folder: str | os.PathLike[str], *, seed: int = 1, participants: int = 3) -> Path:
    """Write the demo dataset; the same arguments give the same bytes.

    The folder appears complete or not at all. An earlier demo in it is replaced, or kept where it was made
    with the same arguments.

    Parameters
    ----------
    folder
        Where to; must be absent, empty, or hold nothing but an earlier demo.
    seed
        Seed of everything random.
    participants
        How many participants, 1 to 99.

    Returns
    -------
    pathlib.Path
        The dataset.

    Raises
    ------
    UsageError
        If the number of participants is out of range or the seed is negative.
    OutputError
        If the folder holds anything else, or cannot be written.
    """
    plan = make_plan(participants)
    target = Path(folder).absolute()
    generated_by = _generated_by(seed, participants)
    if _earlier_demo(target) == generated_by:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"Cannot write {target}: {error.strerror}. Choose a folder on a writable disk."
        ) from error
    try:
        fresh = partial / "dataset"
        _write_tables(fresh, plan, generated_by)
        template = load_template()
        for person in plan:
            scans = scan_person(template, person, seed=seed)
            for visit, scan in zip(person.visits, scans, strict=True):
                _write_scan(fresh, person, visit, scan)
        if target.exists():
            target.rename(partial / "earlier")
        fresh.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _generated_by(seed: int, participants: int) -> list[dict[str, str]]:
    description = f"{participants} simulated participants, seed {seed}"
    return [{"Name": GENERATOR, "Version": __version__, "Description": description}]


def _earlier_demo(target: Path) -> Any:
    """``GeneratedBy`` of an earlier demo in this folder, None where the folder is absent or empty."""
    if not target.exists():
        return None
    if not target.is_dir():
        raise OutputError(f"{target} is a file: name a folder for the demo dataset.")
    entries = sorted(entry.name for entry in target.iterdir())
    if not entries:
        return None
    try:
        generated_by = json.loads((target / "dataset_description.json").read_text())["GeneratedBy"]
        is_demo = generated_by[0]["Name"] == GENERATOR
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        is_demo = False
    if not is_demo:
        raise OutputError(
            f"{target} is not empty and holds no demo dataset ({', '.join(entries[:3])} ...): "
            "name a new or empty folder, nothing was changed."
        )
    foreign = [name for name in entries if name not in _TOP_LEVEL and not name.startswith("sub-")]
    derivatives = sorted(entry.name for entry in (target / "derivatives").glob("*"))
    foreign += [f"derivatives/{name}" for name in derivatives if name != TRUTH]
    if foreign:
        raise OutputError(
            f"{target} holds a demo dataset and also {', '.join(foreign[:3])}: move that elsewhere "
            "or name another folder, nothing was changed."
        )
    return generated_by


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_tsv(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


def _write_tables(root: Path, plan: list[Participant], generated_by: list[dict[str, str]]) -> None:
    """Everything but the scans."""
    common = {"BIDSVersion": BIDS_VERSION, "GeneratedBy": generated_by, "License": "see README"}
    name = "HyperPrep demo: simulated T1-weighted scans"
    _write_json(root / "dataset_description.json", {"Name": name, "DatasetType": "raw", **common})
    (root / "README").write_text(_README)
    (root / "CHANGES").write_text(f"{__version__} 2026-01-01\n  - Generated by {GENERATOR}.\n")
    header = ("participant_id", "grid", "head", "scans")
    rows = [(f"sub-{who.label}", who.grid, who.head, str(len(who.visits))) for who in plan]
    _write_tsv(root / "participants.tsv", [header, *rows])
    columns = {
        "grid": {"Description": "Kind of voxel grid"},
        "head": {
            "Description": "What is around the brain",
            "Levels": {"whole": "Simulated skull, face and neck", "stripped": "Nothing"},
        },
        "scans": {"Description": "Number of T1-weighted scans"},
    }
    _write_json(root / "participants.json", columns)
    truth = root / "derivatives" / TRUTH
    links = {"raw": "../.."}
    _write_json(
        truth / "dataset_description.json",
        {"Name": f"{name}, ground truth", "DatasetType": "derivative", **common, "DatasetLinks": links},
    )
    (truth / "README").write_text(_TRUTH_README)
    (truth / ".bidsignore").write_text("*_xfm.*\n")
    tissues = [(str(number), tissue, tissue) for number, tissue in TISSUE_NAMES.items()]
    _write_tsv(truth / "dseg.tsv", [("index", "name", "abbreviation"), *tissues])


def _write_scan(root: Path, person: Participant, visit: Visit, scan: Scan) -> None:
    """One scan and its truth."""
    folders, stem = [f"sub-{person.label}"], f"sub-{person.label}"
    if visit.session:
        folders.append(f"ses-{visit.session}")
        stem += f"_ses-{visit.session}"
    relative = Path(*folders) / "anat"
    raw = root / relative / f"{stem}_T1w.nii.gz"
    write_image(scan.t1w, raw)
    _write_json(raw.with_name(f"{stem}_T1w.json"), _t1w_sidecar(visit))
    truth = root / "derivatives" / TRUTH / relative
    source = f"bids:raw:{(relative / raw.name).as_posix()}"
    images: list[tuple[str, nb.Nifti1Image | None, dict[str, Any]]] = [
        ("dseg", scan.dseg, {}),
        ("desc-brain_mask", scan.mask, {"Type": "Brain"}),
        ("desc-change_mask", scan.change, {"Type": "Lesion", "RawSources": [source]}),
    ]
    for name, img, extra in images:
        if img is not None:
            img.header.set_xyzt_units("mm")
            write_image(img, truth / f"{stem}_{name}.nii.gz")
            sidecar = {"Sources": [source], "SpatialReference": source, **extra}
            _write_json(truth / f"{stem}_{name}.json", sidecar)
    write_transform(scan.to_template, truth / f"{stem}_from-{TEMPLATE_SPACE}_to-T1w_mode-image_xfm.h5")
    write_transform(scan.to_scan, truth / f"{stem}_from-T1w_to-{TEMPLATE_SPACE}_mode-image_xfm.h5")


def _t1w_sidecar(visit: Visit) -> dict[str, Any]:
    return {
        "Manufacturer": "Simulated",
        "ManufacturersModelName": GENERATOR,
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "3D",
        "BodyPart": "HEAD",
        "SkullStripped": not visit.acquisition.whole_head,
    }
