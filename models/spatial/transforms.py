"""Chains of point maps: made, written as ITK files, read, applied to images and points.

A chain is applied first to last to a point of the reference (output) space and ends in the moving (input)
space. ITK's composite transform applies the one added last first, so a chain enters it in reverse order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import nibabel as nb
import numpy as np
import SimpleITK as sitk

from hyperprep.exceptions import NoInputError, ScanError, UsageError
from hyperprep.models.spatial.fields import DisplacementField
from hyperprep.models.spatial.files import replacing
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.itk import affine_to_itk, image_to_itk, itk_to_array, resampler, split_shear

INTERPOLATORS = {
    "linear": sitk.sitkLinear,
    "nearest": sitk.sitkNearestNeighbor,
    "bspline": sitk.sitkBSpline,
    "lanczos": sitk.sitkLanczosWindowedSinc,
    "label": sitk.sitkLabelLinear,
}
"""Interpolation names and what SimpleITK calls them."""

_AFFINE_SUFFIXES = (".txt", ".tfm", ".mat")


Chain = Sequence[np.ndarray | DisplacementField]
"""Point maps, first to last, from the reference space to the moving space."""


def _field_to_itk(field: DisplacementField) -> list[sitk.Transform]:
    """ITK transforms of one field, first to last: three of them where its grid is sheared, else one."""
    _, residual = split_shear(field.grid)
    sheared = not np.array_equal(residual, np.eye(4))
    data = np.asarray(field.data, dtype=np.float64)
    if sheared:
        data = data @ np.linalg.inv(residual[:3, :3]).T
    image, _ = image_to_itk(data * (-1.0, -1.0, 1.0), field.grid)
    warp = sitk.DisplacementFieldTransform(image)
    if not sheared:
        return [warp]
    return [affine_to_itk(np.linalg.inv(residual)), warp, affine_to_itk(residual)]


def to_itk(chain: Chain) -> sitk.CompositeTransform:
    """ITK composite transform (LPS, double) that maps points as the chain does.

    Neighbouring matrices are multiplied into one.

    Parameters
    ----------
    chain
        Point maps, first to last; an empty chain is the identity.

    Raises
    ------
    ValueError
        If a member is neither a ``(4, 4)`` matrix nor a :class:`DisplacementField`.

    Examples
    --------
    >>> shift, stretch = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    >>> shift[:3, 3] = 1, 1, 1
    >>> to_itk([shift, stretch]).TransformPoint((0.0, 0.0, 0.0))
    (-2.0, -2.0, 2.0)
    """
    transforms: list[sitk.Transform] = []
    for member in _merge_matrices(chain):
        if isinstance(member, DisplacementField):
            transforms += _field_to_itk(member)
        else:
            transforms.append(affine_to_itk(member))
    composite = sitk.CompositeTransform(3)
    for transform in reversed(transforms):
        composite.AddTransform(transform)
    return composite


def _merge_matrices(chain: Chain) -> list[np.ndarray | DisplacementField]:
    merged: list[np.ndarray | DisplacementField] = []
    for member in chain:
        if isinstance(member, DisplacementField):
            merged.append(member)
            continue
        matrix = np.asarray(member, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(
                f"a chain holds 4 x 4 matrices and displacement fields, not shape {matrix.shape}"
            )
        last = merged[-1] if merged else None
        if isinstance(last, np.ndarray):
            merged[-1] = matrix @ last
        else:
            merged.append(matrix)
    return merged or [np.eye(4)]


def write_transform(chain: Chain, path: str | os.PathLike[str]) -> Path:
    """Write a chain as an ITK transform file (LPS), complete or not at all.

    Parameters
    ----------
    chain
        Point maps from the reference to the moving space: the file brings moving images onto the reference.
    path
        ``.h5`` for any chain (composite, compressed, displacements kept to float32);
        ``.txt``, ``.tfm`` or ``.mat`` for chains of matrices only (one affine).

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    UsageError
        If the suffix is unknown or cannot hold the chain.
    OutputError
        If the file cannot be written.
    """
    target = Path(path)
    if target.suffix in _AFFINE_SUFFIXES:
        members = _merge_matrices(chain)
        if len(members) != 1 or isinstance(members[0], DisplacementField):
            raise UsageError(
                f"{target} can hold one affine only, but the chain has a displacement field: use .h5."
            )
        with replacing(target) as temporary:
            sitk.WriteTransform(affine_to_itk(members[0]), str(temporary))
    elif target.suffix == ".h5":
        with (
            replacing(target) as temporary,
            TemporaryDirectory(dir=temporary.parent, prefix=".xfm.") as folder,
        ):
            raw = Path(folder) / "composite.h5"
            sitk.WriteTransform(to_itk(chain), str(raw))
            _repack(raw, temporary)
    else:
        raise UsageError(
            f"{target} has a suffix that no transform file has: use .h5, or {', '.join(_AFFINE_SUFFIXES)}."
        )
    return target


def _repack(source: Path, target: Path) -> None:
    """Copy an ITK transform file with its large arrays compressed (gzip, shuffled) and as float32."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                new.require_group(name)
            elif item.size > 1000 and item.dtype.kind == "f":
                new.create_dataset(
                    name,
                    data=item[()].astype(np.float32),
                    compression="gzip",
                    compression_opts=4,
                    shuffle=True,
                )
            else:
                # Not Group.copy: it keeps the time of writing, and the same chain should give the same bytes.
                new.create_dataset(name, data=item[()], dtype=item.dtype)

        old.visititems(copy)


