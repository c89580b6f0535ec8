"""Refinement of a registration on its very pair of images, whoever made it."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, traits

from hyperprep.interfaces.base import (
    TimedInterface,
    _MetricsOutputSpec,
    _ThreadedInputSpec,
    defined,
    read_affine,
    save_image,
)
from hyperprep.interfaces.register import companions


class _InstanceRefineInputSpec(_ThreadedInputSpec):
    fixed_image = File(exists=True, mandatory=True, desc="image that stays")
    moving_image = File(exists=True, mandatory=True, desc="image that was registered to it")
    in_xfm = File(
        exists=True,
        mandatory=True,
        desc="ITK transform that brings the moving image onto the fixed one, affine part included: a "
        "composite of HyperMorph or ANTs, or an affine alone",
    )
    frame2fixed_xfm = File(
        exists=True,
        desc="ITK transform that brings the fixed image onto the template (a linear point map from template "
        "to fixed); by default the fixed image lies in the template's frame",
    )
    fixed_mask = File(exists=True, desc="brain mask of the fixed image")
    moving_mask = File(exists=True, desc="brain mask of the moving image")
    lam = traits.Range(
        low=0.0, high=1.0, value=0.3, usedefault=True, desc="regularisation weight in [0, 1]: how smooth"
    )


class _InstanceRefineOutputSpec(_MetricsOutputSpec):
    out_xfm = File(exists=True, desc="refined ITK composite, affine part included")
    out_inverse_xfm = File(exists=True, desc="ITK composite of the opposite direction")
    out_file = File(exists=True, desc="moving image on the fixed image's grid")
    out_jacobian = File(exists=True, desc="Jacobian determinant of the deformation, 2 mm, template's frame")


class InstanceRefine(TimedInterface):
    """Refine a registration by greedy steps along the local correlation; no network runs.

    Examples
    --------
    >>> from hyperprep.interfaces.refine import InstanceRefine
    >>> refine = InstanceRefine(
    ...     fixed_image="tpl.nii.gz", moving_image="T1w.nii.gz", in_xfm="from_ants.h5"
    ... )  # doctest: +SKIP
    >>> refine.run().outputs.out_xfm  # doctest: +SKIP
    '/current/folder/moving_to_fixed.h5'
    """

    input_spec = _InstanceRefineInputSpec
    output_spec = _InstanceRefineOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import nibabel as nb

        from hyperprep.models.predict.instance import refine_transform
        from hyperprep.models.spatial.images import read_scan
        from hyperprep.models.spatial.measures import jacobian_determinant
        from hyperprep.models.spatial.transforms import read_transform, write_transform

        fixed, moving = read_scan(self.inputs.fixed_image), read_scan(self.inputs.moving_image)
        made = refine_transform(
            fixed,
            moving,
            read_transform(self.inputs.in_xfm),
            frame2fixed=read_affine(defined(self.inputs.frame2fixed_xfm)),
            **companions(self.inputs, fixed, moving),
            lam=self.inputs.lam,
            num_threads=self.inputs.num_threads,
        )
        determinant = nb.Nifti1Image(jacobian_determinant(made.forward), made.forward.grid.affine)
        self._results.update(
            out_xfm=str(write_transform(made.chain, folder / "moving_to_fixed.h5")),
            out_inverse_xfm=str(write_transform(made.inverse_chain, folder / "fixed_to_moving.h5")),
            out_file=save_image(made.moved, folder / "moved.nii.gz", like=fixed),
            out_jacobian=save_image(determinant, folder / "jacobian.nii.gz", like=fixed),
        )
        return made.metrics
