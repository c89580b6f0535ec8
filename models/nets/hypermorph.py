"""HyperMorph: registration whose regularisation weight is an input (Hoopes et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hyperprep.exceptions import WeightsError
from hyperprep.models.nets.registration_unet import RegistrationUNet
from hyperprep.models.nets.siamese import SiameseMatching
from hyperprep.models.nets.unrolled import UnrolledMatching
from hyperprep.models.nn.hyper import Hyper
from hyperprep.models.nn.warp import integrate

PRIMARIES: dict[str, type[nn.Module]] = {
    "unet": RegistrationUNet,
    "unrolled": UnrolledMatching,
    "siamese": SiameseMatching,
}
"""Primary registration networks by name; ``unet`` is the paper's."""


def primary_network(kind: str, **options: Any) -> nn.Module:
    """Make a primary registration network: one of :data:`PRIMARIES`.

    Raises
    ------
    WeightsError
        When the name is not known.

    Examples
    --------
    >>> sum(weights.numel() for weights in primary_network("unet").parameters())
    313507
    """
    if kind not in PRIMARIES:
        raise WeightsError(f"Unknown primary registration network {kind!r}; known: {', '.join(PRIMARIES)}.")
    return PRIMARIES[kind](**options)


class HyperMorph(nn.Module):
    """A primary registration network under a hypernetwork.

    Parameters
    ----------
    primary
        Network from (fixed, moving) to a velocity on a grid twice as coarse.
    n_hyper
        Number of hyperparameters; the first is lambda.
    rank
        Rank of the hypernetwork's last layer where it is stored as a factorisation.
    """

    def __init__(self, primary: nn.Module, n_hyper: int = 1, *, rank: int | None = None) -> None:
        super().__init__()
        self.hyper = Hyper(primary, n_hyper, rank=rank)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> HyperMorph:
        """Make the network that a manifest entry's ``network`` describes.

        Raises
        ------
        WeightsError
            When the primary network is not known.
        """
        return cls(
            primary_network(description["primary"], **description.get("options", {})),
            description.get("n_hyper", 1),
            rank=description.get("rank"),
        )

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor, hyper: torch.Tensor) -> torch.Tensor:
        """Give the stationary velocity.

        Parameters
        ----------
        fixed, moving
            (B, 1, *spatial) in [0, 1].
        hyper
            (n_hyper,) in [0, 1].

        Returns
        -------
        torch.Tensor
            (B, 3, *spatial / 2), voxels of that grid; sampling the moving image at x + integrate(velocity)
            aligns it with the fixed one, integrate(-velocity) is the inverse.
        """
        velocity: torch.Tensor = self.hyper(hyper, fixed, moving)
        return velocity

    @staticmethod
    def displacement(velocity: torch.Tensor, *, inverse: bool = False, steps: int = 6) -> torch.Tensor:
        """Integrate the velocity, (B, 3, *coarse) voxels, or its negative."""
        return integrate(-velocity if inverse else velocity, steps=steps)
