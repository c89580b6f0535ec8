"""Examples of a task: told apart, checked, and refused in words that a clinician understands."""

import json

import nibabel as nb
import numpy as np
import pytest

from hyperprep.exceptions import NoInputError, ScanError, UsageError
from hyperprep.models.spatial.examples import Example, check_examples, kind_of_output, read_example

AFFINE = np.diag([8.0, 8, 8, 1])


@pytest.fixture
def write(tmp_path):
    def make(name, data, affine=AFFINE, **sidecar):
        path = tmp_path / f"{name}.nii.gz"
        nb.Nifti1Image(np.asarray(data, "f4"), affine).to_filename(path)
        if sidecar:
            (tmp_path / f"{name}.json").write_text(json.dumps(sidecar))
        return path

    return make


def noise(seed=0):
    return np.random.default_rng(seed).uniform(1, 9, (7, 8, 9))


def box():
    data = np.zeros((7, 8, 9))
    data[2:5, 3:6, 4:7] = 1
    return data


def test_kind_is_read_from_name_sidecar_and_values(write):
    assert kind_of_output(write("sub-1_desc-a_mask", box())) == "mask"
    assert kind_of_output(write("sub-1_desc-a_T1w", noise())) == "image"
    assert kind_of_output(write("sub-1_desc-b_T1w", 255 * box())) == "mask"
    assert kind_of_output(write("sub-1_desc-c_T1w", box(), Type="ROI")) == "mask"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("sub-1_desc-a_mask", np.zeros((7, 8, 9)), "nothing is marked"),
        ("sub-1_desc-a_mask", np.ones((7, 8, 9)), "one value only"),
        ("sub-1_desc-a_mask", noise(), "different values"),
        ("sub-1_dseg", box() + 2 * np.roll(box(), 3, 0) * (box() == 0), "2 labels"),
    ],
)
def test_useless_outputs_are_refused(write, name, data, words):
    with pytest.raises(ScanError, match=words):
        kind_of_output(write(name, data))


def test_grids_must_agree(write):
    other = AFFINE.copy()
    other[0, 3] = 5
    one = Example("sub-1", (write("sub-1_T1w", noise()),), write("sub-1_desc-a_mask", box(), other))
    with pytest.raises(ScanError, match=r"sub-1: sub-1_desc-a_mask\.nii\.gz .* same voxel grid"):
        read_example(one, "mask")


def test_a_good_set_is_read(write):
    examples = [
        Example(f"sub-{n}", (write(f"sub-{n}_T1w", noise(n)),), write(f"sub-{n}_desc-a_mask", 3 * box()))
        for n in (1, 2)
    ]
    assert check_examples(examples) == "mask"
    read = read_example(examples[0], "mask")
    assert read.output.get_data_dtype() == np.uint8
    assert int(np.asarray(read.output.dataobj).sum()) == 27


def test_mixed_and_missing_examples_are_named(write, tmp_path):
    scan = write("sub-1_T1w", noise())
    mask, image = write("sub-1_desc-a_mask", box()), write("sub-2_desc-a_T2w", noise(1))
    with pytest.raises(UsageError, match="masks for sub-1 but images for sub-2"):
        check_examples([Example("sub-1", (scan,), mask), Example("sub-2", (scan,), image)])
    with pytest.raises(UsageError, match="at least one example"):
        check_examples([])
    with pytest.raises(NoInputError, match="does not exist"):
        check_examples([Example("sub-1", (tmp_path / "absent.nii.gz",), mask)])
    with pytest.raises(UsageError, match="one to 3"):
        read_example(Example("sub-1", (scan,) * 4, mask), "mask")
