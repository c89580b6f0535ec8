"""A later session of a participant registered to the first one."""

from __future__ import annotations

from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.masks import MaskImage
from hyperprep.interfaces.prealign import AffinePrealign
from hyperprep.interfaces.quality import CollectQuality
from hyperprep.interfaces.register import HyperMorph
from hyperprep.interfaces.transform import ApplyTransform, JacobianDeterminant
from hyperprep.workflows.memory import needed_gb
from hyperprep.workflows.nodes import model_node
from hyperprep.workflows.outputs_longitudinal import init_ds_longitudinal_wf
from hyperprep.workflows.reportlets import init_longitudinal_reportlets_wf
from hyperprep.workflows.settings import AnatSettings, Scan
from hyperprep.workflows.topology_longitudinal import FROM_SCANS, add_session_change

FROM_EACH = ("t1w_preproc", "brain_mask", "all_dseg", "centroids")
"""What the registration reads of each session."""


def init_longitudinal_wf(
    *, earlier: Scan, later: Scan, settings: AnatSettings, name: str | None = None
) -> Workflow:
    """Register a later scan of a participant to an earlier one, in the earlier one's own space.

    Both are aligned rigidly, so that the deformation holds the whole change of volume. Lambda is searched for
    this very pair by the overlap of both scans' own segmentations, whatever is asked for the template.

    Parameters
    ----------
    earlier, later : Scan
        Scans of the same participant.
    settings : AnatSettings
        How scans are processed; regions, refinement and symmetry hold here too.
    name : str or None
        Name of the workflow; None takes it from the later scan's.

    Inputs
    ------
    earlier_t1w_preproc, earlier_brain_mask, earlier_all_dseg, earlier_centroids, earlier_t1w2template_xfm
        What :func:`~hyperprep.workflows.anat.init_anat_wf` puts out for the earlier scan.
    later_t1w_preproc, later_brain_mask, later_all_dseg, later_centroids, later_t1w2template_xfm
        The same of the later one.
    earlier_topology_z, later_topology_z
        z-scores against the template: tell what appeared from what disappeared; only with topology
        maps.

    Outputs
    -------
    later2earlier_xfm, earlier2later_xfm
        ITK composites, both directions, rigid part included.
    later_moved
        The later scan on the earlier one's grid.
    jacobian
        Volume in the later scan divided by volume in the earlier one, on the earlier one's grid.
    lam
        The regularisation weight used.
    quality
        The stored JSON file with the figures of this registration.
    """
    workflow = Workflow(name=name or f"{later.node_name}_longitudinal_wf")
    workflow.__desc__ = (
        "Later sessions of a participant were aligned to the first one by a rigid-body transform and "
        "registered to it by the same network [@hypermorph], in the first session's own space; the "
        "regularisation weight was chosen for each pair of sessions by the overlap of their own segmentations"
        + (f" ({', '.join(settings.lambda_regions)})" if settings.lambda_regions else "")
        + ".\n"
    )
    fields = [f"{which}_{field}" for which in ("earlier", "later") for field in (*FROM_EACH, *FROM_SCANS)]
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=["later2earlier_xfm", "earlier2later_xfm", "later_moved", "jacobian", "lam", "quality"]
        ),
        name="outputnode",
    )
    both = earlier.voxels + later.voxels
    prealign = pe.Node(
        AffinePrealign(dof=6, on_failure=settings.on_failure),
        name="prealign",
        n_procs=settings.omp_nthreads,
        mem_gb=needed_gb("prealign", both),
    )
    register = model_node(
        HyperMorph(
            lam="auto",
            lambda_regions=list(settings.lambda_regions),
            refine=settings.refine,
            symmetric=settings.symmetric,
        ),
        name="register",
        device=settings.device,
        omp_nthreads=settings.omp_nthreads,
        mem_gb=needed_gb("register_symmetric" if settings.symmetric else "register", both),
        weights_dir=settings.weights_dir,
        weights_sha256=settings.weights_sha256,
    )
    for which, side, scan in (("earlier", "fixed", earlier), ("later", "moving", later)):
        strip = pe.Node(MaskImage(), name=f"strip_{which}", mem_gb=needed_gb("strip", scan.voxels))
        workflow.connect([
            (inputnode, prealign, [
                (f"{which}_t1w_preproc", f"{side}_image"),
                (f"{which}_brain_mask", f"{side}_mask"),
                (f"{which}_centroids", f"{side}_centroids"),
            ]),
            (inputnode, strip, [(f"{which}_t1w_preproc", "in_file"), (f"{which}_brain_mask", "in_mask")]),
            (strip, register, [("out_file", f"{side}_image")]),
            (inputnode, register, [(f"{which}_brain_mask", f"{side}_mask")]),
        ])  # fmt: skip
    workflow.connect([
        (inputnode, register, [("earlier_t1w2template_xfm", "frame2fixed_xfm")]),
        (prealign, register, [("out_xfm", "fixed2moving_xfm")]),
        (register, outputnode, [
            ("out_xfm", "later2earlier_xfm"),
            ("out_inverse_xfm", "earlier2later_xfm"),
            ("lam", "lam"),
        ]),
    ])  # fmt: skip
    _add_results(workflow, earlier, later, settings)
    if settings.topology:
        names = session_name(earlier), session_name(later)
        add_session_change(workflow, earlier, later, settings, names)
    return workflow


