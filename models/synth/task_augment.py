"""Task augmentations: the same change to input, output and examples makes another task (appendix C).

The groups are composed as figure 10 says: mask, intensity, channel, space, one after the other; of the
intensity changes one is chosen. The figure's chances are not in the text that we have: those in
:class:`AugmentSpec` are ours. The spatial group (affine, elastic, flip) acts on the points at which heads are
looked up (:class:`~hyperprep.models.synth.slices.Plane`), so nothing is interpolated twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

Change = Literal["none", "mapping", "sobel", "synthetic"]

MASK_OUTPUT = frozenset({"segmentation", "skull_strip"})
"""Tasks whose output is a mask."""
TRANSFERS = frozenset({"modality_transfer", "simulated_transfer"})


@dataclass(frozen=True)
class AugmentSpec:
    """Chances of each node of the tree."""

    contour: float = 0.1
    dilate: float = 0.15
    invert: float = 0.1
    intensity: float = 0.5
    permute: float = 0.5
    duplicate: float = 0.3
    flip: float = 0.5


@dataclass(frozen=True)
class Augmentation:
    """One draw from the tree, shared by the target and all examples.

    Attributes
    ----------
    contour, dilate, invert
        Changes of a mask, applied in this order.
    change
        Change of the images.
    mapping
        (bins,) differences of intensity at evenly spaced intensities.
    channels
        For each of the three input channels, the channel that it is taken from; -1 stays empty.
    """

    contour: bool = False
    dilate: bool = False
    invert: bool = False
    change: Change = "none"
    mapping: np.ndarray | None = None
    channels: tuple[int, int, int] = (0, 1, 2)


def draw_augmentation(rng: np.random.Generator, spec: AugmentSpec, task: str, used: int) -> Augmentation:
    """Draw the changes of one task.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    spec
        Chances.
    task
        Name of the task. Inpainting keeps its masks as they are but may invert them; modality transfer is
        neither filtered nor replaced (appendix C.2).
    used
        Input channels that hold an image.

    Examples
    --------
    >>> made = draw_augmentation(np.random.default_rng(0), AugmentSpec(duplicate=0.0), "segmentation", 1)
    >>> sorted(made.channels)
    [-1, -1, 0]
    """
    masks = task in MASK_OUTPUT
    change: Change = "none"
    if rng.random() < spec.intensity:
        allowed: tuple[Change, ...] = ("mapping",) if task in TRANSFERS else ("mapping", "sobel", "synthetic")
        change = allowed[int(rng.integers(len(allowed)))]
    order = list(range(used)) + [-1] * (3 - used)
    order = [int(rng.integers(used)) if c < 0 and rng.random() < spec.duplicate else c for c in order]
    if rng.random() < spec.permute:
        order = [order[i] for i in rng.permutation(3)]
    return Augmentation(
        contour=masks and bool(rng.random() < spec.contour),
        dilate=masks and bool(rng.random() < spec.dilate),
        invert=(masks or task == "inpainting") and bool(rng.random() < spec.invert),
        change=change,
        mapping=rng.uniform(-0.35, 0.35, 8).astype(np.float32) if change == "mapping" else None,
        channels=(order[0], order[1], order[2]),
    )


def contour(mask: torch.Tensor) -> torch.Tensor:
    """Give the outline of masks (K, H, W), three pixels wide.

    >>> mask = F.pad(torch.ones(1, 5, 5), [4, 4, 4, 4])
    >>> contour(mask)[0, 6].nonzero().flatten().tolist()
    [3, 4, 5, 7, 8, 9]
    """
    eroded = 1 - F.max_pool2d(1 - mask, 3, stride=1, padding=1)
    return dilate(mask - eroded)


def dilate(mask: torch.Tensor) -> torch.Tensor:
    """Grow masks (K, H, W) by one pixel.

    >>> int(dilate(F.pad(torch.ones(1, 1, 1), [2, 2, 2, 2])).sum())
    9
    """
    return F.max_pool2d(mask, 3, stride=1, padding=1)


def sobel(images: torch.Tensor) -> torch.Tensor:
    """Give the magnitude of the Sobel gradient of images (..., H, W) in [0, 1], clipped to [0, 1].

    >>> sobel(torch.ones(1, 5, 6)).abs().max().item()
    0.0
    """
    kernel = images.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    flat = F.pad(images.reshape(-1, 1, *images.shape[-2:]), [1, 1, 1, 1], mode="replicate")
    gradients = F.conv2d(flat, torch.stack([kernel, kernel.T])[:, None])
    return gradients.square().sum(1).sqrt().clamp(0, 1).reshape(images.shape)


def map_intensities(images: torch.Tensor, differences: np.ndarray) -> torch.Tensor:
    """Add to every intensity in [0, 1] a difference, interpolated between those of evenly spaced bins.

    >>> map_intensities(torch.tensor([0.25]), np.array([0.0, 0.5, 0.0], np.float32)).tolist()
    [0.5]
    """
    table = torch.from_numpy(differences).to(images)
    place = images.clamp(0, 1) * (len(table) - 1)
    low = place.floor().clamp_max(len(table) - 2).long()
    return (images + torch.lerp(table[low], table[low + 1], place - low)).clamp(0, 1)


def change_mask(mask: torch.Tensor, drawn: Augmentation) -> torch.Tensor:
    """Apply the mask group to masks (K, H, W) 0/1.

    >>> int(change_mask(torch.zeros(1, 2, 3), Augmentation(invert=True)).sum())
    6
    """
    if drawn.contour:
        mask = contour(mask)
    if drawn.dilate:
        mask = dilate(mask)
    return 1 - mask if drawn.invert else mask


def change_images(images: torch.Tensor, drawn: Augmentation) -> torch.Tensor:
    """Apply the intensity group to images (..., H, W) in [0, 1]; "synthetic" was painted so already.

    >>> change_images(torch.ones(1, 1, 4, 4), Augmentation(change="sobel")).max().item()
    0.0
    """
    if drawn.change == "sobel":
        return sobel(images)
    if drawn.change == "mapping":
        assert drawn.mapping is not None
        return map_intensities(images, drawn.mapping)
    return images


def arrange_channels(images: torch.Tensor, drawn: Augmentation) -> torch.Tensor:
    """Put images (K, M, H, W) into the three input channels, (K, 3, H, W).

    >>> arrange_channels(torch.ones(1, 1, 2, 2), Augmentation(channels=(-1, 0, 0)))[0, :, 0, 0].tolist()
    [0.0, 1.0, 1.0]
    """
    empty = torch.zeros_like(images[:, 0])
    return torch.stack([empty if c < 0 else images[:, c] for c in drawn.channels], dim=1)
