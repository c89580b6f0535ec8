import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperprep.exceptions import UsageError
from hyperprep.models.spatial.labels import (
    ALIASES,
    LEAVES,
    NEUROMORPHOMETRICS,
    SUPER_REGIONS,
    TISSUES,
    legend,
    manual_to_freesurfer,
    resolve_labels,
    to_leaves,
)

NUMBERS = {region.index for region in LEAVES}


def test_leaves():
    assert len(LEAVES) == 30
    assert all(region.is_leaf for region in LEAVES)
    assert not any(region.is_leaf for region in SUPER_REGIONS)
    pairs = {
        2: 41,
        3: 42,
        4: 43,
        7: 46,
        8: 47,
        10: 49,
        11: 50,
        12: 51,
        13: 52,
        17: 53,
        18: 54,
        26: 58,
        28: 60,
    }
    assert set(pairs) | set(pairs.values()) | {14, 15, 16, 24} == NUMBERS


def test_tissues_share_out_the_leaves():
    shared = [number for numbers in TISSUES.values() for number in numbers]
    assert sorted(shared) == sorted(NUMBERS)


@pytest.mark.parametrize("region", [*LEAVES, *SUPER_REGIONS], ids=lambda region: region.name)
def test_every_region_is_found_by_name_and_number(region):
    assert resolve_labels([region.name]) == (region,)
    assert resolve_labels([region.name.upper().replace("-", "_")]) == (region,)
    assert resolve_labels([str(region.index)]) == (region,)
    assert resolve_labels([region.index]) == (region,)
    assert set(region.numbers) <= NUMBERS


def test_names_and_indices_are_unique():
    regions = [*LEAVES, *SUPER_REGIONS]
    for key in ("name", "index", "abbreviation"):
        values = [str(getattr(region, key)).lower() for region in regions]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ("hippocampus", [17, 53]),
        ("left hippocampus", [17]),
        ("Right_Thalamus_Proper", [49]),
        ("5", [4]),
        ("inferior lateral ventricle", [4, 43]),
        ("brainstem", [16]),
        ("Brain Stem", [16]),
        ("left cortex", [3]),
        ("cortex", [3, 42]),
        ("Cerebral-Cortex", [3, 42]),
        ("left deep grey", [10, 11, 12, 13, 26]),
        ("LEFT-DEEP-GRAY-MATTER".removeprefix("LEFT-"), [10, 11, 12, 13, 26, 49, 50, 51, 52, 58]),
        ("white matter", [2, 7, 41, 46]),
        ("ventricles", [4, 14, 15, 43]),
        ("CSF", [24]),
        ("total csf", [4, 14, 15, 24, 43]),
        ("all", sorted(NUMBERS)),
    ],
)
def test_ways_to_ask(asked, numbers):
    found = [number for region in resolve_labels([asked]) for number in region.numbers]
    assert sorted(found) == numbers


def test_brain_is_everything_but_outer_fluid():
    (brain,) = resolve_labels(["brain"])
    assert set(brain.numbers) == NUMBERS - {24}


def test_sides_make_up_the_whole():
    by_name = {region.name: set(region.numbers) for region in SUPER_REGIONS}
    for name in ("cerebrum", "white-matter", "deep-grey", "cerebellum", "brain"):
        left, right = by_name[f"left-{name}"], by_name[f"right-{name}"]
        assert not left & right
        assert by_name[name] - left - right <= {14, 15, 16}


def test_order_is_kept_and_doubles_are_dropped():
    names = [region.name for region in resolve_labels(["Right-Amygdala", "amygdala", "54"])]
    assert names == ["Right-Amygdala", "Left-Amygdala"]


def test_unknown_names_list_near_ones():
    with pytest.raises(UsageError, match=r"'hipocampus'.*hippocampus"):
        resolve_labels(["hipocampus"])
    with pytest.raises(UsageError, match=r"Unknown label '999'"):
        resolve_labels(["brain", "999"])
    with pytest.raises(UsageError, match="No label"):
        resolve_labels([])


def test_legend_rows():
    rows = legend(resolve_labels(["all", "brain"]))
    assert [row["index"] for row in rows] == [*sorted(NUMBERS), 30001]
    assert all(set(row) == {"index", "name", "abbreviation", "color"} for row in rows)
    assert all(len(str(row["color"])) == 7 and int(str(row["color"])[1:], 16) >= 0 for row in rows)


def test_freesurfer_segmentations_are_reduced_to_leaves():
    dseg = np.array([[0, 2, 5], [44, 1001, 2035], [11101, 12175, 77]])
    assert to_leaves(dseg).tolist() == [[0, 2, 4], [43, 3, 42], [3, 42, 0]]
    assert to_leaves(dseg).dtype == np.int32
    assert set(ALIASES.values()) <= NUMBERS


def test_neuromorphometrics_numbers():
    assert set(NEUROMORPHOMETRICS.values()) <= NUMBERS - {24, 3, 42}
    assert manual_to_freesurfer(np.array([[36, 37, 35], [206, 207, 0]])).tolist() == [
        [50, 11, 16],
        [42, 3, 0],
    ]


def data_folder():
    return Path(os.environ.get("HYPERPREP_TEST_DATA", Path(__file__).parents[3] / "../shared/data")).resolve()


def test_names_are_those_of_the_label_maps():
    path = data_folder() / "labelmaps" / "labels.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: set HYPERPREP_TEST_DATA")
    table = pd.read_csv(path, sep="\t").set_index("freesurfer_label")["name"].to_dict()
    assert {region.index: region.name for region in LEAVES} == {number: table[number] for number in NUMBERS}


def test_manual_numbers_are_those_of_the_table():
    path = data_folder() / "bids/oasis/derivatives/manual/desc-manual_dseg.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not there: set HYPERPREP_TEST_DATA")
    table = pd.read_csv(path, sep="\t").set_index("index")["name"].to_dict()
    sides = {region.index: region.name.split("-")[0] for region in LEAVES}
    for number, target in NEUROMORPHOMETRICS.items():
        side = table[number].split(" ")[0]
        assert sides[target] == side if side in ("Left", "Right") else sides[target] not in ("Left", "Right")
    for number in (number for number in table if number >= 100):
        assert table[number].startswith("Left" if number % 2 else "Right")
