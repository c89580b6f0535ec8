"""Checks of the regions that a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hyperprep.bidsapp.config import Settings
from hyperprep.exceptions import UsageError
from hyperprep.models.spatial.labels import resolve_labels
from hyperprep.models.weights import find_weights
from hyperprep.models.weights.own_regions import NETWORK, find_own_regions, resolve_all_labels


def check_labels(labels: Sequence[str], weights_dir: Path | None = None) -> Mapping[str, str]:
    """Check that every region asked for is known.

    Returns
    -------
    mapping
        sha256 of the weights of own regions by the network's name, where one is asked for.

    Raises
    ------
    UsageError
        Naming near matches.
    WeightsError
        If the weights of own regions cannot be used.
    """
    try:
        regions = resolve_all_labels(labels, weights_dir)
    except UsageError as error:
        raise UsageError(f"--labels: {error}") from error
    if not any(region.is_own for region in regions):
        return {}
    return {NETWORK: find_own_regions(find_weights("segment", weights_dir=weights_dir), weights_dir).sha256}


def check_lambda_regions(settings: Settings) -> None:
    """Check that the regions that choose lambda are known, and asked for to some effect.

    Raises
    ------
    UsageError
        When lambda is given, or a region is unknown.
    """
    if not settings.lambda_regions:
        return
    if settings.lam is not None:
        raise UsageError(
            f"--lambda-regions has no effect with --lambda {settings.lam:g}: leave one of them out."
        )
    try:
        resolve_labels(settings.lambda_regions)
    except UsageError as error:
        raise UsageError(f"--lambda-regions: {error}") from error
