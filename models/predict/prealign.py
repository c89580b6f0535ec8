"""Affine alignment of two images of any contrast, from far away, with a verdict on whether it worked."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import nibabel as nb
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from hyperprep.exceptions import UsageError
from hyperprep.models.spatial.affines import DOFS, fit_points_robustly, restrict, similarities
from hyperprep.models.spatial.matching import BINS, Matcher
from hyperprep.models.spatial.pyramid import Pyramid

SCALE_LIMITS = (0.5, 2.0)
"""Singular values that a plausible affine between two heads may have."""

_RADIUS = 60.0  # mm: turns angles and strains into displacements, so that all parameters weigh alike


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
        Share of the fixed image's foreground that lands on the moving image's foreground, in [0, 1].
    contrast
        How many standard deviations the alignment's mutual information lies above that of random
        misalignments of the same two images.
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
        pair = _Pair(
            Pyramid.of(fixed, fixed_mask, num_threads=threads),
            Pyramid.of(moving, moving_mask, num_threads=threads),
        )
        result = None
        start = _start_from_centroids(fixed_centroids, moving_centroids, pair, dof)
        if start is not None:
            result = _verdict(pair, _refine(pair, [start], dof), "centroids")
        if result is None or not result.success:
            searched = _verdict(pair, _refine(pair, _search(pair, dof), dof), "search")
            if result is None or searched.success or searched.cost < result.cost:
                result = searched
    outer = pair.moving.residual @ result.fixed2moving @ np.linalg.inv(pair.fixed.residual)
    return replace(result, fixed2moving=outer)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both pyramids; all maps between their levels' (unsheared) spaces."""

    fixed: Pyramid
    moving: Pyramid

    def matcher(self, level: int, margin: float, count: int, *, blur: float = 0.0) -> Matcher:
        """Compare at no more than ``count`` points of the fixed foreground, grown by a margin in mm.

        The moving image is never coarser than 4 mm, as it may be smaller than the fixed one; ``blur`` (mm)
        smooths it.
        """
        fixed, moving = self.fixed.levels[level], self.moving.levels[min(level, 4)]
        domain = fixed.domain(margin)
        voxels, values = np.argwhere(domain), fixed.data[domain]
        if len(voxels) > count:
            chosen = np.sort(np.random.default_rng(0).choice(len(voxels), count, replace=False))
            voxels, values = voxels[chosen], values[chosen]
        classes = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        data = gaussian_filter(moving.data, blur / moving.grid.spacing) if blur else moving.data
        return Matcher(fixed.grid.to_world(voxels), classes, data, moving.grid)


