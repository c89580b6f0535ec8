"""A task that is given by examples, done to a scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.bids import DerivativesDataSink
from hyperprep.interfaces.few_shot import FewShot
from hyperprep.interfaces.reportlets.few_shot import FewShotPanel
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb
from hyperprep.workflows.nodes import model_node
from hyperprep.workflows.outputs import derivative_uri, figure_sink, raw_uri
from hyperprep.workflows.settings import AnatSettings, FewShotTask, Scan

MOST_EXAMPLES = 32
"""Examples in memory at most (``hyperprep.models.predict.few_shot.MOST_ALIGNED``)."""


def init_few_shot_wf(
    *,
    task: FewShotTask,
    voxels: int = SCAN_VOXELS,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    name: str = "few_shot_wf",
) -> Workflow:
    """Do one few-shot task to a scan, and draw the result beside the examples.

    Parameters
    ----------
    task : FewShotTask
        Name, kind of output and files of the examples.
    voxels : int
        Number of voxels of the scan; memory is reserved for them.
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
    t1w, t1w_mask
        The scan and its brain mask.
    t1w2template_xfm
        ITK transform that brings the scan onto the template.

    Outputs
    -------
    out_file
        Mask or image on the scan's grid.
    probability
        Probability of a mask; of an image, nothing.
    spread
        Standard deviation over orientations and sets of examples.
    meta
        Fields of the sidecars: examples, weights, settings.
    metrics
        JSON file with figures of this step.
    figure
        SVG of the result beside the examples.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        f"The {task.kind} *{task.name}* was made from {len(task.outputs)} examples, affinely aligned to each "
        "image and deformed onto it by local correlation, by a network that learns tasks from examples "
        "without training [@neuralizer]; slices of three orientations were predicted and averaged.\n"
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=["t1w", "t1w_mask", "t1w2template_xfm"]), name="inputnode"
    )
    fields = ["out_file", "spread", "meta", "metrics", "figure"]
    if task.kind == "mask":
        fields.append("probability")
    outputnode = pe.Node(niu.IdentityInterface(fields=fields), name="outputnode")
    few_shot = model_node(
        FewShot(
            example_inputs=[[str(path)] for path in task.inputs],
            example_outputs=[str(path) for path in task.outputs],
            example_masks=[None if path is None else str(path) for path in task.masks],
            example_labels=list(task.labels),
            kind=task.kind,
        ),
        name="few_shot",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=needed_gb("few_shot", voxels * (2 + min(len(task.outputs), MOST_EXAMPLES))),
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    panel = pe.Node(
        FewShotPanel(
            example_inputs=[str(path) for path in task.inputs],
            example_outputs=[str(path) for path in task.outputs],
            is_mask=task.kind == "mask",
            task=task.name,
        ),
        name="panel",
        mem_gb=needed_gb("contours", voxels),
    )
    workflow.connect([
        (inputnode, few_shot, [
            ("t1w", "in_files"),
            ("t1w_mask", "mask"),
            ("t1w2template_xfm", "template2scan_xfm"),
        ]),
        (inputnode, panel, [("t1w", "in_file")]),
        (few_shot, panel, [
            ("out_file", "result"),
            ("out_spread", "spread"),
            ("out_places", "places"),
            ("out_examples", "labels"),
            ("out_xfms", "transforms"),
        ]),
        (few_shot, outputnode, [
            ("out_file", "out_file"),
            ("out_spread", "spread"),
            ("out_meta", "meta"),
            ("out_metrics", "metrics"),
        ]),
        (panel, outputnode, [("out_file", "figure")]),
    ])  # fmt: skip
    if task.kind == "mask":
        workflow.connect([(few_shot, outputnode, [("out_probability", "probability")])])
    return workflow


def init_ds_few_shot_wf(
    *,
    task: FewShotTask,
    source_file: Path,
    raw_uri: str,
    preproc_uri: str,
    output_dir: Path,
    skull_stripped: bool = False,
    reportlets: bool = True,
    name: str = "ds_few_shot_wf",
) -> Workflow:
    """Store what a few-shot task made of a scan, as ``desc-<name>`` files.

    Parameters
    ----------
    task : FewShotTask
        The task.
    source_file : Path
        Raw image; gives the files their names.
    raw_uri, preproc_uri : str
        BIDS URIs of the raw image and of the image that was used.
    output_dir : Path
        Root of the derivatives.
    skull_stripped : bool
        Whether the scan has no skull.
    reportlets : bool
        Store the figure of the report.
    name : str
        Name of the workflow.

    Inputs
    ------
    out_file, probability, spread, meta, figure
        What :func:`init_few_shot_wf` puts out.
    """
    workflow = Workflow(name=name)
    is_mask = task.kind == "mask"
    fields = ["out_file", "spread", "meta"]
    fields += ["probability"] if is_mask else []
    fields += ["figure"] if reportlets else []
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name="inputnode")
    what = {"SkullStripped": skull_stripped} if not is_mask else {}
    soft = "probseg" if is_mask else task.suffix
    sinks = {
        "out_file": {
            "desc": task.name,
            "suffix": "mask" if is_mask else task.suffix,
            "Description": f"Few-shot task {task.name}",
            **({"Type": "ROI"} if is_mask else what),
        },
        "spread": {
            "desc": f"{task.name}Spread",
            "suffix": soft,
            "Description": "Standard deviation over orientations and sets of examples",
            **what,
        },
    }
    if is_mask:
        sinks["probability"] = {
            "desc": task.name, "suffix": soft, "Description": f"Probability of few-shot task {task.name}"
        }  # fmt: skip
    for field, keywords in sinks.items():
        sink = pe.Node(
            DerivativesDataSink(
                base_directory=str(output_dir),
                source_file=str(source_file),
                SpatialReference=raw_uri,
                Sources=[preproc_uri],
                **keywords,
            ),
            name=f"ds_{field}",
            run_without_submitting=True,
            mem_gb=0.1,
        )
        workflow.connect([(inputnode, sink, [(field, "in_file"), ("meta", "meta_dict")])])
    if reportlets:
        figure = figure_sink(
            output_dir,
            "ds_figure",
            source_file=str(source_file),
            segmentation=task.name,
            desc="fewshot",
        )
        workflow.connect([(inputnode, figure, [("figure", "in_file")])])
    return workflow


