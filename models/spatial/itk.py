"""The border between nibabel (RAS+, any affine) and SimpleITK (LPS, orthonormal directions).

SimpleITK's own NIfTI reader refuses headers whose axes are not exactly orthonormal, and ITK images cannot
hold shears at all. Images therefore cross this border as array plus affine. The affine's linear part ``M`` is
split into ``M = E R S``: voxel sizes ``S``, the rotation (or reflection) ``R`` nearest to ``M S^-1`` (polar
decomposition) and a residual ``E``, the identity for every grid without shear. ITK receives ``R`` and ``S``;
the residual comes back as a point map that the caller composes with its transforms: nothing is approximated.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.linalg import polar

from hyperprep.models.spatial.fields import DisplacementField
from hyperprep.models.spatial.grids import Grid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Takes RAS coordinates to LPS and back."""

_SHEAR_TOLERANCE = 1e-7


def split_shear(grid: Grid) -> tuple[Grid, np.ndarray]:
    """Split a grid into one with perpendicular axes and a residual point map.

    Parameters
    ----------
    grid
        Any grid.

    Returns
    -------
    straight
        Same shape, spacing and origin, perpendicular axes.
    residual
        ``(4, 4)`` point map, RAS mm, with ``residual @ straight.affine == grid.affine``; the identity matrix
        where the axes were perpendicular already.

    Examples
    --------
    >>> straight, residual = split_shear(Grid((7, 8, 9), np.diag([1.0, 2.0, -3.0, 1.0])))
    >>> bool((residual == np.eye(4)).all())
    True
    """
    spacing = grid.spacing
    columns = grid.affine[:3, :3] / spacing
    rotation, _ = polar(columns)
    affine = grid.affine.copy()
    affine[:3, :3] = rotation * spacing
    straight = Grid(grid.shape, affine)
    if np.abs(columns - rotation).max() < _SHEAR_TOLERANCE:
        return straight, np.eye(4)
    return straight, grid.affine @ np.linalg.inv(affine)


def _geometry(straight: Grid) -> tuple[list[float], list[float], list[float]]:
    """Spacing, origin and direction (LPS) of a grid without shear."""
    lps = LPS @ straight.affine
    direction, _ = polar(lps[:3, :3] / straight.spacing)
    return straight.spacing.tolist(), lps[:3, 3].tolist(), direction.ravel().tolist()


def image_to_itk(data: np.ndarray, grid: Grid) -> tuple[sitk.Image, np.ndarray]:
    """ITK image of an array.

    Parameters
    ----------
    data
        ``(X, Y, Z)``, or ``(X, Y, Z, C)`` for an image of vectors (components are not touched).
    grid
        Where its voxels lie.

    Returns
    -------
    image
        In LPS, on the grid without shear.
    residual
        ``(4, 4)`` RAS point map from the ITK image's space to the true world (see :func:`split_shear`).

    Examples
    --------
    >>> image, _ = image_to_itk(np.zeros((7, 8, 9), np.float32), Grid((7, 8, 9), np.eye(4)))
    >>> image.GetSize(), image.GetDirection()[0]
    ((7, 8, 9), -1.0)
    """
    straight, residual = split_shear(grid)
    axes = (2, 1, 0, 3)[: data.ndim]
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(axes)), isVector=data.ndim == 4)
    spacing, origin, direction = _geometry(straight)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image, residual


def itk_to_array(image: sitk.Image) -> np.ndarray:
    """Array ``(X, Y, Z)`` of an ITK image, first axis fastest in memory as in ITK and in NIfTI files.

    Examples
    --------
    >>> image, _ = image_to_itk(np.arange(504.0).reshape(7, 8, 9), Grid((7, 8, 9), np.eye(4)))
    >>> float(itk_to_array(image)[1, 2, 3])
    93.0
    """
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def resampler(straight: Grid) -> sitk.ResampleImageFilter:
    """Give ITK's resampling onto a grid without shear; zero outside of the image.

    Examples
    --------
    >>> image, _ = image_to_itk(np.ones((7, 8, 9), np.float32), Grid((7, 8, 9), np.eye(4)))
    >>> resampler(Grid((4, 5, 6), np.eye(4))).Execute(image).GetSize()
    (4, 5, 6)
    """
    spacing, origin, direction = _geometry(straight)
    program = sitk.ResampleImageFilter()
    program.SetSize([int(n) for n in straight.shape])
    program.SetOutputSpacing(spacing)
    program.SetOutputOrigin(origin)
    program.SetOutputDirection(direction)
    program.SetDefaultPixelValue(0.0)
    return program


def affine_to_itk(matrix: np.ndarray) -> sitk.AffineTransform:
    """ITK affine transform (LPS, centre 0) of a ``(4, 4)`` RAS point map.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = 1, 2, 3
    >>> affine_to_itk(shift).TransformPoint((0.0, 0.0, 0.0))
    (-1.0, -2.0, 3.0)
    """
    lps = LPS @ np.asarray(matrix, dtype=np.float64) @ LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def displacement_from_itk(transform: sitk.Transform, grid: Grid) -> DisplacementField:
    """Sample a point map on a grid.

    Parameters
    ----------
    transform
        ITK transform (LPS).
    grid
        Where it is sampled.

    Returns
    -------
    DisplacementField
        Displacements in mm, RAS components, float32.

    Examples
    --------
    >>> shift = affine_to_itk(np.array([[1.0, 0, 0, 3], [0, 1, 0, 2], [0, 0, 1, 1], [0, 0, 0, 1]]))
    >>> displacement_from_itk(shift, Grid((7, 8, 9), np.eye(4))).data[0, 0, 0].tolist()
    [3.0, 2.0, 1.0]
    """
    straight, residual = split_shear(grid)
    image, _ = image_to_itk(np.broadcast_to(np.uint8(0), grid.shape), straight)
    sheared = not np.array_equal(residual, np.eye(4))
    if sheared:
        outer = sitk.CompositeTransform(3)
        outer.AddTransform(transform)
        outer.AddTransform(affine_to_itk(residual))
        transform = outer
    made = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        image.GetSize(),
        image.GetOrigin(),
        image.GetSpacing(),
        image.GetDirection(),
    )
    data = sitk.GetArrayFromImage(made).transpose(2, 1, 0, 3) * np.array([-1.0, -1.0, 1.0])
    if sheared:
        nodes = np.moveaxis(np.indices(grid.shape), 0, -1)
        data += straight.to_world(nodes) - grid.to_world(nodes)
    return DisplacementField(grid, data.astype(np.float32))


def affine_from_itk(transform: sitk.Transform) -> np.ndarray:
    """``(4, 4)`` RAS point map of a linear ITK transform, found by mapping the corners of a tetrahedron.

    Raises
    ------
    ValueError
        If the transform is not linear.

    Examples
    --------
    >>> matrix = np.diag([1.5, 1.0, 1.0, 1.0])
    >>> bool(np.allclose(affine_from_itk(affine_to_itk(matrix)), matrix))
    True
    """
    if not transform.IsLinear():
        raise ValueError(f"{transform.GetName()} is not linear and has no matrix")
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, :3] = np.stack(
        [np.array(transform.TransformPoint(tuple(unit))) - origin for unit in np.eye(3)], axis=1
    )
    lps[:3, 3] = origin
    return LPS @ lps @ LPS
