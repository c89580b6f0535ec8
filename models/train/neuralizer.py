"""Training task of Neuralizer: every step draws tasks, and examples of them, from synthetic heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hyperprep.exceptions import UsageError
from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.nets.neuralizer import Neuralizer
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.episodes import (
    TASK_WEIGHTS,
    Episode,
    EpisodeSpec,
    draw_episode,
)
from hyperprep.models.synth.make_episodes import Batch, Heads, make_batch
from hyperprep.models.synth.maps import ORIGIN_MM, LabelMaps, structure_ranges
from hyperprep.models.synth.paint import brain_pools
from hyperprep.models.synth.structures import MERGED, STRUCTURES, TISSUE_GROUPS, mirrored
from hyperprep.models.synth.task_augment import AugmentSpec
from hyperprep.models.train.begin import begin_from

SIGMA_SQUARED = 0.05
"""Variance that balances the squared error of images with the Dice of masks (section 4.3)."""

VALIDATION_CONTEXT = 4
"""Examples that the validation gives."""


def few_shot_loss(prediction: torch.Tensor, truth: torch.Tensor, is_mask: torch.Tensor) -> torch.Tensor:
    """Give 1 - soft Dice for masks and the mean of MSE / (2 sigma^2) for images (section 3.2).

    The prediction is the value itself, not a logit: both losses are smallest where it equals the truth. The
    paper's equation sums over pixels; here their mean is taken, so that both terms are of one magnitude, as
    the paper says they are.

    Parameters
    ----------
    prediction, truth
        (B, 1, H, W).
    is_mask
        (B,) bool.

    Returns
    -------
    torch.Tensor
        (B,).

    Examples
    --------
    >>> truth = torch.ones(2, 1, 4, 5)
    >>> loss = few_shot_loss(truth - 0.1, truth, torch.tensor([False, True]))
    >>> [round(float(one), 3) for one in loss]
    [0.1, 0.005]
    """
    error = (prediction - truth).square().flatten(1).mean(1) / (2 * SIGMA_SQUARED)
    overlap = 1 - soft_dice(prediction, truth)[:, 0]
    return torch.where(is_mask, overlap, error)


def psnr(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Give the peak signal-to-noise ratio of images (B, 1, H, W) in [0, 1], dB.

    >>> psnr(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.1)).round(decimals=2).tolist()
    [20.0]
    """
    error = (prediction.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))


