"""Brain masks: brought to a scan's grid, read from a stripped scan, applied."""

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec

from hyperprep.interfaces.base import defined, itk_threads, save_image


class _BrainMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan whose grid the mask gets")
    in_mask = File(exists=True, desc="mask on any grid; without one, the scan is taken as skull-stripped")


class _BrainMaskOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc="brain mask on the scan's grid, uint8")


class BrainMask(SimpleInterface):
    """Bring a given mask to a scan's grid, or take the non-zero region of a skull-stripped scan.

    Raises
    ------
    ScanError
        If the mask is empty, or the scan is not skull-stripped.

    Examples
    --------
    >>> from hyperprep.interfaces.masks import BrainMask
    >>> mask = BrainMask(in_file="sub-01_T1w.nii.gz", in_mask="mask.nii.gz")  # doctest: +SKIP
    >>> mask.run().outputs.out_mask  # doctest: +SKIP
    '/current/folder/brain_mask.nii.gz'
    """

    input_spec = _BrainMaskInputSpec
    output_spec = _BrainMaskOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from hyperprep.models.predict.conform import nonzero_mask
        from hyperprep.models.spatial.images import read_mask, read_scan

        scan = read_scan(self.inputs.in_file)
        given = defined(self.inputs.in_mask)
        with itk_threads(1):
            mask = read_mask(given, like=scan) if given else nonzero_mask(scan)
        self._results["out_mask"] = save_image(mask, Path(runtime.cwd) / "brain_mask.nii.gz", like=scan)
        return runtime


class _MaskImageInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    in_mask = File(exists=True, mandatory=True, desc="mask, on the image's grid or another")


class _MaskImageOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the image, zero outside the mask")


class MaskImage(SimpleInterface):
    """Set an image to zero outside a mask.

    Examples
    --------
    >>> from hyperprep.interfaces.masks import MaskImage
    >>> brain = MaskImage(in_file="T1w.nii.gz", in_mask="mask.nii.gz")  # doctest: +SKIP
    >>> brain.run().outputs.out_file  # doctest: +SKIP
    '/current/folder/masked.nii.gz'
    """

    input_spec = _MaskImageInputSpec
    output_spec = _MaskImageOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import nibabel as nb

        from hyperprep.models.spatial.images import keep_inside, read_mask, read_scan

        scan = read_scan(self.inputs.in_file)
        with itk_threads(1):
            made = keep_inside(scan, read_mask(self.inputs.in_mask, like=scan))
        like = nb.load(self.inputs.in_file)
        self._results["out_file"] = save_image(made, Path(runtime.cwd) / "masked.nii.gz", like=like)
        return runtime
