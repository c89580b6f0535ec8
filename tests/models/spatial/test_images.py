import gzip
import logging
import os

import nibabel as nb
import numpy as np
import pytest

from hyperprep.exceptions import NoInputError, OutputError, ScanError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import (
    keep_inside,
    read_dseg,
    read_mask,
    read_scan,
    robust_rescale,
    write_image,
)

from .grid_cases import GRIDS, make_grid, smooth_volume

SHAPE = (7, 8, 9)
GRID = make_grid("LAS", shape=SHAPE)


def volume(shape=SHAPE):
    return np.random.default_rng(0).uniform(1, 100, size=shape).astype(np.float32)


def save(path, data, affine=GRID.affine):
    nb.save(nb.Nifti1Image(data, affine), path)
    return path


def patch_header(path, **fields):
    """Change header fields in the file: nibabel puts its own affine back when it saves an image."""
    raw = gzip.decompress(path.read_bytes())
    header = nb.Nifti1Header(raw[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.binaryblock + raw[348:]))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float32, np.float64])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mgz"])
def test_any_type_is_read_as_float32(tmp_path, dtype, suffix):
    stored = volume().astype(dtype)
    kind = nb.MGHImage if suffix == "mgz" else nb.Nifti1Image
    if suffix == "mgz":
        stored = stored.astype(np.float32 if stored.dtype.kind == "f" else np.uint8)
    nb.save(kind(stored, GRID.affine), tmp_path / f"scan.{suffix}")
    scan = read_scan(tmp_path / f"scan.{suffix}")
    assert isinstance(scan, nb.Nifti1Image)
    assert scan.get_data_dtype() == np.float32
    assert np.allclose(scan.get_fdata(), stored)
    assert np.allclose(scan.affine, GRID.affine, atol=1e-5)


def test_scale_factors_are_applied(tmp_path):
    img = nb.Nifti1Image(volume(), GRID.affine, dtype=np.int16)
    nb.save(img, tmp_path / "scaled.nii.gz")
    assert nb.load(tmp_path / "scaled.nii.gz").get_data_dtype() == np.int16
    assert np.allclose(read_scan(tmp_path / "scaled.nii.gz").get_fdata(), volume(), atol=0.01)


def test_four_dimensions_with_one_volume_are_squeezed(tmp_path):
    assert read_scan(save(tmp_path / "a.nii.gz", volume()[..., None])).shape == SHAPE
    assert read_scan(save(tmp_path / "b.nii.gz", volume()[..., None, None])).shape == SHAPE


def test_few_values_that_are_not_finite_become_zero(tmp_path, caplog):
    data = volume()
    data[0, 0, :2] = np.nan, np.inf
    with caplog.at_level(logging.WARNING):
        scan = read_scan(save(tmp_path / "few.nii.gz", data))
    assert scan.get_fdata()[0, 0, :2].tolist() == [0, 0]
    assert "2 voxels were NaN" in caplog.text


def damaged(kind, folder):
    path = folder / f"{kind}.nii.gz"
    data = volume()
    if kind == "zero":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an image " * 100)
    elif kind == "truncated":
        save(path, np.random.default_rng(0).normal(size=(30, 31, 32)))
        path.write_bytes(path.read_bytes()[:20000])
    elif kind == "checksum":
        save(path, data)
        held = bytearray(path.read_bytes())
        held[-6] ^= 0xFF
        path.write_bytes(held)
    elif kind == "truncated header":
        path.write_bytes(gzip.compress(b"\0" * 50))
    elif kind == "slice":
        save(path, data[..., :1])
    elif kind == "flat":
        save(path, data[..., 0])
    elif kind == "series":
        save(path, np.stack([data, data], axis=-1))
    elif kind == "nan":
        save(path, np.full_like(data, np.nan))
    elif kind == "some nan":
        data[:2] = np.nan
        save(path, data)
    elif kind == "constant":
        save(path, np.full_like(data, 7))
    elif kind == "no orientation":
        patch_header(save(path, data), sform_code=0, qform_code=0)
    elif kind == "singular":
        patch_header(save(path, data), srow_x=(0, 2, 0, 0), srow_y=(0, 2, 0, 0), qform_code=0)
    elif kind == "metres":
        save(path, data, np.diag([0.002, 0.002, 0.002, 1.0]))
    elif kind == "huge":
        save(path, data, np.diag([500.0, 500.0, 500.0, 1.0]))
    elif kind == "complex":
        save(path, data.astype(np.complex64))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("zero", "zero size"),
        ("text", "not a readable image"),
        ("truncated", "truncated or damaged"),
        ("checksum", "CRC check failed"),
        ("truncated header", "not a readable image"),
        ("slice", r"shape \(7, 8, 1\): a single slice"),
        ("flat", r"shape \(7, 8\): a single slice"),
        ("series", "2 volumes where one is expected"),
        ("nan", "100.0 % of the voxels are NaN"),
        ("some nan", "28.6 % of the voxels are NaN"),
        ("constant", "every voxel has the value 7"),
        ("no orientation", "left and right are unknown"),
        ("singular", "singular orientation matrix"),
        ("metres", "not in millimetres"),
        ("huge", "which no head scan does"),
        ("complex", "complex64"),
    ],
)
def test_unusable_scans_are_refused_by_name(tmp_path, kind, message):
    path = damaged(kind, tmp_path)
    with pytest.raises(ScanError, match=message) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


def test_truncated_uncompressed_file(tmp_path):
    path = save(tmp_path / "cut.nii", volume())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ScanError, match="truncated or damaged"):
        read_scan(path)


