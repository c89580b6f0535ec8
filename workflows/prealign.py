"""Affine alignment of a scan to the template."""

from __future__ import annotations

from typing import Literal

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.prealign import AffinePrealign
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb


def init_prealign_wf(
    *,
    dof: int = 12,
    on_failure: Literal["raise", "warn"] = "raise",
    omp_nthreads: int = 1,
    voxels: int = SCAN_VOXELS,
    name: str = "prealign_wf",
) -> Workflow:
    """Align a scan to the template, starting from the centroids of the structures in both.

    Parameters
    ----------
    dof : {12, 7, 6}
        Degrees of freedom.
    on_failure : {"raise", "warn"}
        What happens when the alignment is judged to have failed.
    omp_nthreads : int
        Threads of one node.
    voxels : int
        Number of voxels of the scan and the template; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w, t1w_mask, t1w_centroids
        The scan, its brain mask and the centroids of its structures (JSON).
    template, template_mask, template_centroids
        The same of the template.

    Outputs
    -------
    t1w2template_xfm
        ITK transform that brings the scan onto the template.
    template2t1w_xfm
        The reverse.
    t1w_affine
        The scan on the template's grid.
    prealign_metrics
        JSON file with cost, overlap and verdict.
    success
        Whether the alignment succeeded.
    """
    workflow = Workflow(name=name)
    kind = {6: "a rigid-body", 7: "a similarity", 12: "an affine"}[dof]
    workflow.__desc__ = (
        f"The image was aligned to the template by {kind} transform ({dof} degrees of freedom), started "
        "from the centroids of corresponding structures [@easyreg] and refined on the intensities.\n"
    )
    inputnode = pe.Node(
        niu.IdentityInterface(
            fields=["t1w", "t1w_mask", "t1w_centroids", "template", "template_mask", "template_centroids"]
        ),
        name="inputnode",
    )
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=["t1w2template_xfm", "template2t1w_xfm", "t1w_affine", "prealign_metrics", "success"]
        ),
        name="outputnode",
    )
    prealign = pe.Node(
        AffinePrealign(dof=dof, on_failure=on_failure),
        name="prealign",
        n_procs=omp_nthreads,
        mem_gb=needed_gb("prealign", voxels),
    )
    workflow.connect([
        (inputnode, prealign, [
            ("template", "fixed_image"),
            ("template_mask", "fixed_mask"),
            ("template_centroids", "fixed_centroids"),
            ("t1w", "moving_image"),
            ("t1w_mask", "moving_mask"),
            ("t1w_centroids", "moving_centroids"),
        ]),
        (prealign, outputnode, [
            ("out_xfm", "t1w2template_xfm"),
            ("out_inverse_xfm", "template2t1w_xfm"),
            ("out_file", "t1w_affine"),
            ("out_metrics", "prealign_metrics"),
            ("success", "success"),
        ]),
    ])  # fmt: skip
    return workflow
