"""One T1-weighted scan from raw to standard space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.quality import CollectQuality
from hyperprep.interfaces.transform import ApplyTransform
from hyperprep.workflows.brain_mask import MaskSource, init_brain_mask_wf
from hyperprep.workflows.conform import init_conform_wf
from hyperprep.workflows.few_shot import add_few_shot
from hyperprep.workflows.memory import grid_voxels, needed_gb
from hyperprep.workflows.outputs import init_ds_standard_wf, init_ds_transforms_wf
from hyperprep.workflows.outputs_native import init_ds_native_wf
from hyperprep.workflows.prealign import init_prealign_wf
from hyperprep.workflows.register import init_register_wf
from hyperprep.workflows.reportlets import init_anat_reportlets_wf
from hyperprep.workflows.resample import init_resample_wf
from hyperprep.workflows.segment import init_segment_wf
from hyperprep.workflows.settings import AnatSettings, OutputSpace, Scan, Template
from hyperprep.workflows.template import TEMPLATE_FIELDS, reference_field
from hyperprep.workflows.topology import add_topology

SWEEP_STEPS = 11
"""How many values of lambda the report's slider has, evenly spaced over [0, 1]."""


def mask_source(scan: Scan, settings: AnatSettings) -> MaskSource:
    """Where a scan's brain mask comes from.

    A given mask counts unless the network is forced; without one, ``skip`` and a sidecar that says
    ``SkullStripped`` take the non-zero region.

    Examples
    --------
    >>> from pathlib import Path
    >>> settings = AnatSettings(bids_dir=Path("/in"), output_dir=Path("/out"))
    >>> mask_source(Scan(Path("sub-01_T1w.nii.gz"), skull_stripped=True), settings)
    'nonzero'
    """
    if settings.skull_strip == "force":
        return "network"
    if scan.mask is not None:
        return "derivative"
    if settings.skull_strip == "skip" or scan.skull_stripped:
        return "nonzero"
    return "network"


def notes_of(scan: Scan, settings: AnatSettings) -> list[str]:
    """Sentences for the report: which image this is, and what was taken from where.

    Examples
    --------
    >>> from pathlib import Path
    >>> settings = AnatSettings(bids_dir=Path("/in"), output_dir=Path("/out"), lam=0.3)
    >>> for note in notes_of(Scan(Path("/in/sub-01/anat/sub-01_T1w.nii.gz")), settings):
    ...     print(note)
    T1w image: sub-01/anat/sub-01_T1w.nii.gz.
    Brain mask: found by the network.
    Lambda: 0.3, as asked for.
    """
    path = scan.t1w.relative_to(settings.bids_dir) if scan.t1w.is_relative_to(settings.bids_dir) else scan.t1w
    mask = {
        "derivative": f"given, {scan.mask_uri or scan.mask}",
        "nonzero": "the image's non-zero region, for the scan is said to be skull-stripped",
        "network": "found by the network",
    }[mask_source(scan, settings)]
    chosen = "searched for this scan" if settings.lam == "auto" else f"{settings.lam:g}, as asked for"
    notes = [f"T1w image: {path}.", f"Brain mask: {mask}.", f"Lambda: {chosen}."]
    if scan.dseg is not None:
        notes.append(f"Overlap is measured on a given segmentation: {scan.dseg}.")
    return notes


