"""Every sink of a derivative: what is written, under which name, and with which sidecar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow
from niworkflows.utils.bids import relative_to_root

from hyperprep.interfaces.bids import DerivativesDataSink, derivative_name
from hyperprep.models.spatial.labels import resolve_labels
from hyperprep.workflows.settings import SEGMENTATION_NAME, OutputSpace, Scan, Template

BIDSIGNORE = ("*.html", "logs", "figures", "*_xfm.*", "*_quality.json", "*_topology.*")
"""Lines of ``.bidsignore`` that cover what BIDS has no names for."""


TISSUES = ("GM", "WM", "CSF")
_SEGMENTATION = {"segmentation": SEGMENTATION_NAME, "suffix": "dseg"}
_ENTROPY = {"segmentation": SEGMENTATION_NAME, "desc": "entropy", "suffix": "probseg"}
PREPROC = {"desc": "preproc", "suffix": "T1w"}
_MASK = {"desc": "brain", "suffix": "mask"}
_DESCRIPTIONS = {
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


def region_entities(labels: Sequence[str]) -> list[str]:
    """Give the ``label-`` entity of each region that labels stand for, in their order.

    Examples
    --------
    >>> region_entities(["hippocampus", "white matter"])
    ['LeftHippocampus', 'RightHippocampus', 'WhiteMatter']
    """
    words = (re.split(r"[^0-9A-Za-z]+", region.name) for region in resolve_labels(labels))
    return ["".join(word[:1].upper() + word[1:] for word in parts) for parts in words]


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


def init_ds_native_wf(
    *,
    scan: Scan,
    bids_dir: Path,
    output_dir: Path,
    skull_stripped: bool = False,
    uncertainty: bool = False,
    probsegs: Sequence[str] = (),
    name: str = "ds_native_wf",
) -> Workflow:
    """Store what lies on the scan's own grid.

    Parameters
    ----------
    scan : Scan
        Gives the files their names.
    bids_dir, output_dir : Path
        Raw data set and root of the derivatives.
    skull_stripped : bool
        Whether the scan has no skull.
    uncertainty : bool
        Whether ``entropy`` comes in and is stored.
    probsegs : sequence of str
        Labels whose probability maps come in and are stored, as they were asked for; none when empty.
    name : str
        Name of the workflow.

    Inputs
    ------
    t1w_preproc, brain_mask, dseg, dseg_legend, tissue_dseg, tissue_legend, tissues, volumes
        What is stored: images, TSV files, and the probability maps of grey matter, white matter, CSF.
    entropy
        With ``uncertainty``: the segmentation's uncertainty.
    probsegs
        Their probability maps, one for each region that the labels stand for.
    segmentation_meta
        Further fields of the segmentations' sidecars.

    Outputs
    -------
    t1w_preproc
        The stored image.
    """
    workflow = Workflow(name=name)
    fields = ["t1w_preproc", "brain_mask", "dseg", "dseg_legend", "tissue_dseg", "tissue_legend", "tissues"]
    fields += ["entropy"] * uncertainty + ["probsegs"] * bool(probsegs)
    inputnode = pe.Node(
        niu.IdentityInterface(fields=[*fields, "volumes", "segmentation_meta"]), name="inputnode"
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=["t1w_preproc"]), name="outputnode")
    raw = raw_uri(scan.t1w, bids_dir)
    made = {"SpatialReference": raw, "Sources": [derivative_uri(scan, **PREPROC)]}
    corrected = {"SkullStripped": skull_stripped, "SpatialReference": raw, "Sources": [raw]}
    given_mask = [scan.mask_uri or scan.mask.absolute().as_uri()] if scan.mask else made["Sources"]
    dseg_uri = derivative_uri(scan, **_SEGMENTATION)
    volumes_meta = {
        "Sources": [dseg_uri],
        "SpatialReference": raw,
        "volume_mm3": {"Description": "Volume", "Units": "mm^3"},
        "relative_volume": {"Description": "Volume divided by the average brain's, scaled to this head"},
        "expected_dice": {"Description": "Overlap with the truth (Dice) if the probabilities are right"},
    }
    sinks: dict[str, dict[str, Any]] = {
        "t1w_preproc": {**PREPROC, **corrected},
        "brain_mask": {**_MASK, **made, "Sources": given_mask, "Type": "Brain"},
        "dseg": {**_SEGMENTATION, **made},
        "dseg_legend": {**_SEGMENTATION, "extension": ".tsv"},
        "tissue_dseg": {"suffix": "dseg", **made},
        "tissue_legend": {"suffix": "dseg", "extension": ".tsv"},
        "tissues": {"suffix": "probseg", "label": list(TISSUES), **made},
        "volumes": {**_SEGMENTATION, "desc": "volumes", "extension": ".tsv", **volumes_meta},
    }
    if uncertainty:
        sinks["entropy"] = {**_ENTROPY, **made, "Units": "bit"}
    if probsegs:
        of_regions = {"label": region_entities(probsegs), "suffix": "probseg"}
        sinks["probsegs"] = {"segmentation": SEGMENTATION_NAME, **of_regions, **made}
    for field, keywords in sinks.items():
        sink = derivative_sink(scan, output_dir, field, **keywords, Description=_DESCRIPTIONS.get(field))
        workflow.connect([(inputnode, sink, [(field, "in_file")])])
        if field in ("dseg", "tissue_dseg", "tissues", "entropy", "probsegs"):
            workflow.connect([(inputnode, sink, [("segmentation_meta", "meta_dict")])])
        if field == "t1w_preproc":
            workflow.connect([(sink, outputnode, [("out_file", "t1w_preproc")])])
    return workflow


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
        "brain_mask": {**_MASK, "Type": "Brain"},
        "dseg": {**_SEGMENTATION},
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
            Description=_DESCRIPTIONS[field],
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
