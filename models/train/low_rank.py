"""The last layer of a hypernetwork as a low-rank factorisation, with its error over the hyperparameters."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hyperprep.exceptions import UsageError
from hyperprep.models.nn.hyper import HyperNetwork

State = dict[str, torch.Tensor]

_LARGEST_HALF = 6e4

_STEPS = {1: 101, 2: 21, 3: 11}
"""Values per hyperparameter at which the factorisation is fitted; its error is measured twice as densely."""


@dataclass(frozen=True)
class LowRank:
    """What a factorisation costs.

    Attributes
    ----------
    rank, full_rank
        Units before the outputs, and before the factorisation.
    max_relative_error, mean_relative_error
        Norm of the error over the norm of the weights, per primary tensor: the largest over all tensors and
        hyperparameters, and the mean. Against the unrounded network; half precision is included.
    half_precision_error
        The largest such error of the whole last layer in half precision: what rounding alone costs.
    points
        Number of hyperparameter settings at which the error was measured, evenly spaced over their range.
    parameters, full_parameters
        Stored numbers, with and without the factorisation.
    """

    rank: int
    full_rank: int
    max_relative_error: float
    mean_relative_error: float
    half_precision_error: float
    points: int
    parameters: int
    full_parameters: int

    def described(self) -> dict[str, Any]:
        """Give the entry of a manifest."""
        return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


def hyper_grid(n_hyper: int, steps: int) -> torch.Tensor:
    """Give evenly spaced hyperparameters over [0, 1] in every combination, (steps ** n_hyper, n_hyper).

    Examples
    --------
    >>> hyper_grid(2, 2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axis = torch.linspace(0, 1, steps).tolist()
    return torch.tensor(list(itertools.product(axis, repeat=n_hyper)))


class Factorisation:
    """Best low-rank last layers of a trained hypernetwork.

    The outputs are affine in the last dense layer's units h, and h follows a curve (a surface with two
    hyperparameters) that spans few directions. Of the changes of the outputs along it, each primary tensor in
    units of its own size, the leading singular vectors are kept; the mean is exact.

    Parameters
    ----------
    network
        Trained hypernetwork without a factorisation, float32.
    n_hyper
        Number of its hyperparameters.
    """

    def __init__(self, network: HyperNetwork, n_hyper: int) -> None:
        self.network, steps = network, _STEPS[n_hyper]
        linear = [one for one in network.outputs if isinstance(one, torch.nn.Linear)]
        self.outputs = [(one.weight.detach(), one.bias.detach()) for one in linear]
        with torch.no_grad():
            fitted = network.hidden(hyper_grid(n_hyper, steps)).double()
            self.probes = network.hidden(hyper_grid(n_hyper, 2 * steps - 1))
            self._grid = hyper_grid(n_hyper, 2 * steps - 1)
        self.mean = fitted.mean(dim=0)
        self.full_rank = fitted.shape[1]
        gram = torch.zeros(self.full_rank, self.full_rank, dtype=torch.float64)
        for weight, bias in self.outputs:
            size = torch.addmm(bias.double(), fitted, weight.double().T).square().sum(1).mean()
            gram += weight.double().T @ weight.double() / size.clamp_min(1e-24)
        values, vectors = torch.linalg.eigh(gram)
        kept = values > 1e-12 * values[-1]
        root = values[kept].sqrt()
        self._root = root[:, None] * vectors[:, kept].T
        self._back = vectors[:, kept] / root
        self._left, self._singular, _ = torch.linalg.svd(
            self._root @ (fitted - self.mean).T, full_matrices=False
        )
        self._reach = (self._left.T @ self._root @ (fitted - self.mean).T).abs().amax(dim=1)

    @property
    def largest(self) -> int:
        """The highest rank whose factors half precision can hold and that still adds anything."""
        rows = (self._left.T @ self._root) / self._reach.clamp_min(1e-12)[:, None]
        useful = (self._singular > 1e-6 * self._singular[0]) & (rows.abs().amax(dim=1) < _LARGEST_HALF)
        return int(useful.long().cumprod(dim=0).sum())

    def state(self, rank: int) -> State:
        """Give the factorised weights, all representable in half precision, named as in the network."""
        kept = {k: v for k, v in self.network.state_dict().items() if k.startswith("trunk.")}
        # coefficients reach 1, so that half precision loses nothing of the outputs
        scale = self._reach[:rank].clamp_min(1e-12)
        factor = _half((self._left[:, :rank].T @ self._root) / scale[:, None])
        out = {**{k: _half(v) for k, v in kept.items()}, "factor.weight": factor}
        directions = self._back @ self._left[:, :rank] * scale
        for place, (weight, bias) in enumerate(self.outputs):
            spread = _half(weight.double() @ directions)
            centre = bias.double() + weight.double() @ self.mean
            out[f"outputs.{place}.weight"] = spread
            out[f"outputs.{place}.bias"] = _half(centre - spread.double() @ (factor.double() @ self.mean))
        return out

    def rounded(self) -> State:
        """Give the whole network's weights rounded to half precision."""
        return {k: _half(v) for k, v in self.network.state_dict().items()}

    @torch.no_grad()
    def error(self, state: State) -> tuple[float, float]:
        """Measure the largest and the mean relative error of stored weights over the hyperparameters.

        Parameters
        ----------
        state
            Weights from :meth:`state` or :meth:`rounded`.
        """
        units = (self._grid[:, None] - torch.tensor([0.0, 1.0])[:, None]).abs().movedim(1, 2).flatten(1)
        trunk = torch.nn.Sequential(*self.network.trunk)
        hidden = torch.func.functional_call(
            trunk, {k.removeprefix("trunk."): v for k, v in state.items() if k.startswith("trunk.")}, (units,)
        )
        if "factor.weight" in state:
            hidden = hidden @ state["factor.weight"].T
        worst, sums = 0.0, []
        for place, (weight, bias) in enumerate(self.outputs):
            norms, misses = [], []
            for some, these in zip(self.probes.split(128), hidden.split(128), strict=True):
                wanted = torch.addmm(bias, some, weight.T)
                made = torch.addmm(state[f"outputs.{place}.bias"], these, state[f"outputs.{place}.weight"].T)
                norms.append(wanted.norm(dim=1))
                misses.append((made - wanted).norm(dim=1))
            size = torch.cat(norms).square().mean().sqrt().clamp_min(1e-12)
            relative = (torch.cat(misses) / size).nan_to_num(nan=torch.inf)
            worst = max(worst, float(relative.max()))
            sums.append(float(relative.mean()))
        return worst, sum(sums) / len(sums)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float()


def factorise(
    network: HyperNetwork, n_hyper: int, *, rank: int | None = None, max_error: float | None = None
) -> tuple[State, LowRank]:
    """Factorise the last layer of a trained hypernetwork.

    Parameters
    ----------
    network, n_hyper
        Trained hypernetwork and the number of its hyperparameters.
    rank
        Units before the outputs; the smallest that keeps ``max_error`` when not given.
    max_error
        Largest relative error allowed for any primary tensor at any setting of the hyperparameters.

    Returns
    -------
    tuple
        Weights of a :class:`HyperNetwork` of that rank, and what the factorisation costs.

    Raises
    ------
    UsageError
        When the rank is not within 1 and the width of the last dense layer, or no rank keeps the error.
    """
    found = Factorisation(network, n_hyper)
    floor, _ = found.error(found.rounded())
    if rank is None:
        rank = _smallest_rank(found, 0.005 if max_error is None else max_error, floor)
    if not 1 <= rank <= found.full_rank:
        raise UsageError(f"The rank must lie within 1 and {found.full_rank}, not {rank}.")
    rank = min(rank, found.largest)
    state = found.state(rank)
    worst, mean = found.error(state)
    if max_error is not None and worst > max_error:
        raise UsageError(
            f"Rank {rank} leaves a relative error of {worst:.2g}, more than {max_error:g}. Ask for a higher "
            "rank or leave the rank out."
        )
    count = sum(v.numel() for v in state.values())
    full = sum(v.numel() for v in network.state_dict().values())
    points = len(found.probes)
    return state, LowRank(rank, found.full_rank, worst, mean, floor, points, count, full)


def _smallest_rank(found: Factorisation, max_error: float, floor: float) -> int:
    low, high = 0, found.largest
    if found.error(found.state(high))[0] > max_error:
        raise UsageError(
            f"No rank keeps the relative error below {max_error:g}: rounding to half precision alone costs "
            f"{floor:.2g}. Allow a larger error, or export without a factorisation."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if found.error(found.state(middle))[0] > max_error:
            low = middle
        else:
            high = middle
    return high
