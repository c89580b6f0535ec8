"""Train own regions on prepared examples, and write the weights that serve them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyperprep.exceptions import HyperPrepError
from hyperprep.models.nets.region_head import RegionHead
from hyperprep.models.spatial.labels import legend
from hyperprep.models.spatial.own_regions import number_regions
from hyperprep.models.train.loop import train
from hyperprep.models.train.regions import RegionTask
from hyperprep.models.train.schedule import Schedule
from hyperprep.models.train.store import last_validation, store
from hyperprep.models.weights.own_regions import NETWORK


class Interrupted(HyperPrepError):
    """A signal ended the training."""

    exit_code = 130


@dataclass(frozen=True)
class RegionTraining:
    """How own regions are trained.

    Attributes
    ----------
    steps
        Most steps.
    max_minutes
        Most minutes.
    learning_rate
        At its highest.
    seed
        Seed of everything random.
    """

    steps: int = 1500
    max_minutes: float = 20.0
    learning_rate: float = 3e-3
    seed: int = 0

    def schedule(self) -> Schedule:
        """Make the schedule of the training loop."""
        return Schedule(
            steps=self.steps,
            max_seconds=60 * self.max_minutes,
            learning_rate=self.learning_rate,
            conditioner_rate=0.3,
            warmup_steps=20,
            average=0.99,
            validate_seconds=float("inf"),
            log_every=100,
            seed=self.seed,
        )


def train_regions(
    task: RegionTask,
    run_dir: str | Path,
    out: str | Path,
    *,
    training: RegionTraining | None = None,
    command: str = "",
    data: str = "",
) -> Path:
    """Train, or go on training, and write the weights ``regions``.

    Parameters
    ----------
    task
        The regions and their examples.
    run_dir
        Checkpoint and curve.
    out
        Folder of the weights; entries of other networks in its manifest stay.
    training
        Steps, minutes, rate, seed.
    command, data
        How the weights were made and of what: written into the manifest.

    Returns
    -------
    pathlib.Path
        The ``.safetensors`` file.

    Raises
    ------
    Interrupted
        When a signal ended the training; nothing is written then.
    OutputError
        When the folder cannot be written.
    """
    training = training or RegionTraining()
    run_dir = Path(run_dir)
    schedule = training.schedule()
    model = train(task, schedule, run_dir, device=task.device)
    assert isinstance(model, RegionHead)
    stored = torch.load(run_dir / "model.pt", map_location="cpu", weights_only=True)
    if stored["step"] < schedule.steps and stored["seconds"] < schedule.max_seconds:
        raise Interrupted(
            f"Training was stopped at step {stored['step']} of {schedule.steps}; no weights were written. "
            f"The same command goes on from {run_dir / 'checkpoint.pt'} while that is kept (--work-dir)."
        )
    entry: dict[str, Any] = {
        "capability": "Regions of one's own, taught by masks, on the features of the network 'segment'",
        "grid": task.content["grid"],
        "intensity": task.content["intensity"],
        "network": {
            "kind": NETWORK,
            "boxes": [[list(side) for side in box] for box in task.boxes],
            "features": task.content["features"],
            "ratios": task.content["ratios"],
            "channels": list(task.channels),
        },
        "regions": legend(number_regions(task.regions)),
        "annotated": task.annotated,
        "base_sha256": task.content["base_sha256"],
        "command": command,
        "seed": training.seed,
        "steps": stored["step"],
        "training_seconds": round(stored["seconds"]),
        "data": data,
        "data_licence": "that of the scans and masks",
        "licence": "as their owner decides",
        "scores": last_validation(run_dir),
    }
    return store(NETWORK, {k: v.cpu() for k, v in model.state_dict().items()}, entry, Path(out))