def read_transform(path: str | os.PathLike[str]) -> sitk.Transform:
    """Read an ITK transform file.

    Raises
    ------
    NoInputError
        If the file is not there.
    ScanError
        If it holds no transform of three-dimensional points.
    """
    source = Path(path)
    if not source.is_file():
        raise NoInputError(f"There is no transform file {source}: check the path.")
    try:
        transform = sitk.ReadTransform(str(source))
    except RuntimeError as error:
        raise ScanError(f"{source} is not a transform that ITK can read: write it again.") from error
    if transform.GetDimension() != 3:
        raise ScanError(f"{source} maps points in {transform.GetDimension()} dimensions, 3 are needed.")
    return transform


def resample(
    img: nb.Nifti1Image,
    reference: Grid,
    chain_or_itk: Chain | sitk.Transform,
    *,
    interpolation: str = "linear",
) -> nb.Nifti1Image:
    """Bring an image onto a grid, interpolating once.

    Parameters
    ----------
    img
        Three-dimensional image in the moving space.
    reference
        Grid of the result.
    chain_or_itk
        Point map from the reference space to the image's space, as a chain (RAS) or an ITK transform (LPS).
    interpolation
        ``"linear"``, ``"bspline"`` (cubic) or ``"lanczos"`` (windowed sinc, forty times slower) for
        intensities; the latter two may leave the image's range a little,
        ``"nearest"`` or ``"label"`` (the label with the largest linear weight) for label maps.

    Returns
    -------
    nibabel.Nifti1Image
        On the reference grid, zero where the image does not reach. float32 for intensities, else the
        image's own data type (int32 for int64, uint8 for truth values).

    Raises
    ------
    UsageError
        If the interpolation is unknown.
    ScanError
        If the image is not three-dimensional.

    Examples
    --------
    >>> img = nb.Nifti1Image(np.arange(504, dtype=np.float32).reshape(7, 8, 9), np.eye(4))
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 1.0
    >>> float(resample(img, Grid.of(img), [shift]).dataobj[0, 0, 0])
    72.0
    """
    if interpolation not in INTERPOLATORS:
        raise UsageError(f"Unknown interpolation '{interpolation}': use one of {', '.join(INTERPOLATORS)}.")
    if len(img.shape) != 3:
        raise ScanError(f"Only three-dimensional images are resampled, this one has shape {img.shape}.")
    categorical = interpolation in ("nearest", "label")
    data = _labels_for_itk(np.asanyarray(img.dataobj)) if categorical else img.get_fdata(dtype=np.float32)
    moving, moving_residual = image_to_itk(data, Grid.of(img))
    straight, residual = split_shear(reference)
    transform = chain_or_itk if isinstance(chain_or_itk, sitk.Transform) else to_itk(chain_or_itk)
    if not (np.array_equal(residual, np.eye(4)) and np.array_equal(moving_residual, np.eye(4))):
        outer = sitk.CompositeTransform(3)
        outer.AddTransform(affine_to_itk(np.linalg.inv(moving_residual)))
        outer.AddTransform(transform)
        outer.AddTransform(affine_to_itk(residual))
        transform = outer
    program = resampler(straight)
    program.SetTransform(transform)
    program.SetInterpolator(INTERPOLATORS[interpolation])
    result = nb.Nifti1Image(itk_to_array(program.Execute(moving)), reference.affine)
    result.header.set_xyzt_units("mm")
    return result


def _labels_for_itk(data: np.ndarray) -> np.ndarray:
    """Label maps in a type that ITK knows."""
    if data.dtype == bool:
        return data.astype(np.uint8)
    if data.dtype.kind in "iu" and data.dtype.itemsize <= 4:
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    return data.astype(np.int32 if data.dtype.kind in "iu" else np.float32)


def map_points(points: np.ndarray, chain_or_itk: Chain | sitk.Transform) -> np.ndarray:
    """Map points of the reference space to the moving space.

    Parameters
    ----------
    points
        ``(N, 3)`` RAS mm.
    chain_or_itk
        Point map, as a chain (RAS) or an ITK transform (LPS).

    Returns
    -------
    numpy.ndarray
        ``(N, 3)`` RAS mm, float64.

    Raises
    ------
    ValueError
        If the points are not ``(N, 3)``.

    Examples
    --------
    >>> map_points(np.array([[1.0, 2.0, 3.0]]), [np.diag([2.0, 2.0, 2.0, 1.0])]).tolist()
    [[2.0, 4.0, 6.0]]
    """
    moved = np.array(points, dtype=np.float64)
    if moved.ndim != 2 or moved.shape[1] != 3:
        raise ValueError(f"points have shape (N, 3), not {moved.shape}")
    if isinstance(chain_or_itk, sitk.Transform):
        flip = np.array([-1.0, -1.0, 1.0])
        mapped = [chain_or_itk.TransformPoint(point) for point in (moved * flip).tolist()]
        return np.array(mapped, dtype=np.float64).reshape(-1, 3) * flip
    for member in _merge_matrices(chain_or_itk):
        if isinstance(member, DisplacementField):
            moved = member.map_points(moved)
        else:
            moved = moved @ member[:3, :3].T + member[:3, 3]
    return moved
