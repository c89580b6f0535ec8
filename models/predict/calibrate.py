"""Calibrate the probabilities of the network ``segment`` on synthetic heads that were kept out of training.

python -m hyperprep.models.predict.calibrate --maps MAPS --count 12 --out WEIGHTS_FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from hyperprep.models.predict.reliability import Reliability, fit_temperature, sharpened
from hyperprep.models.predict.rules import temperature
from hyperprep.models.predict.segment import segment
from hyperprep.models.predict.synthetic_controls import HELD_OUT
from hyperprep.models.spatial.grids import model_grid
from hyperprep.models.spatial.labels import LEAVES
from hyperprep.models.synth.apply import model_lattice, render, sample_anatomy
from hyperprep.models.synth.draw import SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.maps import LabelMaps, load_maps
from hyperprep.models.synth.structures import STRUCTURES
from hyperprep.models.weights import find_weights
from hyperprep.models.weights.resolver import read_manifest, write_manifest

SPEC = SynthSpec(
    rotation_deg=3.0, shift_mm=2.0, log_scale=0.03, anisotropic_log_scale=0.03, warp_mm=3.0,
    random_contrast=0.15, contrasts=("T1w", "T1w", "T2w", "FLAIR", "PDw"), noise=0.06, bias=0.25,
    thick_slices=0.25, blur_mm=1.2, skull_kept=0.0, skull_badly_removed=0.0,
)  # fmt: skip
"""Any contrast, skull-stripped, as well aligned as a scan is after its affine alignment."""

SAMPLED = 40_000
"""Voxels of each head on which the temperature is fitted."""


@dataclass(frozen=True)
class Head:
    """A synthetic scan in the template frame, and its structures (FreeSurfer numbers), both at 1 mm."""

    scan: nb.Nifti1Image
    truth: np.ndarray
    contrast: str


def heads(maps: LabelMaps, count: int, *, seed: int, spec: SynthSpec = SPEC) -> Iterator[Head]:
    """Make scans of the label maps that were kept out of training.

    Parameters
    ----------
    maps
        Label maps; the last :data:`HELD_OUT` are used, in turns.
    count
        Number of scans.
    seed
        Seed of the images.
    spec
        Ranges.
    """
    grid, lattice = model_grid(1.0), model_lattice(1.0)
    groups, table = maps.groups(), maps.lookup(STRUCTURES)
    numbers = np.array([0, *STRUCTURES], np.int16)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        index = len(maps.maps) - 1 - number % min(HELD_OUT, len(maps.maps))
        anatomy = draw_anatomy(rng, spec, len(maps.maps), lattice.extent_mm, index=index)
        contrast = draw_contrast(rng, spec, int(groups.max()) + 1)
        sampling = sample_anatomy(maps, anatomy, lattice, subsamples=spec.subsamples, seed=contrast.seed)
        image = render(sampling, groups, contrast, spacing=1.0) * sampling.brain
        truth = numbers[table[sampling.indices[0].long()].long().numpy()]
        yield Head(nb.Nifti1Image(image.numpy(), grid.affine), truth, contrast.name)


def leaf_probabilities(
    head: Head, rng: np.random.Generator, **options: Any
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Segment a head and draw voxels where both the brain mask and the truth hold a structure.

    Returns
    -------
    tuple
        (N, L) log-probabilities, (N,) position of the truth among the classes, and the classes' numbers.
    """
    found = segment(head.scan, template2scan=np.eye(4), probabilities=True, **options)
    known = {leaf.index: found.probsegs[leaf.name] for leaf in LEAVES if leaf.name in found.probsegs}
    numbers = tuple(sorted(known))
    inside = np.flatnonzero((np.asanyarray(found.mask.dataobj) > 0) & np.isin(head.truth, numbers))
    drawn = rng.choice(inside, min(SAMPLED, len(inside)), replace=False)
    soft = np.stack([np.asanyarray(known[n].dataobj).reshape(-1)[drawn] for n in numbers], axis=1)
    truth = np.searchsorted(numbers, head.truth.reshape(-1)[drawn])
    return np.log(np.maximum(soft, 1e-12)), truth, numbers


def reliability_at(log_probability: np.ndarray, truth: np.ndarray, temperature: float = 1.0) -> Reliability:
    """Compare what the likeliest classes claim with the truth."""
    soft = sharpened(log_probability, temperature)
    curve = Reliability()
    curve.add(np.exp(soft.max(axis=1)), soft.argmax(axis=1) == truth)
    return curve


def calibrate(
    maps: LabelMaps, *, count: int, seed: int = 11, weights_dir: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """Fit the temperature on one half of the heads and measure it on the other.

    Parameters
    ----------
    maps
        Label maps.
    count
        Number of heads, at least two.
    seed
        Seed of the images.
    weights_dir, options
        As in :func:`hyperprep.models.predict.segment.segment`.

    Returns
    -------
    dict
        ``temperature``, that of the weights as they were included; ``ece_before`` and ``ece_after``, expected
        calibration errors on heads that the fit did not see; ``heads``, ``seed``.
    """
    entry = find_weights("segment", weights_dir=weights_dir)
    before = temperature(entry)
    rng = np.random.default_rng(seed)
    parts: tuple[list[tuple[np.ndarray, np.ndarray]], ...] = ([], [])
    for number, head in enumerate(heads(maps, count, seed=seed)):
        logs, truth, _ = leaf_probabilities(head, rng, weights_dir=weights_dir, **options)
        parts[number // 2 % 2].append((logs, truth))
        print(f"head {number + 1}/{count} ({head.contrast}): ECE {reliability_at(logs, truth).error:.4f}")
    (logs, truth), tested = (tuple(np.concatenate(v) for v in zip(*part, strict=True)) for part in parts)
    change = fit_temperature(logs, truth)
    return {
        "temperature": round(before * change, 4),
        "ece_before": round(reliability_at(tested[0], tested[1], 1 / before).error, 5),
        "ece_after": round(reliability_at(tested[0], tested[1], change).error, 5),
        "heads": count,
        "seed": seed,
        "data": "synthetic heads kept out of training, half of them to fit, half to measure",
    }


def main(argv: list[str] | None = None) -> None:
    """Write the calibration into the manifest beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="label maps made by 'train prepare'")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, help="folder of the weights (default: where they are found)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    found = calibrate(
        load_maps(args.maps), count=args.count, seed=args.seed, weights_dir=args.out, device=args.device,
        num_threads=args.threads,
    )  # fmt: skip
    folder = args.out or find_weights("segment").path.parent
    manifest = read_manifest(folder)
    manifest["segment"]["calibration"] = found
    write_manifest(folder, manifest)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
