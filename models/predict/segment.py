"""Conditional segmentation of a scan: just the regions asked for, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import ScanError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.normalise import deform_onto_atlas
from hyperprep.models.predict.rules import check_known, rescaled, structures, threshold
from hyperprep.models.predict.sampling import (
    largest_component,
    lattice_grid,
    main_body,
    sample_averaged,
    sample_volumes,
    slabs,
)
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.labels import TISSUES, Region, resolve_labels
from hyperprep.models.spatial.transforms import resample
from hyperprep.models.weights import WeightsEntry, find_weights


@dataclass(frozen=True)
class Segmentation:
    """A segmented scan; every image lies on the scan's own grid.

    Attributes
    ----------
    dseg
        int16, FreeSurfer numbers of the leaf regions asked for, each voxel at most one.
    leaves
        int16, the same with all leaves, whatever was asked for: what tissues and registration need.
    mask
        uint8 brain mask.
    tissues
        "GM", "WM", "CSF": float32 probabilities.
    probsegs
        Probability of each region asked for, by name; filled on request.
    regions
        uint8 mask of each super-region asked for, by name.
    volumes
        One row per region asked for: index, name, volume_mm3 (from probabilities).
    metadata
        Digest of the weights, grid, number of voxels labelled.
    """

    dseg: nb.Nifti1Image
    leaves: nb.Nifti1Image
    mask: nb.Nifti1Image
    tissues: dict[str, nb.Nifti1Image]
    probsegs: dict[str, nb.Nifti1Image]
    regions: dict[str, nb.Nifti1Image]
    volumes: list[dict[str, Any]]
    metadata: dict[str, Any] = field(default_factory=dict)


def segment(
    scan: nb.Nifti1Image,
    *,
    template2scan: np.ndarray,
    labels: Iterable[str] = ("all",),
    mask: nb.Nifti1Image | None = None,
    trust_mask: bool = False,
    probabilities: bool = False,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Segmentation:
    """Segment the regions asked for.

    Parameters
    ----------
    scan
        Three-dimensional image of any contrast on any grid.
    template2scan
        (4, 4) point map from the template frame to the scan, RAS mm: the affine prealignment.
    labels
        Names, FreeSurfer numbers, super-regions or ``all``; see ``hyperprep.models.spatial.labels``.
    mask
        Brain mask on the scan's grid; a rough one is enough, intensities are rescaled in it.
    trust_mask
        Take ``mask`` as the brain mask of the result, and nothing outside it.
    probabilities
        Also give the probability of each region.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    Segmentation
        Labels, masks, tissues and volumes.

    Raises
    ------
    UsageError
        When a label is not known, or not to these weights.
    ScanError
        When no brain is found in the template frame: the prealignment failed.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    asked = resolve_labels(labels)
    entry = find_weights("segment", path=weights, weights_dir=weights_dir)
    check_known(asked, entry)
    grid = lattice_grid(entry.metadata["grid"])
    with torch_threads(num_threads), torch.inference_mode():
        network = load_network(entry).to(pick_device(device))
        assert isinstance(network, LabelConditioned)
        numbers = tuple(sorted(structures(entry)))
        brain, leaves = predict_on_grid(
            network, entry, scan, template2scan, numbers, mask, trust_mask=trust_mask
        )
        limit = threshold(entry, "brain")
        if brain.sum() * abs(np.linalg.det(grid.affine[:3, :3])) < 250_000:
            raise ScanError(
                "No brain was found where the affine alignment puts it. Look at the alignment in the report."
            )
        shift = None
        if isinstance(network, AtlasUNet):
            known = (brain > limit).cpu().numpy()
            if trust_mask and mask is not None:
                known = _on_grid(mask, grid, template2scan)
            onto = deform_onto_atlas(network, entry, scan, template2scan, known)
            values = onto.values * onto.inside if trust_mask else onto.values
            network.alignment = "nonlinear"
            brain, leaves = _predict(network, entry, values, onto.inside, numbers)
            shift = torch.from_numpy(np.ascontiguousarray(np.moveaxis(onto.inverse.data, -1, 0)))
        result = _Result(Grid.of(scan), grid, template2scan, numbers, brain, leaves, limit, shift)
        given = np.asanyarray(mask.dataobj) > 0 if trust_mask and mask is not None else None
        return result.finish(asked, given, probabilities, entry)