def test_missing_files(tmp_path):
    with pytest.raises(NoInputError, match="does not exist"):
        read_scan(tmp_path / "none.nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(NoInputError, match="link to a file that is not there"):
        read_scan(tmp_path / "link.nii.gz")
    with pytest.raises(NoInputError, match="not a file"):
        read_mask(tmp_path)


def test_singular_sform_falls_back_to_qform(tmp_path, caplog):
    img = nb.Nifti1Image(volume(), GRID.affine)
    img.set_qform(GRID.affine, code=1)
    nb.save(img, tmp_path / "s.nii.gz")
    patch_header(tmp_path / "s.nii.gz", srow_x=(0, 2, 0, 0), srow_y=(0, 2, 0, 0))
    assert np.allclose(read_scan(tmp_path / "s.nii.gz").affine, GRID.affine, atol=1e-4)
    assert "qform is used" in caplog.text


def test_impossible_quaternions_never_end_in_a_traceback(tmp_path):
    img = nb.Nifti1Image(np.random.default_rng(0).random((7, 8, 9), np.float32), np.diag([2.0, 2, 2, 1]))
    img.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    img.set_qform(np.eye(4), 1)
    for field in ("quatern_b", "quatern_c", "quatern_d"):
        img.header[field] = 0.9
    path = tmp_path / "scan.nii"
    nb.save(img, path)
    assert np.allclose(read_scan(path).affine, np.diag([2.0, 2, 2, 1]))
    img.header["sform_code"] = 0
    (tmp_path / "worse.nii").write_bytes(bytes(img.header.binaryblock) + b"\0" * 4 + img.dataobj.tobytes())
    with pytest.raises(ScanError, match=r"worse\.nii"):
        read_scan(tmp_path / "worse.nii")


@pytest.mark.parametrize("name", GRIDS)
def test_mask_on_another_grid_is_moved_in_world_space(tmp_path, name):
    scan = smooth_volume(GRIDS[name])
    fine = make_grid("RAS", spacing=(1.0, 1.0, 1.0), shape=(90, 90, 90))
    center = GRIDS[name].center
    points = fine.to_world(np.stack(np.indices(fine.shape), axis=-1))
    ball = (np.linalg.norm(points - center, axis=-1) < 8).astype(np.uint8)
    mask = read_mask(save(tmp_path / "mask.nii.gz", ball, fine.affine), like=scan)
    assert Grid.of(mask).same_as(Grid.of(scan))
    inside = GRIDS[name].to_world(np.argwhere(np.asarray(mask.dataobj)))
    assert np.linalg.norm(inside - center, axis=1).max() < 9
    assert mask.get_data_dtype() == np.uint8


def test_masks_and_segmentations(tmp_path):
    labels = np.zeros(SHAPE, np.float32)
    labels[2:4, 3, 4] = 17, 53
    path = save(tmp_path / "dseg.nii.gz", labels)
    dseg = read_dseg(path)
    assert dseg.get_data_dtype() == np.int32
    assert np.unique(dseg.dataobj).tolist() == [0, 17, 53]
    assert np.asarray(read_mask(path).dataobj).sum() == 2
    with pytest.raises(ScanError, match="fractions"):
        read_dseg(save(tmp_path / "probseg.nii.gz", labels / 53))
    empty = save(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ScanError, match="nothing is inside"):
        read_mask(empty)
    with pytest.raises(ScanError, match="no voxel has a label"):
        read_dseg(empty)
    elsewhere = GRID.affine.copy()
    elsewhere[0, 3] += 500
    with pytest.raises(ScanError, match="field of view"):
        read_mask(path, like=nb.Nifti1Image(volume(), elsewhere))


def test_written_files_are_complete_and_equal(tmp_path):
    img = nb.Nifti1Image(volume(), GRID.affine)
    first = write_image(img, tmp_path / "deep folder" / "a.nii.gz")
    second = write_image(img, tmp_path / "b.nii.gz")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["a.nii.gz"]
    assert np.array_equal(nb.load(first).get_fdata(), img.get_fdata())
    assert os.stat(first).st_mode & 0o444 == 0o444


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_image(nb.Nifti1Image(volume(), GRID.affine), tmp_path / "a.nii.gz")
    before = path.read_bytes()

    def fail(img, name):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nb, "save", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_image(nb.Nifti1Image(2 * volume(), GRID.affine), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.nii.gz"]


def test_robust_rescale_uses_the_mask():
    data = np.arange(1000, dtype=np.float64).reshape(10, 10, 10)
    data[0, 0, 0] = 1e9
    mask = np.zeros(data.shape)
    mask[5:] = 1
    scaled = robust_rescale(data, mask)
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (0, 1)
    assert abs(scaled[7, 5, 0] - 0.5) < 0.02
    assert scaled[:5].max() == 1  # the outlier is clipped
    with pytest.raises(ScanError, match="hardly vary"):
        robust_rescale(np.ones((7, 8, 9)))
    with pytest.raises(ScanError, match="empty"):
        robust_rescale(data, np.zeros(data.shape))


def test_keep_inside():
    img = nb.Nifti1Image(volume(), GRID.affine)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3] = 1
    kept = keep_inside(img, nb.Nifti1Image(mask, GRID.affine)).get_fdata()
    assert np.array_equal(kept[3], img.get_fdata()[3])
    assert np.count_nonzero(kept) == 72
    with pytest.raises(ScanError, match="different grids"):
        keep_inside(img, nb.Nifti1Image(mask, np.eye(4)))
