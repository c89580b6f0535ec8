"""Instance refinement: a few greedy steps along the local correlation's gradient on one pair.

Starting from a deformation, each step warps the moving image, computes the gradient of the squared local
correlation (Avants et al. 2008, eq. 6), smooths it, scales it, composes it with the deformation and smooths
the result: no integration of a velocity is needed. The regularisation weight sets how much is smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.nn.box import box_mean
from hyperprep.models.nn.smooth import gaussian_smooth
from hyperprep.models.nn.warp import resize, warp
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField

WINDOW = 5
"""Side of the correlation's window, voxels of each stage's images."""

VARIANCE_FLOOR = 1e-4
"""Variance below which a window says nothing (intensities lie in [0, 1])."""

STRONG = 0.5
"""Largest gradient from which on a step has its full length. Real pairs begin at about 1 and end at 0.55, a
shift by a quarter of a voxel gives 0.3 to 1, equal images less than 0.13; below it, steps shrink."""

MARGIN_MM = 8
"""What is kept around the two brains; the deformation is continued beyond."""


@dataclass(frozen=True)
class Stage:
    """One stage of the refinement.

    Attributes
    ----------
    image_mm, field_mm
        Voxel size of images and deformation; the field's is the same or a multiple.
    steps
        Number of steps.
    longest
        Longest update of a step, voxels of the field.
    update_sigma
        Smoothing of each update, voxels of the field.
    field_share
        Smoothing of the deformation after each step, as a share of :func:`field_sigma`.
    """

    image_mm: int
    field_mm: int
    steps: int
    longest: float
    update_sigma: float
    field_share: float = 1.0


STAGES = (
    Stage(image_mm=8, field_mm=8, steps=40, longest=0.5, update_sigma=1.7),
    Stage(image_mm=4, field_mm=4, steps=80, longest=0.5, update_sigma=1.7),
    Stage(image_mm=2, field_mm=2, steps=25, longest=0.5, update_sigma=1.7),
    Stage(image_mm=1, field_mm=2, steps=6, longest=0.4, update_sigma=0.7, field_share=0.75),
)
"""Found on real pairs (docs/decisions/0005)."""


def field_sigma(lam: float) -> float:
    """Give the smoothing of the deformation after each step, voxels, for a regularisation weight in [0, 1].

    Examples
    --------
    >>> round(field_sigma(0.3), 2), round(field_sigma(0.0), 2)
    (0.4, 0.2)
    """
    return 0.2 + lam * 2 / 3


class _Correlation:
    """The local correlation of a fixed image with moved ones; what depends on the fixed one is kept."""

    def __init__(self, fixed: torch.Tensor, weight: torch.Tensor | None = None) -> None:
        mean, square = box_mean(torch.cat([fixed, fixed * fixed], dim=1), WINDOW).split(1, dim=1)
        self.fixed, self.mean = fixed, mean
        self.variance = (square - mean * mean).clamp_min_(0)
        self.centred = fixed - mean
        self.inside = (fixed > 0).to(fixed.dtype)
        if weight is not None:  # a window that holds a place without a match says nothing either
            self.inside = self.inside * -F.max_pool3d(-weight, WINDOW, stride=1, padding=WINDOW // 2)

    def gradient(self, moved: torch.Tensor) -> torch.Tensor:
        """Give the direction (1, 3, *spatial) in which each voxel's correlation grows.

        Written in place: at 1 mm, memory that is asked for takes longer than the arithmetic in it.
        """
        stack = moved.new_empty(1, 3, *moved.shape[2:])
        stack[:, :1] = moved
        torch.mul(moved, moved, out=stack[:, 1:2])
        torch.mul(self.fixed, moved, out=stack[:, 2:])
        mean, square, product = box_mean(stack, WINDOW).split(1, dim=1)
        variance = square.addcmul_(mean, mean, value=-1).clamp_min_(0)
        covariance = product.addcmul_(self.mean, mean, value=-1)
        slope = mean.sub_(moved).mul_(covariance).div_(variance + VARIANCE_FLOOR).add_(self.centred)
        below = variance.mul_(self.variance).add_(VARIANCE_FLOOR**2)
        slope.mul_(covariance).div_(below).mul_(self.inside)
        for axis in (2, 3, 4):
            component = stack[:, axis - 2 : axis - 1]
            last = moved.shape[axis] - 1
            torch.sub(
                moved.narrow(axis, 2, last - 1),
                moved.narrow(axis, 0, last - 1),
                out=component.narrow(axis, 1, last - 1),
            )
            for end in (0, last):
                near = moved.narrow(axis, max(end - 1, 0), 2).diff(dim=axis)
                component.narrow(axis, end, 1).copy_(near)
        return stack.mul_(slope)


def refine(
    displacement: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    *,
    lam: float,
    stages: Sequence[Stage] = STAGES,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Refine a deformation on this very pair.

    Parameters
    ----------
    displacement
        (1, 3, *coarse), from the fixed to the moving image, voxels of its own grid; it covers the images'
        field of view.
    fixed, moving
        (1, 1, *spatial) in [0, 1], zero outside the brain, 1 mm, sides divisible by the coarsest stage.
    lam
        Regularisation weight in [0, 1].
    stages
        Coarse to fine.
    weight
        (1, 1, *spatial) in [0, 1] on the fixed image's grid: how much each place counts. Where there is no
        match, 0 leaves the deformation to its surroundings. All count alike when not given.

    Returns
    -------
    torch.Tensor
        (1, 3, *spatial / field_mm of the last stage), voxels of that grid.
    """
    multiple = max(stage.field_mm for stage in stages)
    parts = _around((fixed > 0) | (moving > 0), MARGIN_MM, multiple)
    whole = fixed.shape[2:]
    fixed, moving = (image[:, :, parts[0], parts[1], parts[2]] for image in (fixed, moving))
    if weight is not None:
        weight = weight[:, :, parts[0], parts[1], parts[2]]
    first = stages[0].field_mm
    field = _to_spacing(displacement, [n // first for n in whole])
    field = field[(slice(None), slice(None), *(slice(p.start // first, p.stop // first) for p in parts))]
    for stage in stages:
        f, m = (F.avg_pool3d(image, stage.image_mm) for image in (fixed, moving))
        field = _to_spacing(field, [n // stage.field_mm for n in fixed.shape[2:]])
        w = None if weight is None else F.avg_pool3d(weight, stage.image_mm)
        field = _run(field, f, m, stage, field_sigma(lam) * stage.field_share, w)
    last = stages[-1].field_mm
    pad = []
    for part, size in zip(reversed(parts), reversed(whole), strict=True):
        pad += [part.start // last, (size - part.stop) // last]
    return F.pad(field, pad, mode="replicate")


def _run(
    field: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    stage: Stage,
    sigma: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    correlation, ratio = _Correlation(fixed, weight), stage.field_mm // stage.image_mm
    for _ in range(stage.steps):
        at_images = field if ratio == 1 else _to_spacing(field, fixed.shape[2:])
        update = correlation.gradient(warp(moving, at_images))
        if ratio > 1:
            update = F.avg_pool3d(update, ratio)
        update = gaussian_smooth(update, stage.update_sigma)
        longest = update.square().sum(dim=1).max().sqrt().clamp_min(STRONG)
        update = update * (stage.longest / longest)
        field = gaussian_smooth(update + warp(field, update), sigma)
    return field


def _to_spacing(field: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resample a displacement to another grid of the same field of view, and count in that grid's voxels."""
    shape = tuple(int(n) for n in shape)
    return (
        field if tuple(field.shape[2:]) == shape else resize(field, shape, factor=shape[0] / field.shape[2])
    )


def _around(mask: torch.Tensor, margin: int, multiple: int) -> list[slice]:
    """Give the box around a mask (1, 1, *spatial), with a margin, on multiples of a number of voxels."""
    parts = []
    for axis in range(3):
        others = tuple(a for a in range(mask.ndim) if a != axis + 2)
        held = torch.nonzero(
            mask.any(dim=others[0], keepdim=True).amax(dim=others[1:], keepdim=True).flatten()
        )
        size = mask.shape[axis + 2]
        low, high = (int(held.min()), int(held.max()) + 1) if len(held) else (0, size)
        low = max(0, (low - margin) // multiple * multiple)
        high = min(size, -(-(high + margin) // multiple) * multiple)
        parts.append(slice(low, high))
    return parts


def invert_displacement(
    displacement: torch.Tensor, *, steps: int = 25, tolerance: float = 0.01
) -> torch.Tensor:
    """Invert x -> x + u(x) by fixed-point iteration.

    Parameters
    ----------
    displacement
        (1, 3, *spatial), voxels.
    steps
        Most iterations.
    tolerance
        Largest residual, voxels, at which it ends.

    Returns
    -------
    torch.Tensor
        (1, 3, *spatial), voxels: the displacement v with x + v(x) + u(x + v(x)) = x.

    Examples
    --------
    >>> shift = torch.full((1, 3, 6, 6, 6), 0.5)
    >>> invert_displacement(shift).unique().tolist()
    [-0.5]
    """
    inverse = -displacement
    for _ in range(steps):
        residual = inverse + warp(displacement, inverse)
        if float(residual.abs().max()) < tolerance:
            break
        inverse = inverse - 0.6 * residual
    return inverse


def as_field(displacement: torch.Tensor, grid: Grid) -> DisplacementField:
    """Turn a displacement (1, 3, *grid.shape) in voxels of a grid along the axes of space into mm."""
    data = displacement[0].movedim(0, -1).cpu().numpy() * grid.spacing
    return DisplacementField(grid, data.astype(np.float32))


def as_displacement(field: DisplacementField) -> torch.Tensor:
    """Turn displacements in mm into (1, 3, *grid.shape) in voxels: what :func:`as_field` takes."""
    voxels = field.data / field.grid.spacing.astype(np.float32)
    return torch.from_numpy(np.moveaxis(voxels, -1, 0).copy())[None].float()
