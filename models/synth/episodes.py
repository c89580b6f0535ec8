"""Episodes: one target and its examples of one task, drawn as parameters and made as tensors (appendix G)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.degrade import draw_holes, draw_low_resolution, draw_noise_bias
from hyperprep.models.synth.draw import Anatomy, Contrast, SynthSpec, draw_anatomy, draw_contrast
from hyperprep.models.synth.kspace import draw_motion, draw_undersampling
from hyperprep.models.synth.slices import Plane
from hyperprep.models.synth.task_augment import (
    MASK_OUTPUT,
    TRANSFERS,
    Augmentation,
    AugmentSpec,
    draw_augmentation,
)

TASK_WEIGHTS: dict[str, float] = {
    "segmentation": 2.0,
    "modality_transfer": 2.0,
    "super_resolution": 1.0,
    "skull_strip": 0.5,
    "motion": 0.5,
    "denoise_bias": 0.5,
    "undersampling": 1.0,
    "inpainting": 1.0,
    "simulated_transfer": 1.0,
    "masking": 0.5,
}
"""How often each task is drawn (appendix I, table 7)."""

SIMULATORS: dict[str, Callable[[np.random.Generator], Any]] = {
    "super_resolution": draw_low_resolution,
    "motion": draw_motion,
    "denoise_bias": draw_noise_bias,
    "undersampling": draw_undersampling,
    "inpainting": draw_holes,
}
"""What each restoration task draws for each image."""

WITH_STRUCTURES = frozenset({"segmentation", "masking"})
PAIRS_CHANCE = 0.5
"""How often a structure is taken on both sides."""


@dataclass(frozen=True)
class EpisodeSpec:
    """What episodes are drawn from.

    Attributes
    ----------
    structures
        FreeSurfer numbers of which masks are made; those held out are not among them.
    weights
        Chance of each task, relative.
    most_structures
        Largest number of structures joined into one mask.
    images
        Ranges of the synthetic heads; ``contrasts`` without those held out.
    augment
        Chances of the task augmentations; None for none.
    turn_deg, log_scale, shift_mm
        Half-widths of the movement of the view that target and examples share.
    """

    structures: tuple[int, ...]
    weights: Mapping[str, float] = field(default_factory=lambda: dict(TASK_WEIGHTS))
    most_structures: int = 4
    images: SynthSpec = field(default_factory=SynthSpec)
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    turn_deg: float = 15.0
    log_scale: float = 0.15
    shift_mm: float = 10.0


@dataclass(frozen=True)
class Episode:
    """Parameters of one episode; member 0 is the target, the others are its examples.

    Attributes
    ----------
    task
        Name of the task.
    plane
        The slice that all members show.
    anatomies
        Head of each member.
    contrasts
        Look of each input image, by member and channel.
    wanted
        Look of the output by member, where it is another modality.
    artefacts
        What the simulator drew, by member and channel; empty for tasks without one.
    numbers
        FreeSurfer numbers joined into the mask of segmentation and masking.
    augmentation
        Task augmentations.
    seed
        Seed of the pixels' noise.
    """

    task: str
    plane: Plane
    anatomies: tuple[Anatomy, ...]
    contrasts: tuple[tuple[Contrast, ...], ...]
    wanted: tuple[Contrast, ...]
    artefacts: tuple[tuple[Any, ...], ...]
    numbers: tuple[int, ...]
    augmentation: Augmentation
    seed: int

    @property
    def is_mask(self) -> bool:
        """Whether the output is a mask."""
        return self.task in MASK_OUTPUT


def draw_numbers(
    rng: np.random.Generator, structures: Sequence[int], most: int, pairs: Mapping[int, int]
) -> tuple[int, ...]:
    """Draw structures to be joined; ``pairs`` gives each number that of the other side.

    >>> draw_numbers(np.random.default_rng(2), (17, 53), 1, {17: 53, 53: 17}) in {(17,), (53,), (17, 53)}
    True
    """
    count = int(rng.integers(1, min(most, len(structures)) + 1))
    chosen = {int(n) for n in rng.choice(structures, count, replace=False)}
    if rng.random() < PAIRS_CHANCE:
        chosen |= {pairs[n] for n in chosen if pairs.get(n) in structures}
    return tuple(sorted(chosen))


def draw_plane(
    rng: np.random.Generator,
    spec: EpisodeSpec,
    axis: int,
    lattice: Lattice,
    within: tuple[float, float] | None = None,
    *,
    flip: float = 0.0,
) -> Plane:
    """Draw a slice; ``within`` bounds its position (mm), else it lies in the middle 70 % of the lattice.

    Examples
    --------
    >>> lattice = Lattice((96, 112, 96), 2.0, (-96.0, -132.0, -78.0))
    >>> plane = draw_plane(np.random.default_rng(0), EpisodeSpec((17,)), 1, lattice, (-30.0, -10.0))
    >>> -30 <= plane.position_mm <= -10
    True
    """
    length = lattice.spacing * lattice.shape[axis]
    low, high = within or (lattice.origin[axis] + 0.15 * length, lattice.origin[axis] + 0.85 * length)
    shift = rng.uniform(-spec.shift_mm, spec.shift_mm, 2)
    return Plane(
        axis=axis,
        position_mm=float(rng.uniform(low, high)),
        turn_deg=float(rng.uniform(-spec.turn_deg, spec.turn_deg)),
        log_scale=float(rng.uniform(-spec.log_scale, spec.log_scale)),
        shift_mm=(float(shift[0]), float(shift[1])),
        flipped=bool(rng.random() < flip),
    )


def _same_look(rng: np.random.Generator, first: Contrast, spec: SynthSpec, n_groups: int) -> Contrast:
    """Give another scan of the same protocol: intensities nearly the same, noise and bias new."""
    fresh = draw_contrast(rng, spec, n_groups)
    jitter = rng.normal(1, 0.03, n_groups).astype(np.float32)
    return replace(
        first, means=first.means * jitter, log_bias=fresh.log_bias, noise=first.noise, seed=fresh.seed
    )


def _looks(
    rng: np.random.Generator, spec: SynthSpec, n_groups: int, members: int, channels: int, free: bool
) -> list[list[Contrast]]:
    """Draw the look of each member's images.

    ``free`` tasks let examples differ from the target: all alike, mixed, and none like the target each have a
    third of the draws (appendix G).
    """
    first = [draw_contrast(rng, spec, n_groups) for _ in range(channels)]
    first = [replace(c, skull=first[0].skull, rim_mm=first[0].rim_mm) for c in first]
    kind = int(rng.integers(3)) if free else 0
    rows = [first]
    for _ in range(members - 1):
        alike = kind == 0 or (kind == 1 and rng.random() < 0.5)
        if alike:
            rows.append([_same_look(rng, c, spec, n_groups) for c in first])
        else:
            own = [draw_contrast(rng, spec, n_groups) for _ in range(channels)]
            rows.append([replace(c, skull=own[0].skull, rim_mm=own[0].rim_mm) for c in own])
    return rows


def draw_episode(
    rng: np.random.Generator,
    spec: EpisodeSpec,
    lattice: Lattice,
    *,
    n_maps: Sequence[int],
    n_groups: int,
    ranges: Mapping[int, np.ndarray],
    pairs: Mapping[int, int],
    axis: int,
    context: int,
    task: str | None = None,
    numbers: tuple[int, ...] | None = None,
) -> Episode:
    """Draw everything random of one episode.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    spec
        What is drawn from.
    lattice
        Field of view and pixel size.
    n_maps
        Numbers of the label maps to choose from; the target's head is no example's where there are two.
    n_groups
        Number of intensity groups.
    ranges
        FreeSurfer number to (3, 2) mm: where in the template each structure lies; 0 is the whole brain.
    pairs
        FreeSurfer number to that of the other side.
    axis, context
        Orientation of the slice and number of examples.
    task, numbers
        Task and structures; drawn when not given.
    """
    names = list(spec.weights)
    if task is None:
        chances = np.array([spec.weights[name] for name in names])
        task = names[int(rng.choice(len(names), p=chances / chances.sum()))]
    if task in WITH_STRUCTURES:
        numbers = numbers or draw_numbers(rng, spec.structures, spec.most_structures, pairs)
    else:
        numbers = ()
    within = None if 0 not in ranges else (float(ranges[0][axis][0]), float(ranges[0][axis][1]))
    if numbers:
        extents = [ranges[n][axis] for n in numbers if n in ranges]
        if extents:
            chosen = extents[int(rng.integers(len(extents)))]
            within = (float(chosen[0]), float(chosen[1]))
    augment = spec.augment
    flip = 0.0 if augment is None or numbers else augment.flip
    plane = draw_plane(rng, spec, axis, lattice, within, flip=flip)
    channels = int(rng.integers(1, 4))
    if task == "inpainting":
        channels = min(channels, 2)
    used = channels + (task == "inpainting")
    augmentation = (
        Augmentation(channels=(0, 1 if used > 1 else -1, 2 if used > 2 else -1))
        if augment is None
        else draw_augmentation(rng, augment, task, used)
    )
    images = replace(spec.images, random_contrast=1.0) if augmentation.change == "synthetic" else spec.images
    if task == "skull_strip":
        images = replace(images, skull_kept=1.0)
    members = context + 1
    first = int(rng.choice(n_maps))
    others = [i for i in n_maps if i != first] or [first]
    heads = [first, *(int(i) for i in rng.choice(others, context))]
    looks = _looks(rng, images, n_groups, members, channels, task not in TRANSFERS and task != "segmentation")
    wanted: list[Contrast] = []
    if task in TRANSFERS:
        chance = 1.0 if task == "simulated_transfer" else 0.0
        other = replace(draw_contrast(rng, replace(images, random_contrast=chance), n_groups),
                        skull=looks[0][0].skull, rim_mm=looks[0][0].rim_mm)  # fmt: skip
        wanted = [other, *(_same_look(rng, other, images, n_groups) for _ in range(context))]
    draw = SIMULATORS.get(task)
    count = 1 if task == "inpainting" else channels
    return Episode(
        task=task,
        plane=plane,
        anatomies=tuple(draw_anatomy(rng, images, 0, lattice.extent_mm, index=i) for i in heads),
        contrasts=tuple(tuple(row) for row in looks),
        wanted=tuple(wanted),
        artefacts=tuple(tuple(draw(rng) for _ in range(count)) for _ in heads) if draw else (),
        numbers=numbers,
        augmentation=augmentation,
        seed=int(rng.integers(2**31)),
    )
