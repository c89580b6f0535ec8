"""A task from a handful of examples, on whole volumes, without training (Neuralizer, beyond its slices)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import AlignmentError, ScanError, UsageError
from hyperprep.models.nets.neuralizer import INPUT_CHANNELS, Neuralizer
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.few_shot_slices import load_few_shot, predict_slices
from hyperprep.models.predict.placing import (
    Placed,
    choose,
    context_sets,
    output_range,
    place_example,
    sample_inputs,
)
from hyperprep.models.predict.rules import percentiles
from hyperprep.models.predict.sampling import lattice_grid, volumes_on_grid
from hyperprep.models.spatial.examples import ExampleImages, Kind
from hyperprep.models.spatial.grids import Grid

ORIENTATIONS = (0, 1, 2)
SMALLEST_CONTEXT = 4
"""Fewer examples are padded to this size by nudged copies."""
LARGEST_CONTEXT = 16
"""Of more examples, the most similar ones are taken."""
MOST_ALIGNED = 32
"""Of more examples, so many are drawn and aligned."""
MARGIN_MM = 6.0
"""How far beyond the examples' outputs a mask is looked for."""


@dataclass(frozen=True)
class FewShotResult:
    """What a few-shot task made, all on the subject's own grid.

    Attributes
    ----------
    output
        uint8 mask, or float32 image.
    probability
        float32 in [0, 1], of masks; None for images.
    spread
        float32: standard deviation over orientations and bootstraps, in the unit of probability or image.
    examples
        Names of the examples used, most similar first.
    scan2example
        (4, 4) point map from the scan to each of them, RAS mm.
    metadata
        Figures for the sidecar.
    """

    output: nb.Nifti1Image
    probability: nb.Nifti1Image | None
    spread: nb.Nifti1Image
    examples: tuple[str, ...]
    scan2example: tuple[np.ndarray, ...]
    metadata: dict[str, Any] = field(default_factory=dict)


