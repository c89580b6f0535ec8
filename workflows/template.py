"""The template of a run and what is known of it, computed once and shared by all participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.locate import Locate
from hyperprep.interfaces.masks import MaskImage
from hyperprep.interfaces.template import CheckFrame, LoadTemplate, ReferenceGrid
from hyperprep.models.spatial.labels import known_labels
from hyperprep.models.weights.own_regions import without_own_regions
from hyperprep.workflows.memory import grid_voxels, needed_gb
from hyperprep.workflows.nodes import model_node
from hyperprep.workflows.segment import init_segment_wf
from hyperprep.workflows.settings import OutputSpace, Template

TEMPLATE_FIELDS = ("template", "template_mask", "template_brain", "template_dseg", "template_centroids")
"""What the template's workflow hands to every participant, besides the reference grids."""


def reference_field(index: int) -> str:
    """Name of the field that carries the grid of an output space.

    Examples
    --------
    >>> reference_field(1)
    'reference_1'
    """
    return f"reference_{index}"


def init_template_wf(
    *,
    template: Template,
    output_spaces: Sequence[OutputSpace] = (OutputSpace(),),
    labels: Sequence[str] = ("all",),
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    name: str = "template_wf",
) -> Workflow:
    """Load the template, segment it with the scans' network and make the grids of the outputs.

    Parameters
    ----------
    template : Template
        Which template.
    output_spaces : sequence of OutputSpace
        Grids in the template's space.
    labels : sequence of str
        Structures: names, FreeSurfer numbers, super-regions or ``"all"``; own regions are left out.
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
    template_file, template_mask_file
        Preset from ``template``; undefined for nilearn's template.

    Outputs
    -------
    template, template_mask, template_brain
        The template, its brain mask, and the template inside the mask.
    template_dseg
        All its leaf structures with FreeSurfer numbers.
    template_centroids
        JSON file of their centroids, RAS mm.
    reference_0, reference_1, ...
        One image per output space; its grid is used.
    """
    options: dict[str, Any] = {
        "device": device,
        "omp_nthreads": omp_nthreads,
        "weights_dir": weights_dir,
        "weights_sha256": without_own_regions(weights_sha256 or {}),
    }
    voxels = template.voxels
    mask_known = template.image is None or template.mask is not None
    workflow = Workflow(name=name)
    workflow.__desc__ = _describe(template)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["template_file", "template_mask_file"]), name="inputnode"
    )
    outputnode = pe.Node(
        niu.IdentityInterface(
            fields=[*TEMPLATE_FIELDS, *(reference_field(index) for index in range(len(output_spaces)))]
        ),
        name="outputnode",
    )
    load = pe.Node(LoadTemplate(), name="load", mem_gb=needed_gb("load", voxels))
    locate = model_node(Locate(), name="locate", mem_gb=needed_gb("locate", voxels), **options)
    check = pe.Node(CheckFrame(), name="check", run_without_submitting=True, mem_gb=0.1)
    segment_wf = init_segment_wf(
        labels=known_labels(labels),
        use_mask=mask_known,
        in_template_frame=True,
        voxels=voxels,
        name="segment_template_wf",
        **options,
    )
    segment_wf.__desc__ = ""
    strip = pe.Node(MaskImage(), name="strip", mem_gb=needed_gb("strip", voxels))
    if template.image is not None:
        inputnode.inputs.template_file = str(template.image)
    if template.mask is not None:
        inputnode.inputs.template_mask_file = str(template.mask)
    mask_from = load if mask_known else locate
    workflow.connect([(mask_from, segment_wf, [("out_mask", "inputnode.t1w_mask")])])
    workflow.connect([
        (inputnode, load, [("template_file", "in_file"), ("template_mask_file", "in_mask")]),
        (load, locate, [("out_file", "in_file")]),
        (load, check, [("out_file", "in_file")]),
        (locate, check, [("out_centroids", "centroids"), ("out_template_centroids", "model_centroids")]),
        (load, segment_wf, [("out_file", "inputnode.t1w")]),
        (load, strip, [("out_file", "in_file")]),
        (segment_wf, strip, [("outputnode.brain_mask", "in_mask")]),
        (load, outputnode, [("out_file", "template")]),
        (check, outputnode, [("centroids", "template_centroids")]),
        (segment_wf, outputnode, [
            ("outputnode.brain_mask", "template_mask"),
            ("outputnode.all_dseg", "template_dseg"),
        ]),
        (strip, outputnode, [("out_file", "template_brain")]),
    ])  # fmt: skip
    for index, space in enumerate(output_spaces):
        _connect_reference(workflow, load, outputnode, index, space, voxels)
    return workflow


def _connect_reference(
    workflow: Workflow, load: pe.Node, outputnode: pe.Node, index: int, space: OutputSpace, voxels: int
) -> None:
    field = reference_field(index)
    if space.reference is not None:
        setattr(outputnode.inputs, field, str(space.reference))
    elif space.resolution is None:
        workflow.connect([(load, outputnode, [("out_file", field)])])
    else:
        needed = needed_gb("grid", voxels + grid_voxels(space.resolution, voxels))
        grid = pe.Node(ReferenceGrid(spacing=float(space.resolution)), name=f"grid_{index}", mem_gb=needed)
        workflow.connect([
            (load, grid, [("out_file", "in_file")]),
            (grid, outputnode, [("out_file", field)]),
        ])  # fmt: skip


def _describe(template: Template) -> str:
    if template.image is None:
        return (
            "The standard space was the ICBM 152 non-linear symmetric average brain, 2009 release "
            f"[@mni152nlin2009; space *{template.name}*], as distributed with nilearn [@nilearn].\n"
        )
    return f"The standard space was *{template.name}*, given as the image `{template.image.name}`.\n"
