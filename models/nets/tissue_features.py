"""What of an image is white matter, grey matter and fluid, wherever it lies: features that see pathology."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hyperprep.models.nn.tissue import BINS, intensity_bins, log_likelihoods

KINDS = 3
"""White matter, grey matter, fluid."""


class TissueFeatures(nn.Module):
    """Intensity and tissue posteriors without a prior of place, each averaged over 2, 4, ... voxels a side.

    Each tissue's distribution of intensities is estimated from the image itself with an atlas of healthy
    heads (:func:`~hyperprep.models.nn.tissue.log_likelihoods`), whatever the contrast. A voxel's posterior
    then takes all tissues for equally likely everywhere: a prior of place would explain pathology away. The
    coarser averages hold what is different over a whole neighbourhood; there, the opposite signs on both
    sides of a slightly misaligned edge cancel.

    Parameters
    ----------
    n_tissues
        Tissues of the atlas; 0 is whatever is not brain.
    shape
        Voxels of the fixed grid in the template frame, each divisible by 4. The atlas has every second one.
    """

    divisor = 4

    def __init__(self, n_tissues: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.n_tissues, self.shape = n_tissues, tuple(shape)
        self.stage_channels = (1 + KINDS,) * 3
        voxels = math.prod(side // 2 for side in self.shape)
        self.register_buffer("prior", torch.full((voxels, n_tissues), 1 / n_tissues, dtype=torch.float16))
        self.register_buffer("kinds", torch.zeros(n_tissues, dtype=torch.uint8))

    @torch.no_grad()
    def fill(self, prior: torch.Tensor, kinds: Sequence[int]) -> None:
        """Set the atlas.

        Parameters
        ----------
        prior
            (n_tissues, *shape), probability of each tissue; sums to 1.
        kinds
            Of each tissue: 1 white matter, 2 grey matter, 3 fluid, 0 none of them.
        """
        self.get_buffer("prior").copy_(prior[:, ::2, ::2, ::2].flatten(1).T)
        self.get_buffer("kinds").copy_(torch.as_tensor(kinds, dtype=torch.uint8))

    @torch.no_grad()
    def stages(self, image: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Give the features of (B, 1, *shape) in [0, 1], zero outside the brain, finest stage first."""
        found = [torch.cat([image, torch.stack([self._kinds(one[0]) for one in image])], dim=1)]
        for _ in self.stage_channels[1:count]:
            found.append(F.avg_pool3d(found[-1], 2))
        return found

    def _kinds(self, image: torch.Tensor) -> torch.Tensor:
        """Give each voxel's probability of white matter, grey matter and fluid, (KINDS, *shape)."""
        prior = self.get_buffer("prior").float()
        table = log_likelihoods(image[::2, ::2, ::2].flatten(), prior.clamp_min(1e-6), bins=BINS)
        kinds = self.get_buffer("kinds")
        best = [table[:, kinds == kind].max(1).values for kind in range(1, KINDS + 1)]
        of_bin = torch.softmax(torch.stack(best), dim=0)
        return of_bin[:, intensity_bins(image, BINS)] * (image > 0)
