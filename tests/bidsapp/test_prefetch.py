"""What a run needs is fetched on request only, once, and whole; TemplateFlow's client is a stand-in."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from hyperprep.bidsapp.config import OutputSpace, Settings
from hyperprep.bidsapp.prefetch import fetch_template, run_prefetch
from hyperprep.exceptions import OutputError, TemplateError, UsageError

Maker = Callable[..., Path]


@dataclass
class StandIn:
    """A cache of place-holders, filled from a folder of whole files, as TemplateFlow's client does."""

    home: Path
    bucket: Path
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None

    def ls(self, template: str, **query: Any) -> list[Path]:
        assert set(query) <= {"suffix", "desc"}
        desc = f"_desc-{query['desc']}" if query.get("desc") else ""
        found = sorted((self.home / f"tpl-{template}").glob(f"*{desc}_{query['suffix']}.nii.gz"))
        return [path for path in found if desc or "_desc-" not in path.name]

    def get(self, template: str, **query: Any) -> Path:
        res = "" if query["resolution"] is None else f"_res-{query['resolution']:02d}"
        desc = f"_desc-{query['desc']}" if query["desc"] else ""
        name = f"tpl-{template}{res}{desc}_{query['suffix']}{query['extension']}"
        self.asked.append(name)
        path = self.home / f"tpl-{template}" / name
        if path.stat().st_size == 0:  # the client takes any content for a whole file
            path.write_bytes((self.bucket / name).read_bytes()[: 40 if self.error else None])
            if self.error:
                raise self.error
        return path

    def templates(self, **query: Any) -> list[str]:
        assert query == {"suffix": "T1w"}
        return sorted(path.name[4:] for path in self.home.glob("tpl-*") if list(path.glob("*_T1w*")))


