"""Feature-wise linear modulation (CoNeMOS section 3.2): a condition scales and shifts features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Conditioner(nn.Module):
    """Fully connected network from a condition to one vector per consumer.

    Parameters
    ----------
    n_inputs
        Length of the condition (one-hot label).
    out_sizes
        Length of the vector of each consumer (2 C for the modulation of C channels).
    width, depth
        Units and number of dense layers before the outputs; the paper's are 64 and 4, LeakyReLU 0.2 between.
    """

    def __init__(self, n_inputs: int, out_sizes: Sequence[int], *, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(n_inputs if i == 0 else width, width), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        outputs = [nn.Linear(width, n) for n in out_sizes]
        self.outputs = nn.ModuleList(outputs)
        # keep conditions apart through the depth: torch's default shrinks their differences 50 times
        with torch.no_grad():
            for i, layer in enumerate(m for m in self.trunk if isinstance(m, nn.Linear)):
                if i == 0:
                    nn.init.normal_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)
            for output in outputs:
                nn.init.normal_(output.weight, std=0.2 / width**0.5)
                nn.init.zeros_(output.bias)

    def forward(self, condition: torch.Tensor) -> list[torch.Tensor]:
        """Map conditions (B, n_inputs) to one (B, n) tensor per consumer."""
        hidden = self.trunk(condition)
        return [output(hidden) for output in self.outputs]


def modulate(features: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
    """Apply (1 + gamma) f + beta.

    Parameters
    ----------
    features
        (B, C, *spatial).
    film
        (B, 2 C): gamma then beta.

    Returns
    -------
    torch.Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> modulate(torch.ones(1, 1, 2, 2, 2), torch.tensor([[0.5, 3.0]])).unique().tolist()
    [4.5]
    """
    gamma, beta = film.chunk(2, dim=1)
    shape = (*gamma.shape, *([1] * (features.ndim - 2)))
    return (1 + gamma.view(shape)) * features + beta.view(shape)
