"""Which scans have masks of which regions."""

import re

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.regions import cli
from hyperprep.bidsapp.regions.cli import main
from hyperprep.bidsapp.regions.find import check_region_examples, find_region_examples
from hyperprep.exceptions import NoInputError, ScanError, UsageError

SHAPE = (7, 8, 9)


def put(path, data=None, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) if data is None else data
    nb.save(nb.Nifti1Image(values.astype(np.int16), np.eye(4) if affine is None else affine), path)


def marked(number=1):
    data = np.zeros(SHAPE)
    data[2:4, 3:5, 4:6] = number
    return data


@pytest.fixture
def study(tmp_path):
    raw, masks = tmp_path / "raw", tmp_path / "raw" / "derivatives" / "manual"
    for sub in ("01", "02", "03"):
        put(raw / f"sub-{sub}/anat/sub-{sub}_T1w.nii.gz")
        put(raw / f"sub-{sub}/anat/sub-{sub}_T2w.nii.gz")
    put(masks / "sub-01/anat/sub-01_label-Claustrum_mask.nii.gz", marked())
    put(masks / "sub-01/anat/sub-01_hemi-L_label-Habenula_mask.nii.gz", marked())
    put(masks / "sub-02/anat/sub-02_label-Claustrum_mask.nii.gz", marked())
    put(masks / "sub-02/anat/sub-02_desc-brain_mask.nii.gz", marked())
    return raw, masks


def test_each_scan_has_the_regions_that_were_drawn_in_it(study):
    found = {e.label: sorted(e.masks) for e in find_region_examples(*study)}
    assert found == {"sub-01": ["Claustrum", "Left-Habenula"], "sub-02": ["Claustrum"]}
    assert [e.participant for e in find_region_examples(*study)] == ["01", "02"]
    assert all(e.image.name.endswith("_T1w.nii.gz") for e in find_region_examples(*study))


def test_regions_participants_and_contrast_can_be_chosen(study):
    assert [e.label for e in find_region_examples(*study, regions=["left habenula"])] == ["sub-01"]
    assert [e.label for e in find_region_examples(*study, participants=["02"])] == ["sub-02"]
    assert find_region_examples(*study, suffix="T2w")[0].image.name == "sub-01_T2w.nii.gz"
    with pytest.raises(UsageError, match=r"No mask of putamn.*Claustrum, Left-Habenula"):
        find_region_examples(*study, regions=["putamn"])
    with pytest.raises(UsageError, match="sub-03"):
        find_region_examples(*study, participants=["03"])
    with pytest.raises(NoInputError, match="PDw"):
        find_region_examples(*study, suffix="PDw")


def test_a_segmentation_counts_by_the_numbers_that_occur(study):
    raw, masks = study
    data = marked(5)
    data[0, 0, 0] = 7
    put(masks / "sub-03/anat/sub-03_desc-manual_dseg.nii.gz", data)
    with pytest.raises(UsageError, match=re.escape("sub-03_desc-manual_dseg.tsv")):
        find_region_examples(raw, masks)
    table = "index\tname\n5\tRight Amygdala\n6\tZona incerta\n7\tHabenula\n"
    (masks / "desc-manual_dseg.tsv").write_text(table)
    found = next(e for e in find_region_examples(raw, masks) if e.participant == "03")
    assert {name: source.number for name, source in found.masks.items()} == {
        "Right-Amygdala-own": 5, "Habenula": 7,
    }  # fmt: skip
    chosen = find_region_examples(raw, masks, regions=["right amygdala"])
    assert [list(e.masks) for e in chosen] == [["Right-Amygdala-own"]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index\tlabel\n5\tX\n", "columns index and name"),
        ("index\tname\nfive\tX\n", "'five'"),
        ("index\tname\n5\tX\n5\tY\n", "'5' with 'Y'"),
        ("index\tname\n5\t--\n", "'--'"),
        ("index\tname\n5\tX\n6\tX*\n", "calls 5 and 6 alike"),
        ("", "cannot be read"),
    ],
)
def test_tables_that_tell_nothing_are_refused(study, table, message):
    raw, masks = study
    data = marked(5)
    data[0, 0, 0] = 6
    put(masks / "sub-03/anat/sub-03_dseg.nii.gz", data)
    (masks / "dseg.tsv").write_text(table)
    with pytest.raises(UsageError, match=message):
        find_region_examples(raw, masks)


