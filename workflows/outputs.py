"""Every sink of a derivative: what is written, under which name, and with which sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow
from niworkflows.utils.bids import relative_to_root

from hyperprep.interfaces.bids import DerivativesDataSink, derivative_name
from hyperprep.workflows.settings import SEGMENTATION_NAME, OutputSpace, Scan, Template

BIDSIGNORE = ("*.html", "logs", "figures", "*_xfm.*", "*_quality.json", "*_topology.*")
"""Lines of ``.bidsignore`` that cover what BIDS has no names for."""


TISSUES = ("GM", "WM", "CSF")
SEGMENTATION = {"segmentation": SEGMENTATION_NAME, "suffix": "dseg"}
PREPROC = {"desc": "preproc", "suffix": "T1w"}
MASK = {"desc": "brain", "suffix": "mask"}
DESCRIPTIONS = {
    "t1w_preproc": "T1w image, intensities corrected as the methods text says",
    "brain_mask": "Brain mask",
    "dseg": "Structures with FreeSurfer's label numbers",
    "tissue_dseg": "Tissues: 1 grey matter, 2 white matter, 3 cerebrospinal fluid",
    "tissues": "Probability of a tissue",
    "probsegs": "Probability of a region",
    "entropy": "Uncertainty: entropy of the structures' probabilities inside the brain, in bits",
    "volumes": "Volumes of the structures, from probabilities",
}


def raw_uri(path: Path, bids_dir: Path) -> str:
    """BIDS URI of a file of the raw data set.

    Examples
    --------
    >>> raw_uri(Path("/in/sub-01/anat/sub-01_T1w.nii.gz"), Path("/in"))
    'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    """
    inside = path.relative_to(bids_dir) if path.is_relative_to(bids_dir) else relative_to_root(path)
    return f"bids:raw:{inside.as_posix()}"


def derivative_uri(scan: Scan, **entities: Any) -> str:
    """BIDS URI of a derivative of a scan, in this very data set.

    Examples
    --------
    >>> derivative_uri(Scan(Path("/in/sub-01/anat/sub-01_T1w.nii.gz")), desc="brain", suffix="mask")
    'bids::sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    """
    return f"bids::{derivative_name(scan.t1w, **entities)}"


def derivative_sink(scan: Scan, output_dir: Path, name: str, **fields: Any) -> pe.Node:
    """Make the node that stores one kind of file; keywords are entities or fields of the sidecar."""
    return pe.Node(
        DerivativesDataSink(
            base_directory=str(output_dir),
            source_file=str(scan.t1w),
            **{key: value for key, value in fields.items() if value is not None},
        ),
        name=f"ds_{name}",
        run_without_submitting=True,
        mem_gb=0.1,
    )


def figure_sink(output_dir: Path | str, name: str, **fields: Any) -> pe.Node:
    """Make the node that stores a figure of the report; keywords are entities, or the ``source_file``."""
    return pe.Node(
        DerivativesDataSink(base_directory=str(output_dir), datatype="figures", suffix="T1w", **fields),
        name=name,
        run_without_submitting=True,
    )


