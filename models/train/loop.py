"""The one training loop: seeded, resumable, limited in time, with logged curves."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn


class Task(Protocol):
    """What a network brings to the loop: how it is built, what it sees, what it is judged by."""

    name: str

    def build(self) -> nn.Module:
        """Make the network with fresh weights."""

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw and make one batch; everything random comes from ``rng``."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the loss to descend and figures for the log."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure the network on held-out material."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: steps, seconds, learning rate and its decay, checkpoints."""

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


def _save(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(content, partial)
    os.replace(partial, path)


def train(
    task: Task, schedule: Schedule, run_dir: str | Path, *, device: torch.device | str = "cpu"
) -> nn.Module:
    """Train until the steps or the seconds are used up, going on from the run's checkpoint if there is one.

    Parameters
    ----------
    task
        Network, data and loss.
    schedule
        Length and learning rate.
    run_dir
        Receives ``checkpoint.pt``, ``curve.jsonl`` and, at the end, the averaged network in ``model.pt``.
    device
        Where the network is; the task brings its batches there.

    Returns
    -------
    torch.nn.Module
        The network with exponentially averaged weights.

    Notes
    -----
    Every step draws from a generator seeded by (seed, step): a resumed run sees the data that an
    uninterrupted one would. SIGTERM and SIGINT write a checkpoint before they end the run.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(schedule.seed)
    model = task.build().to(device)
    volumes = any(p.ndim == 5 for p in model.parameters())
    if torch.device(device).type == "cpu" and volumes:
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.Adam(parameter_groups(model, schedule), lr=schedule.learning_rate)
    progress = Progress()
    checkpoint = run_dir / "checkpoint.pt"
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(stored["model"])
        average.load_state_dict(stored["average"])
        optimiser.load_state_dict(stored["optimiser"])
        progress = Progress(stored["step"], stored["seconds"], stored["history"])
        print(f"{task.name}: resumed at step {progress.step} after {progress.seconds:.0f} s", flush=True)

    def store() -> None:
        _save(
            checkpoint,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": progress.step,
                "seconds": progress.seconds,
                "history": progress.history,
            },
        )

    stop: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, _: stop.append(number)) for s in (signal.SIGTERM, signal.SIGINT)
    }
    since_save = since_check = 0.0
    sums: dict[str, float] = {}
    try:
        while progress.step < schedule.steps and progress.seconds < schedule.max_seconds and not stop:
            began = time.perf_counter()
            rng = np.random.default_rng([schedule.seed, progress.step])
            torch.manual_seed(int(rng.integers(2**31)))
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * learning_rate_at(schedule, progress)
            loss, figures = task.loss(model, task.batch(rng))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(model.parameters(), schedule.clip))
            if math.isfinite(norm):
                optimiser.step()
            keep = min(schedule.average, (progress.step + 1) / (progress.step + 10))
            with torch.no_grad():
                for a, b in zip(average.parameters(), model.parameters(), strict=True):
                    a.lerp_(b, 1 - keep)
                for kept, now in zip(average.buffers(), model.buffers(), strict=True):
                    kept.copy_(now)
            progress.step += 1
            taken = time.perf_counter() - began
            progress.seconds += taken
            since_save, since_check = since_save + taken, since_check + taken
            for key, value in {"loss": float(loss.detach()), "gradient": norm, **figures}.items():
                sums[key] = sums.get(key, 0.0) + value / schedule.log_every
            if progress.step % schedule.log_every == 0:
                _log(run_dir, task.name, progress, {**sums, "step_seconds": taken})
                sums = {}
            if since_check > schedule.validate_seconds:
                _log(run_dir, task.name, progress, {f"val_{k}": v for k, v in task.validate(average).items()})
                since_check = 0.0
            if since_save > schedule.checkpoint_seconds:
                store()
                since_save = 0.0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    store()
    _log(run_dir, task.name, progress, {f"val_{k}": v for k, v in task.validate(average).items()})
    _save(
        run_dir / "model.pt",
        {"average": average.state_dict(), "step": progress.step, "seconds": progress.seconds},
    )
    return average


def _log(run_dir: Path, name: str, progress: Progress, figures: dict[str, float]) -> None:
    row = {
        "step": progress.step,
        "seconds": round(progress.seconds, 1),
        **{k: round(v, 5) for k, v in figures.items()},
    }
    if any(k.startswith("val_") for k in figures):
        progress.history.append(row)
    with (run_dir / "curve.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    print(f"{name}: " + "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
