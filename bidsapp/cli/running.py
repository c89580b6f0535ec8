"""Options that say how the run itself goes."""

from __future__ import annotations

from argparse import ArgumentParser

from hyperprep import __version__
from hyperprep.bidsapp.cli import types


def add_run_options(parser: ArgumentParser) -> None:
    """Add the options for working directory, logs, graph and partial runs."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "-w",
        "--work-dir",
        "--work_dir",
        dest="work_dir",
        type=types.any_path,
        metavar="DIR",
        help="folder of intermediate results; a second run with the same one resumes (default: ./work)",
    )
    group.add_argument(
        "--clean-workdir",
        "--clean_workdir",
        dest="clean_workdir",
        action="store_true",
        help="delete the chosen participants' intermediate results before the run",
    )
    group.add_argument(
        "--config-file",
        dest="config_file",
        type=types.existing_file,
        metavar="FILE",
        help="TOML file with these long options as keys; the command line wins",
    )
    group.add_argument(
        "--write-graph",
        dest="write_graph",
        action="store_true",
        help="write the workflow's graph to logs/ (as .dot, and as .svg where Graphviz is installed)",
    )
    group.add_argument(
        "--stop-on-first-crash",
        "--stop_on_first_crash",
        dest="stop_on_first_crash",
        action="store_true",
        help="end the run at the first failure instead of finishing the other participants",
    )
    only = group.add_mutually_exclusive_group()
    only.add_argument(
        "--reports-only",
        "--reports_only",
        dest="reports_only",
        action="store_true",
        help="only write the participants' reports again, from outputs that exist",
    )
    only.add_argument(
        "--boilerplate-only",
        "--boilerplate",
        dest="boilerplate_only",
        action="store_true",
        help="only write the methods text with citations to logs/ and print it",
    )
    only.add_argument(
        "--prefetch",
        dest="prefetch",
        action="store_true",
        help="only fetch what a run with these options would need from the network (the --template from "
        "TemplateFlow); nothing is processed, and BIDS_DIR need not be there",
    )
    group.add_argument(
        "--resource-monitor",
        dest="resource_monitor",
        action="store_true",
        help="record memory and CPU load of every step in logs/",
    )
    group.add_argument(
        "-v", "--verbose", dest="verbose", action="count", help="say more; -vv says everything"
    )
    group.add_argument("--version", action="version", version=f"HyperPrep {__version__}")
