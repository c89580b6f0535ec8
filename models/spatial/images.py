"""Images from and to disk, checked before anything is computed from them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import nibabel as nb
import numpy as np

from hyperprep.exceptions import ScanError
from hyperprep.models.spatial.checks import (
    check_size,
    load_values,
    open_image,
    usable_affine,
    volume_shape,
)
from hyperprep.models.spatial.files import replacing
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import resample

LOGGER = logging.getLogger(__name__)

MAX_NONFINITE_SHARE = 0.01
"""Up to this share of voxels that are not finite is set to zero; more is an error."""


def read_scan(path: str | os.PathLike[str]) -> nb.Nifti1Image:
    """Read an intensity image and check that it can be used.

    Parameters
    ----------
    path
        File of any format that nibabel reads: three-dimensional, or four-dimensional with one volume.

    Returns
    -------
    nibabel.Nifti1Image
        ``(X, Y, Z)`` float32 in memory, finite and not constant. Up to 1 % of voxels that were not finite are
        zero, which is logged as a warning.

    Raises
    ------
    NoInputError
        If the file is missing or cannot be opened.
    ScanError
        If it is empty, truncated, no image, two-dimensional, a series of volumes, mostly not finite,
        constant, without orientation, or of an absurd size.
    """
    source = Path(path)
    img = open_image(source)
    shape = volume_shape(source, img.shape)
    affine = usable_affine(source, img)
    check_size(source, shape, affine)
    data = load_values(source, img).reshape(shape)
    finite = np.isfinite(data)
    share = 1.0 - np.count_nonzero(finite) / data.size
    if share >= MAX_NONFINITE_SHARE:
        raise ScanError(
            f"{source}: {100 * share:.1f} % of the voxels are NaN or infinite. "
            "Such an image cannot be repaired here: convert the original scan again."
        )
    if share > 0:
        count = data.size - np.count_nonzero(finite)
        LOGGER.warning("%s: %d voxels were NaN or infinite and are read as 0.", source, count)
        data = np.where(finite, data, np.float32(0))
    if data.min() == data.max():
        raise ScanError(
            f"{source}: every voxel has the value {float(data.flat[0]):g}. "
            "The image is empty: check how it was exported."
        )
    result = nb.Nifti1Image(data, affine)
    result.header.set_xyzt_units("mm")
    return result


def read_mask(path: str | os.PathLike[str], *, like: nb.Nifti1Image | None = None) -> nb.Nifti1Image:
    """Read a mask: voxels above one half are inside.

    Parameters
    ----------
    path
        File of the mask.
    like
        Image whose grid the mask must have; a mask on another grid is resampled in world space
        (nearest neighbour), which is logged.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, 0 and 1.

    Raises
    ------
    NoInputError
        If the file is missing.
    ScanError
        If it is no image or nothing is inside the mask.
    """
    source = Path(path)
    img = _read_categorical(source)
    inside = (np.asanyarray(img.dataobj) > 0.5).astype(np.uint8)
    mask = _on_grid(source, nb.Nifti1Image(inside, img.affine), like)
    if not np.asanyarray(mask.dataobj).any():
        raise ScanError(
            f"{source}: nothing is inside this mask{_where(like)}: check that it belongs to this scan."
        )
    return mask


def read_dseg(path: str | os.PathLike[str], *, like: nb.Nifti1Image | None = None) -> nb.Nifti1Image:
    """Read a discrete segmentation.

    Parameters
    ----------
    path
        File of the segmentation; whole numbers, 0 outside.
    like
        Image whose grid it must have; a segmentation on another grid is resampled in world space.

    Returns
    -------
    nibabel.Nifti1Image
        int32 label numbers.

    Raises
    ------
    NoInputError
        If the file is missing.
    ScanError
        If it is no image, holds fractions, or no label at all.
    """
    source = Path(path)
    img = _read_categorical(source)
    values = np.asanyarray(img.dataobj)
    numbers = np.rint(values).astype(np.int32)
    if np.abs(values - numbers).max() > 1e-3:
        raise ScanError(
            f"{source}: holds fractions, but a segmentation has whole label numbers: is it a probseg?"
        )
    dseg = _on_grid(source, nb.Nifti1Image(numbers, img.affine), like)
    if not np.asanyarray(dseg.dataobj).any():
        raise ScanError(f"{source}: no voxel has a label{_where(like)}: check that it belongs to this scan.")
    return dseg


def write_image(img: nb.Nifti1Image, path: str | os.PathLike[str]) -> Path:
    """Write an image so that a file with its final name is always complete.

    Parameters
    ----------
    img
        Image in memory; its data type is kept. Equal images give equal bytes.
    path
        ``.nii.gz`` or ``.nii``.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    target = Path(path)
    with replacing(target) as temporary:
        nb.save(img, temporary)
    return target


