"""Training task of own regions: masks that somebody drew, any subset of the regions in each scan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hyperprep.exceptions import NoInputError, UsageError
from hyperprep.models.losses.dice import region_loss
from hyperprep.models.nets.region_head import Box, RegionHead, slices_of
from hyperprep.models.nn.smooth import gaussian_smooth
from hyperprep.models.spatial.region_examples import INDEX

MARGIN = 5
"""Voxels by which a region's box is larger than all its masks: 10 mm at 2 mm."""

ONE_SIGMA = 1.5
"""Standard deviation, voxels, by which the prior made of one mask is blurred; of n, 1 / sqrt(n) of it."""

LEAST_SIGMA = 0.5
"""Below this the mean of many masks is blurred by the atlas already."""


@dataclass(frozen=True)
class Prepared:
    """One prepared scan: where it is, whose, and in which row of its masks each region is that was drawn."""

    file: Path
    participant: str
    variant: int
    rows: Mapping[str, int]

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that were drawn."""
        return tuple(self.rows)

    def features(self, box: tuple[slice, ...]) -> torch.Tensor:
        """Read the features in a box, (1, F, *box) float32."""
        return self._part("features", (slice(None), *box))[None].float()

    def mask(self, region: str, box: tuple[slice, ...]) -> torch.Tensor:
        """Read the share of each voxel of a box that is inside a region, (*box) in [0, 1]."""
        return self._part("masks", (self.rows[region], *box)).float() / 255

    def _part(self, name: str, where: tuple[Any, ...]) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as stored:
            part: torch.Tensor = stored.get_slice(name)[where]
        return part


def read_prepared(folder: Path) -> tuple[dict[str, Any], list[Prepared]]:
    """Read the index of prepared examples.

    Returns
    -------
    tuple
        Its content, and the scans.

    Raises
    ------
    NoInputError
        When the folder has no index.
    """
    index = folder / INDEX
    if not index.is_file():
        raise NoInputError(f"{folder} holds no prepared examples ({INDEX} is missing). Prepare them first.")
    content = json.loads(index.read_text())
    scans = [
        Prepared(Path(row["file"]), row["participant"], int(row["variant"]), row["regions"])
        for row in content["scans"]
    ]
    return content, scans


@dataclass
class RegionTask:
    """Own regions on top of the network ``segment``, the region being the condition.

    A region is drawn inversely to how often it was annotated (CoNeMOS, section 3.1), then one of the scans in
    which it was, and the loss is measured on that region alone: what was not drawn in a scan teaches nothing
    there. The prior of a region leaves out the very participant who is learnt from.

    Attributes
    ----------
    folder
        Folder with the index of prepared examples.
    held_out
        Participants who only validate.
    channels
        Channels of the convolutions.
    device
        Where tensors go.

    Raises
    ------
    NoInputError
        When there is no index.
    UsageError
        When nobody is left to learn from, somebody held out has no scan, or a region lies outside the atlas
        or is too small for it.
    """

    folder: Path
    held_out: tuple[str, ...] = ()
    channels: tuple[int, ...] = (24, 24, 24)
    device: str = "cpu"
    name: str = field(default="regions", init=False)

    def __post_init__(self) -> None:
        self.content, scans = read_prepared(self.folder)
        unknown = set(self.held_out) - {scan.participant for scan in scans}
        if unknown:
            raise UsageError(
                f"No scan of {', '.join(sorted(unknown))} to be held out; there are scans of "
                f"{', '.join(sorted({scan.participant for scan in scans}))}. "
                + " ".join(f"Left out: {why}" for why in self.content.get("left_out", ()))
            )
        self.training = [scan for scan in scans if scan.participant not in self.held_out]
        self.testing = [s for s in scans if s.participant in self.held_out and s.variant == 0]
        self.regions = tuple(sorted({name for scan in self.training for name in scan.regions}))
        if not self.regions:
            raise UsageError(
                "Nothing is left to learn from: everybody else is held out. "
                + " ".join(f"Left out: {why}" for why in self.content.get("left_out", ()))
            )
        self.shape = tuple(self.content["grid"]["shape"])
        self.having = [[s for s in self.training if name in s.regions] for name in self.regions]
        self.boxes = [
            self._box_of(name, having) for name, having in zip(self.regions, self.having, strict=True)
        ]
        self.means = [self._means(place) for place in range(len(self.regions))]

    @property
    def annotated(self) -> dict[str, int]:
        """In how many participants each region was drawn."""
        return {name: len(means) for name, means in zip(self.regions, self.means, strict=True)}

    def _box_of(self, region: str, scans: Sequence[Prepared]) -> Box:
        everywhere = tuple(slice(0, n) for n in self.shape)
        union = torch.stack([s.mask(region, everywhere) > 0 for s in scans if s.variant == 0]).any(0)
        places = union.nonzero()
        if not len(places):
            raise UsageError(
                f"{region} lies outside the atlas in every scan. It must be inside the brain: check masks."
            )
        return tuple(
            (max(0, int(low) - MARGIN), min(n, int(high) + 1 + MARGIN))
            for low, high, n in zip(places.amin(0), places.amax(0), self.shape, strict=True)
        )

    def _means(self, place: int) -> dict[str, torch.Tensor]:
        """Give the mean mask of a region, (*box), for each participant in whom it was drawn."""
        box, name = slices_of(self.boxes[place]), self.regions[place]
        found: dict[str, list[torch.Tensor]] = {}
        for scan in self.having[place]:
            if scan.variant == 0:
                found.setdefault(scan.participant, []).append(scan.mask(name, box))
        return {participant: torch.stack(masks).mean(0) for participant, masks in found.items()}

    def prior(self, place: int, without: str | None = None) -> torch.Tensor:
        """Make the prior of a region, (*box): the blurred mean of its masks, less blurred the more there are.

        Parameters
        ----------
        place
            Position of the region.
        without
            Participant to leave out, unless that is the only one.
        """
        means = self.means[place]
        kept = [mask for participant, mask in means.items() if participant != without] or list(means.values())
        sigma = max(LEAST_SIGMA, ONE_SIGMA / len(kept) ** 0.5)
        return gaussian_smooth(torch.stack(kept).mean(0)[None, None].clone(), sigma)[0, 0]

    def build(self) -> nn.Module:
        """Make the network, with the priors of all who train."""
        first, count = self.content["ratios"]
        model = RegionHead(self.boxes, self.content["features"], (first, count), self.channels)
        priors = [self.prior(place) for place in range(len(self.regions))]
        faint = [name for name, prior in zip(self.regions, priors, strict=True) if prior.max() < 2 / 255]
        if faint:
            raise UsageError(
                f"{', '.join(faint)}: too small for voxels of {self.content['grid']['spacing_mm']:g} mm. "
                "Draw a larger region, or leave it out with --regions."
            )
        model.fill(priors)
        return model

    def batch(self, rng: np.random.Generator) -> Any:
        """Draw a region, inversely to how often it was drawn, and a scan of it."""
        rare = np.array([1 / len(means) for means in self.means])
        place = int(rng.choice(len(rare), p=rare / rare.sum()))
        having = self.having[place]
        scan = having[int(rng.integers(len(having)))]
        box = slices_of(self.boxes[place])
        prior = self.prior(place, without=scan.participant)
        if len(self.means[place]) == 1:  # its own mask: let it not be trusted to the voxel
            prior = torch.roll(prior, tuple(int(v) for v in rng.integers(-1, 2, 3)), (0, 1, 2))
        tensors = (scan.features(box), scan.mask(self.regions[place], box), prior)
        return place, *(tensor.to(self.device) for tensor in tensors)

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Soft Dice and cross-entropy of one region in its box."""
        place, features, mask, prior = batch
        logits = model(features, place, prior)
        with torch.no_grad():
            probability = torch.sigmoid(logits)
            dice = float(2 * (probability * mask).sum() / (probability.square() + mask.square()).sum())
        return region_loss(logits.reshape(-1, 1), mask.reshape(-1, 1)), {"dice": dice}

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Hard Dice of each region on the atlas in the scans held out; what lies outside the box is missed.

        Nothing where none is held out, or where a region nowhere fills half of a voxel.
        """
        assert isinstance(model, RegionHead)
        scores: dict[str, list[float]] = {}
        for scan in self.testing:
            for name in scan.regions:
                if name in self.regions:
                    place = self.regions.index(name)
                    box = slices_of(self.boxes[place])
                    logits = model(scan.features(box).to(self.device), place)
                    truth = scan.mask(name, tuple(slice(0, n) for n in self.shape)).to(self.device) > 0.5
                    if truth.any():
                        hits = int(((logits > 0) & truth[box]).sum())
                        both = int((logits > 0).sum()) + int(truth.sum())
                        scores.setdefault(name, []).append(2 * hits / both)
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        return {"mean": float(np.mean(list(means.values()))), **means} if means else {}