def test_one_region_has_one_spelling(study):
    raw, masks = study
    put(masks / "sub-03/anat/sub-03_label-claustrum_mask.nii.gz", marked())
    found = {e.label: sorted(e.masks) for e in find_region_examples(raw, masks)}
    assert found["sub-03"] == ["Claustrum"]


def test_segmentations_that_are_not_asked_for_do_no_harm(study):
    raw, masks = study
    put(masks / "sub-01/anat/sub-01_desc-other_dseg.nii.gz", marked(5))
    with pytest.raises(UsageError, match="no table"):
        find_region_examples(raw, masks)
    assert [e.label for e in find_region_examples(raw, masks, regions=["claustrum"])] == ["sub-01", "sub-02"]
    (masks / "dseg.tsv").write_text("index\tname\n5\tHabenula\n")
    put(masks / "sub-01/anat/sub-01_desc-third_dseg.nii.gz", marked(5))
    with pytest.raises(UsageError, match="Habenula twice"):
        find_region_examples(raw, masks)
    assert len(find_region_examples(raw, masks, regions=["claustrum"])) == 2


def test_a_mask_goes_to_no_scan_that_its_name_contradicts(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_run-1_T1w.nii.gz")
    mask = tmp_path / "m/sub-01/anat/sub-01_run-2_label-X_mask.nii.gz"
    put(mask, marked())
    with pytest.raises(NoInputError, match="run-2"):
        find_region_examples(tmp_path, tmp_path / "m")
    mask.rename(mask.with_name("sub-01_label-X_mask.nii.gz"))
    assert find_region_examples(tmp_path, tmp_path / "m")[0].image.name == "sub-01_run-1_T1w.nii.gz"


def test_masks_in_the_scans_own_space_and_of_one_side(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    put(tmp_path / "m/sub-01/anat/sub-01_space-T1w_hemi-L_dseg.nii.gz", marked(5))
    put(tmp_path / "m/sub-01/anat/sub-01_space-T1w_hemi-R_dseg.nii.gz", marked(5))
    (tmp_path / "m/dseg.tsv").write_text("index\tname\n5\tClaustrum\n")
    (found,) = find_region_examples(tmp_path, tmp_path / "m")
    assert sorted(found.masks) == ["Left-Claustrum", "Right-Claustrum"]


def test_of_two_scans_the_one_on_the_masks_grid_is_taken(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    put(tmp_path / "m/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", np.arange(8).reshape(2, 2, 2))
    put(tmp_path / "m/sub-01/anat/sub-01_label-X_mask.nii.gz", marked())
    (found,) = find_region_examples(tmp_path, tmp_path / "m")
    assert "preproc" not in found.image.name


def test_a_damaged_segmentation_is_told(study):
    raw, masks = study
    file = masks / "sub-03/anat/sub-03_dseg.nii.gz"
    put(file, marked(5))
    (masks / "dseg.tsv").write_text("index\tname\n5\tX\n")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ScanError, match="sub-03_dseg"):
        find_region_examples(raw, masks)


def test_sessions_have_their_own_scans(tmp_path):
    for session in ("1", "2"):
        put(tmp_path / f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz")
    put(tmp_path / "m/sub-01/ses-2/anat/sub-01_ses-2_label-X_mask.nii.gz", marked())
    (found,) = find_region_examples(tmp_path, tmp_path / "m")
    assert found.label == "sub-01_ses-2"
    assert found.image.name == "sub-01_ses-2_T1w.nii.gz"


def test_a_derivative_may_hold_the_scans_itself(tmp_path):
    put(tmp_path / "raw/sub-01/anat/sub-01_T1w.nii.gz")
    put(tmp_path / "m/sub-01/anat/sub-01_space-T_desc-preproc_T1w.nii.gz")
    put(tmp_path / "m/sub-01/anat/sub-01_space-T_label-X_mask.nii.gz", marked())
    (found,) = find_region_examples(tmp_path / "raw", tmp_path / "m")
    assert "space-T" in found.image.name


def test_nothing_to_learn_from_is_told(tmp_path, study):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoInputError, match="label-Claustrum_mask"):
        find_region_examples(study[0], tmp_path / "empty")


def test_a_region_given_twice_is_told(study):
    raw, masks = study
    put(masks / "sub-01/anat/sub-01_desc-Claustrum_mask.nii.gz", marked())
    with pytest.raises(UsageError, match="twice"):
        find_region_examples(raw, masks)


def test_all_masks_that_cannot_be_used_are_told_at_once(study):
    raw, masks = study
    put(masks / "sub-02/anat/sub-02_label-Claustrum_mask.nii.gz", np.zeros(SHAPE))
    put(masks / "sub-03/anat/sub-03_label-Claustrum_mask.nii.gz", marked(), np.diag([2, 2, 2, 1]))
    with pytest.raises(ScanError) as error:
        check_region_examples(find_region_examples(raw, masks))
    assert "sub-02_label-Claustrum" in str(error.value)
    assert "same voxel grid" in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--held-out", "01", "02"], "Claustrum, Left-Habenula would be left without"),
        (["--held-out", "03"], "sub-03 has no mask"),
        (["--regions", "nothing"], "No mask of nothing"),
        (["--max-time", "0"], "minutes above 0"),
        (["--nthreads", "1000000"], "more than 512"),
        (["--random-seed", "9" * 30], "--random-seed"),
        (["--suffix", "mask"], "no suffix of a scan"),
        (["--weights-dir", "."], "has no manifest.json"),
        (["--variants", "-1"], "--variants"),
        (["--weights-dir", "nowhere"], "nowhere"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_words_end_before_anything_is_computed(study, tmp_path, capsys, words, message):
    code = main([*map(str, study), str(tmp_path / "weights"), *words])
    told = capsys.readouterr().err
    assert code != 0
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("name", ["manifest.json", "regions.safetensors", "regions.md"])
def test_what_stands_in_the_way_of_the_weights_is_told_first(study, tmp_path, capsys, name):
    (tmp_path / "weights" / name).mkdir(parents=True)
    assert main([*map(str, study), str(tmp_path / "weights")]) == 73
    assert f"{name} is a folder" in capsys.readouterr().err


def test_the_weights_go_into_no_input(study, capsys):
    assert main([*map(str, study), str(study[1])]) == 73
    assert "is an input" in capsys.readouterr().err


def test_an_error_nobody_expected_is_no_success(study, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("what")

    monkeypatch.setattr(cli, "find_region_examples", fail)
    assert main([*map(str, study), str(tmp_path / "weights")]) == 70
    assert "unexpected error, ZeroDivisionError" in capsys.readouterr().err


def test_sides_are_told_once_and_are_left_or_right(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    mask = tmp_path / "m/sub-01/anat/sub-01_hemi-l_label-LeftNucleus_mask.nii.gz"
    put(mask, marked())
    assert list(find_region_examples(tmp_path, tmp_path / "m")[0].masks) == ["LeftNucleus"]
    mask.rename(mask.with_name("sub-01_hemi-X_label-Nucleus_mask.nii.gz"))
    with pytest.raises(UsageError, match="hemi-X is no side"):
        find_region_examples(tmp_path, tmp_path / "m")


def test_a_table_that_names_nothing_that_occurs_is_told(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    put(tmp_path / "m/sub-01/anat/sub-01_dseg.nii.gz", marked(5))
    (tmp_path / "m/dseg.tsv").write_text("index\tname\n6\tX\n")
    with pytest.raises(UsageError, match="stands in its table"):
        find_region_examples(tmp_path, tmp_path / "m")


def test_a_damaged_scan_beside_another_is_told_and_no_crash(tmp_path):
    put(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    broken = tmp_path / "m/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    put(broken)
    broken.write_bytes(b"")
    put(tmp_path / "m/sub-01/anat/sub-01_label-X_mask.nii.gz", marked())
    (found,) = find_region_examples(tmp_path, tmp_path / "m")
    assert found.image.name == "sub-01_T1w.nii.gz"
