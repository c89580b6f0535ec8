"""The order of events in a run, from the checks to the last line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperprep import __version__
from hyperprep.bidsapp.boilerplate import write_boilerplate
from hyperprep.bidsapp.config import Settings
from hyperprep.bidsapp.description import describe_output
from hyperprep.bidsapp.few_shot import tell_own_examples
from hyperprep.bidsapp.graph import build_workflow, write_graph
from hyperprep.bidsapp.logs import LOGGER, logging_to, shared_log_dir, write_run_record
from hyperprep.bidsapp.longitudinal import prepare_sessions
from hyperprep.bidsapp.participants import misnamed_participants
from hyperprep.bidsapp.places import check_locations, check_writable
from hyperprep.bidsapp.preflight import Plan, preflight
from hyperprep.bidsapp.query import ParticipantInput, SessionInput, find_inputs
from hyperprep.bidsapp.run import execute
from hyperprep.exceptions import HyperPrepError

SUCCESS, SOME_FAILED = 0, 1


@dataclass
class Reports:
    """Writes the participants' reports, each as soon as its participant is done.

    Parameters
    ----------
    settings
        Settings of this run.
    """

    settings: Settings
    written: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def write(self, label: str, errors: Sequence[str] = ()) -> None:
        """Write one report; what goes wrong with it is noted and does not stop the run."""
        from hyperprep.bidsapp.reports.participant import write_participant_report

        try:
            self.written[label] = write_participant_report(
                self.settings.output_dir,
                label,
                run_uuid=self.settings.run_uuid,
                settings=self.settings.as_mapping(),
                errors=tuple(errors),
            )
        except Exception as error:
            LOGGER.debug("traceback of the report of sub-%s", label, exc_info=True)
            self.written.pop(label, None)
            reason = f"the report could not be written: {type(error).__name__}: {error}"
            self.failures.setdefault(label, []).append(reason)


def run_app(settings: Settings) -> int:
    """Do what the settings ask for.

    Parameters
    ----------
    settings
        Settings of this run.

    Returns
    -------
    int
        0 if everything was written, 1 if a participant or a report failed.

    Raises
    ------
    HyperPrepError
        If the run cannot start.
    """
    if settings.prefetch:
        from hyperprep.bidsapp.prefetch import run_prefetch

        return run_prefetch(settings)
    if settings.analysis_level == "group":
        from hyperprep.bidsapp.group import run_group

        check_locations(settings)
        check_writable(settings.output_dir, "output")
        describe_output(settings)
        return run_group(settings)
    plan = preflight(settings)
    describe_output(settings)
    log = shared_log_dir(settings) / "hyperprep.log"
    with logging_to(log, settings.verbose):
        LOGGER.info(
            "HyperPrep %s, run %s: %d participant(s)", __version__, settings.run_uuid, len(plan.participants)
        )
        LOGGER.debug("settings: %s", dict(settings.as_mapping()))
        if settings.reports_only:
            return _finish(settings, _without_results(settings, plan.participants), Reports(settings), log)
        for folder in misnamed_participants(settings.bids_dir):
            LOGGER.warning(
                "the folder %s is left out: a BIDS label has letters and digits only; rename it", folder
            )
        if plan.verdict.remark:
            LOGGER.warning("%s", plan.verdict.remark)
        inputs = check_scans(find_inputs(settings, plan.participants), settings.nprocs)
        if settings.longitudinal:
            inputs = tuple(prepare_sessions(participant, settings.bids_dir) for participant in inputs)
        inputs = tell_own_examples(inputs, plan.few_shot)
        for participant in inputs:
            _tell(participant, plan.verdict.participants or {}, settings)
        return _process(settings, plan, inputs, log)


def _process(settings: Settings, plan: Plan, inputs: Sequence[ParticipantInput], log: Path) -> int:
    """Build the graph, and do with it what is asked for."""
    workflow = build_workflow(settings, plan, inputs)
    citation = write_boilerplate(workflow.visit_desc(), settings.output_dir / "logs")
    write_boilerplate(workflow.visit_desc(), shared_log_dir(settings))  # runs side by side have one each
    if settings.write_graph:
        LOGGER.info("graph of the workflow: %s", write_graph(workflow, settings))
    if settings.boilerplate_only:
        print(citation.read_text())
        print(f"HyperPrep wrote the methods text only: {citation}")
        return SUCCESS
    errors = {participant.label: participant.problems for participant in inputs}
    runnable = [participant.label for participant in inputs if participant.sessions]
    reports = Reports(settings)
    if runnable and not (settings.stop_on_first_crash and any(errors.values())):

        def report(label: str) -> None:
            reports.write(label, errors[label])

        for label, reasons in execute(workflow, runnable, settings, plan.plugin, on_done=report).items():
            errors[label] = (*errors[label], *reasons)
    elif runnable:
        stopped = "not started, because of --stop-on-first-crash and a failure elsewhere"
        errors = {label: found or (stopped,) for label, found in errors.items()}
    return _finish(settings, errors, reports, log)


def _without_results(settings: Settings, participants: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name the participants of whom there is nothing to report."""
    return {
        label: ()
        if (settings.output_dir / f"sub-{label}" / "figures").is_dir()
        else (f"there are no results of sub-{label} in {settings.output_dir}; run it without --reports-only",)
        for label in participants
    }


