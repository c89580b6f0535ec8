"""Results of one scan brought to a grid in the template's space, each interpolated once."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.transform import ApplyTransform
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb

_INTERPOLATION = {"t1w_preproc": "bspline", "brain_mask": "label", "dseg": "label", "tissue_dseg": "label"}


def init_resample_wf(
    *, omp_nthreads: int = 1, voxels: int = SCAN_VOXELS, name: str = "resample_wf"
) -> Workflow:
    """Resample the scan, its mask, its segmentations and its tissue probabilities onto a reference grid.

    Parameters
    ----------
    omp_nthreads : int
        Threads of one node.
    voxels : int
        Number of voxels of the scan and the reference grid; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w_preproc, brain_mask, dseg, tissue_dseg
        Images on the scan's grid.
    tissues
        Probability maps of grey matter, white matter and CSF on the scan's grid.
    transforms
        ITK transform from the scan to the template's space.
    reference
        Image whose grid is used.

    Outputs
    -------
    t1w_preproc, brain_mask, dseg, tissue_dseg, tissues
        The same on the reference grid.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        "Results were brought to standard space in a single interpolation each: cubic B-spline for the "
        "image, linear for probability maps, label voting for segmentations.\n"
    )
    fields = [*_INTERPOLATION, "tissues"]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "transforms", "reference"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    nodes = {
        field: pe.Node(
            ApplyTransform(interpolation=interpolation),
            name=f"{field}_std",
            n_procs=omp_nthreads,
            mem_gb=needed_gb("resample", voxels),
        )
        for field, interpolation in _INTERPOLATION.items()
    }
    nodes["tissues"] = pe.MapNode(
        ApplyTransform(interpolation="linear"),
        iterfield=["input_image"],
        name="tissues_std",
        n_procs=omp_nthreads,
        mem_gb=needed_gb("resample", voxels),
    )
    for field, node in nodes.items():
        workflow.connect([
            (inputnode, node, [
                (field, "input_image"),
                ("transforms", "transforms"),
                ("reference", "reference_image"),
            ]),
            (node, outputnode, [("output_image", field)]),
        ])  # fmt: skip
    return workflow
