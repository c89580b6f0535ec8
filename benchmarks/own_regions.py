"""Regions taught by masks: Dice in brains that were not seen, against how many were annotated.

python -m benchmarks.own_regions --data DATA --work runs/own_regions --threads 2 --out FILE

The eight brains with manual labels: four teach, four are segmented at 1 mm from the scan alone, by the whole
chain. The manual labels of structures that the network knows by another protocol are taught as regions of
their own, beside regions that it does not know at all. One network holds all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch

from benchmarks.rows import Row, Rows
from benchmarks.segmentation import SHARED, overlap

NEW = {
    71: "Vermis-I-V", 72: "Vermis-VI-VII", 75: "Left-Basal-Forebrain", 76: "Right-Basal-Forebrain",
    102: "Right-Anterior-Insula", 103: "Left-Anterior-Insula",
    116: "Right-Entorhinal", 117: "Left-Entorhinal",
}  # fmt: skip
"""Manual labels of regions that the network does not know, by number."""

TEACH, TEST = 4, 4
"""Brains that teach at most, and brains that are segmented."""

KNOWN, PRIOR = "known by the network", "prior of masks alone"


def masks_of(manual: np.ndarray) -> dict[str, np.ndarray]:
    """Give the mask of every region that is taught, by its name."""
    from hyperprep.models.predict.volumes import region_name
    from hyperprep.models.spatial.labels import manual_to_freesurfer

    numbers = manual_to_freesurfer(manual)
    found = {f"{region_name(n)}-own": numbers == n for n in SHARED}
    return found | {name: manual == number for number, name in NEW.items()}


def prepare(data: Path, work: Path, threads: int) -> list[tuple[str, Path]]:
    """Write the masks as files, and bring brains and masks onto the atlas; gives participants and scans."""
    from hyperprep.models.predict.region_examples import prepare_examples
    from hyperprep.models.spatial.images import read_dseg
    from hyperprep.models.spatial.region_examples import INDEX, MaskSource, RegionExample

    oasis = data / "bids" / "oasis"
    scans = sorted(oasis.glob("sub-*/anat/*_T1w.nii.gz"))[: TEACH + TEST]
    examples = []
    for scan in scans:
        subject = scan.name.split("_")[0]
        drawn = read_dseg(
            oasis / "derivatives" / "manual" / subject / "anat" / f"{subject}_desc-manual_dseg.nii.gz"
        )
        sources = {}
        for name, inside in masks_of(np.asanyarray(drawn.dataobj).astype(int)).items():
            file = work / "masks" / f"{subject}_{name}.nii.gz"
            if inside.any() and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                nb.save(nb.Nifti1Image(inside.astype(np.uint8), drawn.affine), file)
            if inside.any():
                sources[name] = MaskSource(file)
        examples.append(RegionExample(subject, subject, scan, sources))
    if not (work / "prepared" / INDEX).exists():
        prepare_examples(examples[:TEACH], work / "scans", work / "prepared", variants=2, num_threads=threads)
    return [(example.participant, example.image) for example in examples]


def subset(prepared: Path, folder: Path, participants: list[str], share: float, seed: int = 0) -> Path:
    """Write an index of some participants, of whose regions a share was drawn, each once at least."""
    from hyperprep.models.spatial.region_examples import INDEX

    content = json.loads((prepared / INDEX).read_text())
    rows = [row for row in content["scans"] if row["participant"] in participants]
    names = sorted({name for row in rows for name in row["regions"]})
    rng = np.random.default_rng(seed)
    kept: dict[str, set[str]] = {}
    for name in names:
        having = sorted({row["participant"] for row in rows if name in row["regions"]})
        count = max(1, round(share * len(having)))
        kept[name] = {str(who) for who in rng.permutation(having)[:count]}
    for row in rows:
        row["regions"] = {
            name: place for name, place in row["regions"].items() if row["participant"] in kept[name]
        }
    content["scans"] = [row for row in rows if row["regions"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).write_text(json.dumps(content))
    return folder


def train(folder: Path, weights: Path, steps: int, minutes: float) -> float:
    """Train on an index; returns the seconds it took, also where it was done before."""
    from hyperprep.models.train.export_regions import RegionTraining, train_regions
    from hyperprep.models.train.regions import RegionTask
    from hyperprep.models.weights.resolver import read_manifest

    if not (weights / "regions.safetensors").exists():
        training = RegionTraining(steps=steps, max_minutes=minutes)
        train_regions(RegionTask(folder), folder / "run", weights, training=training)
    return float(read_manifest(weights)["regions"]["training_seconds"])


def measure(data: Path, who: str, scan_file: Path, weights: Path | None, threads: int) -> dict[str, float]:
    """Segment a brain from its scan alone; Dice of every region, those the network knows without ``own``."""
    from hyperprep.models.predict.place import place
    from hyperprep.models.predict.segment import segment
    from hyperprep.models.predict.volumes import region_name
    from hyperprep.models.spatial.images import read_dseg, read_scan
    from hyperprep.models.weights.own_regions import own_regions

    scan = read_scan(scan_file)
    placed = place(scan, num_threads=threads)
    own = own_regions(weights) if weights is not None else ()
    result = segment(
        scan, template2scan=placed.template2scan, mask=placed.mask, weights_dir=weights,
        labels=["all", *(region.name for region in own)], num_threads=threads,
    )  # fmt: skip
    manual = (
        data / "bids" / "oasis" / "derivatives" / "manual" / who / "anat" / f"{who}_desc-manual_dseg.nii.gz"
    )
    truth = masks_of(np.asanyarray(read_dseg(manual).dataobj).astype(int))
    found = {name: np.asanyarray(mask.dataobj) > 0 for name, mask in result.regions.items()}
    leaves = np.asanyarray(result.dseg.dataobj)
    found |= {region_name(number): leaves == number for number in SHARED}
    return {
        name: overlap(mask, truth[name if name in truth else f"{name}-own"]) for name, mask in found.items()
    }


def table(rows: list[Row]) -> list[str]:
    """Mean Dice over the regions of each group, for each way they were taught."""
    lines = [
        "| taught by | 17 structures that the network knows, as drawn here | 8 that it does not know "
        "| training, s |",
        "|---|---|---|---|",
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        known, new = ([row["dice"] for row in mine if row["new"] is flag] for flag in (False, True))
        cells = [f"{np.mean(v):.3f}" if v else "" for v in (known, new)]
        lines.append(f"| {way} | {cells[0]} | {cells[1]} | {mine[0]['seconds'] or ''} |")
    return lines


def detail(rows: list[Row], ways: list[str]) -> list[str]:
    """Dice of each region for some ways."""
    lines = [f"| region | {' | '.join(ways)} |", "|---" * (1 + len(ways)) + "|"]
    for name in dict.fromkeys(row["region"] for row in rows):
        cells = []
        for way in ways:
            held = [row["dice"] for row in rows if row["way"] == way and row["region"] == name]
            cells.append(f"{np.mean(held):.3f}" if held else "")
        lines.append(f"| {name.replace('-', ' ')} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--max-time", type=float, default=5.0, help="minutes of each training")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    brains = prepare(args.data, args.work, args.threads)
    rows = Rows(args.work / "rows.jsonl")
    teachers = [who for who, _ in brains[:TEACH]]
    ways: Mapping[str, tuple[int, float, int]] = {
        f"{PRIOR}, 4 brains": (4, 1.0, 0),
        "1 brain": (1, 1.0, args.steps),
        "2 brains": (2, 1.0, args.steps),
        "4 brains": (4, 1.0, args.steps),
        "4 brains, each region drawn in 2 of them": (4, 0.5, args.steps),
        "4 brains, each region drawn in 1 of them": (4, 0.25, args.steps),
    }
    for way, (count, share, steps) in ways.items():
        name = "".join(c if c.isalnum() else "_" for c in way)
        folder = subset(args.work / "prepared", args.work / name, teachers[:count], share)
        seconds = train(folder, args.work / name / "weights", steps, args.max_time)
        for who, scan in brains[TEACH:]:
            if rows.has(way=way, who=who):
                continue
            scores = measure(args.data, who, scan, args.work / name / "weights", args.threads)
            _add(
                rows,
                way,
                who,
                {k: v for k, v in scores.items() if k.endswith("-own") or k in NEW.values()},
                seconds,
            )
            if not rows.has(way=KNOWN, who=who):
                _add(rows, KNOWN, who, {f"{k}-own": v for k, v in scores.items() if f"{k}-own" in scores}, 0)
    lines = [*table(rows.known), "", *detail(rows.known, [KNOWN, *list(ways)[1:4]])]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


def _add(rows: Rows, way: str, who: str, scores: dict[str, float], seconds: float) -> None:
    for region, dice in scores.items():
        row: dict[str, Any] = {"way": way, "who": who, "region": region.removesuffix("-own"), "dice": dice}
        rows.add({**row, "new": region in NEW.values(), "seconds": round(seconds)})


if __name__ == "__main__":
    main()
