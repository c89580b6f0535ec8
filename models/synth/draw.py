"""Draw the parameters of one synthetic image: everything random happens here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from hyperprep.models.synth.structures import TISSUE_GROUPS

CONTRAST_MEANS: dict[str, dict[str, float]] = {
    "T1w": {
        "white": 0.85,
        "cortex": 0.57,
        "csf": 0.15,
        "ventricle": 0.12,
        "cerebellar_white": 0.82,
        "cerebellar_cortex": 0.56,
        "thalamus": 0.69,
        "caudate": 0.6,
        "putamen": 0.64,
        "pallidum": 0.75,
        "brainstem": 0.77,
        "hippocampus": 0.55,
        "lesion": 0.55,
        "vessel": 0.4,
        "other": 0.4,
    },
    "T2w": {
        "white": 0.35,
        "cortex": 0.52,
        "csf": 0.95,
        "ventricle": 0.97,
        "cerebellar_white": 0.36,
        "cerebellar_cortex": 0.5,
        "thalamus": 0.45,
        "caudate": 0.5,
        "putamen": 0.46,
        "pallidum": 0.3,
        "brainstem": 0.4,
        "hippocampus": 0.55,
        "lesion": 0.7,
        "vessel": 0.5,
        "other": 0.5,
    },
    "FLAIR": {
        "white": 0.5,
        "cortex": 0.65,
        "csf": 0.12,
        "ventricle": 0.08,
        "cerebellar_white": 0.48,
        "cerebellar_cortex": 0.6,
        "thalamus": 0.57,
        "caudate": 0.65,
        "putamen": 0.6,
        "pallidum": 0.42,
        "brainstem": 0.5,
        "hippocampus": 0.68,
        "lesion": 0.9,
        "vessel": 0.4,
        "other": 0.4,
    },
    "PDw": {
        "white": 0.55,
        "cortex": 0.75,
        "csf": 0.85,
        "ventricle": 0.85,
        "cerebellar_white": 0.56,
        "cerebellar_cortex": 0.72,
        "thalamus": 0.64,
        "caudate": 0.72,
        "putamen": 0.68,
        "pallidum": 0.5,
        "brainstem": 0.58,
        "hippocampus": 0.72,
        "lesion": 0.8,
        "vessel": 0.5,
        "other": 0.5,
    },
}
"""Mean intensity of each tissue group in contrasts of the clinic, white matter of a T1w image at 0.85."""


@dataclass(frozen=True)
class SynthSpec:
    """Ranges from which synthetic images are drawn: mm and degrees, half-widths unless said otherwise."""

    rotation_deg: float = 10.0
    shift_mm: float = 6.0
    log_scale: float = 0.08
    anisotropic_log_scale: float = 0.04
    shear: float = 0.03
    warp_mm: float = 5.0
    warp_spacing_mm: float = 24.0
    random_contrast: float = 0.5
    contrasts: tuple[str, ...] = ("T1w", "T1w", "T2w", "FLAIR", "PDw")
    bias: float = 0.35
    noise: float = 0.07
    log_gamma: float = 0.3
    blur_mm: float = 1.6
    thick_slices: float = 0.4
    max_slice_mm: float = 6.0
    skull_kept: float = 0.5
    skull_badly_removed: float = 0.15
    subsamples: int = 3


@dataclass(frozen=True)
class Anatomy:
    """Which head, and how it is deformed: shared by all images made of it.

    Attributes
    ----------
    index
        Number of the label map.
    mirrored
        Whether left and right are exchanged.
    matrix
        (4, 4) point map from the image's template-frame millimetres to the label map's.
    velocity
        (3, x, y, z) stationary velocity, mm, on a coarse lattice spanning the image.
    """

    index: int
    mirrored: bool
    matrix: np.ndarray
    velocity: np.ndarray


@dataclass(frozen=True)
class Contrast:
    """How a head looks: intensities, artefacts and what is left around the brain.

    ``means`` and ``sds`` hold one entry per intensity group (background first); ``log_bias`` is a coarse
    lattice; ``blur_mm`` per axis; ``slices`` is (axis, thickness in mm) or None; ``skull`` is one of
    "kept", "removed", "badly"; ``rim_mm`` is how far outside the brain mask tissue is kept.
    """

    name: str
    means: np.ndarray
    sds: np.ndarray
    log_bias: np.ndarray
    blur_mm: tuple[float, float, float]
    slices: tuple[int, float] | None
    gamma: float
    noise: float
    skull: str
    rim_mm: float
    seed: int


def _rotation(angles_deg: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def draw_anatomy(
    rng: np.random.Generator,
    spec: SynthSpec,
    n_maps: int,
    extent_mm: tuple[float, float, float],
    index: int | None = None,
) -> Anatomy:
    """Draw a head and its deformation.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    spec
        Ranges of rotation, shift, scale, shear and warp.
    n_maps
        Number of label maps to choose from.
    extent_mm
        Size of the image's field of view, which the velocity lattice spans.
    index
        The label map to take; drawn when not given.

    Examples
    --------
    >>> anatomy = draw_anatomy(np.random.default_rng(0), SynthSpec(), 1, (192.0, 224.0, 192.0))
    >>> anatomy.index, anatomy.velocity.shape, bool(np.linalg.det(anatomy.matrix) > 0)
    (0, (3, 9, 11, 9), True)
    """
    linear = _rotation(rng.uniform(-1, 1, 3) * spec.rotation_deg)
    scales = np.exp(rng.uniform(-1, 1) * spec.log_scale + rng.uniform(-1, 1, 3) * spec.anisotropic_log_scale)
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = rng.uniform(-1, 1, 3) * spec.shear
    matrix = np.eye(4)
    matrix[:3, :3] = linear @ shear @ np.diag(1 / scales)
    centre = np.array([0.0, -18.0, 12.0])
    matrix[:3, 3] = centre - matrix[:3, :3] @ (centre + rng.uniform(-1, 1, 3) * spec.shift_mm)
    velocity: np.ndarray | None = None
    for spacing, share in ((2 * spec.warp_spacing_mm, 1.0), (spec.warp_spacing_mm, 0.6)):
        shape = tuple(int(np.ceil(e / spacing)) + 1 for e in extent_mm)
        coarse = rng.standard_normal((3, *shape)) * share * spec.warp_mm * rng.uniform(0, 1)
        if velocity is None:
            velocity = coarse
        else:
            factors = [1, *(b / a for a, b in zip(velocity.shape[1:], shape, strict=True))]
            velocity = zoom(velocity, factors, order=1, grid_mode=True, mode="nearest") + coarse
    return Anatomy(
        index=int(rng.integers(n_maps)) if index is None else index,
        mirrored=bool(rng.random() < 0.5),
        matrix=matrix.astype(np.float32),
        velocity=np.asarray(velocity, np.float32),
    )


def draw_contrast(rng: np.random.Generator, spec: SynthSpec, n_groups: int) -> Contrast:
    """Draw the look of an image: a contrast of the clinic or a random one, artefacts, state of the skull.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    spec
        Ranges and chances.
    n_groups
        Number of intensity groups, background included.

    Examples
    --------
    >>> spec = SynthSpec(random_contrast=0.0, contrasts=("FLAIR",))
    >>> contrast = draw_contrast(np.random.default_rng(0), spec, 20)
    >>> contrast.name, contrast.means.shape
    ('FLAIR', (20,))
    """
    tissues = list(TISSUE_GROUPS)
    means, sds = rng.uniform(0.02, 1.0, n_groups), rng.uniform(0.01, 0.09, n_groups)
    name = "random"
    if rng.random() >= spec.random_contrast:
        name = spec.contrasts[int(rng.integers(len(spec.contrasts)))]
        prior = np.array([CONTRAST_MEANS[name][t] for t in tissues])
        stretch = rng.uniform(0.75, 1.25)
        middle = prior[[0, 1]].mean()
        means[1 : len(tissues) + 1] = np.clip(middle + (prior - middle) * stretch, 0.03, 1) + rng.normal(
            0, 0.03, len(tissues)
        )
        sds[1 : len(tissues) + 1] = rng.uniform(0.01, 0.06, len(tissues))
    means[0], sds[0] = (0.0, 0.0) if rng.random() < 0.7 else (rng.uniform(0, 0.1), rng.uniform(0, 0.03))
    chance = rng.random()
    if chance < spec.skull_kept:
        skull, rim = "kept", 0.0
    elif chance < spec.skull_kept + spec.skull_badly_removed:
        skull, rim = "badly", float(rng.uniform(4, 14))
    else:
        skull, rim = "removed", float(rng.choice([0.0, 0.0, 2.0, 4.0]))
    slices = (
        (int(rng.integers(3)), float(rng.uniform(2, spec.max_slice_mm)))
        if rng.random() < spec.thick_slices
        else None
    )
    log_bias = rng.standard_normal((4, 4, 4)) * rng.uniform(0, spec.bias)
    blur_x, blur_y, blur_z = (float(b) for b in rng.uniform(0, spec.blur_mm, 3))
    return Contrast(
        name=name,
        means=means.astype(np.float32),
        sds=sds.astype(np.float32),
        log_bias=log_bias.astype(np.float32),
        blur_mm=(blur_x, blur_y, blur_z),
        slices=slices,
        gamma=float(np.exp(rng.uniform(-1, 1) * spec.log_gamma)),
        noise=float(rng.uniform(0, spec.noise)),
        skull=skull,
        rim_mm=rim,
        seed=int(rng.integers(2**31)),
    )
