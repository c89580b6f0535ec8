"""Sinks of topology-change maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.workflows.outputs import PREPROC, derivative_sink, derivative_uri, raw_uri, transform_entities
from hyperprep.workflows.settings import Scan, Template

TOPOLOGY_FILES = ("excess", "z", "regions_mask", "regions")
"""Topology-change files that need control statistics; the score is always written."""

SESSION_FILES = ("first_score", "second_score", "first_regions_mask", "second_regions_mask", "regions")
SESSION_Z = ("first_change_z", "second_change_z")
"""Files of a change between sessions; z-scores need statistics of pairs of sessions without change."""


def init_ds_topology_wf(
    *,
    scan: Scan,
    template: Template,
    bids_dir: Path,
    output_dir: Path,
    calibrated: bool = False,
    name: str = "ds_topology_wf",
) -> Workflow:
    """Store topology-change maps.

    Parameters
    ----------
    scan : Scan
        Gives the files their names.
    template : Template
        The space of the score that statistics of controls are made of.
    bids_dir, output_dir : Path
        Raw data set and root of the derivatives.
    calibrated : bool
        Control statistics are there: z-scores and regions are stored too.
    name : str
        Name of the workflow.

    Inputs
    ------
    score, template_score, excess, z, regions_mask, regions
        What is stored; only the scores without ``calibrated``.
    topology_meta
        Further fields of the sidecars.

    Outputs
    -------
    score
        The stored score on the scan's grid.
    """
    workflow = Workflow(name=name)
    fields = ["score", "template_score", *(TOPOLOGY_FILES if calibrated else ())]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "topology_meta"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["score"]), name="outputnode")
    raw = raw_uri(scan.t1w, bids_dir)
    xfm = derivative_uri(scan, **transform_entities("T1w", template.name))
    native = {"SpatialReference": raw, "Sources": [derivative_uri(scan, **PREPROC), xfm]}
    score = "How badly the template explains each place, L_sym in nats; higher where no match exists"
    sinks: dict[str, dict[str, Any]] = {
        "score": {"suffix": "topology", "desc": "score", "Description": score, **native},
        "template_score": {
            "suffix": "topology",
            "desc": "score",
            "space": template.name,
            "Description": "How badly the scan explains each place of the template, L_sym in nats",
            **native,
            "SpatialReference": template.spatial_reference,
        },
        "excess": {
            "suffix": "topology",
            "desc": "excess",
            "Description": "Q: the score, averaged by a Gaussian of 2 mm, less the mean of controls, nats",
            **native,
        },
        "z": {
            "suffix": "topology",
            "desc": "z",
            "Description": "As rare among controls as z among normal numbers; no probability of disease",
            **native,
        },
        "regions_mask": {
            "suffix": "mask",
            "desc": "topology",
            "Type": "ROI",
            "Description": "Connected regions above the threshold",
            **native,
        },
        "regions": {
            "suffix": "topology",
            "desc": "regions",
            "extension": ".tsv",
            "Description": "Connected regions above the threshold, the largest first; mm in the scan's space",
            **native,
        },
    }
    for field in fields:
        sink = derivative_sink(scan, output_dir, field, **sinks[field])
        workflow.connect([(inputnode, sink, [(field, "in_file"), ("topology_meta", "meta_dict")])])
        if field == "score":
            workflow.connect([(sink, outputnode, [("out_file", "score")])])
    return workflow


def init_ds_session_change_wf(
    *,
    earlier: Scan,
    later: Scan,
    bids_dir: Path,
    output_dir: Path,
    calibrated: bool = False,
    name: str = "ds_session_change_wf",
) -> Workflow:
    """Store what changed between two sessions, among the later session's files.

    Parameters
    ----------
    earlier, later : Scan
        Scans of the same participant; the later one gives the files their names.
    bids_dir, output_dir : Path
        Raw data set and root of the derivatives.
    calibrated : bool
        Statistics of pairs of sessions without change are there: z-scores are stored too.
    name : str
        Name of the workflow.

    Inputs
    ------
    first_score, second_score, first_regions_mask, second_regions_mask, regions
        What is stored.
    first_change_z, second_change_z
        Stored too with ``calibrated``.
    topology_meta
        Further fields of the sidecars.

    Outputs
    -------
    regions
        The stored table of regions.
    """
    workflow = Workflow(name=name)
    fields = [*SESSION_FILES, *(SESSION_Z if calibrated else ())]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "topology_meta"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["regions"]), name="outputnode")
    grids = {"first": raw_uri(earlier.t1w, bids_dir), "second": raw_uri(later.t1w, bids_dir)}
    sources = [
        derivative_uri(later, **PREPROC),
        derivative_uri(later, **transform_entities("T1w", earlier.space)),
        grids["first"],
    ]
    kinds = {
        "score": ("sessionscore", "How badly the other session explains each place, L_sym in nats"),
        "change_z": (
            "sessionz",
            "As rare among pairs of sessions without change as z among normal numbers; not a probability of "
            "disease",
        ),
        "regions_mask": (
            "sessionchange",
            "Regions of change since the first session: 1 appeared, 2 disappeared",
        ),
    }
    for field in fields:
        described: dict[str, Any] = {"suffix": "topology", "Sources": sources}
        side, _, kind = field.partition("_")
        if kind:
            desc, text = kinds[kind]
            described |= {"desc": desc, "Description": text, "SpatialReference": grids[side]}
            if side == "first":
                described["space"] = earlier.space
        else:
            text = "Regions of change since the first session, the largest first; mm in this session's space"
            described |= {"desc": "sessionregions", "extension": ".tsv", "Description": text}
        sink = derivative_sink(later, output_dir, field, **described)
        workflow.connect([(inputnode, sink, [(field, "in_file"), ("topology_meta", "meta_dict")])])
        if field == "regions":
            workflow.connect([(sink, outputnode, [("out_file", "regions")])])
    return workflow
