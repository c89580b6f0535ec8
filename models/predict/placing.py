"""Examples brought to a subject: aligned, sampled, chosen by similarity, resampled as bootstraps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import AlignmentError, ScanError
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nets.neuralizer import INPUT_CHANNELS
from hyperprep.models.nn.warp import warp
from hyperprep.models.predict.normalise import deformation
from hyperprep.models.predict.prealign import prealign
from hyperprep.models.predict.sampling import sample_averaged
from hyperprep.models.spatial.examples import ExampleImages, Kind
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.spatial.transforms import resample

SAME_UNIT = 0.05
"""Spread (share of the mean) up to which the examples' outputs count as having one unit."""


@dataclass(frozen=True)
class Placed:
    """One example on the subject's model grid.

    Attributes
    ----------
    label
        Name of the example.
    scan2example
        (4, 4) point map from the subject's scan to the example, RAS mm.
    volumes
        (4, *grid) float32 in [0, 1]: input channels and output, of masks the share of each voxel.
    similarity
        Local correlation with the subject's first image, in [0, 1].
    output_range
        Output values that 0 and 1 stand for.
    input_top
        Value of the first input that 1 stands for.
    """

    label: str
    scan2example: np.ndarray
    volumes: torch.Tensor
    similarity: float
    output_range: tuple[float, float]
    input_top: float


def foreground(
    values: np.ndarray, mask: nb.Nifti1Image | None, grid: Grid, to_image: np.ndarray
) -> np.ndarray:
    """Mark where the intensity range is taken on a grid: in the mask, or where the image is not dark.

    Raises
    ------
    ScanError
        When nothing of the image or mask lies on the grid.
    """
    if mask is None:
        inside = values > 0.1 * np.quantile(values, 0.99)
    else:
        inside = resample(mask, grid, [to_image], interpolation="nearest").get_fdata() > 0
    if inside.sum() < 64:
        raise ScanError(
            "Almost nothing of the image lies where the template's brain is: the alignment or the mask is "
            "wrong. Look at both."
        )
    return np.asarray(inside)


def sample_inputs(
    images: Sequence[nb.Nifti1Image],
    mask: nb.Nifti1Image | None,
    grid: Grid,
    to_image: np.ndarray,
    limits: tuple[float, float] = (0.5, 99.5),
) -> tuple[np.ndarray, np.ndarray, float]:
    """Sample images on the model grid and scale them; ``limits`` are the percentiles that become 0 and 1.

    Returns
    -------
    tuple
        (3, *grid) float32 in [0, 1], the voxels that the range was taken from, and the first image's upper
        percentile there.
    """
    out = np.zeros((INPUT_CHANNELS, *grid.shape), np.float32)
    inside, top = np.ones(grid.shape, bool), 1.0
    for place, image in enumerate(images):
        values = sample_averaged(image, grid, to_image)
        if place == 0:
            inside = foreground(values, mask, grid, to_image)
            top = float(np.percentile(values[inside], limits[1]))
        out[place] = robust_rescale(values, inside, low=limits[0], high=limits[1])
    return out, inside, top


def place_example(
    example: ExampleImages,
    subject: tuple[nb.Nifti1Image, nb.Nifti1Image | None, np.ndarray, np.ndarray],
    grid: Grid,
    template2scan: np.ndarray,
    kind: Kind,
    num_threads: int | None = None,
    scan2example: np.ndarray | None = None,
    limits: tuple[float, float] = (0.5, 99.5),
    *,
    deform: bool = True,
) -> Placed:
    """Align one example to the subject, sample it on the model grid and deform it onto the subject there.

    Parameters
    ----------
    example
        Its images.
    subject
        First image of the subject, its brain mask or None, and on the grid: the image, and where it is not
        background.
    grid
        The model grid.
    template2scan
        (4, 4) point map from the grid's frame to the subject's scan.
    kind
        Kind of the output.
    num_threads
        Threads of the alignment.
    scan2example
        (4, 4) point map from the scan to the example where it is known; else it is searched.
    limits
        Percentiles of the intensities that become 0 and 1.
    deform
        Register the example to the subject by local correlation; else they are aligned affinely only.

    Raises
    ------
    AlignmentError
        When the example cannot be aligned to the subject.
    """
    scan, mask, sampled, held = subject
    if scan2example is None:
        found = prealign(
            scan, example.inputs[0], fixed_mask=mask, moving_mask=example.mask, num_threads=num_threads
        )
        if not found.success:
            raise AlignmentError(f"example {example.label}: {found.reason}")
        scan2example = found.fixed2moving
    to_example = scan2example @ template2scan
    inputs, inside, top = sample_inputs(example.inputs, example.mask, grid, to_example, limits)
    if kind == "mask":
        floating = nb.Nifti1Image(np.asanyarray(example.output.dataobj, np.float32), example.output.affine)
        output = np.clip(sample_averaged(floating, grid, to_example), 0, 1)
        low, high = 0.0, 1.0
    else:
        values = sample_averaged(example.output, grid, to_example)
        low, high = (float(v) for v in np.percentile(values[inside], limits))
        if high <= low:
            raise ScanError(f"example {example.label}: its output hardly varies inside the brain.")
        output = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    volumes = torch.from_numpy(np.concatenate([inputs, output[None]]))
    covered = torch.from_numpy(inside)
    if deform:
        volumes, covered = _deformed(volumes, covered, sampled * held)
    pair = (torch.from_numpy(sampled)[None, None], volumes[None, :1])
    near = local_ncc(*pair, window=5, mask=covered[None, None].float())
    return Placed(
        label=example.label,
        scan2example=scan2example,
        volumes=volumes,
        similarity=float(near),
        output_range=(low, high),
        input_top=top,
    )


