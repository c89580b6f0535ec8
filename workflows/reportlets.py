"""Figures of one scan: drawn and stored below ``sub-<label>/figures``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from hyperprep.interfaces.reportlets import (
    BeforeAfter,
    JacobianMap,
    LabelContours,
    LambdaCurve,
    LambdaSlider,
    Summary,
    UncertaintyMap,
    WarpedGrid,
)
from hyperprep.workflows.memory import SCAN_VOXELS, TEMPLATE_VOXELS, needed_gb
from hyperprep.workflows.outputs import figure_sink

INPUTS = (
    "source_file",
    "t1w_preproc",
    "brain_mask",
    "dseg",
    "dseg_legend",
    "template",
    "template_mask",
    "template_dseg",
    "t1w_affine",
    "t1w_std",
    "dseg_std",
    "jacobian",
    "forward_xfm",
    "lambda_curve",
    "lambda_sweep",
    "metrics",
    "volumes",
    "warnings",
    "notes",
)


LONGITUDINAL_LIMIT = 1.5
"""Colour scale of the change between sessions: from 1 / this to this."""


def init_longitudinal_reportlets_wf(
    *,
    output_dir: Path | str,
    earlier_name: str,
    later_name: str,
    voxels: int = SCAN_VOXELS,
    name: str = "longitudinal_reportlets_wf",
) -> pe.Workflow:
    """
    Draw the figures of a later session registered to an earlier one and store them.

    Parameters
    ----------
    output_dir : Path or str
        Root of the derivatives; figures go to ``sub-<label>/figures``.
    earlier_name, later_name : str
        What the sessions are called.
    voxels : int
        Number of voxels of the earlier scan; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    source_file
        Raw T1w image of the later session; gives the figures their names.
    earlier, earlier_mask, earlier_dseg
        The earlier scan, its brain mask and its structures, own grid.
    rigid, registered, registered_dseg
        The later scan on the earlier one's grid, aligned and then registered, and its structures registered.
    jacobian
        Volume in the later session divided by volume in the earlier one, on the earlier one's grid.
    lambda_curve
        TSV of the search for lambda.

    Outputs
    -------
    None; figures go to the sinks.
    """
    workflow = pe.Workflow(name=name)
    images = ["earlier", "earlier_mask", "earlier_dseg", "rigid", "registered", "registered_dseg"]
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["source_file", *images, "jacobian", "lambda_curve"]), name="inputnode"
    )
    longitudinal = pe.Node(
        BeforeAfter(
            reference_label=earlier_name[:1].upper() + earlier_name[1:],
            before_label=f"{later_name[:1].upper()}{later_name[1:]}, rigidly aligned",
            after_label=f"{later_name[:1].upper()}{later_name[1:]}, registered",
            names=(earlier_name, later_name),
        ),
        name="longitudinal",
        mem_gb=needed_gb("alignment", voxels),
    )
    change = pe.Node(
        JacobianMap(limit=LONGITUDINAL_LIMIT, caption=f"Volume in {later_name} / in {earlier_name}"),
        name="volumechange",
        mem_gb=needed_gb("drawing", voxels),
    )
    curve = pe.Node(LambdaCurve(), name="longitudinalcurve", mem_gb=0.3)
    workflow.connect([
        (inputnode, longitudinal, [
            ("earlier", "reference_image"),
            ("earlier_mask", "reference_mask"),
            ("earlier_dseg", "reference_dseg"),
            ("rigid", "before"),
            ("registered", "after"),
            ("registered_dseg", "after_dseg"),
        ]),
        (inputnode, change, [
            ("jacobian", "in_file"),
            ("earlier_mask", "reference_mask"),
            ("earlier_dseg", "reference_dseg"),
        ]),
        (inputnode, curve, [("lambda_curve", "in_file")]),
    ])  # fmt: skip
    _store_figures(workflow, inputnode, (longitudinal, change, curve), output_dir)
    return workflow


def init_anat_reportlets_wf(
    *,
    output_dir: Path | str,
    template_name: str,
    uncertainty: bool = False,
    voxels: int = SCAN_VOXELS,
    template_voxels: int = TEMPLATE_VOXELS,
    name: str = "anat_reportlets_wf",
) -> pe.Workflow:
    """
    Draw every figure of one scan and store it.

    Parameters
    ----------
    output_dir : Path or str
        Root of the derivatives; figures go to ``sub-<label>/figures``.
    template_name : str
        Name of the template, for the figures' labels.
    uncertainty : bool
        Whether ``entropy`` comes in and is drawn.
    voxels, template_voxels : int
        Number of voxels of the scan and of the template; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    source_file
        Raw T1w image; gives the figures their names.
    t1w_preproc, brain_mask, dseg
        Scan, its brain mask and its structures (FreeSurfer numbers), own grid.
    dseg_legend
        TSV that names the structures.
    template, template_mask, template_dseg
        Template, its brain mask and its structures.
    t1w_affine, t1w_std
        Scan on the template's grid after the affine alignment only, and after the deformation.
    entropy
        With ``uncertainty``: entropy of the structures' probabilities, own grid, bits.
    dseg_std
        Structures of the scan on the template's grid.
    jacobian
        Determinant of the deformation's Jacobian (without the affine part), template space.
    forward_xfm
        ITK point map from the template to the scan (``.h5``).
    lambda_curve
        TSV of the search for lambda.
    lambda_sweep
        Registrations by lambda (``.npz``), what the report's slider moves through.
    metrics
        JSON file (or several) with the key figures.
    volumes
        TSV with the volumes of the structures.
    warnings, notes
        Sentences that the summary begins with.

    Outputs
    -------
    warnings
        All warnings in words, those that follow from the figures included.
    """
    workflow = pe.Workflow(name=name)
    maps = ["entropy"] if uncertainty else []
    inputnode = pe.Node(niu.IdentityInterface(fields=[*INPUTS, *maps]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["warnings"]), name="outputnode")

    summary = pe.Node(Summary(), name="summary")
    alignment = pe.Node(
        BeforeAfter(reference_label=f"Template {template_name}"),
        name="alignment",
        mem_gb=needed_gb("alignment", template_voxels),
    )
    segmentation = pe.Node(LabelContours(), name="segmentation", mem_gb=needed_gb("contours", voxels))
    grid = pe.Node(WarpedGrid(), name="grid", mem_gb=needed_gb("drawing", template_voxels))
    jacobian = pe.Node(JacobianMap(), name="jacobian", mem_gb=needed_gb("drawing", template_voxels))
    curve = pe.Node(LambdaCurve(), name="curve", mem_gb=0.3)
    slider = pe.Node(LambdaSlider(), name="slider", mem_gb=needed_gb("slider", voxels + template_voxels))

    workflow.connect([
        (inputnode, summary, [
            ("source_file", "source_file"),
            ("metrics", "metrics"),
            ("volumes", "volumes"),
            ("warnings", "warnings"),
            ("notes", "notes"),
        ]),
        (inputnode, alignment, [
            ("template", "reference_image"),
            ("template_mask", "reference_mask"),
            ("template_dseg", "reference_dseg"),
            ("t1w_affine", "before"),
            ("t1w_std", "after"),
            ("dseg_std", "after_dseg"),
        ]),
        (inputnode, segmentation, [
            ("t1w_preproc", "in_file"),
            ("dseg", "in_dseg"),
            ("dseg_legend", "in_legend"),
            ("brain_mask", "in_mask"),
        ]),
        (inputnode, grid, [
            ("template", "reference_image"),
            ("template_mask", "reference_mask"),
            ("forward_xfm", "transform"),
        ]),
        (inputnode, jacobian, [
            ("jacobian", "in_file"),
            ("template_mask", "reference_mask"),
            ("template_dseg", "reference_dseg"),
        ]),
        (inputnode, curve, [("lambda_curve", "in_file")]),
        (inputnode, slider, [
            ("lambda_sweep", "in_file"),
            ("lambda_curve", "lambda_curve"),
            ("template", "reference_image"),
            ("template_mask", "reference_mask"),
            ("template_dseg", "reference_dseg"),
            ("t1w_preproc", "moving_image"),
            ("dseg", "moving_dseg"),
        ]),
        (summary, outputnode, [("warnings", "warnings")]),
    ])  # fmt: skip

    figures = [summary, alignment, segmentation, grid, jacobian, curve, slider]
    if uncertainty:
        entropy = pe.Node(UncertaintyMap(), name="uncertainty", mem_gb=needed_gb("drawing", voxels))
        figures.append(entropy)
        workflow.connect([
            (inputnode, entropy, [
                ("t1w_preproc", "in_file"), ("entropy", "entropy"), ("brain_mask", "in_mask")
            ]),
        ])  # fmt: skip
    _store_figures(workflow, inputnode, figures, output_dir)
    return workflow


def _store_figures(
    workflow: pe.Workflow, inputnode: pe.Node, figures: Sequence[pe.Node], output_dir: Path | str
) -> None:
    """Give every node that draws a sink; the figure is called after the node."""
    for node in figures:
        sink = figure_sink(output_dir, f"ds_{node.name}", desc=node.name)
        workflow.connect([
            (inputnode, sink, [("source_file", "source_file")]),
            (node, sink, [("out_file", "in_file")]),
        ])  # fmt: skip
