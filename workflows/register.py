"""Deformable registration of a scan to the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.interfaces.masks import MaskImage
from hyperprep.interfaces.register import HyperMorph
from hyperprep.workflows.memory import SCAN_VOXELS, needed_gb
from hyperprep.workflows.nodes import model_node


def init_register_wf(
    *,
    lam: float | Literal["auto"] = "auto",
    lambda_regions: Sequence[str] = (),
    refine: Literal["ncc", "none"] = "ncc",
    symmetric: bool = False,
    sweep_steps: int = 0,
    given_dseg: bool = False,
    weighted: bool = False,
    device: str = "cpu",
    omp_nthreads: int = 1,
    weights_dir: Path | None = None,
    weights_sha256: Mapping[str, str] | None = None,
    voxels: int = SCAN_VOXELS,
    name: str = "register_wf",
) -> Workflow:
    """Register the brain of a prealigned scan to that of the template.

    Parameters
    ----------
    lam : float or "auto"
        Regularisation weight in [0, 1]; ``"auto"`` searches it for each scan.
    lambda_regions : sequence of str
        Regions whose overlap the search maximises; all structures when empty.
    refine : {"ncc", "none"}
        Instance refinement after the network.
    symmetric : bool
        Average the registrations of both directions.
    sweep_steps : int
        How many evenly spaced lambdas are also registered, for the report's slider; 0 for none.
    given_dseg : bool
        The scan's structures come from elsewhere; only the methods text says so.
    weighted : bool
        ``template_weight`` says how much each place of the template counts in the refinement.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    omp_nthreads : int
        Threads of one node.
    weights_dir : Path or None
        Folder searched for weights first.
    weights_sha256 : mapping or None
        Digests of the weights by name of the network.
    voxels : int
        Number of voxels of the scan and the template; memory is reserved for them.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w, t1w_mask, t1w_dseg
        The scan, its brain mask and its structures.
    template_brain, template_mask, template_dseg
        The skull-stripped template, its brain mask and its structures.
    t1w2template_xfm
        ITK transform of the prealignment.
    template_weight
        Weight of each place, in [0, 1]; only with ``weighted``.

    Outputs
    -------
    t1w2std_xfm, std2t1w_xfm
        ITK composites, both directions, prealignment included.
    t1w_std
        The scan's brain on the template's grid.
    jacobian
        Jacobian determinant of the deformation, without the prealignment.
    lambda_curve
        TSV of the search for lambda.
    lambda_sweep
        Registrations by lambda (``.npz``); undefined when ``sweep_steps`` is 0.
    lam
        The regularisation weight used.
    register_metrics
        JSON file with figures of this step.
    """
    workflow = Workflow(name=name)
    weight = (
        f"was chosen for each image by the overlap of {'given' if given_dseg else 'automatic'} segmentations"
        + (f" ({', '.join(lambda_regions)})" if lambda_regions else "")
        if lam == "auto"
        else f"was set to {lam:g}"
    )
    workflow.__desc__ = (
        "The skull-stripped image was registered to the skull-stripped template with a diffeomorphic "
        "registration network conditioned by a hypernetwork [@hypermorph]; its regularisation weight "
        f"{weight}."
        + (
            " The result was refined by greedy steps along the local correlation's gradient.\n"
            if refine == "ncc"
            else "\n"
        )
    )
    if weighted:
        workflow.__desc__ += (
            "Places that an earlier registration could not match with the template were left out of the "
            "similarity.\n"
        )
    scan = ["t1w", "t1w_mask", "t1w_dseg", "t1w2template_xfm"]
    template = [
        "template_brain",
        "template_mask",
        "template_dseg",
        *(["template_weight"] if weighted else []),
    ]
    outputs = [
        "t1w2std_xfm",
        "std2t1w_xfm",
        "t1w_std",
        "jacobian",
        "lambda_curve",
        "lambda_sweep",
        "lam",
        "register_metrics",
    ]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*scan, *template]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=outputs), name="outputnode")
    strip_scan = pe.Node(MaskImage(), name="strip_scan", mem_gb=needed_gb("strip", voxels))
    register = model_node(
        HyperMorph(
            lam=lam,
            lambda_regions=list(lambda_regions),
            refine=refine,
            symmetric=symmetric,
            sweep_steps=sweep_steps,
        ),
        name="register",
        device=device,
        omp_nthreads=omp_nthreads,
        mem_gb=needed_gb("register_symmetric" if symmetric else "register", voxels),
        weights_dir=weights_dir,
        weights_sha256=weights_sha256,
    )
    workflow.connect([
        (inputnode, strip_scan, [("t1w", "in_file"), ("t1w_mask", "in_mask")]),
        (strip_scan, register, [("out_file", "moving_image")]),
        (inputnode, register, [
            ("template_brain", "fixed_image"),
            ("t1w2template_xfm", "fixed2moving_xfm"),
            ("t1w_mask", "moving_mask"),
            ("t1w_dseg", "moving_dseg"),
            ("template_mask", "fixed_mask"),
            ("template_dseg", "fixed_dseg"),
        ]),
        (register, outputnode, [
            ("out_xfm", "t1w2std_xfm"),
            ("out_inverse_xfm", "std2t1w_xfm"),
            ("out_file", "t1w_std"),
            ("out_jacobian", "jacobian"),
            ("lambda_curve", "lambda_curve"),
            ("lambda_sweep", "lambda_sweep"),
            ("lam", "lam"),
            ("out_metrics", "register_metrics"),
        ]),
    ])  # fmt: skip
    if weighted:
        workflow.connect([(inputnode, register, [("template_weight", "fixed_weight")])])
    return workflow
