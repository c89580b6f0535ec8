"""Affine alignment of two images of any contrast, from far away, with a verdict on whether it worked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import nibabel as nb
import numpy as np
from threadpoolctl import threadpool_limits

from hyperprep.exceptions import UsageError
from hyperprep.models.spatial.affines import DOFS, fit_points_robustly
from hyperprep.models.spatial.alignment import Pair, contrast_of, overlap_of, refine, search
from hyperprep.models.spatial.pyramid import Pyramid

SCALE_LIMITS = (0.5, 2.0)
"""Singular values that a plausible affine between two heads may have."""

ENOUGH_OVERLAP = 0.5
ENOUGH_CONTRAST = 7.5
"""What an alignment must reach to count as successful (see :class:`Prealignment`)."""


@dataclass(frozen=True, eq=False)
class Prealignment:
    """Result of :func:`prealign`.

    Parameters
    ----------
    fixed2moving
        ``(4, 4)`` point map, RAS mm: takes points of the fixed to the moving image, as resampling needs.
    cost
        Negative mutual information in nats at the final resolution; lower is better.
    overlap
        Share of one image's foreground that lands on the other's, in [0, 1]; the larger of both shares.
    contrast
        How many standard deviations the alignment's mutual information lies above the mean of random
        misalignments of the same two images. Right alignments of real scans reached 10 to 20, wrong ones,
        noise and phantoms 6 at most.
    success
        Whether the alignment can be trusted.
    reason
        Why not, or an empty text.
    start
        ``"centroids"`` or ``"search"``: where the refinement began.
    """

    fixed2moving: np.ndarray
    cost: float
    overlap: float
    contrast: float
    success: bool
    reason: str
    start: str

    @property
    def moving2fixed(self) -> np.ndarray:
        """``(4, 4)`` inverse point map."""
        return np.linalg.inv(self.fixed2moving)


def prealign(
    fixed: nb.Nifti1Image,
    moving: nb.Nifti1Image,
    *,
    fixed_mask: nb.Nifti1Image | None = None,
    moving_mask: nb.Nifti1Image | None = None,
    fixed_centroids: Mapping[int, np.ndarray] | None = None,
    moving_centroids: Mapping[int, np.ndarray] | None = None,
    dof: int = 12,
    any_orientation: bool = False,
    num_threads: int | None = None,
) -> Prealignment:
    """Find the linear map between two heads or brains.

    With label centroids of both images the start is a weighted least-squares fit, as in J. E. Iglesias, Sci
    Rep 13, 2023 (EasyReg). Without, some thousand similarity maps (rotations to 50 degrees, scales 0.7 to
    1.35, shifts) are tried on 8 mm images, and the best ones that differ are optimised. Mutual information
    at 8, 4 and 2 mm then refines the map, inside the fixed image's mask or foreground. Every random number
    is seeded: equal input gives equal output.

    Parameters
    ----------
    fixed, moving
        Three-dimensional images on any grid and of any contrast, with or without skull. Where one of them
        is without, it makes the better ``fixed``.
    fixed_mask, moving_mask
        What to align, on the image's own grid; the image counts as zero outside.
    fixed_centroids, moving_centroids
        FreeSurfer number to ``(3,)`` RAS mm. Used where both are given and share at least four numbers.
    dof
        6 (rigid), 7 (similarity) or 12 (affine).
    any_orientation
        Search all rotations instead of +-50 degrees, for headers whose axes are wrong (but not mirrored).
    num_threads
        Threads; one if left out.

    Returns
    -------
    Prealignment
        The map, and whether to trust it. An alignment that failed is returned, with ``success`` False and the
        reason, not raised.

    Raises
    ------
    UsageError
        If ``dof`` is none of 6, 7, 12, or the number of threads is below 1.
    ScanError
        If an image or mask is empty or hardly varies.
    """
    if dof not in DOFS:
        raise UsageError(f"An alignment has {', '.join(map(str, DOFS))} degrees of freedom, not {dof}.")
    threads = 1 if num_threads is None else num_threads
    if threads < 1:
        raise UsageError(f"The number of threads is at least 1, not {threads}.")
    with threadpool_limits(limits=threads):
        pair = Pair(
            Pyramid.of(fixed, fixed_mask, num_threads=threads),
            Pyramid.of(moving, moving_mask, num_threads=threads),
        )
        result = None
        start = _start_from_centroids(fixed_centroids, moving_centroids, pair, dof)
        if start is not None:
            result = _verdict(pair, refine(pair, [start], dof), "centroids")
        if result is None or not result.success:
            starts = search(pair, dof, any_orientation=any_orientation)
            searched = _verdict(pair, refine(pair, starts, dof), "search")
            if result is None or searched.success or searched.cost < result.cost:
                result = searched
    outer = pair.moving.residual @ result.fixed2moving @ np.linalg.inv(pair.fixed.residual)
    return replace(result, fixed2moving=outer)


def _start_from_centroids(
    fixed: Mapping[int, np.ndarray] | None, moving: Mapping[int, np.ndarray] | None, pair: Pair, dof: int
) -> np.ndarray | None:
    """Least-squares map of the shared centroids, or None where there are too few."""
    shared = sorted(set(fixed or ()) & set(moving or ()))
    if len(shared) < 4 or fixed is None or moving is None:
        return None
    source, target = (np.array([points[number] for number in shared], float) for points in (fixed, moving))
    usable = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    if usable.sum() < 4:
        return None
    try:
        matrix = fit_points_robustly(
            source[usable], target[usable], dof=dof if usable.sum() >= 8 else min(dof, 7)
        )
    except ValueError:
        return None
    matrix = np.linalg.inv(pair.moving.residual) @ matrix @ pair.fixed.residual
    return matrix if _plausible(matrix) else None


def _plausible(matrix: np.ndarray) -> bool:
    low, high = SCALE_LIMITS
    stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return bool(np.linalg.det(matrix[:3, :3]) > 0 and stretches.min() >= low and stretches.max() <= high)


def _verdict(pair: Pair, refined: tuple[np.ndarray, float], start: str) -> Prealignment:
    """Decide whether a refined map can be trusted."""
    matrix, information = refined
    contrast, overlap = contrast_of(pair, matrix), overlap_of(pair, matrix)
    reason = ""
    if not _plausible(matrix):
        stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
        reason = (
            f"The alignment mirrors or stretches by {stretches.min():.2f} to {stretches.max():.2f}, "
            f"beyond {SCALE_LIMITS[0]} to {SCALE_LIMITS[1]}: are both images of heads, in millimetres?"
        )
    elif overlap < ENOUGH_OVERLAP:
        reason = (
            f"Only {100 * overlap:.0f} % of one image's foreground lie on the other's "
            f"(at least {100 * ENOUGH_OVERLAP:.0f} % are needed): is the brain complete in both?"
        )
    elif contrast < ENOUGH_CONTRAST:
        reason = (
            f"The images match hardly better than when misaligned on purpose ({contrast:.1f} standard "
            f"deviations, at least {ENOUGH_CONTRAST} are needed): look at both, and give masks or "
            "correct their orientation."
        )
    return Prealignment(matrix, -information, overlap, contrast, not reason, reason, start)