def predict_on_grid(
    network: LabelConditioned,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    numbers: Sequence[int],
    mask: nb.Nifti1Image | None = None,
    *,
    trust_mask: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the brain's probability (*grid) and those of the leaves (L, *grid) on the network's grid.

    Parameters are those of :func:`segment`; ``numbers`` are the FreeSurfer numbers of the leaves.

    Raises
    ------
    ScanError
        When the mask lies outside the brain's place in the template.
    """
    grid = lattice_grid(entry.metadata["grid"])
    if isinstance(network, AtlasUNet):
        network.alignment = "affine"
    values = sample_averaged(scan, grid, template2scan)
    inside = None
    if mask is not None:
        inside = _on_grid(mask, grid, template2scan)
        if not inside.any():
            raise ScanError(
                "The brain mask does not overlap the brain's place in the template: the affine alignment or "
                "the mask is wrong. Look at both, or leave the mask out."
            )
        if trust_mask:
            values = values * inside
    return _predict(network, entry, values, inside, numbers)


def _on_grid(mask: nb.Nifti1Image, grid: Grid, template2scan: np.ndarray) -> np.ndarray:
    """Bring a mask onto the network's grid."""
    found = resample(mask, grid, [template2scan], interpolation="nearest")
    return np.asarray(np.asanyarray(found.dataobj) > 0)


def _predict(
    network: LabelConditioned,
    entry: WeightsEntry,
    values: np.ndarray,
    inside: np.ndarray | None,
    numbers: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the probability of the brain (largest part only) and those of the leaves (L, *grid)."""
    names, brain_threshold = list(entry.metadata["labels"]), threshold(entry, "brain")
    where = next(network.parameters()).device
    foreground = values > 0.1 * np.quantile(values, 0.99) if inside is None else inside
    for turn in range(2 if inside is None else 1):
        image = torch.from_numpy(rescaled(values, foreground, entry))[None, None].to(where)
        trunk = network.trunk(image)
        rows = torch.eye(len(names), device=where)
        brain = torch.sigmoid(network.label_logits(trunk, rows[[names.index("brain")]]))[0, 0]
        if turn == 0 and inside is None:
            foreground = largest_component(brain.cpu().numpy() > brain_threshold)
    logits = network.label_logits(trunk, rows[[names.index(str(n)) for n in numbers]])[0]
    leaves = torch.softmax(logits, dim=0)
    kept = torch.from_numpy(main_body(brain.cpu().numpy() > brain_threshold, neck=2)).to(where)
    near = torch.nn.functional.max_pool3d(kept[None, None].float(), 3, 1, 1)[0, 0]
    return brain * near, leaves


@dataclass
class _Result:
    """Network results on their way to the scan's own grid.

    ``shift``, (3, *grid) mm, leads from the affinely aligned image to the network's grid; None where they
    are one.
    """

    target: Grid
    grid: Grid
    template2scan: np.ndarray
    numbers: tuple[int, ...]
    brain: torch.Tensor
    leaves: torch.Tensor
    brain_threshold: float
    shift: torch.Tensor | None = None

    def _places(self, points: np.ndarray) -> np.ndarray:
        """Say where on the network's grid points of the template frame lie."""
        if self.shift is None:
            return points
        return points + sample_volumes(self.shift, self.grid, points).T.numpy()

    def finish(
        self, asked: tuple[Region, ...], given: np.ndarray | None, probabilities: bool, entry: WeightsEntry
    ) -> Segmentation:
        """Interpolate inside the brain, decide each voxel, measure."""
        shape = self.target.shape
        mask, every = np.zeros(shape, np.uint8), np.zeros(shape, np.int16)
        sums = np.zeros(len(self.numbers))
        wanted = [region for region in asked if not region.is_leaf] if not probabilities else list(asked)
        soft = {region.name: np.zeros(shape, np.float32) for region in wanted}
        tissues = {name: np.zeros(shape, np.float32) for name in TISSUES}
        leaf_index = np.array([r.index for r in asked if r.is_leaf])
        table = torch.tensor(self.numbers, dtype=torch.int16, device=self.leaves.device)
        members = {
            name: self._rows([n for n in numbers if n in self.numbers]) for name, numbers in TISSUES.items()
        }
        members |= {region.name: self._rows(region.numbers) for region in wanted}
        whole = {"brain"} & set(soft)
        for slab, aligned in slabs(self.target, self.template2scan):
            points = self._places(aligned)
            brain = sample_volumes(self.brain[None], self.grid, points)[0]
            inside = (
                brain > self.brain_threshold
                if given is None
                else torch.from_numpy(given[slab].ravel()).to(brain.device)
            )
            if not inside.any():
                continue
            chosen = inside.cpu().numpy()
            leaves = sample_volumes(self.leaves, self.grid, points[chosen])
            mask[slab].reshape(-1)[chosen] = 1
            sums += leaves.sum(dim=1).double().cpu().numpy()
            every[slab].reshape(-1)[chosen] = table[leaves.argmax(dim=0)].cpu().numpy()
            for collection in (tissues, soft):
                for name, volume in collection.items():
                    value = (
                        torch.ones(int(inside.sum()))
                        if name in whole
                        else leaves[members[name]].sum(dim=0).cpu()
                    )
                    volume[slab].reshape(-1)[chosen] = value.numpy()
        voxel = float(abs(np.linalg.det(self.target.affine[:3, :3])))
        return Segmentation(
            dseg=self._image(np.where(np.isin(every, leaf_index), every, np.int16(0))),
            leaves=self._image(every),
            mask=self._image(mask),
            tissues={k: self._image(v) for k, v in tissues.items()},
            probsegs={k: self._image(v) for k, v in soft.items()} if probabilities else {},
            regions={
                r.name: self._image((soft[r.name] > 0.5).astype(np.uint8)) for r in asked if not r.is_leaf
            },
            volumes=self._volumes(asked, sums * voxel, mask.sum() * voxel),
            metadata={
                "weights_sha256": entry.sha256,
                "weights": entry.name,
                "resolution_mm": float(self.grid.spacing[0]),
                "deformed_onto_atlas": self.shift is not None,
            },
        )

    def _rows(self, numbers: Sequence[int]) -> list[int]:
        return [self.numbers.index(n) for n in numbers]

    def _volumes(self, asked: tuple[Region, ...], sums: np.ndarray, mask_mm3: float) -> list[dict[str, Any]]:
        """Volumes (mm^3) from the probabilities inside the brain mask, on the scan's grid."""
        rows = []
        for region in asked:
            value = mask_mm3 if region.name == "brain" else sums[self._rows(region.numbers)].sum()
            rows.append({"index": region.index, "name": region.name, "volume_mm3": round(float(value), 1)})
        return rows

    def _image(self, data: np.ndarray) -> nb.Nifti1Image:
        return nb.Nifti1Image(data, self.target.affine)
