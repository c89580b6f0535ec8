"""Linear alignment of two image pyramids: search from afar, refinement, and how much to trust the result."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from hyperprep.models.spatial.affines import restrict, similarities
from hyperprep.models.spatial.matching import BINS, Matcher
from hyperprep.models.spatial.pyramid import Level, Pyramid

_BATCHES = (20, 40, 80)  # candidates optimised before the search looks whether it may stop

_RADIUS = 60.0  # mm: turns angles and strains into displacements, so that all parameters weigh alike


@dataclass(frozen=True, eq=False)
class Pair:
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


def mean_distance(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> float:
    """Mean distance in mm between where two maps take points ``(N, 3)``."""
    difference = a - b
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def _candidates(pair: Pair, dof: int, any_orientation: bool) -> np.ndarray:
    """Cover +-50 degrees (or all), scales 0.57 to 1.4, 30 mm around the centres with maps ``(N, 4, 4)``."""
    angles = np.deg2rad(np.arange(-2, 3) * 20.0)
    near = [turn for turn in itertools.product(angles, repeat=3) if np.linalg.norm(turn) <= np.deg2rad(50)]
    turns = np.array(near)
    if any_orientation:  # the 24 rotations of a cube; two steps of 40 degrees about each axis fill the gaps
        small = Rotation.from_rotvec([turn for turn in near if np.isin(np.abs(turn), (0, angles[-1])).all()])
        turns = np.concatenate([(small * quarter).as_rotvec() for quarter in Rotation.create_group("O")])
    sizes = np.log([0.6, 0.74, 0.91, 1.11, 1.36]) if dof > 6 else np.zeros(1)
    shifts = np.concatenate([np.zeros((1, 3)), 30 * np.eye(3), -30 * np.eye(3)])
    which = np.array(list(itertools.product(range(len(turns)), range(len(sizes)), range(len(shifts)))))
    centers = pair.fixed.levels[8].center, pair.moving.levels[8].center
    maps = similarities(
        turns[which[:, 0]],
        sizes[which[:, 1]],
        shifts[which[:, 2]],
        fixed_center=centers[0],
        moving_center=centers[1],
    )
    return np.concatenate([np.eye(4)[None], maps])


def search(
    pair: Pair, dof: int, *, enough_contrast: float = 7.5, any_orientation: bool = False
) -> list[np.ndarray]:
    """Search similarity (rigid) maps from afar, at 8 mm.

    Candidates are optimised in order of their mutual information, in growing batches, until the best of them
    stands out.

    Parameters
    ----------
    pair
        The images.
    dof
        6 searches rigid maps, 7 and 12 similarity maps.
    enough_contrast
        :func:`contrast_of` at which the search may stop early.
    any_orientation
        Search all rotations instead of +-50 degrees.

    Returns
    -------
    list of numpy.ndarray
        Up to three distinct ``(4, 4)`` point maps, fixed to moving, best first.
    """
    coarse, fine = pair.matcher(8, 0, 1200, blur=2.5), pair.matcher(8, 0, 3000)
    middle = pair.matcher(4, 0, 6000)
    maps, freedom = _candidates(pair, dof, any_orientation), min(dof, 7)
    order = np.argsort(-coarse.information(maps), kind="stable")
    some = coarse.points[::20]
    promising = _distinct((maps[index] for index in order), some, nearest=8.0, count=sum(_BATCHES))
    turned: list[tuple[np.ndarray, float]] = []
    best: list[tuple[np.ndarray, float]] = []

    def sharpen(starts: list[np.ndarray]) -> bool:
        """Optimise starts without blur, keep the best of all, and tell whether the first stands out."""
        nonlocal best
        found = [optimise(fine, start, freedom, iterations=20) for start in starts]
        best = _best_first(best + found, some, 3)
        refined, _ = optimise(middle, best[0][0], dof, iterations=12)
        return contrast_of(pair, refined) >= enough_contrast

    for batch in np.split(np.arange(len(promising)), np.cumsum(_BATCHES)[:-1]):
        turned += [optimise(coarse, promising[index], 6, iterations=12) for index in batch]
        if sharpen([matrix for matrix, _ in _best_first(turned, some, 8)]):
            break
        if dof > 6 and sharpen(
            [
                optimise(coarse, start, 6, iterations=12)[0]
                for found, _ in best[:2]
                for start in _rescaled(found, pair)
            ]
        ):
            break
    return [matrix for matrix, _ in best]


def _rescaled(matrix: np.ndarray, pair: Pair) -> np.ndarray:
    """Try other scales about the fixed centre: a brain also fits the outline of a head, only too large."""
    scales = np.log([0.65, 0.72, 0.8, 0.89, 1.12, 1.25, 1.4])
    center, zeros = pair.fixed.levels[8].center, np.zeros((len(scales), 3))
    return matrix @ similarities(zeros, scales, zeros, fixed_center=center, moving_center=center)


def _best_first(
    found: list[tuple[np.ndarray, float]], points: np.ndarray, count: int
) -> list[tuple[np.ndarray, float]]:
    """Best maps by their information, further than 5 mm from each other."""
    kept: list[tuple[np.ndarray, float]] = []
    for matrix, information in sorted(found, key=lambda result: -result[1]):
        if all(mean_distance(matrix, other, points) > 5.0 for other, _ in kept):
            kept.append((matrix, information))
    return kept[:count]


def _distinct(
    maps: Iterable[np.ndarray], points: np.ndarray, *, nearest: float, count: int
) -> list[np.ndarray]:
    """Keep the first maps of a sequence that lie further than ``nearest`` mm from each other."""
    kept: list[np.ndarray] = []
    for matrix in maps:
        if all(mean_distance(matrix, other, points) > nearest for other in kept):
            kept.append(matrix)
            if len(kept) == count:
                break
    return kept


def refine(pair: Pair, starts: list[np.ndarray], dof: int) -> tuple[np.ndarray, float]:
    """Refine all starts at 8 and 4 mm and the best of them at 2 mm.

    Returns
    -------
    matrix
        ``(4, 4)`` point map, fixed to moving.
    information
        Its mutual information in nats.
    """
    coarse, middle, inner = pair.matcher(8, 0, 4000), pair.matcher(4, 4, 20_000), pair.matcher(4, 0, 6000)
    found = []
    for start in starts:
        matrix, _ = optimise(coarse, start, dof)
        found.append(optimise(middle, matrix, dof)[0])
    # the margin helps to hold the outline, but a brain in the outline of a head must not win by it
    best = found[int(np.argmax(inner.information(np.array(found))))]
    return optimise(pair.matcher(2, 4, 40_000), best, dof, iterations=20)


def optimise(
    matcher: Matcher, start: np.ndarray, dof: int, *, iterations: int = 40
) -> tuple[np.ndarray, float]:
    """Maximise mutual information from a start (L-BFGS-B); give the map and its information in nats."""
    center = matcher.points.mean(axis=0)
    begin = restrict(start, max(dof, 7), center=center)  # 6: the scale of the start stays
    steps = 1e-3 * np.concatenate([np.zeros((1, dof)), np.eye(dof), -np.eye(dof)])

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        maps = _maps_near(begin, center, dof, parameters + steps)
        value, by_entry = matcher.information_and_gradient(maps[0])
        by_parameter = (maps[1 : dof + 1, :3] - maps[dof + 1 :, :3]) / 2e-3
        return -value, -(by_parameter * by_entry).sum(axis=(1, 2))

    solution = minimize(
        objective,
        np.zeros(dof),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-100.0, 100.0)] * 3 + [(-50.0, 50.0)] * (dof - 3),
        options={"maxiter": iterations, "maxcor": 12, "ftol": 1e-6, "gtol": 1e-6},
    )
    matrix = _maps_near(begin, center, dof, solution.x[None])[0]
    if np.linalg.det(matrix[:3, :3]) <= 0:  # a strain so large that it mirrors
        return begin, matcher.information_and_gradient(begin)[0]
    return matrix, float(-solution.fun)


def _maps_near(begin: np.ndarray, center: np.ndarray, dof: int, parameters: np.ndarray) -> np.ndarray:
    """Vary a map: shifts (mm), then turns and log scale, or strains, times a head's radius (mm).

    ``parameters`` is ``(K, dof)``, the result ``(K, 4, 4)``; all zero gives ``begin``.
    """
    shape = parameters[:, 3:] / _RADIUS
    if dof == 12:
        linear = begin[:3, :3] @ (np.eye(3) + shape.reshape(-1, 3, 3))
    else:
        linear = Rotation.from_rotvec(shape[:, :3]).as_matrix() @ begin[:3, :3]
        if dof == 7:
            linear = linear * np.exp(shape[:, 3])[:, None, None]
    maps = np.tile(np.eye(4), (len(parameters), 1, 1))
    maps[:, :3, :3] = linear
    maps[:, :3, 3] = begin[:3, :3] @ center + begin[:3, 3] + parameters[:, :3] - linear @ center
    return maps


def contrast_of(pair: Pair, matrix: np.ndarray, *, count: int = 100) -> float:
    """Compare an alignment's mutual information at 2 mm with random misalignments', in standard deviations.

    Turns of 12 to 25 degrees, shifts of 10 mm and scales of +-10 % leave the outlines of two wrongly aligned
    heads about as similar as they were, but spoil a true alignment.

    Parameters
    ----------
    pair
        The images.
    matrix
        ``(4, 4)`` point map, fixed to moving.
    count
        Number of misalignments.
    """
    rng = np.random.default_rng(0)
    matcher = pair.matcher(2, 0, 8000)
    center = matcher.points.mean(axis=0)
    axes, directions = rng.normal(size=(2, count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wrong = similarities(
        axes * np.deg2rad(rng.uniform(12, 25, size=(count, 1))),
        rng.uniform(-0.1, 0.1, size=count),
        10 * directions,
        fixed_center=center,
        moving_center=center,
    )
    found, *null = matcher.information(np.concatenate([matrix[None], matrix @ wrong]))
    return float((found - np.mean(null)) / max(float(np.std(null)), 1e-6))


def overlap_of(pair: Pair, matrix: np.ndarray) -> float:
    """Compute how much of one foreground lies on the other, at 4 mm, in [0, 1].

    The larger of both shares counts, as a brain may be aligned with a whole head.
    """
    fixed, moving = pair.fixed.levels[4], pair.moving.levels[4]
    return max(_share_on(fixed, moving, matrix), _share_on(moving, fixed, np.linalg.inv(matrix)))


def _share_on(source: Level, target: Level, matrix: np.ndarray) -> float:
    """Share of a level's foreground that a map takes onto another level's foreground."""
    points = source.grid.to_world(np.argwhere(source.domain(0)))
    voxels = np.rint(target.grid.to_voxels(points @ matrix[:3, :3].T + matrix[:3, 3])).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < target.data.shape)).all(axis=1)
    hits = target.domain(0)[tuple(voxels[inside].T)]
    return float(hits.sum() / len(points))
