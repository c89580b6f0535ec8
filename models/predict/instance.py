"""Refine a registration that any program made, on its very pair of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nb
import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from nibabel.affines import apply_affine

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.nn.greedy import STAGES, as_displacement, as_field, invert_displacement, refine
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.pair import make_pair
from hyperprep.models.spatial.affines import fit_points
from hyperprep.models.spatial.grids import Grid, model_grid
from hyperprep.models.spatial.transforms import Chain, DisplacementField, map_points, resample


@dataclass(frozen=True)
class Refinement:
    """Result of :func:`refine_transform`.

    Attributes
    ----------
    chain, inverse_chain
        Point maps from the fixed image to the moving one, and back.
    forward
        The deformation alone, in the frame of the fixed image's template.
    moved
        Moving image on the fixed image's grid.
    metrics
        Similarity before and after, folding, sd of log |J|.
    """

    chain: Chain
    inverse_chain: Chain
    forward: DisplacementField
    moved: nb.Nifti1Image
    metrics: dict[str, Any]


def refine_transform(
    fixed: nb.Nifti1Image,
    moving: nb.Nifti1Image,
    transform: sitk.Transform | Chain,
    *,
    frame2fixed: np.ndarray | None = None,
    fixed_mask: nb.Nifti1Image | None = None,
    moving_mask: nb.Nifti1Image | None = None,
    lam: float = 0.3,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Refinement:
    """Refine a point map from the fixed to the moving image.

    The affine part of the map over the fixed brain is kept; what remains is the start of the refinement.

    Parameters
    ----------
    fixed, moving
        Images on their own grids.
    transform
        ITK transform or chain of point maps, fixed to moving, affine parts included.
    frame2fixed, fixed_mask, moving_mask
        As in :func:`hyperprep.models.predict.register.register`.
    lam
        Regularisation weight in [0, 1].
    device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Raises
    ------
    UsageError
        When lambda is outside [0, 1].
    ScanError
        When the brains do not lie where the transform says.
    DeviceError
        When the device is not there.
    """
    if not 0 <= lam <= 1:
        raise UsageError(f"lambda must lie in [0, 1], not {lam}.")
    frame2fixed = np.eye(4) if frame2fixed is None else np.asarray(frame2fixed, float)
    grid = model_grid(2.0)
    coarse = _coarser(grid, STAGES[0].field_mm // 2)
    nodes = coarse.to_world(np.argwhere(np.ones(coarse.shape, bool)))
    there = map_points(apply_affine(frame2fixed, nodes), transform)
    brain = fixed if fixed_mask is None else fixed_mask
    inside = resample(brain, coarse, [frame2fixed], interpolation="nearest").get_fdata().ravel() > 0
    if inside.sum() < 100:
        raise ScanError(
            "Almost nothing of the fixed brain lies where the template's brain is: give frame2fixed, the map "
            "from the template to the fixed image."
        )
    frame2moving = fit_points(nodes[inside], there[inside])
    left = apply_affine(np.linalg.inv(frame2moving), there) - nodes
    with torch_threads(num_threads), torch.inference_mode():
        where = pick_device(device)
        pair = make_pair(
            grid, (fixed, fixed_mask, None, frame2fixed), (moving, moving_mask, None, frame2moving), where
        )
        field = DisplacementField(coarse, left.reshape(*coarse.shape, 3).astype(np.float32))
        start = as_displacement(field).to(where)
        before = pair.measure_displacement(2 * F.interpolate(start, size=grid.shape, mode="trilinear"))
        assert pair.fixed_fine is not None
        assert pair.moving_fine is not None
        displacement = refine(start, pair.fixed_fine, pair.moving_fine, lam=lam)
        after = pair.measure_displacement(displacement)
        forward, inverse = (as_field(u, grid) for u in (displacement, invert_displacement(displacement)))
    chain: Chain = [np.linalg.inv(frame2fixed), forward, frame2moving]
    inverse_chain: Chain = [np.linalg.inv(frame2moving), inverse, frame2fixed]
    metrics = {"lambda": lam, "similarity_before": before["similarity"], **after}
    return Refinement(chain, inverse_chain, forward, resample(moving, Grid.of(fixed), chain), metrics)


def _coarser(grid: Grid, factor: int) -> Grid:
    """Make the grid over the same field of view whose voxels are ``factor`` times larger."""
    step = np.diag([factor, factor, factor, 1.0])
    step[:3, 3] = (factor - 1) / 2
    x, y, z = (n // factor for n in grid.shape)
    return Grid((x, y, z), grid.affine @ step)
