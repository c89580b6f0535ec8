"""Images brought to another grid through any number of transforms, interpolated once."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, SimpleInterface, TraitedSpec, traits

from hyperprep.interfaces.base import _ThreadedInputSpec, itk_threads, save_image


class _ApplyTransformInputSpec(_ThreadedInputSpec):
    input_image = File(exists=True, mandatory=True, desc="image to resample")
    reference_image = File(exists=True, mandatory=True, desc="image whose grid the result gets")
    transforms = InputMultiObject(
        File(exists=True),
        desc="ITK transforms in the order of antsApplyTransforms: the first is applied first to a point of "
        "the reference; by default the identity",
    )
    interpolation = traits.Enum(
        "linear",
        "bspline",
        "lanczos",
        "nearest",
        "label",
        usedefault=True,
        desc="linear, bspline (cubic) or lanczos (windowed sinc, slow) for intensities, nearest or label "
        "(vote) for label maps",
    )


class _ApplyTransformOutputSpec(TraitedSpec):
    output_image = File(exists=True, desc="the image on the reference's grid")


class ApplyTransform(SimpleInterface):
    """Resample an image onto another's grid, interpolating once.

    No value of the result lies outside the image's own range.

    Examples
    --------
    >>> from hyperprep.interfaces.transform import ApplyTransform
    >>> apply = ApplyTransform(
    ...     input_image="T1w.nii.gz", reference_image="template.nii.gz", transforms=["T1w_to_template.h5"]
    ... )  # doctest: +SKIP
    >>> apply.run().outputs.output_image  # doctest: +SKIP
    '/current/folder/T1w_trans.nii.gz'
    """

    input_spec = _ApplyTransformInputSpec
    output_spec = _ApplyTransformOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nb
        import numpy as np
        import SimpleITK as sitk

        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.transforms import read_transform, resample

        # ITK applies the member that was added last first
        composite = sitk.CompositeTransform(3)
        for path in reversed(self.inputs.transforms or []):
            composite.AddTransform(read_transform(path))
        source = nb.squeeze_image(nb.load(self.inputs.input_image))
        reference = nb.load(self.inputs.reference_image)
        with itk_threads(self.inputs.num_threads):
            made = resample(source, Grid.of(reference), composite, interpolation=self.inputs.interpolation)
        if self.inputs.interpolation in ("bspline", "lanczos"):
            data, values = source.get_fdata(dtype=np.float32), made.get_fdata(dtype=np.float32)
            made = nb.Nifti1Image(np.clip(values, min(data.min(), 0), data.max()), made.affine)
        stem = Path(self.inputs.input_image).name.split(".", 1)[0]
        self._results["output_image"] = save_image(
            made, Path(runtime.cwd) / f"{stem}_trans.nii.gz", like=reference
        )
        return runtime


class _JacobianDeterminantInputSpec(_ThreadedInputSpec):
    in_xfm = File(exists=True, mandatory=True, desc="ITK transform from the reference's space to another")
    reference_image = File(exists=True, mandatory=True, desc="image on whose grid it is measured")


class _JacobianDeterminantOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="volume in the other space divided by volume in the reference")


class JacobianDeterminant(SimpleInterface):
    """Measure where a transform makes room: the determinant of its Jacobian, its affine part included.

    Examples
    --------
    >>> from hyperprep.interfaces.transform import JacobianDeterminant
    >>> change = JacobianDeterminant(
    ...     in_xfm="later_to_first.h5", reference_image="first.nii.gz"
    ... )  # doctest: +SKIP
    >>> change.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/jacobian.nii.gz'
    """

    input_spec = _JacobianDeterminantInputSpec
    output_spec = _JacobianDeterminantOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nb

        from hyperprep.models.spatial.grids import Grid
        from hyperprep.models.spatial.itk import displacement_from_itk
        from hyperprep.models.spatial.measures import jacobian_determinant
        from hyperprep.models.spatial.transforms import read_transform

        reference = nb.load(self.inputs.reference_image)
        with itk_threads(self.inputs.num_threads):
            field = displacement_from_itk(read_transform(self.inputs.in_xfm), Grid.of(reference))
        made = nb.Nifti1Image(jacobian_determinant(field), reference.affine)
        self._results["out_file"] = save_image(made, Path(runtime.cwd) / "jacobian.nii.gz", like=reference)
        return runtime
