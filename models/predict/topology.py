"""Topology-change maps of a pair of brains: where no registration can match one with the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from scipy import ndimage

from hyperprep.exceptions import ScanError
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.losses.topology import brain_union, score, symmetric_score
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.topology import Features, Posterior, TopologyNetwork
from hyperprep.models.nn.greedy import as_displacement, as_field
from hyperprep.models.nn.warp import warp
from hyperprep.models.predict.coverage import carried, field_of_view
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.pair import make_pair
from hyperprep.models.predict.register import register
from hyperprep.models.predict.rules import percentiles
from hyperprep.models.predict.sampling import lattice_grid
from hyperprep.models.spatial.composite import joined
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import displacement_from_itk
from hyperprep.models.spatial.transforms import Chain, DisplacementField, resample
from hyperprep.models.weights import find_weights

START_LAMBDA = 0.3
"""Regularisation of the registration that a network starts from where none is given."""

Transforms = tuple[sitk.Transform | Chain, sitk.Transform | Chain]


@dataclass(frozen=True, eq=False)
class TopologyChange:
    """Scores of a pair, on the network's grid in the template frame.

    Attributes
    ----------
    fixed_score, moving_score
        (X, Y, Z) float32: L_sym(F|M) on the fixed brain and L_sym(M|F) on the moving one, nats; 0 outside.
    fixed_own, moving_own
        L(F|M) and L(M|F): one direction alone, each on its own brain.
    fixed_brain, moving_brain
        (X, Y, Z) bool: brain that both images show.
    forward, backward
        Displacements in that frame, fixed to moving and back, as the scores have them.
    grid
        The grid of all.
    frame2fixed, frame2moving
        (4, 4) from the template frame to the images, RAS mm.
    metrics
        Flat figures.
    weights_sha256
        Digest of the network's weights.
    """

    fixed_score: np.ndarray
    moving_score: np.ndarray
    fixed_own: np.ndarray
    moving_own: np.ndarray
    fixed_brain: np.ndarray
    moving_brain: np.ndarray
    forward: DisplacementField
    backward: DisplacementField
    grid: Grid
    frame2fixed: np.ndarray
    frame2moving: np.ndarray
    metrics: dict[str, Any]
    weights_sha256: str

    def on_fixed(self, values: np.ndarray, reference: Grid) -> nb.Nifti1Image:
        """Bring values (X, Y, Z) of the fixed side onto a grid in the fixed image's space."""
        return resample(self.image(values), reference, [np.linalg.inv(self.frame2fixed)])

    def on_moving(self, values: np.ndarray, reference: Grid) -> nb.Nifti1Image:
        """Bring values (X, Y, Z) of the moving side onto a grid in the moving image's space."""
        return resample(self.image(values), reference, [np.linalg.inv(self.frame2moving)])

    def image(self, values: np.ndarray) -> nb.Nifti1Image:
        """Make an image in the template frame."""
        return nb.Nifti1Image(np.asarray(values, np.float32), self.grid.affine)

    def to_moving(self, values: np.ndarray) -> np.ndarray:
        """Transport values of the fixed side to the moving side, through the transform of the scores."""
        return resample(self.image(values), self.grid, [self.backward]).get_fdata(dtype=np.float32)

    def to_fixed(self, values: np.ndarray) -> np.ndarray:
        """Transport values of the moving side to the fixed side, through the transform of the scores."""
        return resample(self.image(values), self.grid, [self.forward]).get_fdata(dtype=np.float32)


