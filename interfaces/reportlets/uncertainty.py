"""Where a segmentation is uncertain: the entropy of its probabilities over the scan."""

import nibabel as nib
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined

from hyperprep.interfaces.reportlets.alignment import save_report
from hyperprep.interfaces.reportlets.mosaic import Mosaic, document
from hyperprep.interfaces.reportlets.slices import bounding_box
from hyperprep.interfaces.reportlets.topology import COUNTS, colour_bar, painter

SCALE = (0.8, 2.2)
"""Entropy in bits at which the colours begin and end, the same in every report: 1 is a choice between two
structures that are alike likely, 2 one between four."""


def draw_uncertainty(
    scan: nib.Nifti1Image, entropy: nib.Nifti1Image, *, mask: nib.Nifti1Image | None = None
) -> str:
    """SVG of a segmentation's entropy over its scan.

    Parameters
    ----------
    scan
        The scan.
    entropy
        Bits, in the scan's space.
    mask
        Brain mask, any grid in the scan's space.

    Returns
    -------
    The SVG document.
    """
    mosaic = Mosaic.of(bounding_box(mask if mask is not None else scan), counts=COUNTS)
    draw = painter(scan, mosaic.limits(scan, mask), entropy, SCALE)
    body = [mosaic.raster(draw), colour_bar(*SCALE, title="entropy in bits"), mosaic.marks()]
    return document(
        body, height=mosaic.height, label="Uncertainty of the segmentation", kind="hp-uncertainty"
    )


class _UncertaintyMapInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="scan")
    entropy = File(exists=True, mandatory=True, desc="entropy of the probabilities in the scan's space, bits")
    in_mask = File(exists=True, desc="brain mask of the scan")
    out_file = File("uncertainty.svg", usedefault=True, desc="name of the figure")


class _UncertaintyMapOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the figure (SVG)")


class UncertaintyMap(SimpleInterface):
    """Uncertainty of a segmentation over its scan."""

    input_spec = _UncertaintyMapInputSpec
    output_spec = _UncertaintyMapOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        svg = draw_uncertainty(
            nib.load(inputs.in_file),
            nib.load(inputs.entropy),
            mask=nib.load(inputs.in_mask) if isdefined(inputs.in_mask) else None,
        )
        self._results["out_file"] = str(save_report(svg, inputs.out_file, runtime.cwd))
        return runtime
