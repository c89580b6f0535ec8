"""Sinks of a later session that was registered to the first one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine import Workflow

from hyperprep.workflows.outputs import derivative_sink, derivative_uri, raw_uri, transform_entities
from hyperprep.workflows.settings import Scan


def init_ds_longitudinal_wf(
    *,
    earlier: Scan,
    later: Scan,
    bids_dir: Path,
    output_dir: Path,
    skull_stripped: bool = False,
    name: str = "ds_longitudinal_wf",
) -> Workflow:
    """Store what was found between two sessions, among the later session's files.

    Names say the earlier session: ``from-T1w_to-ses1T1w`` leads from the later session's T1w image to that of
    session 1, ``space-ses1T1w`` lies on its grid.

    Parameters
    ----------
    earlier, later : Scan
        Scans of the same participant; the later one gives the files their names.
    bids_dir, output_dir : Path
        Raw data set and root of the derivatives.
    skull_stripped : bool
        Whether the later scan has no skull.
    name : str
        Name of the workflow.

    Inputs
    ------
    later2earlier_xfm, earlier2later_xfm
        ITK composites.
    later_moved
        The later scan on the earlier one's grid.
    jacobian
        Volume in the later scan divided by volume in the earlier one, on the earlier one's grid.
    lambda_curve
        TSV of the search for lambda.
    quality
        Flat JSON of the figures.
    registration_meta
        Further fields of the sidecars.

    Outputs
    -------
    quality
        The stored JSON file.
    """
    workflow = Workflow(name=name)
    fields = ["later2earlier_xfm", "earlier2later_xfm", "later_moved", "jacobian", "lambda_curve", "quality"]
    inputnode = pe.Node(niu.IdentityInterface(fields=[*fields, "registration_meta"]), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["quality"]), name="outputnode")
    forward, backward = transform_entities("T1w", earlier.space), transform_entities(earlier.space, "T1w")
    grid = raw_uri(earlier.t1w, bids_dir)
    pair = {"Sources": [raw_uri(later.t1w, bids_dir), grid]}
    preproc = {"desc": "preproc", "suffix": "T1w"}
    sinks: dict[str, dict[str, Any]] = {
        "later2earlier_xfm": {**forward, **pair},
        "earlier2later_xfm": {**backward, **pair},
        "later_moved": {
            **preproc,
            "space": earlier.space,
            "SkullStripped": skull_stripped,
            "SpatialReference": grid,
            "Sources": [derivative_uri(later, **preproc), derivative_uri(later, **forward)],
            "Description": "T1w image of this session on the grid of the session named by its space",
        },
        "jacobian": {
            **forward,
            "desc": "jacobian",
            "extension": ".nii.gz",
            "SpatialReference": grid,
            "Sources": [derivative_uri(later, **forward)],
            "Units": "1",
            "Description": "Local change of volume: volume in this session divided by volume in the session "
            "that the transform leads to (Jacobian determinant, rigid alignment)",
        },
        "lambda_curve": {**forward, "desc": "lambda", "extension": ".tsv"},
        "quality": {"desc": "longitudinal", "suffix": "quality", "extension": ".json"},
    }
    for field, keywords in sinks.items():
        sink = derivative_sink(later, output_dir, field, **keywords)
        workflow.connect([(inputnode, sink, [(field, "in_file")])])
        if field not in ("lambda_curve", "quality"):
            workflow.connect([(inputnode, sink, [("registration_meta", "meta_dict")])])
        if field == "quality":
            workflow.connect([(sink, outputnode, [("out_file", "quality")])])
    return workflow
