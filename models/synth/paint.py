"""Paint slices: intensities, partial volume, bias field, blur, noise, as :mod:`.apply` does for volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.synth.draw import Contrast
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.synth.slices import IN_PLANE, SliceSampling

BLUR_RADIUS = 4
"""Half-width of the blur's window in pixels."""


def brain_pools(maps: LabelMaps, groups: torch.Tensor, *, size: int = 2048, seed: int = 0) -> torch.Tensor:
    """Draw voxels of every map's brain: their intensity groups, (n maps, size).

    A slice is scaled by the percentiles of its whole brain, as images are that users give; the pool stands
    for that brain.
    """
    rng, rows = np.random.default_rng(seed), []
    for one, brain in zip(maps.maps, maps.brain, strict=True):
        found = torch.nonzero(brain.reshape(-1))[:, 0]
        chosen = found[torch.from_numpy(rng.integers(len(found), size=size)).to(found.device)]
        rows.append(groups.to(one.device)[one.reshape(-1)[chosen].long()])
    return torch.stack(rows)


def gaussian_blur(images: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Blur each image by its own width along each axis.

    Parameters
    ----------
    images
        (K, H, W).
    sigmas
        (K, 2) pixels along the two axes; below 0.2 nothing is blurred.

    Examples
    --------
    >>> image = torch.zeros(1, 9, 11)
    >>> image[0, 4, 5] = 1
    >>> soft = gaussian_blur(image, torch.tensor([[1.0, 0.0]]))[0]
    >>> round(float(soft.sum()), 4), int((soft > 1e-6).any(0).sum())
    (1.0, 1)
    """
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device, dtype=torch.float32)
    for axis in range(2):
        sigma = sigmas[:, axis].where(sigmas[:, axis] >= 0.2, torch.full_like(sigmas[:, axis], 0.05))
        kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        pad = [0, 0, BLUR_RADIUS, BLUR_RADIUS] if axis == 0 else [BLUR_RADIUS, BLUR_RADIUS, 0, 0]
        padded = F.pad(images[None], pad, mode="replicate")
        weight = kernel[:, None, :, None] if axis == 0 else kernel[:, None, None, :]
        images = F.conv2d(padded, weight, groups=len(images))[0]
    return images


def _kept(brain: torch.Tensor, contrasts: Sequence[Contrast], spacing: float) -> torch.Tensor:
    """Mark what the state of the skull leaves of each slice, (K, H, W) 0/1."""
    wanted = [-1 if c.skull == "kept" else round(c.rim_mm / spacing) for c in contrasts]
    keep, grown = torch.ones_like(brain), brain
    for rim in range(max([*wanted, 0]) + 1):
        if rim:
            grown = F.max_pool2d(grown[:, None], 3, stride=1, padding=1)[:, 0]
        for place, value in enumerate(wanted):
            if value == rim:
                keep[place] = grown[place]
    return keep


def paint_slices(
    sampling: SliceSampling,
    groups: torch.Tensor,
    pools: torch.Tensor,
    contrasts: Sequence[Contrast],
    *,
    spacing: float,
    axis: int,
) -> torch.Tensor:
    """Paint one image of each sampled slice.

    Parameters
    ----------
    sampling
        Labels, brain and places of K slices.
    groups
        (n labels,) intensity group of each label index.
    pools
        (K, P) intensity groups of voxels of each slice's whole brain (:func:`brain_pools`).
    contrasts
        Look of each image.
    spacing
        Pixel size in mm.
    axis
        Axis across the slices.

    Returns
    -------
    torch.Tensor
        (K, H, W) in [0, 1], scaled by the 0.5 and 99.5 percentile of the whole brain.
    """
    device, count = sampling.brain.device, len(contrasts)
    generator = torch.Generator(device=device).manual_seed(contrasts[0].seed)

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def stacked(values: Sequence[np.ndarray | float | list[float]]) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(device)

    means, sds = stacked([c.means for c in contrasts]), stacked([c.sds for c in contrasts])
    rows = torch.arange(count, device=device).view(count, 1, 1) * means.shape[1]
    image = torch.zeros_like(sampling.brain)
    for indices in sampling.indices:
        flat = groups[indices.long()] + rows
        image += means.reshape(-1)[flat] + sds.reshape(-1)[flat] * noise(tuple(image.shape))
    image = (image / len(sampling.indices)).clamp_min(0) * _kept(sampling.brain, contrasts, spacing)
    log_bias = stacked([c.log_bias for c in contrasts])[:, None]
    field = F.grid_sample(log_bias, sampling.places[:, None], padding_mode="border", align_corners=True)
    image = image * field[:, 0, 0].exp()
    blur = stacked([[c.blur_mm[a] for a in IN_PLANE[axis]] for c in contrasts])
    thick = stacked([[_thickness(c, a) for a in IN_PLANE[axis]] for c in contrasts])
    image = gaussian_blur(image, torch.sqrt(blur**2 + (thick / 2.355) ** 2) / spacing)
    pool = pools + torch.arange(count, device=device)[:, None] * means.shape[1]
    values = (
        means.reshape(-1)[pool]
        + sds.reshape(-1)[pool] * noise(tuple(pool.shape)) / len(sampling.indices) ** 0.5
    )
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995], device=device), dim=1)
    level = stacked([c.noise for c in contrasts])[:, None, None] * high[:, None, None]
    noisy = torch.hypot(image + level * noise(tuple(image.shape)), level * noise(tuple(image.shape)))
    emptied = torch.tensor([c.skull != "kept" for c in contrasts], device=device)[:, None, None]
    noisy = torch.where(emptied & (image < 1e-4), torch.zeros_like(noisy), noisy)
    scaled = (noisy - low[:, None, None]) / (high - low).clamp_min(1e-3)[:, None, None]
    gamma = stacked([c.gamma for c in contrasts])[:, None, None]
    return scaled.clamp(0, 1).pow(gamma)


def _thickness(contrast: Contrast, axis: int) -> float:
    return contrast.slices[1] if contrast.slices is not None and contrast.slices[0] == axis else 0.0
