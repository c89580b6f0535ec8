"""Topology-change maps of a scan against the template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.reportlets import TopologyMap
from hyperprep.interfaces.topology import TopologyChange
from hyperprep.workflows.nodes import model_node
from hyperprep.workflows.outputs import figure_sink
from hyperprep.workflows.outputs_topology import TOPOLOGY_FILES, init_ds_topology_wf
from hyperprep.workflows.settings import AnatSettings, Scan, Template

ALWAYS = {"out_score": "score", "out_template_score": "template_score"}
WITH_CONTROLS = {
    "out_excess": "excess",
    "out_z": "z",
    "out_mask": "regions_mask",
    "out_regions": "regions",
    "out_weight": "weight",
}
"""Outputs of the interface that need control statistics, and what they are called here."""

MEM_GB = 6.0


def init_topology_wf(
    *,
    calibrated: bool = False,
    control_statistics: Path | None = None,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    name: str = "topology_wf",
) -> Workflow:
    """Map where a registered scan and the template have no match.

    Parameters
    ----------
    calibrated : bool
        Control statistics are there, given or beside the weights: z-scores and regions are made too.
    control_statistics : Path or None
        NPZ of the group level; None takes those beside the weights.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    omp_nthreads : int
        Threads of one node.
    weights_dir : Path or None
        Folder searched for weights first.
    weights_sha256 : mapping or None
        Digests of the weights by name of the network.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w, t1w_mask, t1w_dseg
        The scan, its brain mask and its structures.
    template_brain, template_mask
        The skull-stripped template and its brain mask.
    t1w2template_xfm
        ITK transform of the prealignment.
    t1w2std_xfm, std2t1w_xfm
        ITK composites of the registration.

    Outputs
    -------
    score, template_score
        L_sym on the scan's grid, and on the network's grid in the template's space.
    excess, z, regions_mask, regions, weight
        What only control statistics make possible; undefined without ``calibrated``.
    topology_metrics
        JSON file with figures of this step.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        "Places of the brain that no registration matches with the template were mapped by a conditional "
        "variational auto-encoder that was trained on healthy synthetic brains only [@spotthedifference]"
        + (
            "; its score, averaged by a Gaussian of 2 mm, was compared with that of controls at each place"
            + (" (synthetic healthy heads).\n" if control_statistics is None else ".\n")
            if calibrated
            else "; without controls, its score is not calibrated.\n"
        )
    )
    given = {
        "t1w": "scan",
        "t1w_mask": "scan_mask",
        "t1w_dseg": "scan_dseg",
        "template_brain": "template_image",
        "template_mask": "template_mask",
        "t1w2template_xfm": "template2scan_xfm",
        "t1w2std_xfm": "in_xfm",
        "std2t1w_xfm": "in_inverse_xfm",
    }
    made = ALWAYS | (WITH_CONTROLS if calibrated else {})
    inputnode = pe.Node(niu.IdentityInterface(fields=list(given)), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(fields=[*ALWAYS.values(), *WITH_CONTROLS.values(), "topology_metrics"]),
        name="outputnode",
    )
    change = model_node(
        TopologyChange(calibrate=calibrated, **given_controls(control_statistics)),
        name="change",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=MEM_GB,
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    workflow.connect([
        (inputnode, change, list(given.items())),
        (change, outputnode, [*made.items(), ("out_metrics", "topology_metrics")]),
    ])  # fmt: skip
    return workflow


def add_topology(
    workflow: Workflow,
    before: Workflow,
    quality: pe.Node,
    scan: Scan,
    template: Template,
    settings: AnatSettings,
) -> None:
    """Add maps, their files and their figure to the workflow of a scan.

    Parameters
    ----------
    workflow : Workflow
        From :func:`~hyperprep.workflows.anat.init_anat_wf`, with its steps connected.
    before : Workflow
        The registration that the maps start from. Where the scan's own registration is another one, it gets
        the weights that the maps give.
    quality : Node
        Gathers figures.
    scan, template, settings
        Of that workflow.
    """
    inputnode, conform_wf, prealign_wf, segment_wf, register_wf = (
        workflow.get_node(name)
        for name in ("inputnode", "conform_wf", "prealign_wf", "segment_wf", "register_wf")
    )
    calibrated = settings.topology_calibrated
    topology_wf = init_topology_wf(
        calibrated=calibrated,
        control_statistics=settings.control_statistics,
        device=settings.device,
        omp_nthreads=settings.omp_nthreads,
        weights_dir=settings.weights_dir,
        weights_sha256=settings.weights_sha256,
    )
    folders: dict[str, Any] = {"bids_dir": settings.bids_dir, "output_dir": settings.output_dir}
    ds_topology_wf = init_ds_topology_wf(scan=scan, template=template, calibrated=calibrated, **folders)
    stored = [*ALWAYS.values(), *(TOPOLOGY_FILES if calibrated else ())]
    workflow.connect([
        (conform_wf, topology_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
        (segment_wf, topology_wf, [
            ("outputnode.brain_mask", "inputnode.t1w_mask"),
            ("outputnode.all_dseg", "inputnode.t1w_dseg"),
        ]),
        (inputnode, topology_wf, [
            ("template_brain", "inputnode.template_brain"),
            ("template_mask", "inputnode.template_mask"),
        ]),
        (prealign_wf, topology_wf, [("outputnode.t1w2template_xfm", "inputnode.t1w2template_xfm")]),
        (before, topology_wf, [
            ("outputnode.t1w2std_xfm", "inputnode.t1w2std_xfm"),
            ("outputnode.std2t1w_xfm", "inputnode.std2t1w_xfm"),
        ]),
        (topology_wf, quality, [("outputnode.topology_metrics", "topology")]),
        (topology_wf, ds_topology_wf, [(f"outputnode.{field}", f"inputnode.{field}") for field in stored]),
        (quality, ds_topology_wf, [("topology_meta", "inputnode.topology_meta")]),
    ])  # fmt: skip
    if before is not register_wf:
        workflow.connect([
            (topology_wf, register_wf, [("outputnode.weight", "inputnode.template_weight")]),
        ])  # fmt: skip
    if calibrated:
        workflow.connect([
            (topology_wf, workflow.get_node("outputnode"), [("outputnode.z", "topology_z")]),
        ])  # fmt: skip
    if settings.reportlets:
        _add_figure(workflow, topology_wf, scan, settings)


def _add_figure(workflow: Workflow, topology_wf: Workflow, scan: Scan, settings: AnatSettings) -> None:
    """Draw the map for the report."""
    conform_wf, segment_wf = (workflow.get_node(name) for name in ("conform_wf", "segment_wf"))
    figure = pe.Node(TopologyMap(), name="topology_figure", mem_gb=0.6)
    sink = figure_sink(settings.output_dir, "ds_topology_figure", source_file=str(scan.t1w), desc="topology")
    shown = {"score": "score"}
    if settings.topology_calibrated:
        shown |= {"z": "z", "regions_mask": "regions", "regions": "table"}
    workflow.connect([
        (conform_wf, figure, [("outputnode.t1w_preproc", "in_file")]),
        (segment_wf, figure, [("outputnode.brain_mask", "in_mask")]),
        (topology_wf, figure, [(f"outputnode.{source}", field) for source, field in shown.items()]),
        (figure, sink, [("out_file", "in_file")]),
    ])  # fmt: skip


def given_controls(path: Path | None) -> dict[str, Any]:
    """Give the input of an interface that names control statistics; none where there is no file."""
    return {} if path is None else {"control_statistics": str(path)}
