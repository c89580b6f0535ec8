"""Template and scan on the same grid, shown in turns: the eye finds what does not fit."""

import os
from html import escape
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.reportlets.mosaic import WIDTH, Mosaic, document, line_element
from hyperprep.interfaces.reportlets.slices import bounding_box, sample, to_grey
from hyperprep.interfaces.reportlets.structures import group_fields

GUIDES = ("Lateral ventricles", "Thalamus", "Putamen", "Caudate", "Hippocampus", "Brain stem")
"""Structures of the reference whose outlines stay in place while the images change."""

SPACING = 0.8
"""Distance between pixels, mm."""

REFERENCE_COLOUR, SCAN_COLOUR = "#ffa630", "#5cc8ff"

FLICKER_STYLE = """\
@keyframes hp-flicker { 0%, 40% { opacity: 1; } 60%, 100% { opacity: 0; } }
.hp-flicker .layer { opacity: 0; }
.hp-flicker .layer.base, .hp-flicker .layer.top { opacity: 1; }
.hp-flicker .layer.top { animation: hp-flicker 1.2s ease-in-out infinite alternate paused; }
.hp-flicker:hover .layer.top, .hp-flicker.run .layer.top { animation-play-state: running; }
.hp-flicker.still .layer.top { animation: none; opacity: 1; }
"""


def draw_layers(
    images: list[tuple[str, nib.Nifti1Image]],
    *,
    mask: nib.Nifti1Image | None = None,
    dseg: nib.Nifti1Image | None = None,
    last_dseg: nib.Nifti1Image | None = None,
    names: tuple[str, str] = ("the template", "the scan"),
) -> str:
    """SVG whose layers flicker while the mouse is over it: the first below, the last on top.

    Parameters
    ----------
    images
        Label and image of every layer, all in the same space (their grids may differ). The first is the
        reference.
    mask
        Brain mask of the reference: what is shown, and what sets the grey levels.
    dseg
        Structures of the reference; some of their outlines are drawn over every layer.
    last_dseg
        Structures of the last image; the same outlines are drawn over its layer, in another colour.
    names
        What reference and last image are called beside their outlines.

    Returns
    -------
    The SVG document. Layers are ``g.layer`` with a ``data-label`` each.
    """
    mosaic = Mosaic.of(bounding_box(mask if mask is not None else images[0][1]))
    body = []
    for number, (label, img) in enumerate(images):
        data = np.nan_to_num(np.asanyarray(img.dataobj, dtype=np.float32))
        limits = mosaic.limits(img, mask)
        place = "base" if number == 0 else "top" if number == len(images) - 1 else ""

        def draw(
            points: np.ndarray,
            data: np.ndarray = data,
            affine: np.ndarray = img.affine,
            limits: tuple[float, float] = limits,
        ) -> np.ndarray:
            return to_grey(sample(data, affine, points), limits)

        body += [
            f'<g class="{f"layer {place}".strip()}" data-label="{escape(label)}">',
            f'<rect x="0" y="0" width="{WIDTH:.0f}" height="{mosaic.height:.0f}" fill="#000000"/>',
            mosaic.raster(draw, spacing=SPACING),
            f'<text class="title" x="{WIDTH / 2:.0f}" y="21" text-anchor="middle">{escape(label)}</text>',
        ]
        if place == "top" and last_dseg is not None:
            body += _outlines(mosaic, last_dseg, SCAN_COLOUR, f"of {names[1]}")
        body.append("</g>")
    body.append('<g class="guides">')
    if mask is not None:
        outside = np.asanyarray(mask.dataobj).astype(np.float32)
        outline = mosaic.contours(lambda points: sample(outside, mask.affine, points), [0.5])
        body.append(
            line_element(outline, "#ffffff", f"Brain mask of {names[0]}", extra='stroke-opacity=".55"')
        )
    if dseg is not None:
        body += _outlines(mosaic, dseg, REFERENCE_COLOUR, f"of {names[0]}")
    body += ["</g>", mosaic.marks(), *_key(dseg is not None, last_dseg is not None, names)]
    label = "Planes through " + ", ".join(label for label, _ in images) + ", shown in turns"
    return document(body, height=mosaic.height, label=label, kind="hp-flicker", style=FLICKER_STYLE)


def _outlines(mosaic: Mosaic, dseg: nib.Nifti1Image, colour: str, of_what: str) -> list[str]:
    """Outlines of the guide structures."""
    return [
        line_element(mosaic.contours(field, [0.5]), colour, f"{group.name} {of_what}")
        for group, field in group_fields(dseg, names=GUIDES)
    ]


def _key(reference: bool, scan: bool, names: tuple[str, str]) -> list[str]:
    """Explain the colours of the outlines, at the upper left."""
    entries = [(REFERENCE_COLOUR, f"structures of {escape(names[0])}")] if reference else []
    entries += [(SCAN_COLOUR, f"structures of {escape(names[1])}")] if scan else []
    elements = []
    for number, (colour, text) in enumerate(entries):
        x = 8 + 210 * number
        elements.append(
            f'<line x1="{x}" x2="{x + 20}" y1="16" y2="16" stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{x + 26}" y="20">{text}</text>'
        )
    return elements


class _BeforeAfterInputSpec(BaseInterfaceInputSpec):
    reference_image = File(exists=True, mandatory=True, desc="image that stays: the template")
    before = File(exists=True, desc="moving image on the reference's grid before the last step (affine only)")
    after = File(exists=True, mandatory=True, desc="moving image on the reference's grid after the last step")
    reference_mask = File(exists=True, desc="brain mask of the reference")
    reference_dseg = File(exists=True, desc="structures of the reference, FreeSurfer numbers")
    after_dseg = File(exists=True, desc="structures of the moving image after the last step")
    reference_label = traits.Str("Template", usedefault=True, desc="name of the reference in the figure")
    before_label = traits.Str("Scan after affine", usedefault=True, desc="name of the image before")
    after_label = traits.Str("Scan after deformation", usedefault=True, desc="name of the image after")
    names = traits.Tuple(
        traits.Str("the template"),
        traits.Str("the scan"),
        usedefault=True,
        desc="what reference and moving image are called beside their outlines",
    )
    out_file = File("before_after.svg", usedefault=True, desc="name of the figure")


class _BeforeAfterOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class BeforeAfter(SimpleInterface):
    """Reference, moving image before and after a step, as layers of one SVG that flicker on hover."""

    input_spec = _BeforeAfterInputSpec
    output_spec = _BeforeAfterOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        images = [(inputs.reference_label, inputs.reference_image)]
        if isdefined(inputs.before):
            images.append((inputs.before_label, inputs.before))
        images.append((inputs.after_label, inputs.after))
        svg = draw_layers(
            [(label, nib.load(path)) for label, path in images],
            mask=nib.load(inputs.reference_mask) if isdefined(inputs.reference_mask) else None,
            dseg=nib.load(inputs.reference_dseg) if isdefined(inputs.reference_dseg) else None,
            last_dseg=nib.load(inputs.after_dseg) if isdefined(inputs.after_dseg) else None,
            names=inputs.names,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime


def save_report(text: str, name: str, folder: str) -> Path:
    """Write a figure or fragment below a working directory unless its name is absolute.

    Returns
    -------
    The absolute path.
    """
    path = Path(os.path.abspath(os.path.join(folder, name)))
    path.write_text(text, encoding="utf-8")
    return path