def hard_dice(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Give the Dice of predictions cut at one half, (B, 1, H, W) -> (B,); NaN where both are empty.

    >>> round(float(hard_dice(torch.tensor([[[[0.6, 0.6]]]]), torch.tensor([[[[1.0, 0.0]]]]))), 3)
    0.667
    """
    a, b = (prediction > 0.5).flatten(1).float(), (truth > 0.5).flatten(1).float()
    return 2 * (a * b).sum(1) / (a.sum(1) + b.sum(1))


@dataclass
class NeuralizerTask:
    """Few-shot learning over all tasks of :data:`~hyperprep.models.synth.episodes.TASK_WEIGHTS`.

    Attributes
    ----------
    maps
        Label maps in the template frame; the last ``held_out`` of them only validate.
    lattice
        Field of view; its spacing is the pixel size of the slices.
    spec
        Ranges of the synthetic images; what is left of the affine alignment is in them.
    channels
        Width of the network.
    start
        Begin from the answer in closed form; ``maps`` are then best normalised
        (:mod:`hyperprep.models.train.normalise`), as examples are deformed onto the subject.
    begin_from
        Name of weights of the same network to begin from; none when empty.
    batch_size, most_context
        Targets per step, and the largest number of examples of each.
    held_out_structures
        FreeSurfer numbers that no training mask holds; both sides are left out.
    held_out_contrast
        A contrast of the clinic that no training image has (random contrasts may come close).
    tasks
        Tasks to train; all when empty.
    augment
        Task augmentations, or none.
    save_memory
        Compute the context's activations again in the backward pass.
    half_precision
        Run the network in bfloat16 on a GPU.
    """

    maps: LabelMaps
    lattice: Lattice
    spec: SynthSpec
    name: str = "neuralizer"
    channels: int = 64
    levels: int = 4
    start: bool = False
    begin_from: str = ""
    batch_size: int = 8
    most_context: int = 32
    held_out: int = 2
    held_out_structures: tuple[int, ...] = ()
    held_out_contrast: str = ""
    tasks: tuple[str, ...] = ()
    augment: bool = True
    save_memory: bool = False
    half_precision: bool = True
    device: str = "cpu"

    heads: Heads = field(init=False, repr=False)
    _ranges: dict[int, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tasks) - set(TASK_WEIGHTS))
        if unknown:
            raise UsageError(f"[model] tasks: unknown {unknown}; known: {sorted(TASK_WEIGHTS)}.")
        sides = [self.lattice.shape[axis] % 2 ** (self.levels - 1) for axis in range(3)]
        if any(sides):
            raise UsageError(
                f"[lattice] shape {list(self.lattice.shape)}: each side must be divisible by "
                f"{2 ** (self.levels - 1)}."
            )
        groups = self.maps.groups().to(self.device)
        self.heads = Heads(self.maps, groups, brain_pools(self.maps, groups))
        present = {MERGED.get(n, n) for n in self.maps.numbers}
        known = tuple(n for n in STRUCTURES if n in present)
        table = self.maps.lookup(known).to(self.device)
        self._ranges = structure_ranges(table[self.maps.maps[0].long()].cpu().numpy(), known, ORIGIN_MM)
        self._ranges |= structure_ranges(self.maps.brain[0].cpu().numpy(), (0,), ORIGIN_MM)

    @property
    def _unseen(self) -> set[int]:
        return {m for n in self.held_out_structures for m in (n, mirrored(n))}

    def _episode_spec(self) -> EpisodeSpec:
        """Give what training draws from, without what is held out."""
        weights = {t: w for t, w in TASK_WEIGHTS.items() if not self.tasks or t in self.tasks}
        left = tuple(c for c in self.spec.contrasts if c != self.held_out_contrast)
        if not left:
            raise UsageError(
                f"No contrast is left without {self.held_out_contrast!r}: name others in [images] contrasts."
            )
        return EpisodeSpec(
            structures=tuple(n for n in self._ranges if n and n not in self._unseen),
            weights=weights,
            images=replace(self.spec, contrasts=left),
            augment=AugmentSpec() if self.augment else None,
        )

    def build(self) -> nn.Module:
        """Make the network, with fresh weights or those to begin from."""
        network = Neuralizer(self.channels, self.levels, start=self.start)
        begin_from(network, self.begin_from)
        network.save_memory = self.save_memory
        return network

    def _draw(
        self, rng: np.random.Generator, spec: EpisodeSpec, maps: Sequence[int], **fixed: Any
    ) -> Episode:
        return draw_episode(
            rng,
            spec,
            self.lattice,
            n_maps=maps,
            n_groups=max(int(self.heads.groups.max()), len(TISSUE_GROUPS)) + 1,
            ranges=self._ranges,
            pairs={n: mirrored(n) for n in STRUCTURES},
            **fixed,
        )

    @property
    def training_maps(self) -> range:
        """Numbers of the label maps that train."""
        return range(len(self.maps.maps) - self.held_out)

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw one step: orientation and number of examples are shared, tasks and heads are not."""
        axis, context = int(rng.integers(3)), int(rng.integers(1, self.most_context + 1))
        spec = self._episode_spec()
        episodes = [
            self._draw(rng, spec, self.training_maps, axis=axis, context=context)
            for _ in range(self.batch_size)
        ]
        return make_batch(self.heads, episodes, self.lattice, subsamples=self.spec.subsamples)

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the mean loss of the step's episodes."""
        assert isinstance(batch, Batch)
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.half_precision and kind == "cuda"):
            prediction = model(batch.target, batch.context)
        each = few_shot_loss(prediction.float(), batch.truth, batch.is_mask)
        figures = {}
        for name, chosen in (("masks", batch.is_mask), ("images", ~batch.is_mask)):
            if chosen.any():
                figures[f"loss_{name}"] = float(each[chosen].mean().detach())
        return each.mean(), figures

    def validation_batch(
        self,
        seed: int,
        task: str,
        *,
        context: int = VALIDATION_CONTEXT,
        numbers: tuple[int, ...] | None = None,
        contrasts: tuple[str, ...] = (),
    ) -> Batch:
        """Make one episode on a held-out head, without task augmentations.

        Parameters
        ----------
        seed
            Number of the episode.
        task
            Name of the task.
        context
            Number of examples; they are made of training heads.
        numbers
            Structures of the mask.
        contrasts
            Contrasts of all images; those of training when not given.
        """
        rng = np.random.default_rng([777, seed])
        spec = replace(self._episode_spec(), augment=None, turn_deg=0.0, log_scale=0.0, shift_mm=0.0)
        if contrasts:
            spec = replace(spec, images=replace(spec.images, contrasts=contrasts, random_contrast=0.0))
        target = len(self.maps.maps) - 1 - seed % max(1, self.held_out)
        episode = self._draw(
            rng, spec, self.training_maps, axis=seed % 3, context=context, task=task, numbers=numbers
        )
        first, *examples = episode.anatomies
        episode = replace(episode, anatomies=(replace(first, index=target), *examples))
        return make_batch(self.heads, [episode], self.lattice, subsamples=self.spec.subsamples)

    @torch.no_grad()
    def validate(self, model: nn.Module, *, episodes: int = 6) -> dict[str, float]:
        """Give Dice (masks) or PSNR in dB (images) of every task with four examples.

        ``dice_unseen`` is the segmentation of held-out structures, ``psnr_unseen`` the denoising of the
        held-out contrast; both are there only when something is held out.
        """
        out: dict[str, float] = {}
        chosen = [t for t in TASK_WEIGHTS if not self.tasks or t in self.tasks]
        for task in chosen:
            out.update(self._measured(model, task, task, episodes))
        unseen = sorted(n for n in self._unseen if n in self._ranges)
        if unseen:
            out.update(self._measured(model, "unseen", "segmentation", episodes, numbers=unseen))
        if self.held_out_contrast:
            out.update(
                self._measured(model, "unseen", "denoise_bias", episodes, contrasts=(self.held_out_contrast,))
            )
        return out

    def _measured(
        self,
        model: nn.Module,
        label: str,
        task: str,
        episodes: int,
        *,
        numbers: Sequence[int] = (),
        contrasts: tuple[str, ...] = (),
    ) -> dict[str, float]:
        scores: list[float] = []
        kind = "psnr"
        for seed in range(episodes):
            one = (numbers[seed % len(numbers)],) if numbers else None
            batch = self.validation_batch(seed, task, numbers=one, contrasts=contrasts)
            kind = "dice" if bool(batch.is_mask[0]) else "psnr"
            measure = hard_dice if kind == "dice" else psnr
            scores.append(float(measure(model(batch.target, batch.context).float(), batch.truth)))
        found = [s for s in scores if np.isfinite(s)]
        return {f"{kind}_{label}": float(np.mean(found))} if found else {}
