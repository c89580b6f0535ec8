"""A scan made fit for everything that follows: its own grid, float32, finite, evenly bright.

Bias field correction is N4 as SimpleITK carries it (Tustison et al., IEEE Trans Med Imaging 29(6), 2010).
"""

from __future__ import annotations

import nibabel as nb
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from hyperprep.exceptions import ScanError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import image_to_itk, itk_to_array

_ITERATIONS = (50, 40, 30)
_TOLERANCE = 1e-3
_SMALLEST_AXIS = 12


def conform(img: nb.Nifti1Image) -> nb.Nifti1Image:
    """Validate a scan and put it in the one form that the networks and the derivatives share.

    The grid stays the scan's own. Values that are not finite become zero; a trailing axis of length one goes.

    Parameters
    ----------
    img
        Scan with one volume, any numeric type.

    Returns
    -------
    nibabel.Nifti1Image
        ``(X, Y, Z)`` float32, header with both orientation forms (scanner space) and units of mm.

    Raises
    ------
    ScanError
        If the image has no three dimensions of at least two voxels, or is constant or without a finite value.

    Examples
    --------
    >>> data = np.arange(504.0).reshape(7, 8, 9, 1)
    >>> data[0, 0, 1] = np.nan
    >>> made = conform(nb.Nifti1Image(data, np.eye(4)))
    >>> made.shape, made.get_data_dtype().name, float(made.dataobj[0, 0, 1])
    ((7, 8, 9), 'float32', 0.0)
    """
    shape = img.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise ScanError(f"One volume of three dimensions is needed, this image has shape {img.shape}.")
    data = np.asanyarray(img.dataobj).reshape(shape)
    if data.dtype.kind not in "buif":
        raise ScanError(f"A scan holds real numbers, this image holds {data.dtype}.")
    finite = np.isfinite(data)
    if not finite.any():
        raise ScanError("No voxel of this image has a finite value: export it again.")
    largest = np.finfo(np.float32).max
    clean = np.clip(np.where(finite, data, 0), -largest, largest).astype(np.float32)
    if clean.min() == clean.max():
        raise ScanError(f"Every voxel of this image has the value {clean.flat[0]:g}: it shows no anatomy.")
    made = nb.Nifti1Image(clean, img.affine)
    made.set_sform(img.affine, 1)
    made.set_qform(img.affine, 1, strip_shears=True)
    made.header.set_xyzt_units("mm")
    return made


def head_mask(img: nb.Nifti1Image) -> nb.Nifti1Image:
    """Foreground by Otsu's threshold.

    Parameters
    ----------
    img
        ``(X, Y, Z)`` scan, with or without skull.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, 1 in the foreground, same grid.

    Examples
    --------
    >>> data = np.zeros((7, 8, 9), np.float32)
    >>> data[2:5, 2:5, 2:5] = 100
    >>> int(np.asarray(head_mask(nb.Nifti1Image(data, np.eye(4))).dataobj).sum())
    27
    """
    data = img.get_fdata(dtype=np.float32)
    ceiling = np.percentile(data, 99.5) or data.max()
    image = sitk.GetImageFromArray(np.minimum(data, ceiling).transpose(2, 1, 0))
    mask = sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1)).transpose(2, 1, 0)
    return _like(img, (mask.astype(bool) & (data > 0)).astype(np.uint8))


