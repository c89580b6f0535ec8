"""Grids that every geometry test runs on: unequal axes, every kind of orientation."""

import nibabel as nb
import numpy as np
from scipy.spatial.transform import Rotation

from hyperprep.models.spatial.grids import Grid

SHAPE = (17, 18, 19)


def make_grid(codes="RAS", spacing=(2.0, 2.0, 2.0), angles=(0.0, 0.0, 0.0), shear=0.0, shape=SHAPE):
    """Grid near the origin with the axis codes, spacing (mm), Euler angles (degrees) and shear asked for."""
    orientation = nb.orientations.axcodes2ornt(codes)
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(orientation):
        directions[int(world), axis] = sign
    linear = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ directions @ np.diag(spacing)
    linear = linear @ (np.eye(3) + shear * np.eye(3, k=1))
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ (np.array(shape) - 1) / 2 + (3.0, -5.0, 7.0)
    return Grid(shape, affine)


GRIDS = {
    "RAS": make_grid("RAS"),
    "LAS": make_grid("LAS"),
    "LPS": make_grid("LPS"),
    "PSR": make_grid("PSR"),
    "oblique": make_grid("LAS", angles=(20.0, -15.0, 35.0)),
    "anisotropic": make_grid("RPI", spacing=(0.9, 1.1, 4.0)),
    "oblique anisotropic": make_grid("ASR", spacing=(1.2, 3.5, 0.8), angles=(-10.0, 25.0, 5.0)),
    "sheared": make_grid("RAS", spacing=(1.5, 2.0, 2.5), angles=(5.0, 5.0, 5.0), shear=0.08),
}


def smooth_volume(grid, seed=0):
    """Smooth random float32 image on a grid, values about 0 to 100."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=grid.shape)
    smooth = gaussian_filter(noise, 2.0)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return nb.Nifti1Image((100 * smooth).astype(np.float32), grid.affine)


def smooth_field(grid, amplitude=3.0, seed=1):
    """Smooth random displacement (mm, RAS) on a grid."""
    from scipy.ndimage import gaussian_filter

    from hyperprep.models.spatial.transforms import DisplacementField

    noise = np.random.default_rng(seed).normal(size=(*grid.shape, 3))
    smooth = gaussian_filter(noise, (3.0, 3.0, 3.0, 0.0))
    return DisplacementField(grid, (amplitude * smooth / np.abs(smooth).max()).astype(np.float32))


def some_affine():
    """Affine point map with rotation, scaling, shear and shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (8.0, -5.0, 12.0), degrees=True).as_matrix() @ np.diag(
        (1.05, 0.93, 1.1)
    )
    matrix[0, 1] += 0.05
    matrix[:3, 3] = 4.0, -3.0, 2.0
    return matrix
