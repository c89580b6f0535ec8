"""A segmentation network that starts from atlas and tissue intensities and learns what they leave open."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nets.atlas import Alignment, Atlas
from hyperprep.models.nets.head_unet import ConvBlock, LabelConditioned, Pointwise
from hyperprep.models.nn.tissue import BINS, intensity_bins, log_likelihoods

RATIO_SCALE = 0.25
"""By which the tissues' log-likelihood ratios are brought to the size of other features."""

RESEMBLES = 0.5
"""Correlation inside the brain from which on an image has a usual contrast."""


class AtlasUNet(LabelConditioned):
    """U-Net whose answer for a label adds to the label's prior and the evidence of the image's intensities.

    Before the first training step this is the classical segmentation by Bayes' rule: an atlas tells where a
    label may be, and each tissue's distribution of intensities is estimated from the image itself, whatever
    its contrast (:func:`~hyperprep.models.nn.tissue.log_likelihoods`). The trunk sees image and tissue
    posteriors and is computed once per image; the asked label chooses a prior, a tissue and a weight vector
    over the trunk's features.

    The attribute ``alignment`` says how images were brought onto the atlas: ``"affine"`` (then the atlas is
    blurred) or ``"nonlinear"``, deformed onto what :meth:`painted` gives.

    Parameters
    ----------
    n_labels
        Number of conditions.
    n_tissues
        Number of tissues with an intensity distribution of their own; 0 is whatever is not brain.
    shape
        Voxels of the fixed grid in the template frame, each divisible by :attr:`divisor`.
    channels
        Channels of each level of the trunk; the first is at full resolution, where nothing is normalised:
        half of a training step's time went there.
    hidden
        Units of the layer that label weights read.
    """

    stem = 1

    def __init__(
        self,
        n_labels: int,
        n_tissues: int,
        shape: Sequence[int],
        channels: Sequence[int] = (16, 24, 64, 96),
        hidden: int = 48,
    ) -> None:
        super().__init__()
        self.n_labels, self.shape = n_labels, tuple(shape)
        self.own, self.features = channels[0], channels[0] + n_tissues - 1
        self.stage_channels = tuple(channels)
        self.atlas = Atlas(n_labels, n_tissues, shape)
        self.alignment: Alignment = "affine"
        self.down = nn.ModuleList([ConvBlock(1 + n_tissues, channels[0], norm=False)])
        for before, c in itertools.pairwise(channels):
            self.down.append(nn.Sequential(ConvBlock(before, c), ConvBlock(c, c)))
        self.place = Pointwise(n_labels, channels[1])
        self.lift, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(len(channels) - 2, -1, -1):
            c = channels[level]
            self.lift.append(Pointwise(channels[level + 1], c))
            self.up.append(
                ConvBlock(c, c, norm=False) if level == 0 else nn.Sequential(ConvBlock(c, c), ConvBlock(c, c))
            )
        self.mix = nn.Linear(self.features, hidden)
        self.label_weights = nn.Linear(n_labels, hidden + 1, bias=False)
        self.trust = nn.Parameter(torch.tensor([1.0, 0.7]))
        with torch.no_grad():
            self.label_weights.weight[:-1] *= 0.1 * (n_labels / hidden) ** 0.5
            self.label_weights.weight[-1] = 0

    @property
    def divisor(self) -> int:
        """What each side of the image must be divisible by."""
        return int(2 ** (len(self.down) - 1))

    def prior_at_voxels(self) -> torch.Tensor:
        """Give the labels' log-odds on the network's grid, (voxels, n_labels), C order."""
        return self.atlas.at_voxels(self.alignment)[0]

    @torch.no_grad()
    def evidence(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give what the intensities alone say.

        Parameters
        ----------
        image
            (*shape) in [0, 1].

        Returns
        -------
        tuple of torch.Tensor
            Tissue posteriors, (*shape, n_tissues), and log-likelihood ratios of all tissues but 0 against
            tissue 0, (*shape, n_tissues - 1).
        """
        log_prior = self.atlas.at_voxels(self.alignment)[1]
        likelihood = self._distributions(image)[intensity_bins(image.flatten(), BINS)]
        posterior = torch.softmax(log_prior + likelihood, dim=1).view(*self.shape, -1)
        return posterior, (likelihood[:, 1:] - likelihood[:, :1]).view(*self.shape, -1)

    def likelihood_ratios(self, image: torch.Tensor) -> torch.Tensor:
        """Give by intensity how much likelier each tissue is than tissue 0: logs, (BINS, n_tissues - 1).

        Parameters
        ----------
        image
            (*shape) in [0, 1]; the distributions are estimated from it.
        """
        table = self._distributions(image)
        return table[:, 1:] - table[:, :1]

    @property
    def evidence_weights(self) -> torch.Tensor:
        """How much each tissue's ratio adds to each label's logit, (n_labels, n_tissues - 1)."""
        return self.trust[1] * self.atlas.get_buffer("tissue").float()[:, 1:]

    def _distributions(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate the log-probability of each intensity in each tissue, (BINS, n_tissues)."""
        every = torch.zeros(self.shape, dtype=torch.bool, device=image.device)
        every[::2, ::2, ::2] = True
        log_prior = self.atlas.at_voxels(self.alignment)[1]
        return log_likelihoods(image[every], log_prior[every.flatten()].exp(), bins=BINS)

    @torch.no_grad()
    def painted(self, image: torch.Tensor) -> torch.Tensor:
        """Paint the sharp atlas as an image looks: what the image is deformed onto.

        In the usual contrast that resembles the image most, if one does: the means of tissues that a blurred
        atlas separates badly make a worse painting (docs/decisions/0010). Else with the tissue means
        estimated from the image.

        Parameters
        ----------
        image
            (*shape) in [0, 1], brought onto the atlas as :attr:`alignment` says, 0 outside the brain.

        Returns
        -------
        torch.Tensor
            (*shape) in [0, 1]: expected intensity of the atlas' brain, 0 outside.
        """
        inside = (image > 0).flatten()
        candidates = self.atlas.painted(self.alignment).flatten(1)[:, inside]
        known = candidates.std(1) > 0
        rows = torch.cat([image.flatten()[inside][None], candidates])
        likeness = torch.where(known, torch.corrcoef(rows)[0, 1:], -1.0)
        best = int(likeness.argmax())
        if likeness[best] > RESEMBLES:
            return self.atlas.painted("nonlinear")[best]
        centres = (torch.arange(BINS, device=image.device) + 0.5) / BINS
        means = centres @ self._distributions(image).exp()
        tissues = self.atlas.at_voxels("nonlinear")[1].exp()
        return (tissues[:, 1:] @ means[1:]).view(self.shape)

    def stages(self, image: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Give the encoder's features, finest stage first."""
        posterior = torch.stack([self.evidence(one[0])[0] for one in image]).movedim(-1, 1)
        return self._encode(image, posterior, count)

    def _encode(
        self, image: torch.Tensor, posterior: torch.Tensor, count: int | None = None
    ) -> list[torch.Tensor]:
        x = torch.cat([image, posterior], dim=1).contiguous(memory_format=torch.channels_last_3d)
        found = []
        for level, block in enumerate(self.down[:count]):
            x = block(x if level == 0 else F.max_pool3d(x, 2))
            if level == 1:
                x = x + self.place(self.atlas.at_voxels(self.alignment)[2])
            found.append(x)
        return found

    def trunk(self, image: torch.Tensor) -> torch.Tensor:
        """Compute what all labels share: (B, 1, *shape) -> (B, features, *shape)."""
        found = [self.evidence(one[0]) for one in image]
        posterior, ratio = (torch.stack(v).movedim(-1, 1) for v in zip(*found, strict=True))
        skips = self._encode(image, posterior)
        x = skips[-1]
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=True):
            x = block(F.interpolate(lift(x), scale_factor=2, mode="nearest") + skip)
        return torch.cat([x, RATIO_SCALE * ratio], dim=1)

    def cell_logits(
        self, cells: torch.Tensor, conditions: torch.Tensor, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Give prior, evidence and learned part of the asked labels at some voxels, (N, 1, L)."""
        return self._logits(cells, self.label_weights(conditions), conditions, where)

    def sampled_logits(
        self,
        trunk: torch.Tensor,
        conditions: torch.Tensor,
        *,
        rate: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Give logits as :meth:`label_logits` does, with units of the last shared layer left out at random.

        The same units are left out everywhere, so that one sample is one network (MC dropout; Gal and
        Ghahramani 2016).

        Parameters
        ----------
        trunk, conditions
            As in :meth:`label_logits`.
        rate
            Share of the units that are left out; what the others add is scaled up accordingly.
        generator
            Where the randomness comes from.

        Returns
        -------
        torch.Tensor
            (1, L, *shape).
        """
        made = self.label_weights(conditions).clone()
        kept = torch.rand(made.shape[1] - 1, generator=generator) >= rate
        made[:, :-1] *= (kept / (1 - rate)).to(made)
        logits = self._logits(trunk[0].movedim(0, -1).reshape(-1, self.features), made, conditions)
        return logits[:, 0].T.reshape(1, -1, *trunk.shape[2:])

    def _logits(
        self,
        cells: torch.Tensor,
        made: torch.Tensor,
        conditions: torch.Tensor,
        where: torch.Tensor | None = None,
    ) -> torch.Tensor:
        prior = self.prior_at_voxels()
        prior = prior if where is None else prior[where]
        hidden = F.leaky_relu(self.mix(cells), 0.1)
        chosen = (conditions @ self.atlas.get_buffer("tissue").float())[:, 1:]
        weights = torch.cat([made[:, :-1], self.trust[1] / RATIO_SCALE * chosen], dim=1)
        seen = torch.cat([hidden, cells[:, self.own :]], dim=1)
        return (torch.addmm(made[:, -1], seen, weights.T) + self.trust[0] * (prior @ conditions.T))[:, None]
