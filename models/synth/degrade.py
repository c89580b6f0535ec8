"""What tasks restore images from: low resolution, noise and bias, and holes shaped by Perlin noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class LowResolution:
    """By how much pixels are larger along both axes of a slice."""

    factors: tuple[float, float]


@dataclass(frozen=True)
class NoiseBias:
    """Rician noise of sd ``noise`` (share of white) and a smooth field, ``log_bias`` (n, n) coarse."""

    noise: float
    log_bias: np.ndarray
    seed: int


@dataclass(frozen=True)
class Holes:
    """Holes where Perlin noise is largest.

    Attributes
    ----------
    gradients
        (m + 1, n + 1) angles of the gradients at the corners of m x n cells, radians.
    share
        Share of the slice that is cut out.
    """

    gradients: np.ndarray
    share: float


def draw_low_resolution(rng: np.random.Generator) -> LowResolution:
    """Draw pixels 1.5 to 4 times as large, along one axis or both.

    >>> max(draw_low_resolution(np.random.default_rng(0)).factors) >= 1.5
    True
    """
    factor = float(rng.uniform(1.5, 4))
    other = factor if rng.random() < 0.5 else 1.0
    return LowResolution((factor, other) if rng.random() < 0.5 else (other, factor))


def draw_noise_bias(rng: np.random.Generator) -> NoiseBias:
    """Draw noise of 2 to 20 % and a bias field of up to 0.5 (natural logarithm, sd of the nodes).

    >>> 0.02 <= draw_noise_bias(np.random.default_rng(0)).noise <= 0.2
    True
    """
    log_bias = rng.standard_normal((4, 4)) * rng.uniform(0.1, 0.5)
    return NoiseBias(float(rng.uniform(0.02, 0.2)), log_bias.astype(np.float32), int(rng.integers(2**31)))


def draw_holes(rng: np.random.Generator) -> Holes:
    """Draw 2 to 6 cells along each side, and 10 to 40 % to cut out.

    >>> 0.1 <= draw_holes(np.random.default_rng(0)).share <= 0.4
    True
    """
    m, n = rng.integers(2, 7, size=2)
    return Holes(rng.uniform(0, 2 * np.pi, (m + 1, n + 1)).astype(np.float32), float(rng.uniform(0.1, 0.4)))


def apply_low_resolution(images: torch.Tensor, drawn: Sequence[LowResolution]) -> torch.Tensor:
    """Average each image (K, H, W) into larger pixels and interpolate it back.

    >>> apply_low_resolution(torch.full((1, 8, 6), 0.5), [LowResolution((2.0, 1.0))]).unique().tolist()
    [0.5]
    """
    out = []
    for image, one in zip(images, drawn, strict=True):
        size = [max(2, round(n / f)) for n, f in zip(image.shape, one.factors, strict=True)]
        small = F.interpolate(image[None, None], size=size, mode="area")
        out.append(F.interpolate(small, size=list(image.shape), mode="bilinear")[0, 0])
    return torch.stack(out)


def apply_noise_bias(images: torch.Tensor, drawn: Sequence[NoiseBias]) -> torch.Tensor:
    """Brighten and darken each image (K, H, W) in [0, 1] smoothly, and add Rician noise; clipped to [0, 1].

    >>> nothing = NoiseBias(0.0, np.zeros((4, 4), np.float32), 0)
    >>> image = torch.rand(1, 8, 6)
    >>> torch.allclose(apply_noise_bias(image, [nothing]), image)
    True
    """
    fields = torch.from_numpy(np.stack([d.log_bias for d in drawn]))[:, None].to(images)
    field = F.interpolate(fields, size=list(images.shape[1:]), mode="bicubic", align_corners=True)[:, 0]
    generator = torch.Generator(device=images.device).manual_seed(drawn[0].seed)
    noise = torch.randn((2, *images.shape), generator=generator, device=images.device)
    level = torch.tensor([d.noise for d in drawn], device=images.device)[:, None, None]
    return torch.hypot(images * field.exp() + level * noise[0], level * noise[1]).clamp(0, 1)


def perlin_noise(gradients: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Give gradient noise (K. Perlin, SIGGRAPH 1985 and 2002): smooth, zero at the corners of the cells.

    Parameters
    ----------
    gradients
        (m + 1, n + 1) angles, radians.
    shape
        Pixels of the slice.

    Returns
    -------
    torch.Tensor
        (*shape).

    Examples
    --------
    >>> perlin_noise(torch.zeros(3, 3), (5, 5))[::2, ::2].abs().max().item()
    0.0
    """
    m, n = gradients.shape[0] - 1, gradients.shape[1] - 1
    device = gradients.device
    y = torch.linspace(0, m, shape[0], device=device)
    x = torch.linspace(0, n, shape[1], device=device)
    row, column = y.floor().clamp_max(m - 1).long(), x.floor().clamp_max(n - 1).long()
    fy, fx = (y - row)[:, None], (x - column)[None]

    def corner(dy: int, dx: int) -> torch.Tensor:
        angle = gradients[row + dy][:, column + dx]
        return angle.sin() * (fy - dy) + angle.cos() * (fx - dx)

    def fade(t: torch.Tensor) -> torch.Tensor:
        return t**3 * (t * (6 * t - 15) + 10)

    upper = torch.lerp(corner(0, 0), corner(0, 1), fade(fx))
    lower = torch.lerp(corner(1, 0), corner(1, 1), fade(fx))
    return torch.lerp(upper, lower, fade(fy))


def hole_masks(drawn: Sequence[Holes], shape: tuple[int, int], device: torch.device | str) -> torch.Tensor:
    """Mark the holes, (K, *shape) float 0/1.

    >>> mask = hole_masks([draw_holes(np.random.default_rng(0))], (24, 20), "cpu")
    >>> 0.05 < mask.mean().item() < 0.45
    True
    """
    out = []
    for one in drawn:
        noise = perlin_noise(torch.from_numpy(one.gradients).to(device), shape)
        out.append((noise > torch.quantile(noise, 1 - one.share)).float())
    return torch.stack(out)
