"""How long a training goes on, how fast, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: steps, seconds, learning rate and its decay, checkpoints.

    ``batches_per_step`` batches are drawn for each step over all processes, and their losses averaged; None
    is one for each process.
    """

    steps: int = 100_000
    max_seconds: float = math.inf
    learning_rate: float = 1e-3
    conditioner_rate: float = 0.05
    warmup_steps: int = 50
    final_share: float = 0.01
    clip: float = 1.0
    average: float = 0.995
    checkpoint_seconds: float = 120.0
    validate_seconds: float = 600.0
    log_every: int = 20
    seed: int = 0
    batches_per_step: int | None = None


@dataclass
class Progress:
    """Where a run stands; what a checkpoint holds beside the tensors."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def learning_rate_at(schedule: Schedule, progress: Progress) -> float:
    """Give the learning rate: linear warm-up, then a cosine over steps or seconds, whichever is further on.

    >>> learning_rate_at(Schedule(steps=100, warmup_steps=10, learning_rate=1.0), Progress(step=4))
    0.5
    """
    done = max(progress.step / schedule.steps, progress.seconds / schedule.max_seconds)
    cosine = schedule.final_share + (1 - schedule.final_share) * 0.5 * (
        1 + math.cos(math.pi * min(done, 1.0))
    )
    return (
        schedule.learning_rate
        * min(1.0, (progress.step + 1) / schedule.warmup_steps)
        * (cosine if progress.step >= schedule.warmup_steps else 1.0)
    )


def parameter_groups(model: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """Split the weights: those of conditioners learn more slowly than all others.

    A step of Adam on every unit of a layer that makes weights moves what it makes by the sum of all units'
    steps.

    Examples
    --------
    >>> [group["factor"] for group in parameter_groups(nn.Linear(1, 1), Schedule())]
    [1.0]
    """
    slow = [p for name, p in model.named_parameters() if "conditioner" in name and p.requires_grad]
    fast = [p for name, p in model.named_parameters() if "conditioner" not in name and p.requires_grad]
    groups = [{"params": fast, "factor": 1.0}, {"params": slow, "factor": schedule.conditioner_rate}]
    return [group for group in groups if group["params"]]
