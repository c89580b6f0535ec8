"""HyperMorph registration of two affinely aligned brains, lambda given or tuned, and its refinement."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nb
import numpy as np
import torch
import torch.nn.functional as F

from hyperprep.exceptions import UsageError
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.hypermorph import HyperMorph
from hyperprep.models.nets.hyperparameters import fixed_values, read_hyperparameters
from hyperprep.models.nn.greedy import as_field, invert_displacement
from hyperprep.models.nn.greedy import refine as refine_displacement
from hyperprep.models.nn.warp import integrate, resize, warp
from hyperprep.models.predict.device import pick_device, torch_threads
from hyperprep.models.predict.pair import BrainPair, make_pair, region_groups
from hyperprep.models.predict.rules import percentiles
from hyperprep.models.predict.sampling import halved, lattice_grid
from hyperprep.models.predict.trials import Trials
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.sweep import LambdaSweep
from hyperprep.models.spatial.transforms import Chain, DisplacementField, resample
from hyperprep.models.weights import find_weights

MIN_REFINE_LAMBDA = 0.15
"""Refinement with a tuned lambda regularises at least this much: at 0 it folded 2.6 % of a real brain."""


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
    sweep
        The network's registrations over [0, 1], where they were asked for.
    """

    forward: DisplacementField
    inverse: DisplacementField
    fixed2moving: np.ndarray
    frame2fixed: np.ndarray
    lam: float
    curve: list[dict[str, Any]]
    metrics: dict[str, Any]
    moved: nb.Nifti1Image = field(repr=False)
    sweep: LambdaSweep | None = field(default=None, repr=False)

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
    hyperparameters: Mapping[str, float] | None = None,
    regions: Sequence[str] = (),
    search: Literal["bounded", "gradient"] = "bounded",
    refine: Literal["ncc", "none"] = "ncc",
    symmetric: bool = False,
    fixed_weight: nb.Nifti1Image | None = None,
    sweep_steps: int = 0,
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
    hyperparameters
        Values of the weights' other hyperparameters, where they have any: ``gamma`` in [0, 1], ``w`` in
        voxels of the network's grid. What is not given is at the default that the weights state.
    regions
        Regions whose overlap ``lam="auto"`` maximises: names, FreeSurfer numbers or super-regions, each
        counting alike; all labels when empty.
    search
        How ``lam="auto"`` searches: ``"bounded"`` by scores alone, ``"gradient"`` along their derivative by
        lambda. The score is the same.
    refine
        ``"ncc"``: a few greedy steps on this pair; ``"none"``: the network alone. With ``lam="auto"`` and
        labels, a refinement that lowers their overlap is not used: between two scans of one head there is
        little to refine but noise.
    symmetric
        Register in both directions and take the average, so that exchanging the images exchanges the
        transforms; twice the time.
    fixed_weight
        In [0, 1], in the fixed image's space on any grid: how much each place counts in the refinement's
        similarity. 0 where no match exists, as beside a lesion that the moving brain has.
    sweep_steps
        How many evenly spaced lambdas the result's ``sweep`` holds beside the chosen one; none when 0.
    weights, weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    Registration
        Transforms both ways, the lambda curve and figures.

    Raises
    ------
    UsageError
        When lambda or another hyperparameter is outside its range, the weights do not have it, or the
        search, the refinement or a region is not known.
    ScanError
        When nothing of the brain lies on the network's grid.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    if lam != "auto" and not 0 <= float(lam) <= 1:
        raise UsageError(f"lambda must lie in [0, 1] or be 'auto', not {lam}.")
    if search not in ("bounded", "gradient"):
        raise UsageError(f"Unknown search '{search}': use bounded or gradient.")
    if refine not in ("ncc", "none"):
        raise UsageError(f"Unknown refinement '{refine}': use ncc or none.")
    frame2fixed = np.eye(4) if frame2fixed is None else np.asarray(frame2fixed, float)
    entry = find_weights("hypermorph", path=weights, weights_dir=weights_dir)
    known = read_hyperparameters(entry.metadata)
    others = fixed_values(known, hyperparameters)
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
            groups=region_groups(regions),
            fine=refine != "none",
            percentiles=percentiles(entry),
        )
        clock["prepared"] = time.perf_counter()
        scaled = [one.scaled(others[one.name]) for one in known[1:]]
        trials = Trials(network, pair, regions, symmetric=symmetric, others=scaled)
        chosen = trials.choose(search) if lam == "auto" else float(lam)
        velocity, alone = trials.velocity(chosen), trials.row(chosen)
        counted = {"lambda_evaluations": trials.evaluations, "lambda_gradients": trials.gradients}
        clock["network"] = time.perf_counter()
        weight = max(chosen, MIN_REFINE_LAMBDA) if lam == "auto" else chosen
        displacement, measured = None, None
        if refine == "ncc":
            counts = _weight_of(fixed_weight, grid, frame2fixed, where)
            displacement = _refined(pair, velocity, weight, symmetric=symmetric, counts=counts)
            measured = pair.measure_displacement(displacement)
            if lam == "auto" and measured.get("dice_all", 0.0) < alone.get("dice_all", 0.0):
                displacement, measured = None, None
        clock["refined"] = time.perf_counter()
        figures = {
            "lambda": chosen,
            **others,
            **counted,
            "lambda_search": search if lam == "auto" else "none",
            "lambda_regions": ", ".join(regions) if regions and lam == "auto" else "all",
            "refinement": refine if displacement is not None else "none",
            "refinement_refused": refine != "none" and displacement is None,
            "refine_lambda": weight,
            "symmetric": symmetric,
            **_measures(pair, measured, alone),
            **_durations(clock),
            "weights_sha256": entry.sha256,
        }
        sweep = _sweep(trials, chosen, sweep_steps, grid, frame2fixed, fixed2moving @ frame2fixed)
        curve = trials.curve(chosen)
        if displacement is None:
            forward, inverse = (_upsampled(integrate(v, steps=7), grid) for v in (velocity, -velocity))
        else:
            forward, inverse = (as_field(u, grid) for u in (displacement, invert_displacement(displacement)))
    fixed2moving = np.asarray(fixed2moving, float)
    result = Registration(
        forward, inverse, fixed2moving, frame2fixed, chosen, curve, figures, moved=fixed, sweep=sweep
    )
    return replace(result, moved=resample(moving, Grid.of(fixed), result.chain()))


