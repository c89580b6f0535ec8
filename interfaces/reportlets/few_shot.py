"""A few-shot result beside the examples that it was made from."""

from html import escape
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.base import read_affine
from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import (
    WIDTH,
    Cell,
    document,
    jpeg_uri,
    line_element,
    path_data,
)
from hyperprep.interfaces.reportlets.slices import (
    Box,
    Plane,
    bounding_box,
    plane_points,
    sample,
    to_grey,
    window,
)

COLOUR = "#ffb000"
SHOWN = 4
"""Examples in the figure."""
HEAD = 46.0
SPACING = 1.0
"""Distance between pixels, mm."""
RESULT_MARGIN_MM = 40.0


def centre_of(result: nib.Nifti1Image, *, is_mask: bool, box: Box) -> tuple[float, float, float]:
    """Give the point through which planes are cut: the middle of a mask, else of the box, RAS mm.

    Examples
    --------
    >>> data = np.zeros((7, 8, 9), np.uint8)
    >>> data[2, 3, 4] = 1
    >>> centre_of(nib.Nifti1Image(data, np.eye(4)), is_mask=True, box=Box((0.0,) * 3, (2.0,) * 3))
    (2.0, 3.0, 4.0)
    """
    held = np.argwhere(np.asanyarray(result.dataobj) > 0)
    if not is_mask or not len(held):
        low, high = np.array(box.low), np.array(box.high)
        x, y, z = (low + high) / 2
        return float(x), float(y), float(z)
    middle = held[np.abs(held - held.mean(0)).sum(1).argmin()]
    x, y, z = nib.affines.apply_affine(result.affine, middle)
    return float(x), float(y), float(z)


def draw_few_shot(
    scan: nib.Nifti1Image,
    result: nib.Nifti1Image,
    spread: nib.Nifti1Image,
    examples: list[tuple[str, nib.Nifti1Image, nib.Nifti1Image, np.ndarray]],
    *,
    is_mask: bool,
    name: str,
) -> str:
    """SVG with one row per orientation: the scan with its result, the spread, and up to four examples.

    Parameters
    ----------
    scan, result, spread
        On the scan's grid.
    examples
        Name, input, output and (4, 4) point map from the scan to the example.
    is_mask
        Draw outputs as outlines; else as pictures in place of the inputs.
    name
        Name of the task.

    Returns
    -------
    The SVG document.
    """
    whole = bounding_box(scan, margin=4.0)
    box = bounding_box(result, margin=RESULT_MARGIN_MM) if is_mask else whole
    box = Box(
        tuple(max(a, b) for a, b in zip(box.low, whole.low, strict=True)),  # type: ignore[arg-type]
        tuple(min(a, b) for a, b in zip(box.high, whole.high, strict=True)),  # type: ignore[arg-type]
    )
    centre = centre_of(result, is_mask=is_mask, box=box)
    identity = np.eye(4)
    columns: list[tuple[str, nib.Nifti1Image, nib.Nifti1Image | None, np.ndarray]] = [
        ("Result" if is_mask else "Scan", scan, result if is_mask else None, identity)
    ]
    if not is_mask:
        columns.append(("Result", result, None, identity))
    columns.append(("Spread", spread, None, identity))
    for label, given, wanted, matrix in examples[:SHOWN]:
        columns.append(
            (f"Example {label}", given if is_mask else wanted, wanted if is_mask else None, matrix)
        )
    width = WIDTH / len(columns)
    body, y = [f'<text class="title" x="8" y="20">{escape(name)}</text>'], HEAD
    for place, (label, *_) in enumerate(columns):
        body.append(f'<text x="{place * width + 6:.0f}" y="38">{escape(label)}</text>')
    for axis in (2, 1, 0):
        plane = Plane(axis, round(centre[axis], 1))
        points = plane_points(plane, box, SPACING)
        height = width * points.shape[0] / points.shape[1]
        for place, (_, image, outline, matrix) in enumerate(columns):
            cell = Cell(plane, place * width, y, width, height)
            body += _cell(cell, points @ matrix[:3, :3].T + matrix[:3, 3], image, outline)
        body.append(f'<text x="6" y="{y + height - 7:.0f}">{plane.label}</text>')
        y += height + 3
    return document(
        body, height=y, label=f"Few-shot task {name}: result, spread and examples", kind="hp-few-shot"
    )


def _cell(
    cell: Cell, points: np.ndarray, image: nib.Nifti1Image, outline: nib.Nifti1Image | None
) -> list[str]:
    data = np.nan_to_num(np.asanyarray(image.dataobj, dtype=np.float32))
    pixels = to_grey(sample(data, image.affine, points), window(data))
    elements = [
        f'<image x="{cell.x:.1f}" y="{cell.y:.1f}" width="{cell.width:.1f}" height="{cell.height:.1f}" '
        f'preserveAspectRatio="none" href="{jpeg_uri(pixels)}"/>'
    ]
    if outline is not None:
        inside = (np.asanyarray(outline.dataobj) > 0).astype(np.float32)
        elements.append(line_element(path_data(sample(inside, outline.affine, points), [0.5], cell), COLOUR))
    return elements


class _FewShotPanelInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan")
    result = File(exists=True, mandatory=True, desc="what the task made, on the scan's grid")
    spread = File(exists=True, mandatory=True, desc="how much the predictions differ, on the scan's grid")
    is_mask = traits.Bool(mandatory=True, desc="whether the task makes a mask")
    example_inputs = InputMultiObject(
        File(exists=True), mandatory=True, desc="first input of each example that was given"
    )
    example_outputs = InputMultiObject(File(exists=True), mandatory=True, desc="output of each of them")
    places = traits.List(traits.Int, desc="which of them were used, most similar first; by default all")
    labels = traits.List(traits.Str, desc="names of those used")
    transforms = InputMultiObject(
        File(exists=True), desc="ITK transforms that bring those used onto the scan; by default none is moved"
    )
    task = traits.Str("few-shot", usedefault=True, desc="name of the task")
    out_file = File("few_shot.svg", usedefault=True, desc="name of the figure")


class _FewShotPanelOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class FewShotPanel(SimpleInterface):
    """Result, its spread and the examples, side by side in three planes at the same place."""

    input_spec = _FewShotPanelInputSpec
    output_spec = _FewShotPanelOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        places = given.places if isdefined(given.places) else list(range(len(given.example_outputs)))
        labels = given.labels if isdefined(given.labels) else [str(place + 1) for place in places]
        files = given.transforms if isdefined(given.transforms) else [None] * len(places)
        examples = [
            (
                label,
                nib.load(given.example_inputs[place]),
                nib.load(given.example_outputs[place]),
                read_affine(file),
            )
            for place, label, file in list(zip(places, labels, files, strict=True))[:SHOWN]
        ]
        svg = draw_few_shot(
            nib.load(given.in_file),
            nib.load(given.result),
            nib.load(given.spread),
            examples,
            is_mask=given.is_mask,
            name=given.task,
        )
        self._results["out_file"] = str(save_report(svg, given.out_file, runtime.cwd))
        return runtime
