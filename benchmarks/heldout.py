"""Held-out pairs, synthetic and real, that registration networks are measured on while they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.registration import pairs_of, prealigned
from hyperprep.models.losses.regularity import jacobian_determinant
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.measures import dice
from hyperprep.models.spatial.transforms import resample
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.train.registration import RegistrationTask, brain_pair
from hyperprep.models.train.segmentation import STRUCTURES

CENTRE_MM = (0.0, -18.0, 4.0)
EXTENT_MM = (176.0, 208.0, 176.0)
"""Field of view that holds every adult brain in the template frame."""

LABELS_MM = 2.0
"""Spacing of the labels whose overlap is measured."""


def lattice_of(spacing: float, divisor: int = 16) -> Lattice:
    """Make the smallest lattice over the brain whose sides a network with four halvings can take.

    >>> lattice_of(4.0).shape, lattice_of(8.0).shape
    ((48, 64, 48), (32, 32, 32))
    """
    x, y, z = (divisor * int(np.ceil(e / spacing / divisor)) for e in EXTENT_MM)
    left, back, low = (c - spacing * (n - 1) / 2 for c, n in zip(CENTRE_MM, (x, y, z), strict=True))
    return Lattice((x, y, z), spacing, (left, back, low))


def finer(lattice: Lattice, spacing: float) -> Lattice:
    """Divide each voxel of a lattice into cubes of ``spacing`` mm; the field of view stays.

    >>> finer(Lattice((2, 3, 4), 4.0, (0.0, 0.0, 0.0)), 2.0)
    Lattice(shape=(4, 6, 8), spacing=2.0, origin=(-1.0, -1.0, -1.0))
    """
    times = round(lattice.spacing / spacing)
    x, y, z = (n * times for n in lattice.shape)
    left, back, low = (o - (lattice.spacing - spacing) / 2 for o in lattice.origin)
    return Lattice((x, y, z), spacing, (left, back, low))


@dataclass(frozen=True)
class HeldOut:
    """One pair: images (1, 1, *shape) on the network's lattice, labels at 2 mm over the same field."""

    name: str
    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_labels: np.ndarray
    moving_labels: torch.Tensor


def _pooled(image: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    return F.avg_pool3d(image, round(lattice.spacing / LABELS_MM))


def synthetic_pairs(task: RegistrationTask, count: int) -> list[HeldOut]:
    """Make pairs of the heads that the task keeps out of training, drawn as the task draws them.

    Images are made at 2 mm and averaged to the lattice; fixed and moving change roles from pair to pair.
    """
    fine, last, pairs = finer(task.lattice, LABELS_MM), len(task.maps.maps), []
    table = task.maps.lookup(STRUCTURES).long()
    for turn in range(count):
        rng = np.random.default_rng([90210, turn])
        heads = (last - 1 - turn % task.held_out, last - 1 - (turn + 1) % task.held_out)
        images, labels = [], []
        for image, sampling in brain_pair(
            task.maps, fine, task.spec, rng, heads, same_contrast=task.same_contrast
        ):
            images.append(_pooled(image, task.lattice))
            labels.append(table[sampling.indices[0].long()] * sampling.brain.long())
        pairs.append(HeldOut(f"synthetic {turn}", *images, labels[0].numpy(), labels[1]))
    return pairs


def real_pairs(data: Path, lattice: Lattice, count: int, threads: int) -> list[HeldOut]:
    """Make pairs of real brains with manual labels, prealigned as for the comparison with other programs."""
    fine = finer(lattice, LABELS_MM)
    affine = np.diag([fine.spacing] * 3 + [1.0])
    affine[:3, 3] = fine.origin
    grid = Grid(fine.shape, affine)
    found = {}
    for subject, (image, dseg) in prealigned(data, threads).items():
        values = torch.from_numpy(resample(image, grid, [np.eye(4)]).get_fdata(dtype=np.float32))
        labels = resample(dseg, grid, [np.eye(4)], interpolation="nearest")
        found[subject] = _pooled(values[None, None], lattice), np.asanyarray(labels.dataobj).astype(np.int64)
    return [
        HeldOut(f"{a} <- {b}", found[a][0], found[b][0], found[a][1], torch.from_numpy(found[b][1]))
        for a, b in pairs_of(sorted(found), count)
    ]


@torch.no_grad()
def measure(
    register: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None, pairs: list[HeldOut]
) -> dict[str, float]:
    """Measure a network: means over pairs of hard Dice of all labels, folding (percent) and sd of J.

    Parameters
    ----------
    register
        Gives the velocity (1, 3, *shape / 2) of (fixed, moving); None measures the affine alignment.
    pairs
        Held-out pairs.
    """
    rows = []
    for pair in pairs:
        shape = pair.fixed_labels.shape
        coarse = [n // 2 for n in pair.fixed.shape[2:]]
        velocity = (
            torch.zeros(1, 3, *coarse) if register is None else register(pair.fixed, pair.moving).float()
        )
        displacement = integrate(velocity, steps=6)
        full = F.interpolate(displacement, size=shape, mode="trilinear") * (shape[0] / coarse[0])
        moved = warp(pair.moving_labels[None, None].float(), full, mode="nearest")[0, 0].long().numpy()
        numbers = [int(n) for n in np.unique(pair.fixed_labels) if n > 0]
        determinant = jacobian_determinant(displacement)
        rows.append(
            (
                float(np.mean(list(dice(pair.fixed_labels, moved, numbers).values()))),
                100 * float((determinant <= 0).float().mean()),
                float(determinant.std()),
            )
        )
    means = np.mean(rows, axis=0)
    return {k: round(float(v), 5) for k, v in zip(("dice", "folding", "sd_jacobian"), means, strict=True)}


def sweep(
    model: torch.nn.Module, lams: list[float], pairs: list[HeldOut]
) -> Iterator[tuple[float, dict[str, float]]]:
    """Measure a network that takes (fixed, moving, hyper) at each lambda."""
    for lam in lams:
        hyper = torch.tensor([lam])
        yield lam, measure(lambda f, m, hyper=hyper: model(f, m, hyper), pairs)
