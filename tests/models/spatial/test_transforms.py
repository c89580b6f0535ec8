import ants
import h5py
import nibabel as nb
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from hyperprep.exceptions import NoInputError, OutputError, ScanError, UsageError
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import (
    DisplacementField,
    map_points,
    read_transform,
    resample,
    to_itk,
    write_transform,
)

from .grid_cases import GRIDS, make_grid, smooth_field, smooth_volume, some_affine

FLIP = np.array([-1.0, -1.0, 1.0])


def ants_points(points, path):
    table = pd.DataFrame(points * FLIP, columns=["x", "y", "z"])
    return (
        ants.apply_transforms_to_points(3, table, [str(path)], whichtoinvert=[False]).to_numpy()[:, :3] * FLIP
    )


def ants_image(img):
    """ANTs image made from array and header only, without any code of ours (grids without shear)."""
    spacing = nb.affines.voxel_sizes(img.affine)
    lps = np.diag([-1, -1, 1, 1]) @ img.affine
    return ants.from_numpy(
        img.get_fdata(dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def points_inside(grid, count=60, seed=3):
    voxels = np.random.default_rng(seed).uniform(-3, np.array(grid.shape) + 3, size=(count, 3))
    return grid.to_world(voxels)


def chain_on(grid):
    return [some_affine(), smooth_field(grid), np.linalg.inv(some_affine()), smooth_field(grid, seed=4)]


@pytest.mark.parametrize("name", GRIDS)
def test_points_agree_with_ants(tmp_path, name):
    chain = chain_on(GRIDS[name])
    points = points_inside(GRIDS[name])
    path = write_transform(chain, tmp_path / "from-a_to-b_xfm.h5")
    ours = map_points(points, chain)
    assert np.abs(ours - points).max() > 1
    assert np.abs(ours - ants_points(points, path)).max() < 1e-3
    assert np.abs(ours - map_points(points, read_transform(path))).max() < 1e-3
    assert np.abs(ours - map_points(points, to_itk(chain))).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "sheared"])
@pytest.mark.parametrize("target", ["RAS", "oblique anisotropic"])
def test_images_agree_with_ants(tmp_path, name, target):
    moving, reference = smooth_volume(GRIDS[name]), GRIDS[target]
    chain = [some_affine(), smooth_field(reference)]
    path = write_transform(chain, tmp_path / "warp.h5")
    ours = resample(moving, reference, chain).get_fdata()
    fixed = nb.Nifti1Image(np.zeros(reference.shape, np.float32), reference.affine)
    theirs = ants.apply_transforms(
        ants_image(fixed), ants_image(moving), [str(path)], interpolator="linear"
    ).numpy()
    assert np.ptp(ours) > 50
    assert np.abs(ours - theirs).max() < 1e-3 * np.ptp(moving.get_fdata())


def test_a_file_on_disk_is_resampled_like_ants_does(tmp_path):
    grid = GRIDS["oblique anisotropic"]
    nb.save(smooth_volume(grid), tmp_path / "moving.nii.gz")
    nb.save(smooth_volume(make_grid("LAS", shape=(7, 8, 9), spacing=(3, 3, 3))), tmp_path / "fixed.nii.gz")
    path = write_transform([some_affine()], tmp_path / "affine.txt")
    theirs = ants.apply_transforms(
        ants.image_read(str(tmp_path / "fixed.nii.gz")),
        ants.image_read(str(tmp_path / "moving.nii.gz")),
        [str(path)],
    ).numpy()
    ours = resample(
        nb.load(tmp_path / "moving.nii.gz"), Grid.of(nb.load(tmp_path / "fixed.nii.gz")), [some_affine()]
    ).get_fdata()
    assert np.abs(ours - theirs).max() < 0.1


@pytest.mark.parametrize("suffix", ["txt", "tfm", "mat", "h5"])
def test_affine_files_agree_with_ants_both_ways(tmp_path, suffix):
    points = points_inside(GRIDS["RAS"])
    forward = write_transform([some_affine()], tmp_path / f"forward.{suffix}")
    inverse = write_transform([np.linalg.inv(some_affine())], tmp_path / f"inverse.{suffix}")
    moved = ants_points(points, forward)
    assert np.abs(moved - map_points(points, [some_affine()])).max() < 1e-3
    assert np.abs(ants_points(moved, inverse) - points).max() < 1e-3


def test_chain_is_applied_first_to_last():
    shift, stretch = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    shift[:3, 3] = 1, 2, 3
    assert map_points(np.zeros((1, 3)), [shift, stretch]).tolist() == [[2, 4, 6]]
    assert map_points(np.zeros((1, 3)), [stretch, shift]).tolist() == [[1, 2, 3]]
    assert map_points(np.zeros((1, 3)), to_itk([shift, stretch])).tolist() == [[2, 4, 6]]


def test_field_is_zero_outside_its_grid():
    grid = make_grid(shape=(7, 8, 9))
    field = DisplacementField(grid, np.full((7, 8, 9, 3), 2.0))
    far = grid.to_world(np.array([[-3.0, 0, 0], [3, 4, 20]]))
    assert np.array_equal(map_points(far, [field]), far)
    assert np.abs(map_points(far, to_itk([field])) - far).max() < 1e-9


