"""Apply a segmentation network to a scan, on the network's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import ScanError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.predict.normalise import OntoAtlas, deform_onto_atlas
from hyperprep.models.predict.rules import intensity_range, structures, temperature, threshold
from hyperprep.models.predict.sampling import largest_component, lattice_grid, main_body, sample_averaged
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import scaled_between
from hyperprep.models.spatial.regions import voxel_mm3
from hyperprep.models.spatial.transforms import resample
from hyperprep.models.weights import WeightsEntry

LEAST_BRAIN_MM3 = 250_000
"""Smallest brain that is taken for one."""


@dataclass(frozen=True)
class OnGrid:
    """Results on the network's grid.

    Attributes
    ----------
    brain
        (*grid) probability.
    logits
        (L, *grid) of the leaves.
    trunk
        (1, features, *grid), what the logits were made of.
    image
        (*grid) in [0, 1] as the network saw it.
    limits
        Intensities that became 0 and 1.
    """

    brain: torch.Tensor
    logits: torch.Tensor
    trunk: torch.Tensor
    image: torch.Tensor
    limits: tuple[float, float]


def on_network_grid(
    network: LabelConditioned,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    mask: nb.Nifti1Image | None = None,
    *,
    trust_mask: bool = False,
) -> tuple[OnGrid, OntoAtlas | None]:
    """Apply the network to a scan: affinely aligned, then, where it has an atlas, deformed onto that.

    Parameters are those of :func:`hyperprep.models.predict.segment.segment`.

    Returns
    -------
    tuple
        What the network says on its grid, and how the scan was deformed; None without an atlas.

    Raises
    ------
    ScanError
        When no brain is found in the template frame.
    """
    numbers = tuple(sorted(structures(entry)))
    found = _affinely(network, entry, scan, template2scan, numbers, mask, trust_mask)
    grid = lattice_grid(entry.metadata["grid"])
    if found.brain.sum() * voxel_mm3(grid) < LEAST_BRAIN_MM3:
        raise ScanError(
            "No brain was found where the affine alignment puts it. Look at the alignment in the report."
        )
    if not isinstance(network, AtlasUNet):
        return found, None
    known = (found.brain > threshold(entry, "brain")).cpu().numpy()
    if trust_mask and mask is not None:
        known = _on_grid(mask, grid, template2scan)
    onto = deform_onto_atlas(network, entry, scan, template2scan, known)
    values = onto.values * onto.inside if trust_mask else onto.values
    network.alignment = "nonlinear"
    return _predict(network, entry, values, onto.inside, numbers), onto


def predict_on_grid(
    network: LabelConditioned,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    numbers: Sequence[int],
    mask: nb.Nifti1Image | None = None,
    *,
    trust_mask: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the brain's probability (*grid) and those of the leaves (L, *grid) on the network's grid.

    Parameters are those of :func:`hyperprep.models.predict.segment.segment`; ``numbers`` are the
    FreeSurfer numbers of the leaves.

    Raises
    ------
    ScanError
        When the mask lies outside the brain's place in the template.
    """
    found = _affinely(network, entry, scan, template2scan, numbers, mask, trust_mask)
    return found.brain, torch.softmax(found.logits / temperature(entry), dim=0)


def _affinely(
    network: LabelConditioned,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    numbers: Sequence[int],
    mask: nb.Nifti1Image | None,
    trust_mask: bool,
) -> OnGrid:
    """Apply the network to the affinely aligned scan."""
    grid = lattice_grid(entry.metadata["grid"])
    if isinstance(network, AtlasUNet):
        network.alignment = "affine"
    values = sample_averaged(scan, grid, template2scan)
    inside = None
    if mask is not None:
        inside = _on_grid(mask, grid, template2scan)
        if not inside.any():
            raise ScanError(
                "The brain mask does not overlap the brain's place in the template: the affine alignment or "
                "the mask is wrong. Look at both, or leave the mask out."
            )
        if trust_mask:
            values = values * inside
    return _predict(network, entry, values, inside, numbers)


def _on_grid(mask: nb.Nifti1Image, grid: Grid, template2scan: np.ndarray) -> np.ndarray:
    """Bring a mask onto the network's grid."""
    found = resample(mask, grid, [template2scan], interpolation="nearest")
    return np.asarray(np.asanyarray(found.dataobj) > 0)


def _predict(
    network: LabelConditioned,
    entry: WeightsEntry,
    values: np.ndarray,
    inside: np.ndarray | None,
    numbers: Sequence[int],
) -> OnGrid:
    """Apply the network to intensities on its grid; of the brain, the largest part only is kept."""
    names, brain_threshold = list(entry.metadata["labels"]), threshold(entry, "brain")
    where = next(network.parameters()).device
    foreground = values > 0.1 * np.quantile(values, 0.99) if inside is None else inside
    for turn in range(2 if inside is None else 1):
        limits = intensity_range(values, foreground, entry)
        image = torch.from_numpy(scaled_between(values, limits))[None, None].to(where)
        trunk = network.trunk(image)
        rows = torch.eye(len(names), device=where)
        brain = torch.sigmoid(network.label_logits(trunk, rows[[names.index("brain")]]))[0, 0]
        if turn == 0 and inside is None:
            foreground = largest_component(brain.cpu().numpy() > brain_threshold)
    logits = network.label_logits(trunk, rows[[names.index(str(n)) for n in numbers]])[0]
    kept = torch.from_numpy(main_body(brain.cpu().numpy() > brain_threshold, neck=2)).to(where)
    near = torch.nn.functional.max_pool3d(kept[None, None].float(), 3, 1, 1)[0, 0]
    return OnGrid(brain * near, logits, trunk, image[0, 0], limits)
