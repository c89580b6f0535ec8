"""Examples of a task: images and the output that belongs to them, checked before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nb
import numpy as np

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import read_mask, read_scan

Kind = Literal["mask", "image"]

MOST_INPUTS = 3
"""Images that an example may have as input."""


@dataclass(frozen=True)
class Example:
    """Files of one example.

    Attributes
    ----------
    label
        How reports name it, such as ``sub-01``.
    inputs
        One to three images on one grid, the same kinds of image in every example.
    output
        What the task makes of them, on the same grid.
    mask
        Brain mask; any grid.
    """

    label: str
    inputs: tuple[Path, ...]
    output: Path
    mask: Path | None = None


@dataclass(frozen=True)
class ExampleImages:
    """The images of one example; the output is float32 (images) or uint8 0/1 (masks)."""

    label: str
    inputs: tuple[nb.Nifti1Image, ...]
    output: nb.Nifti1Image
    mask: nb.Nifti1Image | None = None


def kind_of_output(path: Path) -> Kind:
    """Tell a mask from an image, by name, sidecar and values.

    A file is a mask if its suffix is ``mask``, its sidecar has a ``Type`` (BIDS asks masks for one), or it
    holds zero and one other value.

    Raises
    ------
    ScanError
        If a file called or described as a mask holds more than two values, or all values are equal.
    """
    img = read_scan_or_mask(path)
    values = np.unique(np.asanyarray(img.dataobj))
    name = path.name.split(".", 1)[0]
    sidecar = path.with_name(f"{name}.json")
    try:
        content = json.loads(sidecar.read_text())
    except (OSError, ValueError):
        content = {}
    named = name.rpartition("_")[2] == "mask" or (isinstance(content, dict) and "Type" in content)
    binary = len(values) == 2 and values[0] == 0
    if named and not binary:
        raise ScanError(
            f"{path} is called a mask but holds {len(values)} different values (from {values[0]:g} to "
            f"{values[-1]:g}). A mask holds 0 and one other value; give one file for each structure."
        )
    if name.rpartition("_")[2] == "dseg" and not binary:
        raise ScanError(
            f"{path} holds {len(values) - 1} labels. A few-shot task makes one mask: save the structure that "
            "you want as a mask of its own, and give each further one as a task of its own."
        )
    return "mask" if named or binary else "image"


def read_scan_or_mask(path: Path) -> nb.Nifti1Image:
    """Read an output.

    Raises
    ------
    NoInputError, ScanError
        If it is missing, no volume, or every voxel has one value: an empty mask is told as such.
    """
    try:
        return read_scan(path)
    except ScanError as error:
        if "every voxel has the value 0" in str(error):
            raise ScanError(
                f"{path} is empty: nothing is marked in it. Draw the structure, or leave this subject out of "
                "the examples."
            ) from error
        if "every voxel has the value" in str(error):
            raise ScanError(f"{error} An output with one value only teaches nothing.") from error
        raise


def read_example(example: Example, kind: Kind) -> ExampleImages:
    """Read and check one example.

    Raises
    ------
    NoInputError
        If a file is missing.
    ScanError
        If input and output lie on different grids, or an image cannot be used.
    UsageError
        If it has no input or more than three.
    """
    if not 1 <= len(example.inputs) <= MOST_INPUTS:
        raise UsageError(
            f"{example.label} has {len(example.inputs)} input images; one to {MOST_INPUTS} can be used."
        )
    inputs = tuple(read_scan(path) for path in example.inputs)
    output = read_scan_or_mask(example.output)
    grid = Grid.of(inputs[0])
    for path, img in (*zip(example.inputs[1:], inputs[1:], strict=True), (example.output, output)):
        if not grid.same_as(Grid.of(img), tolerance=0.05):
            raise ScanError(
                f"{example.label}: {path.name} {img.shape} and {example.inputs[0].name} {inputs[0].shape} do "
                "not lie on the same voxel grid. Save the output from the very image it was drawn on, or "
                "resample it to that image."
            )
    if kind == "mask":
        data = (np.asanyarray(output.dataobj) != 0).astype(np.uint8)
        output = nb.Nifti1Image(data, inputs[0].affine)
    mask = read_mask(example.mask, like=inputs[0]) if example.mask is not None else None
    return ExampleImages(example.label, inputs, output, mask)


def check_examples(examples: Sequence[Example]) -> Kind:
    """Check every example of a task and tell what kind of output it makes.

    Raises
    ------
    UsageError
        If there is none, or some outputs are masks and others images, or the numbers of inputs differ.
    NoInputError, ScanError
        As :func:`read_example`.
    """
    if not examples:
        raise UsageError("A few-shot task needs at least one example of input and output.")
    kinds = {example.label: kind_of_output(example.output) for example in examples}
    if len(set(kinds.values())) > 1:
        masks = ", ".join(label for label, kind in kinds.items() if kind == "mask")
        images = ", ".join(label for label, kind in kinds.items() if kind == "image")
        raise UsageError(
            f"The outputs are masks for {masks} but images for {images}. All examples of a task have "
            "one kind."
        )
    counts = {len(example.inputs) for example in examples}
    if len(counts) > 1:
        raise UsageError(
            f"The examples have {sorted(counts)} input images: give the same images for every subject."
        )
    kind = next(iter(kinds.values()))
    for example in examples:
        read_example(example, kind)
    return kind
