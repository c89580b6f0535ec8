"""Sinks of what lies on the scan's own grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.models.weights.own_regions import resolve_all_labels
from hyperprep.workflows.outputs import (
    DESCRIPTIONS,
    MASK,
    PREPROC,
    SEGMENTATION,
    TISSUES,
    derivative_sink,
    derivative_uri,
    raw_uri,
)
from hyperprep.workflows.settings import SEGMENTATION_NAME, Scan

_ENTROPY = {"segmentation": SEGMENTATION_NAME, "desc": "entropy", "suffix": "probseg"}


def region_entities(labels: Sequence[str], weights_dir: Path | None = None) -> list[str]:
    """Give the ``label-`` entity of each region that labels stand for, in their order.

    Examples
    --------
    >>> region_entities(["hippocampus", "white matter"])
    ['LeftHippocampus', 'RightHippocampus', 'WhiteMatter']
    """
    words = (re.split(r"[^0-9A-Za-z]+", region.name) for region in resolve_all_labels(labels, weights_dir))
    return ["".join(word[:1].upper() + word[1:] for word in parts) for parts in words]


def init_ds_native_wf(
    *,
    scan: Scan,
    bids_dir: Path,
    output_dir: Path,
    skull_stripped: bool = False,
    uncertainty: bool = False,
    probsegs: Sequence[str] = (),
    weights_dir: Path | None = None,
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
    weights_dir : Path or None
        Folder searched first for weights that know further regions.
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
    dseg_uri = derivative_uri(scan, **SEGMENTATION)
    volumes_meta = {
        "Sources": [dseg_uri],
        "SpatialReference": raw,
        "volume_mm3": {"Description": "Volume", "Units": "mm^3"},
        "relative_volume": {"Description": "Volume divided by the average brain's, scaled to this head"},
        "expected_dice": {"Description": "Overlap with the truth (Dice) if the probabilities are right"},
    }
    sinks: dict[str, dict[str, Any]] = {
        "t1w_preproc": {**PREPROC, **corrected},
        "brain_mask": {**MASK, **made, "Sources": given_mask, "Type": "Brain"},
        "dseg": {**SEGMENTATION, **made},
        "dseg_legend": {**SEGMENTATION, "extension": ".tsv"},
        "tissue_dseg": {"suffix": "dseg", **made},
        "tissue_legend": {"suffix": "dseg", "extension": ".tsv"},
        "tissues": {"suffix": "probseg", "label": list(TISSUES), **made},
        "volumes": {**SEGMENTATION, "desc": "volumes", "extension": ".tsv", **volumes_meta},
    }
    if uncertainty:
        sinks["entropy"] = {**_ENTROPY, **made, "Units": "bit"}
    if probsegs:
        of_regions = {"label": region_entities(probsegs, weights_dir), "suffix": "probseg"}
        sinks["probsegs"] = {"segmentation": SEGMENTATION_NAME, **of_regions, **made}
    for field, keywords in sinks.items():
        sink = derivative_sink(scan, output_dir, field, **keywords, Description=DESCRIPTIONS.get(field))
        workflow.connect([(inputnode, sink, [(field, "in_file")])])
        if field in ("dseg", "tissue_dseg", "tissues", "entropy", "probsegs"):
            workflow.connect([(inputnode, sink, [("segmentation_meta", "meta_dict")])])
        if field == "t1w_preproc":
            workflow.connect([(sink, outputnode, [("out_file", "t1w_preproc")])])
    return workflow
