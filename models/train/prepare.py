"""Bring the training label maps into the template frame and close their brain masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from hyperprep.exceptions import NoInputError
from hyperprep.models.spatial.files import replacing
from hyperprep.models.synth.maps import ORIGIN_MM
from hyperprep.models.synth.structures import TISSUE_GROUPS

_SHAPE = (192, 224, 192)
_T1W_MEANS = {
    "white": 0.85,
    "cortex": 0.6,
    "csf": 0.15,
    "ventricle": 0.12,
    "cerebellar_white": 0.82,
    "cerebellar_cortex": 0.58,
    "thalamus": 0.7,
    "caudate": 0.62,
    "putamen": 0.66,
    "pallidum": 0.76,
    "brainstem": 0.77,
    "hippocampus": 0.58,
    "lesion": 0.6,
    "vessel": 0.5,
    "other": 0.4,
}


def t1w_means(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Give the intensity of each FreeSurfer number in a painted T1w image; 0 where it is not of the brain.

    >>> [round(float(one), 2) for one in t1w_means([0, 2, 500])]
    [0.0, 0.85, 0.0]
    """
    out = np.zeros(len(numbers), np.float32)
    for group, members in TISSUE_GROUPS.items():
        out[np.isin(numbers, members)] = _T1W_MEANS[group]
    return out


def write_maps(
    target: str | Path, maps: np.ndarray, brain: np.ndarray, *, numbers: np.ndarray, affines: np.ndarray
) -> None:
    """Write label maps and brain masks 0/1, (n, X, Y, Z) each, as ``load_maps`` reads them."""
    with replacing(target) as partial:
        np.savez_compressed(
            partial, maps=maps, brain=np.packbits(brain, axis=-1), numbers=numbers, affines=affines
        )


def _image(array: np.ndarray, origin: tuple[float, ...] = ORIGIN_MM) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetOrigin(origin)
    return image


def closed_brain(labels: np.ndarray, radius_mm: int = 5) -> np.ndarray:
    """Close the tissue of the brain into a mask as raters draw it: sulci in, outer cerebrospinal fluid out.

    Parameters
    ----------
    labels
        (X, Y, Z) FreeSurfer numbers at 1 mm.
    radius_mm
        Radius of the ball that closes the sulci.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) bool.

    Examples
    --------
    >>> labels = np.zeros((14, 15, 16), int)
    >>> labels[4:6, 4:12, 4:12] = labels[8:10, 4:12, 4:12] = 3
    >>> bool(closed_brain(labels)[7, 8, 8])
    True
    """
    tissue = (labels > 0) & (labels < 500) & ~np.isin(labels, (24, 30, 62, 85, 136, 137, 163, 164))
    padded = np.pad(tissue, radius_mm + 1)
    outside = ndimage.distance_transform_edt(~padded) > radius_mm
    closed = ndimage.distance_transform_edt(~outside) > radius_mm
    core = tuple(slice(radius_mm + 1, -radius_mm - 1) for _ in range(3))
    return np.asarray(ndimage.binary_fill_holes(closed[core]))


def _affine_to(template: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    start = sitk.CenteredTransformInitializer(
        template, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetOptimizerAsGradientDescentLineSearch(1.0, 60, 1e-5, 8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    method.SetInterpolator(sitk.sitkLinear)
    return method.Execute(template, moving)


def prepare(source: str | Path, target: str | Path) -> None:
    """Write the label maps of ``source`` affinely aligned to the MNI152 template, with their brain masks.

    Parameters
    ----------
    source
        ``.npz`` with ``maps`` (n, 192, 224, 192) uint8, RAS, 1 mm, centred on the brain, and ``labels``
        (FreeSurfer numbers).
    target
        ``.npz`` to write: ``maps``, ``brain`` (bits), ``numbers``, ``affines`` (n, 4, 4; template mm to
        source voxel, RAS).

    Raises
    ------
    NoInputError
        When the source is not there.
    """
    from nilearn.datasets import load_mni152_template

    if not Path(source).exists():
        raise NoInputError(f"No label maps at {source}. Give the .npz with 'maps' and 'labels'.")
    with np.load(source) as stored:
        maps, numbers = stored["maps"], stored["labels"].astype(int)
    mni = load_mni152_template(resolution=1)
    template = _image(mni.get_fdata(dtype=np.float32), tuple(float(v) for v in mni.affine[:3, 3]))
    mean_of = t1w_means(numbers)
    reference = sitk.Image(_SHAPE, sitk.sitkUInt8)
    reference.SetOrigin(ORIGIN_MM)
    moved: list[np.ndarray] = []
    brains: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    centre = tuple(-s / 2 for s in _SHAPE)
    for index, one in enumerate(maps):
        brain = closed_brain(numbers[one])
        transform = _affine_to(template, _image(mean_of[one] * brain, centre))
        for array, collected in ((one, moved), (brain.astype(np.uint8), brains)):
            out = sitk.Resample(
                _image(array, centre), reference, transform, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
            )
            collected.append(sitk.GetArrayFromImage(out).transpose(2, 1, 0))
        probe = np.array(
            [transform.TransformPoint(p) for p in ((0.0, 0.0, 0.0), (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))]
        )
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = (probe[1:] - probe[0]).T, probe[0] - centre
        affines.append(matrix)
        print(
            f"map {index + 1}/{len(maps)}: scale {np.linalg.det(matrix[:3, :3]) ** (-1 / 3):.3f}, "
            f"brain {brains[-1].sum() / 1e3:.0f} ml in the template frame",
            flush=True,
        )
    write_maps(target, np.stack(moved), np.stack(brains), numbers=numbers, affines=np.stack(affines))