def init_anat_wf(
    *,
    scan: Scan,
    template: Template,
    settings: AnatSettings,
    output_spaces: Sequence[OutputSpace] = (OutputSpace(),),
    name: str | None = None,
) -> Workflow:
    """Process one scan: conform, find the brain, align, segment, register, resample, store, draw.

    Parameters
    ----------
    scan : Scan
        The scan.
    template : Template
        The standard brain.
    settings : AnatSettings
        How it is processed.
    output_spaces : sequence of OutputSpace
        Grids in the template's space on which results are also written.
    name : str or None
        Name of the workflow; None takes it from the scan's.

    Inputs
    ------
    template, template_mask, template_brain, template_dseg, template_centroids
        What :func:`~hyperprep.workflows.template.init_template_wf` puts out.
    reference_0, reference_1, ...
        One image per output space.

    Outputs
    -------
    t1w_preproc, brain_mask, dseg
        Results on the scan's grid.
    all_dseg
        All structures on the scan's grid, whatever labels were asked for.
    centroids
        JSON file with the centroids of the structures, RAS mm.
    t1w2template_xfm, template2t1w_xfm
        ITK transforms of the affine alignment.
    t1w2std_xfm, std2t1w_xfm
        ITK composites.
    quality
        The stored JSON file with all figures.
    topology_z
        z-scores against controls on the scan's grid; undefined without topology-change maps or controls.
    """
    workflow = Workflow(name=name or f"{scan.node_name}_wf")
    references = [reference_field(index) for index in range(len(output_spaces))]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*TEMPLATE_FIELDS, *references]), name="inputnode")
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=[
                "t1w_preproc",
                "brain_mask",
                "dseg",
                "all_dseg",
                "centroids",
                "t1w2template_xfm",
                "template2t1w_xfm",
                "t1w2std_xfm",
                "std2t1w_xfm",
                "quality",
                "topology_z",
            ]
        ),
        name="outputnode",
    )
    source = mask_source(scan, settings)
    model: dict[str, Any] = {
        "device": settings.device,
        "omp_nthreads": settings.omp_nthreads,
        "weights_dir": settings.weights_dir,
        "weights_sha256": settings.weights_sha256,
    }
    both = scan.voxels + template.voxels
    conform_wf = init_conform_wf(
        bias_correct=settings.bias_correct, omp_nthreads=settings.omp_nthreads, voxels=scan.voxels
    )
    conform_wf.inputs.inputnode.t1w = str(scan.t1w)
    brain_mask_wf = init_brain_mask_wf(source=source, mask=scan.mask, voxels=scan.voxels, **model)
    prealign_wf = init_prealign_wf(
        dof=settings.dof, on_failure=settings.on_failure, omp_nthreads=settings.omp_nthreads, voxels=both
    )
    segment_wf = init_segment_wf(
        labels=settings.labels,
        use_mask=source != "network",
        uncertainty=settings.uncertainty,
        probsegs=settings.probsegs,
        voxels=scan.voxels,
        **model,
    )
    registration: dict[str, Any] = {
        "lam": settings.lam,
        "lambda_regions": settings.lambda_regions,
        "refine": settings.refine,
        "symmetric": settings.symmetric,
        "given_dseg": scan.dseg is not None,
        "voxels": both,
        **model,
    }
    register_wf = init_register_wf(
        sweep_steps=SWEEP_STEPS if settings.reportlets else 0,
        weighted=settings.masks_registration,
        **registration,
    )
    workflow.connect([
        (conform_wf, brain_mask_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
        (conform_wf, prealign_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
        (conform_wf, segment_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
        (inputnode, prealign_wf, [
            ("template", "inputnode.template"),
            ("template_mask", "inputnode.template_mask"),
            ("template_centroids", "inputnode.template_centroids"),
        ]),
        (brain_mask_wf, prealign_wf, [
            ("outputnode.mask", "inputnode.t1w_mask"),
            ("outputnode.centroids", "inputnode.t1w_centroids"),
        ]),
        (brain_mask_wf, segment_wf, [("outputnode.mask", "inputnode.t1w_mask")]),
        (prealign_wf, segment_wf, [("outputnode.t1w2template_xfm", "inputnode.t1w2template_xfm")]),
        (conform_wf, outputnode, [("outputnode.t1w_preproc", "t1w_preproc")]),
        (segment_wf, outputnode, [
            (f"outputnode.{field}", field) for field in ("brain_mask", "dseg", "all_dseg")
        ]),
        (brain_mask_wf, outputnode, [("outputnode.centroids", "centroids")]),
        (prealign_wf, outputnode, [
            (f"outputnode.{field}", field) for field in ("t1w2template_xfm", "template2t1w_xfm")
        ]),
        (register_wf, outputnode, [
            ("outputnode.t1w2std_xfm", "t1w2std_xfm"),
            ("outputnode.std2t1w_xfm", "std2t1w_xfm"),
        ]),
    ])  # fmt: skip
    _connect_register(workflow, register_wf, scan)
    quality = _add_quality(workflow, scan, template, settings)
    if settings.topology:
        before = register_wf
        if settings.masks_registration:
            before = init_register_wf(**registration, name="first_register_wf")
            before.__desc__ = ""
            _connect_register(workflow, before, scan)
        add_topology(workflow, before, quality, scan, template, settings)
    _add_sinks(workflow, quality, scan, template, settings, output_spaces)
    add_few_shot(workflow, scan, settings, model)
    if settings.reportlets:
        _add_reportlets(workflow, quality, scan, template, settings)
    return workflow


def _connect_register(workflow: Workflow, register_wf: Workflow, scan: Scan) -> None:
    """Give a registration the scan, its segmentation and the template."""
    inputnode, conform_wf, prealign_wf, segment_wf = (
        workflow.get_node(name) for name in ("inputnode", "conform_wf", "prealign_wf", "segment_wf")
    )
    workflow.connect([
        (conform_wf, register_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
        (prealign_wf, register_wf, [("outputnode.t1w2template_xfm", "inputnode.t1w2template_xfm")]),
        (inputnode, register_wf, [
            ("template_brain", "inputnode.template_brain"),
            ("template_mask", "inputnode.template_mask"),
            ("template_dseg", "inputnode.template_dseg"),
        ]),
        (segment_wf, register_wf, [("outputnode.brain_mask", "inputnode.t1w_mask")]),
    ])  # fmt: skip
    if scan.dseg is None:
        workflow.connect([(segment_wf, register_wf, [("outputnode.all_dseg", "inputnode.t1w_dseg")])])
    else:
        register_wf.inputs.inputnode.t1w_dseg = str(scan.dseg)


def _add_quality(workflow: Workflow, scan: Scan, template: Template, settings: AnatSettings) -> pe.Node:
    """Gather the figures of all steps; bring the structures to the template to compare them."""
    quality = pe.Node(CollectQuality(), name="quality", mem_gb=needed_gb("quality", template.voxels))
    needed = needed_gb("resample", scan.voxels + template.voxels)
    options = {"n_procs": settings.omp_nthreads, "mem_gb": needed}
    dseg_affine = pe.Node(ApplyTransform(interpolation="label"), name="dseg_affine", **options)
    dseg_std = pe.Node(ApplyTransform(interpolation="label"), name="dseg_std", **options)
    inputnode, conform_wf, brain_mask_wf, prealign_wf, segment_wf, register_wf = (
        workflow.get_node(name)
        for name in ("inputnode", "conform_wf", "brain_mask_wf", "prealign_wf", "segment_wf", "register_wf")
    )
    for node in (dseg_affine, dseg_std):
        workflow.connect([
            (inputnode, node, [("template", "reference_image")]),
            (node, quality, [("output_image", node.name)]),
        ])  # fmt: skip
        if scan.dseg is None:
            workflow.connect([(segment_wf, node, [("outputnode.all_dseg", "input_image")])])
        else:
            node.inputs.input_image = str(scan.dseg)
    workflow.connect([
        (prealign_wf, dseg_affine, [("outputnode.t1w2template_xfm", "transforms")]),
        (register_wf, dseg_std, [("outputnode.t1w2std_xfm", "transforms")]),
        (inputnode, quality, [("template_dseg", "template_dseg")]),
        (conform_wf, quality, [("outputnode.conform_metrics", "conform")]),
        (brain_mask_wf, quality, [("outputnode.locate_metrics", "locate")]),
        (prealign_wf, quality, [("outputnode.prealign_metrics", "prealign")]),
        (segment_wf, quality, [
            ("outputnode.segment_metrics", "segment"),
            ("outputnode.volumes_metrics", "volumes"),
        ]),
        (register_wf, quality, [("outputnode.register_metrics", "register")]),
    ])  # fmt: skip
    if settings.bias_correct:
        workflow.connect([(conform_wf, quality, [("outputnode.bias_metrics", "bias")])])
    return quality


def _add_sinks(
    workflow: Workflow,
    quality: pe.Node,
    scan: Scan,
    template: Template,
    settings: AnatSettings,
    output_spaces: Sequence[OutputSpace],
) -> None:
    """Resample to every output space and store everything."""
    stripped = bool(scan.skull_stripped) or settings.skull_strip == "skip"
    folders: dict[str, Any] = {"bids_dir": settings.bids_dir, "output_dir": settings.output_dir}
    used = scan if mask_source(scan, settings) == "derivative" else replace(scan, mask=None, mask_uri=None)
    native_wf = init_ds_native_wf(
        scan=used,
        skull_stripped=stripped,
        uncertainty=settings.uncertainty,
        probsegs=settings.labels if settings.probsegs else (),
        weights_dir=settings.weights_dir,
        **folders,
    )
    transforms_wf = init_ds_transforms_wf(scan=scan, template=template, **folders)
    inputnode, outputnode, conform_wf, segment_wf, register_wf = (
        workflow.get_node(name)
        for name in ("inputnode", "outputnode", "conform_wf", "segment_wf", "register_wf")
    )
    resampled = ("brain_mask", "dseg", "tissue_dseg", "tissues")
    maps = ["entropy"] * settings.uncertainty + ["probsegs"] * settings.probsegs
    workflow.connect([
        (conform_wf, native_wf, [("outputnode.t1w_preproc", "inputnode.t1w_preproc")]),
        (segment_wf, native_wf, [
            (f"outputnode.{field}", f"inputnode.{field}")
            for field in (*resampled, "dseg_legend", "tissue_legend", "volumes", *maps)
        ]),
        (quality, native_wf, [("segmentation_meta", "inputnode.segmentation_meta")]),
        (register_wf, transforms_wf, [
            (f"outputnode.{field}", f"inputnode.{field}")
            for field in ("t1w2std_xfm", "std2t1w_xfm", "lambda_curve")
        ]),
        (quality, transforms_wf, [
            ("out_file", "inputnode.quality"),
            ("registration_meta", "inputnode.registration_meta"),
        ]),
        (transforms_wf, outputnode, [("outputnode.quality", "quality")]),
    ])  # fmt: skip
    for index, space in enumerate(output_spaces):
        resample_wf = init_resample_wf(
            omp_nthreads=settings.omp_nthreads,
            voxels=scan.voxels + grid_voxels(space.resolution, template.voxels),
            name=f"resample_{index}_wf",
        )
        standard_wf = init_ds_standard_wf(
            scan=scan,
            template=template,
            space=space,
            output_dir=settings.output_dir,
            skull_stripped=stripped,
            name=f"ds_standard_{index}_wf",
        )
        workflow.connect([
            (inputnode, resample_wf, [(reference_field(index), "inputnode.reference")]),
            (conform_wf, resample_wf, [("outputnode.t1w_preproc", "inputnode.t1w_preproc")]),
            (segment_wf, resample_wf, [(f"outputnode.{field}", f"inputnode.{field}") for field in resampled]),
            (register_wf, resample_wf, [("outputnode.t1w2std_xfm", "inputnode.transforms")]),
            (resample_wf, standard_wf, [
                (f"outputnode.{field}", f"inputnode.{field}") for field in ("t1w_preproc", *resampled)
            ]),
            (quality, standard_wf, [("registration_meta", "inputnode.registration_meta")]),
        ])  # fmt: skip


def _add_reportlets(
    workflow: Workflow, quality: pe.Node, scan: Scan, template: Template, settings: AnatSettings
) -> None:
    """Draw the figures of the report."""
    reportlets_wf = init_anat_reportlets_wf(
        output_dir=settings.output_dir,
        template_name=template.name,
        uncertainty=settings.uncertainty,
        voxels=scan.voxels,
        template_voxels=template.voxels,
    )
    reportlets_wf.inputs.inputnode.source_file = str(scan.t1w)
    reportlets_wf.inputs.inputnode.notes = notes_of(scan, settings)
    inputnode, conform_wf, prealign_wf, segment_wf, register_wf, dseg_std = (
        workflow.get_node(name)
        for name in ("inputnode", "conform_wf", "prealign_wf", "segment_wf", "register_wf", "dseg_std")
    )
    workflow.connect([
        (inputnode, reportlets_wf, [
            (field, f"inputnode.{field}") for field in ("template", "template_mask", "template_dseg")
        ]),
        (conform_wf, reportlets_wf, [("outputnode.t1w_preproc", "inputnode.t1w_preproc")]),
        (prealign_wf, reportlets_wf, [("outputnode.t1w_affine", "inputnode.t1w_affine")]),
        (segment_wf, reportlets_wf, [
            (f"outputnode.{field}", f"inputnode.{field}")
            for field in ("brain_mask", "dseg", "dseg_legend", "volumes", *["entropy"] * settings.uncertainty)
        ]),
        (register_wf, reportlets_wf, [
            ("outputnode.t1w_std", "inputnode.t1w_std"),
            ("outputnode.jacobian", "inputnode.jacobian"),
            ("outputnode.t1w2std_xfm", "inputnode.forward_xfm"),
            ("outputnode.lambda_curve", "inputnode.lambda_curve"),
            ("outputnode.lambda_sweep", "inputnode.lambda_sweep"),
        ]),
        (dseg_std, reportlets_wf, [("output_image", "inputnode.dseg_std")]),
        (quality, reportlets_wf, [("out_file", "inputnode.metrics")]),
    ])  # fmt: skip
