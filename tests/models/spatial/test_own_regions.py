"""Own regions: names, numbers, and asking for them."""

import pytest

from hyperprep.exceptions import UsageError
from hyperprep.models.spatial.labels import legend, resolve_labels
from hyperprep.models.spatial.own_regions import number_regions, own_name, read_class_table

OWN = number_regions(["Left-Claustrum", "Right-Claustrum", "Habenula", "Left-Amygdala-own"])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Left Claustrum", "Left-Claustrum"),
        ("left_claustrum", "left-claustrum"),
        ("Right Amygdala", "Right-Amygdala-own"),
        ("RightAmygdala", "RightAmygdala-own"),
        ("17", "17-own"),
        ("brain", "brain-own"),
        ("GM", "GM-own"),
    ],
)
def test_names_never_hide_a_known_one(given, name):
    assert own_name(given) == name
    with pytest.raises(UsageError):
        resolve_labels([name])


def test_own_regions_are_asked_for_by_name_side_and_number():
    def asked(*names):
        return [region.name for region in resolve_labels(names, OWN)]

    assert asked("left claustrum") == ["Left-Claustrum"]
    assert asked("claustrum", "habenula") == ["Left-Claustrum", "Right-Claustrum", "Habenula"]
    assert asked("31003") == ["Habenula"]
    assert asked("left amygdala", "Left-Amygdala-own") == ["Left-Amygdala", "Left-Amygdala-own"]


def test_all_are_the_leaves_as_before():
    assert len(resolve_labels(["all"], OWN)) == 30


def test_unknown_names_are_told_with_the_own_ones():
    with pytest.raises(UsageError, match="Habenula"):
        resolve_labels(["habenla"], OWN)


def test_class_tables_survive_a_round_trip():
    assert read_class_table(legend(OWN)) == OWN
    assert len({region.index for region in OWN}) == len(OWN)
    assert all(region.is_own and not region.is_leaf for region in OWN)
    assert not any(region.is_own for region in resolve_labels(["all", "brain"]))
