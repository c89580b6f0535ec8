"""Options that say how the scans are processed."""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup

from hyperprep.bidsapp.cli import types
from hyperprep.bidsapp.config import DEFAULT_TEMPLATE


def add_workflow_options(parser: ArgumentParser) -> None:
    """Add the options for template, registration, segmentation and weights."""
    group = parser.add_argument_group("workflow")
    group.add_argument(
        "--output-spaces",
        "--output_spaces",
        dest="output_spaces",
        nargs="+",
        type=types.output_space,
        metavar="SPACE[:res-N]",
        help="spaces of the resampled images: the template's name, with res-N for voxels of N mm, or T1w "
        "for none beyond the scan's own (default: the template's own grid)",
    )
    group.add_argument(
        "--template",
        dest="template",
        type=types.template,
        metavar="NAME|FILE",
        help="standard brain: TemplateFlow name that the local cache holds, or an image file "
        f"(default: {DEFAULT_TEMPLATE}, which is part of the installation)",
    )
    group.add_argument(
        "--lambda",
        dest="lam",
        type=types.lam,
        metavar="auto|NUMBER",
        help="regularisation weight of the registration, 0 to 1; auto searches it per scan (default: auto)",
    )
    group.add_argument(
        "--lambda-regions",
        "--lambda_regions",
        dest="lambda_regions",
        nargs="+",
        type=types.names,
        metavar="LABEL",
        help="regions whose overlap with the template that search maximises, each counting alike "
        "(default: all structures)",
    )
    group.add_argument(
        "--refine",
        dest="refine",
        choices=("ncc", "none"),
        help="refine the network's registration on each scan, or not (default: ncc)",
    )
    group.add_argument(
        "--symmetric",
        dest="symmetric",
        action="store_true",
        help="register scan and template in both directions and take the average (twice the time)",
    )
    _add_topology_options(group)
    group.add_argument(
        "--longitudinal",
        dest="longitudinal",
        action="store_true",
        help="also register every later session of a participant to the first one, in that one's space, with "
        "a lambda of its own: transforms both ways and a map of local change of volume",
    )
    group.add_argument(
        "--labels",
        dest="labels",
        nargs="+",
        type=types.names,
        metavar="LABEL",
        help="regions to segment: names, FreeSurfer numbers, super-regions, or all (default: all)",
    )
    group.add_argument(
        "--probsegs",
        dest="probsegs",
        action="store_true",
        help="also store the probability map of each of these regions",
    )
    group.add_argument(
        "--uncertainty",
        dest="uncertainty",
        action="store_true",
        help="map how uncertain the segmentation is: entropy of the structures' probabilities at each voxel, "
        "in bits",
    )
    group.add_argument(
        "--few-shot",
        "--few_shot",
        dest="few_shot",
        action="append",
        type=types.few_shot,
        metavar="NAME=FOLDER",
        help="do to every scan what the examples in a BIDS derivative show: for some subjects, a T1w image "
        "and the output desc-NAME, a mask or an image; may be given several times",
    )
    group.add_argument(
        "--skull-strip-t1w",
        "--skull_strip_t1w",
        dest="skull_strip_t1w",
        choices=("auto", "skip", "force"),
        help="auto: as the scan's sidecar says (SkullStripped), else find the brain; skip: all scans are "
        "skull-stripped; force: find the brain in all (default: auto)",
    )
    group.add_argument(
        "--weights-dir",
        dest="weights_dir",
        type=types.existing_folder,
        metavar="DIR",
        help="folder searched for network weights before $HYPERPREP_WEIGHTS_DIR and the installation",
    )
    group.add_argument(
        "--offline",
        dest="offline",
        action="store_true",
        help="refuse every network connection of the program; nothing is downloaded without it either",
    )


def _add_topology_options(group: _ArgumentGroup) -> None:
    """Add the options of the topology-change maps."""
    group.add_argument(
        "--topology",
        dest="topology",
        action="store_true",
        help="map where scan and template have no match, such as lesions and resections; with "
        "--longitudinal also what changed since the first session",
    )
    group.add_argument(
        "--topology-mask",
        "--topology_mask",
        dest="topology_mask",
        action="store_true",
        help="make those maps, and register again with the places that have no match left out",
    )
    group.add_argument(
        "--controls",
        dest="controls",
        type=types.existing_file,
        metavar="FILE",
        help="group level: text file that lists the participants whose maps are the controls' (one per line)",
    )