def topology_change(
    fixed: nb.Nifti1Image,
    moving: nb.Nifti1Image,
    *,
    fixed2moving: np.ndarray,
    frame2fixed: np.ndarray | None = None,
    fixed_mask: nb.Nifti1Image | None = None,
    moving_mask: nb.Nifti1Image | None = None,
    transforms: Transforms | None = None,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> TopologyChange:
    """Score how badly each place of two brains is explained by the other (Czolbe et al. 2021, eq. 6).

    Parameters
    ----------
    fixed, moving
        Images on their own grids.
    fixed2moving, frame2fixed, fixed_mask, moving_mask
        As in :func:`hyperprep.models.predict.register.register`.
    transforms
        Registration of the pair that is there already: point maps fixed to moving and moving to fixed,
        affine part included. A network that starts from a registration makes its own where none is given;
        one that does not start from any leaves it aside.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    TopologyChange
        Scores of both sides.

    Raises
    ------
    ScanError
        When a brain does not lie on the network's grid, or the images show no common part of it.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    frame2fixed = np.eye(4) if frame2fixed is None else np.asarray(frame2fixed, float)
    frame2moving = np.asarray(fixed2moving, float) @ frame2fixed
    entry = find_weights("topology", path=weights, weights_dir=weights_dir)
    grid = lattice_grid(entry.metadata["grid"])
    began = time.perf_counter()
    if entry.metadata["network"]["start"] == "none":
        transforms = None
    elif transforms is None:
        found = register(
            fixed, moving, fixed2moving=fixed2moving, frame2fixed=frame2fixed, fixed_mask=fixed_mask,
            moving_mask=moving_mask, lam=START_LAMBDA, weights_dir=weights_dir, device=device,
            num_threads=num_threads,
        )  # fmt: skip
        transforms = (found.chain(), found.inverse_chain())
    with torch_threads(num_threads), torch.inference_mode():
        where = pick_device(device)
        network = load_network(entry).to(where)
        assert isinstance(network, TopologyNetwork)
        pair = make_pair(
            grid,
            (fixed, fixed_mask, None, frame2fixed),
            (moving, moving_mask, None, frame2moving),
            where,
            fine=False,
            percentiles=percentiles(entry),
        )
        starts = _starts(transforms, grid, frame2fixed, frame2moving, where)
        sides = score_pair(network, pair.fixed, pair.moving, starts)
        similarity = [
            float(local_ncc(pair.fixed, moved, window=9, mask=(pair.fixed > 0).float()))
            for moved in (pair.moving, warp(pair.moving, sides.forward))
        ]
        one, other = (field_of_view(i, grid, to) for i, to in ((fixed, frame2fixed), (moving, frame2moving)))
        fixed_brain = _filled(pair.fixed) & one & carried(other, sides.forward)
        moving_brain = _filled(pair.moving) & other & carried(one, sides.backward)
    if not (fixed_brain.any() and moving_brain.any()):
        raise ScanError(
            "The two images show no common part of the brain, so they cannot be compared: look at their "
            "fields of view and at the alignment in the report."
        )
    maps = {
        name: np.where(brain, getattr(sides, name)[0, 0].cpu().numpy(), 0).astype(np.float32)
        for side, brain in (("fixed", fixed_brain), ("moving", moving_brain))
        for name in (f"{side}_score", f"{side}_own")
    }
    metrics = {
        "score_mean": float(maps["moving_score"][moving_brain].mean()),
        "score_q99": float(np.quantile(maps["moving_score"][moving_brain], 0.99)),
        "similarity_affine": similarity[0],
        "similarity": similarity[1],
        "prior_alpha": float(network.alpha),
        "prior_beta": float(network.beta),
        "seconds_topology": round(time.perf_counter() - began, 2),
        "weights_sha256": entry.sha256,
    }
    return TopologyChange(
        **maps,
        fixed_brain=fixed_brain,
        moving_brain=moving_brain,
        forward=as_field(sides.forward, grid),
        backward=as_field(sides.backward, grid),
        grid=grid,
        frame2fixed=frame2fixed,
        frame2moving=frame2moving,
        metrics=metrics,
        weights_sha256=entry.sha256,
    )


@dataclass(frozen=True)
class PairScores:
    """Scores of a pair as tensors (1, 1, *spatial), and displacements (1, 3, *spatial) in voxels."""

    fixed_score: torch.Tensor
    moving_score: torch.Tensor
    fixed_own: torch.Tensor
    moving_own: torch.Tensor
    forward: torch.Tensor
    backward: torch.Tensor


def score_pair(
    network: TopologyNetwork,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    starts: Sequence[torch.Tensor | None] = (None, None),
) -> PairScores:
    """Score both directions of a pair, and each side symmetrically.

    Parameters
    ----------
    network
        In evaluation mode.
    fixed, moving
        (1, 1, *spatial) in [0, 1], zero outside the brain; also volumes where the network takes slices.
    starts
        (1, 3, *spatial), voxels: registrations fixed to moving and moving to fixed to start from.

    Returns
    -------
    PairScores
        Volumes.
    """
    features = [network.describe(image) for image in (fixed, moving)]
    there, phi = _one_way(network, (fixed, moving), (features[0], features[1]), starts[0])
    back, psi = _one_way(network, (moving, fixed), (features[1], features[0]), starts[1])
    return PairScores(
        fixed_score=symmetric_score(there, back, phi),
        moving_score=symmetric_score(back, there, psi),
        fixed_own=there,
        moving_own=back,
        forward=phi,
        backward=psi,
    )


def _one_way(
    network: TopologyNetwork,
    images: tuple[torch.Tensor, torch.Tensor],
    features: tuple[Features, Features],
    start: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give L of the first image given the second, and the displacement between them, as volumes."""
    if network.dims == 3:
        found = network.posterior(*images, start)
        return _total(network, images, features, found), found.mean
    depth = images[0].shape[-1]
    scores, fields = [], []
    for first in range(0, depth, 16):
        planes = torch.arange(first, min(first + 16, depth), device=images[0].device)
        one, other = (_cut(image, planes, depth) for image in images)
        cut = [[_cut(stage, planes, depth) for stage in side] for side in features]
        found = network.posterior(one, other)
        scores.append(_total(network, (one, other), (cut[0], cut[1]), found))
        fields.append(F.pad(found.mean, (0, 0, 0, 0, 0, 1)))
    return tuple(torch.cat(each).movedim(0, -1)[None] for each in (scores, fields))  # type: ignore[return-value]


def _cut(volume: torch.Tensor, planes: torch.Tensor, depth: int) -> torch.Tensor:
    """Cut axial planes: (1, C, X, Y, Z) -> (planes, C, X, Y); ``depth`` counts those of the finest volume."""
    return volume[0][..., planes * volume.shape[-1] // depth].movedim(-1, 0)


def _total(
    network: TopologyNetwork,
    images: tuple[torch.Tensor, torch.Tensor],
    features: tuple[Features, Features],
    found: Posterior,
) -> torch.Tensor:
    misfit, divergence = score(network, *features, found, brain_union(*images, found.mean))
    return misfit + divergence


def _starts(
    transforms: Transforms | None,
    grid: Grid,
    frame2fixed: np.ndarray,
    frame2moving: np.ndarray,
    where: torch.device,
) -> list[torch.Tensor | None]:
    """Give registrations as displacements of the network's grid, voxels, both ways."""
    if transforms is None:
        return [None, None]
    out: list[torch.Tensor | None] = []
    frames = ((frame2fixed, frame2moving), (frame2moving, frame2fixed))
    for transform, (before, after) in zip(transforms, frames, strict=True):
        chain = joined([before, transform, np.linalg.inv(after)])
        out.append(as_displacement(displacement_from_itk(chain, grid)).to(where))
    return out


def _filled(image: torch.Tensor) -> np.ndarray:
    return np.asarray(ndimage.binary_fill_holes(image[0, 0].cpu().numpy() > 0))
