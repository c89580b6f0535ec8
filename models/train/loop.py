"""The one training loop: seeded, resumable, limited in time, with logged curves."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from hyperprep.exceptions import UsageError
from hyperprep.models.train.processes import Processes, together
from hyperprep.models.train.schedule import Progress, Schedule, learning_rate_at, parameter_groups


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


def first_reason(error: Exception) -> str:
    r"""Give the line of an error of torch that says what is wrong; its first only says where.

    >>> first_reason(RuntimeError("Error(s) in loading state_dict for Linear:\n\tMissing key(s): a."))
    'Missing key(s): a.'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 else lines[0] if lines else type(error).__name__


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
        Receives ``checkpoint.pt``, ``curve.jsonl`` and, at the end, the averaged network in ``model.pt``. All
        processes must see it.
    device
        Where the network is; the task brings its batches there.

    Returns
    -------
    torch.nn.Module
        The network with exponentially averaged weights.

    Raises
    ------
    UsageError
        If the batches of a step cannot be shared out evenly among the processes, or the checkpoint is damaged
        or another network's.

    Notes
    -----
    Every batch comes from a generator seeded by (seed, step, number of the batch): a resumed run sees the
    data that an uninterrupted one would, and several processes together see what one process with as many
    batches per step sees. SIGTERM and SIGINT write a checkpoint before they end the run.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with together(device) as processes:
        return _Run(task, schedule, run_dir, torch.device(device), processes).train()


class _Run:
    """One training run in one of its processes."""

    def __init__(
        self, task: Task, schedule: Schedule, run_dir: Path, device: torch.device, processes: Processes
    ) -> None:
        self.task, self.schedule, self.run_dir = task, schedule, run_dir
        self.device, self.processes = device, processes
        self.batches = processes.share(schedule.batches_per_step)
        torch.manual_seed(schedule.seed)
        self.model = task.build().to(device)
        if device.type == "cpu":
            volumes = any(p.ndim == 5 for p in self.model.parameters())
            layout = torch.channels_last_3d if volumes else torch.channels_last
            self.model = self.model.to(memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = torch.optim.Adam(parameter_groups(self.model, schedule), lr=schedule.learning_rate)
        self.progress = Progress()
        self.stop: list[int] = []
        checkpoint = run_dir / "checkpoint.pt"
        if checkpoint.exists():
            self._resume(checkpoint)
        processes.leaders(0.0, device)  # nobody writes before all have read

    def train(self) -> nn.Module:
        """Take the steps that are left."""
        previous = {
            s: signal.signal(s, lambda number, _: self.stop.append(number))
            for s in (signal.SIGTERM, signal.SIGINT)
        }
        schedule, progress = self.schedule, self.progress
        since_save = since_check = 0.0
        sums: dict[str, float] = {}
        try:
            while self._goes_on():
                began = time.perf_counter()
                figures = self._step()
                progress.step += 1
                taken = time.perf_counter() - began
                progress.seconds += taken
                since_save, since_check = since_save + taken, since_check + taken
                for key, value in figures.items():
                    sums[key] = sums.get(key, 0.0) + value / schedule.log_every
                if progress.step % schedule.log_every == 0:
                    self._log({**sums, "step_seconds": taken})
                    sums = {}
                if since_check > schedule.validate_seconds:
                    self._validate()
                    since_check = 0.0
                if since_save > schedule.checkpoint_seconds:
                    self._store()
                    since_save = 0.0
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self._store()
        self._validate()
        if self.processes.leads:
            _save(
                self.run_dir / "model.pt",
                {"average": self.average.state_dict(), "step": progress.step, "seconds": progress.seconds},
            )
        return self.average

    def _goes_on(self) -> bool:
        """Decide on the next step; the first process' clock counts, and any process can be told to stop."""
        if self.processes.count > 1:
            self.progress.seconds = self.processes.leaders(self.progress.seconds, self.device)
            told = self.processes.sum_figures({"stop": float(len(self.stop))}, self.device)["stop"]
            self.stop += [0] if told and not self.stop else []
        within = self.progress.step < self.schedule.steps
        return within and self.progress.seconds < self.schedule.max_seconds and not self.stop

    def _step(self) -> dict[str, float]:
        """Descend along the mean gradient of all batches of a step; returns the mean figures."""
        share = 1 / (len(self.batches) * self.processes.count)
        for group in self.optimiser.param_groups:
            group["lr"] = group["factor"] * learning_rate_at(self.schedule, self.progress)
        self.optimiser.zero_grad(set_to_none=True)
        means: dict[str, float] = {}
        before = [one.clone() for one in self.model.buffers()] if self.processes.count > 1 else []
        for number in self.batches:
            place = [self.schedule.seed, self.progress.step, *([number] if number else [])]
            rng = np.random.default_rng(place)
            torch.manual_seed(int(rng.integers(2**31)))
            loss, figures = self.task.loss(self.model, self.task.batch(rng))
            (loss if share == 1 else loss * share).backward()
            for key, value in {"loss": float(loss.detach()), **figures}.items():
                means[key] = means.get(key, 0.0) + value * share
        if self.processes.count > 1:
            self._share_gradients()
            self.processes.average_moved(self.model, before)
            means = self.processes.sum_figures(means, self.device)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip))
        if math.isfinite(norm):
            self.optimiser.step()
        keep = min(self.schedule.average, (self.progress.step + 1) / (self.progress.step + 10))
        with torch.no_grad():
            for a, b in zip(self.average.parameters(), self.model.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
            for kept, now in zip(self.average.buffers(), self.model.buffers(), strict=True):
                kept.copy_(now)
        return {**means, "gradient": norm}

    def _share_gradients(self) -> None:
        """Sum the gradients over the processes; a weight that one of them did not use is zero there."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in weights], dtype=torch.float32, device=self.device)
        self.processes.sum_([used])
        shared = [p for p, count in zip(weights, used.tolist(), strict=True) if count]
        for p in shared:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.processes.sum_(p.grad for p in shared if p.grad is not None)

    def _resume(self, checkpoint: Path) -> None:
        try:
            stored = torch.load(checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(stored["model"])
            self.average.load_state_dict(stored["average"])
            self.optimiser.load_state_dict(stored["optimiser"])
            self.progress = Progress(stored["step"], stored["seconds"], stored["history"])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise UsageError(
                f"{checkpoint} cannot be gone on from ({first_reason(error)}): it is damaged, or of a run "
                "with another configuration. Move it away to begin again, or name another run folder."
            ) from error
        if self.processes.leads:
            done = f"step {self.progress.step} after {self.progress.seconds:.0f} s"
            print(f"{self.task.name}: resumed at {done}", flush=True)

    def _store(self) -> None:
        if not self.processes.leads:
            return
        _save(
            self.run_dir / "checkpoint.pt",
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.progress.step,
                "seconds": self.progress.seconds,
                "history": self.progress.history,
            },
        )

    def _validate(self) -> None:
        """Measure the averaged network in the first process, while the others wait for the next step."""
        if self.processes.leads:
            self._log({f"val_{k}": v for k, v in self.task.validate(self.average).items()})

    def _log(self, figures: dict[str, float]) -> None:
        if self.processes.leads:
            _log(self.run_dir, self.task.name, self.progress, figures)


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
