"""Deform an affinely aligned image onto the atlas of a segmentation network, whatever its contrast."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
import torch

from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nn.greedy import Stage, as_field, invert_displacement, refine
from hyperprep.models.nn.warp import resize, warp
from hyperprep.models.predict.rules import rescaled
from hyperprep.models.predict.sampling import lattice_grid, sample_averaged
from hyperprep.models.spatial.fields import DisplacementField
from hyperprep.models.weights import WeightsEntry

STAGES = (
    Stage(image_mm=4, field_mm=4, steps=40, longest=0.5, update_sigma=1.7),
    Stage(image_mm=2, field_mm=2, steps=80, longest=0.5, update_sigma=1.7),
    Stage(image_mm=1, field_mm=1, steps=35, longest=0.5, update_sigma=1.7),
)
"""Sizes are in voxels of the network's grid."""

LAMBDA = 0.6
"""Regularisation of the deformation; between 0.5 and 0.8 labels of real brains fit alike."""


@dataclass(frozen=True)
class OntoAtlas:
    """An image deformed onto the atlas; everything lies on the network's grid.

    Attributes
    ----------
    values
        (*grid) intensities of the image at the atlas' places.
    inside
        (*grid) bool: the brain there.
    forward
        Point map from the atlas to the affinely aligned image.
    inverse
        The way back.
    """

    values: np.ndarray
    inside: np.ndarray
    forward: DisplacementField
    inverse: DisplacementField


def deformation(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Register two brains on one grid by local correlation.

    Parameters
    ----------
    fixed, moving
        (*grid) in [0, 1], 0 outside the brain.

    Returns
    -------
    torch.Tensor
        (1, 3, *grid) from the fixed to the moving image, voxels.
    """
    coarsest = STAGES[0].field_mm
    start = fixed.new_zeros(1, 3, *(-(-n // coarsest) for n in fixed.shape))
    found = refine(start, fixed[None, None], moving[None, None], lam=LAMBDA, stages=STAGES)
    return resize(found, fixed.shape, factor=fixed.shape[0] / found.shape[2])


def deform_onto_atlas(
    network: AtlasUNet,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    brain: np.ndarray,
) -> OntoAtlas:
    """Register the atlas, painted in the image's own contrast, to the image, by local correlation.

    Parameters
    ----------
    network, entry
        Segmentation network and its weights.
    scan
        The image.
    template2scan
        (4, 4) affine point map from the template frame, RAS mm.
    brain
        (*grid) bool brain mask on the network's grid, affinely aligned.
    """
    grid = lattice_grid(entry.metadata["grid"])
    where = next(network.parameters()).device
    values = sample_averaged(scan, grid, template2scan)
    inside = torch.from_numpy(brain).to(where)
    image = torch.from_numpy(rescaled(values, brain, entry)).to(where)
    network.alignment = "affine"
    found = deformation(network.painted(image * inside), image * inside)
    forward = as_field(found, grid)
    return OntoAtlas(
        sample_averaged(scan, grid, [forward, template2scan]),
        warp(inside[None, None].float(), found)[0, 0].cpu().numpy() > 0.5,
        forward,
        as_field(invert_displacement(found), grid),
    )
