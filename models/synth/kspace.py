"""Artefacts that arise in k-space: motion between lines, and lines left out.

Written here because the libraries that have such artefacts (TorchIO, MONAI) work on one volume at a time on
the processor; training needs hundreds of slices per step on its own device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Motion:
    """A head that moves while the lines of k-space are acquired one after the other.

    Attributes
    ----------
    times
        Shares of the acquisition at which it moves, ascending.
    angles_deg, shifts_px
        (moves + 1,) and (moves + 1, 2): pose between two movements. The pose at the centre of k-space, which
        the picture shows, is zero.
    axis
        Phase encoding axis of the slice, 0 or 1.
    """

    times: tuple[float, ...]
    angles_deg: np.ndarray
    shifts_px: np.ndarray
    axis: int


@dataclass(frozen=True)
class Undersampling:
    """Lines of k-space that are measured.

    Attributes
    ----------
    factor
        Acceleration: one line in so many is measured away from the centre.
    centre
        Share of the lines, around the centre, that are all measured.
    regular
        Evenly spaced lines, whose aliases are copies of the head; else random ones.
    axis
        Phase encoding axis of the slice, 0 or 1.
    seed
        Seed of the random lines.
    """

    factor: float
    centre: float
    regular: bool
    axis: int
    seed: int


def draw_motion(
    rng: np.random.Generator, *, moves: int = 3, angle: float = 5.0, shift: float = 4.0
) -> Motion:
    """Draw a motion: up to ``moves`` movements of up to ``angle`` degrees and ``shift`` pixels.

    >>> motion = draw_motion(np.random.default_rng(0))
    >>> len(motion.angles_deg) == len(motion.times) + 1
    True
    """
    times = np.sort(rng.uniform(0.05, 0.95, int(rng.integers(1, moves + 1))))
    angles = rng.uniform(-angle, angle, len(times) + 1)
    shifts = rng.uniform(-shift, shift, (len(times) + 1, 2))
    middle = int(np.searchsorted(times, 0.5, side="right"))
    angles[middle], shifts[middle] = 0.0, 0.0
    return Motion(
        tuple(float(t) for t in times),
        angles.astype(np.float32),
        shifts.astype(np.float32),
        int(rng.integers(2)),
    )


def draw_undersampling(rng: np.random.Generator) -> Undersampling:
    """Draw an acceleration of 2 to 6 with 4 to 12 % of the lines kept around the centre.

    >>> 2 <= draw_undersampling(np.random.default_rng(0)).factor <= 6
    True
    """
    return Undersampling(
        factor=float(rng.uniform(2, 6)),
        centre=float(rng.uniform(0.04, 0.12)),
        regular=bool(rng.random() < 0.3),
        axis=int(rng.integers(2)),
        seed=int(rng.integers(2**31)),
    )


def _spectrum(images: torch.Tensor) -> torch.Tensor:
    return torch.fft.fftshift(torch.fft.fft2(images), dim=(-2, -1))


def _image(spectrum: torch.Tensor) -> torch.Tensor:
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).abs()


def _posed(images: torch.Tensor, angles: np.ndarray, shifts: np.ndarray) -> torch.Tensor:
    """Turn and shift (P, H, W) pictures, degrees and pixels."""
    h, w = images.shape[1:]
    radians = torch.from_numpy(np.deg2rad(angles)).to(images)
    cos, sin = radians.cos(), radians.sin()
    moved = torch.from_numpy(shifts).to(images)
    theta = torch.stack(
        [cos, -sin * h / w, 2 * moved[:, 1] / w, sin * w / h, cos, 2 * moved[:, 0] / h], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), 1, h, w], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def apply_motion(images: torch.Tensor, motions: Sequence[Motion]) -> torch.Tensor:
    """Acquire each image while it moves.

    Parameters
    ----------
    images
        (K, H, W) in [0, 1].
    motions
        One per image.

    Returns
    -------
    torch.Tensor
        (K, H, W) magnitude images, clipped to [0, 1].

    Examples
    --------
    >>> still = Motion((0.7,), np.zeros(2, np.float32), np.zeros((2, 2), np.float32), 0)
    >>> image = torch.rand(1, 8, 10)
    >>> torch.allclose(apply_motion(image, [still]), image, atol=1e-5)
    True
    """
    out = []
    for image, motion in zip(images, motions, strict=True):
        poses = _posed(
            image.expand(len(motion.angles_deg), *image.shape), motion.angles_deg, motion.shifts_px
        )
        spectra = _spectrum(poses)
        lines = torch.arange(image.shape[motion.axis], device=image.device) / image.shape[motion.axis]
        times = torch.tensor(motion.times, device=image.device)
        segment = torch.bucketize(lines, times, right=True)
        shape = (1, -1, 1) if motion.axis == 0 else (1, 1, -1)
        chosen = spectra.gather(0, segment.view(shape).expand(1, *image.shape))[0]
        out.append(_image(chosen))
    return torch.stack(out).clamp(0, 1)


def measured_lines(drawn: Undersampling, lines: int) -> np.ndarray:
    """Mark the measured lines, (lines,) bool, the centre of k-space in the middle.

    Examples
    --------
    >>> measured_lines(Undersampling(4.0, 0.1, True, 0, 0), 20).astype(int).tolist()
    [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    """
    if drawn.regular:
        keep = np.arange(lines) % max(2, round(drawn.factor)) == 0
    else:
        keep = np.random.default_rng(drawn.seed).random(lines) < 1 / drawn.factor
    half = max(1, round(drawn.centre * lines / 2))
    keep[lines // 2 - half : lines // 2 + half] = True
    return np.asarray(keep)


def apply_undersampling(images: torch.Tensor, drawn: Sequence[Undersampling]) -> torch.Tensor:
    """Reconstruct each image (K, H, W) from its measured lines alone, zeros elsewhere.

    Examples
    --------
    >>> everything = Undersampling(2.0, 1.0, False, 1, 0)
    >>> image = torch.rand(1, 8, 10)
    >>> torch.allclose(apply_undersampling(image, [everything]), image, atol=1e-5)
    True
    """
    masks = torch.ones_like(images)
    for place, one in enumerate(drawn):
        keep = torch.from_numpy(measured_lines(one, images.shape[1 + one.axis])).to(images)
        masks[place] = keep.view(-1, 1) if one.axis == 0 else keep.view(1, -1)
    return _image(_spectrum(images) * masks).clamp(0, 1)