def robust_rescale(
    data: np.ndarray, mask: np.ndarray | None = None, *, low: float = 0.5, high: float = 99.5
) -> np.ndarray:
    """Bring intensities to [0, 1] by two percentiles.

    Parameters
    ----------
    data
        Intensities, any shape.
    mask
        Same shape; the percentiles are taken where it is not zero. Without one, where the data are not zero.
    low, high
        Percentiles that become 0 and 1; what lies beyond is clipped.

    Returns
    -------
    numpy.ndarray
        float32, same shape.

    Raises
    ------
    ScanError
        If nothing is inside the mask or all intensities there are equal.

    Examples
    --------
    >>> robust_rescale(np.arange(1, 6), low=0, high=100).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return scaled_between(data, robust_range(data, mask, low=low, high=high))


def robust_range(
    data: np.ndarray, mask: np.ndarray | None = None, *, low: float = 0.5, high: float = 99.5
) -> tuple[float, float]:
    """Give the two percentiles between which :func:`robust_rescale` scales; parameters are its own.

    Raises
    ------
    ScanError
        If nothing is inside the mask or all intensities there are equal.

    Examples
    --------
    >>> robust_range(np.arange(1, 6), low=0, high=100)
    (1.0, 5.0)
    """
    inside = data[np.asarray(mask) != 0] if mask is not None else data[data != 0]
    if inside.size == 0:
        raise ScanError("There is no voxel to take the intensity range from: the mask or the image is empty.")
    bottom, top = (float(value) for value in np.percentile(inside, (low, high)))
    if top <= bottom:
        raise ScanError(
            f"Intensities inside the mask hardly vary (both percentiles are {top:g}): wrong mask?"
        )
    return bottom, top


def scaled_between(data: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Bring intensities to [0, 1], clipped.

    Examples
    --------
    >>> scaled_between(np.array([0, 2, 9]), (1.0, 5.0)).tolist()
    [0.0, 0.25, 1.0]
    """
    bottom, top = limits
    return np.clip((data.astype(np.float32) - bottom) / (top - bottom), 0, 1).astype(np.float32)


def keep_inside(img: nb.Nifti1Image, mask: nb.Nifti1Image) -> nb.Nifti1Image:
    """Set an image to zero outside a mask on the same grid.

    Raises
    ------
    ScanError
        If the grids differ.

    Examples
    --------
    >>> img = nb.Nifti1Image(np.ones((7, 8, 9), np.float32), np.eye(4))
    >>> float(keep_inside(img, nb.Nifti1Image(np.zeros((7, 8, 9), np.uint8), np.eye(4))).get_fdata().max())
    0.0
    """
    if not Grid.of(img).same_as(Grid.of(mask)):
        raise ScanError(
            f"Image {img.shape} and mask {mask.shape} are on different grids: resample the mask first."
        )
    data = np.asanyarray(img.dataobj)
    return nb.Nifti1Image(np.where(np.asanyarray(mask.dataobj) != 0, data, data.dtype.type(0)), img.affine)


def _read_categorical(source: Path) -> nb.Nifti1Image:
    """Read a mask or segmentation as stored, three-dimensional, finite."""
    img = open_image(source)
    shape = volume_shape(source, img.shape)
    affine = usable_affine(source, img)
    check_size(source, shape, affine)
    data = np.nan_to_num(load_values(source, img).reshape(shape), posinf=0.0, neginf=0.0)
    return nb.Nifti1Image(data, affine)


def _on_grid(source: Path, img: nb.Nifti1Image, like: nb.Nifti1Image | None) -> nb.Nifti1Image:
    if like is None or Grid.of(img).same_as(Grid.of(like), tolerance=0.05):
        return img if like is None else nb.Nifti1Image(np.asanyarray(img.dataobj), like.affine)
    LOGGER.warning("%s: its grid %s differs from the scan's %s; resampled.", source, img.shape, like.shape)
    return resample(img, Grid.of(like), [np.eye(4)], interpolation="nearest")


def _where(like: nb.Nifti1Image | None) -> str:
    return "" if like is None else " within the scan's field of view"
