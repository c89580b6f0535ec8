"""Make a network from what its weights say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hyperprep.exceptions import WeightsError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.head_unet import HeadConditionedUNet
from hyperprep.models.weights import WeightsEntry, load_state


def build_network(description: Mapping[str, Any], n_labels: int = 0, shape: Sequence[int] = ()) -> nn.Module:
    """Make the network described by a manifest entry's ``network``, with fresh weights.

    Parameters
    ----------
    description
        ``kind`` and what that kind needs: ``channels`` and ``stem``, or ``atlas`` with ``tissues``,
        ``channels`` and ``hidden``, or ``primary`` and its ``options``, or ``channels`` and ``levels``.
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
    if kind in ("locate", "segment") and description.get("atlas"):
        return AtlasUNet(
            n_labels, description["tissues"], shape, tuple(description["channels"]), description["hidden"]
        )
    if kind in ("locate", "segment"):
        return HeadConditionedUNet(n_labels, tuple(description["channels"]), description["stem"])
    if kind == "hypermorph":
        from hyperprep.models.nets.hypermorph import HyperMorph

        return HyperMorph.from_description(description)
    if kind == "neuralizer":
        from hyperprep.models.nets.neuralizer import Neuralizer

        return Neuralizer(description["channels"], description.get("levels", 4))
    raise WeightsError(
        f"The weights describe a network of kind {kind!r}, which this version does not know. "
        "Update hyperprep."
    )


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
