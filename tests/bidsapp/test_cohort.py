"""One lambda for a cohort: from curves on disk, by hand-made optima."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperprep.bidsapp.cohort import TABLE, write_cohort_lambda
from hyperprep.models.predict.cohort import cohort_lambda

LAMS = np.linspace(0, 1, 11)


def _curve(peak: float, cortex: float, **columns: object) -> pd.DataFrame:
    table = {"lam": LAMS, "dice_all": 0.8 - (LAMS - peak) ** 2, "dice_cortex": 0.7 - (LAMS - cortex) ** 2}
    return pd.DataFrame({**table, "similarity": 0.9, "folding_percent": 0.0, "chosen": 0, **columns})


def _store(out: Path, folder: str, name: str, table: pd.DataFrame) -> None:
    (out / folder).mkdir(parents=True)
    path = out / folder / f"{name}_from-T1w_to-X_mode-image_desc-lambda_xfm.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def test_the_cohorts_lambda_lies_between_its_scans(tmp_path: Path) -> None:
    _store(tmp_path, "sub-01/ses-a/anat", "sub-01_ses-a", _curve(0.2, 0.8))
    _store(tmp_path, "sub-01/ses-b/anat", "sub-01_ses-b", _curve(0.9, 0.9))
    _store(tmp_path, "sub-02/anat", "sub-02", _curve(0.6, 0.6))
    assert write_cohort_lambda(tmp_path, ["01", "02"], ["a"]) == pytest.approx(0.4, abs=0.02)
    table = pd.read_csv(tmp_path / TABLE, sep="\t").set_index("region")
    assert table.loc["cortex", "lambda"] == pytest.approx(0.7, abs=0.02)
    assert table.loc["all", ["own_lambda_min", "own_lambda_max"]].tolist() == pytest.approx(
        [0.2, 0.6], abs=0.02
    )
    assert table["scans"].tolist() == [2, 2]
    assert set(json.loads((tmp_path / TABLE).with_suffix(".json").read_text())) == {"region", *table.columns}


def test_scans_with_one_lambda_or_a_broken_table_do_not_count(tmp_path: Path) -> None:
    _store(tmp_path, "sub-01/anat", "sub-01", _curve(0.2, 0.8).iloc[:1])
    _store(tmp_path, "sub-02/anat", "sub-02", pd.DataFrame({"a": ["x"]}))
    assert write_cohort_lambda(tmp_path, ["01", "02"]) is None
    assert not (tmp_path / TABLE).exists()


def test_a_lambda_that_folds_or_no_longer_fits_is_not_taken() -> None:
    folds = np.where(LAMS < 0.25, 1.0, 0.0)
    misfits = np.where(LAMS > 0.65, 0.5, 0.9)
    low = _curve(0.0, 0.5, folding_percent=folds, similarity=misfits).to_dict("list")
    high = _curve(1.0, 0.5, folding_percent=folds, similarity=misfits).to_dict("list")
    for curve, first, last in ((low, 0.2, 0.3), (high, 0.6, 0.7)):
        found = cohort_lambda([curve])  # type: ignore[list-item]
        assert found is not None
        assert first <= found.lam <= last
        assert found.own == (found.lam,)
