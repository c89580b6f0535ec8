"""Transforms of any origin joined into one, and sampled as displacements on a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from hyperprep.models.spatial.fields import DisplacementField
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import affine_to_itk, image_to_itk
from hyperprep.models.spatial.transforms import Chain, to_itk


def displacements_of(chain_or_itk: Chain | sitk.Transform, grid: Grid) -> DisplacementField:
    """Sample a point map at the nodes of a grid, as displacements.

    Parameters
    ----------
    chain_or_itk
        Point map, as a chain (RAS) or an ITK transform (LPS).
    grid
        Where it is sampled; its axes are perpendicular.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = 1, 2, 3
    >>> displacements_of([shift], Grid((2, 3, 4), np.eye(4))).data[1, 2, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    transform = chain_or_itk if isinstance(chain_or_itk, sitk.Transform) else to_itk(chain_or_itk)
    template, _ = image_to_itk(np.broadcast_to(np.uint8(0), grid.shape), grid)
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetReferenceImage(template)
    sampler.SetOutputPixelType(sitk.sitkVectorFloat32)
    data = sitk.GetArrayFromImage(sampler.Execute(transform)).transpose(2, 1, 0, 3)
    return DisplacementField(grid, np.ascontiguousarray(data * np.array([-1, -1, 1], np.float32)))


def joined(steps: Sequence[np.ndarray | Chain | sitk.Transform]) -> sitk.CompositeTransform:
    """Make one ITK transform of matrices (RAS), chains and ITK transforms, applied first to last to a point.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 1
    >>> double = sitk.ScaleTransform(3, (2.0, 2.0, 2.0))
    >>> joined([shift, double]).TransformPoint((0.0, 0.0, 0.0))
    (-2.0, 0.0, 0.0)
    """
    composite = sitk.CompositeTransform(3)
    for step in reversed(steps):
        if isinstance(step, sitk.Transform):
            composite.AddTransform(step)
        elif isinstance(step, np.ndarray):
            composite.AddTransform(affine_to_itk(step))
        else:
            composite.AddTransform(to_itk(step))
    return composite
