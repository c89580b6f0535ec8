"""What few-shot results are compared with: a U-Net trained on the same examples, labels moved by SyN."""

from __future__ import annotations

import time
from collections.abc import Sequence

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.losses.dice import soft_dice
from hyperprep.models.nets.residual_unet import ResidualUNet


def _deformed(
    images: torch.Tensor,
    rng: np.random.Generator,
    *,
    degrees: float = 10.0,
    scale: float = 0.1,
    warp: float = 0.03,
) -> torch.Tensor:
    """Turn, scale, shift and warp slices (B, C, H, W), each its own way: the paper's data augmentation."""
    b = len(images)
    angles = torch.from_numpy(np.deg2rad(rng.uniform(-degrees, degrees, b)))
    factors = torch.from_numpy(np.exp(rng.uniform(-scale, scale, b)))
    theta = torch.zeros(b, 2, 3, dtype=torch.float64)
    theta[:, 0, 0] = theta[:, 1, 1] = factors * angles.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -factors * angles.sin(), factors * angles.sin()
    theta[:, :, 2] = torch.from_numpy(rng.uniform(-0.06, 0.06, (b, 2)))
    grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    coarse = torch.from_numpy(rng.standard_normal((b, 2, 6, 6)).astype(np.float32)) * warp
    smooth = F.interpolate(coarse, size=list(images.shape[2:]), mode="bicubic", align_corners=True)
    return F.grid_sample(images, grid + smooth.movedim(1, -1), align_corners=False)


def unet_volumes(
    inputs: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    *,
    minutes: float,
    channels: int = 32,
    seed: int = 0,
) -> tuple[list[np.ndarray], float]:
    """Train the paper's U-Net for these structures alone on slices of some volumes, and predict others.

    It gets what the few-shot network gets: the same aligned volumes on the same grid, three orientations,
    averaged. One network answers for several structures. Slices near one of them are drawn three times as
    often as others; the loss is the Dice of what a slice holds, and the squared error.

    Parameters
    ----------
    inputs, outputs
        (X, Y, Z) images in [0, 1], and (S, X, Y, Z) masks of S structures, of the examples.
    targets
        (X, Y, Z) images to segment.
    minutes
        How long it trains.
    channels
        Width, that of the small few-shot network; the paper's is 64 for up to 32 examples.
    seed
        Seed of weights and draws.

    Returns
    -------
    tuple
        (S, X, Y, Z) probabilities of each target, and seconds of training and of one prediction.
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = ResidualUNet(channels, n_inputs=1, n_outputs=len(outputs[0]))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    pairs = [
        torch.from_numpy(np.concatenate([x[None], y]).astype(np.float32))
        for x, y in zip(inputs, outputs, strict=True)
    ]
    held = np.max(np.stack(outputs), axis=0) > 0
    while time.perf_counter() - began < 60 * minutes:
        axis = int(rng.integers(3))
        near = held[int(rng.integers(len(held)))].any(axis=tuple(a for a in range(3) if a != axis))
        batch = []
        for _ in range(4):
            places = np.flatnonzero(near) if rng.random() < 0.75 and near.any() else np.arange(len(near))
            batch.append(pairs[int(rng.integers(len(pairs)))].select(axis + 1, int(rng.choice(places))))
        slices = _deformed(_padded(torch.stack(batch)), rng)
        found, truth = network(slices[:, :1]), (slices[:, 1:] > 0.5).float()
        there = truth.flatten(2).any(2)
        missed = (1 - soft_dice(found, truth))[there].sum() / there.sum().clamp_min(1)
        loss = missed + (found - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trained = time.perf_counter() - began
    found = [_predicted(network, target, len(outputs[0])) for target in targets]
    return found, trained + (time.perf_counter() - began - trained) / max(1, len(targets))


@torch.inference_mode()
def _predicted(network: torch.nn.Module, target: np.ndarray, count: int) -> np.ndarray:
    """Predict ``count`` masks of a volume slice by slice in three orientations, and take the mean."""
    total = np.zeros((count, *target.shape), np.float32)
    volume = torch.from_numpy(target.astype(np.float32))
    for axis in range(3):
        slices = volume.movedim(axis, 0)[:, None]
        found = torch.cat([network(_padded(one[None])) for one in slices])
        h, w = slices.shape[2:]
        total += found[..., :h, :w].clamp(0, 1).movedim(0, 1).movedim(1, axis + 1).numpy() / 3
    return total


def _padded(slices: torch.Tensor) -> torch.Tensor:
    h, w = slices.shape[-2:]
    return F.pad(slices, [0, -w % 8, 0, -h % 8])


def moved_labels(
    moving: np.ndarray, labels: np.ndarray, target: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, float]:
    """Register an example to a target by antspyx SyN, and move its labels.

    Parameters
    ----------
    moving, labels, target
        (X, Y, Z) image and label numbers of the example, and the target's image, on one grid.
    affine
        (4, 4) of that grid.

    Returns
    -------
    tuple
        (X, Y, Z) label numbers, and seconds.
    """
    from benchmarks.peers import ants_method

    began = time.perf_counter()

    def image(data: np.ndarray) -> nb.Nifti1Image:
        return nb.Nifti1Image(data.astype(np.float32), affine)

    fixed = (image(target), image(np.zeros_like(target)))
    moved = ants_method("SyN")(fixed, (image(moving), image(labels))).labels
    return np.asanyarray(moved.dataobj), time.perf_counter() - began
