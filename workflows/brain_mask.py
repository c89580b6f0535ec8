"""A first look at a scan, and the brain mask that the alignment uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.locate import Locate
from hyperprep.interfaces.masks import BrainMask
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb
from hyperprep.workflows.nodes import model_node

MaskSource = Literal["derivative", "nonzero", "network"]

_DESCRIPTIONS = {
    "derivative": "The brain mask was taken from existing derivatives. ",
    "nonzero": "The image was skull-stripped before, and its non-zero region taken as the brain mask. ",
    "network": "The brain was found by the segmentation network described below. ",
}


def init_brain_mask_wf(
    *,
    source: MaskSource = "network",
    mask: Path | None = None,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    voxels: int = SCAN_VOXELS,
    name: str = "brain_mask_wf",
) -> Workflow:
    """Find the structures of a scan in any position, and get its brain mask from where it is known best.

    Parameters
    ----------
    source : {"derivative", "nonzero", "network"}
        Whether the mask is a given file, the non-zero region of a skull-stripped scan, or (roughly, until the
        segmentation) found by the network.
    mask : Path or None
        The given file.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    omp_nthreads : int
        Threads of one node.
    weights_dir : Path or None
        Folder searched for weights first.
    weights_sha256 : mapping or None
        Digests of the weights by name of the network.
    voxels : int
        Number of voxels of the scan; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w
        The scan.

    Outputs
    -------
    mask
        Brain mask on the scan's grid; rough where the network found it.
    centroids, model_centroids
        JSON files: centroids of the structures in the scan and in the networks' frame, RAS mm.
    locate_metrics
        JSON file with the figures of this step.

    Raises
    ------
    ValueError
        If the mask shall come from a file and none is given.
    """
    if source == "derivative" and mask is None:
        raise ValueError("a mask from a derivative needs the mask's file")
    workflow = Workflow(name=name)
    workflow.__desc__ = _DESCRIPTIONS[source]
    inputnode = pe.Node(niu.IdentityInterface(fields=["t1w"]), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(fields=["mask", "centroids", "model_centroids", "locate_metrics"]),
        name="outputnode",
    )
    locate = model_node(
        Locate(),
        name="locate",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=needed_gb("locate", voxels),
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    workflow.connect([
        (inputnode, locate, [("t1w", "in_file")]),
        (locate, outputnode, [
            ("out_centroids", "centroids"),
            ("out_template_centroids", "model_centroids"),
            ("out_metrics", "locate_metrics"),
        ]),
    ])  # fmt: skip
    if source == "network":
        workflow.connect([(locate, outputnode, [("out_mask", "mask")])])
        return workflow
    brain_mask = pe.Node(BrainMask(), name="brain_mask", mem_gb=needed_gb("brain_mask", voxels))
    if source == "derivative":
        brain_mask.inputs.in_mask = str(mask)
    workflow.connect([
        (inputnode, brain_mask, [("t1w", "in_file")]),
        (brain_mask, outputnode, [("out_mask", "mask")]),
    ])  # fmt: skip
    return workflow
