"""Checks of an image file, each with a message that says what was found, where, and what to do."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from hyperprep.exceptions import NoInputError, ScanError
from hyperprep.models.spatial.grids import Grid

LOGGER = logging.getLogger(__name__)

MAX_VOXELS = 600_000_000
MAX_EXTENT = 1000.0
MIN_EXTENT = 5.0
"""A scan whose field of view (mm) or number of voxels lies outside these is refused."""


def open_image(source: Path) -> nb.spatialimages.SpatialImage:
    """Open an image file and read its header.

    Raises
    ------
    NoInputError
        If there is no file that can be read.
    ScanError
        If the file is empty or no image with one real value per voxel.
    """
    if not source.exists():
        why = "is a link to a file that is not there" if source.is_symlink() else "does not exist"
        raise NoInputError(f"{source} {why}: check the path (or fetch the file, if the data set is a clone).")
    if not source.is_file() or not os.access(source, os.R_OK):
        raise NoInputError(f"{source} is not a file that can be read: check its type and permissions.")
    if source.stat().st_size == 0:
        raise ScanError(f"{source} has zero size: copy or convert it again.")
    try:
        img = nb.load(source)
    except (ImageFileError, HeaderDataError, ValueError, EOFError, OSError, zlib.error) as error:
        raise ScanError(
            f"{source} is not a readable image ({error}): is it a complete NIfTI file?"
        ) from error
    if not isinstance(img, nb.spatialimages.SpatialImage):
        raise ScanError(f"{source} holds {type(img).__name__}, not a volume: give a NIfTI image.")
    if img.get_data_dtype().kind not in "biuf":
        raise ScanError(
            f"{source} has data type {img.get_data_dtype()}: only images with one real value per voxel."
        )
    return img


def load_values(source: Path, img: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Read an image's values as float32, scale factors applied.

    A compressed file is read to its end first, where its checksum stands: nibabel stops before.

    Raises
    ------
    ScanError
        If the file ends early or is damaged.
    """
    try:
        if source.suffix == ".gz":
            with gzip.open(source) as stream:
                while stream.read(1 << 22):
                    pass
        return np.asarray(img.get_fdata(dtype=np.float32, caching="unchanged"))
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise ScanError(
            f"{source} is truncated or damaged ({error}): its header can be read, its voxels cannot. "
            "Copy it again."
        ) from error


def volume_shape(source: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the three sizes of a volume; trailing axes must have one element.

    Raises
    ------
    ScanError
        If it is a slice, a line or a series.

    Examples
    --------
    >>> volume_shape(Path("T1w.nii.gz"), (7, 8, 9, 1))
    (7, 8, 9)
    """
    if len(shape) < 3 or min(shape) < 1 or sorted(shape[:3])[0] == 1:
        raise ScanError(f"{source} has shape {shape}: a single slice or line, not a volume. Give a 3-D scan.")
    if np.prod(shape[3:], dtype=int) != 1:
        raise ScanError(
            f"{source} has shape {shape}: {np.prod(shape[3:], dtype=int)} volumes where one is expected. "
            "Give the volume to use as a file of its own."
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _read_form(form: Callable[..., np.ndarray]) -> np.ndarray | None:
    """Read an orientation form; None where it holds impossible numbers (a quaternion longer than 1)."""
    try:
        return form(coded=False)
    except (ValueError, HeaderDataError):
        return None


def usable_affine(source: Path, img: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Return a usable affine: the sform, or the qform where the sform is unusable.

    Raises
    ------
    ScanError
        If neither is set, or both are singular.
    """
    candidates = [img.affine]
    if isinstance(img, nb.Nifti1Image):
        header = img.header
        forms = (
            (header.get_sform, header["sform_code"]),
            (header.get_qform, header["qform_code"]),
        )
        candidates = [_read_form(form) for form, code in forms if code > 0]
        if not candidates:
            raise ScanError(
                f"{source} has no orientation (sform_code and qform_code are 0): left and right are unknown. "
                "Convert it again with its orientation."
            )
    for affine in candidates:
        if affine is not None and np.isfinite(affine).all() and _scaled_determinant(affine) > 1e-3:
            if affine is not candidates[0]:
                LOGGER.warning("%s: its sform is singular; the qform is used.", source)
            return np.asarray(affine, dtype=np.float64)
    raise ScanError(
        f"{source} has a singular orientation matrix {np.round(candidates[0][:3], 4).tolist()}: "
        "its header is damaged. Convert it again."
    )


def _scaled_determinant(affine: np.ndarray) -> float:
    """Return |det| after scaling the columns to length 1: 1 for perpendicular axes, 0 for a flat volume."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0:
        return 0.0
    return float(abs(np.linalg.det(affine[:3, :3] / lengths)))


def check_size(source: Path, shape: tuple[int, int, int], affine: np.ndarray) -> None:
    """Refuse a grid that no head scan has.

    Raises
    ------
    ScanError
        If there are too many voxels or the field of view is too large or too small.
    """
    extent = Grid(shape, affine).extent
    voxels = shape[0] * shape[1] * shape[2]
    if voxels > MAX_VOXELS:
        raise ScanError(
            f"{source} has {voxels:,} voxels {shape}; up to {MAX_VOXELS:,} are accepted: downsample it."
        )
    if extent.max() > MAX_EXTENT or extent.min() < MIN_EXTENT:
        size = " x ".join(f"{length:.4g}" for length in extent)
        raise ScanError(
            f"{source} covers {size} mm, which no head scan does: "
            "the voxel sizes in its header are wrong or not in millimetres."
        )
