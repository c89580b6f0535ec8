"""Resampling through files: directions, orders and types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from hyperprep.interfaces.transform import ApplyTransform
from hyperprep.models.spatial.transforms import write_transform


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
