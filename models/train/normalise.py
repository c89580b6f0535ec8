"""Bring the prepared label maps into their nonlinear mean, where an atlas of them is sharp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.models.nn.greedy import Stage, invert_displacement, refine
from hyperprep.models.nn.warp import resize, warp
from hyperprep.models.synth.maps import LabelMaps, load_maps
from hyperprep.models.train.prepare import t1w_means, write_maps

SPACING = 2
"""Voxel size of the images that are registered, mm."""

STAGES = (
    Stage(image_mm=4, field_mm=4, steps=40, longest=0.5, update_sigma=1.7),
    Stage(image_mm=2, field_mm=2, steps=60, longest=0.5, update_sigma=1.7),
    Stage(image_mm=1, field_mm=1, steps=25, longest=0.5, update_sigma=1.7),
)
"""Sizes are in voxels of :data:`SPACING`."""

ROUNDS = (0.6, 0.45, 0.3, 0.3)
"""Regularisation weight of each round; the mean is made anew after each."""


def painted(maps: LabelMaps, index: int) -> torch.Tensor:
    """Paint a head as a T1w image without skull, (1, 1, *shape / 2) at 2 mm."""
    value = torch.from_numpy(t1w_means(maps.numbers))
    image = value[maps.maps[index].long()] * (maps.brain[index] > 0)
    return F.avg_pool3d(image[None, None], SPACING)


@torch.no_grad()
def normalise(source: str | Path, target: str | Path, *, held_out: int = 2) -> None:
    """Write label maps deformed into the mean shape of those that train.

    Each head, painted as a T1w image, is registered to the mean of all, which is then made anew and freed
    of the mean deformation (as in Joshi et al. 2004); heads held out are registered to the last mean.

    Parameters
    ----------
    source
        Label maps made by :func:`hyperprep.models.train.prepare.prepare`.
    target
        ``.npz`` to write, of the same form.
    held_out
        So many of the last maps only validate.

    Raises
    ------
    NoInputError
        When the source is not there.
    """
    maps = load_maps(source)
    images = [painted(maps, index) for index in range(len(maps.maps))]
    usable = len(images) - held_out
    mean = torch.stack(images[:usable]).mean(0)
    fields = [torch.zeros(1, 3, *(n // 4 for n in mean.shape[2:]))] * usable
    for turn, lam in enumerate(ROUNDS):
        stages = STAGES if turn == 0 else STAGES[1:]
        found = [refine(f, mean, i, lam=lam, stages=stages) for f, i in zip(fields, images, strict=False)]
        back = invert_displacement(torch.stack(found).mean(0))
        fields = [back + warp(field, back) for field in found]
        moved = torch.stack([warp(i, f) for i, f in zip(images, fields, strict=False)])
        mean = moved.mean(0)
        apart = float(moved.std(0)[mean > 0.05].mean())
        print(f"round {turn + 1}/{len(ROUNDS)}: heads differ by {apart:.4f} (sd of intensity)", flush=True)
    start = torch.zeros_like(fields[0])
    fields += [refine(start, mean, image, lam=ROUNDS[-1], stages=STAGES) for image in images[usable:]]
    labels: list[np.ndarray] = []
    brains: list[np.ndarray] = []
    for index, field in enumerate(fields):
        fine = resize(field, maps.maps[index].shape, factor=SPACING)
        for volume, out in ((maps.maps[index], labels), (maps.brain[index], brains)):
            out.append(_nearest(volume, fine))
    with np.load(source) as stored:
        kept = {name: stored[name] for name in ("numbers", "affines")}
    write_maps(target, np.stack(labels), np.stack(brains), **kept)


def _nearest(volume: torch.Tensor, displacement: torch.Tensor) -> np.ndarray:
    """Take the value of each voxel from the voxel nearest to its displaced place."""
    axes = torch.meshgrid(*(torch.arange(n) for n in volume.shape), indexing="ij")
    places = [
        (axis + shift).round().long().clamp_(0, size - 1)
        for axis, shift, size in zip(axes, displacement[0], volume.shape, strict=True)
    ]
    return volume[tuple(places)].numpy()
