"""Conformation and bias correction of one scan."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.conform import ConformScan, N4BiasCorrection
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb


def init_conform_wf(
    *, bias_correct: bool = True, omp_nthreads: int = 1, voxels: int = SCAN_VOXELS, name: str = "conform_wf"
) -> Workflow:
    """Check a scan, put it in one form and correct its bias field, on its own grid.

    Parameters
    ----------
    bias_correct : bool
        Run N4.
    omp_nthreads : int
        Threads of one node.
    voxels : int
        Number of voxels of the scan; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w
        The raw scan.

    Outputs
    -------
    t1w_preproc
        The scan, 3-D float32 on its own grid.
    conform_metrics, bias_metrics
        JSON files with figures of both steps; the second only with ``bias_correct``.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = "Each T1-weighted (T1w) image was checked and kept on its own grid. " + (
        "It was corrected for intensity non-uniformity with N4 [@n4] as implemented in SimpleITK "
        "[@simpleitk].\n"
        if bias_correct
        else "No correction for intensity non-uniformity was applied.\n"
    )
    inputnode = pe.Node(niu.IdentityInterface(fields=["t1w"]), name="inputnode")
    fields = ["t1w_preproc", "conform_metrics", *(["bias_metrics"] if bias_correct else [])]
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    conform = pe.Node(ConformScan(), name="conform", mem_gb=needed_gb("conform", voxels))
    workflow.connect([
        (inputnode, conform, [("t1w", "in_file")]),
        (conform, outputnode, [("out_metrics", "conform_metrics")]),
    ])  # fmt: skip
    if not bias_correct:
        workflow.connect([(conform, outputnode, [("out_file", "t1w_preproc")])])
        return workflow
    n4 = pe.Node(N4BiasCorrection(), name="n4", n_procs=omp_nthreads, mem_gb=needed_gb("n4", voxels))
    workflow.connect([
        (conform, n4, [("out_file", "in_file")]),
        (n4, outputnode, [("out_file", "t1w_preproc"), ("out_metrics", "bias_metrics")]),
    ])  # fmt: skip
    return workflow