def _weight_of(
    img: nb.Nifti1Image | None, grid: Grid, frame2fixed: np.ndarray, where: torch.device
) -> torch.Tensor | None:
    """Bring a weight onto the refinement's grid, (1, 1, *fine); 1 where it does not reach."""
    if img is None:
        return None
    lost = nb.Nifti1Image(1 - np.clip(img.get_fdata(dtype=np.float32), 0, 1), img.affine)
    values = resample(lost, halved(grid), [frame2fixed]).get_fdata(dtype=np.float32)
    return 1 - torch.from_numpy(values)[None, None].to(where)


def _refined(
    pair: BrainPair,
    velocity: torch.Tensor,
    lam: float,
    *,
    symmetric: bool,
    counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Refine the network's velocity; where asked for, in both directions, and take the average."""
    assert pair.fixed_fine is not None
    assert pair.moving_fine is not None
    forward = integrate(velocity, steps=6)
    there = refine_displacement(forward, pair.fixed_fine, pair.moving_fine, lam=lam, weight=counts)
    if not symmetric:
        return there
    backward, moved = integrate(-velocity, steps=6), counts
    if counts is not None:
        factor = counts.shape[2] / backward.shape[2]
        moved = warp(counts, resize(backward, counts.shape[2:], factor=factor))
    back = refine_displacement(backward, pair.moving_fine, pair.fixed_fine, lam=lam, weight=moved)
    return (there + invert_displacement(back)) / 2


def _measures(pair: BrainPair, refined: dict[str, float] | None, alone: dict[str, Any]) -> dict[str, float]:
    """Give overlap, similarity and regularity: before, of the network alone, and of the result."""
    network = {k: v for k, v in alone.items() if k != "lam"}
    return {
        **{f"{k}_affine": v for k, v in pair.measure_fit().items()},
        **{f"{k}_network": v for k, v in network.items()},
        **(network if refined is None else refined),
    }


def _durations(clock: dict[str, float]) -> dict[str, float]:
    return {
        "seconds_prepare": round(clock["prepared"] - clock["start"], 2),
        "seconds_network": round(clock["network"] - clock["prepared"], 2),
        "seconds_refine": round(clock["refined"] - clock["network"], 2),
    }


def _sweep(
    trials: Trials,
    chosen: float,
    steps: int,
    grid: Grid,
    frame2fixed: np.ndarray,
    frame2moving: np.ndarray,
) -> LambdaSweep | None:
    """Register over [0, 1] with the network alone; displacements stay on its coarse grid."""
    if steps < 2:
        return None
    lams = sorted({round(i / (steps - 1), 4) for i in range(steps)} | {chosen})
    halved = np.diag([2.0, 2.0, 2.0, 1.0])
    halved[:3, 3] = 0.5
    fields = []
    for lam in lams:
        trials.row(lam)
        fields.append(integrate(trials.velocity(lam), steps=7)[0].movedim(0, -1).cpu().numpy())
    displacement = np.stack(fields) * (2 * grid.spacing)
    coarse = Grid(displacement.shape[1:4], grid.affine @ halved)
    return LambdaSweep(np.array(lams), displacement, coarse, frame2fixed, frame2moving)


def _upsampled(displacement: torch.Tensor, grid: Grid) -> DisplacementField:
    """Bring a displacement in coarse voxels to mm on the network's full grid."""
    return as_field(2 * F.interpolate(displacement, size=grid.shape, mode="trilinear"), grid)
