"""From the words of the command line to :class:`~hyperprep.bidsapp.config.Settings`."""

from __future__ import annotations

import dataclasses
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any

from hyperprep.bidsapp.cli.configfile import arguments_from_toml
from hyperprep.bidsapp.cli.raising import RaisingParser
from hyperprep.bidsapp.cli.resources import add_resource_options
from hyperprep.bidsapp.cli.running import add_run_options
from hyperprep.bidsapp.cli.selection import add_positionals, add_selection_options
from hyperprep.bidsapp.cli.workflow import add_workflow_options
from hyperprep.bidsapp.config import Settings
from hyperprep.exceptions import UsageError

_EPILOG = """\
exit codes:
  0   all that was asked for was written
  1   a participant or a report failed; the others are finished
  2   wrong command line
  66  no input        69  weights, template or device missing
  73  output not writable        64-78 otherwise: something stopped the run at its start
"""


def build_parser(*, positionals: bool = True) -> ArgumentParser:
    """Build the parser; defaults are absent, because they stand in ``Settings``.

    Parameters
    ----------
    positionals
        Whether the three arguments of a BIDS App are part of it; the configuration file has none.
    """
    parser = RaisingParser(
        prog="bidsapp",
        description="HyperPrep: anatomical MRI preprocessing (alignment, segmentation, registration).",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        argument_default=SUPPRESS,
        allow_abbrev=False,
    )
    if positionals:
        add_positionals(parser)
    add_selection_options(parser)
    add_resource_options(parser)
    add_workflow_options(parser)
    add_run_options(parser)
    for action in parser._actions:
        if action.dest not in {"help", "version"}:
            action.default = SUPPRESS
    return parser


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line and the configuration file it may name.

    Parameters
    ----------
    argv
        Words after the program's name; ``None`` reads those of this process.

    Returns
    -------
    Settings
        The command line over the configuration file over the defaults.

    Raises
    ------
    UsageError
        If an option is unknown, impossible, or contradicts another one.
    """
    given = vars(build_parser().parse_args(argv))
    if "config_file" in given:
        options = build_parser(positionals=False)
        words = arguments_from_toml(given["config_file"], options)
        try:
            from_file = vars(options.parse_args(words, Namespace()))
        except UsageError as error:
            raise UsageError(f"{given['config_file']}: {error}") from error
        given = {**from_file, **given}
    for key in {"labels", "lambda_regions"} & set(given):
        given[key] = [name for names in given[key] for name in names]
    settings = Settings(**{key: _frozen(value) for key, value in given.items()})
    _check_together(settings)
    return settings


def _frozen(value: Any) -> Any:
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else value


def _check_together(settings: Settings) -> None:
    """Refuse options that contradict each other.

    Raises
    ------
    UsageError
        With both options named.
    """
    if settings.omp_nthreads is not None and settings.omp_nthreads > settings.nprocs:
        raise UsageError(
            f"--omp-nthreads {settings.omp_nthreads} is more than --nprocs {settings.nprocs}: "
            "one step cannot use more threads than the whole run"
        )
    if settings.reports_only and settings.boilerplate_only:
        raise UsageError("--reports-only and --boilerplate-only exclude each other")
    if settings.prefetch and settings.offline:
        raise UsageError("--prefetch needs the network that --offline refuses; leave one of them out")
    if settings.longitudinal and settings.subject_anatomical_reference == "first-lex":
        raise UsageError(
            "--longitudinal compares sessions, and --subject-anatomical-reference first-lex keeps only one; "
            "leave one of the two out"
        )
    names = [name for name, _ in settings.derivatives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"--derivatives: the name {', '.join(twice)} is given twice; write NAME=PATH")
    tasks = [name for name, _ in settings.few_shot]
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"--few-shot: each task needs a NAME of its own, found {', '.join(tasks)}")
    if settings.analysis_level == "group":
        _check_group(settings)


def _check_group(settings: Settings) -> None:
    """Refuse options that only the participant level obeys."""
    obeyed = {
        "bids_dir", "output_dir", "analysis_level", "participant_label", "session_label", "config_file",
        "offline", "verbose", "run_uuid", "work_dir", "controls",
    }  # fmt: skip
    defaults = Settings(bids_dir=settings.bids_dir, output_dir=settings.output_dir, analysis_level="group")
    ignored = sorted(
        option
        for f in dataclasses.fields(settings)
        if f.name not in obeyed and getattr(settings, f.name) != getattr(defaults, f.name)
        for option in [_option_of(f.name)]
    )
    if ignored:
        raise UsageError(f"the group level takes no {', '.join(ignored)}; leave it out")


def _option_of(dest: str) -> str:
    """Return the first long option that sets a field."""
    return next(
        option
        for action in build_parser()._actions
        if action.dest == dest
        for option in action.option_strings
        if option.startswith("--")
    )
