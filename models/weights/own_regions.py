"""Which regions weights add to those that every installation knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hyperprep.exceptions import UsageError, WeightsError
from hyperprep.models.spatial.labels import Region, resolve_labels
from hyperprep.models.spatial.own_regions import read_class_table
from hyperprep.models.weights.resolver import ENVIRONMENT, WeightsEntry, find_entry, find_weights

NETWORK = "regions"


def without_own_regions(digests: Mapping[str, str]) -> dict[str, str]:
    """Leave the digest of own regions out of those of all networks: the template is segmented without them.

    >>> without_own_regions({"segment": "a", "regions": "b"})
    {'segment': 'a'}
    """
    return {name: digest for name, digest in digests.items() if name != NETWORK}


def own_regions(weights_dir: str | Path | None = None) -> tuple[Region, ...]:
    """Give the regions of the class table of the weights ``regions`` that are found first; none without them.

    Only the manifest is read; :func:`find_own_regions` verifies the weights.

    Parameters
    ----------
    weights_dir
        A folder to look in first.

    Raises
    ------
    WeightsError
        When a manifest is damaged.
    """
    entry = find_entry(NETWORK, weights_dir)
    return () if entry is None else read_class_table(entry.get("regions", ()))


def resolve_all_labels(
    labels: Iterable[str | int], weights_dir: str | Path | None = None
) -> tuple[Region, ...]:
    """Give the regions that labels stand for, those of the weights ``regions`` among them.

    Raises
    ------
    UsageError
        If a name is unknown, or none is given.
    WeightsError
        When a manifest is damaged.

    Examples
    --------
    >>> [region.index for region in resolve_all_labels(["amygdala"])]
    [18, 54]
    """
    own = own_regions(weights_dir)
    try:
        return resolve_labels(labels, own)
    except UsageError as error:
        if own:
            raise
        raise UsageError(
            f"{error} For a region of your own give the folder of its weights, which bidsapp-regions wrote: "
            f"no '{NETWORK}' in {weights_dir or 'a folder given'}, ${ENVIRONMENT} or the installation."
        ) from error


def find_own_regions(base: WeightsEntry, weights_dir: str | Path | None = None) -> WeightsEntry:
    """Find the weights ``regions`` and check that they belong to a segmentation network.

    Parameters
    ----------
    base
        Weights of the network ``segment`` whose features they are to read.
    weights_dir
        A folder to look in first.

    Raises
    ------
    WeightsError
        When they are missing, damaged, or were trained on the features of other weights.
    """
    entry = find_weights(NETWORK, weights_dir=weights_dir)
    trained_on = str(entry.metadata.get("base_sha256"))
    if trained_on != base.sha256:
        raise WeightsError(
            f"{entry.path} was trained on features of a 'segment' network with the sha256 "
            f"{trained_on[:16]}..., but {base.path} has {base.sha256[:16]}.... Train the regions again with "
            "bidsapp-regions, or give the weights they were trained on."
        )
    return entry