def nonzero_mask(img: nb.Nifti1Image) -> nb.Nifti1Image:
    """Brain mask of a skull-stripped scan: its largest connected non-zero region, holes filled.

    Parameters
    ----------
    img
        ``(X, Y, Z)`` scan whose voxels outside the brain are zero.

    Returns
    -------
    nibabel.Nifti1Image
        uint8, 1 inside, same grid.

    Raises
    ------
    ScanError
        If more than 95 % of the voxels are not zero, so that nothing can have been stripped.

    Examples
    --------
    >>> data = np.zeros((7, 8, 9), np.float32)
    >>> data[2:5, 2:5, 2:5] = 100
    >>> data[3, 3, 3] = 0
    >>> int(np.asarray(nonzero_mask(nb.Nifti1Image(data, np.eye(4))).dataobj).sum())
    27
    """
    foreground = img.get_fdata(dtype=np.float32) != 0
    share = float(foreground.mean())
    if share > 0.95:
        raise ScanError(
            f"This scan is said to be skull-stripped, but {100 * share:.0f} % of its voxels are not zero. "
            "Correct SkullStripped in its sidecar, or run with --skull-strip-t1w force."
        )
    parts, count = ndimage.label(foreground)
    if count > 1:
        foreground = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return _like(img, ndimage.binary_fill_holes(foreground).astype(np.uint8))


def correct_bias(
    img: nb.Nifti1Image,
    mask: nb.Nifti1Image | None = None,
    *,
    shrink: int = 4,
    num_threads: int | None = None,
) -> nb.Nifti1Image:
    """Divide a scan by its slowly varying intensity field (N4).

    The field is estimated on a coarse copy and evaluated on the scan's own grid; the mean intensity inside
    the mask is kept.

    Parameters
    ----------
    img
        ``(X, Y, Z)`` scan, any grid.
    mask
        Where the field is estimated, same grid; None takes the foreground by Otsu's threshold.
    shrink
        The coarse copy has voxels of about this many mm, along thick slices as along fine ones.
    num_threads
        Threads of N4; None leaves ITK's choice.

    Returns
    -------
    nibabel.Nifti1Image
        float32, same grid and header.

    Raises
    ------
    ScanError
        If the mask holds no voxel with a positive value.

    Examples
    --------
    >>> grid = np.indices((16, 17, 18)).astype(np.float32)
    >>> ball = ((grid - 8) ** 2).sum(0) < 36
    >>> biased = nb.Nifti1Image(ball * (50 + 4 * grid[0]), np.eye(4))
    >>> before, after = biased.get_fdata()[ball], correct_bias(biased, shrink=1).get_fdata()[ball]
    >>> bool(after.std() / after.mean() < 0.5 * before.std() / before.mean())
    True
    """
    data = img.get_fdata(dtype=np.float32)
    inside = np.asanyarray((mask or head_mask(img)).dataobj) > 0
    inside &= data > 0
    if not inside.any():
        raise ScanError("Bias correction found no voxel with a positive value inside the mask.")
    grid = Grid.of(img)
    image, _ = image_to_itk(np.maximum(data, 0), grid)
    factors = [
        int(np.clip(round(shrink / step), 1, max(1, size // _SMALLEST_AXIS)))
        for size, step in zip(grid.shape, grid.spacing, strict=True)
    ]
    coarse = sitk.Shrink(image, factors)
    coarse_mask = sitk.Shrink(image_to_itk(inside.astype(np.uint8), grid)[0], factors)
    if not np.any(sitk.GetArrayViewFromImage(coarse_mask)):
        coarse, coarse_mask = image, image_to_itk(inside.astype(np.uint8), grid)[0]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(_ITERATIONS))
    n4.SetConvergenceThreshold(_TOLERANCE)
    if num_threads:
        n4.SetNumberOfThreads(num_threads)
    n4.Execute(coarse, coarse_mask)
    log_field = itk_to_array(n4.GetLogBiasFieldAsImage(image)).astype(np.float32)
    corrected = data / np.exp(log_field)
    corrected *= data[inside].mean() / max(float(corrected[inside].mean()), np.finfo(np.float32).tiny)
    return _like(img, corrected.astype(np.float32))


def _like(img: nb.Nifti1Image, data: np.ndarray) -> nb.Nifti1Image:
    """Image with another image's grid and header, and the data's type."""
    header = img.header.copy()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    return nb.Nifti1Image(data, img.affine, header)
