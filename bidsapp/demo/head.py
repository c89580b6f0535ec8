"""A simulated head around the template's brain: skull, scalp, face, eyes, airways, neck and spine.

Everything is drawn in the template frame with signed distances of ellipsoids and cylinders (coordinates in
RAS mm), as T1w-like intensity. It looks like a head to a skull stripper; it is no atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from hyperprep.bidsapp.demo.anatomy import HEAD_EXTENT, HEAD_START, box_grid
from hyperprep.bidsapp.demo.template import Template
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import resample

AIR, BONE, FLUID, MARROW, MUSCLE, SKIN, FAT = 0.0, 0.05, 0.17, 0.55, 0.42, 0.5, 1.05
"""T1w-like intensities relative to the template's scale (its white matter is 0.86)."""

CORD = 0.75


@dataclass(frozen=True)
class HeadShape:
    """What differs between heads.

    Parameters
    ----------
    fluid, skull, scalp
        Thickness of the subarachnoid space, the skull and the scalp in mm.
    face, neck
        Size of the face and of the neck relative to the mean head.
    seed
        Seed of the smooth variation of all thicknesses.
    """

    fluid: float
    skull: float
    scalp: float
    face: float
    neck: float
    seed: int


def draw_head(rng: np.random.Generator) -> HeadShape:
    """Random head."""
    return HeadShape(
        fluid=rng.uniform(1.5, 2.8),
        skull=rng.uniform(5.0, 7.5),
        scalp=rng.uniform(5.0, 8.0),
        face=rng.uniform(0.95, 1.05),
        neck=rng.uniform(0.92, 1.08),
        seed=int(rng.integers(2**31)),
    )


def simulate_head(template: Template, shape: HeadShape, *, spacing: float = 1.5) -> nb.Nifti1Image:
    """Everything of a head but the brain, in the template frame.

    Parameters
    ----------
    template
        Supplies the brain that the head surrounds.
    shape
        Thicknesses and sizes.
    spacing
        Voxel size in mm.

    Returns
    -------
    nibabel.Nifti1Image
        float32 intensity on the template's scale (white matter 0.86, fat about 1); 0 in brain and air.
    """
    grid = box_grid(HEAD_START, HEAD_EXTENT, spacing)
    rng = np.random.default_rng(shape.seed)
    x, y, z = (grid.affine[i, 3] + spacing * np.arange(grid.shape[i], dtype=np.float32) for i in range(3))
    world = (x[:, None, None], y[None, :, None], z[None, None, :])
    brain = resample(nb.Nifti1Image(template.mask.astype(np.float32), template.grid.affine), grid, [])
    inside = np.asanyarray(brain.dataobj) > 0.5
    outside = _distance_outside_brain(inside, spacing)
    outside += 0.8 * _smooth_noise(rng, grid, 18.0)
    edge_of_skull = shape.fluid + shape.skull
    surface = _skin(world, outside - edge_of_skull - shape.scalp, shape)

    image = _soft_tissue(surface, rng, grid, spacing)
    _paint_face(image, world)
    bone = (outside < edge_of_skull) & (world[2] > -78)
    image[bone] = BONE
    marrow = bone & (np.abs(outside - shape.fluid - 0.55 * shape.skull) < 0.16 * shape.skull)
    image[marrow & (world[2] > -35)] = MARROW
    _paint_sinuses(image, world, surface)
    _paint_spine(image, world)
    image[(outside < shape.fluid) & (world[2] > -76)] = FLUID
    _paint_canal(image, world)
    image[inside] = AIR
    blurred = gaussian_filter(image, 0.45) * (1 + 0.06 * _smooth_noise(rng, grid, 4.0))
    blurred *= 1 - np.asanyarray(brain.dataobj)
    return nb.Nifti1Image(np.clip(blurred, 0, None).astype(np.float32), grid.affine)


