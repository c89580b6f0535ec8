"""Regions that somebody taught a network from masks of their own: names, numbers and colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from hyperprep.exceptions import WeightsError
from hyperprep.models.spatial.labels import TISSUES, Region, is_known, without_side

FIRST_NUMBER = 31001
"""Number of the first own region in a ``dseg``."""

_COLORS = ("#ff66cc", "#ffb84d", "#33ddaa", "#ffee33", "#cc99ff", "#66ff66", "#ff6666", "#66ccee")
"""Bright enough for outlines on a black ground, and none that a structure has."""


def own_name(name: str) -> str:
    """Give the name by which an own region is asked for: words joined by dashes, ``own`` added if taken.

    Parameters
    ----------
    name
        From a file name or a table.

    Examples
    --------
    >>> own_name("Left Claustrum"), own_name("Right Amygdala"), own_name("Noyau caudé")
    ('Left-Claustrum', 'Right-Amygdala-own', 'Noyau-caude')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    joined = "-".join(re.findall(r"[0-9A-Za-z]+", plain))
    taken = is_known(joined) or joined.isdecimal() or joined.upper() in TISSUES
    return f"{joined}-own" if taken else joined


def number_regions(names: Iterable[str]) -> tuple[Region, ...]:
    """Give regions their numbers, in the order given, and colours; left and right have one.

    Examples
    --------
    >>> [(region.name, region.index) for region in number_regions(["Left-Claustrum", "Habenula"])]
    [('Left-Claustrum', 31001), ('Habenula', 31002)]
    """
    given = list(names)
    kinds = list(dict.fromkeys(without_side(name) for name in given))
    return tuple(
        Region(
            name,
            (),
            _abbreviation(name),
            _COLORS[kinds.index(without_side(name)) % len(_COLORS)],
            FIRST_NUMBER + place,
        )
        for place, name in enumerate(given)
    )


def _abbreviation(name: str) -> str:
    """Shorten a name: first letters of words of sides and joins, three of the others."""
    words = name.split("-")
    return "".join(word[0].upper() if word.lower() in ("left", "right") else word[:3] for word in words)


def read_class_table(rows: Iterable[Mapping[str, Any]]) -> tuple[Region, ...]:
    """Read the class table of weights: rows as :func:`hyperprep.models.spatial.labels.legend` makes them.

    Raises
    ------
    WeightsError
        When a row lacks a column.

    Examples
    --------
    >>> from hyperprep.models.spatial.labels import legend
    >>> made = number_regions(["Left-Claustrum", "Habenula"])
    >>> read_class_table(legend(made)) == made
    True
    """
    try:
        return tuple(
            Region(str(row["name"]), (), str(row["abbreviation"]), str(row["color"]), int(row["index"]))
            for row in rows
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"The class table of the weights 'regions' is damaged ({error!r}). Train them again with "
            "bidsapp-regions, or restore the manifest."
        ) from error
