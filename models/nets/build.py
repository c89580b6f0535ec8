"""Make a network from what its weights say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hyperprep.exceptions import WeightsError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.head_unet import HeadConditionedUNet, LabelConditioned
from hyperprep.models.nets.tissue_features import TissueFeatures
from hyperprep.models.nets.topology import TopologyNetwork
from hyperprep.models.weights import WeightsEntry, load_state

SEGMENTING = ("locate", "segment", "semantic")
"""Kinds of networks that segment."""


def build_network(description: Mapping[str, Any], n_labels: int = 0, shape: Sequence[int] = ()) -> nn.Module:
    """Make the network described by a manifest entry's ``network``, with fresh weights.

    Parameters
    ----------
    description
        ``kind`` and what that kind needs: ``channels`` and ``stem``, or ``atlas`` with ``tissues``,
        ``channels`` and ``hidden``, or ``primary`` and its ``options``, or ``channels`` and ``levels``; a
        topology network's ``dims``, ``channels``, ``norm``, ``reduction`` and, unless images are compared,
        ``features``, a description like this one; own regions' ``boxes``, ``features``, ``ratios`` and
        ``channels``.
    n_labels
        Number of conditions of a segmentation network.
    shape
        Voxels of the network's grid; a network with an atlas needs it.

    Raises
    ------
    WeightsError
        When the kind is not known to this version.

    Examples
    --------
    >>> build_network({"kind": "segment", "channels": (4, 4), "stem": 2}, n_labels=3).divisor
    4
    """
    kind = description.get("kind")
    if kind == "topology":
        return _topology(description)
    if kind in SEGMENTING and description.get("atlas"):
        return AtlasUNet(
            n_labels, description["tissues"], shape, tuple(description["channels"]), description["hidden"]
        )
    if kind in SEGMENTING:
        return HeadConditionedUNet(n_labels, tuple(description["channels"]), description["stem"])
    if kind == "hypermorph":
        from hyperprep.models.nets.hypermorph import HyperMorph

        return HyperMorph.from_description(description)
    if kind == "regions":
        from hyperprep.models.nets.region_head import RegionHead

        first, count = description["ratios"]
        return RegionHead(
            description["boxes"], description["features"], (first, count), tuple(description["channels"])
        )
    if kind == "neuralizer":
        from hyperprep.models.nets.neuralizer import Neuralizer

        return Neuralizer(
            description["channels"], description.get("levels", 4), start=description.get("start", False)
        )
    raise WeightsError(
        f"The weights describe a network of kind {kind!r}, which this version does not know. "
        "Update hyperprep."
    )


def _topology(description: Mapping[str, Any]) -> TopologyNetwork:
    inner = description.get("features")
    features: nn.Module | None = None
    if inner is not None and inner["kind"] == "tissues":
        features = TissueFeatures(inner["n_tissues"], inner["shape"])
    elif inner is not None:
        features = build_network(inner, inner["n_labels"], inner["shape"])
        assert isinstance(features, LabelConditioned)
    return TopologyNetwork(
        description["dims"],
        tuple(description["channels"]),
        description["norm"],
        features,
        description["reduction"],
    )


def describe_features(entry: WeightsEntry) -> dict[str, Any]:
    """Describe a segmentation network as the ``features`` of a topology network.

    Parameters
    ----------
    entry
        Weights of the segmentation network.

    Returns
    -------
    dict
        Its description, with ``n_labels``, ``shape`` and the digest of the weights.
    """
    return {
        **entry.metadata["network"],
        "n_labels": len(entry.metadata.get("labels", ())),
        "shape": entry.metadata["grid"]["shape"],
        "sha256": entry.sha256,
    }


def load_network(entry: WeightsEntry) -> nn.Module:
    """Make the network of verified weights and fill it.

    Raises
    ------
    WeightsError
        When the tensors do not fit the network.
    """
    network = build_network(
        entry.metadata["network"], len(entry.metadata.get("labels", ())), entry.metadata["grid"]["shape"]
    )
    try:
        network.load_state_dict(load_state(entry))
    except RuntimeError as error:
        raise WeightsError(
            f"{entry.path} does not fit the network that its manifest describes: {error}. Export it again."
        ) from error
    return network.eval()