def add_few_shot(workflow: Workflow, scan: Scan, settings: AnatSettings, model: dict[str, Any]) -> None:
    """Add every few-shot task to the workflow of a scan; a participant's own examples are not shown to it.

    Parameters
    ----------
    workflow : Workflow
        With ``conform_wf``, ``segment_wf`` and ``prealign_wf``.
    scan : Scan
        The scan.
    settings : AnatSettings
        Names the tasks and the folders.
    model : dict
        Arguments of every node with a network.
    """
    conform_wf, prealign_wf, segment_wf = (
        workflow.get_node(name) for name in ("conform_wf", "prealign_wf", "segment_wf")
    )
    for given in settings.few_shot:
        task = given.without(scan.participant)
        if not task.labels:
            continue
        few_shot_wf = init_few_shot_wf(
            task=task, voxels=scan.voxels, **model, name=f"few_shot_{task.name}_wf"
        )
        ds_wf = init_ds_few_shot_wf(
            task=task,
            source_file=scan.t1w,
            raw_uri=raw_uri(scan.t1w, settings.bids_dir),
            preproc_uri=derivative_uri(scan, desc="preproc", suffix="T1w"),
            output_dir=settings.output_dir,
            skull_stripped=bool(scan.skull_stripped) or settings.skull_strip == "skip",
            reportlets=settings.reportlets,
            name=f"ds_few_shot_{task.name}_wf",
        )
        passed = ["out_file", "spread", "meta"]
        passed += ["probability"] if task.kind == "mask" else []
        passed += ["figure"] if settings.reportlets else []
        workflow.connect([
            (conform_wf, few_shot_wf, [("outputnode.t1w_preproc", "inputnode.t1w")]),
            (segment_wf, few_shot_wf, [("outputnode.brain_mask", "inputnode.t1w_mask")]),
            (prealign_wf, few_shot_wf, [("outputnode.t1w2template_xfm", "inputnode.t1w2template_xfm")]),
            (few_shot_wf, ds_wf, [(f"outputnode.{field}", f"inputnode.{field}") for field in passed]),
        ])  # fmt: skip