def few_shot(
    images: Sequence[nb.Nifti1Image],
    examples: Sequence[ExampleImages],
    *,
    kind: Kind,
    template2scan: np.ndarray,
    mask: nb.Nifti1Image | None = None,
    context_size: int | None = None,
    bootstraps: int = 1,
    orientations: Sequence[int] = ORIENTATIONS,
    prealigned: bool = False,
    deform: bool = True,
    chunk: int | None = None,
    seed: int = 0,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> FewShotResult:
    """Do to a subject what the examples show.

    Every example is aligned affinely to the subject and deformed onto it. Slices at the same place are then
    shown to the network, sagittal, coronal and axial; the predictions are averaged, and their spread tells
    how sure they are.

    Parameters
    ----------
    images
        One to three images of the subject on one grid, in the order of the examples' inputs.
    examples
        Images and outputs of the examples.
    kind
        Whether the task makes a mask or an image.
    template2scan
        (4, 4) point map from the template frame to the scan, RAS mm: the affine prealignment.
    mask
        Brain mask of the subject; intensities are scaled in it. Best given, for subject and examples alike.
    context_size
        Members of each context set; the number of examples, within 4 and 16, when not given. Fewer examples
        are padded with nudged copies, of more the most similar are taken.
    bootstraps
        Context sets; those after the first are drawn with replacement. Each costs as much as the first.
    orientations
        Axes across which slices are cut.
    prealigned
        The examples lie in the scan's space already; they are not aligned affinely.
    deform
        Deform the examples onto the subject, by local correlation on the network's grid.
    chunk
        Examples in memory at the same time; all when not given.
    seed
        Seed of bootstraps and of the choice among more than 32 examples.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    FewShotResult
        Output, spread and the examples used.

    Raises
    ------
    UsageError
        When there is no example, or numbers of images differ.
    AlignmentError
        When no example can be aligned to the subject.
    ScanError
        When an image cannot be used.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    _check(images, examples, bootstraps, orientations)
    clock = [time.perf_counter()]
    with torch_threads(num_threads), torch.inference_mode():
        where = pick_device(device)
        network, entry = load_few_shot(weights, weights_dir, where)
        grid = lattice_grid(entry.metadata["grid"])
        limits = percentiles(entry)
        target, inside, top = sample_inputs(images, mask, grid, template2scan, limits)
        placed, failed = _place_all(
            [examples[place] for place in drawn_places(len(examples), seed)],
            lambda example: place_example(
                example, (images[0], mask, target[0], inside), grid, template2scan, kind, num_threads,
                np.eye(4) if prealigned else None, limits, deform=deform,
            ),
        )  # fmt: skip
        if kind == "mask" and not any(bool((p.volumes[-1] > 0.5).any()) for p in placed):
            raise ScanError(
                f"The examples' masks vanish at the network's {grid.spacing[0]:g} mm, or lie outside its "
                "field of view: the structure is too small for it."
            )
        limit = context_size or LARGEST_CONTEXT
        chosen = choose(placed, limit)
        size = context_size or max(len(chosen), SMALLEST_CONTEXT)
        clock.append(time.perf_counter())
        found = _predictions(
            network, torch.from_numpy(target).to(where), context_sets(chosen, size, bootstraps, seed),
            grid, kind, orientations, chunk,
        )  # fmt: skip
        clock.append(time.perf_counter())
        low, high, own_unit = (0.0, 1.0, True) if kind == "mask" else output_range(chosen, top)
        on_scan = volumes_on_grid(found, grid, template2scan, Grid.of(images[0]))
    metadata = {
        "weights_sha256": entry.sha256,
        "resolution_mm": float(grid.spacing[0]),
        "examples": [{"label": p.label, "similarity": round(p.similarity, 4)} for p in chosen],
        "left_out": failed,
        "context_size": size,
        "bootstraps": bootstraps,
        "predictions": bootstraps * len(orientations),
        "output_range": None if kind == "mask" else [low, high],
        "output_unit_of_examples": None if kind == "mask" else own_unit,
        "align_seconds": round(clock[1] - clock[0], 2),
        "network_seconds": round(clock[2] - clock[1], 2),
    }
    return _finish(on_scan, images[0], kind, (low, high), chosen, metadata)


def _check(
    images: Sequence[nb.Nifti1Image],
    examples: Sequence[ExampleImages],
    bootstraps: int,
    orientations: Sequence[int],
) -> None:
    counts = {len(images)} | {len(e.inputs) for e in examples}
    if not examples or len(counts) > 1 or not 1 <= len(images) <= INPUT_CHANNELS:
        raise UsageError(
            f"A few-shot task needs examples with as many images as the subject (1 to {INPUT_CHANNELS}); "
            f"found {len(images)} images of the subject and {[len(e.inputs) for e in examples]} of the "
            "examples."
        )
    if bootstraps < 1 or not orientations or not set(orientations) <= set(ORIENTATIONS):
        raise UsageError(
            f"At least one bootstrap and some of the orientations {ORIENTATIONS} are needed, not "
            f"{bootstraps} and {tuple(orientations)}."
        )
    if not all(Grid.of(img).same_as(Grid.of(images[0]), tolerance=0.05) for img in images[1:]):
        raise ScanError("The subject's images lie on different grids: resample them to the first one.")


def drawn_places(count: int, seed: int) -> list[int]:
    """Choose which of many examples are read and aligned, at most 32.

    >>> drawn_places(3, 0), len(drawn_places(100, 0))
    ([0, 1, 2], 32)
    """
    if count <= MOST_ALIGNED:
        return list(range(count))
    drawn = np.random.default_rng([99, seed]).permutation(count)[:MOST_ALIGNED]
    return sorted(int(place) for place in drawn)


def _place_all(
    examples: Sequence[ExampleImages], place: Callable[[ExampleImages], Placed]
) -> tuple[list[Placed], list[str]]:
    """Align the examples; those that fail are named."""
    placed: list[Placed] = []
    failed: list[str] = []
    for example in examples:
        try:
            placed.append(place(example))
        except AlignmentError as error:
            failed.append(str(error))
    if not placed:
        raise AlignmentError(
            f"No example could be aligned to the subject ({'; '.join(failed)}). Look at the images, and give "
            "brain masks of the examples."
        )
    return placed, failed


def _box(target: torch.Tensor, context: Sequence[torch.Tensor], grid: Grid, kind: Kind) -> tuple[slice, ...]:
    """Give the part of the grid that is predicted: around the examples' masks, or where the subject is."""
    if kind == "mask":
        held = torch.stack([c[:, -1].amax(0) for c in context]).amax(0) > 0.1
        margin = round(MARGIN_MM / float(grid.spacing[0]))
    else:
        held, margin = target[0].cpu() > 0, 0
    out = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = torch.nonzero(held.any(dim=others[1]).any(dim=others[0]))[:, 0]
        low, high = int(found.min()) - margin, int(found.max()) + margin + 1
        out.append(slice(max(low, 0), min(high, held.shape[axis])))
    return tuple(out)


def _predictions(
    network: Neuralizer,
    target: torch.Tensor,
    context: Sequence[torch.Tensor],
    grid: Grid,
    kind: Kind,
    orientations: Sequence[int],
    chunk: int | None,
) -> torch.Tensor:
    """Give mean and standard deviation over orientations and sets, (2, *grid), zero outside the box."""
    box = _box(target, context, grid, kind)
    total, squares = (
        torch.zeros(grid.shape, device=target.device),
        torch.zeros(grid.shape, device=target.device),
    )
    for members in context:
        moved = members.to(target.device)
        for axis in orientations:
            one = torch.zeros_like(total)
            for place in range(box[axis].start, box[axis].stop):
                found = predict_slices(
                    network, target.select(axis + 1, place)[None], moved.select(axis + 2, place)[None],
                    chunk=chunk,
                )  # fmt: skip
                one.select(axis, place).copy_(found[0])
            total += one
            squares += one.square()
    n = len(context) * len(orientations)
    mean = total / n
    kept = torch.zeros_like(mean)
    kept[box] = 1
    return torch.stack([mean, (squares / n - mean.square()).clamp_min(0).sqrt()]) * kept


def _finish(
    values: np.ndarray,
    scan: nb.Nifti1Image,
    kind: Kind,
    scale: tuple[float, float],
    chosen: Sequence[Placed],
    metadata: dict[str, Any],
) -> FewShotResult:
    low, high = scale

    def image(data: np.ndarray) -> nb.Nifti1Image:
        return nb.Nifti1Image(data, scan.affine)

    if kind == "mask":
        output, probability = image((values[0] > 0.5).astype(np.uint8)), image(values[0])
        voxel = float(abs(np.linalg.det(scan.affine[:3, :3])))
        metadata["volume_mm3"] = round(float(np.count_nonzero(values[0] > 0.5)) * voxel, 1)
    else:
        made = np.where(values[0] > 0, values[0] * (high - low) + low, 0)
        output, probability = image(made.astype(np.float32)), None
    spread = values[1] * (high - low if kind == "image" else 1.0)
    return FewShotResult(
        output,
        probability,
        image(spread.astype(np.float32)),
        tuple(p.label for p in chosen),
        tuple(p.scan2example for p in chosen),
        metadata,
    )
