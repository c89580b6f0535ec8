"""Find the brain and its structures, roughly, in a head at any position."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
import torch

from hyperprep.exceptions import ScanError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.on_grid import predict_on_grid
from hyperprep.models.predict.rules import rescaled, structures, template_brain, threshold
from hyperprep.models.predict.sampling import (
    largest_component,
    lattice_grid,
    sample_averaged,
    sample_volumes,
    slabs,
)
from hyperprep.models.spatial.affines import fit_points_robustly
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.weights import WeightsEntry, find_weights

MIN_BRAIN_ML = 250.0
"""A brain mask smaller than this means that no brain was found."""


POLISHING_PASSES = 2
"""How often the 2 mm network corrects position and mask."""


@dataclass(frozen=True)
class Location:
    """Where the brain is.

    Attributes
    ----------
    mask
        Rough brain mask on the scan's own grid, uint8.
    centroids
        Centre of each structure found, FreeSurfer number to (3,) RAS mm of the scan.
    template_centroids
        Mean centre of the same structures in the template frame, RAS mm.
    volumes_ml
        Rough volume of each structure found and of the "brain" (key 0), ml.
    weights_sha256
        Digest of the weights used.
    """

    mask: nb.Nifti1Image
    centroids: dict[int, np.ndarray]
    template_centroids: dict[int, np.ndarray]
    volumes_ml: dict[int, float]
    weights_sha256: str

    def template2scan(self) -> np.ndarray:
        """Give the (4, 4) point map from template frame to scan that brings the centroids together."""
        shared = sorted(set(self.centroids) & set(self.template_centroids))
        source, target = (
            np.array([points[n] for n in shared]) for points in (self.template_centroids, self.centroids)
        )
        return fit_points_robustly(source, target)


def _foreground_centre(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    step = max(1, round(max(data.shape) / 96))
    small = data[::step, ::step, ::step]
    bright = small > np.quantile(small, 0.25) + 0.2 * (np.quantile(small, 0.98) - np.quantile(small, 0.25))
    voxels = np.argwhere(bright).mean(axis=0) * step
    return np.asarray(affine[:3, :3] @ voxels + affine[:3, 3])


def locate(
    scan: nb.Nifti1Image,
    *,
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Location:
    """Find brain and structures in a head scan of any contrast, position and size.

    Parameters
    ----------
    scan
        Three-dimensional image; its header must tell right from left.
    weights, weights_dir
        Where the ``locate`` weights are looked for first.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    num_threads
        Processor threads; torch's own number when not given.

    Returns
    -------
    Location
        Mask, centroids and volumes.

    Raises
    ------
    ScanError
        When no brain is found.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    entry = find_weights("locate", path=weights, weights_dir=weights_dir)
    data = scan.get_fdata(dtype=np.float32)
    centre = _foreground_centre(data, scan.affine)
    grid = lattice_grid(entry.metadata["grid"])
    middle = grid.to_world((np.array(grid.shape)[None] - 1) / 2)[0]
    stored = {int(k): np.array(v) for k, v in entry.metadata["template_centroids"].items()}
    fine = find_weights("segment", weights_dir=weights_dir)
    with torch_threads(num_threads), torch.inference_mode():
        where = pick_device(device)
        network = load_network(entry).to(where)
        assert isinstance(network, LabelConditioned)
        for _ in range(2):  # the second time around the brain that the first one found
            to_scan = np.eye(4)
            to_scan[:3, 3] = centre - middle
            values = sample_averaged(scan, grid, to_scan)
            inside = values > 0.1 * np.quantile(values, 0.99)
            brain, probability = _predict(network, entry, values, inside)
            if brain.sum() < 50:
                break
            brain, probability = _predict(network, entry, values, brain)
            if brain.any():
                centre = grid.to_world(np.argwhere(brain).mean(axis=0)[None])[0] + to_scan[:3, 3]
        voxel_ml = abs(np.linalg.det(grid.affine[:3, :3])) / 1e3
        if brain.sum() * voxel_ml < MIN_BRAIN_ML:
            raise ScanError(
                "No brain was found: the largest region that looks like one has "
                f"{brain.sum() * voxel_ml:.0f} ml. Check that the file is a head scan with right header "
                "axes, or give a brain mask as a derivative."
            )
        numbers, cut = structures(entry), threshold(entry, "structure")
        centroids, volumes = _centroids(
            numbers, grid, to_scan, probability[1:].cpu().numpy(), brain, stored, cut
        )
        mask = _mask_on(Grid.of(scan), grid, to_scan, probability[0], brain, threshold(entry, "brain"))
        to_scan = _first_guess(entry, stored, centroids, brain, grid, to_scan)
        cuts = {what: threshold(fine, what) for what in ("brain", "structure")}
        polisher = load_network(fine).to(where)
        assert isinstance(polisher, LabelConditioned)
        grid = lattice_grid(fine.metadata["grid"])
        for _ in range(POLISHING_PASSES):
            soft, leaves = predict_on_grid(polisher, fine, scan, to_scan, numbers, mask)
            brain = soft.cpu().numpy() > cuts["brain"]
            voxel_ml = abs(np.linalg.det(grid.affine[:3, :3] @ to_scan[:3, :3])) / 1e3
            found, sizes = _centroids(
                numbers, grid, to_scan, leaves.cpu().numpy(), brain, stored, cuts["structure"]
            )
            if len(found) < 12 or brain.sum() * voxel_ml < MIN_BRAIN_ML:
                break  # keep what the coarse network found
            centroids, volumes = found, sizes
            mask = _mask_on(Grid.of(scan), grid, to_scan, soft, brain, cuts["brain"])
            shared = sorted(set(found) & set(stored))
            to_scan = fit_points_robustly(
                np.array([stored[n] for n in shared]), np.array([found[n] for n in shared])
            )
        volumes[0] = float(
            (np.asanyarray(mask.dataobj) > 0).sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1e3
        )
    return Location(mask, centroids, {k: stored[k] for k in centroids}, volumes, entry.sha256)


def _first_guess(
    entry: WeightsEntry,
    stored: dict[int, np.ndarray],
    centroids: dict[int, np.ndarray],
    brain: np.ndarray,
    grid: Grid,
    to_scan: np.ndarray,
) -> np.ndarray:
    """Give a map from template frame to scan: rotation from centroids, size from the brain's volume."""
    shared = sorted(set(centroids) & set(stored))
    source, target = np.array([stored[n] for n in shared]), np.array([centroids[n] for n in shared])
    guess = fit_points_robustly(source, target, dof=6) if len(shared) >= 4 else to_scan.copy()
    usual_volume, usual_centre = template_brain(entry)
    volume = brain.sum() * abs(np.linalg.det(grid.affine[:3, :3]))
    scale = float(np.clip((volume / usual_volume) ** (1 / 3), 0.6, 1.5))
    middle_scan = grid.to_world(np.argwhere(brain).mean(axis=0)[None])[0] + to_scan[:3, 3]
    linear = guess[:3, :3] * scale
    guess[:3, :3], guess[:3, 3] = linear, middle_scan - linear @ usual_centre
    return guess


def _predict(
    network: LabelConditioned, entry: WeightsEntry, values: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, torch.Tensor]:
    """Give the brain mask and probabilities, brain first, then every structure, on the network's grid."""
    labels = list(entry.metadata["labels"])
    asked = [labels.index("brain"), *(labels.index(str(number)) for number in structures(entry))]
    where = next(network.parameters()).device
    image = torch.from_numpy(rescaled(values, inside, entry))[None, None].to(where)
    probability = torch.sigmoid(network(image, torch.eye(len(labels), device=where)[asked]))[0]
    brain = probability[0].cpu().numpy() > threshold(entry, "brain")
    return largest_component(brain), probability


def _mask_on(
    target: Grid,
    grid: Grid,
    to_scan: np.ndarray,
    probability: torch.Tensor,
    brain: np.ndarray,
    cut: float,
) -> nb.Nifti1Image:
    """Bring the brain mask onto the scan's grid, cut where the interpolated probability is the threshold."""
    from scipy import ndimage

    kept = probability.cpu() * torch.from_numpy(ndimage.binary_dilation(brain, iterations=1))
    out = np.zeros(target.shape, np.uint8)
    for slab, points in slabs(target, to_scan):
        inside = sample_volumes(kept[None], grid, points)[0] > cut
        out[slab] = inside.numpy().reshape(-1, *target.shape[1:])
    return nb.Nifti1Image(out, target.affine)


def _centroids(
    numbers: tuple[int, ...],
    grid: Grid,
    to_scan: np.ndarray,
    probability: np.ndarray,
    brain: np.ndarray,
    landmarks: Container[int],
    cut: float,
) -> tuple[dict[int, np.ndarray], dict[int, float]]:
    """Give centre (RAS mm of the scan) and volume (ml) of every structure of which enough was found."""
    best = probability.argmax(axis=0)
    voxel_ml = abs(np.linalg.det(grid.affine[:3, :3] @ to_scan[:3, :3])) / 1e3
    centroids, volumes = {}, {}
    for place, number in enumerate(numbers):
        found = (best == place) & (probability[place] > cut) & brain
        if found.sum() < 4 or number not in landmarks:
            continue
        voxels, weight = np.argwhere(found), probability[place][found]
        middle = grid.to_world((voxels * weight[:, None]).sum(0)[None] / weight.sum())[0]
        centroids[number] = to_scan[:3, :3] @ middle + to_scan[:3, 3]
        volumes[number] = float(found.sum() * voxel_ml)
    return centroids, volumes
