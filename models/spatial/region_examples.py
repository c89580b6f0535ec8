"""Scans in which some regions were drawn: which files, and whether they can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from hyperprep.exceptions import ScanError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import read_dseg, read_mask

INDEX = "examples.json"
"""Says what a folder of prepared examples holds; written last."""


@dataclass(frozen=True)
class MaskSource:
    """Where the mask of a region is: a file, and the number that stands for it; None where all but 0 does."""

    path: Path
    number: int | None = None


@dataclass(frozen=True)
class RegionExample:
    """A scan in which some regions were drawn.

    Attributes
    ----------
    label
        How messages name it, such as ``sub-01_ses-1``.
    participant
        Whose scan it is; nobody is both trained on and tested.
    image
        The scan.
    masks
        Where the regions are that were drawn in it, by name; those not named here may be there all the same.
    """

    label: str
    participant: str
    image: Path
    masks: Mapping[str, MaskSource]

    def state(self) -> list[Any]:
        """Describe image and masks so that a change of their files is seen: paths, numbers, times."""
        state: list[Any] = [str(self.image), self.image.stat().st_mtime_ns]
        for name, mask in self.masks.items():
            state.append([name, str(mask.path), mask.number, mask.path.stat().st_mtime_ns])
        return state


def read_masks(example: RegionExample, scan: nb.Nifti1Image) -> Iterator[tuple[str, nb.Nifti1Image]]:
    """Read the masks of an example, one after the other.

    Parameters
    ----------
    example
        Names them.
    scan
        The image that they were drawn on.

    Yields
    ------
    tuple of str and nibabel.Nifti1Image
        Name of a region, and its uint8 mask on the scan's grid.

    Raises
    ------
    NoInputError
        If a file is missing.
    ScanError
        If a mask lies on another grid, or nothing is marked in it.
    """
    last: tuple[Path, nb.Nifti1Image] | None = None
    for name, source in example.masks.items():
        if last is None or last[0] != source.path:
            last = source.path, (read_mask if source.number is None else read_dseg)(source.path)
        img = last[1]
        if not Grid.of(img).same_as(Grid.of(scan), tolerance=0.05):
            raise ScanError(
                f"{example.label}: {source.path} {img.shape} and {example.image} {scan.shape} do not lie on "
                "the same voxel grid. Save the mask from the very image it was drawn on, or resample it to "
                "that image."
            )
        data = np.asanyarray(img.dataobj)
        inside = data != 0 if source.number is None else data == source.number
        if not inside.any():
            raise ScanError(
                f"{example.label}: nothing is marked as {name} in {source.path}. Draw it, or leave the "
                "file out."
            )
        yield name, nb.Nifti1Image(inside.astype(np.uint8), scan.affine)
