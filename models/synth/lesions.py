"""Focal pathology for evaluation: lesions, resections and the shift of tissue around them, with their masks.

Nothing that ships is trained on these images: they are the ground truth of topology change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from hyperprep.exceptions import UsageError
from hyperprep.models.synth.apply import Lattice, Sampling
from hyperprep.models.synth.draw import Contrast
from hyperprep.models.synth.maps import TISSUE_GROUPS

KINDS = ("lesion", "resection")
"""``lesion``: tissue of an intensity of its own; ``resection``: a cavity that holds fluid."""

SITES: Mapping[str, tuple[int, ...]] = {
    "cortex": (3, 42),
    "ventricle": (4, 43),
    "deep": (10, 49, 11, 50, 12, 51, 13, 52),
}
"""Structures near which a lesion may be asked for: within :data:`NEAR_MM` of them, outside ventricles."""

NEAR_MM = 6.0


@dataclass(frozen=True)
class LesionSpec:
    """Ranges of focal pathology: diameters (mm), contrast (share of the intensities' range), mass effect."""

    diameter_mm: tuple[float, float] = (2.0, 30.0)
    contrast: tuple[float, float] = (0.15, 0.5)
    resection: float = 0.25
    mass_effect: float = 0.5
    shift_share: float = 0.25
    irregularity: float = 0.2


@dataclass(frozen=True)
class Lesion:
    """One focal change.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    site
        One of :data:`SITES`, or ``"anywhere"``.
    centre
        RAS mm in the template frame.
    radius_mm
        Mean radius.
    contrast
        Signed difference of its intensity to that of white matter, in units of the images.
    shift_mm
        How far the tissue at its surface is pushed away; 0 without mass effect.
    irregularity
        Standard deviation of the surface as a share of the radius.
    seed
        Seed of the surface.
    """

    kind: str
    site: str
    centre: tuple[float, float, float]
    radius_mm: float
    contrast: float
    shift_mm: float
    irregularity: float
    seed: int


def draw_lesion(
    rng: np.random.Generator,
    spec: LesionSpec,
    labels: np.ndarray,
    lattice: Lattice,
    *,
    site: str = "anywhere",
    diameter_mm: float | None = None,
    kind: str | None = None,
) -> Lesion:
    """Draw a focal change inside a head.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    spec
        Ranges.
    labels
        (*lattice.shape) FreeSurfer numbers of the healthy head.
    lattice
        Where its voxels lie.
    site
        Near which structures: one of :data:`SITES`, or ``"anywhere"`` in the brain's tissue.
    diameter_mm, kind
        Fixed where given, else drawn; diameters uniformly on a log scale.

    Raises
    ------
    UsageError
        When site or kind is unknown, or the head has no voxel there.

    Examples
    --------
    >>> head = np.full((12, 13, 14), 2)
    >>> head[:2] = 0
    >>> lattice = Lattice((12, 13, 14), 2.0, (0.0, 0.0, 0.0))
    >>> lesion = draw_lesion(np.random.default_rng(0), LesionSpec(), head, lattice, diameter_mm=8.0)
    >>> lesion.radius_mm, lesion.centre[0] > 2
    (4.0, True)
    """
    if site not in (*SITES, "anywhere") or kind not in (*KINDS, None):
        raise UsageError(f"Unknown site {site!r} or kind {kind!r}: use {tuple(SITES)} or anywhere, {KINDS}.")
    possible = (labels > 0) & (labels < 500) & ~np.isin(labels, (4, 43, 14, 15, 24))
    if site != "anywhere":
        away = ndimage.distance_transform_edt(~np.isin(labels, SITES[site]), sampling=lattice.spacing)
        possible &= away <= NEAR_MM
    voxels = np.argwhere(possible)
    if not len(voxels):
        raise UsageError(f"The head has no tissue near the site {site!r}.")
    voxel = voxels[rng.integers(len(voxels))]
    x, y, z = (float(v * lattice.spacing + o) for v, o in zip(voxel, lattice.origin, strict=True))
    low, high = np.log(spec.diameter_mm)
    drawn = float(np.exp(rng.uniform(low, high)))
    radius = (drawn if diameter_mm is None else diameter_mm) / 2
    chosen = kind or ("resection" if rng.random() < spec.resection else "lesion")
    contrast = float(rng.uniform(*spec.contrast) * rng.choice([-1.0, 1.0]))
    pushes = chosen == "lesion" and rng.random() < spec.mass_effect
    return Lesion(
        kind=chosen,
        site=site,
        centre=(x, y, z),
        radius_mm=radius,
        contrast=contrast,
        shift_mm=float(spec.shift_share * radius * rng.random()) if pushes else 0.0,
        irregularity=spec.irregularity,
        seed=int(rng.integers(2**31)),
    )


def lesion_share(lesion: Lesion, lattice: Lattice) -> torch.Tensor:
    """Give the share of each voxel that a focal change fills, (*lattice.shape), 0 to 1.

    Examples
    --------
    >>> ball = Lesion("lesion", "deep", (8.0, 8.0, 8.0), 4.0, 0.3, 0.0, 0.0, 1)
    >>> share = lesion_share(ball, Lattice((9, 9, 9), 2.0, (0.0, 0.0, 0.0)))
    >>> share[4, 4, 4].item(), share[0, 0, 0].item(), bool(abs(share.sum() * 8 - 268) < 30)  # 4/3 pi r^3
    (1.0, 0.0, True)
    """
    offset = lattice.points().double() - torch.tensor(lesion.centre).view(3, 1, 1, 1)
    distance = offset.square().sum(0).sqrt()
    rng = np.random.default_rng(lesion.seed)
    sigma = max(1.0, 0.6 * lesion.radius_mm / lattice.spacing)
    noise = ndimage.gaussian_filter(rng.standard_normal(lattice.shape), sigma)
    radius = lesion.radius_mm * (1 + lesion.irregularity * torch.from_numpy(noise / max(noise.std(), 1e-9)))
    return (0.5 + (radius - distance) / lattice.spacing).clamp(0, 1).float()


def shifted_points(lesion: Lesion, lattice: Lattice) -> torch.Tensor:
    """Give where the healthy head is looked up, (3, *shape) RAS mm, so that the change pushes tissue away.

    Tissue at the surface comes from ``shift_mm`` nearer to the centre; the shift falls off with the square of
    the distance outside and is linear inside, so nothing folds where the shift is less than the radius.

    Examples
    --------
    >>> ball = Lesion("lesion", "deep", (8.0, 8.0, 8.0), 4.0, 0.3, 1.0, 0.0, 1)
    >>> lattice = Lattice((9, 9, 9), 2.0, (0.0, 0.0, 0.0))
    >>> shifted_points(ball, lattice)[:, 6, 4, 4].tolist()  # 4 mm beside the centre
    [11.0, 8.0, 8.0]
    """
    points = lattice.points()
    if lesion.shift_mm == 0:
        return points
    offset = points - torch.tensor(lesion.centre).view(3, 1, 1, 1)
    distance = offset.square().sum(0).sqrt().clamp_min(1e-6)
    near = distance / lesion.radius_mm
    shift = lesion.shift_mm * torch.where(near < 1, near, 1 / near.square())
    return points - offset / distance * shift


def apply_lesion(
    sampling: Sampling, lesion: Lesion, lattice: Lattice, n_labels: int
) -> tuple[Sampling, torch.Tensor]:
    """Put a focal change into a sampled head.

    Parameters
    ----------
    sampling
        The head, looked up at :func:`shifted_points` where the change has a mass effect.
    lesion
        The change.
    lattice
        Where the voxels lie.
    n_labels
        Number of label indices of the head; the change gets the next one.

    Returns
    -------
    tuple of Sampling and torch.Tensor
        The changed head, and the mask of the change, (*shape) uint8: voxels of the brain of which it fills
        at least half.
    """
    share = lesion_share(lesion, lattice).to(sampling.brain.device) * sampling.brain
    count = len(sampling.indices)
    levels = (torch.arange(count, device=share.device) + 0.5) / count
    filled = share[None] > levels.view(-1, 1, 1, 1)
    indices = torch.where(filled, torch.full_like(sampling.indices, n_labels), sampling.indices)
    return Sampling(indices, sampling.brain), (share >= 0.5).to(torch.uint8)


def with_lesion(groups: torch.Tensor, contrast: Contrast, lesion: Lesion) -> tuple[torch.Tensor, Contrast]:
    """Extend intensity groups and intensities by those of a focal change.

    A resection looks like the fluid around the brain; a lesion differs from white matter by its contrast,
    turned round where that would leave [0.02, 1].

    Parameters
    ----------
    groups
        (n labels,) intensity group of each label index.
    contrast
        Intensities of the healthy head.
    lesion
        The change.

    Returns
    -------
    tuple of torch.Tensor and Contrast
        (n labels + 1,) groups, and the contrast with one more group.
    """
    names = list(TISSUE_GROUPS)
    white = float(contrast.means[names.index("white") + 1])
    mean = white + lesion.contrast
    if not 0.02 <= mean <= 1:
        mean = white - lesion.contrast
    spread = float(contrast.sds[names.index("white") + 1])
    if lesion.kind == "resection":
        place = names.index("csf") + 1
        mean, spread = float(contrast.means[place]), float(contrast.sds[place])
    extended = torch.cat([groups, groups.new_tensor([len(contrast.means)])])
    return extended, replace(
        contrast,
        means=np.append(contrast.means, np.float32(np.clip(mean, 0.02, 1))),
        sds=np.append(contrast.sds, np.float32(spread)),
    )