def _start_from_centroids(
    fixed: Mapping[int, np.ndarray] | None, moving: Mapping[int, np.ndarray] | None, pair: _Pair, dof: int
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


def _distance(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> float:
    """Mean distance in mm between where two maps take points ``(N, 3)``."""
    difference = a - b
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def _candidates(pair: _Pair, dof: int) -> np.ndarray:
    """Cover +-50 degrees, scales 0.57 to 1.4 and 30 mm around the centres with maps ``(N, 4, 4)``."""
    angles = np.arange(-2, 3) * 20.0
    turns = np.array([turn for turn in itertools.product(angles, repeat=3) if np.linalg.norm(turn) <= 50])
    sizes = np.log([0.6, 0.74, 0.91, 1.11, 1.36]) if dof > 6 else np.zeros(1)
    shifts = np.concatenate([np.zeros((1, 3)), 30 * np.eye(3), -30 * np.eye(3)])
    which = np.array(list(itertools.product(range(len(turns)), range(len(sizes)), range(len(shifts)))))
    centers = pair.fixed.levels[8].center, pair.moving.levels[8].center
    maps = similarities(
        np.deg2rad(turns[which[:, 0]]),
        sizes[which[:, 1]],
        shifts[which[:, 2]],
        fixed_center=centers[0],
        moving_center=centers[1],
    )
    return np.concatenate([np.eye(4)[None], maps])


def _search(pair: _Pair, dof: int, *, starts: int = 30, keep: int = 3) -> list[np.ndarray]:
    """Best distinct similarity (rigid) maps at 8 mm, best first."""
    screen = pair.matcher(8, 0, 1200, blur=2.5)
    maps = _candidates(pair, dof)
    order = np.argsort(-screen.information(maps), kind="stable")
    some = screen.points[:: max(1, len(screen.points) // 60)]
    chosen = _distinct((maps[index] for index in order), some, nearest=12.0, count=starts)
    for blur, count in ((2.5, 10), (0.0, keep)):
        matcher = pair.matcher(8, 0, 3000, blur=blur)
        found = [_optimise(matcher, matrix, min(dof, 7), iterations=20) for matrix in chosen]
        found.sort(key=lambda result: -result[1])
        chosen = _distinct((matrix for matrix, _ in found), some, nearest=5.0, count=count)
    return chosen


def _distinct(
    maps: Iterable[np.ndarray], points: np.ndarray, *, nearest: float, count: int
) -> list[np.ndarray]:
    """First maps of a sequence that lie further than ``nearest`` mm from each other."""
    kept: list[np.ndarray] = []
    for matrix in maps:
        if all(_distance(matrix, other, points) > nearest for other in kept):
            kept.append(matrix)
            if len(kept) == count:
                break
    return kept


def _refine(pair: _Pair, starts: list[np.ndarray], dof: int) -> tuple[np.ndarray, float]:
    """Best map at 2 mm and its mutual information: all starts at 8 and 4 mm, the winner at 2 mm."""
    coarse, middle = pair.matcher(8, 0, 4000), pair.matcher(4, 4, 20_000)
    found = []
    for start in starts:
        matrix, _ = _optimise(coarse, start, dof)
        found.append(_optimise(middle, matrix, dof))
    best = max(found, key=lambda result: result[1])[0]
    return _optimise(pair.matcher(2, 4, 40_000), best, dof, iterations=20)


def _optimise(
    matcher: Matcher, start: np.ndarray, dof: int, *, iterations: int = 40
) -> tuple[np.ndarray, float]:
    """Maximise mutual information from a start (L-BFGS-B); give the map and its information in nats."""
    center = matcher.points.mean(axis=0)
    begin = restrict(start, dof, center=center)
    image = begin[:3, :3] @ center + begin[:3, 3]

    def to_matrix(parameters: np.ndarray) -> np.ndarray:
        matrix = np.eye(4)
        if dof == 12:
            linear = begin[:3, :3] @ (np.eye(3) + parameters[3:].reshape(3, 3) / _RADIUS)
        else:
            scale = np.exp(parameters[6] / _RADIUS) if dof == 7 else 1.0
            linear = scale * Rotation.from_rotvec(parameters[3:6] / _RADIUS).as_matrix() @ begin[:3, :3]
        matrix[:3, :3] = linear
        matrix[:3, 3] = image + parameters[:3] - linear @ center
        return matrix

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, by_entry = matcher.information_and_gradient(to_matrix(parameters))
        steps = 1e-3 * np.eye(dof)
        by_parameter = [to_matrix(parameters + step)[:3] - to_matrix(parameters - step)[:3] for step in steps]
        return -value, -(np.array(by_parameter) / 2e-3 * by_entry).sum(axis=(1, 2))

    options = {"maxiter": iterations, "maxcor": 12, "ftol": 1e-6, "gtol": 1e-6}
    bounds = [(-100.0, 100.0)] * 3 + [(-50.0, 50.0)] * (dof - 3)
    solution = minimize(objective, np.zeros(dof), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return to_matrix(solution.x), float(-solution.fun)


def _verdict(pair: _Pair, refined: tuple[np.ndarray, float], start: str) -> Prealignment:
    matrix, information = refined
    contrast = _contrast(pair, matrix)
    overlap = _overlap(pair, matrix)
    reason = ""
    return Prealignment(matrix, -information, overlap, contrast, not reason, reason, start)


def _contrast(pair: _Pair, matrix: np.ndarray, *, count: int = 200) -> float:
    """Compare the found mutual information with that of random misalignments, in standard deviations."""
    rng = np.random.default_rng(0)
    matcher = pair.matcher(8, 0, 3000)
    center = matcher.points.mean(axis=0)
    axes = rng.normal(size=(count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    wrong = similarities(
        axes * np.deg2rad(rng.uniform(50, 180, size=(count, 1))),
        rng.uniform(np.log(0.8), np.log(1.25), size=count),
        rng.uniform(-25, 25, size=(count, 3)),
        fixed_center=center,
        moving_center=center,
    )
    informations = matcher.information(np.concatenate([matrix[None], matrix @ wrong]))
    null = informations[1:]
    return float((informations[0] - null.mean()) / max(null.std(), 1e-6))


def _overlap(pair: _Pair, matrix: np.ndarray) -> float:
    """Share of the fixed foreground (4 mm) that lands on the moving foreground."""
    fixed, moving = pair.fixed.levels[4], pair.moving.levels[4]
    points = fixed.grid.to_world(np.argwhere(fixed.domain(0)))
    voxels = np.rint(moving.grid.to_voxels(points @ matrix[:3, :3].T + matrix[:3, 3])).astype(int)
    inside = ((voxels >= 0) & (voxels < moving.data.shape)).all(axis=1)
    hits = moving.domain(0)[tuple(voxels[inside].T)]
    return float(hits.sum() / len(points))
