"""From anatomy to a scan: contrast, focal change, grid, slice profile, bias field, noise."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from nibabel.orientations import axcodes2ornt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from hyperprep.bidsapp.demo.template import Template
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import Chain, resample


@dataclass(frozen=True)
class Contrast:
    """T1w-like intensities on the template's scale.

    Parameters
    ----------
    gm, wm, csf
        Mean of each tissue.
    detail
        How much of the template's own texture is kept.
    """

    gm: float
    wm: float
    csf: float
    detail: float


@dataclass(frozen=True)
class Acquisition:
    """The scanner's part of a scan.

    Parameters
    ----------
    spacing
        Voxel sizes in mm along the stored axes; the slice profile averages along the thickest axis.
    axcodes
        Orientation of the stored axes, for example ``"RAS"``.
    tilt
        Rotation of the grid about the three world axes in degrees.
    extent
        Field of view in mm along world axes (before the tilt).
    whole_head
        Whether skull, face and neck are in the image (else everything outside the brain is zero).
    noise
        Standard deviation of the noise in either channel as a share of white matter.
    bias
        Standard deviation of the logarithm of the bias field.
    """

    spacing: tuple[float, float, float]
    axcodes: str
    tilt: tuple[float, float, float]
    extent: tuple[float, float, float]
    whole_head: bool
    noise: float
    bias: float


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Random T1w-like contrast: white matter brightest, fluid darkest."""
    return Contrast(
        gm=rng.uniform(0.56, 0.66),
        wm=rng.uniform(0.83, 0.92),
        csf=rng.uniform(0.14, 0.24),
        detail=rng.uniform(0.9, 1.2),
    )


def brain_image(template: Template, contrast: Contrast) -> nb.Nifti1Image:
    """Intensity of the template's brain under a contrast, float32, 0 outside the brain."""
    image = contrast.gm * template.gm + contrast.wm * template.wm + contrast.csf * template.csf
    image = np.clip(image + contrast.detail * template.detail(), 0, None)
    return nb.Nifti1Image(image.astype(np.float32), template.grid.affine)


def acquisition_grid(acquisition: Acquisition, center: np.ndarray) -> Grid:
    """Grid of a scan.

    Parameters
    ----------
    acquisition
        Voxel sizes, orientation, tilt and field of view.
    center
        ``(3,)`` middle of the field of view, RAS mm in the scanner.

    Examples
    --------
    >>> plain = Acquisition((1.0, 1.0, 3.0), "LAS", (0, 0, 0), (10, 20, 30), True, 0.0, 0.0)
    >>> grid = acquisition_grid(plain, np.zeros(3))
    >>> grid.shape, grid.affine[:3, :3].diagonal().tolist()
    ((10, 20, 10), [-1.0, 1.0, 3.0])
    """
    orientation = axcodes2ornt(tuple(acquisition.axcodes))
    directions = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(orientation):
        directions[int(world), stored] = sign
    extent = np.asarray(acquisition.extent)[orientation[:, 0].astype(int)]
    shape = np.round(extent / acquisition.spacing).astype(int)
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", acquisition.tilt, degrees=True).as_matrix()
    affine[:3, :3] = turn @ directions @ np.diag(acquisition.spacing)
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def acquire(
    layers: list[nb.Nifti1Image],
    chain: Chain,
    acquisition: Acquisition,
    grid: Grid,
    rng: np.random.Generator,
) -> nb.Nifti1Image:
    """Scan the sum of several template-frame images.

    Parameters
    ----------
    layers
        Intensity images in the template frame (brain, head, lesion ...); they add up.
    chain
        Point map from the scanner to the template frame.
    acquisition
        Noise, bias, whether the head is whole.
    grid
        Grid of the scan.
    rng
        Source of randomness of noise and bias.

    Returns
    -------
    nibabel.Nifti1Image
        int16, white matter near 800.
    """
    fine, factor, axis = _slice_profile(grid)
    signal = np.zeros(fine.shape, dtype=np.float32)
    for layer in layers:
        signal += np.asanyarray(resample(layer, fine, chain).dataobj)
    split = [*grid.shape[: axis + 1], factor, *grid.shape[axis + 1 :]]
    signal = signal.reshape(split).mean(axis=axis + 1)
    present = signal > 0
    signal *= _bias_field(rng, grid, acquisition.bias)
    sigma = 0.86 * acquisition.noise
    real = signal + sigma * rng.standard_normal(grid.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(grid.shape, dtype=np.float32)
    magnitude = np.hypot(real, imaginary)
    if not acquisition.whole_head:
        magnitude *= present
    img = nb.Nifti1Image(np.round(magnitude * 900).astype(np.int16), grid.affine)
    img.header.set_xyzt_units("mm", "sec")
    img.set_sform(grid.affine, code=1)
    img.set_qform(grid.affine, code=1)
    return img


def _slice_profile(grid: Grid) -> tuple[Grid, int, int]:
    """Finer grid whose neighbouring voxels are averaged into thick slices: grid, number averaged, axis."""
    axis = int(np.argmax(grid.spacing))
    factor = max(1, round(float(grid.spacing[axis] / grid.spacing.min())))
    shape = list(grid.shape)
    shape[axis] *= factor
    affine = grid.affine.copy()
    affine[:3, axis] /= factor
    affine[:3, 3] -= affine[:3, axis] * (factor - 1) / 2
    return Grid((shape[0], shape[1], shape[2]), affine), factor, axis


def _bias_field(rng: np.random.Generator, grid: Grid, strength: float) -> np.ndarray:
    """Smooth positive field with mean near 1, made on a 12 x 12 x 12 lattice."""
    lattice = gaussian_filter(rng.standard_normal((12, 12, 12)), 2.5, mode="nearest")
    lattice = strength * (lattice - lattice.mean()) / lattice.std()
    steps = np.asarray(grid.shape) / 11.0
    affine = grid.affine @ np.diag([*steps, 1.0])
    field = resample(nb.Nifti1Image(lattice.astype(np.float32), affine), grid, [])
    return np.exp(np.asanyarray(field.dataobj))
