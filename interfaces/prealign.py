"""Affine alignment of two images, of the same or of different contrast, from any reasonable start."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, traits

from hyperprep.interfaces.base import (
    TimedInterface,
    _MetricsOutputSpec,
    _ThreadedInputSpec,
    defined,
    save_image,
)

LOGGER = logging.getLogger("nipype.interface")


class _AffinePrealignInputSpec(_ThreadedInputSpec):
    fixed_image = File(exists=True, mandatory=True, desc="image that stays")
    moving_image = File(exists=True, mandatory=True, desc="image that is aligned to it")
    fixed_mask = File(exists=True, desc="brain mask of the fixed image")
    moving_mask = File(exists=True, desc="brain mask of the moving image")
    fixed_centroids = File(exists=True, desc="JSON: label number to centroid in the fixed image, RAS mm")
    moving_centroids = File(exists=True, desc="JSON: label number to centroid in the moving image, RAS mm")
    dof = traits.Enum(12, 7, 6, usedefault=True, desc="degrees of freedom: affine, similarity or rigid")
    on_failure = traits.Enum(
        "raise", "warn", usedefault=True, desc="what happens when the alignment is judged to have failed"
    )


class _AffinePrealignOutputSpec(_MetricsOutputSpec):
    out_xfm = File(exists=True, desc="ITK transform that brings the moving image onto the fixed one (.txt)")
    out_inverse_xfm = File(exists=True, desc="ITK transform that brings the fixed image onto the moving one")
    out_file = File(exists=True, desc="moving image on the fixed image's grid")
    success = traits.Bool(desc="whether overlap and cost say that the images are aligned")


class AffinePrealign(TimedInterface):
    """Align two images with 6, 7 or 12 degrees of freedom.

    Raises
    ------
    AlignmentError
        If the alignment failed and ``on_failure`` is ``"raise"``.

    Examples
    --------
    >>> from hyperprep.interfaces.prealign import AffinePrealign
    >>> align = AffinePrealign(fixed_image="T1w.nii.gz", moving_image="FLAIR.nii.gz", dof=6)  # doctest: +SKIP
    >>> align.run().outputs.success  # doctest: +SKIP
    True
    """

    input_spec = _AffinePrealignInputSpec
    output_spec = _AffinePrealignOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from hyperprep.models.predict.prealign import prealign
        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.images import read_mask, read_scan
        from hyperprep.models.spatial.transforms import resample, write_transform

        fixed, moving = read_scan(self.inputs.fixed_image), read_scan(self.inputs.moving_image)
        fixed_mask, moving_mask = defined(self.inputs.fixed_mask), defined(self.inputs.moving_mask)
        made = prealign(
            fixed,
            moving,
            fixed_mask=read_mask(fixed_mask, like=fixed) if fixed_mask else None,
            moving_mask=read_mask(moving_mask, like=moving) if moving_mask else None,
            fixed_centroids=read_centroids(defined(self.inputs.fixed_centroids)),
            moving_centroids=read_centroids(defined(self.inputs.moving_centroids)),
            dof=self.inputs.dof,
            num_threads=self.inputs.num_threads,
        )
        if not made.success:
            self._report(made.reason)
        moving2fixed = np.linalg.inv(made.fixed2moving)
        moved = resample(moving, Grid.of(fixed), [made.fixed2moving])
        forward, inverse = folder / "moving_to_fixed.txt", folder / "fixed_to_moving.txt"
        self._results["out_xfm"] = str(write_transform([made.fixed2moving], forward))
        self._results["out_inverse_xfm"] = str(write_transform([moving2fixed], inverse))
        self._results["out_file"] = save_image(moved, folder / "prealigned.nii.gz", like=fixed)
        self._results["success"] = bool(made.success)
        return {
            "cost": made.cost,
            "overlap": made.overlap,
            "contrast": made.contrast,
            "start": made.start,
            "success": bool(made.success),
            "reason": made.reason,
            "volume_ratio": float(np.linalg.det(moving2fixed[:3, :3])),
        }

    def _report(self, reason: str) -> None:
        from hyperprep.exceptions import AlignmentError

        message = (
            f"{self.inputs.moving_image} could not be aligned to {self.inputs.fixed_image}: {reason}. "
            "Look at the scan's orientation and field of view, or give a brain mask of it."
        )
        if self.inputs.on_failure == "raise":
            raise AlignmentError(message)
        LOGGER.warning(message)


def read_centroids(path: str | None) -> dict[int, np.ndarray] | None:
    """Read the centroids that :class:`~hyperprep.interfaces.locate.Locate` wrote.

    Parameters
    ----------
    path
        JSON file; None gives None.

    Returns
    -------
    dict or None
        Label number to ``(3,)`` RAS mm.
    """
    if path is None:
        return None
    return {
        int(number): np.array(xyz, dtype=float) for number, xyz in json.loads(Path(path).read_text()).items()
    }
