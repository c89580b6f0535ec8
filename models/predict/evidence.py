"""What intensities say of tissues, so that each voxel of a scan is judged by its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hyperprep.models.nn.tissue import intensity_bins


@dataclass(frozen=True)
class Evidence:
    """What intensities say of tissues: on the network's grid, and for any intensity.

    Attributes
    ----------
    ratios
        (T, *grid) log-likelihood ratios that the logits on the network's grid hold.
    table
        (bins, T) the same by intensity.
    weights
        (L, T) how much each ratio adds to the logit of each leaf.
    values
        (*target) the scan in [0, 1] as the network saw it.
    """

    ratios: torch.Tensor
    table: torch.Tensor
    weights: torch.Tensor
    values: np.ndarray

    def change(self, held: torch.Tensor, values: np.ndarray) -> torch.Tensor:
        """Give what changes in the ratios when voxels are judged by their own intensity, (T, N).

        Parameters
        ----------
        held
            (T, N) ratios of the network's grid, interpolated at the voxels.
        values
            (N,) their own intensities in [0, 1].
        """
        own = self.table[intensity_bins(torch.from_numpy(values).to(self.table.device), len(self.table))]
        return own.T - held
