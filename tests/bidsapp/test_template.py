"""Templates are found in the installation, as files and in a cache; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperprep.bidsapp.config import OutputSpace, Settings
from hyperprep.bidsapp.preflight import choose_spaces
from hyperprep.bidsapp.template import find_template
from hyperprep.exceptions import TemplateError, UsageError
from hyperprep.workflows.settings import OutputSpace as Grid
from hyperprep.workflows.settings import Template

Maker = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, make_scan: Maker, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one whole template, one without mask, and one with an empty place-holder."""
    home = tmp_path / "template flow"
    for name in ("tpl-Whole/tpl-Whole_res-01_T1w", "tpl-Whole/tpl-Whole_res-02_T1w", "tpl-Bare/tpl-Bare_T1w"):
        make_scan(home / f"{name}.nii.gz")
    make_scan(home / "tpl-Whole/tpl-Whole_res-01_desc-brain_mask.nii.gz")
    (home / "tpl-Empty").mkdir()
    (home / "tpl-Empty/tpl-Empty_res-01_T1w.nii.gz").touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    return home


def test_the_default_template_is_the_installed_symmetric_one() -> None:
    """nilearn's bundled image is its own mirror image, which the asymmetric release is not."""
    from nilearn.datasets import load_mni152_template

    assert find_template("MNI152NLin2009aSym") == Template("MNI152NLin2009aSym")
    image = load_mni152_template(resolution=2)
    data = np.asanyarray(image.dataobj)
    assert image.affine[0, 3] == -98
    assert np.abs(data[0:99] - data[98::-1]).max() < 1e-3 * data.max()


def test_a_name_in_the_cache(cache: Path) -> None:
    found = find_template("Whole")
    assert found.name == "Whole"
    assert found.image == cache / "tpl-Whole/tpl-Whole_res-01_T1w.nii.gz"
    assert found.mask == cache / "tpl-Whole/tpl-Whole_res-01_desc-brain_mask.nii.gz"
    assert find_template("Bare").mask is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nowhere", r"'Nowhere' is unknown.*Available: MNI152NLin2009aSym, Bare, Whole\."),
        ("Empty", "no T1w image in it .*empty place-holder.*--template Empty --prefetch"),
        ("..", "is unknown"),
        ("/nowhere/x.nii.gz", "there is no file /nowhere/x.nii.gz"),
        ("missing.nii.gz", "there is no file missing.nii.gz"),
    ],
)
def test_what_is_not_there_is_refused(cache: Path, name: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        find_template(name)


def test_a_cache_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(TemplateError, match=r"Available: MNI152NLin2009aSym\."):
        find_template("MNI152NLin2009cAsym")


def test_a_file_names_its_space(tmp_path: Path, make_scan: Maker) -> None:
    path = make_scan(tmp_path / "my atlas/tpl-Mine_res-1_T1w.nii.gz")
    mask = make_scan(tmp_path / "my atlas/tpl-Mine_res-1_desc-brain_mask.nii.gz")
    found = find_template(str(path))
    assert (found.name, found.image, found.mask) == ("Mine", path, mask)
    assert found.spatial_reference == path.as_uri()
    other = find_template(str(make_scan(tmp_path / "study_average.nii.gz")))
    assert (other.name, other.mask) == ("studyaverage", None)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.touch()
    with pytest.raises(TemplateError, match="is empty"):
        find_template(str(path))


@pytest.mark.parametrize(
    ("asked", "grids"),
    [
        ((), (Grid(),)),
        ((OutputSpace("T1w"),), ()),
        ((OutputSpace("anat"), OutputSpace("Mine", 2)), (Grid("2"),)),
        ((OutputSpace("Mine"), OutputSpace("Mine", 3)), (Grid(), Grid("3"))),
    ],
)
def test_output_spaces_become_grids(
    settings: Settings, asked: tuple[OutputSpace, ...], grids: tuple[Grid, ...]
) -> None:
    assert choose_spaces(replace(settings, output_spaces=asked), Template("Mine")) == grids


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (OutputSpace("Other"), r"space of the template \(Mine\)"),
        (OutputSpace("T1w", 2), "keeps the scan's own grid"),
    ],
)
def test_other_spaces_are_refused(settings: Settings, space: OutputSpace, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_spaces(replace(settings, output_spaces=(space,)), Template("Mine"))
