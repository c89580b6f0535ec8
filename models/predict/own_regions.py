"""Regions of one's own at work: from a segmentation network's features to their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.region_head import RegionHead, region_features, slices_of
from hyperprep.models.spatial.labels import Region
from hyperprep.models.spatial.own_regions import read_class_table
from hyperprep.models.weights import WeightsEntry
from hyperprep.models.weights.own_regions import find_own_regions

NOWHERE = -20.0
"""Logit outside a region's box."""


@dataclass(frozen=True)
class OwnLogits:
    """What a network says of own regions, on its grid.

    Attributes
    ----------
    regions
        The regions asked for.
    logits
        (R, *grid); each region is decided by itself, they may overlap.
    weights
        (R, T) how much each tissue's log-likelihood ratio adds to them.
    usual_voxels
        Voxels of each region on average over those who were annotated.
    sha256
        Digest of the weights.
    """

    regions: tuple[Region, ...]
    logits: torch.Tensor
    weights: torch.Tensor
    usual_voxels: dict[int, float]
    sha256: str


def own_logits(
    asked: Sequence[Region],
    network: AtlasUNet,
    base: WeightsEntry,
    trunk: torch.Tensor,
    *,
    weights_dir: str | Path | None = None,
) -> OwnLogits | None:
    """Compute the logits of the own regions among those asked for, each in its box.

    Parameters
    ----------
    asked
        Regions.
    network, base
        Segmentation network and its weights.
    trunk
        (1, features, *grid) that it made of the image deformed onto the atlas.
    weights_dir
        A folder to look in first for the weights ``regions``.

    Returns
    -------
    OwnLogits or None
        None where no own region is asked for.

    Raises
    ------
    WeightsError
        When the weights ``regions`` are missing or belong to another segmentation network.
    """
    wanted = tuple(region for region in asked if region.is_own)
    if not wanted:
        return None
    entry = find_own_regions(base, weights_dir)
    head = load_network(entry).to(trunk.device)
    assert isinstance(head, RegionHead)
    rows = [region.index for region in read_class_table(entry.metadata["regions"])]
    features = region_features(network, trunk)
    logits = trunk.new_full((len(wanted), *trunk.shape[2:]), NOWHERE)
    usual = {}
    for place, region in enumerate(wanted):
        row = rows.index(region.index)
        box = slices_of(head.boxes[row])
        logits[place][box] = head(features[(slice(None), slice(None), *box)], row)
        usual[region.index] = float(head.prior(row).sum())
    chosen = head.evidence[[rows.index(region.index) for region in wanted]]
    return OwnLogits(wanted, logits, chosen, usual, entry.sha256)