def check_scans(inputs: Sequence[ParticipantInput], threads: int) -> tuple[ParticipantInput, ...]:
    """Read every scan and mask once, so that a bad one is told in words before anything is computed.

    Parameters
    ----------
    inputs
        Participants with their sessions.
    threads
        How many files are read at the same time.

    Returns
    -------
    tuple of ParticipantInput
        With the number of each scan's voxels, without the sessions whose scan cannot be used; the reasons are
        among the problems.
    """
    sessions = [session for participant in inputs for session in participant.sessions]
    with ThreadPoolExecutor(max_workers=max(1, min(threads, 2))) as pool:
        found = dict(zip(map(id, sessions), pool.map(_checked, sessions), strict=True))
    checked = []
    for participant in inputs:
        results = [found[id(session)] for session in participant.sessions]
        good = tuple(result for result in results if isinstance(result, SessionInput))
        bad = tuple(result for result in results if isinstance(result, str))
        checked.append(replace(participant, sessions=good, problems=(*participant.problems, *bad)))
    return tuple(checked)


def _checked(session: SessionInput) -> SessionInput | str:
    """Return a session with its scan's number of voxels, or say why it cannot be processed."""
    from hyperprep.models.spatial.images import read_dseg, read_mask, read_scan

    scan = session.scan
    for path in filter(None, (scan.t1w, scan.mask, scan.dseg)):
        if path.is_symlink() and not path.exists():
            return (
                f"{path} is a link whose target is not there; if the data set is kept by DataLad or "
                f"git-annex, fetch it by: datalad get {path.name}"
            )
    try:
        image = read_scan(scan.t1w)
        if scan.mask is not None:
            read_mask(scan.mask, like=image)
        if scan.dseg is not None:
            read_dseg(scan.dseg, like=image)
    except HyperPrepError as error:
        return str(error)
    return replace(session, scan=replace(scan, voxels=math.prod(image.shape)))


def _tell(participant: ParticipantInput, findings: Mapping[str, tuple[str, ...]], settings: Settings) -> None:
    """Say what is processed and what is not, on the screen and in the participant's log folder."""
    label = participant.label
    for session in participant.sessions:
        LOGGER.info("sub-%s: processing %s", label, session.scan.t1w)
    for remark in participant.remarks:
        LOGGER.info("sub-%s: %s", label, remark)
    for finding in findings.get(label, ()):
        LOGGER.warning("sub-%s: the BIDS validator says: %s", label, finding)
    for problem in participant.problems:
        LOGGER.error("sub-%s: %s", label, problem)
    write_run_record(
        settings,
        label,
        {
            "scans": [str(session.scan.t1w) for session in participant.sessions],
            "remarks": list(participant.remarks),
            "validator": list(findings.get(label, ())),
            "problems": list(participant.problems),
        },
    )


def _finish(settings: Settings, errors: Mapping[str, Sequence[str]], reports: Reports, log: Path) -> int:
    """Write the reports that are not written yet, and the last line of the run."""
    for label, found in errors.items():
        if found or label not in reports.written:
            reports.write(label, found)
    failed = {label: [*found, *reports.failures.get(label, ())] for label, found in errors.items()}
    failed = {label: found for label, found in failed.items() if found}
    for label, found in failed.items():
        for reason in found:
            LOGGER.error("sub-%s failed: %s", label, reason)
    pages = [reports.written[label] for label in errors if label in reports.written]
    what = "wrote the reports of" if settings.reports_only else "processed"
    print(last_line(what, len(errors), sorted(failed), pages, log))
    return SOME_FAILED if failed else SUCCESS


def last_line(what: str, total: int, failed: Sequence[str], pages: Sequence[Path], log: Path) -> str:
    """Say in words what a run did and where the reports are.

    Examples
    --------
    >>> last_line("processed", 2, ["02"], [Path("/out/sub-01.html")], Path("/out/a.log"))
    'HyperPrep processed 1 of 2 participants; failed: sub-02. Report: /out/sub-01.html. Log: /out/a.log'
    """
    people = f"{total - len(failed)} of {total} participant{'s' if total != 1 else ''}"
    trouble = f"; failed: {', '.join(f'sub-{label}' for label in failed)}" if failed else ""
    if len(pages) == 1:
        where = f"Report: {pages[0]}"
    elif pages:
        where = f"Reports: {pages[0].parent}/sub-*.html"
    else:
        where = "No report could be written"
    return f"HyperPrep {what} {people}{trouble}. {where}. Log: {log}"
