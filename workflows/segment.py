"""Segmentation of a scan, with tissues and volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.segment import ConditionalSegmentation
from hyperprep.interfaces.volumes import MeasureVolumes
from hyperprep.models.spatial.labels import is_known
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb
from hyperprep.workflows.nodes import model_node


def init_segment_wf(
    *,
    labels: Sequence[str] = ("all",),
    use_mask: bool = False,
    in_template_frame: bool = False,
    uncertainty: bool = False,
    probsegs: bool = False,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    voxels: int = SCAN_VOXELS,
    name: str = "segment_wf",
) -> Workflow:
    """Segment a scan on its own grid.

    Parameters
    ----------
    labels : sequence of str
        Structures: names, FreeSurfer numbers, super-regions, ``"all"``, or own regions.
    use_mask : bool
        The brain mask that comes in is the one of the results; else it is a rough one, and the network finds
        the brain.
    in_template_frame : bool
        The scan lies in the template's frame; no transform comes in.
    uncertainty : bool
        Also map the entropy of the structures' probabilities.
    probsegs : bool
        Also give the probability map of each region asked for.
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
    t1w2template_xfm
        ITK transform that brings the scan onto the template; not needed with ``in_template_frame``.
    t1w_mask
        Brain mask; a rough one will do without ``use_mask``.

    Outputs
    -------
    brain_mask
        The mask that came in with ``use_mask``, else the network's.
    dseg, dseg_legend
        Structures with FreeSurfer numbers, and the TSV that names them.
    all_dseg
        All leaf structures, whatever ``labels`` says; what registration and overlap are measured with.
    tissue_dseg, tissue_legend
        Grey matter 1, white matter 2, CSF 3, and their TSV.
    tissues
        Probability maps of grey matter, white matter and CSF.
    entropy
        With ``uncertainty``: entropy of the probabilities, bits.
    probsegs
        With ``probsegs``: one probability map per region asked for.
    volumes, volumes_metrics
        TSV and JSON of the structures' volumes.
    segment_metrics
        JSON file with figures of this step.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        "Brain structures and tissues (grey matter, white matter, cerebrospinal fluid) were segmented on "
        "the image's own grid by a convolutional network conditioned on the label asked for [@conemos], "
        "trained on synthetic images only [@synthseg].\n"
    )
    if any(not is_known(label) for label in labels):
        workflow.__desc__ += (
            "Regions that it does not know were segmented by a further network, trained on masks that were "
            "drawn by hand.\n"
        )
    if uncertainty:
        workflow.__desc__ += (
            "Its uncertainty is the entropy of the structures' probabilities at each voxel.\n"
        )
    results = ["dseg", "dseg_legend", "all_dseg", "tissue_dseg", "tissue_legend", "tissues"]
    results += ["entropy"] * uncertainty + ["probsegs"] * probsegs
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["t1w", "t1w2template_xfm", "t1w_mask"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=["brain_mask", *results, "volumes", "volumes_metrics", "segment_metrics"]
        ),
        name="outputnode",
    )
    segment = model_node(
        ConditionalSegmentation(
            labels=list(labels),
            trust_mask=use_mask,
            in_template_frame=in_template_frame,
            save_uncertainty=uncertainty,
            save_probsegs=probsegs,
        ),
        name="segment",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=needed_gb("segment", voxels),
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    measure = pe.Node(MeasureVolumes(), name="measure", mem_gb=needed_gb("measure", voxels))
    workflow.connect([
        (inputnode, segment, [
            ("t1w", "in_file"),
            ("t1w_mask", "mask"),
            ("t1w2template_xfm", "template2scan_xfm"),
        ]),
        (segment, measure, [("out_volumes", "in_volumes")]),
        (segment, outputnode, [(f"out_{result}".replace("out_dseg_legend", "out_legend"), result)
                               for result in results] + [("out_metrics", "segment_metrics")]),
        (measure, outputnode, [("out_volumes", "volumes"), ("out_metrics", "volumes_metrics")]),
    ])  # fmt: skip
    if use_mask:
        workflow.connect([
            (inputnode, measure, [("t1w_mask", "in_mask")]),
            (inputnode, outputnode, [("t1w_mask", "brain_mask")]),
        ])  # fmt: skip
    else:
        workflow.connect([
            (segment, measure, [("out_mask", "in_mask")]),
            (segment, outputnode, [("out_mask", "brain_mask")]),
        ])  # fmt: skip
    return workflow
