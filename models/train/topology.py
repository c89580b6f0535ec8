"""Training task of the topology network: pairs of healthy synthetic brains, and nothing but them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.exceptions import UsageError
from hyperprep.models.losses.similarity import local_ncc
from hyperprep.models.losses.topology import bound, brain_union, differences, feature_variances
from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.nets.head_unet import LabelConditioned
from hyperprep.models.nets.tissue_features import TissueFeatures
from hyperprep.models.nets.topology import LEAST_VARIANCE, Features, TopologyNetwork
from hyperprep.models.nn.warp import integrate, warp
from hyperprep.models.synth.apply import Lattice
from hyperprep.models.synth.draw import SynthSpec
from hyperprep.models.synth.maps import LabelMaps
from hyperprep.models.synth.structures import TISSUE_KINDS
from hyperprep.models.train.begin import begin_from
from hyperprep.models.train.registration import brain_pair
from hyperprep.models.weights import find_weights

FEATURES = ("tissues", "semantic", "segment", "image")
"""What can be compared: tissues by intensity, stages of a segmentation network of that name, or images."""

STARTS = ("none", "registration")
"""Where the posterior's mean starts: at no displacement, or at the registration network's."""


def tissue_features() -> TissueFeatures:
    """Make the features of tissues with the atlas of the network ``segment`` for images aligned affinely."""
    network = load_network(find_weights("segment"))
    assert isinstance(network, AtlasUNet)
    prior = network.atlas.at_voxels("affine")[1].exp().T.unflatten(1, network.shape)
    made = TissueFeatures(len(prior), network.shape)
    made.fill(prior, TISSUE_KINDS)
    return made


@dataclass
class TopologyTask:
    """The negative bound of both directions of a pair (Czolbe et al. 2021, eq. 1 with 3 to 5).

    Attributes
    ----------
    maps
        Label maps in the template frame, none with pathology; the last ``held_out`` only validate.
    lattice, spec
        The network's grid and the ranges of the images.
    dims
        3, or 2 to register axial slices.
    channels, norm
        Of the posterior's U-Net.
    features
        One of :data:`FEATURES`; the segmentation network's weights must be found, also for ``"tissues"``,
        which take its atlas.
    reduction
        ``"sum"`` or ``"mean"`` over the features, of the network.
    start
        One of :data:`STARTS`. A small network reaches in an hour what the registration network leaves open,
        not a whole registration (docs/decisions/0009).
    begin_from
        Name of weights of the same network to begin from; none when empty.
    pairs
        Pairs of heads in a step; each is registered in both directions.
    slices
        Slices taken of each pair with ``dims`` 2.
    same_contrast
        Share of pairs whose images are drawn with the same contrast.
    """

    maps: LabelMaps
    lattice: Lattice
    spec: SynthSpec
    name: str = "topology"
    dims: int = 3
    channels: tuple[int, ...] = (64, 128, 256)
    norm: str = "batch"
    features: str = "semantic"
    reduction: str = "sum"
    start: str = "none"
    begin_from: str = ""
    pairs: int = 1
    slices: int = 16
    same_contrast: float = 1.0
    held_out: int = 2
    device: str = "cpu"
    _registration: nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.features not in FEATURES or self.start not in STARTS or self.dims not in (2, 3):
            raise UsageError(
                f"[model] features is one of {FEATURES}, start one of {STARTS}, dims 2 or 3; found "
                f"{self.features!r}, {self.start!r}, {self.dims!r}."
            )
        if self.dims == 2 and self.start != "none":
            raise UsageError("[model] start must be 'none' where slices are registered (dims = 2).")
        if self.start == "registration":
            network = load_network(find_weights("hypermorph"))
            self._registration = network.requires_grad_(False).to(self.device)

    def build(self) -> nn.Module:
        """Make the network; its variances start at those between the brains as it is given them."""
        inner: nn.Module | None = None
        if self.features == "tissues":
            inner = tissue_features()
        elif self.features != "image":
            found = load_network(find_weights(self.features))
            assert isinstance(found, LabelConditioned)
            inner = found
        model = TopologyNetwork(self.dims, self.channels, self.norm, inner, self.reduction).to(self.device)
        if self.begin_from:
            begin_from(model, self.begin_from)
            return model
        fixed, moving, start = self.batch(np.random.default_rng(0))
        with torch.no_grad():
            one = self._describe(model, fixed)
            still = fixed.new_zeros(len(fixed), 3, *fixed.shape[2:]) if start is None else start
            left = differences(one, [swapped(stage) for stage in one], still)
            spread = feature_variances(left, brain_union(fixed, moving, still))
            model.feature_log_variance.copy_(spread.clamp_min(LEAST_VARIANCE).log())
        return model

    def pair(
        self, rng: np.random.Generator, indices: tuple[int, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make two images, (1, 1, *shape) each, of different heads."""
        usable = len(self.maps.maps) - self.held_out
        chosen = indices or tuple(rng.choice(usable, 2, replace=False).tolist())
        made = brain_pair(self.maps, self.lattice, self.spec, rng, chosen, same_contrast=self.same_contrast)
        (one, _), (other, _) = made
        return one, other

    def batch(
        self, rng: np.random.Generator, indices: tuple[int, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Draw volumes (2 pairs, 1, *shape), fixed and moving, each pair both ways, and where to start."""
        fixed = torch.cat([image for _ in range(self.pairs) for image in self.pair(rng, indices)])
        moving = swapped(fixed)
        return fixed, moving, self._start(fixed, moving, rng)

    @torch.no_grad()
    def _start(
        self, fixed: torch.Tensor, moving: torch.Tensor, rng: np.random.Generator
    ) -> torch.Tensor | None:
        """Register by the registration network, at a random regularisation; (B, 3, *shape) voxels."""
        if self._registration is None:
            return None
        lam = torch.tensor([rng.uniform(0.1, 0.7)], dtype=torch.float32, device=fixed.device)
        velocity = torch.cat(
            [self._registration(f[None], m[None], lam) for f, m in zip(fixed, moving, strict=True)]
        )
        return 2 * F.interpolate(integrate(velocity), size=fixed.shape[2:], mode="trilinear")

    def _describe(self, model: TopologyNetwork, images: torch.Tensor) -> Features:
        """Compute features of one volume after the other; a segmentation network with an atlas takes one."""
        each = [model.describe(one[None]) for one in images]
        return [torch.cat(stage) for stage in zip(*each, strict=True)]

    def _terms(
        self, model: TopologyNetwork, batch: Any
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], dict[str, float]]:
        fixed, moving, start = batch
        described = self._describe(model, fixed)
        features = [described, [swapped(stage) for stage in described]]
        if self.dims == 2:
            chosen = self._planes(fixed)
            features = [[at_planes(stage, chosen, fixed.shape[-1]) for stage in one] for one in features]
            fixed, moving = (at_planes(image, chosen, fixed.shape[-1]) for image in (fixed, moving))
        found = model.posterior(fixed, moving, start)
        mask = brain_union(fixed, moving, found.mean)
        misfit, divergence, *moments = bound(model, features[0], features[1], found, mask)
        with torch.no_grad():
            figures = {
                "misfit": float(misfit),
                "divergence": float(divergence),
                "alpha": float(1 / moments[0][0]),
                "beta": float(1 / moments[0][1]),
                "sd": float((found.log_variance / 2).exp().mean()),
                "ncc": float(local_ncc(fixed, warp(moving, found.mean), window=5, mask=mask)),
            }
        return misfit, divergence, moments, figures

    def _planes(self, image: torch.Tensor) -> torch.Tensor:
        """Draw axial planes that hold brain (all of them where fewer than ``slices``)."""
        held = torch.nonzero((image > 0).sum(dim=(0, 1, 2, 3)) > 200 * len(image))[:, 0].cpu()
        if not len(held):
            held = torch.arange(image.shape[-1])
        return held[torch.randperm(len(held))[: self.slices]].to(image.device)

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the negative bound per voxel of the brains, and move the running prior and variances."""
        assert isinstance(model, TopologyNetwork)
        misfit, divergence, moments, figures = self._terms(model, batch)
        model.follow(*moments, first=bool((model.running == 0).all()))
        return misfit + divergence, figures

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measure three pairs of the held-out heads."""
        assert isinstance(model, TopologyNetwork)
        out: dict[str, float] = {}
        last = len(self.maps.maps)
        for seed in range(3):
            rng = np.random.default_rng([54321, seed])
            torch.manual_seed(seed)
            fixed, moving, start = self.batch(rng, indices=(last - 2, last - 1))
            before = warp(moving, start) if start is not None else moving
            inside = (fixed > 0).float()
            figures = self._terms(model, (fixed, moving, start))[3]
            figures["ncc_before"] = float(local_ncc(fixed, before, window=5, mask=inside))
            for key, value in figures.items():
                out[key] = out.get(key, 0.0) + value / 3
        return out


def swapped(both: torch.Tensor) -> torch.Tensor:
    """Exchange the two members of every pair in a batch (2 pairs, ...).

    Examples
    --------
    >>> swapped(torch.arange(4)).tolist()
    [1, 0, 3, 2]
    """
    return both.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def at_planes(volume: torch.Tensor, planes: torch.Tensor, depth: int) -> torch.Tensor:
    """Cut axial slices of volumes: (B, C, X, Y, Z) -> (B planes, C, X, Y).

    Parameters
    ----------
    volume
        A volume or features of it, perhaps coarser along every axis.
    planes
        (P,) indices along the last axis of the finest volume.
    depth
        Length of that axis.

    Examples
    --------
    >>> coarse = torch.arange(2.0).view(1, 1, 1, 1, 2)
    >>> at_planes(coarse, torch.tensor([0, 1, 3]), 4).flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    chosen = volume[..., planes * volume.shape[-1] // depth]
    return chosen.movedim(-1, 1).flatten(0, 1)