def _smooth_noise(rng: np.random.Generator, grid: Grid, smoothness: float) -> np.ndarray:
    """Noise of unit variance, smooth over ``smoothness`` mm, made on a coarser grid where that suffices."""
    step = max(1, int(smoothness / grid.spacing[0] / 2))
    coarse = rng.standard_normal([size // step + 2 for size in grid.shape]).astype(np.float32)
    coarse = gaussian_filter(coarse, smoothness / grid.spacing[0] / step, mode="nearest")
    coarse /= coarse.std()
    moving = nb.Nifti1Image(coarse, grid.affine @ np.diag([step, step, step, 1.0]))
    return np.asanyarray(resample(moving, grid, []).dataobj)


def _distance_outside_brain(inside: np.ndarray, spacing: float) -> np.ndarray:
    """Distance in mm to the brain with its furrows and clefts closed (a 10 mm closing)."""
    swollen = distance_transform_edt(~inside) * spacing < 10
    closed = distance_transform_edt(swollen) * spacing > 10
    distance = distance_transform_edt(~(closed | inside)) * spacing
    return gaussian_filter(distance.astype(np.float32), 1.0)


def _ellipsoid(
    world: tuple[np.ndarray, ...], center: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Approximate signed distance in mm to an ellipsoid, negative inside; a huge radius makes a cylinder."""
    scaled = [(axis - middle) / radius for axis, middle, radius in zip(world, center, radii, strict=True)]
    return (np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2) - 1) * min(radii)


def _union(first: np.ndarray, second: np.ndarray, *, blend: float = 14.0) -> np.ndarray:
    """Smooth union of two signed distances; seams are rounded over ``blend`` mm."""
    overlap = np.clip(blend - np.abs(first - second), 0, None) / blend
    return np.minimum(first, second) - overlap**2 * blend / 4


def _skin(world: tuple[np.ndarray, ...], scalp: np.ndarray, shape: HeadShape) -> np.ndarray:
    """Signed distance in mm to the skin: scalp, face, jaw, nose, ears and neck together."""
    x, y, z = world
    face, neck, endless = shape.face, shape.neck, 1e6
    surface = _union(scalp, _ellipsoid(world, (0, 36, -52), (64 * face, 60 * face, 64 * face)))
    surface = _union(surface, _ellipsoid(world, (0, 46, -98), (44 * face, 46 * face, 38 * face)))
    nose = _ellipsoid((x, y + 0.35 * (z + 48), z), (0, 94, -50), (13, 17, 22))
    surface = _union(surface, nose, blend=8)
    tilted = y - 0.25 * (z + 100)
    column = _ellipsoid((x, tilted, z), (0, -30, 0), (58 * neck, 60 * neck, endless))
    surface = _union(surface, np.maximum(column, z + 62), blend=20)
    for side in (-1, 1):
        ear = _ellipsoid(world, (side * (84 * face), -22, -38), (7, 17, 28))
        surface = _union(surface, ear, blend=5)
    return surface


def _soft_tissue(surface: np.ndarray, rng: np.random.Generator, grid: Grid, spacing: float) -> np.ndarray:
    """Skin, fat under it, muscle with fatty streaks below."""
    depth = distance_transform_edt(surface < 0) * spacing
    layer = 5.0 + 1.2 * _smooth_noise(rng, grid, 14.0)
    streaks = np.abs(_smooth_noise(rng, grid, 5.0)) < 0.16
    image = np.full(grid.shape, AIR, dtype=np.float32)
    image[depth > 0] = MUSCLE
    image[streaks & (depth > layer)] = 0.8
    image[(depth > 1.6) & (depth < layer)] = FAT
    image[(depth > 0) & (depth <= 1.6)] = SKIN
    return image


def _paint_face(image: np.ndarray, world: tuple[np.ndarray, ...]) -> None:
    """Orbits with eyes, jaw bone, nose and mouth cavity, throat."""
    x, y, z = world
    for side in (-1, 1):
        image[_ellipsoid(world, (side * 29, 50, -38), (17, 28, 16)) < 0] = FAT
        image[np.abs(_ellipsoid(world, (side * 29, 50, -38), (10, 24, 10))) < 1.2] = MUSCLE
        image[_ellipsoid(world, (side * 31, 68, -38), (12.5, 12.5, 12.5)) < 0] = SKIN
        image[_ellipsoid(world, (side * 31, 68, -38), (11.3, 11.3, 11.3)) < 0] = FLUID
        image[_ellipsoid(world, (side * 31, 76, -38), (4.5, 2.2, 4.5)) < 0] = MUSCLE
    jaw = np.abs(_ellipsoid(world, (0, 30, -100), (40, 50, 22)))
    image[(jaw < 3.5) & (y > 10) & (z < -88) & (z > -114)] = BONE
    image[(jaw < 1.4) & (y > 10) & (z < -90) & (z > -112)] = MARROW
    tongue = _ellipsoid(world, (0, 44, -96), (22, 30, 15)) < 0
    image[tongue] = 0.5
    cavity = _ellipsoid(world, (0, 60, -54), (13, 30, 19)) < 0
    turbinates = np.sin(z * 0.75) > 0.35
    image[cavity] = AIR
    image[cavity & turbinates & (np.abs(x) > 4)] = SKIN
    image[cavity & (np.abs(x) < 1.5)] = SKIN
    airway = _ellipsoid((x, y - 0.1 * (z + 100), z), (0, 16, -88), (10, 7, 34)) < 0
    image[airway | ((_ellipsoid(world, (0, 12, 0), (8, 8, 1e6)) < 0) & (z < -100))] = AIR


def _paint_sinuses(image: np.ndarray, world: tuple[np.ndarray, ...], surface: np.ndarray) -> None:
    """Air in the frontal, maxillary and sphenoid sinuses and in the mastoids; all stay under the skin."""
    deep = surface < -5
    cells = [
        ((0, 26, -38), (12, 9, 7)),
        *[((side * 9, 77, -14), (8, 5, 8)) for side in (-1, 1)],
        *[((side * 29, 56, -66), (12, 15, 13)) for side in (-1, 1)],
        *[((side * 56, -34, -52), (7, 11, 11)) for side in (-1, 1)],
    ]
    for center, radii in cells:
        distance = _ellipsoid(world, center, radii)
        image[(distance < 1.5) & deep] = BONE
        image[(distance < 0) & deep] = AIR


def _paint_spine(image: np.ndarray, world: tuple[np.ndarray, ...]) -> None:
    """Vertebral bodies with discs in front of the canal, arches behind it."""
    x, y, z = world
    below = z < -78
    body = _ellipsoid(world, (0, -20, 0), (13, 10, 1e6))
    image[(body < 0) & below] = BONE
    image[(body < -1.6) & below & (np.mod(z, 19) > 4)] = MARROW
    image[(body < -1.0) & below & (np.mod(z, 19) <= 3)] = MUSCLE
    arch = _ellipsoid(world, (0, -42, 0), (15, 15, 1e6))
    image[(arch < 0) & (body > 0) & below & (np.mod(z, 19) > 6)] = BONE
    spinous = (np.abs(x) < 3.5) & (y < -55) & (y > -76) & below & (np.mod(z, 19) > 9)
    image[spinous] = BONE


def _paint_canal(image: np.ndarray, world: tuple[np.ndarray, ...]) -> None:
    """Spinal fluid and cord, joining the brain stem at the template's lower end."""
    below = world[2] < -68
    canal = _ellipsoid(world, (0, -41, 0), (10, 9, 1e6))
    image[(canal < 0) & below] = FLUID
    image[(_ellipsoid(world, (0, -41, 0), (6.5, 5.5, 1e6)) < 0) & below] = CORD
