"""The real people of the few-shot benchmark: scans, masks, alignments and deformations, each made once."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch

STRUCTURES = {
    "thalamus": (59, 60), "caudate": (36, 37), "putamen": (57, 58), "pallidum": (55, 56),
    "hippocampus": (47, 48), "amygdala": (31, 32),
}  # fmt: skip
"""Manual labels of the six structures of the real volumes, both sides."""

HELD_OUT = ("pallidum", "amygdala")
"""Those of them that no training mask held (with the shipped configurations)."""


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    """Give the Dice coefficient of two masks.

    >>> dice_of(np.array([1, 1, 0]), np.array([1, 0, 0]))
    0.6666666666666666
    """
    return float(2 * np.count_nonzero((a > 0) & (b > 0)) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))


def subjects(data: Path) -> dict[str, tuple[nb.Nifti1Image, nb.Nifti1Image, nb.Nifti1Image]]:
    """Read scan, brain mask and manual labels of every real subject."""
    from hyperprep.models.spatial.images import read_dseg, read_scan

    out = {}
    for file in sorted((data / "bids" / "oasis").glob("sub-*/anat/*_T1w.nii.gz")):
        name = file.name.split("_")[0]
        scan = read_scan(file)
        folder = data / "bids" / "oasis" / "derivatives" / "manual" / name / "anat"
        mask = nb.Nifti1Image((scan.get_fdata() > 0).astype(np.uint8), scan.affine)
        out[name] = scan, mask, read_dseg(folder / f"{name}_desc-manual_dseg.nii.gz")
    return out


def template_map(scan: nb.Nifti1Image, mask: nb.Nifti1Image, threads: int) -> np.ndarray:
    """Align a scan to the template as the app does: (4, 4) point map from template to scan."""
    from nilearn.datasets import load_mni152_template

    from hyperprep.models.predict.prealign import prealign

    mni = load_mni152_template(resolution=1)
    template = nb.Nifti1Image(mni.get_fdata(dtype=np.float32), mni.affine)
    inside = nb.Nifti1Image((template.get_fdata() > 0).astype(np.uint8), template.affine)
    return prealign(template, scan, fixed_mask=inside, moving_mask=mask, num_threads=threads).fixed2moving


def examples_of(chosen: list[Any], numbers: tuple[int, ...]) -> list[Any]:
    """Make examples of one structure."""
    from hyperprep.models.spatial.examples import ExampleImages

    return [
        ExampleImages(name, (scan,), structure_mask(labels, numbers), mask)
        for name, (scan, mask, labels) in chosen
    ]


def structure_mask(labels: nb.Nifti1Image, numbers: tuple[int, ...]) -> nb.Nifti1Image:
    """Give the mask of some label numbers, uint8 on the grid of the labels."""
    inside = np.isin(np.asanyarray(labels.dataobj), numbers).astype(np.uint8)
    return nb.Nifti1Image(inside, labels.affine)


class Deformations:
    """Deformations of examples, each made once for all structures; what a call would have taken counts.

    Attributes
    ----------
    saved
        Seconds of the calls that were answered from memory.
    """

    def __init__(self) -> None:
        self.saved = 0.0
        self._known: dict[str, tuple[torch.Tensor, float]] = {}

    def __call__(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Give the deformation between two volumes."""
        from hyperprep.models.predict.normalise import deformation

        key = hashlib.sha256(fixed.numpy().tobytes() + moving.numpy().tobytes()).hexdigest()
        if key in self._known:
            self.saved += self._known[key][1]
        else:
            began = time.perf_counter()
            self._known[key] = deformation(fixed, moving), time.perf_counter() - began
        return self._known[key][0]


class People:
    """The real subjects, with alignments that are found once each.

    Parameters
    ----------
    data
        Folder that holds ``bids/oasis``.
    threads
        Threads of the alignments.
    """

    def __init__(self, data: Path, threads: int) -> None:
        self.known, self.threads = subjects(data), threads
        self._to_scan: dict[str, np.ndarray] = {}
        self._between: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
        self._moved: dict[tuple[str, str], tuple[nb.Nifti1Image, float]] = {}
        self.deformations = Deformations()

    def to_scan(self, name: str) -> np.ndarray:
        """Give the (4, 4) point map from the template to a subject."""
        if name not in self._to_scan:
            scan, mask, _ = self.known[name]
            self._to_scan[name] = template_map(scan, mask, self.threads)
        return self._to_scan[name]

    def aligned(self, target: str, name: str) -> tuple[Any, float]:
        """Give a subject with headers moved onto the target's space, and the seconds the alignment took."""
        from hyperprep.models.predict.prealign import prealign

        if (target, name) not in self._between:
            began = time.perf_counter()
            (scan, mask, _), (other, inside, _) = self.known[target], self.known[name]
            found = prealign(scan, other, fixed_mask=mask, moving_mask=inside, num_threads=self.threads)
            self._between[target, name] = found.fixed2moving, time.perf_counter() - began
        matrix, seconds = self._between[target, name]
        back = np.linalg.inv(matrix)
        moved = (nb.Nifti1Image(np.asanyarray(i.dataobj), back @ i.affine) for i in self.known[name])
        return tuple(moved), seconds

    def propagated(self, target: str, given: list[str]) -> tuple[nb.Nifti1Image, float]:
        """Move the labels of the example most like a target to it by SyN, in the template's frame at 1 mm.

        Returns
        -------
        tuple
            Manual numbers, and the seconds of the registration; it is made once for all structures.
        """
        from benchmarks.few_shot_baselines import moved_labels
        from hyperprep.models.predict.placing import sample_inputs
        from hyperprep.models.spatial.grids import model_grid
        from hyperprep.models.spatial.transforms import resample

        grid, to_scan = model_grid(1.0), self.to_scan(target)
        near = {name: self.aligned(target, name)[0] for name in given}
        held = {
            name: sample_inputs([scan], mask, grid, to_scan)[0][0] for name, (scan, mask, _) in near.items()
        }
        fixed = sample_inputs([self.known[target][0]], self.known[target][1], grid, to_scan)[0][0]
        best = max(given, key=lambda name: np.corrcoef(held[name].ravel(), fixed.ravel())[0, 1])
        if (target, best) not in self._moved:
            labels = resample(near[best][2], grid, [to_scan], interpolation="nearest")
            numbers = np.asanyarray(labels.dataobj).astype(np.float32)
            found, seconds = moved_labels(held[best], numbers, fixed, grid.affine)
            self._moved[target, best] = nb.Nifti1Image(found, grid.affine), seconds
        return self._moved[target, best]
