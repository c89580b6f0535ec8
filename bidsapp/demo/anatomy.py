"""Random diffeomorphic anatomy: stationary velocity fields, their exponentials, positions in the scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField

HEAD_START = np.array([-100.0, -142.0, -132.0])
"""Lower corner of the region that holds a whole head (template frame, RAS mm)."""

HEAD_EXTENT = np.array([200.0, 264.0, 240.0])
"""Size of that region in mm."""

_QUANTUM = 2.0**-9


@dataclass(frozen=True)
class Warp:
    """A diffeomorphism of the template frame and its inverse, as displacement fields.

    Parameters
    ----------
    forward
        Point map exp(v).
    inverse
        Point map exp(-v).
    """

    forward: DisplacementField
    inverse: DisplacementField


def box_grid(start: np.ndarray, extent: np.ndarray, spacing: float) -> Grid:
    """RAS grid that covers a box; the first voxel's centre lies at ``start``.

    Parameters
    ----------
    start
        ``(3,)`` RAS mm.
    extent
        ``(3,)`` mm.
    spacing
        Voxel size in mm.

    Examples
    --------
    >>> box_grid(np.zeros(3), np.array([10.0, 20.0, 30.0]), 5.0).shape
    (3, 5, 7)
    """
    shape = np.floor(np.asarray(extent) / spacing).astype(int) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = start
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def exponentiate(velocity: np.ndarray, grid: Grid, *, steps: int = 7) -> DisplacementField:
    """Exponential of a stationary velocity field by scaling and squaring.

    Displacements are rounded to 1/512 mm, so that they compress well and read back unchanged.

    Parameters
    ----------
    velocity
        ``(X, Y, Z, 3)`` mm per unit time, RAS components.
    grid
        Where the velocity is sampled.
    steps
        Number of squarings.

    Examples
    --------
    >>> grid = box_grid(np.zeros(3), np.array([12.0, 14.0, 16.0]), 2.0)
    >>> flow = exponentiate(np.full((*grid.shape, 3), 1.5), grid)
    >>> flow.data[3, 3, 3].tolist()
    [1.5, 1.5, 1.5]
    """
    to_voxels = np.linalg.inv(grid.affine[:3, :3])
    nodes = np.indices(grid.shape).astype(np.float64)
    flow = np.asarray(velocity, dtype=np.float64) / 2**steps
    for _ in range(steps):
        where = nodes + np.moveaxis(flow @ to_voxels.T, -1, 0)
        moved = [map_coordinates(flow[..., axis], where, order=1, mode="nearest") for axis in range(3)]
        flow = flow + np.stack(moved, axis=-1)
    return DisplacementField(grid, (np.round(flow / _QUANTUM) * _QUANTUM).astype(np.float32))


def invert(field: DisplacementField, start: DisplacementField, *, iterations: int = 8) -> DisplacementField:
    """Improve an approximate inverse of a field at its nodes by fixed-point iteration.

    Parameters
    ----------
    field
        The point map to invert.
    start
        First guess of the inverse, for example the exponential of the negative velocity.
    iterations
        Number of passes; each makes the error smaller by about the field's largest derivative.

    Returns
    -------
    DisplacementField
        On the grid of ``start``, rounded to 1/512 mm.
    """
    nodes = start.grid.to_world(np.moveaxis(np.indices(start.grid.shape), 0, -1).reshape(-1, 3))
    inverse = start.data.reshape(-1, 3).astype(np.float64)
    for _ in range(iterations):
        there = nodes + inverse
        inverse = -(field.map_points(there) - there)
    rounded = np.round(inverse / _QUANTUM) * _QUANTUM
    return DisplacementField(start.grid, rounded.astype(np.float32).reshape(start.data.shape))


def draw_warp(rng: np.random.Generator, *, spacing: float = 4.0) -> Warp:
    """Random smooth anatomy over the whole head: broad shape (28 mm) and finer detail (13 mm).

    Parameters
    ----------
    rng
        Source of randomness.
    spacing
        Distance between the field's nodes in mm.
    """
    grid = box_grid(HEAD_START, HEAD_EXTENT, spacing)
    velocity = np.zeros((*grid.shape, 3))
    for smoothness, strength in ((28.0, 2.5), (13.0, 1.3)):
        for axis in range(3):
            noise = gaussian_filter(rng.standard_normal(grid.shape), smoothness / spacing, mode="nearest")
            velocity[..., axis] += noise * (strength / noise.std())
    velocity *= _edge_window(grid.shape, width=8)[..., None]
    return warp_of(velocity, grid)


def draw_growth(rng: np.random.Generator, center: np.ndarray, *, radius: float, percent: float) -> Warp:
    """Local volume change around a point: the follow-up scan's point map to the baseline anatomy.

    Parameters
    ----------
    rng
        Source of randomness (the change is not quite isotropic).
    center
        ``(3,)`` RAS mm in the template frame.
    radius
        Standard deviation of the change in mm.
    percent
        By how much a length at the centre is larger in the follow-up.
    """
    grid = box_grid(np.asarray(center) - 4 * radius, np.full(3, 8.0 * radius), 2.0)
    offset = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)) - center
    weight = np.exp(-(offset**2).sum(axis=-1) / (2 * radius**2))
    rates = np.log1p(percent / 100) * rng.uniform(0.85, 1.15, size=3)
    velocity = -offset * rates * weight[..., None]
    return warp_of(velocity * _edge_window(grid.shape, width=3)[..., None], grid)


def warp_of(velocity: np.ndarray, grid: Grid) -> Warp:
    """Both directions of the flow of a velocity field ``(X, Y, Z, 3)`` in mm."""
    forward = exponentiate(velocity, grid)
    return Warp(forward, invert(forward, exponentiate(-velocity, grid)))


def draw_position(rng: np.random.Generator, *, degrees: float, shift: float, scale: float) -> np.ndarray:
    """Random affine ``(4, 4)``: where a head lies in the scanner, as a map from scanner to template frame.

    Parameters
    ----------
    rng
        Source of randomness.
    degrees, shift
        Standard deviation of the rotations (degrees) and translations (mm) about each axis.
    scale
        Largest deviation of the head's size from the template's, as a share (0.05 is 5 %).

    Examples
    --------
    >>> draw_position(np.random.default_rng(1), degrees=0, shift=0, scale=0).tolist() == np.eye(4).tolist()
    True
    """
    position = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.normal(0, degrees, 3), degrees=True).as_matrix()
    position[:3, :3] = np.diag(1 + rng.uniform(-scale, scale, 3)) @ turn
    position[:3, 3] = rng.normal(0, shift, 3)
    return position


def _edge_window(shape: tuple[int, ...], *, width: int) -> np.ndarray:
    """Factor that falls smoothly to zero over the outermost ``width`` nodes of a grid."""
    window = np.ones(shape)
    for axis, size in enumerate(shape):
        nodes = np.arange(size)
        rise = np.clip(np.minimum(nodes, size - 1 - nodes) / width, 0, 1)
        window *= np.expand_dims(0.5 - 0.5 * np.cos(np.pi * rise), [i for i in range(3) if i != axis])
    return window
