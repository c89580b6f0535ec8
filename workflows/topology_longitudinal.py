"""Topology change between two sessions of one person: what appeared and what disappeared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.reportlets import SessionChangeMap
from hyperprep.interfaces.topology import SessionChange
from hyperprep.interfaces.transform import ApplyTransform
from hyperprep.workflows.memory import needed_gb
from hyperprep.workflows.nodes import model_node
from hyperprep.workflows.outputs import figure_sink
from hyperprep.workflows.outputs_topology import SESSION_FILES, SESSION_Z, init_ds_session_change_wf
from hyperprep.workflows.settings import AnatSettings, Scan
from hyperprep.workflows.topology import MEM_GB, given_controls

FROM_SCANS = ("t1w2template_xfm", "topology_z")
"""What the change needs of each session beyond what their registration reads."""


def init_topology_longitudinal_wf(
    *,
    calibrated: bool = False,
    control_statistics: Path | None = None,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    name: str = "topology_longitudinal_wf",
) -> Workflow:
    """Map what changed between two sessions of one person, on the grids of both.

    Parameters
    ----------
    calibrated : bool
        Statistics of pairs of sessions without change are there: z-scores are made too.
    control_statistics : Path or None
        NPZ of the kind ``sessions``; None takes those beside the weights.
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
    first, first_mask, first2template_xfm, first_z
        The earlier scan, its brain mask, its affine alignment and its z-score against the template.
    second, second_mask, second_dseg, second2template_xfm, second_z
        The same of the later scan, and its structures.
    second2first_xfm, first2second_xfm
        ITK composites of the registration of the two sessions.

    Outputs
    -------
    first_score, second_score, first_regions_mask, second_regions_mask
        L_sym and regions on both grids: 1 appeared, 2 disappeared.
    first_change_z, second_change_z
        Calibrated z-scores on both grids; undefined without ``calibrated``.
    regions
        TSV of the regions of the later scan, with direction and change of volume.
    topology_metrics
        JSON file with figures of this step.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        "Change between sessions was mapped by a conditional variational auto-encoder that registers them in "
        "both directions [@spotthedifference]"
        + (
            "; its score was compared with that of synthetic pairs of sessions without change.\n"
            if calibrated
            else "; its score is not calibrated.\n"
        )
    )
    given = {
        "first": "first_image",
        "first_mask": "first_mask",
        "first2template_xfm": "frame2first_xfm",
        "first_z": "first_z",
        "second": "second_image",
        "second_mask": "second_mask",
        "second_dseg": "second_dseg",
        "second2template_xfm": "frame2second_xfm",
        "second_z": "second_z",
        "second2first_xfm": "in_xfm",
        "first2second_xfm": "in_inverse_xfm",
    }
    made = {
        "first_score": "first_score",
        "second_score": "second_score",
        "first_out_mask": "first_regions_mask",
        "second_out_mask": "second_regions_mask",
        "out_regions": "regions",
        "out_metrics": "topology_metrics",
    }
    z = {"first_out_z": "first_change_z", "second_out_z": "second_change_z"}
    inputnode = pe.Node(niu.IdentityInterface(fields=list(given)), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=[*made.values(), *z.values()]), name="outputnode")
    change = model_node(
        SessionChange(calibrate=calibrated, **given_controls(control_statistics)),
        name="change",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=MEM_GB,
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    workflow.connect([
        (inputnode, change, list(given.items())),
        (change, outputnode, list((made | (z if calibrated else {})).items())),
    ])  # fmt: skip
    return workflow


def add_session_change(
    workflow: Workflow, earlier: Scan, later: Scan, settings: AnatSettings, names: tuple[str, str]
) -> None:
    """Add maps of the change between two sessions, their files and their figure.

    Parameters
    ----------
    workflow : Workflow
        From :func:`~hyperprep.workflows.longitudinal.init_longitudinal_wf`, with its steps connected.
    earlier, later, settings
        Of that workflow.
    names : tuple of str
        What the sessions are called in the figure.
    """
    inputnode, prealign, register, quality = (
        workflow.get_node(name) for name in ("inputnode", "prealign", "register", "quality")
    )
    calibrated = settings.session_statistics is not None
    change_wf = init_topology_longitudinal_wf(
        calibrated=calibrated,
        control_statistics=settings.session_statistics,
        device=settings.device,
        omp_nthreads=settings.omp_nthreads,
        weights_dir=settings.weights_dir,
        weights_sha256=settings.weights_sha256,
    )
    sinks_wf = init_ds_session_change_wf(
        earlier=earlier,
        later=later,
        bids_dir=settings.bids_dir,
        output_dir=settings.output_dir,
        calibrated=calibrated,
    )
    for which, session in (("earlier", "first"), ("later", "second")):
        workflow.connect([
            (inputnode, change_wf, [
                (f"{which}_t1w_preproc", f"inputnode.{session}"),
                (f"{which}_brain_mask", f"inputnode.{session}_mask"),
                (f"{which}_t1w2template_xfm", f"inputnode.{session}2template_xfm"),
            ]),
        ])  # fmt: skip
        if settings.topology_calibrated:
            workflow.connect([(inputnode, change_wf, [(f"{which}_topology_z", f"inputnode.{session}_z")])])
    stored = (*SESSION_FILES, *(SESSION_Z if calibrated else ()))
    workflow.connect([
        (inputnode, change_wf, [("later_all_dseg", "inputnode.second_dseg")]),
        (register, change_wf, [
            ("out_xfm", "inputnode.second2first_xfm"),
            ("out_inverse_xfm", "inputnode.first2second_xfm"),
        ]),
        (change_wf, quality, [("outputnode.topology_metrics", "topology")]),
        (change_wf, sinks_wf, [(f"outputnode.{field}", f"inputnode.{field}") for field in stored]),
        (quality, sinks_wf, [("topology_meta", "inputnode.topology_meta")]),
    ])  # fmt: skip
    if not settings.reportlets:
        return
    figure = pe.Node(SessionChangeMap(names=list(names)), name="sessionchange_figure", mem_gb=0.6)
    sink = figure_sink(
        settings.output_dir, "ds_sessionchange_figure", source_file=str(later.t1w), desc="sessionchange"
    )
    workflow.connect([
        (inputnode, figure, [("earlier_t1w_preproc", "first"), ("earlier_brain_mask", "first_mask")]),
        (prealign, figure, [("out_file", "second")]),
        (change_wf, figure, [("outputnode.regions", "table")]),
        (figure, sink, [("out_file", "in_file")]),
    ])  # fmt: skip
    shown = {"second_score": "score", "second_regions_mask": "regions"}
    if calibrated:
        shown["second_change_z"] = "z"
    for source, field in shown.items():
        order = "nearest" if field == "regions" else "linear"
        place = pe.Node(
            ApplyTransform(interpolation=order),
            name=f"place_{field}",
            n_procs=settings.omp_nthreads,
            mem_gb=needed_gb("resample", earlier.voxels + later.voxels),
        )
        workflow.connect([
            (inputnode, place, [("earlier_t1w_preproc", "reference_image")]),
            (prealign, place, [("out_xfm", "transforms")]),
            (change_wf, place, [(f"outputnode.{source}", "input_image")]),
            (place, figure, [("output_image", field)]),
        ])  # fmt: skip
