"""Conditional segmentation of a scan: just the regions asked for, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import WeightsError
from hyperprep.models.nets.atlas_unet import RATIO_SCALE, AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.evidence import Evidence
from hyperprep.models.predict.labelling import Labelling, Segmentation
from hyperprep.models.predict.on_grid import OnGrid, on_network_grid
from hyperprep.models.predict.own_regions import own_logits
from hyperprep.models.predict.rules import check_known, structures, temperature, template_brain, threshold
from hyperprep.models.predict.sampling import lattice_grid
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import scaled_between
from hyperprep.models.spatial.regions import voxel_mm3
from hyperprep.models.weights import WeightsEntry, find_weights
from hyperprep.models.weights.own_regions import resolve_all_labels


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
        Names, FreeSurfer numbers, super-regions or ``all``; see ``hyperprep.models.spatial.labels``. Also
        the regions of the weights ``regions``, which are looked for like those of ``segment``.
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
    asked = resolve_all_labels(labels, weights_dir)
    entry = find_weights("segment", path=weights, weights_dir=weights_dir)
    check_known(asked, entry)
    grid = lattice_grid(entry.metadata["grid"])
    with torch_threads(num_threads), torch.inference_mode():
        network = load_network(entry).to(pick_device(device))
        assert isinstance(network, LabelConditioned)
        numbers = tuple(sorted(structures(entry)))
        found, onto = on_network_grid(network, entry, scan, template2scan, mask, trust_mask=trust_mask)
        usual, shift, evidence, own = _usual_volumes(network, entry, numbers), None, None, None
        if isinstance(network, AtlasUNet) and onto is not None:
            shift = torch.from_numpy(np.ascontiguousarray(np.moveaxis(onto.inverse.data, -1, 0)))
            if samples:
                found = replace(found, logits=_sampled(network, entry, found, numbers, samples))
            evidence = _evidence(network, entry, found, scan, numbers)
            own = own_logits(asked, network, entry, found.trunk, weights_dir=weights_dir)
            if own is not None:
                usual |= {index: count * voxel_mm3(grid) for index, count in own.usual_voxels.items()}
        elif any(region.is_own for region in asked):
            raise WeightsError(
                f"{entry.path} has no atlas, so own regions cannot be found with it: leave them out, or use "
                "the weights of 'segment' that ship."
            )
        result = Labelling(
            Grid.of(scan), grid, template2scan, numbers, found.brain, found.logits,
            threshold(entry, "brain"), shift, evidence,
            temperature=temperature(entry), usual_mm3=usual, own=own,
        )  # fmt: skip
        given = np.asanyarray(mask.dataobj) > 0 if trust_mask and mask is not None else None
        return result.finish(asked, entry, given=given, probabilities=probabilities, uncertainty=uncertainty)


def _evidence(
    network: AtlasUNet, entry: WeightsEntry, found: OnGrid, scan: nb.Nifti1Image, numbers: Sequence[int]
) -> Evidence:
    """Gather what intensities say of tissues, so that each voxel of the scan is judged by its own."""
    names = list(entry.metadata["labels"])
    return Evidence(
        ratios=found.trunk[0, network.own :] / RATIO_SCALE,
        table=network.likelihood_ratios(found.image),
        weights=network.evidence_weights[[names.index(str(n)) for n in numbers]],
        values=scaled_between(scan.get_fdata(dtype=np.float32), found.limits),
    )


def _sampled(
    network: AtlasUNet, entry: WeightsEntry, found: OnGrid, numbers: Sequence[int], samples: int
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
