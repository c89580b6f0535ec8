"""Other programs that register two images, behind one face; images arrive prealigned.

A method takes (image, labels) of the fixed and of the moving subject, all on one grid, and gives a
:class:`Moved`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nibabel as nb
import numpy as np


@dataclass(frozen=True)
class Moved:
    """What a method made of a pair.

    Attributes
    ----------
    labels
        The moving subject's labels on the fixed one's grid, nearest neighbour.
    forward, inverse
        Displacements (X, Y, Z, 3), mm, RAS: fixed to moving, and moving to fixed; None for the identity.
    seconds
        Wall time of the registration.
    """

    labels: nb.Nifti1Image
    forward: np.ndarray | None
    inverse: np.ndarray | None
    seconds: float


Method = Callable[[Any, Any], Moved]

LPS = np.array([-1, -1, 1], np.float32)
"""From ITK's components of a displacement to RAS, and back."""


def ants_method(kind: str, **options: Any) -> Method:
    """Run a registration of antspyx; images arrive prealigned, so its affine stage has little to do."""

    def run(fixed: Any, moving: Any) -> Moved:
        import ants

        f, m = (ants.from_nibabel_nifti(i[0]) for i in (fixed, moving))
        values = np.asanyarray(moving[1].dataobj).astype(np.float32)
        labels = ants.from_nibabel_nifti(nb.Nifti1Image(values, moving[1].affine))
        began = time.perf_counter()
        found = ants.registration(fixed=f, moving=m, type_of_transform=kind, **options)
        seconds = time.perf_counter() - began
        moved = ants.apply_transforms(f, labels, found["fwdtransforms"], interpolator="nearestNeighbor")
        fields = []
        for key in ("fwdtransforms", "invtransforms"):
            invert = [key == "invtransforms" and name.endswith(".mat") for name in found[key]]
            joined = ants.apply_transforms(
                f, m, found[key], whichtoinvert=invert, compose=f"{found[key][0]}_{key}_"
            )
            fields.append(ants.image_read(joined).numpy().astype(np.float32) * LPS)
        return Moved(
            nb.Nifti1Image(moved.numpy().astype(np.int16), fixed[0].affine), fields[0], fields[1], seconds
        )

    return run


def greedy(threads: int, iterations: str = "100x50x10") -> Method:
    """Run greedy with a 5 x 5 x 5 window of the local correlation (picsl-greedy); no inverse is timed."""

    def run(fixed: Any, moving: Any) -> Moved:
        import SimpleITK as sitk
        from picsl_greedy import Greedy3D

        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.itk import image_to_itk

        grid = Grid.of(fixed[0])
        f, m = (image_to_itk(i[0].get_fdata(dtype=np.float32), grid)[0] for i in (fixed, moving))
        labels = image_to_itk(np.asanyarray(moving[1].dataobj).astype(np.float32), grid)[0]
        program, began = Greedy3D(), time.perf_counter()
        program.execute(
            f"-d 3 -i fix mov -m WNCC 2x2x2 -n {iterations} -o warp -threads {threads} -V 0",
            fix=f,
            mov=m,
            warp=None,
        )
        seconds = time.perf_counter() - began
        program.execute("-d 3 -rf fix -ri NN -rm lab moved -r warp -V 0", lab=labels, moved=None)
        moved = sitk.GetArrayFromImage(program["moved"]).transpose(2, 1, 0).round().astype(np.int16)
        with tempfile.TemporaryDirectory() as folder:
            there, back = f"{folder}/warp.nii", f"{folder}/back.nii"
            sitk.WriteImage(program["warp"], there)
            Greedy3D().execute(f"-d 3 -iw {there} {back} -V 0")
            forward, inverse = (
                (sitk.GetArrayFromImage(sitk.ReadImage(name)).transpose(2, 1, 0, 3) * LPS).astype(np.float32)
                for name in (there, back)
            )
        return Moved(nb.Nifti1Image(moved, grid.affine), forward, inverse, seconds)

    return run


def dipy_syn() -> Method:
    """Run DIPY's SyN with its cross-correlation metric and default iterations."""

    def run(fixed: Any, moving: Any) -> Moved:
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
        from dipy.align.metrics import CCMetric

        f, m = (i[0].get_fdata(dtype=np.float32) for i in (fixed, moving))
        began = time.perf_counter()
        program = SymmetricDiffeomorphicRegistration(CCMetric(3), [10, 10, 5])
        mapping = program.optimize(f, m, fixed[0].affine, moving[0].affine)
        seconds = time.perf_counter() - began
        labels = np.asanyarray(moving[1].dataobj).astype(np.int32)
        moved = mapping.transform(labels, interpolation="nearest").astype(np.int16)
        fields = (mapping.get_forward_field(), mapping.get_backward_field())
        forward, inverse = (np.asarray(field, np.float32) for field in fields)
        return Moved(nb.Nifti1Image(moved, fixed[0].affine), forward, inverse, seconds)

    return run
