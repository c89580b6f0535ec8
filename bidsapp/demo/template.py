"""The MNI152 template that nilearn bundles, cut into tissues: the anatomy every demo scan is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import nibabel as nb
import numpy as np
from nibabel.affines import apply_affine
from nilearn.datasets import (
    load_mni152_brain_mask,
    load_mni152_gm_template,
    load_mni152_template,
    load_mni152_wm_template,
)

from hyperprep.models.spatial.grids import Grid

TEMPLATE_SPACE = "MNI152NLin2009aSym"
"""TemplateFlow's and BIDS' name of the space that the bundled template defines."""

TISSUE_NAMES = {1: "GM", 2: "WM", 3: "CSF"}
"""Labels of every demo segmentation (BIDS' generic tissue labels)."""

_MARGIN = 3


@dataclass(frozen=True)
class Template:
    """Brain of the template at 1 mm, cropped to the brain.

    Parameters
    ----------
    grid
        Grid of all arrays (template frame, RAS mm).
    t1w
        ``(X, Y, Z)`` float32, 0 to 1.
    gm, wm, csf
        ``(X, Y, Z)`` float32 tissue probabilities, 0 to 1; they sum to 1 inside ``mask`` and are 0 outside.
    mask
        ``(X, Y, Z)`` bool, the brain.
    """

    grid: Grid
    t1w: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    mask: np.ndarray

    @cached_property
    def dseg(self) -> nb.Nifti1Image:
        """Most probable tissue: 1 grey matter, 2 white matter, 3 CSF, 0 outside the brain (uint8)."""
        winner = 1 + np.argmax(np.stack([self.gm, self.wm, self.csf]), axis=0)
        return nb.Nifti1Image((winner * self.mask).astype(np.uint8), self.grid.affine)

    def detail(self) -> np.ndarray:
        """Return what the intensity says beyond the mean of its tissues, ``(X, Y, Z)`` float32."""
        mean = np.zeros_like(self.t1w)
        for share in (self.gm, self.wm, self.csf):
            weight = share * self.mask
            mean += share * float((weight * self.t1w).sum() / weight.sum())
        return (self.t1w - mean) * self.mask


def load_template() -> Template:
    """Load the bundled template; nothing is downloaded.

    Examples
    --------
    >>> template = load_template()
    >>> template.dseg.shape == template.grid.shape
    True
    """
    images = {
        "t1w": load_mni152_template(resolution=1),
        "gm": load_mni152_gm_template(resolution=1),
        "wm": load_mni152_wm_template(resolution=1),
    }
    whole = load_mni152_brain_mask(resolution=1)
    mask = np.asanyarray(whole.dataobj) > 0
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - _MARGIN, 0)
    high = np.minimum(inside.max(axis=0) + 1 + _MARGIN, mask.shape)
    box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    affine = whole.affine.copy()
    affine[:3, 3] = apply_affine(whole.affine, low)
    cut = {name: np.asarray(img.dataobj[box], dtype=np.float32) for name, img in images.items()}
    mask = mask[box]
    gm, wm = cut["gm"] * mask, cut["wm"] * mask
    csf = np.clip(1 - gm - wm, 0, 1) * mask
    return Template(Grid(mask.shape, affine), cut["t1w"], gm, wm, csf, mask)
