"""Where a scan lies in the template frame, from the scan alone: located, then aligned to the atlas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from hyperprep.models.nets.atlas_unet import AtlasUNet
from hyperprep.models.nets.build import load_network
from hyperprep.models.predict.locate import locate
from hyperprep.models.predict.prealign import prealign
from hyperprep.models.predict.sampling import lattice_grid
from hyperprep.models.weights import find_weights


@dataclass(frozen=True, eq=False)
class Place:
    """Where a scan lies.

    Attributes
    ----------
    template2scan
        (4, 4) affine point map from the template frame to the scan, RAS mm.
    mask
        Rough brain mask on the scan's grid.
    aligned
        Whether the alignment to the atlas succeeded; else the map follows from the structures' centres alone.
    """

    template2scan: np.ndarray
    mask: nb.Nifti1Image
    aligned: bool


def place(
    scan: nb.Nifti1Image,
    *,
    weights_dir: str | Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Place:
    """Locate the brain, and align it to the atlas of the network ``segment``, painted as a T1w image.

    The alignment starts from the structures' centres; where it does not succeed, from a search.

    Parameters
    ----------
    scan
        Three-dimensional image of any contrast; its header must tell right from left.
    weights_dir, device, num_threads
        As in :func:`hyperprep.models.predict.locate.locate`.

    Returns
    -------
    Place
        Map and mask.

    Raises
    ------
    ScanError
        When no brain is found.
    WeightsError, DeviceError
        When weights or device are not there.
    """
    found = locate(scan, weights_dir=weights_dir, device=device, num_threads=num_threads)
    entry = find_weights("segment", weights_dir=weights_dir)
    network = load_network(entry)
    if not isinstance(network, AtlasUNet):
        return Place(found.template2scan(), found.mask, aligned=False)
    affine = lattice_grid(entry.metadata["grid"]).affine
    painted = network.atlas.painted("nonlinear")[0].numpy()
    inside = network.atlas.probability("nonlinear")[0].numpy() < 0.5
    fixed, mask = (
        nb.Nifti1Image(v, affine) for v in ((painted * inside).astype(np.float32), inside.astype(np.uint8))
    )
    starts: tuple[dict[str, Any], ...] = (
        {"fixed_centroids": found.template_centroids, "moving_centroids": found.centroids}, {},
    )  # fmt: skip
    for start in starts:
        made = prealign(
            fixed, scan, fixed_mask=mask, moving_mask=found.mask, num_threads=num_threads, **start
        )
        if made.success:
            return Place(made.fixed2moving, found.mask, aligned=True)
    return Place(found.template2scan(), found.mask, aligned=False)
