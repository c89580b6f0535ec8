"""Slices through deformed synthetic heads, many at once, on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.nn.warp import integrate
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import Anatomy
from hyperprep.models.synth.maps import ORIGIN_MM, LabelMaps

IN_PLANE = ((1, 2), (0, 2), (0, 1))
"""Axes of the array of a slice, for slices across the first (sagittal), second and third axis."""


@dataclass(frozen=True)
class Plane:
    """Where a slice lies in the template frame, and how the view is turned: shared by input and examples.

    Attributes
    ----------
    axis
        0 sagittal, 1 coronal, 2 axial.
    position_mm
        Place along that axis, RAS mm.
    turn_deg, log_scale, shift_mm
        Affine movement within the plane, about the middle of the field of view.
    flipped
        Left and right of the picture change places, and the labels do not.
    """

    axis: int
    position_mm: float
    turn_deg: float = 0.0
    log_scale: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)
    flipped: bool = False


@dataclass(frozen=True)
class SliceSampling:
    """Labels of K slices at S points inside each pixel; the first point is the pixel's centre.

    ``indices`` (S, K, H, W) uint8; ``brain`` (K, H, W) float 0/1; ``places`` (K, H, W, 3) in [-1, 1] over
    the lattice, last axis first, as ``grid_sample`` reads volumes.
    """

    indices: torch.Tensor
    brain: torch.Tensor
    places: torch.Tensor


def slice_shape(lattice: Lattice, axis: int) -> tuple[int, int]:
    """Give the pixels of a slice across an axis of a lattice.

    >>> slice_shape(Lattice((96, 112, 88), 2.0, (0.0, 0.0, 0.0)), 1)
    (96, 88)
    """
    first, second = IN_PLANE[axis]
    return lattice.shape[first], lattice.shape[second]


def plane_points(plane: Plane, lattice: Lattice, device: torch.device | str = "cpu") -> torch.Tensor:
    """Give the pixel centres of a slice, (3, H, W), RAS mm in the template frame.

    Examples
    --------
    >>> points = plane_points(Plane(1, 5.0), Lattice((4, 3, 2), 2.0, (-3.0, 0.0, 1.0)))
    >>> points.shape, points[:, 3, 1].tolist()
    (torch.Size([3, 4, 2]), [3.0, 5.0, 3.0])
    """
    axes = IN_PLANE[plane.axis]
    lines = [
        torch.arange(lattice.shape[a], device=device) * lattice.spacing + lattice.origin[a] for a in axes
    ]
    middles = [lattice.origin[a] + lattice.spacing * (lattice.shape[a] - 1) / 2 for a in axes]
    u, v = torch.meshgrid(lines[0] - middles[0], lines[1] - middles[1], indexing="ij")
    scale, angle = math.exp(plane.log_scale), math.radians(plane.turn_deg)
    along = scale * (math.cos(angle) * u - math.sin(angle) * v) + plane.shift_mm[0] + middles[0]
    across = scale * (math.sin(angle) * u + math.cos(angle) * v) + plane.shift_mm[1] + middles[1]
    points = torch.full((3, *u.shape), plane.position_mm, device=device)
    points[axes[0]], points[axes[1]] = along, across
    if plane.flipped:
        points[0] = -points[0]
    return points


def _warps(
    anatomies: Sequence[Anatomy], lattice: Lattice, places: torch.Tensor, device: torch.device
) -> torch.Tensor:
    """Give the heads' displacements (K, 3, H, W), mm, at places inside the lattice."""
    velocity = torch.from_numpy(np.stack([a.velocity for a in anatomies])).to(device)
    nodes = zip(lattice.extent_mm, velocity.shape[2:], strict=True)
    step = torch.tensor([e / max(n - 1, 1) for e, n in nodes], device=device).view(1, 3, 1, 1, 1)
    smooth = F.interpolate(velocity / step, scale_factor=2, mode="trilinear", align_corners=True) * 2
    warp = integrate(smooth, steps=5) / 2 * step
    return F.grid_sample(warp, places[:, None], padding_mode="border", align_corners=True)[:, :, 0]


def sample_slices(
    maps: LabelMaps,
    anatomies: Sequence[Anatomy],
    planes: Sequence[Plane],
    lattice: Lattice,
    *,
    subsamples: int = 3,
    thickness_mm: Sequence[float] | None = None,
    seed: int = 0,
) -> SliceSampling:
    """Look K deformed heads up on K slices.

    Parameters
    ----------
    maps
        Label maps in the template frame.
    anatomies, planes
        Head and place of each slice; all planes have one axis.
    lattice
        Field of view and pixel size.
    subsamples
        Points per pixel: their mixture is the partial volume of the image.
    thickness_mm
        Extent of each slice across its plane; the pixel size when not given.
    seed
        Seed of the points inside the pixels.

    Returns
    -------
    SliceSampling
        Labels, brain masks and places.
    """
    device = maps.maps.device
    count, axis = len(anatomies), planes[0].axis
    points = torch.stack([plane_points(p, lattice, device) for p in planes])
    origin = torch.tensor(lattice.origin, device=device).view(1, 3, 1, 1)
    span = torch.tensor([lattice.spacing * (n - 1) for n in lattice.shape], device=device).view(1, 3, 1, 1)
    places = (2 * (points - origin) / span - 1).flip(1).permute(0, 2, 3, 1)
    matrices = torch.from_numpy(np.stack([a.matrix for a in anatomies])).to(device)
    moved = points + _warps(anatomies, lattice, places, device)
    where = torch.einsum("kij,kjhw->kihw", matrices[:, :3, :3], moved) + matrices[:, :3, 3, None, None]
    extent = torch.full((count, 3), lattice.spacing, device=device)
    if thickness_mm is not None:
        extent[:, axis] = torch.tensor(thickness_mm, device=device, dtype=torch.float32)
    mirrored = torch.tensor([a.mirrored for a in anatomies], device=device)
    sign = torch.ones(count, 3, 1, 1, device=device)
    sign[mirrored, 0] = -1
    shape = maps.maps.shape[1:]
    first = torch.tensor(ORIGIN_MM, device=device).view(1, 3, 1, 1)
    last = torch.tensor([n - 1 for n in shape], device=device).view(1, 3, 1, 1)
    strides = torch.tensor([shape[1] * shape[2], shape[2], 1], device=device).view(1, 3, 1, 1)
    offsets = torch.tensor([a.index for a in anatomies], device=device).view(count, 1, 1) * math.prod(shape)
    table = maps.mirror_table().to(device)
    generator = torch.Generator(device=device).manual_seed(seed)
    looked: list[torch.Tensor] = []
    brain = torch.empty(0)
    for turn in range(subsamples):
        jitter = torch.rand(where.shape, generator=generator, device=device) - 0.5 if turn else 0.0
        voxel = ((where + jitter * extent[:, :, None, None]) * sign - first).round().long()
        outside = ((voxel < 0) | (voxel > last)).any(1)
        flat = (torch.minimum(voxel.clamp_min(0), last) * strides).sum(1) + offsets
        label = maps.maps.reshape(-1)[flat].masked_fill(outside, 0)
        looked.append(torch.where(mirrored[:, None, None], table[label.long()], label))
        if turn == 0:
            brain = maps.brain.reshape(-1)[flat].masked_fill(outside, 0).float()
    return SliceSampling(torch.stack(looked), brain, places)