def _add_results(workflow: Workflow, earlier: Scan, later: Scan, settings: AnatSettings) -> None:
    """Resample, measure, store and draw."""
    needed = needed_gb("resample", earlier.voxels + later.voxels)
    options: dict[str, Any] = {"n_procs": settings.omp_nthreads, "mem_gb": needed}
    moved = pe.Node(ApplyTransform(interpolation="bspline"), name="moved", **options)
    dseg_affine = pe.Node(ApplyTransform(interpolation="label"), name="dseg_affine", **options)
    dseg_std = pe.Node(ApplyTransform(interpolation="label"), name="dseg_std", **options)
    jacobian = pe.Node(
        JacobianDeterminant(),
        name="jacobian",
        n_procs=settings.omp_nthreads,
        mem_gb=needed_gb("volume_change", earlier.voxels),
    )
    quality = pe.Node(CollectQuality(), name="quality", mem_gb=needed_gb("quality", earlier.voxels))
    sinks_wf = init_ds_longitudinal_wf(
        earlier=earlier,
        later=later,
        bids_dir=settings.bids_dir,
        output_dir=settings.output_dir,
        skull_stripped=bool(later.skull_stripped) or settings.skull_strip == "skip",
    )
    inputnode, outputnode, prealign, register = (
        workflow.get_node(name) for name in ("inputnode", "outputnode", "prealign", "register")
    )
    for node, source, image in (
        (moved, register, "later_t1w_preproc"),
        (dseg_affine, prealign, "later_all_dseg"),
        (dseg_std, register, "later_all_dseg"),
    ):
        workflow.connect([
            (inputnode, node, [("earlier_t1w_preproc", "reference_image")]),
            (source, node, [("out_xfm", "transforms")]),
        ])  # fmt: skip
        _connect_dseg(workflow, image, [(node, "input_image")], earlier, later)
    _connect_dseg(workflow, "later_all_dseg", [(register, "moving_dseg")], earlier, later)
    _connect_dseg(
        workflow, "earlier_all_dseg", [(register, "fixed_dseg"), (quality, "template_dseg")], earlier, later
    )
    workflow.connect([
        (inputnode, jacobian, [("earlier_t1w_preproc", "reference_image")]),
        (register, jacobian, [("out_xfm", "in_xfm")]),
        (prealign, quality, [("out_metrics", "prealign")]),
        (register, quality, [("out_metrics", "register")]),
        (dseg_affine, quality, [("output_image", "dseg_affine")]),
        (dseg_std, quality, [("output_image", "dseg_std")]),
        (register, sinks_wf, [
            ("out_xfm", "inputnode.later2earlier_xfm"),
            ("out_inverse_xfm", "inputnode.earlier2later_xfm"),
            ("lambda_curve", "inputnode.lambda_curve"),
        ]),
        (moved, sinks_wf, [("output_image", "inputnode.later_moved")]),
        (jacobian, sinks_wf, [("out_file", "inputnode.jacobian")]),
        (quality, sinks_wf, [
            ("out_file", "inputnode.quality"),
            ("registration_meta", "inputnode.registration_meta"),
        ]),
        (moved, outputnode, [("output_image", "later_moved")]),
        (jacobian, outputnode, [("out_file", "jacobian")]),
        (sinks_wf, outputnode, [("outputnode.quality", "quality")]),
    ])  # fmt: skip
    if not settings.reportlets:
        return
    figures_wf = init_longitudinal_reportlets_wf(
        output_dir=settings.output_dir,
        earlier_name=session_name(earlier),
        later_name=session_name(later),
        voxels=earlier.voxels,
    )
    figures_wf.inputs.inputnode.source_file = str(later.t1w)
    workflow.connect([
        (inputnode, figures_wf, [
            ("earlier_t1w_preproc", "inputnode.earlier"),
            ("earlier_brain_mask", "inputnode.earlier_mask"),
        ]),
        (prealign, figures_wf, [("out_file", "inputnode.rigid")]),
        (moved, figures_wf, [("output_image", "inputnode.registered")]),
        (dseg_std, figures_wf, [("output_image", "inputnode.registered_dseg")]),
        (jacobian, figures_wf, [("out_file", "inputnode.jacobian")]),
        (register, figures_wf, [("lambda_curve", "inputnode.lambda_curve")]),
    ])  # fmt: skip
    _connect_dseg(workflow, "earlier_all_dseg", [(figures_wf, "inputnode.earlier_dseg")], earlier, later)


def _connect_dseg(
    workflow: Workflow, field: str, targets: list[tuple[Any, str]], earlier: Scan, later: Scan
) -> None:
    """Feed an image of the inputs; given segmentations replace the network's where both scans have one."""
    given = {"earlier_all_dseg": earlier.dseg, "later_all_dseg": later.dseg}.get(field)
    inputnode = workflow.get_node("inputnode")
    for node, port in targets:
        if given is not None and earlier.dseg is not None and later.dseg is not None:
            where = node.inputs.inputnode if port.startswith("inputnode.") else node.inputs
            setattr(where, port.removeprefix("inputnode."), str(given))
        else:
            workflow.connect([(inputnode, node, [(field, port)])])


def session_name(scan: Scan) -> str:
    """Call a scan's session in a figure.

    Examples
    --------
    >>> from pathlib import Path
    >>> session_name(Scan(Path("sub-01_ses-pre_T1w.nii.gz"))), session_name(Scan(Path("sub-01_T1w.nii.gz")))
    ('session pre', 'the first session')
    """
    session = scan.session
    return f"session {session}" if session else "the first session"