@pytest.fixture
def client(tmp_path: Path, make_scan: Maker, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    home, bucket = tmp_path / "template flow", tmp_path / "bucket"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    for stem in ("tpl-Two_res-01", "tpl-Two_res-02", "tpl-Plain"):
        make_scan(bucket / f"{stem}_T1w.nii.gz")
        mask = np.zeros((7, 8, 9), np.uint8)
        mask[2:5, 2:6, 2:7] = 1
        image = nb.Nifti1Image(mask, np.diag([20.0, 20, 20, 1]))
        image.to_filename(bucket / f"{stem}_desc-brain_mask.nii.gz")
    make_scan(bucket / "tpl-Kids_cohort-1_res-1_T1w.nii.gz")
    for path in bucket.iterdir():
        place = home / path.name.split("_")[0] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    (home / "tpl-Plain/tpl-Plain_desc-brain_mask.nii.gz").unlink()
    return StandIn(home, bucket)


def content(client: StandIn, name: str) -> bytes:
    return (client.home / name.split("_")[0] / name).read_bytes()


def test_the_finest_image_and_its_mask_are_fetched_once(client: StandIn) -> None:
    fetched = fetch_template("Two", client.home, client)
    names = ["tpl-Two_res-01_T1w.nii.gz", "tpl-Two_res-01_desc-brain_mask.nii.gz"]
    assert [path.name for path in fetched] == client.asked == names
    assert all(content(client, name) == (client.bucket / name).read_bytes() for name in names)
    assert content(client, "tpl-Two_res-02_T1w.nii.gz") == b""
    assert fetch_template("Two", client.home, client) == []
    assert client.asked == names


def test_a_template_without_mask_and_without_resolution(client: StandIn) -> None:
    assert [path.name for path in fetch_template("Plain", client.home, client)] == ["tpl-Plain_T1w.nii.gz"]


def test_half_a_file_is_fetched_again(client: StandIn) -> None:
    name = "tpl-Two_res-01_T1w.nii.gz"
    whole = (client.bucket / name).read_bytes()
    (client.home / "tpl-Two" / name).write_bytes(whole[: len(whole) // 2])
    assert client.home / "tpl-Two" / name in fetch_template("Two", client.home, client)
    assert content(client, name) == whole


def test_a_download_that_breaks_off_leaves_a_place_holder(client: StandIn) -> None:
    client.error = ConnectionError("no route to host")
    with pytest.raises(TemplateError, match=r"tpl-Two_res-01_T1w.nii.gz could not be fetched .*no route"):
        fetch_template("Two", client.home, client)
    assert content(client, "tpl-Two_res-01_T1w.nii.gz") == b""


def test_an_error_page_is_no_image(client: StandIn) -> None:
    (client.bucket / "tpl-Two_res-01_T1w.nii.gz").write_bytes(gzip.compress(b"<Error>AccessDenied</Error>"))
    with pytest.raises(TemplateError, match="no whole image"):
        fetch_template("Two", client.home, client)
    assert content(client, "tpl-Two_res-01_T1w.nii.gz") == b""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nowhere", "unknown to TemplateFlow.*those that have: Kids, Plain, Two"),
        ("Kids", "has tpl-Kids_cohort-1_res-1_T1w.nii.gz of it, but none of tpl-Kids_res-01_T1w.nii.gz"),
    ],
)
def test_what_templateflow_lacks(client: StandIn, name: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        fetch_template(name, client.home, client)
    assert client.asked == []


def test_a_cache_that_cannot_be_written(client: StandIn, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(OutputError, match="TEMPLATEFLOW_HOME"):
        fetch_template("Two", tmp_path / "a file/cache", client)


def test_the_whole_of_it(
    client: StandIn, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperprep.bidsapp.prefetch.check_weights", lambda folder: {"a": "1", "b": "2"})
    wanted = replace(settings, template="Two", output_spaces=(OutputSpace("Two", 2),))
    assert run_prefetch(wanted, client) == 0
    said = capsys.readouterr().out
    assert "weights: 2 networks are there" in said
    assert said.splitlines()[-1].startswith("HyperPrep fetched 2 file(s); a run with these options needs no")
    assert run_prefetch(wanted, client) == 0
    assert "HyperPrep fetched 0 file(s)" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--output-spaces Other"):
        run_prefetch(replace(wanted, output_spaces=(OutputSpace("Other"),)), client)


@pytest.mark.parametrize(("template", "said"), [("MNI152NLin2009aSym", "part of the"), ("{file}", "a file")])
def test_nothing_to_fetch(
    template: str,
    said: str,
    settings: Settings,
    make_scan: Maker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hyperprep.bidsapp.prefetch.check_weights", lambda folder: {})
    monkeypatch.setattr("hyperprep.bidsapp.prefetch._installed_client", lambda: pytest.fail("asked"))
    template = template.format(file=make_scan(tmp_path / "tpl-Mine_T1w.nii.gz"))
    assert run_prefetch(replace(settings, template=template)) == 0
    assert said in capsys.readouterr().out


def test_the_option_fetches_into_the_users_own_cache_and_processes_nothing(
    client: StandIn, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperprep.bidsapp.prefetch.check_weights", lambda folder: {})
    monkeypatch.setattr("hyperprep.bidsapp.prefetch._installed_client", lambda: client)
    out = tmp_path / "out"
    words = [str(tmp_path / "no data yet"), str(out), "participant", "--template", "Two"]
    assert app.run([*words, "--prefetch"]) == 0
    assert len(client.asked) == 2
    assert not out.exists()
    assert not (tmp_path / "work").exists()


def test_a_run_never_fetches(
    client: StandIn, app: Any, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("hyperprep.bidsapp.prefetch._installed_client", lambda: pytest.fail("asked"))
    words = [str(dataset), str(tmp_path / "out"), "participant", "--template", "Two"]
    assert app.run([*words, "--skip-bids-validation"]) == 69
    assert "has no T1w image in it" in capsys.readouterr().err
    assert client.asked == []
