"""Alter real scans as another session of the same scanner would: brightness, bias field, noise, alignment."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
from scipy import ndimage

from hyperprep.models.spatial.affines import similarities

NODES = 4
"""Nodes of the bias field along each axis."""


@dataclass(frozen=True)
class Alteration:
    """How a scan is altered.

    Attributes
    ----------
    log_gamma
        Natural logarithm of the exponent of the intensities.
    log_bias
        (n, n, n) natural logarithm of the bias field at nodes that span the image.
    noise
        Standard deviation of the noise, as a share of the 99.5th percentile of what is not 0.
    rotation, log_scale, shift
        (3,) radians, natural logarithm, (3,) mm: by how much the alignment differs.
    seed
        Seed of the noise.
    """

    log_gamma: float
    log_bias: np.ndarray
    noise: float
    rotation: np.ndarray
    log_scale: float
    shift: np.ndarray
    seed: int


def draw_alteration(rng: np.random.Generator) -> Alteration:
    """Draw an alteration that keeps the contrast: gamma within 20 %, alignment within 3 degrees and 2 mm.

    Examples
    --------
    >>> abs(draw_alteration(np.random.default_rng(0)).log_gamma) <= 0.2
    True
    """
    return Alteration(
        log_gamma=float(rng.uniform(-0.2, 0.2)),
        log_bias=rng.normal(0, rng.uniform(0, 0.15), (NODES,) * 3),
        noise=float(rng.uniform(0, 0.03)),
        rotation=np.deg2rad(rng.uniform(-3, 3, 3)),
        log_scale=float(rng.uniform(-0.02, 0.02)),
        shift=rng.uniform(-2, 2, 3),
        seed=int(rng.integers(2**31)),
    )


def altered_scan(scan: nb.Nifti1Image, drawn: Alteration) -> nb.Nifti1Image:
    """Alter a scan's intensities; what is 0 stays 0.

    Examples
    --------
    >>> scan = nb.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    >>> made = altered_scan(scan, draw_alteration(np.random.default_rng(0))).get_fdata()
    >>> float(made[0, 0, 0]), bool((made[1] > 0).all())
    (0.0, True)
    """
    data = scan.get_fdata(dtype=np.float32)
    known = data != 0
    top = max(float(np.percentile(data[known], 99.5)), 1e-6) if known.any() else 1.0
    share = np.maximum(data / top, 0) ** np.exp(drawn.log_gamma)
    zoom = [n / NODES for n in data.shape]
    bias = ndimage.zoom(drawn.log_bias, zoom, order=1, grid_mode=True, mode="nearest")
    noise = np.random.default_rng(drawn.seed).standard_normal(data.shape, dtype=np.float32)
    made = np.maximum(share * np.exp(bias) + drawn.noise * noise, 1e-4) * known * top
    return nb.Nifti1Image(made.astype(np.float32), scan.affine)


def altered_alignment(template2scan: np.ndarray, centre_mm: np.ndarray, drawn: Alteration) -> np.ndarray:
    """Alter an affine alignment about a point of the template.

    Parameters
    ----------
    template2scan
        (4, 4) point map, RAS mm.
    centre_mm
        (3,) point of the template that is turned about.
    drawn
        How.

    Returns
    -------
    numpy.ndarray
        (4, 4) point map.
    """
    moved = similarities(
        drawn.rotation[None], np.array([drawn.log_scale]), drawn.shift[None],
        fixed_center=centre_mm, moving_center=centre_mm,
    )[0]  # fmt: skip
    return np.asarray(template2scan @ moved)
