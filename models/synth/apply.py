"""Turn drawn parameters into tensors: pure functions of the label maps, on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hyperprep.models.nn.warp import integrate
from hyperprep.models.spatial.grids import model_grid
from hyperprep.models.synth.draw import Anatomy, Contrast
from hyperprep.models.synth.maps import ORIGIN_MM, LabelMaps


@dataclass(frozen=True)
class Lattice:
    """Where an image's voxels lie in the template frame: shape, spacing (mm), first centre (RAS mm)."""

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the field of view in mm."""
        x, y, z = (s * self.spacing for s in self.shape)
        return (x, y, z)

    def points(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Give the voxel centres, (3, *shape), RAS mm.

        >>> Lattice((2, 1, 1), 4.0, (0.0, 5.0, 6.0)).points()[:, 1, 0, 0].tolist()
        [4.0, 5.0, 6.0]
        """
        axes = [
            torch.arange(n, device=device, dtype=torch.float32) * self.spacing + o
            for n, o in zip(self.shape, self.origin, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def model_lattice(spacing: float) -> Lattice:
    """Make the lattice of the model grid, the field of view of every network, with isotropic voxels.

    Examples
    --------
    >>> model_lattice(2.0).shape
    (96, 112, 96)
    """
    grid = model_grid(spacing)
    x, y, z = (float(v) for v in grid.affine[:3, 3])
    return Lattice(grid.shape, spacing, (x, y, z))


@dataclass(frozen=True)
class Sampling:
    """Label index at several points inside each voxel; the first is the voxel's centre.

    ``indices`` (subsamples, *shape) uint8; ``brain`` (*shape) float 0/1.
    """

    indices: torch.Tensor
    brain: torch.Tensor


def sample_anatomy(
    maps: LabelMaps,
    anatomy: Anatomy,
    lattice: Lattice,
    *,
    subsamples: int = 3,
    seed: int = 0,
    points: torch.Tensor | None = None,
) -> Sampling:
    """Look the deformed head up on a lattice.

    Parameters
    ----------
    maps
        Label maps in the template frame.
    anatomy
        Which head, and how it is deformed.
    lattice
        Where the image's voxels lie.
    subsamples
        Points per voxel: their mixture is the partial volume of the image.
    seed
        Seed of the points inside the voxels.
    points
        (3, *shape) mm to look up in place of the lattice's own points.

    Returns
    -------
    Sampling
        Labels and closed brain mask.
    """
    device = maps.maps.device
    grid = lattice.points(device) if points is None else points
    matrix = torch.from_numpy(anatomy.matrix).to(device)
    velocity = torch.from_numpy(anatomy.velocity).to(device)[None]
    step = torch.tensor(
        [e / max(n - 1, 1) for e, n in zip(lattice.extent_mm, velocity.shape[2:], strict=True)], device=device
    )
    smooth = (
        F.interpolate(
            velocity / step.view(1, 3, 1, 1, 1), scale_factor=2, mode="trilinear", align_corners=True
        )
        * 2
    )
    warp = integrate(smooth, steps=5) / 2 * step.view(1, 3, 1, 1, 1)
    warp = F.interpolate(warp, size=lattice.shape, mode="trilinear", align_corners=True)[0]
    where = torch.einsum("ij,j...->i...", matrix[:3, :3], grid + warp) + matrix[:3, 3].view(3, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    volume, brain = maps.maps[anatomy.index], maps.brain[anatomy.index]
    origin = torch.tensor(ORIGIN_MM, device=device).view(3, 1, 1, 1)
    strides = (volume.shape[1] * volume.shape[2], volume.shape[2], 1)
    sign = torch.tensor([-1.0 if anatomy.mirrored else 1.0, 1.0, 1.0], device=device).view(3, 1, 1, 1)
    looked, inside_brain = [], torch.empty(0)
    for turn in range(subsamples):
        offset = (
            (torch.rand((3, *lattice.shape), generator=generator).to(device) - 0.5) * lattice.spacing
            if turn
            else 0.0
        )
        voxel = ((where + offset) * sign - origin).round_().long()
        outside = torch.zeros(lattice.shape, dtype=torch.bool, device=device)
        flat = torch.zeros(lattice.shape, dtype=torch.long, device=device)
        for axis in range(3):
            outside |= (voxel[axis] < 0) | (voxel[axis] >= volume.shape[axis])
            flat += voxel[axis].clamp_(0, volume.shape[axis] - 1) * strides[axis]
        label = volume.flatten()[flat].masked_fill_(outside, 0)
        if turn == 0:
            inside_brain = brain.flatten()[flat].masked_fill_(outside, 0).float()
        looked.append(label)
    indices = torch.stack(looked)
    if anatomy.mirrored:
        indices = maps.mirror_table().to(device)[indices.long()]
    return Sampling(indices=indices, brain=inside_brain)


def _blur(image: torch.Tensor, sigma: tuple[float, float, float]) -> torch.Tensor:
    for axis, s in enumerate(sigma):
        if s < 0.2:
            continue
        x = torch.arange(-3, 4, device=image.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (x / s) ** 2)
        kernel /= kernel.sum()
        padded = F.pad(image.movedim(axis, -1), (3, 3), mode="replicate")
        n = image.shape[axis]
        total = padded[..., :n] * kernel[0]
        for i in range(1, 7):
            total = total + padded[..., i : i + n] * kernel[i]
        image = total.movedim(-1, axis)
    return image


def _thicken(image: torch.Tensor, axis: int, factor: float) -> torch.Tensor:
    n = image.shape[axis]
    rows = image.movedim(axis, -1)
    flat = rows.reshape(1, -1, n)
    thick = F.interpolate(flat, size=max(2, round(n / factor)), mode="area")
    return F.interpolate(thick, size=n, mode="linear").reshape(rows.shape).movedim(-1, axis)


def dilate(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """Grow a 0/1 mask (*shape) by a number of voxels along each axis.

    Examples
    --------
    >>> mask = torch.zeros(7, 8, 9)
    >>> mask[3, 4, 4] = 1
    >>> int(dilate(mask, 1).sum())
    27
    """
    if voxels < 1:
        return mask
    out = mask[None, None]
    for axis in range(3):
        size = [1, 1, 1]
        size[axis] = 2 * voxels + 1
        out = F.max_pool3d(out, size, stride=1, padding=[s // 2 for s in size])
    return out[0, 0]


def rescale(image: torch.Tensor, mask: torch.Tensor, low: float = 0.5, high: float = 99.5) -> torch.Tensor:
    """Map percentiles inside the mask to 0 and 1, and clip.

    Parameters
    ----------
    image
        (*shape), any unit.
    mask
        (*shape) 0/1. With fewer than 64 voxels the percentiles are those of the whole image.
    low, high
        Percentiles, 0 to 100.

    Returns
    -------
    torch.Tensor
        (*shape) in [0, 1].

    Examples
    --------
    >>> image = torch.arange(504.0).view(7, 8, 9)
    >>> scaled = rescale(image, torch.ones(7, 8, 9))
    >>> scaled.min().item(), scaled.max().item()
    (0.0, 1.0)
    """
    inside = image[mask > 0.5]
    if inside.numel() < 64:
        inside = image.flatten()
    inside = inside[:: max(1, inside.numel() // 50_000)]
    bounds = torch.quantile(inside, torch.tensor([low / 100, high / 100], device=image.device))
    return ((image - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(1e-5)).clamp_(0, 1)


def render(sampling: Sampling, groups: torch.Tensor, contrast: Contrast, *, spacing: float) -> torch.Tensor:
    """Paint an image of the sampled head.

    Parameters
    ----------
    sampling
        Labels and brain mask on the image's lattice.
    groups
        (n labels,) intensity group of each label index.
    contrast
        Intensities and artefacts.
    spacing
        Voxel size in mm.

    Returns
    -------
    torch.Tensor
        (*shape) in [0, 1], rescaled inside the brain.
    """
    device = sampling.indices.device
    generator = torch.Generator(device=device).manual_seed(contrast.seed)
    means = torch.from_numpy(contrast.means).to(device)[groups]
    sds = torch.from_numpy(contrast.sds).to(device)[groups]
    image = torch.zeros(sampling.brain.shape, device=device)
    for index in sampling.indices.long():
        image += means[index] + sds[index] * torch.randn(image.shape, generator=generator, device=device)
    image /= len(sampling.indices)
    if contrast.skull != "kept":
        image = image * dilate(sampling.brain, round(contrast.rim_mm / spacing))
    bias = F.interpolate(
        torch.from_numpy(contrast.log_bias)[None, None].to(device),
        size=image.shape,
        mode="trilinear",
        align_corners=True,
    )[0, 0]
    image = image.clamp_min(0) * bias.exp()
    x, y, z = (b / spacing for b in contrast.blur_mm)
    image = _blur(image, (x, y, z))
    if contrast.slices is not None and contrast.slices[1] > spacing:
        image = _thicken(image, contrast.slices[0], contrast.slices[1] / spacing)
    scale = image.max().clamp_min(1e-5)
    noise = torch.randn((2, *image.shape), generator=generator, device=device) * contrast.noise
    noisy = torch.sqrt((image / scale + noise[0]) ** 2 + noise[1] ** 2)
    if contrast.skull != "kept":
        noisy = torch.where(image > 1e-4, noisy, torch.zeros_like(noisy))
    return rescale(noisy, sampling.brain).pow(contrast.gamma)
