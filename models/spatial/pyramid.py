"""An image at 8, 4 and 2 mm, intensities in [0, 1], ready for matching."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from hyperprep.exceptions import ScanError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import LPS, image_to_itk, itk_to_array

LEVELS = (2, 4, 8)
"""Voxel sizes in mm that the levels come close to."""


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a pyramid.

    Parameters
    ----------
    grid
        Perpendicular axes, about isotropic.
    data
        ``(X, Y, Z)`` float32 in [0, 1], zero outside the mask where one was given.
    foreground
        ``(X, Y, Z)`` bool: the mask, or what is brighter than the background.
    """

    grid: Grid
    data: np.ndarray
    foreground: np.ndarray

    def domain(self, margin: float) -> np.ndarray:
        """Foreground without holes, grown by a margin in mm: ``(X, Y, Z)`` bool."""
        filled = binary_fill_holes(self.foreground)
        return distance_transform_edt(~filled, sampling=self.grid.spacing.tolist()) <= margin

    @property
    def center(self) -> np.ndarray:
        """``(3,)`` mean of the foreground's voxels in RAS mm."""
        return self.grid.to_world(np.argwhere(self.foreground).mean(axis=0))


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An image at several resolutions.

    Parameters
    ----------
    levels
        Voxel size in mm (2, 4, 8) to level.
    residual
        ``(4, 4)`` point map from the levels' space to the image's world; the identity without shear.
    """

    levels: dict[int, Level]
    residual: np.ndarray

    @classmethod
    def of(cls, img: nb.Nifti1Image, mask: nb.Nifti1Image | None = None, *, num_threads: int = 1) -> Pyramid:
        """Make a pyramid by averaging blocks of voxels.

        Parameters
        ----------
        img
            Three-dimensional image with finite values.
        mask
            On the same grid; everything outside becomes 0.
        num_threads
            Threads that SimpleITK uses.

        Raises
        ------
        ScanError
            If the grids differ, the mask is empty, or the image hardly varies.
        """
        data = img.get_fdata(dtype=np.float32)
        inside = None
        if mask is not None:
            if not Grid.of(mask).same_as(Grid.of(img)):
                raise ScanError(
                    f"Image {img.shape} and mask {mask.shape} are on different grids: resample the mask."
                )
            inside = np.asanyarray(mask.dataobj) > 0
            if not inside.any():
                raise ScanError(
                    "The mask is empty: nothing can be aligned. Check that it belongs to this scan."
                )
        image, residual = image_to_itk(data, Grid.of(img))
        weight = None if inside is None else image_to_itk(inside.astype(np.float32), Grid.of(img))[0]
        raw: dict[int, tuple[Grid, np.ndarray, np.ndarray | None]] = {}
        for size in LEVELS:
            image = _shrink(image, size, num_threads)
            if weight is not None:
                weight = _shrink(weight, size, num_threads)
            raw[size] = (_grid(image), itk_to_array(image), None if weight is None else itk_to_array(weight))
        low, threshold, high = _intensity_range(raw[4][1], raw[4][2])
        levels = {}
        for size, (grid, values, share) in raw.items():
            scaled = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
            foreground = values > threshold if share is None else share > 0.5
            levels[size] = Level(grid, scaled if share is None else scaled * np.minimum(share, 1), foreground)
        if min(level.foreground.sum() for level in levels.values()) < 20:
            raise ScanError("The image or mask holds almost nothing to align (less than 20 voxels of 8 mm).")
        return cls(levels, residual)


def _shrink(image: sitk.Image, size: float, num_threads: int) -> sitk.Image:
    shrink = sitk.BinShrinkImageFilter()
    shrink.SetNumberOfThreads(num_threads)
    factors = [
        max(1, min(round(size / step), count // 4))
        for step, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    shrink.SetShrinkFactors(factors)
    return shrink.Execute(image)


def _grid(image: sitk.Image) -> Grid:
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return Grid(image.GetSize(), LPS @ lps)


def _intensity_range(values: np.ndarray, share: np.ndarray | None) -> tuple[float, float, float]:
    """Background level, background threshold and upper end of the intensities."""
    if share is not None:
        inside = values[share > 0.5] if (share > 0.5).any() else values
        low, high = (float(value) for value in np.percentile(inside, (0.5, 99.5)))
        low = threshold = min(low, 0.0)
    else:
        low = float(np.percentile(values, 1))
        bright = values[values > low]
        ceiling = float(np.percentile(bright, 99)) if bright.size else low
        otsu = sitk.OtsuThresholdImageFilter()
        otsu.Execute(sitk.GetImageFromArray(np.clip(values, low, ceiling)))
        threshold = low + 0.5 * (otsu.GetThreshold() - low)
        inside = values[values > threshold]
        high = float(np.percentile(inside, 99.5)) if inside.size else low
    if not high > low:
        raise ScanError(f"The image hardly varies (from {low:g} to {high:g}): nothing can be aligned.")
    return low, threshold, high
