"""Regions of one's own on top of a trained segmentation network, with the region as condition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nets.atlas_unet import RATIO_SCALE, AtlasUNet
from hyperprep.models.nn.film import Conditioner, modulate

Box = tuple[tuple[int, int], ...]
"""First voxel and end along each axis."""

LEAST = 1 / 510
"""Probability that a region has everywhere in its box: half of what a stored prior can tell apart."""


def leaves_of(network: AtlasUNet) -> torch.Tensor:
    """Give the positions of the leaves among a network's conditions, (leaves,)."""
    return network.atlas.get_buffer("tissue").any(1).nonzero()[:, 0]


def region_features(network: AtlasUNet, trunk: torch.Tensor) -> torch.Tensor:
    """Give what region heads read: what all labels share, and the probabilities of the leaves.

    Parameters
    ----------
    network
        The segmentation network; it stays as it is.
    trunk
        (1, features, *shape) that its ``trunk`` made.

    Returns
    -------
    torch.Tensor
        (1, features + leaves, *shape).
    """
    rows = torch.eye(network.n_labels, device=trunk.device)[leaves_of(network)]
    return torch.cat([trunk, torch.softmax(network.label_logits(trunk, rows), dim=1)], dim=1)


def slices_of(box: Box) -> tuple[slice, ...]:
    """Give a box as slices.

    >>> slices_of(((1, 3), (0, 2)))
    (slice(1, 3, None), slice(0, 2, None))
    """
    return tuple(slice(start, end) for start, end in box)


class RegionHead(nn.Module):
    """Where a region is: its prior, the evidence of intensities, and what convolutions under FiLM add.

    Before the first training step the answer is the prior, made of the masks deformed onto the atlas. Each
    region is computed in its own box only. Conditioning is that of CoNeMOS (Billot et al. 2023, section 3.2):
    one-hot region -> dense layers -> scale and shift of every convolution's channels; regions may overlap.

    Parameters
    ----------
    boxes
        Box of each region on the network's grid.
    features
        Channels of what :func:`region_features` gives.
    ratios
        How many of these are the tissues' log-likelihood ratios, and where they begin.
    channels
        Channels of the three convolutions (one voxel, then cubes of three).
    """

    def __init__(
        self,
        boxes: Sequence[Box],
        features: int,
        ratios: tuple[int, int],
        channels: Sequence[int] = (24, 24, 24),
    ) -> None:
        super().__init__()
        self.boxes = tuple(tuple((int(a), int(b)) for a, b in box) for box in boxes)
        self.first, self.count = ratios
        sizes = [math.prod(b - a for a, b in box) for box in self.boxes]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.register_buffer("shares", torch.zeros(self.starts[-1], dtype=torch.uint8))
        before, convs = features + 1, []
        for place, c in enumerate(channels):
            convs.append(nn.Conv3d(before, c, 1 if place == 0 else 3, padding=0 if place == 0 else 1))
            before = c
        self.convs = nn.ModuleList(convs)
        self.conditioner = Conditioner(len(boxes), [2 * c for c in channels])
        self.last = nn.Conv3d(before, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.evidence = nn.Parameter(torch.zeros(len(boxes), self.count))
        self.trust = nn.Parameter(torch.ones(1))

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return len(self.boxes)

    def fill(self, priors: Sequence[torch.Tensor]) -> None:
        """Store the prior probability of each region in its box."""
        stored = torch.cat([(prior.clamp(0, 1) * 255).round().flatten() for prior in priors])
        self.get_buffer("shares").copy_(stored)

    def prior(self, region: int) -> torch.Tensor:
        """Give the stored prior probability of a region, (*box)."""
        share = self.get_buffer("shares")[self.starts[region] : self.starts[region + 1]].float() / 255
        return share.view(*(b - a for a, b in self.boxes[region]))

    def forward(self, features: torch.Tensor, region: int, prior: torch.Tensor | None = None) -> torch.Tensor:
        """Give a region's logits in its box.

        Parameters
        ----------
        features
            (1, features, *box).
        region
            Which.
        prior
            (*box) probability, in place of the stored one.

        Returns
        -------
        torch.Tensor
            (*box).
        """
        known = self.prior(region) if prior is None else prior
        odds = torch.logit(known.clamp(LEAST, 1 - LEAST))[None, None]
        chosen = F.one_hot(torch.tensor([region], device=features.device), self.n_regions).float()
        x = torch.cat([features, 0.25 * odds], dim=1).contiguous(memory_format=torch.channels_last_3d)
        for conv, film in zip(self.convs, self.conditioner(chosen), strict=True):
            x = F.leaky_relu(modulate(conv(x), film), 0.1)
        ratios = features[0, self.first : self.first + self.count] / RATIO_SCALE
        seen = torch.einsum("t,t...->...", self.evidence[region], ratios)
        return self.last(x)[0, 0] + self.trust * odds[0, 0] + seen
