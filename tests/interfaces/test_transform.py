"""Resampling through files: directions, orders and types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from hyperprep.interfaces.transform import ApplyTransform, JacobianDeterminant
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import DisplacementField, write_transform

OBLIQUE = np.array([[-9.66, 0, 3.11, 10], [0, 11, 0, -20], [2.59, 0, 11.59, 5], [0, 0, 0, 1]], dtype=float)
SHEARED = OBLIQUE @ np.array([[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def shift_file(folder: Path, mm: tuple[float, float, float], name: str) -> str:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return str(write_transform([matrix], folder / name))


@pytest.fixture
def point(save: Callable[..., str]) -> str:
    """One bright voxel on a 1 mm grid."""
    data = np.zeros((17, 18, 19), np.float32)
    data[8, 10, 10] = 100
    return save(data, "point.nii.gz", np.eye(4))


def test_a_transform_takes_reference_points_to_the_image(point: str, tmp_path: Path, workdir: Path) -> None:
    made = ApplyTransform(
        input_image=point, reference_image=point, transforms=[shift_file(tmp_path, (3, -2, 1), "a.txt")]
    ).run()
    data = nb.load(made.outputs.output_image).get_fdata()
    assert np.argwhere(data > 50).tolist() == [[5, 12, 9]]


def test_the_first_transform_comes_first(point: str, tmp_path: Path, workdir: Path) -> None:
    double = str(write_transform([np.diag([2.0, 2, 2, 1])], tmp_path / "double.txt"))
    shift = shift_file(tmp_path, (2, 2, 0), "shift.txt")

    def bright(transforms: list[str]) -> list[list[int]]:
        made = ApplyTransform(input_image=point, reference_image=point, transforms=transforms).run()
        return np.argwhere(nb.load(made.outputs.output_image).get_fdata() > 50).tolist()

    assert bright([shift, double]) == [[2, 3, 5]]  # 2 (x + shift)
    assert bright([double, shift]) == [[3, 4, 5]]  # 2 x + shift


@pytest.mark.parametrize("interpolation", ["bspline", "lanczos"])
def test_sharp_interpolation_keeps_the_range(
    save: Callable[..., str], tmp_path: Path, workdir: Path, interpolation: str
) -> None:
    data = np.zeros((15, 16, 17), np.float32)
    data[5:10, 5:10, 5:10] = 100
    path = save(data, "box.nii.gz", np.eye(4))
    shift = shift_file(tmp_path, (0.5, 0.5, 0.5), "a.txt")
    apply = ApplyTransform(
        input_image=path, reference_image=path, transforms=[shift], interpolation=interpolation
    )
    made = nb.load(apply.run().outputs.output_image).get_fdata()
    assert made.min() == 0
    assert made.max() == 100


@pytest.mark.parametrize("interpolation", ["nearest", "label"])
@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 1), (np.int16, 30001)])
def test_labels_stay_labels(
    save: Callable[..., str],
    tmp_path: Path,
    workdir: Path,
    interpolation: str,
    dtype: type,
    largest: int,
) -> None:
    data = np.zeros((7, 8, 9), dtype)
    data[2:5, 2:5, 2:5] = largest
    path = save(data, "dseg.nii.gz", np.eye(4))
    shift = shift_file(tmp_path, (0.4, 0, 0), "a.txt")
    made = nb.load(
        ApplyTransform(
            input_image=path, reference_image=path, transforms=[shift], interpolation=interpolation
        )
        .run()
        .outputs.output_image
    )
    assert made.get_data_dtype() == dtype
    assert np.array_equal(np.asanyarray(made.dataobj), data)


def test_space_of_the_result_is_the_references(point: str, save: Callable[..., str], workdir: Path) -> None:
    template = nb.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([4.0, 4, 4, 1]))
    template.set_sform(template.affine, 4)
    path = Path(point).with_name("template.nii.gz")
    template.to_filename(path)
    made = nb.load(ApplyTransform(input_image=point, reference_image=str(path)).run().outputs.output_image)
    assert made.shape == (4, 5, 6)
    assert int(made.header["sform_code"]) == int(made.header["qform_code"]) == 4
    assert made.get_data_dtype() == np.float32


@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([-2.0, 3, 4, 1]), SHEARED])
def test_change_of_volume_includes_the_affine_part(
    save: Callable[..., str], tmp_path: Path, workdir: Path, affine: np.ndarray
) -> None:
    reference = save(np.zeros((7, 8, 9), np.float32), "first.nii.gz", affine)
    grid = Grid((12, 13, 14), np.diag([20.0, 20, 20, 1]) + np.array([[0, 0, 0, -110]] * 3 + [[0, 0, 0, 0]]))
    nodes = grid.to_world(np.stack(np.indices(grid.shape), axis=-1))
    stretch = DisplacementField(grid, (nodes * np.array([0.1, 0.0, -0.2])).astype(np.float32))
    turn = np.array([[0.0, -1, 0, 4], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]]) @ np.diag([1.5, 1, 1, 1])
    path = str(write_transform([stretch, turn], tmp_path / "a.h5"))
    made = nb.load(JacobianDeterminant(in_xfm=path, reference_image=reference).run().outputs.out_file)
    assert np.allclose(made.affine, affine, atol=1e-4)
    assert np.allclose(made.get_fdata(), 1.1 * 0.8 * 1.5, atol=2e-3)
