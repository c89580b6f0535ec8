"""Matrices, chains and ITK transforms joined into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from hyperprep.models.spatial.itk import affine_to_itk
from hyperprep.models.spatial.transforms import Chain, to_itk


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
