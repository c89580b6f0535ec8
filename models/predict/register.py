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

from hyperprep.exceptions import UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.hypermorph import HyperMorph
from hyperprep.models.nn.warp import integrate
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.pair import BrainPair, make_pair
from hyperprep.models.predict.refine import RefineSettings
from hyperprep.models.predict.refine import refine as refine_velocity
from hyperprep.models.predict.sampling import lattice_grid
from hyperprep.models.predict.tune import search_lambda
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.transforms import Chain, DisplacementField, resample
from hyperprep.models.weights import WeightsEntry, find_weights

MAX_SD_LOG_JACOBIAN = 0.35
"""Without labels, lambda is the one of highest similarity whose sd of log |J| stays below this."""

SIMILARITY_KEPT = 0.98
"""With labels, lambda keeps at least this share of the similarity that lambda 0.25 reaches."""

MIN_REFINE_LAMBDA = 0.15
"""Refinement regularises at least this much: at 0 it folded 2.6 % of a real brain."""


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
        pair = make_pair(
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


def _choose(network: HyperMorph, pair: BrainPair, lam: float | str) -> tuple[float, list[dict[str, Any]]]:
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
    pair: BrainPair,
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


def _as_field(displacement: torch.Tensor, pair: BrainPair, grid: Grid) -> DisplacementField:
    """Bring a displacement in coarse voxels to mm on the network's full grid."""
    fine = 2 * F.interpolate(displacement, size=pair.fixed.shape[2:], mode="trilinear")[0]
    return DisplacementField(grid, (fine.movedim(0, -1).cpu().numpy() * grid.spacing).astype(np.float32))
