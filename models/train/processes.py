"""Several processes that train one network together, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from hyperprep.exceptions import UsageError


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that train together.

    Attributes
    ----------
    rank, count
        Number of this process, from 0, and how many there are.
    local_rank
        Its number on this machine, which is that of its GPU.

    Examples
    --------
    >>> Processes().leads, Processes(rank=1, count=2).share(4)
    (True, (1, 3))
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes, measures and decides."""
        return self.rank == 0

    def share(self, batches: int | None) -> tuple[int, ...]:
        """Numbers of the batches of one step that this process computes.

        Parameters
        ----------
        batches
            Batches per step over all processes; None is one for each process.

        Raises
        ------
        UsageError
            If they cannot be shared out evenly.
        """
        total = self.count if batches is None else batches
        if total < 1 or total % self.count:
            raise UsageError(
                f"{total} batches per step cannot be shared by {self.count} processes: use a multiple of "
                f"{self.count}, or leave it out for one batch each"
            )
        return tuple(range(self.rank, total, self.count))

    def sum_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        found = list(tensors)
        if self.count == 1 or not found:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in found])
        dist.all_reduce(flat)
        for tensor, part in zip(found, flat.split([tensor.numel() for tensor in found]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_moved(self, model: nn.Module, before: Sequence[torch.Tensor]) -> None:
        """Average the buffers that a step has moved in any process, so that all go on with the same.

        Parameters
        ----------
        model
            The network.
        before
            Copies of its buffers before the step.
        """
        kept = [
            (one, then) for one, then in zip(model.buffers(), before, strict=True) if one.is_floating_point()
        ]
        if self.count == 1 or not kept:
            return
        moved = torch.tensor([float(not torch.equal(*pair)) for pair in kept], device=kept[0][0].device)
        self.sum_([moved])
        chosen = [one for (one, _), count in zip(kept, moved.tolist(), strict=True) if count]
        self.sum_(chosen)
        for one in chosen:
            one.div_(self.count)

    def sum_figures(self, figures: Mapping[str, float], device: torch.device | str) -> dict[str, float]:
        """Sum figures of the same names over all processes."""
        values = torch.tensor(list(figures.values()), dtype=torch.float32, device=device)
        self.sum_([values])
        return dict(zip(figures, values.tolist(), strict=True))

    def leaders(self, value: float, device: torch.device | str) -> float:
        """Give the first process' value to all, so that all decide alike."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)


def launched_processes(environ: Mapping[str, str] = os.environ) -> Processes:
    """Read from the environment how ``torchrun`` started this process; one process alone without it.

    Parameters
    ----------
    environ
        Environment.

    Examples
    --------
    >>> launched_processes({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
    Processes(rank=3, count=4, local_rank=1)
    """
    rank, count, local = (int(environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Processes(rank, max(1, count), local)


@contextmanager
def together(device: torch.device | str) -> Iterator[Processes]:
    """Join the other processes while the block runs; does nothing in a process that is alone.

    Parameters
    ----------
    device
        Where the network is; GPUs talk through NCCL, CPUs through gloo.
    """
    processes = launched_processes()
    if processes.count == 1 or dist.is_initialized():
        yield processes
        return
    dist.init_process_group(dist.get_default_backend_for_device(torch.device(device)))
    try:
        yield processes
    finally:
        dist.destroy_process_group()
