"""What the deformation does to space: the scan's coordinate grid, warped to the template."""

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from hyperprep.interfaces.base import itk_threads
from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import Mosaic, document, line_element, path_data
from hyperprep.interfaces.reportlets.slices import (
    IN_PLANE_AXES,
    bounding_box,
    plane_points,
    sample,
    to_grey,
)
from hyperprep.models.spatial.itk import affine_from_itk
from hyperprep.models.spatial.transforms import read_transform

COUNTS = (4, 5, 5)
"""Sagittal, coronal and axial planes."""

LPS_SIGNS = np.array([-1.0, -1.0, 1.0])
"""What turns RAS components into LPS ones and back."""


def without_affine(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Points of a plane as the deformation alone moves them: the linear parts of a transform are taken out.

    Parameters
    ----------
    transform
        Point map from the reference space, in the order of ITK composites.
    points
        (rows, columns, 3) RAS mm, equally spaced along rows and columns, at least two of each.

    Returns
    -------
    (rows, columns, 3) RAS mm, in the reference space.

    Examples
    --------
    >>> from hyperprep.interfaces.reportlets.slices import Box, Plane
    >>> shift = sitk.TranslationTransform(3, (5.0, 0.0, 0.0))
    >>> points = plane_points(Plane(2, 5.0), Box((0.0, 0.0, 0.0), (4.0, 3.0, 9.0)), 1.0)
    >>> bool(np.allclose(without_affine(shift, points), points))
    True
    """
    linear = np.eye(4)
    for member in _members(transform):
        if member.IsLinear():
            linear = affine_from_itk(member) @ linear
    moved = points + _displacements(transform, points)
    return np.asarray(apply_affine(np.linalg.inv(linear), moved))


def _displacements(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Compute what a transform adds to the points of a plane; ITK maps the whole plane at once."""
    lps = points * LPS_SIGNS
    across, down = lps[0, 1] - lps[0, 0], lps[1, 0] - lps[0, 0]
    spacing = [float(np.linalg.norm(across)), float(np.linalg.norm(down)), 1.0]
    axes = np.stack([across / spacing[0], down / spacing[1]], axis=1)
    direction = np.column_stack([axes, np.cross(axes[:, 0], axes[:, 1])])
    rows, columns = points.shape[:2]
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        (columns, rows, 1),
        lps[0, 0].tolist(),
        spacing,
        direction.ravel().tolist(),
    )
    return np.asarray(sitk.GetArrayFromImage(field)[0] * LPS_SIGNS)


def _members(transform: sitk.Transform) -> list[sitk.Transform]:
    """Members of a (nested) composite in the order in which they meet a point."""
    if transform.GetName() != "CompositeTransform":
        return [transform]
    composite = sitk.CompositeTransform(transform)
    parts = [composite.GetNthTransform(index) for index in reversed(range(composite.GetNumberOfTransforms()))]
    return [member for part in parts for member in _members(part)]


def draw_grid(
    img: nib.Nifti1Image,
    transform: sitk.Transform,
    *,
    mask: nib.Nifti1Image | None = None,
    distance: float = 8.0,
) -> str:
    """SVG of the template with the scan's coordinate grid as the deformation brings it there.

    Parameters
    ----------
    img
        Template.
    transform
        Point map from the template to the scan; its affine part is left out of the picture.
    mask
        Brain mask of the template.
    distance
        Distance between grid lines in the scan, mm.

    Returns
    -------
    The SVG document.
    """
    mosaic = Mosaic.of(bounding_box(mask if mask is not None else img), counts=COUNTS)
    data = np.nan_to_num(np.asanyarray(img.dataobj, dtype=np.float32))
    limits = mosaic.limits(img, mask)
    body = [
        mosaic.raster(lambda points: to_grey(sample(data, img.affine, points), (limits[0], 1.7 * limits[1])))
    ]
    lines = {"#77ddff": "", "#ffd27f": ""}
    for cell in mosaic.cells():
        points = plane_points(cell.plane, mosaic.box, 2.0)
        moved = without_affine(transform, points)
        for axis, colour in zip(IN_PLANE_AXES[cell.plane.axis], lines, strict=True):
            levels = np.arange(
                np.ceil(mosaic.box.low[axis] / distance) * distance, mosaic.box.high[axis], distance
            )
            lines[colour] += path_data(moved[..., axis], levels, cell)
    body += [
        line_element(data_, colour, extra='style="stroke-width:.9px"') for colour, data_ in lines.items()
    ]
    body.append(
        f'<text x="8" y="20">Grid lines every {distance:g} mm of the affinely aligned scan, drawn over the '
        "template; the affine part is not shown</text>"
    )
    body.append(mosaic.marks())
    return document(
        body, height=mosaic.height, label="Grid of the scan warped to the template", kind="hp-grid"
    )


class _WarpedGridInputSpec(BaseInterfaceInputSpec):
    reference_image = File(exists=True, mandatory=True, desc="template")
    reference_mask = File(exists=True, desc="brain mask of the template")
    transform = File(exists=True, mandatory=True, desc="ITK point map from the template to the scan")
    grid_spacing = traits.Float(8.0, usedefault=True, desc="distance between grid lines, mm")
    out_file = File("warped_grid.svg", usedefault=True, desc="name of the figure")


class _WarpedGridOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class WarpedGrid(SimpleInterface):
    """The scan's coordinate grid over the template, as the deformation brings it there."""

    input_spec = _WarpedGridInputSpec
    output_spec = _WarpedGridOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        with itk_threads(1):
            svg = draw_grid(
                nib.load(inputs.reference_image),
                read_transform(inputs.transform),
                mask=nib.load(inputs.reference_mask) if isdefined(inputs.reference_mask) else None,
                distance=inputs.grid_spacing,
            )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime
