"""HyperMorph registration of two affinely aligned brains, lambda given or tuned, and its refinement."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import ScanError, UsageError
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.hypermorph import HyperMorph
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.refine import RefineSettings
from hyperprep.models.predict.refine import refine as refine_velocity
from hyperprep.models.predict.sampling import lattice_grid, sample_averaged
from hyperprep.models.predict.tune import search_lambda
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.spatial.labels import to_leaves
from hyperprep.models.spatial.measures import folding_percent, jacobian_determinant, sd_log_jacobian
from hyperprep.models.spatial.transforms import Chain, DisplacementField, resample
from hyperprep.models.weights import WeightsEntry, find_weights

MAX_SD_LOG_JACOBIAN = 0.35
"""Without labels, lambda is the one of highest similarity whose sd of log |J| stays below this."""

SIMILARITY_KEPT = 0.98
"""With labels, lambda keeps at least this share of the similarity that lambda 0.25 reaches."""

MIN_REFINE_LAMBDA = 0.15
"""Refinement regularises at least this much: at 0 it folded 2.6 % of a real brain."""

REGION_GROUPS: dict[str, tuple[int, ...]] = {
    "cortex": (3, 42),
    "white": (2, 41),
    "ventricles": (4, 43, 14, 15),
    "subcortical": (10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54),
    "cerebellum": (7, 46, 8, 47),
    "brainstem": (16,),
}
"""Groups of labels whose mean overlap is written beside the overall one."""


@dataclass(frozen=True)
class Registration:
    """Result of :func:`register`.

    Attributes
    ----------
    forward
        Point map from the fixed frame to the affinely prealigned moving frame: what resampling the moving
        image needs.
    inverse
        The opposite point map, by the negative velocity.
    fixed2moving
        (4, 4) the prealignment that was given.
    frame2fixed
        (4, 4) from the network's (template) frame to the fixed image.
    lam
        The lambda used.
    curve
        One row per lambda looked at: lam, dice_all, dice_<group>..., similarity, sd_log_jacobian,
        folding_percent, chosen.
    metrics
        Flat figures: lambda, Dice before and after, similarity, folding, sd of log |J|, seconds of each part,
        weights' digest.
    moved
        Moving image on the fixed image's grid, interpolated once.
    """

    forward: DisplacementField
    inverse: DisplacementField
    fixed2moving: np.ndarray
    frame2fixed: np.ndarray
    lam: float
    curve: list[dict[str, Any]]
    metrics: dict[str, Any]
    moved: nb.Nifti1Image = field(repr=False)

    def chain(self) -> Chain:
        """Give the whole point map from the fixed image to the moving one."""
        return _joined([np.linalg.inv(self.frame2fixed), self.forward, self.fixed2moving @ self.frame2fixed])

    def inverse_chain(self) -> Chain:
        """Give the whole point map from the moving image to the fixed one."""
        return _joined([np.linalg.inv(self.fixed2moving @ self.frame2fixed), self.inverse, self.frame2fixed])


def _joined(chain: list[np.ndarray | DisplacementField]) -> Chain:
    return [
        step
        for step in chain
        if isinstance(step, DisplacementField) or not np.allclose(step, np.eye(4), atol=0)
    ]


@dataclass
class _Pair:
    """The two brains on the network's grid, as tensors."""

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_labels: torch.Tensor | None
    moving_labels: torch.Tensor | None
    numbers: tuple[int, ...]

    def measure(self, velocity: torch.Tensor, *, grid: Grid | None = None) -> dict[str, float]:
        """Give overlap, similarity and regularity of a velocity."""
        displacement = integrate(velocity, steps=6)
        fine = 2 * F.interpolate(displacement, size=self.fixed.shape[2:], mode="trilinear")
        row: dict[str, float] = {}
        if self.fixed_labels is not None and self.moving_labels is not None:
            row |= _group_dice(self.fixed_labels, warp(self.moving_labels, displacement), self.numbers)
        inside = self.fixed > 0
        row["similarity"] = float(
            local_ncc(self.fixed, warp(self.moving, fine), window=9, mask=inside.float())
        )
        determinant = _determinant(displacement, grid)
        coarse = F.avg_pool3d(inside.float(), 2)[0, 0].cpu().numpy() > 0.5
        row["sd_log_jacobian"] = sd_log_jacobian(determinant, coarse)
        row["folding_percent"] = folding_percent(determinant, coarse)
        return row


def _determinant(displacement: torch.Tensor, grid: Grid | None) -> np.ndarray:
    affine = np.eye(4)
    spacing = 1.0 if grid is None else float(grid.spacing[0])
    affine[:3, :3] *= spacing
    data = displacement[0].movedim(0, -1).cpu().numpy() * spacing
    return jacobian_determinant(DisplacementField(Grid(data.shape[:3], affine), data.astype(np.float32)))


def _group_dice(fixed: torch.Tensor, moved: torch.Tensor, numbers: tuple[int, ...]) -> dict[str, float]:
    """Soft Dice of shares: mean over labels present in both, overall and by group."""
    overlap = torch.minimum(fixed, moved).flatten(2).sum(2)[0]
    size = (fixed + moved).flatten(2).sum(2)[0]
    each = (2 * overlap / size.clamp_min(1e-6)).cpu().numpy()
    present = ((fixed.flatten(2).sum(2) > 1) & (moved.flatten(2).sum(2) > 1))[0].cpu().numpy()
    row = {"dice_all": float(each[present].mean()) if present.any() else 0.0}
    for name, members in REGION_GROUPS.items():
        chosen = [i for i, n in enumerate(numbers) if n in members and present[i]]
        if chosen:
            row[f"dice_{name}"] = float(each[chosen].mean())
    return row


def register(
    fixed: nb.Nifti1Image,
    moving: nb.Nifti1Image,
    *,
    fixed2moving: np.ndarray,
    frame2fixed: np.ndarray | None = None,
    fixed_mask: nb.Nifti1Image | None = None,
    moving_mask: nb.Nifti1Image | None = None,
    fixed_dseg: nb.Nifti1Image | None = None,
    moving_dseg: nb.Nifti1Image | None = None,
    lam: float | Literal["auto"] = "auto",
    refine: Literal["ncc", "none"] = "ncc",
    weights: str | Path | None = None,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Registration:
    """Register a moving brain to a fixed one.

    Parameters
    ----------
    fixed, moving
        Images on their own grids.
    fixed2moving
        (4, 4) point map of the affine prealignment, RAS mm.
    frame2fixed
        (4, 4) point map from the template frame to the fixed image, RAS mm; identity when the fixed image is
        the template.
    fixed_mask, moving_mask
        Brain masks on the grids of their images; needed unless the images are already skull-stripped.
    fixed_dseg, moving_dseg
        Label images (FreeSurfer numbers): what ``lam="auto"`` maximises the overlap of.
    lam
        Regularisation weight in [0, 1], or ``"auto"``.
    refine
        ``"ncc"``: a few optimiser steps on this pair; ``"none"``: the network alone.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    Registration
        Transforms both ways, the lambda curve and figures.

    Raises
    ------
    UsageError
        When lambda is outside [0, 1] or the refinement is not known.
    ScanError
        When nothing of the brain lies on the network's grid.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    if lam != "auto" and not 0 <= float(lam) <= 1:
        raise UsageError(f"lambda must lie in [0, 1] or be 'auto', not {lam}.")
    if refine not in ("ncc", "none"):
        raise UsageError(f"Unknown refinement '{refine}': use ncc or none.")
    frame2fixed = np.eye(4) if frame2fixed is None else np.asarray(frame2fixed, float)
    entry = find_weights("hypermorph", path=weights, weights_dir=weights_dir)
    grid = lattice_grid(entry.metadata["grid"])
    clock = {"start": time.perf_counter()}
    with torch_threads(num_threads), torch.no_grad():
        where = pick_device(device)
        network = load_network(entry).to(where)
        assert isinstance(network, HyperMorph)
        pair = _make_pair(
            grid,
            (fixed, fixed_mask, fixed_dseg, frame2fixed),
            (moving, moving_mask, moving_dseg, fixed2moving @ frame2fixed),
            where,
        )
        clock["prepared"] = time.perf_counter()
        chosen, curve = _choose(network, pair, lam)
        velocity = network(pair.fixed, pair.moving, torch.tensor([chosen], device=where))
        clock["network"] = time.perf_counter()
        alone = pair.measure(velocity)
        if refine == "ncc":
            with torch.enable_grad():
                weight = max(chosen, MIN_REFINE_LAMBDA)
                velocity = refine_velocity(
                    velocity, pair.fixed, pair.moving, lam=weight, settings=RefineSettings()
                )
        clock["refined"] = time.perf_counter()
        figures = _figures(pair, velocity, alone, chosen, curve, clock, entry, refine)
        forward, inverse = (_as_field(integrate(v, steps=7), pair, grid) for v in (velocity, -velocity))
    result = Registration(
        forward, inverse, np.asarray(fixed2moving, float), frame2fixed, chosen, curve, figures, moved=fixed
    )
    moved = resample(moving, Grid.of(fixed), result.chain())
    return Registration(forward, inverse, result.fixed2moving, frame2fixed, chosen, curve, figures, moved)


def _make_pair(grid: Grid, fixed: tuple[Any, ...], moving: tuple[Any, ...], where: torch.device) -> _Pair:
    images: list[torch.Tensor] = []
    labels: list[np.ndarray | None] = []
    for name, (image, mask, dseg, point_map) in (("fixed", fixed), ("moving", moving)):
        values = sample_averaged(image, grid, point_map)
        inside = (
            values > 0
            if mask is None
            else resample(mask, grid, [point_map], interpolation="nearest").get_fdata() > 0
        )
        if inside.sum() < 1000:
            raise ScanError(
                f"Almost nothing of the {name} brain lies where the template's brain is: the affine "
                "prealignment is wrong."
            )
        images.append(torch.from_numpy(robust_rescale(values, inside) * inside)[None, None].float().to(where))
        labels.append(
            None
            if dseg is None
            else to_leaves(np.asanyarray(resample(dseg, grid, [point_map], interpolation="nearest").dataobj))
        )
    numbers: tuple[int, ...] = ()
    shares: list[torch.Tensor | None] = [None, None]
    if labels[0] is not None and labels[1] is not None:
        shared = np.intersect1d(np.unique(labels[0]), np.unique(labels[1]))
        numbers = tuple(int(n) for n in shared if n > 0)
        for place, one in enumerate(labels):
            hot = torch.stack([torch.from_numpy(one == n) for n in numbers])[None].float().to(where)
            shares[place] = F.avg_pool3d(hot, 2)
    return _Pair(images[0], images[1], shares[0], shares[1], numbers)


def _choose(network: HyperMorph, pair: _Pair, lam: float | str) -> tuple[float, list[dict[str, Any]]]:
    """Give lambda and the curve: by the overlap of labels, else by similarity with regularity bounded.

    Labels may only choose among registrations that also fit the images: segmentations that resemble the
    template's more than the brain's would otherwise ask for no deformation at all.
    """
    where = pair.fixed.device
    labelled = bool(pair.numbers)
    reference = 0.0
    if lam == "auto" and labelled:
        middle = network(pair.fixed, pair.moving, torch.tensor([0.25], device=where))
        reference = pair.measure(middle)["similarity"]

    def evaluate(value: float) -> dict[str, Any]:
        row = pair.measure(network(pair.fixed, pair.moving, torch.tensor([value], device=where)))
        excess = max(0.0, row["sd_log_jacobian"] - MAX_SD_LOG_JACOBIAN) + max(
            0.0, row["folding_percent"] - 0.1
        )
        if not labelled:
            return {**row, "score": row["similarity"] - 10 * excess}
        lost = max(0.0, SIMILARITY_KEPT * reference - row["similarity"])
        return {**row, "score": row["dice_all"] - 4 * lost - 10 * excess}

    if lam == "auto":
        found = search_lambda(evaluate)
        chosen, rows = found.best, found.rows
    else:
        chosen = float(lam)
        rows = [{"lam": chosen, **evaluate(chosen)}]
    for row in rows:
        row.pop("score")
        row["chosen"] = int(row["lam"] == chosen)
    return chosen, rows


def _figures(
    pair: _Pair,
    velocity: torch.Tensor,
    alone: dict[str, float],
    lam: float,
    curve: list[dict[str, Any]],
    clock: dict[str, float],
    entry: WeightsEntry,
    refinement: str,
) -> dict[str, Any]:
    before, after = pair.measure(torch.zeros_like(velocity)), pair.measure(velocity)
    return {
        "lambda": lam,
        "lambda_evaluations": len(curve) + int(len(curve) > 1 and bool(pair.numbers)),
        "refinement": refinement,
        "refine_lambda": max(lam, MIN_REFINE_LAMBDA) if refinement == "ncc" else lam,
        **{f"{k}_affine": v for k, v in before.items() if k.startswith("dice") or k == "similarity"},
        **{f"{k}_network": v for k, v in alone.items()},
        **after,
        "seconds_prepare": round(clock["prepared"] - clock["start"], 2),
        "seconds_network": round(clock["network"] - clock["prepared"], 2),
        "seconds_refine": round(clock["refined"] - clock["network"], 2),
        "weights_sha256": entry.sha256,
    }


def _as_field(displacement: torch.Tensor, pair: _Pair, grid: Grid) -> DisplacementField:
    """Bring a displacement in coarse voxels to mm on the network's full grid."""
    fine = 2 * F.interpolate(displacement, size=pair.fixed.shape[2:], mode="trilinear")[0]
    return DisplacementField(grid, (fine.movedim(0, -1).cpu().numpy() * grid.spacing).astype(np.float32))