def test_sheared_image_is_resampled_where_its_affine_says():
    grid = GRIDS["sheared"]
    ramp = grid.to_world(np.stack(np.indices(grid.shape), axis=-1)) @ np.array([1.0, 0.5, -0.25])
    img = nb.Nifti1Image(ramp.astype(np.float32), grid.affine)
    reference = make_grid("LPS", spacing=(1.0, 1.0, 1.0), shape=(7, 8, 9))
    expected = reference.to_world(np.stack(np.indices(reference.shape), axis=-1)) @ np.array(
        [1.0, 0.5, -0.25]
    )
    assert np.abs(resample(img, reference, [np.eye(4)]).get_fdata() - expected).max() < 1e-3
    back = resample(resample(img, Grid.of(img), [np.eye(4)]), Grid.of(img), [np.eye(4)])
    assert np.abs(back.get_fdata() - ramp).max() < 1e-3


@pytest.mark.parametrize("interpolation", ["nearest", "label"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_labels_keep_type_and_values(interpolation, dtype):
    grid = make_grid("LAS", shape=(7, 8, 9))
    data = np.random.default_rng(0).choice(np.array([0, 4, 53], dtype), size=grid.shape)
    result = resample(
        nb.Nifti1Image(data, grid.affine),
        make_grid("PSR", spacing=(1, 1, 1)),
        [np.eye(4)],
        interpolation=interpolation,
    )
    assert result.get_data_dtype() == dtype
    assert set(np.unique(result.dataobj).tolist()) == {0, 4, 53}
    same = resample(nb.Nifti1Image(data, grid.affine), grid, [], interpolation=interpolation)
    assert np.array_equal(same.dataobj, data)


@pytest.mark.parametrize("sharp", ["lanczos", "bspline"])
def test_sharp_interpolations_keep_more_than_linear(sharp):
    img = smooth_volume(make_grid(spacing=(2, 2, 2)))
    shift = np.eye(4)
    shift[:3, 3] = 1.0
    there_and_back = {}
    for name in ("linear", sharp):
        moved = resample(img, Grid.of(img), [shift], interpolation=name)
        back = resample(moved, Grid.of(img), [np.linalg.inv(shift)], interpolation=name)
        there_and_back[name] = np.abs((back.get_fdata() - img.get_fdata())[6:-6, 6:-6, 6:-6]).max()
    assert there_and_back[sharp] < 0.5 * there_and_back["linear"]


def test_big_endian_and_int64_images_are_resampled():
    grid = make_grid(shape=(7, 8, 9))
    data = np.arange(504).reshape(7, 8, 9)
    for stored in (data.astype(">i2"), data.astype(np.int64)):
        img = nb.Nifti1Image(stored, grid.affine, dtype=stored.dtype)
        assert np.array_equal(resample(img, grid, [], interpolation="nearest").dataobj, data)
        assert np.array_equal(resample(img, grid, [], interpolation="linear").dataobj, data)


def test_h5_is_compressed_and_what_nitransforms_expects(tmp_path):
    grid = make_grid(shape=(20, 21, 22))
    path = write_transform([smooth_field(grid), some_affine()], tmp_path / "new folder" / "warp.h5")
    with h5py.File(path) as handle:
        kinds = [handle[f"TransformGroup/{k}/TransformType"][0].decode() for k in range(3)]
        assert handle["TransformGroup/2/TransformParameters"].compression == "gzip"
    assert kinds == [
        "CompositeTransform_double_3_3",
        "AffineTransform_double_3_3",
        "DisplacementFieldTransform_double_3_3",
    ]
    assert path.stat().st_size < 0.9 * grid.shape[0] * grid.shape[1] * grid.shape[2] * 3 * 8
    assert [found.name for found in path.parent.iterdir()] == ["warp.h5"]


def test_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_transform([some_affine()], tmp_path / "a.txt")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"use \.h5"):
        write_transform([smooth_field(make_grid(shape=(7, 8, 9)))], path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_messages(tmp_path):
    img = smooth_volume(make_grid(shape=(7, 8, 9)))
    with pytest.raises(UsageError, match=r"\.nii"):
        write_transform([np.eye(4)], tmp_path / "a.nii")
    with pytest.raises(NoInputError, match="no transform file"):
        read_transform(tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"not a transform")
    with pytest.raises(ScanError, match=r"bad\.h5"):
        read_transform(tmp_path / "bad.h5")
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.txt"))
    with pytest.raises(ScanError, match="2 dimensions"):
        read_transform(tmp_path / "flat.txt")
    with pytest.raises(UsageError, match="cubic"):
        resample(img, Grid.of(img), [], interpolation="cubic")
    with pytest.raises(ScanError, match="three-dimensional"):
        resample(nb.Nifti1Image(np.zeros((7, 8, 9, 2), np.float32), np.eye(4)), Grid.of(img), [])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        write_transform([np.eye(4)], tmp_path / "file" / "a.txt")
    with pytest.raises(ValueError, match="4 x 4"):
        to_itk([np.eye(3)])
    with pytest.raises(ValueError, match="not finite"):
        DisplacementField(make_grid(shape=(7, 8, 9)), np.full((7, 8, 9, 3), np.nan))
    with pytest.raises(ValueError, match="shape"):
        DisplacementField(make_grid(shape=(7, 8, 9)), np.zeros((7, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        map_points(np.zeros(3), [])


@pytest.mark.parametrize("name", ["LAS", "oblique anisotropic"])
def test_nitransforms_reads_the_composite(tmp_path, name):
    from nitransforms import manip

    grid = GRIDS[name]
    chain = [smooth_field(grid), some_affine()]
    points = grid.to_world(np.random.default_rng(0).uniform(6, 10, size=(20, 3)))
    theirs = manip.load(str(write_transform(chain, tmp_path / "warp.h5")), fmt="itk").map(points)
    assert np.abs(theirs - map_points(points, chain)).max() < 0.05  # cubic splines there, linear here