def _deformed(
    volumes: torch.Tensor, covered: torch.Tensor, subject: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Deform an example (C, *grid) and its foreground (*grid) so that its first image fits the subject's."""
    found = deformation(torch.from_numpy(subject), volumes[0] * covered)
    moved = warp(torch.cat([volumes, covered[None].float()])[None], found)[0]
    return moved[:-1], moved[-1] > 0.5


def output_range(placed: Sequence[Placed], subject_top: float) -> tuple[float, float, bool]:
    """Give the values that 0 and 1 of a predicted image stand for, and whether they have an own unit.

    Where the examples' outputs agree in their range they have a unit of their own (a T1 map in ms), which is
    kept. Else the outputs are taken as scanner units that go with the input, and follow the subject's input.

    Examples
    --------
    >>> def one(high, top): return Placed("a", np.eye(4), torch.zeros(1), 1.0, (0.0, high), top)
    >>> output_range([one(2000.0, 50.0), one(2010.0, 90.0)], 10.0)
    (0.0, 2005.0, True)
    >>> output_range([one(100.0, 50.0), one(180.0, 90.0)], 10.0)
    (0.0, 20.0, False)
    """
    lows, highs = (np.array([p.output_range[i] for p in placed]) for i in (0, 1))
    tops = np.array([p.input_top for p in placed])
    if len(placed) > 1 and highs.std() <= SAME_UNIT * abs(highs.mean()):
        return float(np.median(lows)), float(np.median(highs)), True
    return float(np.median(lows / tops) * subject_top), float(np.median(highs / tops) * subject_top), False


def choose(placed: Sequence[Placed], size: int) -> list[Placed]:
    """Take the examples most similar to the subject, best first, at most ``size``.

    Examples
    --------
    >>> def one(name, s): return Placed(name, np.eye(4), torch.zeros(1), s, (0.0, 1.0), 1.0)
    >>> [p.label for p in choose([one("a", 0.2), one("b", 0.9), one("c", 0.5)], 2)]
    ['b', 'c']
    """
    return sorted(placed, key=lambda p: (-p.similarity, p.label))[:size]


def nudged(
    volumes: torch.Tensor, rng: np.random.Generator, *, degrees: float = 3.0, share: float = 0.015
) -> torch.Tensor:
    """Turn, scale and shift volumes (C, *grid) a little: what padded examples get (section 3.5).

    Parameters
    ----------
    volumes
        The last channel is the output; one that holds 0 and 1 alone is cut at one half again.
    rng
        Where all randomness comes from.
    degrees, share
        Half-widths of the rotation about each axis, and of shift and scale as a share of the field of view.
    """
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-degrees, degrees, 3))):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    sizes = np.array(volumes.shape[1:], float)[::-1]
    matrix = matrix * np.exp(rng.uniform(-share, share)) * sizes[None, :] / sizes[:, None]
    theta = np.concatenate([matrix, 2 * rng.uniform(-share, share, (3, 1))], axis=1)
    grid = F.affine_grid(torch.from_numpy(theta)[None].to(volumes), [1, *volumes.shape], align_corners=False)
    moved = F.grid_sample(volumes[None], grid, align_corners=False)[0]
    if bool(((volumes[-1] == 0) | (volumes[-1] == 1)).all()):
        moved[-1] = (moved[-1] > 0.5).to(moved)
    return moved


def context_sets(chosen: Sequence[Placed], size: int, bootstraps: int, seed: int) -> list[torch.Tensor]:
    """Make the context sets: the examples themselves, then bootstraps drawn with replacement.

    Every set has ``size`` members. Copies of an example that is in the set already are nudged, so that they
    are no mere repetition.

    Parameters
    ----------
    chosen
        Examples; all of them are in the first set.
    size
        Members of each set, at least as many as there are examples.
    bootstraps
        Number of sets.
    seed
        Seed of the draws.

    Returns
    -------
    list of torch.Tensor
        Each (size, 4, *grid).
    """
    rng = np.random.default_rng([4242, seed])
    sets = []
    for number in range(bootstraps):
        if number == 0:
            extra = rng.integers(len(chosen), size=max(0, size - len(chosen)))
            order = [*range(len(chosen)), *(int(i) for i in extra)]
        else:
            order = [int(i) for i in rng.integers(len(chosen), size=size)]
        seen: set[int] = set()
        members = []
        for i in order:
            members.append(nudged(chosen[i].volumes, rng) if i in seen else chosen[i].volumes)
            seen.add(i)
        sets.append(torch.stack(members))
    return sets
