"""Conditional segmentation of a scan: just the regions asked for, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import ScanError
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.evidence import Evidence
from hyperprep.models.predict.labelling import Labelling, Segmentation
from hyperprep.models.predict.normalise import deform_onto_atlas
from hyperprep.models.predict.rules import (
    check_known,
    intensity_range,
    structures,
    temperature,
    template_brain,
    threshold,
)
from hyperprep.models.predict.sampling import largest_component, lattice_grid, main_body, sample_averaged
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import scaled_between
from hyperprep.models.spatial.labels import resolve_labels
from hyperprep.models.spatial.transforms import resample
from hyperprep.models.weights import WeightsEntry, find_weights


def segment(
    scan: nb.Nifti1Image,
    *,
    template2scan: np.ndarray,
    labels: Iterable[str] = ("all",),
    mask: nb.Nifti1Image | None = None,
    trust_mask: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    samples: int = 0,
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
    uncertainty
        Also give the entropy of the probabilities at each voxel.
    samples
        Average the probabilities of so many networks with units left out at random (MC dropout, half of the
        units of the last shared layer); 0 takes the one network as it is. Networks with an atlas only.
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
        found = _affinely(network, entry, scan, template2scan, numbers, mask, trust_mask)
        limit = threshold(entry, "brain")
        if found.brain.sum() * abs(np.linalg.det(grid.affine[:3, :3])) < 250_000:
            raise ScanError(
                "No brain was found where the affine alignment puts it. Look at the alignment in the report."
            )
        shift = evidence = None
        if isinstance(network, AtlasUNet):
            known = (found.brain > limit).cpu().numpy()
            if trust_mask and mask is not None:
                known = _on_grid(mask, grid, template2scan)
            onto = deform_onto_atlas(network, entry, scan, template2scan, known)
            values = onto.values * onto.inside if trust_mask else onto.values
            network.alignment = "nonlinear"
            found = _predict(network, entry, values, onto.inside, numbers)
            shift = torch.from_numpy(np.ascontiguousarray(np.moveaxis(onto.inverse.data, -1, 0)))
            if samples:
                found = replace(found, logits=_sampled(network, entry, found, numbers, samples))
            evidence = _evidence(network, entry, found, scan, numbers)
        result = Labelling(
            Grid.of(scan), grid, template2scan, numbers, found.brain, found.logits, limit, shift, evidence,
            temperature=temperature(entry), usual_mm3=_usual_volumes(network, entry, numbers),
        )  # fmt: skip
        given = np.asanyarray(mask.dataobj) > 0 if trust_mask and mask is not None else None
        return result.finish(asked, entry, given=given, probabilities=probabilities, uncertainty=uncertainty)


@dataclass(frozen=True)
class _OnGrid:
    """Results on the network's grid.

    Attributes
    ----------
    brain
        (*grid) probability.
    logits
        (L, *grid) of the leaves.
    trunk
        (1, features, *grid), what the logits were made of.
    image
        (*grid) in [0, 1] as the network saw it.
    limits
        Intensities that became 0 and 1.
    """

    brain: torch.Tensor
    logits: torch.Tensor
    trunk: torch.Tensor
    image: torch.Tensor
    limits: tuple[float, float]


def _evidence(
    network: AtlasUNet, entry: WeightsEntry, found: _OnGrid, scan: nb.Nifti1Image, numbers: Sequence[int]
) -> Evidence:
    """Gather what intensities say of tissues, so that each voxel of the scan is judged by its own."""
    names = list(entry.metadata["labels"])
    return Evidence(
        ratios=4 * found.trunk[0, network.own :],
        table=network.likelihood_ratios(found.image),
        weights=network.evidence_weights[[names.index(str(n)) for n in numbers]],
        values=scaled_between(scan.get_fdata(dtype=np.float32), found.limits),
    )


def _sampled(
    network: AtlasUNet, entry: WeightsEntry, found: _OnGrid, numbers: Sequence[int], samples: int
) -> torch.Tensor:
    """Average over networks with units left out: logits whose softmax is the mean of theirs.

    The temperature holds for the one network; it is taken out here, for it is applied to what is returned.
    """
    names, heat = list(entry.metadata["labels"]), temperature(entry)
    rows = torch.eye(len(names), device=found.trunk.device)[[names.index(str(n)) for n in numbers]]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(found.logits)
    for _ in range(samples):
        total += torch.softmax(
            network.sampled_logits(found.trunk, rows, generator=generator)[0] / heat, dim=0
        )
    return heat * (total / samples).clamp_min(1e-12).log()


def _usual_volumes(
    network: LabelConditioned, entry: WeightsEntry, numbers: Sequence[int]
) -> dict[int | str, float]:
    """Give the volumes of the average brain, mm^3: of the atlas' structures, and of the closed brain mask.

    Each only where the weights know it.
    """
    usual: dict[int | str, float] = {}
    if "template_brain" in entry.metadata:
        usual["brain"] = template_brain(entry)[0]
    if isinstance(network, AtlasUNet):
        voxel = float(entry.metadata["grid"]["spacing_mm"]) ** 3
        sizes = (voxel * network.atlas.sizes()).tolist()
        found = dict(zip(entry.metadata["labels"], sizes, strict=True))
        usual |= {number: found[str(number)] for number in numbers}
    return usual


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
    found = _affinely(network, entry, scan, template2scan, numbers, mask, trust_mask)
    return found.brain, torch.softmax(found.logits / temperature(entry), dim=0)


def _affinely(
    network: LabelConditioned,
    entry: WeightsEntry,
    scan: nb.Nifti1Image,
    template2scan: np.ndarray,
    numbers: Sequence[int],
    mask: nb.Nifti1Image | None,
    trust_mask: bool,
) -> _OnGrid:
    """Apply the network to the affinely aligned scan."""
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
) -> _OnGrid:
    """Apply the network to intensities on its grid; of the brain, the largest part only is kept."""
    names, brain_threshold = list(entry.metadata["labels"]), threshold(entry, "brain")
    where = next(network.parameters()).device
    foreground = values > 0.1 * np.quantile(values, 0.99) if inside is None else inside
    for turn in range(2 if inside is None else 1):
        limits = intensity_range(values, foreground, entry)
        image = torch.from_numpy(scaled_between(values, limits))[None, None].to(where)
        trunk = network.trunk(image)
        rows = torch.eye(len(names), device=where)
        brain = torch.sigmoid(network.label_logits(trunk, rows[[names.index("brain")]]))[0, 0]
        if turn == 0 and inside is None:
            foreground = largest_component(brain.cpu().numpy() > brain_threshold)
    logits = network.label_logits(trunk, rows[[names.index(str(n)) for n in numbers]])[0]
    kept = torch.from_numpy(main_body(brain.cpu().numpy() > brain_threshold, neck=2)).to(where)
    near = torch.nn.functional.max_pool3d(kept[None, None].float(), 3, 1, 1)[0, 0]
    return _OnGrid(brain * near, logits, trunk, image[0, 0], limits)
