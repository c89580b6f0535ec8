"""Make the tensors of drawn episodes, all of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hyperprep.models.nets.neuralizer import INPUT_CHANNELS
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.degrade import apply_low_resolution, apply_noise_bias, hole_masks
from hyperprep.models.synth.draw import Contrast
from hyperprep.models.synth.episodes import Episode
from hyperprep.models.synth.kspace import apply_motion, apply_undersampling
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.synth.paint import paint_slices
from hyperprep.models.synth.slices import SliceSampling, sample_slices
from hyperprep.models.synth.structures import MERGED
from hyperprep.models.synth.task_augment import arrange_channels, change_images, change_mask

APPLIERS = {
    "super_resolution": apply_low_resolution,
    "motion": apply_motion,
    "denoise_bias": apply_noise_bias,
    "undersampling": apply_undersampling,
}


@dataclass(frozen=True)
class Heads:
    """Label maps with the tables that making episodes needs, all on one device.

    Attributes
    ----------
    maps
        Label maps in the template frame.
    groups
        (n labels,) intensity group of each label index.
    pools
        (n maps, P) intensity groups of voxels of each brain.
    """

    maps: LabelMaps
    groups: torch.Tensor
    pools: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Episodes as tensors.

    Attributes
    ----------
    target
        (B, 3, H, W) in [0, 1].
    context
        (B, N, 4, H, W): input channels and output of each example.
    truth
        (B, 1, H, W).
    is_mask
        (B,) bool.
    tasks
        Name of each task.
    """

    target: torch.Tensor
    context: torch.Tensor
    truth: torch.Tensor
    is_mask: torch.Tensor
    tasks: tuple[str, ...]


def _part(sampling: SliceSampling, rows: slice) -> SliceSampling:
    return SliceSampling(sampling.indices[:, rows], sampling.brain[rows], sampling.places[rows])


def members_mask(maps: LabelMaps, numbers: Sequence[int], indices: torch.Tensor) -> torch.Tensor:
    """Mark the structures in label indices (K, H, W), as float 0/1.

    >>> maps = LabelMaps(torch.empty(0), torch.empty(0), (0, 4, 5, 17))
    >>> members_mask(maps, (4,), torch.tensor([[[0, 1, 2, 3]]])).tolist()
    [[[0.0, 1.0, 1.0, 0.0]]]
    """
    table = torch.tensor([float(MERGED.get(n, n) in numbers) for n in maps.numbers], device=indices.device)
    return table[indices.long()]


def make_batch(heads: Heads, episodes: Sequence[Episode], lattice: Lattice, *, subsamples: int = 2) -> Batch:
    """Make the tensors of episodes that share orientation and number of examples.

    Parameters
    ----------
    heads
        Label maps and tables.
    episodes
        Drawn parameters.
    lattice
        Field of view and pixel size.
    subsamples
        Points per pixel.

    Returns
    -------
    Batch
        On the device of the label maps.
    """
    members = len(episodes[0].anatomies)
    anatomies = [a for e in episodes for a in e.anatomies]
    planes = [e.plane for e in episodes for _ in e.anatomies]
    axis, device = planes[0].axis, heads.maps.maps.device
    looks = [row for e in episodes for row in e.contrasts]
    sampling = sample_slices(
        heads.maps,
        anatomies,
        planes,
        lattice,
        subsamples=subsamples,
        thickness_mm=[_across(row[0], axis, lattice.spacing) for row in looks],
        seed=episodes[0].seed,
    )
    pools = heads.pools[[a.index for a in anatomies]]
    inputs, outputs = [], []
    for place, episode in enumerate(episodes):
        rows = slice(place * members, (place + 1) * members)
        part = _part(sampling, rows)

        def paint(
            contrasts: Sequence[Contrast], part: SliceSampling = part, rows: slice = rows
        ) -> torch.Tensor:
            return paint_slices(
                part, heads.groups, pools[rows], contrasts, spacing=lattice.spacing, axis=axis
            )

        channels = len(episode.contrasts[0])
        images = torch.stack([paint([row[c] for row in episode.contrasts]) for c in range(channels)], dim=1)
        wanted = paint(episode.wanted) if episode.wanted else images[:, 0]
        made = _task(heads, episode, part, images, wanted)
        inputs.append(made[0])
        outputs.append(made[1])
    x, y = torch.stack(inputs), torch.stack(outputs)[:, :, None]
    return Batch(
        target=x[:, 0],
        context=torch.cat([x[:, 1:], y[:, 1:]], dim=2),
        truth=y[:, 0],
        is_mask=torch.tensor([e.is_mask for e in episodes], device=device),
        tasks=tuple(e.task for e in episodes),
    )


def _across(contrast: Contrast, axis: int, spacing: float) -> float:
    return contrast.slices[1] if contrast.slices is not None and contrast.slices[0] == axis else spacing


def _task(
    heads: Heads, episode: Episode, part: SliceSampling, images: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the inputs (K, 3, H, W) and outputs (K, H, W) of one episode's members.

    ``images`` (K, M, H, W) are what the scanner saw, ``wanted`` (K, H, W) the image that is asked for.
    """
    drawn = episode.augmentation
    given = change_images(images, drawn)
    if episode.task == "segmentation":
        output = change_mask(members_mask(heads.maps, episode.numbers, part.indices[0]), drawn)
    elif episode.task == "skull_strip":
        output = change_mask(part.brain, drawn)
    elif episode.task == "masking":
        output = given[:, 0] * members_mask(heads.maps, episode.numbers, part.indices[0])
    else:
        output = change_images(wanted, drawn)
    if episode.task == "inpainting":
        holes = hole_masks(
            [row[0] for row in episode.artefacts], (images.shape[2], images.shape[3]), images.device
        )
        holes = change_mask(holes, drawn)
        given = torch.cat([given * (1 - holes[:, None]), holes[:, None]], dim=1)
    elif episode.task in APPLIERS:
        apply = APPLIERS[episode.task]
        channels = [
            apply(given[:, c], [row[c] for row in episode.artefacts])  # type: ignore[operator]
            for c in range(given.shape[1])
        ]
        given = torch.stack(channels, dim=1)
    assert given.shape[1] <= INPUT_CHANNELS
    return arrange_channels(given, drawn), output
