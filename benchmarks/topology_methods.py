"""Methods that score topology change, behind one face: skull-stripped scan in the template frame -> maps.

A method gives, on the evaluation grid in the scan's space, its score, the score averaged over a voxel less
the mean of healthy heads there (not less it where no registration transports a mean), and its seconds.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import nibabel as nb
import numpy as np
from scipy import ndimage

from hyperprep.models.spatial.controls import ControlStatistics, averaged
from hyperprep.models.spatial.grids import Grid
from hyperprep.models.spatial.images import robust_rescale
from hyperprep.models.spatial.transforms import resample

Scored = tuple[np.ndarray, np.ndarray | None, float]
Made = TypeVar("Made")

LI_WYATT = {"sigma": 6.0, "K": 2.0}
"""Width of the Gaussian derivative (voxels of 2 mm; the paper's were pixels) and weight of the gradient."""


def digest_of(folder: str | Path) -> str:
    """Say by which weights and statistics of controls our scores of a folder are made."""
    from hyperprep.models.weights import find_weights

    entry = find_weights("topology", weights_dir=folder)
    kept = entry.metadata.get("controls", {})
    return " ".join([entry.sha256, *(kept[kind]["sha256"] for kind in sorted(kept))])


def scaled(img: nb.Nifti1Image) -> nb.Nifti1Image:
    """Rescale a skull-stripped image to [0, 1]."""
    data = img.get_fdata(dtype=np.float32)
    return nb.Nifti1Image(robust_rescale(data, data > 0) * (data > 0), img.affine)


class KeptForScan(Generic[Made]):
    """A registration of the template to scans, kept for the last scan: several methods read the same one."""

    def __post_init__(self) -> None:
        self._kept = functools.lru_cache(maxsize=1)(self.register)

    def register(self, scan: nb.Nifti1Image) -> Made:
        """Register the template to a scan."""
        raise NotImplementedError

    def __call__(self, scan: nb.Nifti1Image) -> Made:
        """Give the registration to a scan, made now or for another method before."""
        return self._kept(scan)


@dataclass
class Starts(KeptForScan[tuple[Any, float]]):
    """Our registration, which several networks start from: both point maps, and the seconds they took."""

    template: nb.Nifti1Image
    device: str = "cpu"
    threads: int | None = None

    def register(self, scan: nb.Nifti1Image) -> tuple[Any, float]:
        """Register as a topology network without a registration does."""
        from hyperprep.models.predict.register import register
        from hyperprep.models.predict.topology import START_LAMBDA

        began = time.perf_counter()
        found = register(
            self.template, scan, fixed2moving=np.eye(4), lam=START_LAMBDA, device=self.device,
            num_threads=self.threads,
        )  # fmt: skip
        return (found.chain(), found.inverse_chain()), time.perf_counter() - began


@dataclass
class Ours:
    """The network of one weights folder."""

    folder: Path | None
    controls: ControlStatistics | None
    starts: Starts
    grid: Grid

    def __call__(self, scan: nb.Nifti1Image) -> Scored:
        """Score a scan; its seconds hold the registration that it starts from."""
        from hyperprep.models.predict.outliers import outliers
        from hyperprep.models.predict.topology import topology_change
        from hyperprep.models.weights import find_weights

        transforms, spent = None, 0.0
        if find_weights("topology", weights_dir=self.folder).metadata["network"]["start"] != "none":
            transforms, spent = self.starts(scan)
        began = time.perf_counter()
        found = topology_change(
            self.starts.template,
            scan,
            fixed2moving=np.eye(4),
            transforms=transforms,
            weights_dir=self.folder,
            device=self.starts.device,
            num_threads=self.starts.threads,
        )
        excess = None if self.controls is None else outliers(found, self.controls).moving_excess
        seconds = spent + time.perf_counter() - began

        def place(values: np.ndarray) -> np.ndarray:
            return np.asanyarray(found.on_moving(values, self.grid).dataobj)

        return place(found.moving_score), None if excess is None else place(excess), seconds


@dataclass(frozen=True, eq=False)
class Registered:
    """What ANTs' SyN made of two images: both, the moved one, the Jacobian determinant, and its files."""

    fixed: Any
    moving: Any
    moved: np.ndarray
    determinant: np.ndarray
    found: dict[str, Any]
    seconds: float


def syn_only(fixed: nb.Nifti1Image, moving: nb.Nifti1Image) -> Registered:
    """Register two images on one grid by ANTs' SyN, without a linear stage."""
    import ants

    began = time.perf_counter()
    one, other = (ants.from_nibabel_nifti(img) for img in (fixed, moving))
    found = ants.registration(
        fixed=one, moving=other, type_of_transform="SyNOnly", initial_transform="Identity"
    )
    determinant = _determinant(one, found)
    moved = found["warpedmovout"].numpy()
    return Registered(one, other, moved, determinant, found, time.perf_counter() - began)


@dataclass
class TemplateToScan(KeptForScan[Registered]):
    """ANTs' SyN, whose registration several scores read."""

    template: nb.Nifti1Image
    grid: Grid

    def register(self, scan: nb.Nifti1Image) -> Registered:
        """Register on the evaluation grid."""
        small = [resample(scaled(img), self.grid, [np.eye(4)]) for img in (scan, self.template)]
        return syn_only(small[0], small[1])


@dataclass
class AfterSyN:
    """Scores of what ANTs' SyN leaves over between scan and template."""

    kind: str
    register: TemplateToScan
    mean: np.ndarray | None = field(default=None, init=False)

    def _score(self, one: Registered) -> np.ndarray:
        fixed = one.fixed.numpy()
        return np.asarray(score_of(self.kind, fixed, one.moved, one.determinant) * (fixed > 0))

    def __call__(self, scan: nb.Nifti1Image) -> Scored:
        """Score a scan; its seconds hold the registration, also where another score needed it before."""
        import ants

        one = self.register(scan)
        began = time.perf_counter()
        score, above = self._score(one), None
        if self.mean is not None:
            mean = ants.apply_transforms(
                one.fixed, one.moving.new_image_like(self.mean), one.found["fwdtransforms"]
            )
            inside = one.fixed.numpy() > 0
            above = np.where(inside, averaged(score, inside, self.register.grid) - mean.numpy(), 0)
        return score, above, one.seconds + time.perf_counter() - began


def learn(methods: Sequence[AfterSyN], healthy: Iterator[nb.Nifti1Image]) -> None:
    """Average each method's scores of healthy heads in the template's space."""
    import ants

    sums: dict[str, np.ndarray] = {}
    count = 0
    for scan in healthy:
        count += 1
        for method in methods:
            one = method.register(scan)
            score = averaged(method._score(one), one.fixed.numpy() > 0, method.register.grid)
            moved = ants.apply_transforms(
                one.moving, one.fixed.new_image_like(score), one.found["invtransforms"]
            )
            sums[method.kind] = sums.get(method.kind, np.zeros_like(score)) + moved.numpy()
    for method in methods:
        if count:
            method.mean = sums[method.kind] / count


def _determinant(fixed: Any, found: dict[str, Any]) -> np.ndarray:
    import ants

    warp = next(name for name in found["fwdtransforms"] if "Warp" in name)
    return np.asarray(ants.create_jacobian_determinant_image(fixed, warp).numpy())


def score_of(kind: str, fixed: np.ndarray, moved: np.ndarray, determinant: np.ndarray) -> np.ndarray:
    """Give a baseline's score of each voxel.

    ``difference``: squared intensity difference. ``li-wyatt``: the difference, scaled to [0, 1], where the
    scan has no edges, by one minus K times its Gaussian gradient magnitude, scaled likewise (Li and Wyatt
    2010 as Czolbe et al. use it). ``log-jacobian``: squared log of the Jacobian determinant.

    >>> flat = np.ones((7, 8, 9), np.float32)
    >>> float(score_of("log-jacobian", flat, flat, np.full((7, 8, 9), np.e)).max().round(3))
    1.0
    """
    if kind == "log-jacobian":
        return np.asarray(np.log(np.clip(np.abs(determinant), 1e-3, None)) ** 2)
    difference = (fixed - moved) ** 2
    if kind == "difference":
        return np.asarray(difference)
    edges = ndimage.gaussian_gradient_magnitude(fixed, LI_WYATT["sigma"])
    return _unit(1 - LI_WYATT["K"] * edges) * _unit(difference)


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-9))


def anomaly(checkpoint: Path, grid: Grid) -> Callable[[nb.Nifti1Image], Scored]:
    """Score by the reconstruction error of a spatial VAE (An and Cho 2015); it registers nothing."""
    from benchmarks.topology_vae import load, reconstruction_error

    network = load(checkpoint)

    def score(scan: nb.Nifti1Image) -> Scored:
        began = time.perf_counter()
        image = resample(scaled(scan), grid, [np.eye(4)]).get_fdata(dtype=np.float32)
        found = reconstruction_error(network, image) * (image > 0)
        return found, averaged(found, image > 0, grid), time.perf_counter() - began

    return score


def names(chosen: Sequence[str]) -> list[str]:
    """Give the baselines among the names of methods.

    >>> names(["ours", "li-wyatt"])
    ['li-wyatt']
    """
    return [name for name in chosen if name in ("difference", "li-wyatt", "log-jacobian")]
