"""Options that choose what is read."""

from __future__ import annotations

from argparse import ArgumentParser

from hyperprep.bidsapp.cli import types


def add_positionals(parser: ArgumentParser) -> None:
    """Add the three arguments that every BIDS App has."""
    parser.add_argument("bids_dir", type=types.any_path, metavar="BIDS_DIR", help="root of the BIDS data set")
    parser.add_argument(
        "output_dir",
        type=types.any_path,
        metavar="OUTPUT_DIR",
        help="root of the derivatives that are written",
    )
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: process the scans; group: collect the quality figures of all participants",
    )


def add_selection_options(parser: ArgumentParser) -> None:
    """Add the options that choose participants, sessions, scans and derivatives."""
    group = parser.add_argument_group("selection")
    group.add_argument(
        "--participant-label",
        "--participant_label",
        dest="participant_label",
        nargs="+",
        type=types.participant,
        metavar="LABEL",
        help="participants to process, with or without 'sub-' (default: all)",
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        dest="session_label",
        nargs="+",
        type=types.session,
        metavar="LABEL",
        help="sessions to process, with or without 'ses-' (default: all)",
    )
    group.add_argument(
        "--bids-filter-file",
        dest="bids_filter_file",
        type=types.existing_file,
        metavar="FILE",
        help='JSON with PyBIDS filters for the T1w images: {"t1w": {"acquisition": "mprage"}}',
    )
    group.add_argument(
        "--subject-anatomical-reference",
        dest="subject_anatomical_reference",
        choices=("first-lex", "sessionwise"),
        help="sessionwise: every session has a result of its own; first-lex: one per participant, from the "
        "first T1w image in lexicographic order (default: sessionwise)",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        dest="derivatives",
        nargs="+",
        type=types.derivative,
        metavar="NAME=PATH",
        help="derivative data sets whose brain masks (desc-brain_mask) and segmentations (desc-aseg_dseg) "
        "are used; the first that has one for a scan wins",
    )
    group.add_argument(
        "--bids-database-dir",
        dest="bids_database_dir",
        type=types.any_path,
        metavar="DIR",
        help="folder of a PyBIDS database of the whole data set; used, or made there if the folder is new or "
        "empty (default: only the chosen participants' anat folders are looked at)",
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        dest="skip_bids_validation",
        action="store_true",
        help="do not run the BIDS validator over the chosen participants' anat folders",
    )
