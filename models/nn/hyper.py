"""A hypernetwork over any primary network (HyperMorph section 3.1 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


class HyperNetwork(nn.Module):
    """Fully connected network that makes every weight of a primary network from hyperparameters.

    Each hyperparameter h in [0, 1] enters as (h, 1 - h). Dense layers of 32-64-64-128-128 units with ReLU,
    then one linear output per primary tensor. Its bias starts at the primary tensor's own initial value and
    its matrix at a tenth of the spread of that value, so the primary network starts as if initialised by
    itself.

    Parameters
    ----------
    primary
        Any module; its parameters become outputs and are not trained themselves.
    n_hyper
        Number of hyperparameters.
    widths
        Units of the dense layers.
    rank
        Put a linear layer of this many units before the outputs: the last layer as a low-rank factorisation
        (:mod:`hyperprep.models.train.low_rank` makes it of a trained one). None: there is no such layer.
    """

    def __init__(
        self,
        primary: nn.Module,
        n_hyper: int = 1,
        widths: Sequence[int] = (32, 64, 64, 128, 128),
        *,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.names = [name for name, _ in primary.named_parameters()]
        self.shapes = [tuple(p.shape) for _, p in primary.named_parameters()]
        layers: list[nn.Module] = []
        before = 2 * n_hyper
        for width in widths:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        self.trunk = nn.Sequential(*layers)
        self.factor = nn.Identity() if rank is None else nn.Linear(before, rank, bias=False)
        before = before if rank is None else rank
        self.outputs = nn.ModuleList()
        for _, tensor in primary.named_parameters():
            output = nn.Linear(before, tensor.numel())
            with torch.no_grad():
                spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
                nn.init.normal_(output.weight, std=0.1 * max(spread, 1e-4) / before**0.5)
                output.bias.copy_(tensor.flatten())
            self.outputs.append(output)

    def forward(self, hyper: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make the primary network's weights.

        Parameters
        ----------
        hyper
            (n_hyper,) in [0, 1].

        Returns
        -------
        dict
            Primary parameter name to tensor.
        """
        hidden = self.factor(self.hidden(hyper))
        return {
            n: out(hidden).reshape(s) for n, s, out in zip(self.names, self.shapes, self.outputs, strict=True)
        }

    def hidden(self, hyper: torch.Tensor) -> torch.Tensor:
        """Give the last dense layer's units, (..., width), for hyperparameters (..., n_hyper) in [0, 1]."""
        out: torch.Tensor = self.trunk(torch.stack([hyper, 1 - hyper], dim=-1).flatten(-2))
        return out


class Hyper(nn.Module):
    """A primary network together with the hypernetwork that makes its weights."""

    def __init__(self, primary: nn.Module, n_hyper: int = 1, *, rank: int | None = None) -> None:
        super().__init__()
        self.hypernetwork = HyperNetwork(primary, n_hyper, rank=rank)
        # in a list: its own weights are neither trained nor stored
        self._primary = [primary.requires_grad_(False)]

    @property
    def primary(self) -> nn.Module:
        """The primary network, whose own weights are never used."""
        return self._primary[0]

    def forward(self, hyper: torch.Tensor, *inputs: torch.Tensor, **options: Any) -> Any:
        """Run the primary network on ``inputs`` with the weights made from ``hyper`` (n_hyper,)."""
        return functional_call(self.primary, self.hypernetwork(hyper), inputs, options)