def init_ds_standard_wf(
    *,
    scan: Scan,
    template: Template,
    space: OutputSpace,
    output_dir: Path,
    skull_stripped: bool = False,
    name: str = "ds_standard_wf",
) -> Workflow:
    """Store what lies on one grid in the template's space.

    Parameters
    ----------
    scan : Scan
        Gives the files their names.
    template : Template
        The space.
    space : OutputSpace
        The grid.
    output_dir : Path
        Root of the derivatives.
    skull_stripped : bool
        Whether the scan has no skull.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w_preproc, brain_mask, dseg, tissue_dseg, tissues
        What is stored.
    registration_meta
        Further fields of all sidecars.

    Outputs
    -------
    t1w_preproc
        The stored image.
    """
    workflow = Workflow(name=name)
    fields = ["t1w_preproc", "brain_mask", "dseg", "tissue_dseg", "tissues"]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "registration_meta"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["t1w_preproc"]), name="outputnode")
    xfm_uri = derivative_uri(scan, **transform_entities("T1w", template.name))
    placed: dict[str, Any] = {
        "space": template.name,
        "resolution": space.resolution,
        "SpatialReference": template.spatial_reference,
        "Resolution": describe_resolution(space, template),
    }
    sinks: dict[str, dict[str, Any]] = {
        "t1w_preproc": {**PREPROC, "SkullStripped": skull_stripped},
        "brain_mask": {**MASK, "Type": "Brain"},
        "dseg": {**SEGMENTATION},
        "tissue_dseg": {"suffix": "dseg"},
        "tissues": {"suffix": "probseg"},
    }
    for field, keywords in sinks.items():
        native = derivative_uri(scan, **_entities(keywords)) if field != "tissues" else None
        labels = {"label": list(TISSUES)} if field == "tissues" else {}
        sources = (
            [derivative_uri(scan, suffix="probseg", label=label) for label in TISSUES] if labels else [native]
        )
        sink = derivative_sink(
            scan,
            output_dir,
            field,
            **keywords,
            **labels,
            **placed,
            Sources=[*sources, xfm_uri],
            Description=DESCRIPTIONS[field],
        )
        workflow.connect([
            (inputnode, sink, [(field, "in_file"), ("registration_meta", "meta_dict")]),
        ])  # fmt: skip
        if field == "t1w_preproc":
            workflow.connect([(sink, outputnode, [("out_file", "t1w_preproc")])])
    return workflow


def init_ds_transforms_wf(
    *, scan: Scan, template: Template, bids_dir: Path, output_dir: Path, name: str = "ds_transforms_wf"
) -> Workflow:
    """Store the transforms, the search for lambda and the figures of quality.

    Parameters
    ----------
    scan : Scan
        Gives the files their names.
    template : Template
        The space.
    bids_dir, output_dir : Path
        Raw data set and root of the derivatives.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w2std_xfm, std2t1w_xfm
        ITK composites.
    lambda_curve
        TSV of the search for lambda.
    quality
        Flat JSON of all figures.
    registration_meta
        Further fields of the transforms' sidecars.

    Outputs
    -------
    quality
        The stored JSON file.
    """
    workflow = Workflow(name=name)
    fields = ["t1w2std_xfm", "std2t1w_xfm", "lambda_curve", "quality"]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "registration_meta"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["quality"]), name="outputnode")
    sources = {"Sources": [raw_uri(scan.t1w, bids_dir), template.spatial_reference]}
    forward = transform_entities("T1w", template.name)
    sinks: dict[str, Mapping[str, Any]] = {
        "t1w2std_xfm": {**forward, **sources},
        "std2t1w_xfm": {**transform_entities(template.name, "T1w"), **sources},
        "lambda_curve": {**forward, "desc": "lambda", "extension": ".tsv"},
        "quality": {"suffix": "quality", "extension": ".json"},
    }
    for field, keywords in sinks.items():
        sink = derivative_sink(scan, output_dir, field, **keywords)
        workflow.connect([(inputnode, sink, [(field, "in_file")])])
        if field.endswith("_xfm"):
            workflow.connect([(inputnode, sink, [("registration_meta", "meta_dict")])])
        if field == "quality":
            workflow.connect([(sink, outputnode, [("out_file", "quality")])])
    return workflow


def transform_entities(source: str, target: str) -> dict[str, str]:
    """Entities of a transform between two spaces.

    Examples
    --------
    >>> transform_entities("T1w", "MNI")
    {'from': 'T1w', 'to': 'MNI', 'mode': 'image', 'suffix': 'xfm', 'extension': '.h5'}
    """
    return {"from": source, "to": target, "mode": "image", "suffix": "xfm", "extension": ".h5"}


def describe_resolution(space: OutputSpace, template: Template) -> str | None:
    """Say what a ``res-`` label means; None where there is none.

    Examples
    --------
    >>> describe_resolution(OutputSpace("2"), Template("MNI"))
    'Isotropic voxels of 2 mm over the field of view of MNI'
    >>> describe_resolution(OutputSpace(), Template("MNI")) is None
    True
    """
    if space.resolution is None:
        return None
    if space.reference is not None:
        return f"Grid of {space.reference.name}"
    return f"Isotropic voxels of {float(space.resolution):g} mm over the field of view of {template.name}"


def _entities(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those keywords of a sink that are entities; fields of sidecars begin with a capital."""
    return {key: value for key, value in keywords.items() if key[0].islower()}
