"""Other programs that register two images, behind one face; images arrive prealigned.

A method takes (image, labels) of the fixed and of the moving subject, all on one grid, and gives the labels
that it moved, its displacement (X, Y, Z, 3; mm, RAS, fixed to moving) and the registration's seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import nibabel as nb
import numpy as np

Method = Callable[[Any, Any], tuple[nb.Nifti1Image, np.ndarray | None, float]]


def ants_method(kind: str) -> Method:
    """Run a registration of antspyx; images arrive prealigned, so its affine stage has little to do."""

    def run(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, np.ndarray | None, float]:
        import ants

        f, m = (ants.from_nibabel_nifti(i[0]) for i in (fixed, moving))
        values = np.asanyarray(moving[1].dataobj).astype(np.float32)
        labels = ants.from_nibabel_nifti(nb.Nifti1Image(values, moving[1].affine))
        began = time.perf_counter()
        found = ants.registration(fixed=f, moving=m, type_of_transform=kind)
        seconds = time.perf_counter() - began
        moved = ants.apply_transforms(f, labels, found["fwdtransforms"], interpolator="nearestNeighbor")
        warp = ants.image_read(next(t for t in found["fwdtransforms"] if "Warp" in t))
        field = warp.numpy().astype(np.float32) * np.array([-1, -1, 1], np.float32)
        return nb.Nifti1Image(moved.numpy().astype(np.int16), fixed[0].affine), field, seconds

    return run


def greedy(threads: int, iterations: str = "100x50x10") -> Method:
    """Run greedy with a 5 x 5 x 5 window of the local correlation (picsl-greedy)."""

    def run(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, np.ndarray | None, float]:
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
        field = sitk.GetArrayFromImage(program["warp"]).transpose(2, 1, 0, 3) * np.array([-1, -1, 1])
        return nb.Nifti1Image(moved, grid.affine), field.astype(np.float32), seconds

    return run


def dipy_syn() -> Method:
    """Run DIPY's SyN with its cross-correlation metric and default iterations."""

    def run(fixed: Any, moving: Any) -> tuple[nb.Nifti1Image, np.ndarray | None, float]:
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
        from dipy.align.metrics import CCMetric

        f, m = (i[0].get_fdata(dtype=np.float32) for i in (fixed, moving))
        began = time.perf_counter()
        program = SymmetricDiffeomorphicRegistration(CCMetric(3), [10, 10, 5])
        mapping = program.optimize(f, m, fixed[0].affine, moving[0].affine)
        seconds = time.perf_counter() - began
        labels = np.asanyarray(moving[1].dataobj).astype(np.int32)
        moved = mapping.transform(labels, interpolation="nearest").astype(np.int16)
        field = np.asarray(mapping.get_forward_field(), np.float32)
        return nb.Nifti1Image(moved, fixed[0].affine), field, seconds

    return run
